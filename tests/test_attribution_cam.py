"""Class-activation maps: against the papers' sums one cell at a time, identities, captum, and other tools."""

from __future__ import annotations

import math
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from attribution_nets import (
    Staged,
    Wrapped,
    naive_grad_cam,
    nonlinear,
    pictures,
    pooled,
    prototypical,
    seeded,
)
from captum.attr import LayerGradCam
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sightline.attribution import METHODS, explain, explain_layers, grad_cam
from sightline.attribution.methods import takes_context
from sightline.attribution.methods.cam import eigen_cam, eigen_grad_cam, grad_cam_plus_plus, xgrad_cam
from sightline.errors import InputError, SightlineError

CASES = [
    (pooled, "1"),
    (pooled, "0"),
    (nonlinear, "0"),
    (nonlinear, "3"),
    (nonlinear, "5"),
    (Staged, "layer2"),
]


def by_hand() -> nn.Sequential:
    """Two channels, x and 5 - x; class 0 weighs corners, class 1 everything, class 2 nothing."""
    model = nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(8, 3))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([1.0, -1.0]).view(2, 1, 1, 1))
        model[0].bias.copy_(torch.tensor([0.0, 5.0]))
        model[3].weight.copy_(
            torch.tensor([[1.0, 0, 0, 3, -2, 0, 0, -2], [-1.0, -1, -1, -1, -1, -1, -1, -1], [0.0] * 8])
        )
        model[3].bias.zero_()
    return model


def test_the_map_worked_out_by_hand():
    # A_0 = [1 2; 3 4], A_1 = [4 3; 2 1], nothing is clipped by the ReLU.
    # Class 0: alpha_0 = (1 + 3) / 4 = 1, alpha_1 = (-2 - 2) / 4 = -1: the map is A_0 - A_1.
    # Class 1: alpha = -1 and -1: the map is -(A_0 + A_1) = -5. Class 2: no gradient.
    image = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]])
    result = explain(by_hand(), image.repeat(3, 1, 1, 1), [0, 1, 2], layer="1")
    expected = [[[-3, -1], [1, 3]], [[-5, -5], [-5, -5]], [[0, 0], [0, 0]]]
    np.testing.assert_allclose(result.maps, expected, rtol=1e-6)
    np.testing.assert_allclose(result.heatmaps((2, 2))[0], [[0, 0], [1 / 3, 1]], rtol=1e-6)
    assert result.status == ("ok", "no positive evidence", "zero gradient")
    # y_0 = 1*1 + 3*4 - 2*4 - 2*1 = 3, y_1 = -(1+2+3+4) * 2 = -20
    np.testing.assert_allclose(result.logits[0], [3, -20, 0], rtol=1e-6)


@pytest.mark.parametrize(("build", "layer"), CASES)
def test_it_equals_the_paper_one_image_channel_and_cell_at_a_time(build, layer):
    model, images, targets = seeded(build), pictures(), [0, 3, 1]
    expected = naive_grad_cam(model, model.get_submodule(layer), images, targets)
    result = explain(model, images, targets, layer=layer)
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(("build", "layer"), CASES)
def test_it_equals_captum(build, layer):
    # captum does not copy the output, so an in-place ReLU would change what it keeps: all made out of place.
    model, images, targets = seeded(build), pictures(), torch.tensor([0, 3, 1])
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    captum = LayerGradCam(model, model.get_submodule(layer)).attribute(images, targets)
    result = explain(model, images, targets, layer=layer)
    np.testing.assert_allclose(result.maps, captum.detach()[:, 0], rtol=1e-4, atol=1e-6)


def test_for_a_linear_head_it_is_the_class_activation_map_and_sums_to_the_logit():
    model, images = seeded(pooled), pictures(4)
    activations = torch.relu(model[0](images)).detach()  # (B, K, h, w)
    for target in range(4):
        result = explain(model, images, target, layer="1")
        cam = torch.einsum("k,bkhw->bhw", model[5].weight[target].detach(), activations)
        np.testing.assert_allclose(result.maps * 144, cam, rtol=1e-4, atol=1e-5)
        evidence = result.logits[:, target] - model[5].bias[target].item()
        np.testing.assert_allclose(result.maps.sum((1, 2)), evidence, rtol=1e-4, atol=1e-5)


def test_an_in_place_relu_after_the_layer_does_not_change_what_is_recorded():
    outputs = {}
    for inplace in (True, False):
        model = seeded(nonlinear)
        model[2].inplace = inplace
        outputs[inplace] = explain(model, pictures(), 2, layer="1").maps
    np.testing.assert_array_equal(outputs[True], outputs[False])
    assert outputs[True].min() < 0 < outputs[True].max()


def test_several_layers_at_once_equal_each_layer_alone():
    model, images, targets = seeded(Staged), pictures(size=16), [4, 0, 2]
    names = ["layer4", "stem.1", "layer1", "layer2.0", "layer2", "layer2.2", "layer3"]
    together = explain_layers(model, images, targets, layers=names)
    assert list(together) == names
    for name in names:
        alone = explain(model, images, targets, layer=name)
        np.testing.assert_allclose(together[name].maps, alone.maps, rtol=1e-5, atol=1e-8)
        assert together[name].layer == name
        assert together[name].status == alone.status


def test_layers_on_two_branches_equal_each_alone_also_when_frozen():
    class Branches(nn.Module):
        def __init__(self):
            super().__init__()
            self.left, self.right, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(3, 4, 3), nn.Linear(8, 3)

        def forward(self, x):
            both = torch.cat([self.left(x), self.right(x)], 1).tanh()
            return self.fc((both**2).mean((2, 3)))

    model, images = seeded(Branches), pictures()
    for trainable in (True, False):
        model.requires_grad_(trainable)
        together = explain_layers(model, images, 1, layers=["left", "right"])
        for name in ("left", "right"):
            expected = naive_grad_cam(
                model.requires_grad_(True), model.get_submodule(name), images, [1, 1, 1]
            )
            np.testing.assert_allclose(together[name].maps, expected, rtol=1e-4, atol=1e-7)


@settings(derandomize=True, max_examples=12, deadline=None)
@given(count=st.integers(1, 6), batch=st.integers(1, 7), height=st.integers(5, 14), width=st.integers(5, 14))
def test_a_batch_equals_its_images_one_by_one(count, batch, height, width):
    model = Wrapped(seeded(Staged))
    images = torch.rand(count, 3, height, width, generator=torch.Generator().manual_seed(count))
    whole = explain(model, images, layer="backbone.layer2", batch_size=batch)
    singles = [explain(model, image[None], layer="backbone.layer2") for image in images]
    np.testing.assert_allclose(
        whole.maps, np.concatenate([one.maps for one in singles]), rtol=1e-4, atol=1e-7
    )
    np.testing.assert_array_equal(whole.targets, np.concatenate([one.targets for one in singles]))
    np.testing.assert_allclose(
        whole.heatmaps(), np.concatenate([one.heatmaps() for one in singles]), atol=1e-4
    )


@settings(derandomize=True, max_examples=20, deadline=None)
@given(shape=st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(1, 6), st.integers(1, 6)))
def test_the_pure_function_equals_a_loop_over_channels(shape):
    generator = torch.Generator().manual_seed(sum(shape))
    activations, gradients = (torch.randn(shape, generator=generator, dtype=torch.float64) for _ in range(2))
    expected = sum(gradients[:, k].mean((1, 2))[:, None, None] * activations[:, k] for k in range(shape[1]))
    torch.testing.assert_close(grad_cam(activations, gradients), expected)


def test_float64_agrees_and_stays_float64():
    model, images = seeded(Staged), pictures(size=16)
    single = explain(model, images, 1, layer="layer3")
    double = explain(model.double(), images, 1, layer="layer3")  # float32 images follow the model
    assert (single.maps.dtype, double.maps.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single.maps, double.maps, rtol=1e-3, atol=1e-6)


def test_channels_last_gives_the_same_maps():
    model, images = seeded(Staged), pictures(size=16)
    expected = explain(model, images, 2, layer="layer3").maps
    model = model.to(memory_format=torch.channels_last)
    result = explain(model, images.to(memory_format=torch.channels_last), 2, layer="layer3")
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-7)


def test_under_autocast_the_maps_are_made_in_float32():
    model, images = seeded(Staged), pictures(size=16)
    seen = []

    def spy(activations, gradients):
        maps = grad_cam(activations, gradients)
        seen.append((activations.dtype, gradients.dtype, maps.dtype))
        return maps

    expected = explain(model, images, 2, layer="layer3").maps
    with torch.autocast("cpu", torch.bfloat16):
        result = explain(model, images, 2, layer="layer3.0", method=spy)
        near = explain(model, images, 2, layer="layer3")
    assert seen == [(torch.float32,) * 3]
    assert result.maps.dtype == result.logits.dtype == np.float32
    assert np.abs(near.maps - expected).max() < 0.05 * np.abs(expected).max()


OF_RECORD = [name for name, method in METHODS.items() if not takes_context(method)]


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


def test_cam_finds_the_layer_that_is_pooled_and_needs_no_gradient():
    model, images = seeded(Staged).requires_grad_(False), pictures(size=24)
    result = explain(model, images, [4, 0, 2], method="cam")
    assert (result.layer, result.maps.shape) == ("layer4", (3, 3, 3))
    A = []
    model.layer4.register_forward_hook(lambda module, inputs, output: A.append(output))
    model(images)
    for i, target in enumerate([4, 0, 2]):
        expected = sum(model.fc.weight[target, k] * A[0][i, k] for k in range(8))
        np.testing.assert_allclose(result.maps[i], expected, rtol=1e-5, atol=1e-6)


def test_cam_of_a_convolution_as_head():
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    images = pictures()
    result = explain(model, images, 2, method="cam", layer="1")
    expected = model[2](model[:2](images))[:, 2] - model[2].bias[2]
    np.testing.assert_allclose(result.maps, expected.detach(), rtol=1e-4, atol=1e-6)


def test_cam_refuses_what_is_not_its_head():
    message = r"cam needs global average pooling and a linear head right after the layer, and 'layer3' is "
    with pytest.raises(SightlineError, match=message + r".*; use layer 'layer4', which is pooled"):
        explain(seeded(Staged), pictures(size=24), method="cam", layer="layer3")
    with pytest.raises(SightlineError, match=r"cam needs .* use hires_cam or grad_cam"):
        explain(seeded(nonlinear), pictures(), method="cam")
    maximum = seeded(pooled)
    maximum[2] = nn.AdaptiveMaxPool2d(1)  # looks the same, and is told by its numbers
    with pytest.raises(SightlineError, match="cam needs global average pooling"):
        explain(maximum, pictures(), method="cam", layer="1")


def tail_of_nonlinear(model: nn.Module, A: torch.Tensor, target: int) -> torch.Tensor:
    return model[3:](A[None])[0, target]


def test_shapley_cam_equals_second_differences():
    model, images = seeded(nonlinear).double(), pictures(2).double()
    result = explain(model, images, 1, layer="2", method="shapley_cam")
    for i, A in enumerate(model[:3](images).detach()):

        def gradient(scale: float, A=A) -> torch.Tensor:
            leaf = (scale * A).requires_grad_()
            return torch.autograd.grad(tail_of_nonlinear(model, leaf, 1), leaf)[0]

        step = 1e-5
        product = (gradient(1 + step) - gradient(1 - step)) / (2 * step)  # H A
        weights = (gradient(1) - product / 2).mean((1, 2))
        np.testing.assert_allclose(result.maps[i], (weights[:, None, None] * A).sum(0), rtol=1e-5, atol=1e-9)
        assert product.abs().max() > 1e-4


def test_shapley_cam_worked_out_by_hand():
    # y = (sum of A)^2 with A = [1 2]: g = 2 * 3 = 6, H A = 2 * 3 = 6 in each cell, so w = 6 - 3 = 3.
    class Square(nn.Module):
        def forward(self, x):
            return x.flatten(1).sum(1, keepdim=True) ** 2

    model = nn.Sequential(nn.Identity(), Square())
    result = explain(model, torch.tensor([[[[1.0, 2.0]]]]), layer="0", method="shapley_cam")
    np.testing.assert_allclose(result.maps, [[[3.0, 6.0]]])


@pytest.mark.parametrize("build", [nonlinear, pooled])
def test_finer_cam_is_the_grad_cam_of_the_contrast(build):
    model, images, targets = seeded(build), pictures(4), [0, 1, 2, 3]
    result = explain(model, images, targets, layer="1", method="finer_cam")
    each = np.stack([explain(model, images, c, layer="1").maps for c in range(4)])  # (C, B, h, w)
    for i, target in enumerate(targets):  # three others of four classes: all are similar
        others = np.mean([each[c, i] for c in range(4) if c != target], axis=0)
        np.testing.assert_allclose(result.maps[i], each[target, i] - 0.6 * others, rtol=1e-4, atol=1e-7)


def test_finer_cam_compares_with_the_nearest_logits():
    model, images = seeded(pooled, classes=7), pictures(3)
    logits = model(images).detach()
    method = partial(METHODS["finer_cam"], gamma=1.0, similar=2)
    result = explain(model, images, 5, layer="1", method=method)
    assert result.method == "finer_cam"
    each = np.stack([explain(model, images, c, layer="1").maps for c in range(7)])
    for i in range(3):
        distance = {c: abs(float(logits[i, c] - logits[i, 5])) for c in range(7) if c != 5}
        near = sorted(distance, key=distance.get)[:2]
        np.testing.assert_allclose(result.maps[i], each[5, i] - each[near, i].mean(0), rtol=1e-4, atol=1e-7)


def test_finer_cam_needs_another_class():
    with pytest.raises(SightlineError, match="finer_cam compares classes, and the model has a single one"):
        explain(seeded(pooled, classes=1), pictures(), method="finer_cam")


def test_shapley_cam_says_so_where_there_is_no_second_derivative():
    model, images = seeded(prototypical), pictures(2)
    assert explain(model, images, layer="1", method="grad_cam").layer == "1"
    with pytest.raises(InputError, match="an operation behind layer '1' has no second derivative"):
        explain(model, images, layer="1", method="shapley_cam")


def test_an_error_of_the_model_itself_is_not_taken_for_a_missing_derivative():
    class Broken(nn.Module):
        def forward(self, x):
            raise RuntimeError("of my own")

    with pytest.raises(RuntimeError, match="of my own"):
        explain(nn.Sequential(nn.Conv2d(3, 4, 3), Broken()), pictures(2), layer="0", method="shapley_cam")
