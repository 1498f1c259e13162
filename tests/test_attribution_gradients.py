import functools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attribution_nets import Staged, naive_grad_cam, nonlinear, pictures, pooled, seeded
from captum.attr import Deconvolution, GuidedBackprop, IntegratedGradients, Saliency
from torch import nn

from sightline.attribution import explain
from sightline.attribution.methods.cam import grad_cam_plus_plus
from sightline.attribution.methods.gradients import (
    deconvnet,
    full_grad,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    saliency,
    smooth_grad,
    smooth_grad_cam_plus_plus,
)
from sightline.errors import SightlineError

METHODS = [
    saliency,
    smooth_grad,
    integrated_gradients,
    guided_backprop,
    deconvnet,
    guided_grad_cam,
    smooth_grad_cam_plus_plus,
]


def rectified(classes=4):
    """Only ReLU modules, each run once and not in place: where captum's hooks see all of them."""
    return nn.Sequential(
        nn.Conv2d(3, 5, 3, padding=1),
        nn.BatchNorm2d(5),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(5, 6, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(6 * 36, 7),
        nn.ReLU(),
        nn.Linear(7, classes),
    )


class Spelled(nn.Module):
    """The same network with its ReLUs written in as many ways as there are, one of them reused."""

    def __init__(self, layers):
        super().__init__()
        self.layers, self.relu = layers, nn.ReLU(inplace=True)

    def forward(self, x):
        convolution1, norm, _, pool, convolution2, _, flatten, hidden, _, head = self.layers
        x = pool(self.relu(norm(convolution1(x))))
        x = F.relu(convolution2(x), inplace=True)
        x = self.relu(hidden(flatten(x)))
        return head(torch.relu(x).relu())  # ReLU of a ReLU is one ReLU


def gradient_of(model, images, targets):
    images = images.clone().requires_grad_()
    score = model(images).gather(1, torch.tensor(targets)[:, None]).sum()
    return torch.autograd.grad(score, images)[0]


def test_saliency_is_the_largest_magnitude_over_the_channels():
    model, images, targets = seeded(nonlinear), pictures(), [0, 3, 1]
    captum = Saliency(model).attribute(images.clone().requires_grad_(), torch.tensor(targets))
    result = explain(model, images, targets, method=saliency)
    np.testing.assert_allclose(result.maps, captum.amax(1), rtol=1e-5)


def test_saliency_of_a_linear_model_is_its_weights_worked_out_by_hand():
    model = nn.Sequential(nn.Flatten(), nn.Linear(8, 1))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -2, 3, 0, -4, 1, 1, 0]]))
    result = explain(model, torch.rand(1, 2, 2, 2), 0, method=saliency)
    np.testing.assert_allclose(result.maps[0], [[4, 2], [3, 0]])


@pytest.mark.parametrize("baseline", [torch.zeros_like, lambda images: 0.25 + 0.5 * images.flip(3)])
def test_integrated_gradients_equal_captum(baseline):
    model, images, targets = seeded(nonlinear), pictures(), torch.tensor([0, 3, 1])
    captum = IntegratedGradients(model).attribute(
        images, baselines=baseline(images), target=targets, n_steps=20, method="gausslegendre"
    )
    method = functools.partial(integrated_gradients, steps=20, baseline=baseline)
    result = explain(model, images, targets, method=method)
    np.testing.assert_allclose(result.maps, captum.sum(1), rtol=1e-3, atol=1e-6)


def smooth_net(classes=4):
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(400, classes), nn.Softplus())


def test_integrated_gradients_are_complete():
    model, images = seeded(smooth_net).double(), pictures().double()
    result = explain(model, images, 2, method=integrated_gradients)
    gap = (model(images) - model(torch.zeros_like(images)))[:, 2].detach()
    np.testing.assert_allclose(result.maps.sum((1, 2)), gap, rtol=1e-10)


def test_integrated_gradients_of_a_relu_network_are_complete_up_to_the_rule():
    model, images = seeded(rectified).double(), pictures().double()
    result = explain(model, images, 2, method=functools.partial(integrated_gradients, steps=400))
    gap = (model(images) - model(torch.zeros_like(images)))[:, 2].detach()
    np.testing.assert_allclose(result.maps.sum((1, 2)), gap, rtol=1e-2)


@pytest.mark.parametrize(("method", "peer"), [(guided_backprop, GuidedBackprop), (deconvnet, Deconvolution)])
@pytest.mark.parametrize("spell", [nn.Sequential, lambda *layers: Spelled(nn.ModuleList(layers))])
@pytest.mark.filterwarnings("ignore:Setting backward hooks")
def test_guided_gradients_equal_captum_however_the_relus_are_written(method, peer, spell):
    plain, images, targets = seeded(rectified), pictures(), torch.tensor([0, 3, 1])
    captum = peer(plain).attribute(images.clone().requires_grad_(), targets)
    result = explain(spell(*plain).eval(), images, targets, method=method)
    np.testing.assert_allclose(result.maps, captum.abs().amax(1), rtol=1e-4, atol=1e-8)
    assert np.abs(result.maps).max() > 0


def test_guided_backprop_and_deconvnet_worked_out_by_hand():
    # y = ReLU(x_0 - x_1) - ReLU(x_0 + x_1) at x = (1, 3): before the ReLUs -2 and 4.
    model = nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False), nn.ReLU(), nn.Linear(2, 1, bias=False))
    with torch.no_grad():
        model[1].weight.copy_(torch.tensor([[1.0, -1.0], [1.0, 1.0]]))
        model[3].weight.copy_(torch.tensor([[1.0, -1.0]]))
    image = torch.tensor([[[[1.0, 3.0]]]])
    maps = {m: explain(model, image, 0, method=m).maps[0, 0] for m in (saliency, guided_backprop, deconvnet)}
    np.testing.assert_array_equal(maps[saliency], [1, 1])  # the second unit is on, and its gradient is -1
    np.testing.assert_array_equal(maps[guided_backprop], [0, 0])  # the first is off, the second is negative
    np.testing.assert_array_equal(maps[deconvnet], [1, 1])  # the first hands back its 1 although it is off


@pytest.mark.parametrize("method", [guided_backprop, deconvnet, guided_grad_cam])
@pytest.mark.parametrize(
    ("activation", "message"),
    [
        (
            nn.GELU(),
            "the model applies Gelu, and guided backprop and deconvnet are defined for ReLU only; use",
        ),
        (nn.SiLU(), "the model applies Silu, and"),
        (nn.CELU(), "the model applies Celu, and"),
        (nn.ReLU6(), "the model applies Hardtanh, and"),
        (nn.Tanh(), "autograd recorded no ReLU in this model, so guided backprop and deconvnet would be"),
    ],
)
def test_what_guided_gradients_cannot_serve_is_said(method, activation, message):
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), activation, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    with pytest.raises(SightlineError, match=message):
        explain(model, pictures(1), 0, method=method, layer="0")


def test_guided_grad_cam_is_the_product():
    model, images, targets = seeded(rectified), pictures(), [0, 3, 1]
    fine = explain(model, images, targets, method=guided_backprop).maps
    coarse = naive_grad_cam(model, model[5], images, targets).clamp(min=0)
    expected = fine * F.interpolate(coarse[:, None], (12, 12), mode="bilinear")[:, 0].numpy()
    result = explain(model, images, targets, method=guided_grad_cam, layer="5")
    np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-8)


def noisy(image, samples, noise, seed):
    """The copies of one image, one draw at a time."""
    generator = torch.Generator().manual_seed(seed)
    for _ in range(samples):
        yield image + noise * (image.max() - image.min()) * torch.randn(image.shape, generator=generator)


def test_smooth_grad_is_the_mean_gradient_of_noisy_copies():
    model, images, targets = seeded(nonlinear), pictures(), [0, 3, 1]
    result = explain(
        model, images, targets, method=functools.partial(smooth_grad, samples=7, noise=0.2, seed=4)
    )
    for image, target, found in zip(images, targets, result.maps, strict=True):
        mean = sum(gradient_of(model, copy[None], [target])[0] for copy in noisy(image, 7, 0.2, 4)) / 7
        np.testing.assert_allclose(found, mean.abs().amax(0), rtol=1e-3, atol=1e-7)


def test_smooth_grad_without_noise_is_saliency():
    model, images = seeded(nonlinear), pictures()
    still = explain(model, images, 1, method=functools.partial(smooth_grad, samples=3, noise=0.0))
    np.testing.assert_allclose(still.maps, explain(model, images, 1, method=saliency).maps, rtol=1e-5)


def test_smooth_grad_cam_plus_plus_is_the_mean_map_of_noisy_copies_for_the_clean_targets():
    model, images = seeded(nonlinear), pictures()
    method = functools.partial(smooth_grad_cam_plus_plus, samples=5, noise=0.3, seed=2)
    result = explain(model, images, method=method, layer="5")
    np.testing.assert_array_equal(result.targets, model(images).argmax(1))
    for image, target, found in zip(images, result.targets, result.maps, strict=True):
        each = [
            explain(model, copy[None], int(target), method=grad_cam_plus_plus, layer="5").maps[0]
            for copy in noisy(image, 5, 0.3, 2)
        ]
        np.testing.assert_allclose(found, np.mean(each, axis=0), rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_neither_the_batch_nor_the_size_of_a_pass_changes_a_map(method):
    model, images, targets = seeded(rectified), pictures(4), [0, 3, 1, 2]
    whole = explain(model, images, targets, method=method)
    for batch_size in (1, 3, 200):
        part = explain(model, images, targets, method=method, batch_size=batch_size)
        np.testing.assert_allclose(part.maps, whole.maps, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize("method", METHODS)
def test_float64_agrees(method):
    model, images = seeded(rectified), pictures(2)
    single = explain(model, images, 1, method=method)
    double = explain(model.double(), images, 1, method=method)
    assert double.maps.dtype == np.float64
    np.testing.assert_allclose(single.maps, double.maps, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_the_images_and_the_random_state_are_left_as_they_were(method):
    model, images = seeded(rectified), pictures(2)
    model.requires_grad_(False)
    model[1].train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(5)
    state = torch.get_rng_state()
    with torch.no_grad():
        first = explain(model, images, 1, method=method)
    assert torch.equal(torch.get_rng_state(), state)
    with torch.inference_mode():
        second = explain(model, images, 1, method=method)
    np.testing.assert_array_equal(first.maps, second.maps)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model[1].training
    assert not model[0].training
    assert all(parameter.grad is None and not parameter.requires_grad for parameter in model.parameters())
    assert not images.requires_grad
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())


def test_under_autocast_the_maps_are_near_and_float32():
    model, images = seeded(Staged), pictures(size=16)
    exact = explain(model, images, 1, method=guided_backprop).maps
    with torch.autocast("cpu", torch.bfloat16):
        near = explain(model, images, 1, method=guided_backprop).maps
    assert near.dtype == np.float32
    assert np.abs(near - exact).max() < 0.2 * np.abs(exact).max()


@pytest.mark.parametrize("method", METHODS)
def test_a_model_in_half_precision_gets_maps_in_float32(method):
    model, images = seeded(rectified), pictures(2)
    exact = explain(model, images, 1, method=method).maps
    near = explain(model.bfloat16(), images, 1, method=method).maps
    assert near.dtype == np.float32
    assert np.abs(near - exact).max() < 0.35 * np.abs(exact).max()


@pytest.mark.parametrize("method", [saliency, guided_backprop, deconvnet, full_grad])
@pytest.mark.parametrize("targets", [None, [0, 3, 1]])
def test_one_forward_pass_gives_gradient_and_logits(method, targets):
    model, images = seeded(rectified), pictures()
    count = []
    model.register_forward_hook(lambda module, inputs, output: count.append(len(output)))
    result = explain(model, images, targets, method=method, layer="0")
    assert count == [3]
    np.testing.assert_allclose(result.logits, model(images).detach(), rtol=1e-5)


def test_a_score_without_gradient_names_the_methods_that_serve():
    class Cut(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = seeded(pooled)

        def forward(self, x):
            return self.net(x.detach())

    with pytest.raises(
        SightlineError, match=r"the images: the model detaches them .*; use .* occlusion or rise"
    ):
        explain(Cut().requires_grad_(False), pictures(1), 0, method=saliency)
