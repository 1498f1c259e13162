import copy
import gc
import tracemalloc

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, seeded
from torch import nn
from torch.nn import functional

from sightline.attribution import explain, explain_layers
from sightline.attribution.hooks import hooked, recorded
from sightline.errors import SightlineError


class Raises(torch.autograd.Function):
    """Passes values on and refuses to be differentiated."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, *gradients):
        raise AssertionError("backward went too far")


class Noisy(nn.Module):
    """Draws random numbers in evaluation mode too, and fails on demand."""

    def __init__(self, broken: bool = False):
        super().__init__()
        self.body, self.broken = Staged(), broken

    def forward(self, x):
        y = self.body(x) + 0 * functional.dropout(torch.ones(1), training=True)
        if self.broken:
            raise RuntimeError("midway")
        return y


def snapshot(model: nn.Module) -> dict:
    """Everything that explaining must leave as it was, in a form that compares with ==."""
    modules, parameters = list(model.modules()), list(model.parameters())
    tensors = [*parameters, *model.buffers()]
    return {
        "modes": [module.training for module in modules],
        "hooks": [
            (list(m._forward_hooks), list(m._forward_pre_hooks), list(m._backward_hooks)) for m in modules
        ],
        "attributes": [sorted(vars(module)) for module in modules],
        "requires_grad": [parameter.requires_grad for parameter in parameters],
        "grad": [None if parameter.grad is None else parameter.grad.tolist() for parameter in parameters],
        "identity": [id(tensor) for tensor in tensors],
        "values": [tensor.tolist() for tensor in tensors],
        "random": torch.get_rng_state().tolist(),
        "grad mode": (torch.is_grad_enabled(), torch.is_inference_mode_enabled()),
    }


def used(broken: bool = False) -> Noisy:
    """A model in the middle of its life: mixed modes, a gradient, frozen parts, a user's own hook."""
    model = Noisy(broken)
    model.train()
    model.body.layer1.eval()
    model.body.layer3[1].eval()
    model.body.stem.requires_grad_(False)
    model.body.fc.weight.grad = torch.ones_like(model.body.fc.weight)
    model.body.layer3.register_forward_hook(lambda module, inputs, output: None)
    return model


def test_everything_is_left_as_it_was_found():
    model, images = used(), pictures()
    before = snapshot(model)
    explain(model, images)
    explain_layers(model, images, 1, layers=["body.layer3", "body.layer1"])
    assert snapshot(model) == before
    assert not images.requires_grad
    assert images.grad is None


def test_everything_is_left_as_it_was_found_after_an_exception_in_the_middle():
    model = used(broken=True)
    before = snapshot(model)
    for layer in (None, "body.layer3"):
        with pytest.raises(RuntimeError, match="midway"):
            explain(model, pictures(), layer=layer)
        assert snapshot(model) == before


def test_an_exception_in_the_method_or_in_a_check_leaves_nothing_behind():
    def broken(activations, gradients):
        raise ValueError("of my own")

    model = used()
    before = snapshot(model)
    with pytest.raises(ValueError, match="of my own"):
        explain(model, pictures(), layer="body.layer3", method=broken)
    with pytest.raises(SightlineError):
        explain(model, pictures(), 99, layer="body.layer3")
    with pytest.raises(SightlineError):
        explain(model, pictures(), layer="body.relu")
    assert snapshot(model) == before


def test_a_model_in_training_mode_is_explained_in_evaluation_mode():
    model, images = seeded(Staged), pictures()
    expected = explain(model, images, 1, layer="layer3").maps
    np.testing.assert_array_equal(explain(model.train(), images, 1, layer="layer3").maps, expected)


def test_the_callers_grad_mode_does_not_matter():
    model, images = seeded(Staged), pictures()
    expected = explain(model, images, layer=None)
    with torch.no_grad():
        quiet = explain(model, images)
        assert not torch.is_grad_enabled()
    with torch.inference_mode():
        inner = explain(model, images * 1)  # made in inference mode
        targeted = explain(model, images * 1, model(images).argmax(1))
        assert torch.is_inference_mode_enabled()
    wanting = explain(model, images.clone().requires_grad_())
    for result in (quiet, inner, targeted, wanting):
        assert result.layer == expected.layer
        np.testing.assert_array_equal(result.maps, expected.maps)


def test_the_first_layer_can_be_explained_under_inference_mode():
    model = nn.Sequential(nn.Identity(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    expected = explain(model, pictures(), 0, layer="0").maps
    with torch.inference_mode():
        np.testing.assert_array_equal(explain(model, pictures() * 1, 0, layer="0").maps, expected)


def test_a_frozen_model_gives_the_same_maps():
    model, images = seeded(Staged), pictures()
    expected = explain_layers(model, images, 1, layers=["layer2", "layer3"])
    frozen = explain_layers(model.requires_grad_(False), images, 1, layers=["layer2", "layer3"])
    for name, result in expected.items():
        np.testing.assert_array_equal(frozen[name].maps, result.maps)


def test_the_weights_that_autocast_caches_serve_the_callers_training_as_before():
    model, images = seeded(Staged), pictures()
    if tuple(map(int, torch.__version__.split(".")[:2])) < (2, 9):
        pytest.skip("here the cache itself mixes both modes up, whoever trains")
    with torch.autocast("cpu", torch.bfloat16):
        with torch.inference_mode():
            model(images)
        explain(model, images, layer="layer3")
        model(images).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_no_gradient_is_computed_for_parameters():
    class Guarded(nn.Conv2d):
        def forward(self, x):
            return functional.conv2d(x, Raises.apply(self.weight), Raises.apply(self.bias), padding=1)

    layers = [Guarded(3, 4, 3), nn.ReLU(), Guarded(4, 5, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    model = nn.Sequential(*layers)
    for parameter in model.parameters():
        parameter.register_hook(lambda gradient: pytest.fail("a parameter's gradient was computed"))
    result = explain(model, pictures(), 1, layer="1")
    assert (result.maps != 0).any()


def test_nothing_before_the_layer_is_differentiated_or_even_recorded():
    class Wall(nn.Module):
        def forward(self, x):
            assert not torch.is_grad_enabled()
            return Raises.apply(x)

    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), Wall(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    images = pictures().requires_grad_()
    assert explain(model, images, 1, layer="2").maps.shape == (3, 8, 8)
    with pytest.raises(AssertionError):  # the wall is one: explained before it, it stands in the way
        explain(model, images, 1, layer="0")


def test_a_forward_pass_per_batch_and_one_more_to_choose_the_layer():
    class Counting(Staged):
        passes = 0

        def forward(self, x):
            self.passes += 1
            return super().forward(x)

    model = Counting()
    explain_layers(model, pictures(5), layers=["layer1", "layer2", "layer3"], batch_size=2)
    assert model.passes == 3
    explain(model, pictures(5))
    assert model.passes == 5


def test_many_calls_leave_no_tensor_and_no_hook():
    def living() -> int:
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    model, images = seeded(nonlinear), pictures()
    explain(model, images)
    before = living()
    for _ in range(20):
        explain(model, images)
    assert living() <= before
    assert not any(module._forward_hooks for module in model.modules())


def test_the_model_can_be_copied_and_trained_afterwards():
    model = seeded(Staged)
    explain(model, pictures())
    twin = copy.deepcopy(model).train()
    twin(pictures()).sum().backward()
    assert twin.fc.weight.grad is not None


def test_a_later_layer_stays_joined_to_an_earlier_one():
    model = seeded(Staged)
    layers = {"layer1": model.layer1, "layer3": model.layer3}
    with recorded(model, layers) as outputs:
        model(pictures())
    assert outputs["layer1"].is_leaf
    assert outputs["layer3"].grad_fn is not None


def test_hooks_see_every_run_in_order():
    runs = []
    model = seeded(Staged)
    layers = {"relu": model.relu, "stem": model.stem}
    with hooked(model, layers, lambda name, inputs, output: runs.append(name)):
        model(pictures())
    assert runs == ["stem", "relu", "relu"]


def test_a_thousand_calls_leave_nothing_in_memory():
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)
    )
    images = torch.rand(1, 3, 6, 6)

    def alive() -> tuple[int, int]:
        gc.collect()
        tensors = sum(type(one) in (torch.Tensor, nn.Parameter) for one in gc.get_objects())
        return tensors, tracemalloc.get_traced_memory()[0]

    def explain_often(times: int) -> None:
        for number in range(times):
            explain(model, images, 0, method="grad_cam" if number % 2 else "full_grad", layer="0")

    tracemalloc.start()
    try:
        explain_often(20)
        grown = []  # bytes; what others in this process keep comes once, a leak comes each time
        while len(grown) < 3 and min(grown, default=20_000) >= 20_000:
            tensors, held = alive()
            explain_often(1000)
            tensors_later, held_later = alive()
            assert tensors_later == tensors
            grown.append(held_later - held)
    finally:
        tracemalloc.stop()
    assert min(grown) < 20_000, grown  # a single leaked object per call would be more
