"""A map of the images: which look alike to the network lie side by side.

t-SNE (van der Maaten & Hinton 2008) by scikit-learn, which is there anyway: 10,000 images take about as long
as two passes of a small network over them. UMAP and PaCMAP would each bring a compiler along.
"""

from __future__ import annotations

import numpy as np

from sightline import logs
from sightline.audit.neighbors import nearest_neighbors
from sightline.errors import InputError

_FITTED = 10_000  # images that are placed by t-SNE itself
_DIMENSIONS = 50
_FEWEST = 10
_STEPS = 400
_AROUND = 3


@logs.stage("audit: placing the images on a map")
def embedding_map(features: np.ndarray, *, seed: int = 0) -> np.ndarray | None:
    """Return a place for each image, (N, 2) float32 in [0, 1]; None for fewer than ten.

    Neighbours by cosine become neighbours in the plane; distances between groups mean little. Of more than
    10,000 images a sample is placed, and each of the others between the three of it that are most like it.
    The same features and seed give the same map.

    Args:
        features: (N, D), finite.
        seed: Of the sample, and of t-SNE.

    Raises:
        InputError: The features are no finite table.
    """
    from sklearn.decomposition import PCA
    from sklearn.manifold import TSNE

    features = np.asarray(features, np.float32)
    if features.ndim != 2 or not np.isfinite(features).all():
        raise InputError(f"features are {features.shape}, or not finite; a finite table (N, D) is needed")
    if len(features) < _FEWEST:
        return None
    features = features / np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-12)
    count = len(features)
    fitted = np.arange(count)
    if count > _FITTED:
        fitted = np.sort(np.random.default_rng(seed).choice(count, _FITTED, replace=False))
    chosen = features[fitted]
    if min(chosen.shape) > _DIMENSIONS:
        chosen = PCA(_DIMENSIONS, svd_solver="randomized", random_state=seed).fit_transform(chosen)
    if np.ptp(chosen, axis=0).max() == 0:  # all alike
        return np.full((count, 2), 0.5, np.float32)
    perplexity = min(30.0, (len(fitted) - 1) / 3)
    start = (
        PCA(2, svd_solver="full").fit_transform(chosen) if chosen.shape[1] > 1 else np.repeat(chosen, 2, 1)
    )
    start = (1e-4 * start / max(start[:, 0].std(), 1e-12)).astype(np.float32)
    tsne = TSNE(
        perplexity=perplexity,
        init=start,  # pyright: ignore[reportArgumentType]  # an array too, as its documentation says
        max_iter=_STEPS,
        random_state=seed,
        n_jobs=1,
    )
    placed = tsne.fit_transform(np.ascontiguousarray(chosen, np.float32))
    places = np.zeros((count, 2), np.float32)
    places[fitted] = placed
    if len(fitted) < count:
        rest = np.setdiff1d(np.arange(count), fitted)
        near = nearest_neighbors(features[rest], features[fitted], k=_AROUND)
        places[rest] = placed[near.indices].mean(axis=1)
    low, high = places.min(axis=0), places.max(axis=0)
    return ((places - low) / np.maximum((high - low).max(), 1e-12)).astype(np.float32)
