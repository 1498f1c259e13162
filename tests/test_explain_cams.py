"""The methods of activations and gradients: against the papers' sums one cell at a time, and identities."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from explain_nets import Staged, nonlinear, pictures, pooled, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sightline.attribution import METHODS, explain
from sightline.attribution.methods.cam import eigen_cam, eigen_grad_cam, grad_cam_plus_plus, xgrad_cam
from sightline.attribution.methods.registry import takes_case

OF_RECORD = [name for name, method in METHODS.items() if not takes_case(method)]


def naive(name: str, A: torch.Tensor, g: torch.Tensor) -> torch.Tensor:
    """The map of one image, (K, h, w) and (K, h, w), from the papers' sums, in Python's own floats."""
    channels, height, width = A.shape
    A, g = A.double().tolist(), g.double().tolist()
    cells = [(i, j) for i in range(height) for j in range(width)]
    total = torch.zeros(height, width, dtype=torch.float64)
    for k in range(channels):
        a, d = A[k], g[k]
        sum_a = sum(a[i][j] for i, j in cells)
        if name == "grad_cam":
            weight = sum(d[i][j] for i, j in cells) / len(cells)
        elif name == "xgrad_cam":
            weight = sum(d[i][j] * a[i][j] for i, j in cells) / sum_a if sum_a else 0
        elif name == "grad_cam_plus_plus":
            share = {c: d[c[0]][c[1]] ** 2 for c in cells}  # the numerator of a_ij
            weight = sum(
                share[i, j] / (2 * share[i, j] + sum_a * d[i][j] ** 3) * max(d[i][j], 0)
                for i, j in cells
                if d[i][j]
            )
        for i, j in cells:
            if name == "hires_cam":
                total[i, j] += d[i][j] * a[i][j]
            elif name == "elementwise_grad_cam":
                total[i, j] += max(d[i][j] * a[i][j], 0)
            elif name == "layer_cam":
                total[i, j] += max(d[i][j], 0) * a[i][j]
            else:
                total[i, j] += weight * a[i][j]
    return total


def naive_component(values: torch.Tensor) -> torch.Tensor:
    """The first principal component of (K, h, w) by a singular value decomposition of its cells."""
    cells = values.double().flatten(1).T  # (N, K)
    cells = cells - cells.mean(0)
    component = cells @ torch.linalg.svd(cells, full_matrices=False).Vh[0]
    component = component if component @ cells.sum(1) >= 0 else -component
    return component.view(values.shape[1:])


def random_pair(shape, seed: int = 0, dtype=torch.float64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    A, g = (torch.randn(shape, generator=generator, dtype=dtype) for _ in range(2))
    return A.relu(), g


@pytest.mark.parametrize("name", [name for name in OF_RECORD if not name.startswith("eigen")])
@settings(derandomize=True, max_examples=15, deadline=None)
@given(shape=st.tuples(*[st.integers(1, 4)] * 4), seed=st.integers(0, 99))
def test_each_equals_the_papers_sums(name, shape, seed):
    A, g = random_pair(shape, seed)
    expected = torch.stack([naive(name, *pair) for pair in zip(A, g, strict=True)])
    torch.testing.assert_close(METHODS[name](A, g), expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("shape", [(3, 7, 3, 4), (3, 5, 6, 5), (1, 1, 2, 2)])
def test_eigen_cams_equal_a_singular_value_decomposition(shape):
    # The first shape has fewer cells than 12 > 7 channels, the second more: both Gram matrices.
    A, g = random_pair(shape)
    for method, values in ((eigen_cam, A), (eigen_grad_cam, g * A)):
        expected = torch.stack([naive_component(image) for image in values])
        torch.testing.assert_close(method(A, g), expected, rtol=1e-6, atol=1e-9)
    many = torch.randn(2, 40, 3, 3, dtype=torch.float64)
    torch.testing.assert_close(eigen_cam(many, many), torch.stack([naive_component(one) for one in many]))


def test_eigen_cam_points_where_more_is_active():
    A = torch.zeros(1, 3, 4, 4)
    A[0, :, 1, 2] = torch.tensor([5.0, 3.0, 1.0])
    for sign in (1, -1):  # the sign of the eigenvector is free, that of the map is not
        result = eigen_cam(A, torch.zeros_like(A)) if sign == 1 else eigen_cam(A.flip(1), A)
        assert result[0].argmax() == 6
        assert result[0, 1, 2] > 0 > result[0, 0, 0]


def test_grad_cam_plus_plus_worked_out_by_hand():
    # One channel, A = [1 3], sum 4, g = [0.5 -1]: w = 0.5 / (2 + 4 * 0.5) = 0.125 from the first cell alone.
    result = grad_cam_plus_plus(torch.tensor([[[[1.0, 3.0]]]]), torch.tensor([[[[0.5, -1.0]]]]))
    np.testing.assert_allclose(result, [[[0.125, 0.375]]])


def test_grad_cam_plus_plus_of_tiny_gradients_loses_nothing():
    # g^2 is 1e-20 here: an epsilon of 1e-6 in the denominator would make every weight vanish.
    A, g = random_pair((2, 3, 4, 4), dtype=torch.float32)
    tiny = grad_cam_plus_plus(A, 1e-10 * g)
    np.testing.assert_allclose(tiny * 1e10, (A * (g.clamp(min=0).sum((2, 3), True) / 2)).sum(1), rtol=1e-4)


def test_xgrad_cam_says_where_it_is_undefined():
    A = torch.tensor(
        [[[[1.0, -1.0]], [[2.0, 1.0]]], [[[0.0, 0.0]], [[2.0, 1.0]]]]
    )  # one cancels, one is empty
    maps = xgrad_cam(A, torch.ones_like(A))
    assert maps[0].isnan().all()
    np.testing.assert_allclose(maps[1], [[2, 1]])

    def centred(activations, gradients):
        return xgrad_cam(activations - activations.mean((2, 3), keepdim=True), gradients)

    assert explain(seeded(pooled), pictures(1), 0, layer="1", method=centred).status == ("not finite",)


@pytest.mark.parametrize("target", range(4))
def test_behind_a_pooled_linear_head_the_published_identities_hold(target):
    model, images = seeded(pooled), pictures(4)
    maps = {
        name: explain(model, images, target, layer="1", method=name).maps
        for name in (
            "cam",
            "grad_cam",
            "hires_cam",
            "xgrad_cam",
            "layer_cam",
            "shapley_cam",
            "elementwise_grad_cam",
        )
    }
    cells = 144
    A, w = model[:2](images).detach(), model[5].weight[target].detach()
    logit = model(images)[:, target].detach() - model[5].bias[target].item()
    np.testing.assert_allclose(maps["cam"], torch.einsum("k,bkhw->bhw", w, A), rtol=1e-5, atol=1e-6)
    for name in ("grad_cam", "hires_cam", "xgrad_cam", "shapley_cam"):
        np.testing.assert_allclose(maps[name] * cells, maps["cam"], rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(maps["hires_cam"].sum((1, 2)), logit, rtol=1e-5, atol=1e-5)
    positive = torch.einsum("k,bkhw->bhw", w.relu(), A)
    for name in ("layer_cam", "elementwise_grad_cam"):  # A is not negative
        np.testing.assert_allclose(maps[name] * cells, positive, rtol=1e-5, atol=1e-5)


def test_where_the_gradient_is_constant_over_cells_three_methods_coincide():
    model = seeded(Staged)
    model.fc = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 5))
    images = pictures(size=24)
    first, *others = (
        explain(model, images, 1, layer="layer4", method=name).maps
        for name in ("grad_cam", "hires_cam", "xgrad_cam")
    )
    for maps in others:
        np.testing.assert_allclose(maps, first, rtol=1e-4, atol=1e-7)
    assert not np.allclose(explain(model, images, 1, layer="layer4", method="shapley_cam").maps, first)


@pytest.mark.parametrize("name", OF_RECORD)
def test_volumes_work_like_a_map_of_their_cells(name):
    A, g = random_pair((2, 3, 2, 3, 4))
    flat = METHODS[name](A.reshape(2, 3, 6, 4), g.reshape(2, 3, 6, 4))
    torch.testing.assert_close(METHODS[name](A, g), flat.view(2, 2, 3, 4))


@pytest.mark.parametrize("name", OF_RECORD)
def test_inputs_are_not_changed_and_zeros_give_zeros(name):
    A, g = random_pair((2, 3, 4, 4))
    before = A.clone(), g.clone()
    METHODS[name](A, g)
    assert torch.equal(A, before[0])
    assert torch.equal(g, before[1])
    assert not METHODS[name](torch.zeros_like(A), torch.zeros_like(g)).any()


@pytest.mark.parametrize("name", OF_RECORD)
def test_a_value_that_is_not_finite_stays_in_its_own_map(name):
    A, g = random_pair((2, 3, 4, 4))
    expected = METHODS[name](A, g)[1]
    A[0, 1, 2, 2] = math.nan
    maps = METHODS[name](A, g)
    assert maps[0].isnan().any()
    torch.testing.assert_close(maps[1], expected)


def recorded_model(file, name: str, build) -> nn.Module:
    model, prefix = build(), f"{name}/weights/"
    weights = {
        key.removeprefix(prefix): torch.from_numpy(file[key]) for key in file if key.startswith(prefix)
    }
    model.load_state_dict(weights)
    return model.eval()


@pytest.mark.parametrize(
    "name", ["grad_cam", "hires_cam", "layer_cam", "elementwise_grad_cam", "xgrad_cam", "shapley_cam"]
)
def test_it_equals_pytorch_grad_cam_as_recorded(name):
    with np.load(Path(__file__).parent / "data" / "peers.npz") as file:
        model, images = recorded_model(file, "nonlinear", nonlinear), torch.from_numpy(file["images"])
        result = explain(model, images, file["targets"], layer="2", method=name)
        np.testing.assert_allclose(result.maps, file[f"nonlinear/{name}"], rtol=1e-4, atol=1e-8)


def test_cam_equals_torchcam_as_recorded():
    with np.load(Path(__file__).parent / "data" / "peers.npz") as file:
        model, images = recorded_model(file, "pooled", pooled), torch.from_numpy(file["images"])
        result = explain(model, images, file["targets"], method="cam")
        np.testing.assert_allclose(result.maps, file["pooled/cam"], rtol=1e-5, atol=1e-7)
