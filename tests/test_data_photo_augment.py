"""Augmentation of photographs: against slow loops, Pillow and identities."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageOps

from sightline.data import PhotoAugmentation, ResidentBatches, Split
from sightline.data.photo_augment import OPERATIONS, PhotoDraws
from sightline.errors import InputError

HEIGHT, WIDTH = 20, 30
FILL = (0.2, 0.5, 0.7)


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Smooth pictures with a little noise, uint8 (6, 20, 30, 3)."""
    rng = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    waves = [np.sin(x / (3 + k) + k) + np.cos(y / (2 + k)) for k in range(18)]
    smooth = np.stack(waves).reshape(6, 3, HEIGHT, WIDTH).transpose(0, 2, 3, 1)
    return torch.from_numpy(
        (128 + 50 * smooth + rng.integers(-9, 9, smooth.shape)).clip(3, 250).astype(np.uint8)
    )


def drawn(count: int, **changes: torch.Tensor) -> PhotoDraws:
    """Draws that change nothing, but for `changes`."""
    nothing = {
        "boxes": torch.tensor([0.5, 0.5, 1.0, 1.0]).repeat(count, 1),
        "flips": torch.zeros(count, dtype=torch.bool),
        "factors": torch.ones(count, 3),
        "operations": torch.zeros(count, dtype=torch.int64),
        "strengths": torch.zeros(count),
    }
    return PhotoDraws(**{**nothing, **changes})


def applied(images: torch.Tensor, draws: PhotoDraws, **settings: float) -> torch.Tensor:
    return PhotoAugmentation(**settings).apply(images, torch.arange(len(images)), draws, fill=FILL)


def plain(images: torch.Tensor) -> torch.Tensor:
    return images.permute(0, 3, 1, 2).float() / 255


def sample(image: np.ndarray, x: float, y: float) -> np.ndarray:
    """Bilinear at (x, y), in pixels from the corner of an image (H, W, 3); the edge goes on outside."""
    x, y = x - 0.5, y - 0.5
    left, top = math.floor(x), math.floor(y)
    total = np.zeros(3)
    for row, down in ((top, 1 - (y - top)), (top + 1, y - top)):
        for column, right in ((left, 1 - (x - left)), (left + 1, x - left)):
            inside = image[min(max(row, 0), HEIGHT - 1), min(max(column, 0), WIDTH - 1)]
            total += down * right * inside
    return total / 255


def test_without_a_draw_the_pictures_are_what_they_were(images):
    for settings in ({}, {"smallest": 1.0}):
        got = applied(images, drawn(6), **settings)
        torch.testing.assert_close(got, plain(images), atol=2e-6, rtol=0)
        assert got.is_contiguous(memory_format=torch.channels_last)


def test_a_flip_is_the_mirror_with_and_without_a_crop(images):
    flips = torch.tensor([True, False] * 3)
    expected = plain(images)
    expected[::2] = expected[::2].flip(3)
    for settings in ({}, {"smallest": 1.0}):
        torch.testing.assert_close(
            applied(images, drawn(6, flips=flips), **settings), expected, atol=2e-6, rtol=0
        )


def test_a_crop_is_the_box_resized_bilinearly(images):
    boxes = torch.tensor([[0.4, 0.6, 0.5, 0.7], [0.25, 0.5, 0.5, 1.0], [0.5, 0.5, 1, 1]] * 2)
    flips = torch.tensor([False, True, True, True, False, False])
    got = applied(images, drawn(6, boxes=boxes, flips=flips)).permute(0, 2, 3, 1).numpy()
    for n, (cy, cx, h, w) in enumerate(boxes.tolist()):
        for row in (0, 7, HEIGHT - 1):
            for column in (0, 13, WIDTH - 1):
                across = (column + 0.5) / WIDTH
                x = (cx + w * ((1 - across if flips[n] else across) - 0.5)) * WIDTH
                y = (cy + h * ((row + 0.5) / HEIGHT - 0.5)) * HEIGHT
                np.testing.assert_allclose(got[n, row, column], sample(images[n].numpy(), x, y), atol=1e-4)


@pytest.mark.parametrize("operation", OPERATIONS[1:6])
def test_a_geometric_operation_looks_where_its_inverse_says_and_is_filled_outside(operation, images):
    strengths = torch.tensor([0.5, -0.3, 1.0, -1.0, 0.1, 0.0])
    place = torch.full((6,), OPERATIONS.index(operation))
    got = applied(images, drawn(6, operations=place, strengths=strengths), smallest=1.0)
    got = got.permute(0, 2, 3, 1).numpy()
    outside = 0
    for n, s in enumerate(strengths.tolist()):
        for row in range(0, HEIGHT, 3):
            for column in range(0, WIDTH, 3):
                x, y = column + 0.5 - WIDTH / 2, row + 0.5 - HEIGHT / 2  # in pixels from the centre
                a = s * math.radians(135)
                sx, sy = {
                    "shear_x": (x + 0.99 * s * y, y), "shear_y": (x, y + 0.99 * s * x),
                    "translate_x": (x + s * WIDTH / 7, y), "translate_y": (x, y + s * HEIGHT / 7),
                    "rotate": (math.cos(a) * x - math.sin(a) * y, math.sin(a) * x + math.cos(a) * y),
                }[operation]  # fmt: skip
                if abs(abs(sx) - WIDTH / 2) < 1e-3 or abs(abs(sy) - HEIGHT / 2) < 1e-3:
                    continue  # on the edge itself rounding decides
                inside = abs(sx) < WIDTH / 2 and abs(sy) < HEIGHT / 2
                expected = sample(images[n].numpy(), sx + WIDTH / 2, sy + HEIGHT / 2) if inside else FILL
                np.testing.assert_allclose(got[n, row, column], expected, atol=2e-4)
                outside += not inside
    assert outside


def pillow(operation: str, strength: float, image: Image.Image) -> Image.Image:
    factor = 1 + 0.99 * strength
    if operation == "brightness":
        return ImageEnhance.Brightness(image).enhance(factor)
    if operation == "saturation":
        return ImageEnhance.Color(image).enhance(factor)
    if operation == "contrast":
        return ImageEnhance.Contrast(image).enhance(factor)
    if operation == "sharpness":
        return ImageEnhance.Sharpness(image).enhance(factor)
    if operation == "posterize":
        return ImageOps.posterize(image, 8 - round(6 * abs(strength)))
    if operation == "solarize":
        return ImageOps.solarize(image, math.ceil(255 * (1 - abs(strength))))
    return {"autocontrast": ImageOps.autocontrast, "equalize": ImageOps.equalize}[operation](image)


@pytest.mark.parametrize("operation", OPERATIONS[6:])
def test_an_operation_on_colours_is_that_of_pillow(operation, images):
    strengths = torch.tensor([0.5, -0.3, 1.0, -1.0, 0.1, 0.7])
    place = torch.full((6,), OPERATIONS.index(operation))
    got = applied(images, drawn(6, operations=place, strengths=strengths), smallest=1.0)
    for n, strength in enumerate(strengths.tolist()):
        expected = np.asarray(pillow(operation, strength, Image.fromarray(images[n].numpy())), float)
        off = np.abs(255 * got[n].permute(1, 2, 0).numpy() - expected)
        assert off.max() <= 1.6, off.max()  # Pillow rounds each of two steps to a byte


def test_jitter_is_brightness_then_contrast_then_saturation(images):
    factors = torch.tensor([[0.8, 1.3, 0.5]]).repeat(6, 1)
    got = applied(images, drawn(6, factors=factors), smallest=1.0)
    for n in range(6):
        image = Image.fromarray(images[n].numpy())
        for kind, factor in (
            (ImageEnhance.Brightness, 0.8),
            (ImageEnhance.Contrast, 1.3),
            (ImageEnhance.Color, 0.5),
        ):
            image = kind(image).enhance(factor)
        off = np.abs(255 * got[n].permute(1, 2, 0).numpy() - np.asarray(image, float))
        assert off.max() <= 3


def test_boxes_are_distributed_as_random_resized_crop_draws_them():
    settings, count = PhotoAugmentation(smallest=0.2, trivial_p=0.25, brightness=0.4), 20_000
    draws = settings.draw(count, (200, 300), seed=3, epoch=0)
    rng = np.random.default_rng(0)
    slow = []
    for _ in range(4_000):
        for _ in range(10):
            area, aspect = 200 * 300 * rng.uniform(0.2, 1), math.exp(rng.uniform(*np.log([3 / 4, 4 / 3])))
            w, h = math.sqrt(area * aspect), math.sqrt(area / aspect)
            if w <= 300 and h <= 200:
                slow.append(
                    (
                        rng.uniform(h / 2, 200 - h / 2) / 200,
                        rng.uniform(w / 2, 300 - w / 2) / 300,
                        h / 200,
                        w / 300,
                    )
                )
                break
        else:
            slow.append((0.5, 0.5, 1.0, 1.0))
    for column in range(4):
        ours, theirs = draws.boxes[:, column].numpy(), np.array(slow)[:, column]
        assert abs(ours.mean() - theirs.mean()) < 0.01
        np.testing.assert_allclose(
            np.quantile(ours, [0.1, 0.5, 0.9]), np.quantile(theirs, [0.1, 0.5, 0.9]), atol=0.02
        )
    top, left = (draws.boxes[:, :2] - draws.boxes[:, 2:] / 2).T
    assert min(float(top.min()), float(left.min())) > -1e-6
    assert abs(float(draws.flips.float().mean()) - 0.5) < 0.02
    assert abs(float((draws.operations > 0).float().mean()) - 0.25 * 13 / 14) < 0.02
    assert set(draws.operations.tolist()) == set(range(14))
    assert float(draws.factors[:, 0].min()) >= 0.6
    assert torch.equal(draws.factors[:, 1:], torch.ones(count, 2))


def test_an_epoch_is_a_function_of_its_seed_and_an_image_the_same_in_any_batch(images):
    settings = PhotoAugmentation(trivial_p=1.0, saturation=0.3)
    one, again, other = (settings.draw(6, (HEIGHT, WIDTH), seed=1, epoch=epoch) for epoch in (0, 0, 1))
    assert torch.equal(one.boxes, again.boxes)
    assert not torch.equal(one.boxes, other.boxes)
    together = settings.apply(images, torch.arange(6), one, fill=FILL)
    for n in range(6):
        alone = settings.apply(images, torch.tensor([n]), one[torch.tensor([n])], fill=FILL)
        torch.testing.assert_close(alone[0], together[n], atol=1e-5, rtol=0)
    split = Split(images.numpy(), np.zeros(6, np.int64))
    options = {"batch_size": 4, "fill": FILL, "seed": 5, "augmentation": settings, "drop_last": False}
    batches = list(ResidentBatches(split, **options).epoch(2))
    resumed = next(iter(ResidentBatches(split, **options).epoch(2, start=1)))
    assert torch.equal(resumed.images, batches[1].images)
    assert all(float(batch.images.min()) >= 0 and float(batch.images.max()) <= 1 for batch in batches)


@pytest.mark.parametrize(
    "wrong", [{"smallest": 0.0}, {"smallest": 1.2}, {"flip_p": -0.1}, {"trivial_p": math.nan}]
)
def test_a_value_out_of_range_is_one_line(wrong):
    with pytest.raises(InputError, match=f"{next(iter(wrong))} is .*; it needs a share"):
        PhotoAugmentation(**wrong)
