"""Which training labels are probably wrong, from how their margins went while the model was trained."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, cast

import numpy as np

from sightline.audit.suspects import suspect_table
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import pandas as pd
    from numpy.typing import ArrayLike

_FITTED = 50_000  # values that the mixture is fitted to: even quantiles of all
_STRONG = 10.0  # difference of BIC that Kass & Raftery (1995) call very strong


def suspects_from_dynamics(
    labels: ArrayLike, aum: ArrayLike, mean_probability: ArrayLike, suggested: ArrayLike
) -> pd.DataFrame:
    """Return how suspicious each training label is, a row per image in data order.

    labels, suggested: (N,) classes; suggested is what the model says in the label's place. aum: (N,) area
    under the margin, in logits (Pleiss 2020). mean_probability: (N,) of the label over the epochs. NaN where
    an image was not trained on.

    Columns: index, label, suggested, suspicion, posterior, issue. suspicion is 1 / (1 + exp(aum)): the share
    that the label's rival gets of the two at the mean margin. posterior is the probability that an image
    with a negative area belongs to the lower of two normal groups (0 for a positive one); its sum
    estimates the number of wrong labels. issue: a posterior above 1/2 and a mean probability below 1/2.

    Where we deviate: Pleiss et al. find the threshold by training again with a class of planted wrong labels.
    Here it comes from the areas alone, as where two fitted normal groups weigh the same, and only if there
    are two: they fit very much better than one (BIC), the upper one was learnt, and the lower one was not
    (its mean is negative). A clean set has no issues, and neither has one whose few wrong labels are lost
    among many hard images: they still rank high.
    """
    labels, aum, mean_probability, suggested = map(np.asarray, (labels, aum, mean_probability, suggested))
    if not labels.shape == aum.shape == mean_probability.shape == suggested.shape or labels.ndim != 1:
        raise SightlineError(
            f"labels are {labels.shape}, aum {aum.shape}, mean_probability {mean_probability.shape} and "
            f"suggested {suggested.shape}; all need the same (N,)"
        )
    posterior = _low_group(aum.astype(np.float64))
    issue = (posterior > 0.5) & (mean_probability < 0.5)
    table = suspect_table(labels, suggested, 1 / (1 + np.exp(np.clip(aum, -700, 700))), issue)
    table.insert(4, "posterior", posterior)
    return table


def _low_group(aum: np.ndarray) -> np.ndarray:
    """The probability that each image belongs to the lower of two normal groups, (N,); 0 if aum >= 0."""
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    posterior, seen = np.zeros(len(aum)), np.sort(aum[~np.isnan(aum)])
    if len(seen) > _FITTED:
        seen = seen[np.linspace(0, len(seen) - 1, _FITTED).astype(int)]
    if len(seen) < 20 or seen[0] >= 0 or seen[0] == seen[-1]:
        return posterior
    values, spread = seen[:, None], seen.var()
    start = np.quantile(seen, [0.01, 0.5])[:, None]  # few wrong labels below, the rest around the median
    two = GaussianMixture(
        2,
        weights_init=np.array([0.02, 0.98]),
        means_init=start,
        precisions_init=np.full((2, 1, 1), 1 / spread),
        reg_covar=1e-6 * spread,
        tol=1e-5,
        max_iter=1000,
        random_state=0,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # where it still moves, the test below decides
        two.fit(values)
    means = cast(np.ndarray, two.means_)[:, 0]
    gain = GaussianMixture(1).fit(values).bic(values) - two.bic(values)
    if gain < _STRONG or not means.min() < 0 < means.max():
        return posterior
    below = np.flatnonzero((aum < 0) & (aum < means.max()))
    if len(below):
        posterior[below] = two.predict_proba(aum[below, None])[:, means.argmin()]
    return posterior
