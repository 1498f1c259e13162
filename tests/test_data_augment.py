from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from sightline.data import (
    Augmentation,
    Dataset,
    ResidentBatches,
    Split,
    StreamedBatches,
    build_compose,
    preview_augmentation,
)
from sightline.data.augment import reseed
from sightline.errors import SightlineError

SIZE = 8
FILL = (0.25, 0.5, 0.75)
EVERYTHING = {"crop_padding": 3, "flip": "random", "cutout_size": 3, "crop_p": 0.7, "cutout_p": 0.6}


def _images(count: int, height: int = SIZE, width: int = SIZE) -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (count, height, width, 3), dtype=np.uint8)


def _one_by_one(images: np.ndarray, augmentation: Augmentation, draws, fill=FILL) -> np.ndarray:
    """Crop, flip and cutout of one image after another, with loops over pixels."""
    _, height, width, _ = images.shape
    results = []
    for image, shift, flip, cutout in zip(images, *(t.tolist() for t in vars(draws).values()), strict=True):
        pad = augmentation.crop_padding
        padded = np.zeros((height + 2 * pad, width + 2 * pad, 3))
        padded[:] = fill
        inner = image / np.float32(255)
        padded[pad : pad + height, pad : pad + width] = inner
        if augmentation.crop_mode == "reflect":
            padded = np.pad(inner, ((pad, pad), (pad, pad), (0, 0)), mode="reflect")
        out = padded[pad + shift[0] : pad + shift[0] + height, pad + shift[1] : pad + shift[1] + width].copy()
        if flip:
            out = out[:, ::-1].copy()
        for y in range(height):
            for x in range(width):
                inside = (
                    0 <= y - cutout[0] < augmentation.cutout_size
                    and 0 <= x - cutout[1] < augmentation.cutout_size
                )
                out[y, x] = fill if inside else out[y, x]
        results.append(out.transpose(2, 0, 1))
    return np.stack(results).astype(np.float32)


@pytest.mark.parametrize("mode", ["reflect", "zero"])
@pytest.mark.parametrize("shape", [(8, 8), (6, 9)])
def test_a_batch_equals_a_loop_over_its_images(mode, shape):
    augmentation = Augmentation(**EVERYTHING, crop_mode=mode)
    images = _images(40, *shape)
    index = torch.randperm(40, generator=torch.Generator().manual_seed(0))[:25]
    draws = augmentation.draw(40, shape, seed=3, epoch=1)[index]
    got = augmentation.apply(torch.from_numpy(images), index, draws, fill=FILL)
    np.testing.assert_array_equal(got.numpy(), _one_by_one(images[index.numpy()], augmentation, draws))
    assert got.is_contiguous(memory_format=torch.channels_last)
    assert draws.flips.any()
    assert not draws.flips.all()


def test_no_augmentation_is_the_image_over_255():
    images = _images(5)
    augmentation = Augmentation()
    draws = augmentation.draw(5, (SIZE, SIZE), seed=0, epoch=0)
    got = augmentation.apply(torch.from_numpy(images), torch.arange(5), draws, fill=FILL)
    np.testing.assert_array_equal(got.permute(0, 2, 3, 1).numpy(), images / np.float32(255))


def test_cutouts_with_their_own_fill_ignore_the_mean():
    augmentation = Augmentation(cutout_size=SIZE, cutout_fill=(0.0, 1.0, 0.5))
    draws = augmentation.draw(2, (SIZE, SIZE), seed=0, epoch=0)
    got = augmentation.apply(torch.from_numpy(_images(2)), torch.arange(2), draws, fill=FILL)
    assert got.amin(dim=(2, 3)).tolist() == got.amax(dim=(2, 3)).tolist() == [[0.0, 1.0, 0.5]] * 2


def test_alternate_flips_one_half_in_even_epochs_and_the_other_in_odd_ones():
    augmentation = Augmentation(flip="alternate")
    flips = [augmentation.draw(1000, (8, 8), seed=5, epoch=epoch).flips for epoch in range(4)]
    assert torch.equal(flips[0], flips[2])
    assert torch.equal(flips[0], ~flips[1])
    assert torch.equal(flips[1], flips[3])
    assert 430 < flips[0].sum() < 570
    assert not torch.equal(flips[0], augmentation.draw(1000, (8, 8), seed=6, epoch=0).flips)


def test_draws_are_a_function_of_seed_and_epoch():
    augmentation = Augmentation(**EVERYTHING)
    first, again, later, other = (
        augmentation.draw(50, (8, 8), seed=seed, epoch=epoch)
        for seed, epoch in ((1, 2), (1, 2), (1, 3), (2, 2))
    )
    for name in ("shifts", "flips", "cutouts"):
        assert torch.equal(getattr(first, name), getattr(again, name))
        assert not torch.equal(getattr(first, name), getattr(later, name))
        assert not torch.equal(getattr(first, name), getattr(other, name))


def test_drawing_leaves_the_global_generator_alone():
    before = torch.get_rng_state()
    Augmentation(**EVERYTHING).draw(50, (8, 8), seed=1, epoch=2)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"flip": "sometimes"}, "flip is 'sometimes'; known: none, random, alternate"),
        ({"crop_mode": "edge"}, "crop_mode is 'edge'; known: reflect, zero"),
        ({"cutout_p": 1.5}, "cutout_p is 1.5; it needs a probability from 0 to 1"),
        (
            {"crop_padding": -1},
            "crop_padding is -1; it needs 0 pixels or more, or a share of the side between 0 and 1",
        ),
        (
            {"flip": "alternate", "flip_p": 0.2},
            "flip='alternate' flips one half; flip_p=0.2 needs flip='random'",
        ),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(SightlineError) as caught:
        Augmentation(**settings)
    assert str(caught.value) == message


def test_what_does_not_fit_the_image_is_an_error():
    with pytest.raises(SightlineError, match="cutout_size=9 is larger than the 8x12 images"):
        Augmentation(cutout_size=9).draw(1, (8, 12), seed=0, epoch=0)
    with pytest.raises(SightlineError, match="crop_padding=8 needs images larger than that, not 8x12"):
        Augmentation(crop_padding=8).draw(1, (8, 12), seed=0, epoch=0)


# One image whose pixels say where they are: red is 10 + the row, green 10 + the column, and blue is 255.
_POSITIONS = np.zeros((SIZE, SIZE, 3), np.uint8)
_POSITIONS[..., 0] = 10 + np.arange(SIZE)[:, None]
_POSITIONS[..., 1] = 10 + np.arange(SIZE)[None, :]
_POSITIONS[..., 2] = 255


def _what_happened(images: np.ndarray) -> np.ndarray:
    """Read shift (2), flip and cutout (2, or -1) off pictures of `_POSITIONS`, (n, 5)."""
    filled = images[..., 2] != 255  # (n, H, W)
    first = filled.reshape(len(images), -1).argmax(axis=1)
    cutout = np.where(filled.any(axis=(1, 2))[:, None], np.stack(np.divmod(first, SIZE), axis=1), -1)
    shifts = range(-EVERYTHING["crop_padding"], EVERYTHING["crop_padding"] + 1)
    rows, columns = ([_reflected(shift) + 10 for shift in shifts] for _ in range(2))
    columns += [place[::-1] for place in columns]
    down = [((images[..., 0] == row[:, None]) | filled).all(axis=(1, 2)) for row in rows]
    right = [((images[..., 1] == column) | filled).all(axis=(1, 2)) for column in columns]
    assert (np.sum(down, axis=0) == 1).all()
    assert (np.sum(right, axis=0) == 1).all()
    flip, sideways = np.divmod(np.argmax(right, axis=0), len(shifts))
    return np.stack([np.argmax(down, axis=0) - 3, sideways - 3, flip, *cutout.T], axis=1)


def _reflected(shift: int) -> np.ndarray:
    return np.pad(np.arange(SIZE), 3, mode="reflect")[3 + shift :][:SIZE]


@pytest.fixture(scope="module")
def both_paths() -> tuple[np.ndarray, np.ndarray]:
    count = 3000
    augmentation = Augmentation(**EVERYTHING)
    draws = augmentation.draw(count, (SIZE, SIZE), seed=11, epoch=0)
    base = torch.from_numpy(_POSITIONS[None].copy())
    batched = augmentation.apply(base, torch.zeros(count, dtype=torch.long), draws, fill=(0, 0, 0))
    pixels = (batched * 255).round().permute(0, 2, 3, 1).numpy()
    compose = augmentation.to_albumentations((SIZE, SIZE), fill=(0, 0, 0))
    streamed = []
    for step in range(count // 4):  # batches of four: the first draws after seeding have to be right too
        reseed(compose, (11, 0, step))
        streamed += [compose(image=_POSITIONS)["image"] for _ in range(4)]
    return _what_happened(pixels), _what_happened(np.stack(streamed))


@pytest.mark.parametrize("columns", [[0], [1], [2], [3], [4], [0, 1], [2, 3], [0, 2], [3, 4]])
def test_both_paths_draw_from_one_distribution(both_paths, columns):
    ours, theirs = both_paths
    _, codes = np.unique(np.concatenate([ours, theirs])[:, columns], axis=0, return_inverse=True)
    table = [
        np.bincount(codes.ravel()[half], minlength=codes.max() + 1)
        for half in (slice(3000), slice(3000, None))
    ]
    assert stats.chi2_contingency(table).pvalue > 1e-3


def test_crop_flip_and_cutout_follow_their_settings(both_paths):
    places = SIZE - EVERYTHING["cutout_size"] + 1
    for found in both_paths:
        down, right, flip, top, left = found.T
        cropped = 0.7 * np.full(7, 1 / 7) + 0.3 * (np.arange(-3, 4) == 0)
        for shift in (down, right):
            assert stats.chisquare(np.bincount(shift + 3), cropped * len(found)).pvalue > 1e-3
        assert stats.binomtest(int(flip.sum()), len(found), 0.5).pvalue > 1e-3
        assert stats.binomtest(int((top >= 0).sum()), len(found), 0.6).pvalue > 1e-3
        for side in (top, left):
            assert stats.chisquare(np.bincount(side[side >= 0], minlength=places)).pvalue > 1e-3


def test_crop_flip_and_cutout_are_independent(both_paths):
    for found in both_paths:
        crop, flip, cutout = (found[:, :2] != 0).any(axis=1), found[:, 2] == 1, found[:, 3] >= 0
        for one, other in ((crop, flip), (flip, cutout), (crop, cutout)):
            table = np.histogram2d(one, other, bins=2)[0]
            assert stats.chi2_contingency(table).pvalue > 1e-3


def test_alternate_cannot_go_through_albumentations():
    with pytest.raises(SightlineError, match="depends on the epoch"):
        Augmentation(flip="alternate").to_albumentations((8, 8), fill=FILL)


def test_the_engine_albumentations_is_that_compose_in_the_batches():
    images = np.random.default_rng(0).integers(0, 256, (12, 8, 8, 3)).astype(np.uint8)
    split = Split(images, np.arange(12) % 3)
    augmentation = Augmentation(crop_padding=2, flip="random", cutout_size=4, engine="albumentations")
    options = {"batch_size": 4, "fill": FILL, "seed": 3, "num_workers": 0}
    batches = StreamedBatches(split, augmentation, **options)
    compose = StreamedBatches(split, augmentation.to_albumentations((8, 8), fill=FILL), **options)
    for ours, theirs in zip(batches.epoch(1), compose.epoch(1), strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.indices, theirs.indices)
    resumed = list(batches.epoch(1, start=2))
    assert torch.equal(resumed[0].images, list(compose.epoch(1))[2].images)
    data = Dataset("noise", ("a", "b", "c"), split, split)
    seen = preview_augmentation(data, augmentation, [0] * 8)
    assert len(np.unique(seen, axis=0)) > 1
    del options["num_workers"]
    with pytest.raises(SightlineError, match="works on single images; use StreamedBatches"):
        ResidentBatches(split, augmentation=augmentation, **options)
    with pytest.raises(SightlineError, match="engine='albumentations' does not know"):
        Augmentation(flip="alternate", engine="albumentations")
    with pytest.raises(SightlineError, match="engine is 'kornia'; known: builtin, albumentations"):
        Augmentation(engine="kornia")


def test_a_recipe_list_becomes_a_compose():
    steps = [
        {"name": "ColorJitter", "p": 0.5},
        {"name": "ToGray", "p": 0.2},
        {"name": "OneOf", "transforms": [{"name": "HorizontalFlip", "p": 1.0}], "p": 1.0},
        {"name": "ShiftScaleRotate", "shift_limit": 0.06, "scale_limit": 0.1, "rotate_limit": 45, "p": 0.5},
        {"name": "CoarseDropout", "num_holes_range": [1, 1], "hole_height_range": [4, 4],
         "hole_width_range": [4, 4], "fill": "mean", "p": 1.0},
    ]  # fmt: skip
    compose = build_compose(steps, fill=(0.5, 0.25, 0.0))
    assert [type(t).__name__ for t in compose.transforms] == [step["name"] for step in steps]
    assert compose.transforms[4].fill == (128, 64, 0)
    assert compose(image=_images(1)[0])["image"].shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize(
    ("step", "message"),
    [
        ({"name": "ColourJitter"}, "has no transform 'ColourJitter'; did you mean 'ColorJitter'?"),
        ({"name": "np"}, "albumentations has no transform 'np'; see its documentation for the names"),
        ({"p": 1.0}, "albumentations has no transform None; see its documentation for the names"),
        ({"name": "HorizontalFlip", "prob": 1}, "HorizontalFlip has no argument 'prob'; known: p"),
        ({"name": "HorizontalFlip", "p": 2}, r"refuses HorizontalFlip\(p=2\): .*less than or equal to 1"),
    ],
)  # fmt: skip
def test_a_step_that_does_not_fit_is_an_error(step, message):
    with pytest.raises(SightlineError, match=message) as caught:
        build_compose([step], fill=FILL)
    assert "\n" not in str(caught.value)


def test_reseeding_gives_each_transform_its_own_stream():
    compose = build_compose([{"name": "HorizontalFlip"}, {"name": "VerticalFlip"}], fill=FILL)
    outcomes = set()
    for seed in range(40):
        reseed(compose, (seed, 0, 0))
        outcomes.add(compose(image=_POSITIONS)["image"][0, 0].tobytes())
    assert len(outcomes) == 4


def test_a_share_of_the_side_is_that_many_pixels_at_any_size():
    images = torch.from_numpy(_images(6, 16, 20))
    shares = Augmentation(crop_padding=0.25, flip="random", cutout_size=0.375)
    pixels = Augmentation(crop_padding=4, flip="random", cutout_size=6)
    everyone = torch.arange(6)
    results = [
        one.apply(images, everyone, one.draw(6, (16, 20), seed=3, epoch=2), fill=FILL)
        for one in (shares, pixels)
    ]
    torch.testing.assert_close(results[0], results[1], rtol=0, atol=0)
    assert shares.in_pixels((224, 224)) == (56, 84)
    for name in ("crop_padding", "cutout_size"):
        with pytest.raises(SightlineError, match=f"{name} is 1.5; it needs 0 pixels or more, or a share of"):
            Augmentation(**{name: 1.5})
