import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sightline.attribution import colorize, heatmap, overlay
from sightline.errors import SightlineError

side = st.integers(1, 9)


@settings(derandomize=True, max_examples=40, deadline=None)
@given(height=side, width=side, rows=st.integers(1, 40), columns=st.integers(1, 40))
def test_it_resizes_as_torch_does(height, width, rows, columns):
    maps = np.random.default_rng(height * width).random((2, height, width))
    upsampled = torch.nn.functional.interpolate(
        torch.from_numpy(maps)[:, None], (rows, columns), mode="bilinear", align_corners=False
    )[:, 0]
    expected = upsampled / upsampled.amax((1, 2), keepdim=True)
    np.testing.assert_allclose(heatmap(maps, (rows, columns)), expected, atol=1e-6)


def test_negative_evidence_is_cut_before_resizing_and_each_map_has_its_own_scale():
    maps = np.array([[[-100.0, 1.0]], [[0.0, 50.0]]])
    np.testing.assert_allclose(heatmap(maps, (1, 4)), [[[0, 0.25, 0.75, 1]]] * 2)


def test_maps_without_evidence_or_not_finite_are_zeros_and_never_nan():
    maps = np.stack([np.full((2, 2), -3.0), np.zeros((2, 2)), [[np.nan, 5], [1, 1]], [[np.inf, 5], [1, 1]]])
    np.testing.assert_array_equal(heatmap(maps, (4, 4)), np.zeros((4, 4, 4)))


@pytest.mark.parametrize("scale", [1e-45, 1e-30, 1e38])
def test_faint_and_huge_maps_are_shown_in_full(scale):
    heat = heatmap(np.array([[[0, 1], [0, 0]]], np.float32) * np.float32(scale), (4, 4))
    np.testing.assert_allclose(heat, heatmap(np.array([[[0, 1], [0, 0]]]), (4, 4)))


def test_a_heat_map_needs_a_batch():
    with pytest.raises(
        SightlineError, match=r"maps are \(4, 4\); a heat map needs \(B, h, w\), a single map maps"
    ):
        heatmap(np.ones((4, 4)), (8, 8))


def test_colours_are_those_of_the_colour_map():
    # The ends of inferno and of viridis, as published with matplotlib.
    heat = np.array([[[0.0, 1.0]]], np.float32)
    np.testing.assert_array_equal(colorize(heat), [[[[0, 0, 3], [252, 254, 164]]]])
    np.testing.assert_array_equal(colorize(heat, cmap="viridis"), [[[[68, 1, 84], [253, 231, 36]]]])
    assert colorize(heat).dtype == np.uint8


def test_a_colour_map_that_invents_edges_is_refused():
    with pytest.raises(
        SightlineError, match="colour map 'jet' is not perceptually uniform or not known; use inferno"
    ):
        colorize(np.zeros((1, 2, 2)), cmap="jet")


def test_an_overlay_covers_by_heat_and_leaves_unlit_pixels_alone():
    images = np.full((1, 1, 3, 3), 100, np.uint8)
    heat = np.array([[[0.0, 0.5, 1.0]]], np.float32)
    color = colorize(heat).astype(float)
    result = overlay(images, heat, opacity=0.8)
    np.testing.assert_array_equal(result[0, 0, 0], [100, 100, 100])
    np.testing.assert_array_equal(result[0, 0, 1], np.rint(0.6 * 100 + 0.4 * color[0, 0, 1]))
    np.testing.assert_array_equal(result[0, 0, 2], np.rint(0.2 * 100 + 0.8 * color[0, 0, 2]))
    assert (images == 100).all()


@pytest.mark.parametrize(
    ("images", "heat", "opacity", "message"),
    [
        (
            np.zeros((1, 2, 2, 3)),
            np.zeros((1, 2, 2)),
            0.5,
            r"images are float64 \(1, 2, 2, 3\); overlay needs uint8",
        ),
        (
            np.zeros((1, 2, 2, 3), np.uint8),
            np.zeros((1, 4, 4)),
            0.5,
            r"heat maps are \(1, 4, 4\) and images \(1, 2",
        ),
        (
            np.zeros((1, 2, 2, 3), np.uint8),
            np.zeros((1, 2, 2)),
            2,
            "opacity is 2; it needs a number from 0 to 1",
        ),
    ],
)
def test_an_overlay_of_what_does_not_fit_is_an_error(images, heat, opacity, message):
    with pytest.raises(SightlineError, match=message):
        overlay(images, heat, opacity=opacity)
