import numpy as np
import pytest
import torch
from captum.attr import LayerGradCam
from explain_nets import Staged, Wrapped, naive_grad_cam, nonlinear, pictures, pooled, seeded
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from sightline.attribution import explain, explain_layers, grad_cam

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
