"""Attributes of images and of evidence: against loops and values worked out by hand."""

from __future__ import annotations

import colorsys
import math

import numpy as np
import pytest

from sightline.audit import attributes, image_attributes
from sightline.audit.attributes import CELLS, evidence_attributes
from sightline.errors import SightlineError


@pytest.fixture(scope="module")
def images() -> np.ndarray:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
    images[5], images[6] = 0, (255, 128, 0)
    return images


def slow_attributes(image: np.ndarray) -> dict[str, float]:
    height, width, _ = image.shape
    rgb = [[[float(v) / 255 for v in image[y, x]] for x in range(width)] for y in range(height)]
    flat = [pixel for row in rgb for pixel in row]
    luma = [[0.299 * r + 0.587 * g + 0.114 * b for r, g, b in row] for row in rgb]
    values = [v for row in luma for v in row]

    def mean(numbers):
        return sum(numbers) / len(numbers)

    def deviation(numbers):
        return math.sqrt(mean([(v - mean(numbers)) ** 2 for v in numbers]))

    laplacian = []
    for y in range(height):
        for x in range(width):
            around = [(y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            near = [luma[min(max(i, 0), height - 1)][min(max(j, 0), width - 1)] for i, j in around]
            laplacian.append(abs(sum(near) - 4 * luma[y][x]))
    rg, yb = [r - g for r, g, _ in flat], [(r + g) / 2 - b for r, g, b in flat]
    shares = [sum(int(min(31, v * 32 + 1e-6)) == cell for v in values) / len(values) for cell in range(32)]
    return {
        "brightness": mean(values),
        "contrast": deviation(values),
        "saturation": mean([colorsys.rgb_to_hsv(*pixel)[1] for pixel in flat]),
        "colourfulness": math.hypot(deviation(rg), deviation(yb)) + 0.3 * math.hypot(mean(rg), mean(yb)),
        "warmth": mean([r - b for r, _, b in flat]),
        "sharpness": mean(laplacian) / deviation(values) if deviation(values) > 1e-4 else 0.0,
        "entropy": -sum(share * math.log2(share) for share in shares if share),
    }


def test_attributes_of_images_equal_a_loop_over_pixels(images, monkeypatch):
    for chunk in (2**21, 31):
        monkeypatch.setattr(attributes, "_CHUNK", chunk)
        table = image_attributes(images)
        for row, image in zip(table.to_dict("records"), images, strict=True):
            assert row == pytest.approx(slow_attributes(image), abs=2e-6)


def test_blurring_lowers_sharpness_and_halving_contrast_does_not():
    rng = np.random.default_rng(1)
    image = rng.integers(0, 256, (1, 32, 32, 3)).astype(float)
    blurred = sum(np.roll(image, (i, j), (1, 2)) for i in (-1, 0, 1) for j in (-1, 0, 1)) / 9
    table = image_attributes(np.concatenate([image, blurred, 64 + image / 2]).astype(np.uint8))
    assert table["sharpness"][1] < 0.6 * table["sharpness"][0]
    assert table["sharpness"][2] == pytest.approx(table["sharpness"][0], rel=0.02)
    assert table["contrast"][2] == pytest.approx(table["contrast"][0] / 2, rel=0.02)


def test_images_of_another_kind_are_refused(images):
    with pytest.raises(SightlineError, match=r"float32 \(7, 6, 5, 3\); attributes need uint8 \(N, H, W, 3\)"):
        image_attributes(images.astype(np.float32))


def test_even_evidence_covers_everything_and_lies_in_the_middle():
    row = evidence_attributes(np.ones((1, 8, 8))).iloc[0]
    assert row["area"] == pytest.approx(1)
    assert row["offset"] == pytest.approx(0, abs=1e-12)
    assert row["border"] == pytest.approx(1 - 0.75**2)
    assert row["cell_mass"] == pytest.approx(1 / 9)


@pytest.mark.parametrize("size", [3, 4, 7, 8, 32])
def test_a_spot_in_each_place_is_named_by_its_place(size):
    for number, name in enumerate(CELLS):
        row, column = divmod(number, 3)
        maps = np.full((1, size, size), -1.0)
        maps[0, round(row * (size - 1) / 2), round(column * (size - 1) / 2)] = 5.0
        found = evidence_attributes(maps).iloc[0]
        assert CELLS[int(found["cell"])] == name
        assert found["area"] == pytest.approx(1 / size**2)


def test_evidence_by_hand():
    maps = np.zeros((1, 8, 8))
    maps[0, 0, 7], maps[0, 3, 3], maps[0, 6, 1] = 2.0, 1.0, 1.0
    masks = np.zeros((1, 8, 8), bool)
    masks[0, 3, 3] = True
    row = evidence_attributes(maps, masks).iloc[0]
    assert row["area"] == pytest.approx(1 / (64 * (0.25 + 0.0625 + 0.0625)))
    down = (2 * 0.5 + 3.5 + 6.5) / 4 / 8 - 0.5
    right = (2 * 7.5 + 3.5 + 1.5) / 4 / 8 - 0.5
    assert row["offset"] == pytest.approx(math.hypot(down, right) / math.hypot(0.5, 0.5))
    assert row["border"] == pytest.approx(0.5)
    assert row["background"] == pytest.approx(0.75)
    assert CELLS[int(row["cell"])] == "top right corner"
    assert row["cell_mass"] == pytest.approx(0.5)


def test_the_scale_of_a_map_and_its_negative_part_change_nothing():
    rng = np.random.default_rng(2)
    maps = rng.normal(size=(9, 7, 7))
    table = evidence_attributes(maps)
    scaled = evidence_attributes(np.where(maps > 0, maps * 1e300, maps * 50))
    np.testing.assert_allclose(scaled, table, rtol=1e-9)
    np.testing.assert_allclose(evidence_attributes(maps.astype(np.float16)), table, rtol=5e-3, atol=5e-3)


def test_a_map_without_positive_evidence_lies_nowhere():
    table = evidence_attributes(np.stack([-np.ones((4, 4)), np.ones((4, 4)), np.zeros((4, 4))]))
    assert table["cell"].tolist()[::2] == [-1, -1]
    assert table["area"].isna().tolist() == [True, False, True]


def test_maps_of_another_shape_are_refused():
    with pytest.raises(SightlineError, match=r"maps are \(4, 4\); evidence needs \(N, h, w\)"):
        evidence_attributes(np.ones((4, 4)))
    with pytest.raises(SightlineError, match=r"maps are \(1, 4, 4\) and masks \(1, 8, 8\)"):
        evidence_attributes(np.ones((1, 4, 4)), np.ones((1, 8, 8), bool))
