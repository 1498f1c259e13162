"""Which images are trained on and which are tested: by class, by group, near-duplicates kept together.

A group is what must not be cut: the pictures of one patient, of one film, of one second. A model that has
seen a picture's sister in training is measured too well.
"""

from __future__ import annotations

import warnings

import numpy as np

from sightline.errors import InputError

_SIDE = 8  # of the small grey picture that is compared
_BITS = 3  # bits of the 64 that near-duplicates may differ in
_LEVELS = 6.0  # grey levels that their small pictures may differ in, on average
_CROWD = 500  # images of one part of the hash; in a larger crowd each is compared with those after it alone


def grouped_split(
    labels: np.ndarray, groups: np.ndarray, *, test_fraction: float, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the indices of a training and a test split that no group is in both of, in ascending order.

    Groups are dealt out one by one, the least balanced first and equals in random order: one is tested if
    that brings the tested share of each class nearer to `test_fraction`, and leaves each class something to
    train on.

    Args:
        labels: (N,) integers from 0 on.
        groups: (N,) of any kind.
        test_fraction: Share that is tested.
        seed: Of the order.

    Raises:
        InputError: There are too few groups for a test split.

    >>> train, test = grouped_split(np.array([0, 0, 1, 1]), np.array(list("abab")), test_fraction=0.5, seed=0)
    >>> sorted([train.tolist(), test.tolist()])
    [[0, 2], [1, 3]]
    """
    names, inverse = np.unique(groups, return_inverse=True)
    counts = np.zeros((len(names), int(labels.max(initial=0)) + 1), int)  # (G, C)
    np.add.at(counts, (inverse, labels), 1)
    order = np.random.default_rng(seed).permutation(len(names))
    order = order[np.argsort(-counts[order].std(axis=1), kind="stable")]
    totals = counts.sum(axis=0)
    tested, taken = np.zeros(len(names), bool), np.zeros(len(totals), int)

    def miss(of: np.ndarray) -> float:
        share = np.divide(of, totals, out=np.full(len(totals), test_fraction), where=totals > 0)
        return float(((share - test_fraction) ** 2).sum())

    for number in order:
        with_it = taken + counts[number]
        if (with_it[counts[number] > 0] < totals[counts[number] > 0]).all() and miss(with_it) < miss(taken):
            tested[number], taken = True, with_it
    if not tested.any():
        raise InputError(
            f"{len(names)} groups leave no test split of about {test_fraction:g} with each class trained on; "
            "it needs more groups, or a test_fraction nearer to theirs"
        )
    return np.flatnonzero(~tested[inverse]), np.flatnonzero(tested[inverse])


def fold_indices(
    labels: np.ndarray, folds: int, *, seed: int, groups: np.ndarray | None = None, rare: bool = False
) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return for each of k folds the indices of the rest and of the fold, classes in like shares.

    Args:
        labels: (N,) integers from 0 on.
        folds: How many.
        seed: Of the order.
        groups: (N,), no group is in two folds.
        rare: Whether a class may have fewer images than there are folds, and miss some of them; then there
            are as many folds as the largest class has images, or as there are groups, if that is fewer.

    Raises:
        InputError: Fewer than 2 folds, or more than fit.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    counts = np.bincount(labels)
    most = int(counts.max() if rare else counts[counts > 0].min())
    what = f"the {'largest' if rare else 'rarest'} class has {{}} images"
    if groups is not None and (rare or len(np.unique(groups)) < most):
        most, what = len(np.unique(groups)), "there are {} groups"
    folds = min(folds, most) if rare and most >= 2 else folds
    if not 2 <= folds <= most:
        raise InputError(f"{folds} folds; {what.format(most)}, so 2 to {most} fit")
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of a class that is in some folds only
        return list(kind(folds, shuffle=True, random_state=seed).split(labels, labels, groups))


def near_duplicate_groups(small: np.ndarray) -> np.ndarray:
    """Return the number of the group of each image, (N,): near-duplicates and their near-duplicates are one.

    Two images are near-duplicates if 64 bits that say where their grey picture gets brighter to the right
    differ in at most 3, and the small pictures in at most 6 of 255 levels on average.

    Args:
        small: (N, 8, 9) float, as `small_pictures` makes them.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    bits = (
        small[:, :, 1:] > small[:, :, :-1] + 0.5
    )  # (N, 8, 8); half a level keeps flat parts apart from noise
    words = np.packbits(bits.reshape(len(small), -1), axis=1)  # (N, 8)
    pairs = [np.zeros((0, 2), int)]
    for part in range(_BITS + 1):  # at most 3 wrong bits leave one of four parts as it is
        keys = words[:, 2 * part].astype(int) * 256 + words[:, 2 * part + 1]
        order = np.argsort(keys, kind="stable")
        for crowd in np.split(order, np.flatnonzero(np.diff(keys[order])) + 1):
            pairs.append(_near(crowd, small, bits))
    first, second = np.concatenate(pairs).T
    links = coo_array((np.ones(len(first)), (first, second)), shape=(len(small),) * 2)
    return connected_components(links, directed=False)[1]


def small_pictures(images: np.ndarray) -> np.ndarray:
    """Return grey pictures of 8 x 9 cells, (N, 8, 9) float32 in [0, 255], of images (N, H, W, 3) uint8."""
    height, width = images.shape[1:3]
    grey = images.mean(axis=3, dtype=np.float32)  # (N, H, W)
    rows = (np.arange(_SIDE + 1) * height) // _SIDE
    columns = (np.arange(_SIDE + 2) * width) // (_SIDE + 1)
    cells = np.empty((len(images), _SIDE, _SIDE + 1), np.float32)
    for i in range(_SIDE):
        for j in range(_SIDE + 1):
            top, left = min(rows[i], height - 1), min(columns[j], width - 1)
            cells[:, i, j] = grey[
                :, top : max(rows[i + 1], top + 1), left : max(columns[j + 1], left + 1)
            ].mean(axis=(1, 2))
    return cells


def _near(crowd: np.ndarray, small: np.ndarray, bits: np.ndarray) -> np.ndarray:
    """Pairs (K, 2) of near-duplicates among the images of one crowd."""
    found = [np.zeros((0, 2), int)]
    for place, one in enumerate(crowd[:-1]):
        others = crowd[place + 1 :] if len(crowd) <= _CROWD else crowd[place + 1 : place + 2]
        alike = (bits[others] != bits[one]).sum(axis=(1, 2)) <= _BITS
        alike &= np.abs(small[others] - small[one]).mean(axis=(1, 2)) <= _LEVELS
        found.append(np.stack([np.full(alike.sum(), one), others[alike]], axis=1))
    return np.concatenate(found)
