"""Conditions that an image can meet, from which slices are made, with the words to name them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline.audit.attributes import CELLS
from sightline.audit.search import unit_rows
from sightline.errors import SightlineError

if TYPE_CHECKING:
    import pandas as pd

WORDS = {
    "brightness": ("that are dark", "that are bright"),
    "contrast": ("of low contrast", "of high contrast"),
    "saturation": ("of pale colours", "of strong colours"),
    "colourfulness": ("of few colours", "of many colours"),
    "warmth": ("of cold colours", "of warm colours"),
    "sharpness": ("that are smooth", "that are full of fine detail"),
    "entropy": ("that are plain", "of many shades"),
    "area": ("whose evidence is a small spot", "whose evidence is spread widely"),
    "offset": ("whose evidence lies near the middle", "whose evidence lies off the middle"),
    "border": ("whose evidence lies away from the border", "whose evidence lies at the border"),
    "cell_mass": ("whose evidence lies in no one place", "whose evidence lies in one place"),
    "background": ("whose evidence lies on the object", "whose evidence lies on the background"),
}
"""What images with a low and with a high value of an attribute are called."""

EVIDENCE = ("area", "offset", "border", "cell", "cell_mass", "background")
"""Kinds that speak of the heat map: they say nearly the same, so no two of them are combined."""

_ASIDE = ("border", "background")  # attributes of which a high value lies where no object has to be
GROUP = "group"  # the kind of conditions that are clusters of features
_SIDES = {"top": "at", "bottom": "at", "left": "on", "right": "on"}
_CELLS_WORDS = [f"whose evidence lies {_SIDES.get(name, 'in')} the {name}" for name in CELLS]
_DIMENSIONS = 32  # of features that clusters are made in
_PER_CLUSTER = 40  # images, on average
_CLUSTERS = 40  # at most


@dataclass(frozen=True, eq=False)
class Condition:
    """What an image can be described by.

    kind: conditions of one kind are never combined. words: end a sentence that begins with "images".
    members: (N,) bool, the images that meet it. aside: whether it says that evidence lies where no
    object has to be: at the border, in a corner, on the background.
    """

    kind: str
    words: str
    members: np.ndarray
    aside: bool = False


def class_conditions(
    labels: np.ndarray, predicted: np.ndarray, class_names: Sequence[str]
) -> list[Condition]:
    """Return a condition for each label and for each predicted class that occurs."""
    kinds = (("label", "labelled", labels), ("predicted", "called", predicted))
    return [
        Condition(kind, f"{verb} “{class_names[value]}”", classes == value)
        for kind, verb, classes in kinds
        for value in np.unique(classes)
    ]


def attribute_conditions(attributes: pd.DataFrame, *, share: float = 0.2) -> list[Condition]:
    """Return, for each column of numbers, the images in its lowest and in its highest `share`.

    A column `cell` of `evidence_attributes` gives a condition for each cell. A name that is not in `WORDS`
    makes "of low NAME" and "of high NAME". A value that is NaN is in neither; bounds are included, so that
    many equal values at a bound make a larger group, and a column of equal values makes none.

    Raises SightlineError for a column that is not of numbers.
    """
    found = []
    for name in map(str, attributes.columns):
        values = attributes[name].to_numpy()
        if not (np.issubdtype(values.dtype, np.number) or values.dtype == bool):
            raise SightlineError(
                f"attribute {name!r} is {values.dtype}; slices need numbers: one column of 0 and 1 per value"
            )
        if name == "cell":
            found += [
                Condition("cell", words, values == cell, aside=CELLS[cell] != "centre")
                for cell, words in enumerate(_CELLS_WORDS)
                if (values == cell).any()
            ]
            continue
        known = values[~np.isnan(values.astype(float))]
        if not len(known) or known.min() == known.max():
            continue
        low, high = WORDS.get(name, (f"of low {name}", f"of high {name}"))
        bounds = np.quantile(known, [share, 1 - share])
        ends = ((low, values <= bounds[0], False), (high, values >= bounds[1], name in _ASIDE))
        found += [Condition(name, *end) for end in ends if end[1].sum() < len(known)]
    return found


def cluster_conditions(
    features: np.ndarray, labels: np.ndarray, class_names: Sequence[str], *, seed: int = 0
) -> list[Condition]:
    """Return groups of images that are alike in their features, (N, D), named by their commonest label.

    K-means on the leading principal components of the features' directions, right and wrong images
    together: whether an image was right is not looked at. About 40 images to a group, 40 groups at most.
    """
    from sklearn.cluster import KMeans
    from sklearn.decomposition import PCA

    count = min(_CLUSTERS, len(features) // _PER_CLUSTER)
    rows = unit_rows(features)
    count = min(count, len(np.unique(rows, axis=0)))
    if count < 2:
        return []
    dimensions = min(_DIMENSIONS, rows.shape[1], len(rows) - 1)
    projected = PCA(dimensions, svd_solver="full", random_state=seed).fit_transform(rows)
    clusters = KMeans(count, n_init=4, random_state=seed)  # pyright: ignore[reportArgumentType]
    group = clusters.fit_predict(projected)
    found = []
    for number in range(count):
        members = group == number
        if members.any():
            common = class_names[int(np.bincount(labels[members]).argmax())]
            words = f"that look alike to the model (group {number + 1}, mostly “{common}”)"
            found.append(Condition(GROUP, words, members))
    return found
