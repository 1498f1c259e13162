from __future__ import annotations

import multiprocessing

import numpy as np
import pytest
import torch

from sightline.data import Augmentation, ResidentBatches, Split, StreamedBatches, build_compose
from sightline.errors import SightlineError

FILL = (0.5, 0.5, 0.5)


@pytest.fixture
def split() -> Split:
    rng = np.random.default_rng(0)
    return Split(rng.integers(0, 256, (23, 8, 8, 3), dtype=np.uint8), np.arange(23) % 5)


@pytest.fixture
def compose():
    steps = [{"name": "HorizontalFlip"}, {"name": "ColorJitter", "p": 0.5}]
    return build_compose(steps, fill=FILL)


def _resident(split: Split, **changes) -> ResidentBatches:
    augmentation = Augmentation(crop_padding=2, flip="random", cutout_size=3)
    settings = {"batch_size": 5, "augmentation": augmentation, "fill": FILL, "seed": 7}
    return ResidentBatches(split, **(settings | changes))


def _streamed(split: Split, compose, **changes) -> StreamedBatches:
    return StreamedBatches(
        split, compose, **({"batch_size": 5, "seed": 7, "fill": FILL, "num_workers": 0} | changes)
    )


def _same(ours, theirs) -> bool:
    pairs = list(zip(ours, theirs, strict=True))
    return all(torch.equal(a, b) for one, other in pairs for a, b in zip(one, other, strict=True))


def test_an_epoch_entered_again_at_a_step_gives_the_same_bits(split, compose):
    for batches in (_resident(split), _streamed(split, compose)):
        whole = list(batches.epoch(3))
        assert len(whole) == len(batches) == 4
        assert _same(list(batches.epoch(3, start=2)), whole[2:])
        assert not _same(list(batches.epoch(4)), whole)


def test_each_image_comes_once_with_its_own_label(split):
    for batches in (_resident(split, drop_last=False), _resident(split, drop_last=False, shuffle=False)):
        indices = torch.cat([batch.indices for batch in batches.epoch(0)])
        labels = torch.cat([batch.labels for batch in batches.epoch(0)])
        assert sorted(indices.tolist()) == list(range(23))
        assert labels.tolist() == split.labels[indices.numpy()].tolist()
    assert indices.tolist() == list(range(23))


def test_without_augmentation_the_pixels_are_those_of_the_split(split):
    batch = next(_resident(split, augmentation=None).epoch(0))
    expected = split.images[batch.indices.numpy()].transpose(0, 3, 1, 2) / np.float32(255)
    np.testing.assert_array_equal(batch.images.numpy(), expected)


def test_alternating_flips_stay_with_the_image_whatever_the_order(split):
    batches = _resident(split, augmentation=Augmentation(flip="alternate"), batch_size=23)
    plain = torch.from_numpy(split.images).permute(0, 3, 1, 2) / 255
    flipped = []
    for epoch in range(2):
        batch = next(batches.epoch(epoch))
        back = batch.images[batch.indices.argsort()]
        flipped.append((back != plain).flatten(1).any(dim=1))
        assert torch.equal(torch.where(flipped[-1][:, None, None, None], back.flip(3), back), plain)
    assert torch.equal(flipped[0], ~flipped[1])


def test_a_split_smaller_than_a_batch_is_one_step(split):
    batches = _resident(split, batch_size=100)
    assert [len(batch.labels) for batch in batches.epoch(0)] == [23]


def test_streamed_batches_do_not_depend_on_the_number_of_workers(split, compose):
    alone = list(_streamed(split, compose).epoch(1))
    assert _same(alone, list(_streamed(split, compose, num_workers=2).epoch(1)))


def test_both_sources_take_the_same_images(split, compose):
    ours, theirs = _resident(split).epoch(2), _streamed(split, compose).epoch(2)
    assert all(torch.equal(a.indices, b.indices) for a, b in zip(ours, theirs, strict=True))


def test_streaming_leaves_the_transform_and_the_global_generator_alone(split, compose):
    before, generator = torch.get_rng_state(), compose.transforms[0].py_random.getstate()
    list(_streamed(split, compose).epoch(0))
    assert torch.equal(before, torch.get_rng_state())
    assert compose.transforms[0].py_random.getstate() == generator


def test_workers_end_when_the_consumer_stops_or_fails(split, compose):
    batches = _streamed(split, compose, num_workers=1)
    stopped = batches.epoch(0)
    next(stopped)
    assert multiprocessing.active_children()
    stopped.close()
    assert not multiprocessing.active_children()
    failing = batches.epoch(0)
    next(failing)
    with pytest.raises(ZeroDivisionError) as caught:
        failing.throw(ZeroDivisionError())
    assert caught.value is not None
    assert not multiprocessing.active_children()


def test_a_transform_that_changes_type_or_size_is_an_error(split):
    for step, what in (
        ({"name": "Normalize"}, "float32"),
        ({"name": "Resize", "height": 4, "width": 4}, "uint8"),
    ):
        with pytest.raises(SightlineError, match=f"the transform turns uint8 .* into {what}"):
            _streamed(split, build_compose([step], fill=FILL))


def test_a_batch_of_no_images_is_an_error(split):
    with pytest.raises(SightlineError, match="batch_size is 0; it needs 1 or more"):
        _resident(split, batch_size=0)


def unequal_split() -> Split:
    """60, 30 and 10 images, each of one grey value that tells it."""
    labels = np.repeat([0, 1, 2], [60, 30, 10])
    images = np.broadcast_to(np.arange(100, dtype=np.uint8)[:, None, None, None], (100, 8, 8, 3))
    return Split(np.ascontiguousarray(images), labels)


@pytest.mark.parametrize("kind", ["resident", "streamed"])
def test_a_balanced_epoch_draws_each_class_as_often_and_begins_anywhere(kind):
    split = unequal_split()
    options = {"batch_size": 16, "fill": (0, 0, 0), "seed": 3, "drop_last": False, "balanced": True}

    def batches():
        if kind == "resident":
            return ResidentBatches(split, **options)
        return StreamedBatches(split, None, num_workers=0, **options)

    drawn = torch.cat([batch.labels for epoch in range(60) for batch in batches().epoch(epoch)])
    assert len(drawn) == 6_000
    shares = torch.bincount(drawn) / len(drawn)
    assert torch.all((shares - 1 / 3).abs() < 4 * (2 / 9 / len(drawn)) ** 0.5)
    whole = list(batches().epoch(5))
    assert not torch.equal(whole[0].indices, next(iter(batches().epoch(6))).indices)
    for one, other in zip(whole[2:], batches().epoch(5, start=2), strict=True):
        assert torch.equal(one.indices, other.indices)
        assert torch.equal(one.images, other.images)
    for batch in whole:  # pictures, labels and indices belong together
        assert torch.equal((batch.images[:, 0, 0, 0] * 255).round().long(), batch.indices)
        assert torch.equal(torch.from_numpy(split.labels)[batch.indices], batch.labels)


def test_an_image_that_comes_twice_in_a_balanced_epoch_is_augmented_anew():
    split = unequal_split()
    pictures = np.random.default_rng(0).integers(0, 256, (100, 8, 8, 3), np.uint8)
    augmentation = Augmentation(crop_padding=3, flip="random")
    batches = ResidentBatches(
        Split(pictures, split.labels),
        augmentation=augmentation,
        batch_size=100,
        fill=(0, 0, 0),
        seed=0,
        balanced=True,
    )
    batch = next(batches.epoch(0))
    rare = (batch.labels == 2).nonzero()[:, 0]
    same = batch.indices[rare, None] == batch.indices[None, rare]
    alike = (batch.images[rare, None] == batch.images[None, rare]).flatten(2).all(2)
    assert same.sum() > 2 * len(rare)
    assert alike.sum() < (len(rare) + same.sum()) / 2
