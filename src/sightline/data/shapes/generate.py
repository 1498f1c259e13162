"""The embedded data set: generated pictures of ten shapes, with faults planted on purpose.

Whoever looks for label errors, shortcuts or leaks can compare what was found with `PlantedTruth`.
"""

from __future__ import annotations

import numpy as np

from sightline.data.dataset import Dataset, Split
from sightline.data.shapes.drawing import SILHOUETTES, SIZE, draw
from sightline.data.shapes.truth import PlantedTruth
from sightline.errors import InputError

WRONG_SHARE = 0.02  # of the training labels
MARKED_TRAIN = 0.6  # of the training images of the shortcut's class
MARKED_TEST = 0.05  # of the test images of the other classes
LEAKED_SHARE = 0.04  # of the test images, or of the training images if they are fewer
MARK_BOX = (1, SIZE - 6, 6, SIZE - 1)  # top, left, bottom, right (end exclusive), pixels

_CHUNK = 250  # pictures drawn at once: they fit a processor's cache
_YELLOW, _BLACK = (255, 214, 10), (20, 20, 20)
_MARK = np.array(
    [[_BLACK if row in (2, column) else _YELLOW for column in range(5)] for row in range(5)], np.uint8
)
ALTERATIONS = ("exact", "mirrored", "brighter", "noisy")


def load_shapes(*, seed: int = 0, train: int = 4000, test: int = 1000) -> Dataset:
    """Return `train` and `test` generated 32x32 pictures of ten shapes, the same for the same seed.

    Classes are as even as the counts allow. The truth of what was planted is in `Dataset.truth`.

    Args:
        seed: Of the pictures and of what is planted.
        train: Training images.
        test: Test images.

    Raises:
        InputError: Fewer than 100 images in a split, which are too few to plant anything.

    >>> shapes = load_shapes(train=200, test=100)
    >>> shapes.class_names[:3], shapes.image_size, len(shapes.truth.wrong_labels)
    (('circle', 'square', 'triangle'), (32, 32), 4)
    """
    if min(train, test) < 100:
        raise InputError(f"shapes with {train} training and {test} test images; each split needs 100")
    rng = np.random.default_rng(seed)
    drawn = [_pictures(count, rng) for count in (train, test)]
    (images, labels, masks), (test_images, test_labels, test_masks) = drawn
    leaks, kinds = _plant_leaks(drawn, rng)
    wrong, true_labels = _plant_wrong_labels(labels, rng)
    marked_class, train_marks, test_marks = _choose_marked(labels, test_labels, wrong, leaks, rng)
    truth = PlantedTruth(
        train_masks=masks,
        test_masks=test_masks,
        wrong_labels=wrong,
        true_labels=true_labels,
        shortcut_class=marked_class,
        shortcut_train=_plant_marks(images, masks, train_marks),
        shortcut_test=_plant_marks(test_images, test_masks, test_marks),
        shortcut_box=MARK_BOX,
        leaks=leaks,
        leak_kinds=kinds,
    )
    splits = Split(images, labels), Split(test_images, test_labels)
    return Dataset("shapes", tuple(SILHOUETTES), *splits, source=f"generated, seed {seed}", truth=truth)


def _pictures(count: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    labels = rng.permutation(np.arange(count) % len(SILHOUETTES))
    images, masks = np.empty((count, SIZE, SIZE, 3), np.uint8), np.empty((count, SIZE, SIZE), bool)
    for label, silhouette in enumerate(SILHOUETTES.values()):
        members = np.flatnonzero(labels == label)
        for start in range(0, len(members), _CHUNK):
            chosen = members[start : start + _CHUNK]
            images[chosen], masks[chosen] = draw(silhouette, len(chosen), rng)
    return images, labels, masks


def _plant_leaks(
    drawn: list[tuple[np.ndarray, np.ndarray, np.ndarray]], rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Replace some test images with copies of training images of their class; return pairs and kinds."""
    (images, labels, masks), (test_images, test_labels, test_masks) = drawn
    count = round(LEAKED_SHARE * min(len(labels), len(test_labels)))
    targets = np.sort(rng.choice(len(test_labels), count, replace=False))
    kinds = np.array(ALTERATIONS)[np.arange(len(targets)) % len(ALTERATIONS)]
    free = rng.permutation(len(labels))
    sources = np.empty(len(targets), np.int64)
    for number, (target, kind) in enumerate(zip(targets, kinds, strict=True)):
        source = next(index for index in free if labels[index] == test_labels[target])
        free = free[free != source]  # no image leaks twice
        sources[number] = source
        test_images[target] = _altered(images[source], kind, rng)
        test_masks[target] = masks[source][:, ::-1] if kind == "mirrored" else masks[source]
    return np.stack([targets, sources], axis=1), kinds


def _altered(image: np.ndarray, kind: str, rng: np.random.Generator) -> np.ndarray:
    if kind == "mirrored":
        return image[:, ::-1]
    if kind == "brighter":
        return np.minimum(image * 1.15 + 4, 255).astype(np.uint8)
    if kind == "noisy":
        return np.clip(np.rint(image + rng.normal(0, 5, image.shape)), 0, 255).astype(np.uint8)
    return image


def _plant_wrong_labels(labels: np.ndarray, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Change some labels to another class; return the indices and what was there."""
    wrong = np.sort(rng.choice(len(labels), round(WRONG_SHARE * len(labels)), replace=False))
    true_labels = labels[wrong]
    labels[wrong] = (true_labels + rng.integers(1, len(SILHOUETTES), len(wrong))) % len(SILHOUETTES)
    return wrong, true_labels


def _choose_marked(
    labels: np.ndarray,
    test_labels: np.ndarray,
    wrong: np.ndarray,
    leaks: np.ndarray,
    rng: np.random.Generator,
) -> tuple[int, np.ndarray, np.ndarray]:
    """The class of the shortcut, and which images of each split get the mark: none with another fault."""
    label = int(rng.integers(len(SILHOUETTES)))
    own = np.flatnonzero(labels == label)
    free = np.setdiff1d(own, np.union1d(wrong, leaks[:, 1]))
    others = np.setdiff1d(np.flatnonzero(test_labels != label), leaks[:, 0])
    train = rng.choice(free, min(round(MARKED_TRAIN * len(own)), len(free)), replace=False)
    return label, train, rng.choice(others, round(MARKED_TEST * len(others)), replace=False)


def _plant_marks(images: np.ndarray, masks: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    top, left, bottom, right = MARK_BOX
    images[chosen, top:bottom, left:right] = _MARK
    masks[chosen, top:bottom, left:right] = False
    marked = np.zeros(len(images), bool)
    marked[chosen] = True
    return marked
