"""Corruptions, against their definitions, and the passes over corrupted images."""

from __future__ import annotations

import functools
import math

import numpy as np
import pytest
import scipy.ndimage
import torch
from PIL import Image
from torch import nn

from sightline.data import CORRUPTIONS, Split, corrupt
from sightline.errors import SightlineError
from sightline.models import to_float
from sightline.predictions import predict, predict_corrupted


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    rng = np.random.default_rng(0)
    smooth = scipy.ndimage.gaussian_filter(rng.normal(size=(6, 32, 32, 3)), (0, 2, 2, 0))
    spread = smooth.std(axis=(1, 2, 3), keepdims=True)
    return to_float(np.clip(128 + 50 * smooth / spread, 0, 255).astype(np.uint8))


def grey(value: float, count: int = 40) -> torch.Tensor:
    return torch.full((count, 3, 32, 32), value)


@pytest.mark.parametrize("name", CORRUPTIONS)
def test_a_corruption_is_seeded_stays_in_range_and_grows_with_severity(name, images):
    before, state = images.clone(), torch.random.get_rng_state()
    away = []
    for severity in (1, 2, 3):
        found = corrupt(images, name, severity, seed=3)
        assert found.shape == images.shape
        assert found.dtype == images.dtype
        assert found.min() >= 0
        assert found.max() <= 1
        torch.testing.assert_close(found, corrupt(images, name, severity, seed=3), rtol=0, atol=0)
        away.append((found - images).square().mean().sqrt().item())
    assert 0 < away[0] < away[1] < away[2]
    torch.testing.assert_close(images, before, rtol=0, atol=0)
    torch.testing.assert_close(torch.random.get_rng_state(), state, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(8, 8), (48, 33), (96, 96)])
def test_every_corruption_takes_pictures_of_any_size(size):
    images = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    for name in CORRUPTIONS:
        found = corrupt(images, name, 3)
        assert found.shape == images.shape, name
        assert found.isfinite().all(), name


def test_noise_has_the_published_spread():
    for severity, scale in ((1, 0.04), (2, 0.08), (3, 0.10)):
        noise = corrupt(grey(0.5), "gaussian_noise", severity) - 0.5
        assert noise.std().item() == pytest.approx(scale, rel=0.01)
    for severity, photons in ((1, 500), (2, 100), (3, 50)):
        noise = corrupt(grey(0.5), "shot_noise", severity) - 0.5
        assert noise.std().item() == pytest.approx(math.sqrt(0.5 / photons), rel=0.02)
        assert abs(noise.mean().item()) < 1e-3


def test_gaussian_blur_is_that_of_scipy(images):
    for severity, sigma in ((1, 0.4), (2, 0.7), (3, 1.0)):
        found = corrupt(images, "gaussian_blur", severity)
        expected = scipy.ndimage.gaussian_filter(images.numpy(), (0, 0, sigma, sigma), mode="mirror")
        np.testing.assert_allclose(found, expected, atol=2e-4)


def test_defocus_spreads_a_point_over_a_disc():
    point = torch.zeros(1, 3, 33, 33)
    point[0, :, 16, 16] = 1
    disc = corrupt(point, "defocus_blur", 3)[0, 0]
    assert disc.sum().item() == pytest.approx(1, abs=1e-5)
    near = [(y, x) for y in range(33) for x in range(33) if math.hypot(y - 16, x - 16) <= 1.5]
    assert [disc[y, x].item() for y, x in near] == pytest.approx([1 / 9] * 9, rel=1e-3)
    torch.testing.assert_close(disc, disc.T)


def test_motion_draws_a_point_into_a_streak_of_its_direction():
    points = torch.zeros(200, 3, 33, 33)
    points[:, :, 16, 16] = 1
    streaks = corrupt(points, "motion_blur", 3)[:, 0]  # (200, 33, 33)
    np.testing.assert_allclose(streaks.sum((1, 2)), 1, atol=1e-4)
    away = torch.arange(33) - 16.0
    right, down = (streaks.sum(1) * away).sum(1), (streaks.sum(2) * away).sum(1)
    angles = torch.atan2(down, right)
    assert angles.abs().max() < math.pi / 4 + 0.02
    assert angles.min() < -0.6
    assert angles.max() > 0.6
    steps = np.arange(0, 9.5, 0.5)
    weights = np.exp(-0.5 * (steps / 2.5) ** 2)
    expected = 33 / 32 * (steps * weights).sum() / weights.sum()  # lengths are those at 32 pixels
    np.testing.assert_allclose(torch.hypot(right, down), expected, rtol=1e-3)


def test_brightness_moves_value_alone_as_colorsys_says(images):
    import colorsys

    for severity, more in ((1, 0.05), (2, 0.15), (3, 0.30)):
        found = corrupt(images, "brightness", severity)
        for y, x in ((0, 0), (5, 9), (31, 17)):
            hue, saturation, value = colorsys.rgb_to_hsv(*images[0, :, y, x].tolist())
            expected = colorsys.hsv_to_rgb(hue, saturation, min(1, value + more))
            assert found[0, :, y, x].tolist() == pytest.approx(expected, abs=1e-6)
    assert corrupt(grey(0.0), "brightness", 2).unique().tolist() == pytest.approx([0.15])


def test_contrast_keeps_the_means_and_scales_the_rest(images):
    found = corrupt(images, "contrast", 3)
    torch.testing.assert_close(found.mean((2, 3)), images.mean((2, 3)))
    torch.testing.assert_close(found.std((2, 3)), 0.15 * images.std((2, 3)))


def test_fog_is_grey_smooth_and_keeps_the_highest_value():
    found = corrupt(grey(0.4), "fog", 2)
    torch.testing.assert_close(found[:, 0], found[:, 1], rtol=0, atol=0)
    # The haze runs from 0 to 1 in each picture: 0.4 * 0.4 / 1.15 at its thinnest, 0.4 at its densest.
    np.testing.assert_allclose(found.amin((1, 2, 3)), 0.4 * 0.4 / 1.15, rtol=1e-5)
    np.testing.assert_allclose(found.amax((1, 2, 3)), 0.4, rtol=1e-5)
    step = (found[:, :, 1:] - found[:, :, :-1]).abs().mean().item()
    assert step < 0.25 * found.std().item()
    assert not torch.equal(found[0], found[1])


def test_pixelate_is_pillows_box_filter_both_ways(images):
    pixels = (images[0].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for severity, cells in ((1, 30), (2, 27), (3, 20)):
        small = Image.fromarray(pixels).resize((cells, cells), Image.Resampling.BOX)
        expected = np.asarray(small.resize((32, 32), Image.Resampling.BOX), float)
        found = corrupt(images[:1], "pixelate", severity)[0].permute(1, 2, 0) * 255
        np.testing.assert_allclose(found, expected, atol=1.01)  # Pillow rounds in between


def test_jpeg_is_that_of_a_file_of_that_quality(images, tmp_path):
    pixels = (images[1].permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    for severity, quality in ((1, 80), (2, 58), (3, 40)):
        Image.fromarray(pixels).save(tmp_path / "one.jpg", quality=quality)
        expected = np.asarray(Image.open(tmp_path / "one.jpg"))
        found = corrupt(images[1:2], "jpeg", severity)[0].permute(1, 2, 0) * 255
        np.testing.assert_allclose(found, expected, atol=1e-4)


def test_shift_moves_by_whole_pixels_in_every_direction(images):
    many = images[:1].repeat(60, 1, 1, 1)
    for severity, away in ((1, 2), (2, 4), (3, 6)):
        moves = set()
        for found in corrupt(many, "shift", severity):
            inner = found[:, 8:-8, 8:-8]
            fits = [
                (dy, dx)
                for dy in range(-away, away + 1)
                for dx in range(-away, away + 1)
                if torch.allclose(inner, images[0, :, 8 - dy : 24 - dy, 8 - dx : 24 - dx], atol=1e-4)
            ]
            assert len(fits) == 1
            assert math.hypot(*fits[0]) == pytest.approx(away, abs=0.8)
            moves.add(fits[0])
        assert len(moves) >= 6


def test_rotation_is_that_of_scipy_in_pictures_that_are_not_square(images):
    wide = torch.cat([images[:1], images[1:2]], dim=3)  # (1, 3, 32, 64)
    turned = functools.partial(scipy.ndimage.rotate, axes=(1, 2), reshape=False, order=1, mode="reflect")
    for severity, degrees in ((1, 5), (2, 10), (3, 20)):
        found = corrupt(wide, "rotate", severity)[0]
        expected = [turned(wide[0].numpy(), sign * degrees) for sign in (-1, 1)]
        assert min(float(np.abs(found.numpy() - one).max()) for one in expected) < 1e-3


def test_wrong_use_is_told_in_one_line(images):
    with pytest.raises(SightlineError, match="corruption 'frog' is not known; did you mean 'fog'"):
        corrupt(images, "frog", 1)
    with pytest.raises(SightlineError, match="severity is 4; corruptions have 1, 2 and 3"):
        corrupt(images, "fog", 4)
    with pytest.raises(SightlineError, match=r"torch.uint8 \(6, 3, 32, 32\); corruptions take floats"):
        corrupt(images.byte(), "fog", 1)


class Bright(nn.Module):
    """Says 1 where the picture is bright."""

    def forward(self, images):
        light = images.mean((1, 2, 3))
        return torch.stack([0.55 - light, light - 0.55], dim=1) + 0 * images.sum()


def test_the_passes_take_one_sample_and_every_corruption():
    rng = np.random.default_rng(1)
    levels = rng.integers(90, 140, 80)  # all dark
    pixels = np.repeat(levels, 8 * 8 * 3).reshape(80, 8, 8, 3).astype(np.uint8)
    split = Split(pixels, np.zeros(80, np.int64))
    run = functools.partial(predict, Bright())
    found = predict_corrupted(run, split, sample=30, seed=5)
    assert len(np.unique(found.index)) == 30
    assert found.index.tolist() == sorted(found.index)
    assert found.clean.all()
    assert list(found.corrupted) == [(name, severity) for name in CORRUPTIONS for severity in (1, 2, 3)]
    for severity, more in ((1, 0.05), (2, 0.15), (3, 0.30)):
        expected = np.round((levels[found.index] / 255 + more) * 255) / 255 < 0.55
        np.testing.assert_array_equal(found.corrupted["brightness", severity], expected)
    again = predict_corrupted(run, split, sample=30, seed=5)
    assert again.index.tolist() == found.index.tolist()
    assert predict_corrupted(run, split, sample=None, corruptions={}).index.tolist() == list(range(80))
    with pytest.raises(SightlineError, match="sample is 0; robustness needs at least one image"):
        predict_corrupted(run, split, sample=0)
