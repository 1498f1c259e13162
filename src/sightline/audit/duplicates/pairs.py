"""Near-duplicates within and between splits: exact, mirrored, brighter, recoloured and noisy copies.

    found = find_near_duplicates(data.train, data.test)
    found.pairs                                        # which is a copy of which, the most alike first
    accuracy_without(found.leaked, predictions.correct)

Pictures that are equal byte for byte are found first, by hash. Of the others, all pairs are compared by their
whitened fingerprints (`fingerprints`), as they are and mirrored, by matrix products in blocks: the search is
exact. Candidates are then held against the pixels at full resolution. The similarity of a pair is the
lesser of the two, so that neither light and shade nor a common frame is enough.

From where on pictures count as copies is no constant: it is estimated from the data. Every picture is also
compared with all others turned upside down: no copy is made like that, so these decoys show how alike two
pictures come to be by chance. A pair is reported where at most 2 in 1,000 of the reported are expected by
chance (`chance_threshold`), among upright and among mirrored pairs. Scenes with a horizon are more alike
upright than upside down, which decoys cannot show: hence 2 in 1,000 rather than 5 in 100.

With features of a trained model, copies that were moved, cropped or framed are found as well (`shifted`).

On CIFAR-10, 3.2 % of the test images have a near-duplicate in training by this measure, with features 3.7 %;
Barz & Denzler (2020), "Do we train on test data?", arXiv:1902.00423, counted 3.3 % by eye.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from sightline import logs
from sightline.audit.duplicates.candidates import Pictures, alike_pairs, shifted_pairs
from sightline.audit.result import AccuracyWithout, DuplicateKind, DuplicatePair, Duplicates, SplitName
from sightline.data import Split
from sightline.errors import InputError
from sightline.stats import wilson_interval

if TYPE_CHECKING:
    import pandas as pd


EXACT, MIRRORED, ALTERED = (kind.value for kind in DuplicateKind)
TRAIN, TEST = (name.value for name in SplitName)
_LISTED = 200  # pairs


@dataclass(frozen=True, eq=False)
class NearDuplicates:
    """What `find_near_duplicates` found.

    Attributes:
        pairs: One row each, the most alike first: a_split, a, b_split, b ("train" or "test" and the index
            there; training before test), similarity in (0, 1], kind (of `DuplicateKind`), same_label. Of
            several exact copies each is paired with the first alone, which stands for all in other pairs.
        train_groups: (N_train,) number of the group of alike pictures, over both splits; -1 for none.
        test_groups: (N_test,) the same.
        train_nearest: (N_train,) the most alike test image, -1 for none.
        test_nearest: (N_test,) the most alike training image, -1 for none.
        expected_by_chance: How many of the pairs are expected to be no copies.
    """

    pairs: pd.DataFrame
    train_groups: np.ndarray
    test_groups: np.ndarray
    train_nearest: np.ndarray
    test_nearest: np.ndarray
    expected_by_chance: float

    @property
    def leaked(self) -> np.ndarray:
        """Which test images have a near-duplicate in the training split, (N_test,) bool."""
        return self.test_nearest >= 0

    @property
    def groups(self) -> int:
        """How many groups of alike pictures there are."""
        return int(max(self.train_groups.max(initial=-1), self.test_groups.max(initial=-1))) + 1

    @property
    def copies(self) -> np.ndarray:
        """All training images but the first of each group, as indices."""
        members = np.flatnonzero(self.train_groups >= 0)
        _, first = np.unique(self.train_groups[members], return_index=True)
        return np.delete(members, first)

    def describe(self, correct: np.ndarray) -> Duplicates:
        """Return the part of the audit's result. correct: (N_test,) bool."""
        return Duplicates(
            count=len(self.pairs),
            pairs=tuple(DuplicatePair(*row) for row in self.pairs.head(_LISTED).itertuples(index=False)),
            expected_by_chance=self.expected_by_chance,
            leaked=int(self.leaked.sum()),
            groups=self.groups,
            accuracy_without=accuracy_without(self.leaked, correct),
        )


@logs.stage("audit: searching near-duplicates")
def find_near_duplicates(
    train: Split, test: Split, *, features: tuple[np.ndarray, np.ndarray] | None = None, seed: int = 0
) -> NearDuplicates:
    """Return the near-duplicates within `train`, within `test` and between them.

    Memory: about 10 KB per picture.

    Args:
        train: The training split.
        test: The test split.
        features: Of a trained model for `train` and `test`, (N, D) each; with them, copies that were moved,
            cropped or framed are looked for as well (`shifted`).
        seed: Of the sample from which it is estimated how deep to search.

    Raises:
        InputError: The images of the two splits differ in size, or features do not fit.
    """
    import pandas as pd

    if train.images.shape[1:] != test.images.shape[1:]:
        raise InputError(
            f"training images are {train.images.shape[1:3]} and test images {test.images.shape[1:3]} pixels; "
            "near-duplicates need one size: load both splits with the same image_size"
        )
    pictures = Pictures([train.images, test.images])
    first = pictures.first_copies()  # (N,)
    own = first == np.arange(len(first))
    copies = np.flatnonzero(~own)
    links = pd.DataFrame({"a": first[copies], "b": copies, "similarity": 1.0, "kind": EXACT})
    found = alike_pairs(pictures, np.flatnonzero(own), seed=seed)
    if features is not None:
        found.append(shifted_pairs(pictures, np.flatnonzero(own), _joined(features, (train, test))))
    for one in found:
        kinds = np.where(one.mirrored, MIRRORED, ALTERED)
        more = pd.DataFrame({"a": one.a, "b": one.b, "similarity": one.similarity, "kind": kinds})
        links = pd.concat([links, more]) if len(links) else more
    # A symmetric picture is found twice; upright comes first, and stays where both are as alike.
    links = links.sort_values("similarity", ascending=False, kind="stable").drop_duplicates(["a", "b"])
    groups = _components(links, len(first))
    every = np.arange(len(first))
    in_test = _nearest(links, first, every[len(train) :])
    labels = np.concatenate([train.labels, test.labels])
    return NearDuplicates(
        pairs=_named(links, labels, len(train)),
        train_groups=groups[: len(train)],
        test_groups=groups[len(train) :],
        train_nearest=np.where(in_test[: len(train)] >= 0, in_test[: len(train)] - len(train), -1),
        test_nearest=_nearest(links, first, every[: len(train)])[len(train) :],
        expected_by_chance=sum(one.expected_by_chance for one in found),
    )


def _joined(features: tuple[np.ndarray, np.ndarray], splits: tuple[Split, Split]) -> np.ndarray:
    shapes = [np.shape(each) for each in features]
    counts = [len(split) for split in splits]
    if any(len(shape) != 2 for shape in shapes) or [shape[0] for shape in shapes] != counts:
        raise InputError(
            f"features are {' and '.join(map(str, shapes))}; {counts[0]} training and {counts[1]} test "
            f"images need ({counts[0]}, D) and ({counts[1]}, D)"
        )
    if shapes[0][1] != shapes[1][1]:
        raise InputError(
            f"features have {shapes[0][1]} and {shapes[1][1]} columns; both splits need those of one model"
        )
    return np.concatenate(features)


def _named(links: pd.DataFrame, labels: np.ndarray, train: int) -> pd.DataFrame:
    import pandas as pd

    columns: dict[str, object] = {}
    for end in ("a", "b"):
        index = links[end].to_numpy(np.int64)
        columns[f"{end}_split"] = np.where(index < train, TRAIN, TEST)
        columns[end] = np.where(index < train, index, index - train)
    columns["similarity"] = np.clip(links["similarity"].to_numpy(float), 0, 1)
    columns["kind"] = links["kind"].to_numpy()
    columns["same_label"] = labels[links["a"].to_numpy(np.int64)] == labels[links["b"].to_numpy(np.int64)]
    return pd.DataFrame(columns)


def _components(links: pd.DataFrame, count: int) -> np.ndarray:
    """Number of the connected group of each picture, in the order of their first pictures; -1 alone."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    ends = links["a"].to_numpy(np.int64), links["b"].to_numpy(np.int64)
    graph = coo_array((np.ones(len(links), bool), ends), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    linked = np.unique(np.concatenate(ends))
    groups = np.full(count, -1)
    _, first, number = np.unique(component[linked], return_index=True, return_inverse=True)
    groups[linked] = np.argsort(np.argsort(first))[number]
    return groups


def _nearest(links: pd.DataFrame, first: np.ndarray, members: np.ndarray) -> np.ndarray:
    """The most alike of `members` for each picture, (N,); -1 for none, an exact copy before all others.

    links: the most alike first; their ends stand for all that are equal to them, as `first` (N,) shows.
    """
    lowest = np.full(len(first), -1)
    lowest[first[members[::-1]]] = members[::-1]  # of equal ones the lowest, which is written last
    ends = links[["a", "b"]].to_numpy(np.int64)
    source, target = ends.ravel(), ends[:, ::-1].ravel()  # both ways, still the most alike first
    known = lowest[target] >= 0
    picture, chosen = np.unique(source[known], return_index=True)
    nearest = lowest.copy()
    nearest[picture] = np.where(lowest[picture] >= 0, lowest[picture], lowest[target[known][chosen]])
    return nearest[first]


def accuracy_without(left_out: np.ndarray, correct: np.ndarray) -> AccuracyWithout | None:
    """Return the accuracy without the images that are to be left out, such as leaked ones.

    Args:
        left_out: (N,) bool.
        correct: (N,) bool.

    Returns:
        None when nothing is left.

    Raises:
        InputError: Shapes differ.

    >>> found = accuracy_without(np.array([True, False, False]), np.array([True, True, False]))
    >>> found.value, found.n
    (0.5, 2)
    """
    if np.shape(left_out) != np.shape(correct):
        raise InputError(
            f"left_out is {np.shape(left_out)} and correct {np.shape(correct)}; both need the same (N,)"
        )
    rest = np.asarray(correct, bool)[~np.asarray(left_out, bool)]
    if not len(rest):
        return None
    return AccuracyWithout(float(rest.mean()), wilson_interval(int(rest.sum()), len(rest)), len(rest))
