"""What `explain` takes: targets and scores as functions, several layers, volumes, wrapped models."""

import numpy as np
import pytest
import torch
from attribution_nets import Staged, Wrapped, naive_grad_cam, nonlinear, pictures, pooled, seeded
from torch import nn

from sightline.attribution import (
    COMBINATIONS,
    METHODS,
    class_maps,
    explain,
    explain_layers,
    preflight,
    target_layer,
)
from sightline.attribution.display import resize_maps
from sightline.attribution.explanation import maximum, mean, product
from sightline.errors import SightlineError


def test_targets_may_be_a_function_of_the_logits():
    model, images = seeded(nonlinear), pictures(5)
    second = model(images).topk(2).indices[:, 1]
    result = explain(model, images, lambda logits: logits.topk(2).indices[:, 1], batch_size=2)
    np.testing.assert_array_equal(result.targets, second)
    np.testing.assert_array_equal(result.maps, explain(model, images, second, batch_size=2).maps)
    for wrong, message in (
        (lambda logits: None, "the function for targets returned NoneType; it needs one integer per image"),
        (lambda logits: logits, r"targets are torch.float32; pass an integer, or one integer per image"),
        (lambda logits: torch.tensor([1]), r"targets are \(1,\) for 5 images; pass one class for all"),
    ):
        with pytest.raises(SightlineError, match=message):
            explain(model, images, wrong)


@pytest.mark.parametrize("name", METHODS)
def test_a_score_turns_any_output_into_logits(name):
    class Dictionary(Wrapped):
        def forward(self, x):
            return {"logits": self.backbone(x)}

    model, images = seeded(pooled), pictures(2)
    expected = explain(model, images, 1, method=name, layer="1")
    result = explain(
        Dictionary(model), images, 1, method=name, layer="backbone.1", score=lambda out: out["logits"]
    )
    np.testing.assert_allclose(result.maps, expected.maps, rtol=1e-5, atol=1e-8)


def test_a_score_may_be_one_number_per_image_or_a_probability():
    model, images = seeded(nonlinear), pictures()
    by_score = explain(model, images, layer="3", score=lambda logits: logits[:, 2])
    np.testing.assert_allclose(by_score.maps, explain(model, images, 2, layer="3").maps, rtol=1e-5)
    np.testing.assert_array_equal(by_score.targets, 0)
    np.testing.assert_allclose(by_score.logits[:, 0], model(images)[:, 2].detach(), rtol=1e-5)
    softmax = explain(model, images, 2, layer="3", score=nn.Softmax(1))
    wrapped = nn.Sequential(*model, nn.Softmax(1))
    np.testing.assert_allclose(
        softmax.maps, naive_grad_cam(wrapped, wrapped[3], images, [2, 2, 2]), rtol=1e-4, atol=1e-8
    )
    with pytest.raises(
        SightlineError, match=r"score returned \(3, 4, 1\); it needs to return logits \(B, C\), or"
    ):
        explain(model, images, layer="3", score=lambda logits: logits[..., None])
    with pytest.raises(SightlineError, match=r"score returned float; it needs to return logits"):
        explain(model, images, layer="3", score=lambda logits: 1.0)


def test_several_layers_are_scaled_resized_and_joined_by_a_function():
    model, images = seeded(Staged), pictures(size=24)
    names = ["layer1", "layer2", "layer3"]
    each = explain_layers(model, images, 1, layers=names)
    scaled = [
        resize_maps(each[name].maps / np.abs(each[name].maps).max((1, 2), keepdims=True), (24, 24))
        for name in names
    ]
    expected = {
        "mean": sum(scaled) / 3,
        "max": np.maximum(np.maximum(*scaled[:2]), scaled[2]),
        "product": np.prod([np.maximum(maps, 0) for maps in scaled], axis=0),
    }
    for combine, maps in expected.items():
        result = explain(model, images, 1, layer=["layer1", model.layer2, "layer3"], combine=combine)
        np.testing.assert_allclose(result.maps, maps, rtol=1e-4, atol=1e-6)
        assert (result.layer, result.maps.shape) == ("layer1+layer2+layer3", (3, 24, 24))
    least = explain(model, images, 1, layer=names, combine=lambda maps: maps.min(axis=0))
    np.testing.assert_allclose(least.maps, np.min(scaled, axis=0), rtol=1e-4, atol=1e-6)
    assert {"mean": mean, "max": maximum, "product": product} == COMBINATIONS


def test_layers_of_a_context_method_are_joined_too():
    model, images = seeded(Staged), pictures(2, size=24)
    joined = explain(model, images, 1, layer=["layer2", "layer3"], method="shapley_cam")
    assert joined.maps.shape == (2, 12, 12)
    alone = explain(model, images, 1, layer=["layer3"], method="shapley_cam").maps
    single = explain(model, images, 1, layer="layer3", method="shapley_cam").maps
    np.testing.assert_allclose(alone * np.abs(single).max((1, 2), keepdims=True), single, rtol=1e-4)


def test_a_joined_map_keeps_a_status_of_its_own():
    model = seeded(Staged)
    model.fc = nn.Linear(8, 5)
    with torch.no_grad():
        model.fc.weight[1] = 0
    result = explain(model, pictures(size=24), [1, 0, 2], layer=["layer2", "layer3"], combine="product")
    assert result.status[0] == "zero gradient"
    assert set(result.status[1:]) <= {"ok", "no positive evidence"}


def test_combinations_that_do_not_fit():
    model = seeded(Staged)
    with pytest.raises(SightlineError, match="combine 'meen' is not known; did you mean 'mean'"):
        explain(model, pictures(), layer=["layer1", "layer2"], combine="meen")
    with pytest.raises(SightlineError, match=r"combine returned \(2, 3, 12, 12\); it takes maps"):
        explain(model, pictures(), layer=["layer1", "layer2"], combine=lambda maps: maps)
    with pytest.raises(SightlineError, match="needs a list of at least one layer"):
        explain(model, pictures(), layer=[])


def volumetric() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(3, 5, 3, padding=1),
        nn.ReLU(inplace=True),
        nn.AdaptiveAvgPool3d(1),
        nn.Flatten(),
        nn.Linear(5, 4),
    )


@pytest.mark.parametrize("name", METHODS)
def test_volumes_are_explained_and_maps_turn_with_them(name):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = volumetric().eval()
    images = torch.rand(2, 3, 8, 7, 9, generator=torch.Generator().manual_seed(1))
    if name == "occlusion":
        images = torch.rand(2, 3, 4, 4, 4)
    result = explain(model, images, 1, method=name)
    assert result.maps.shape == (2, *images.shape[2:])
    assert np.isfinite(result.maps).all()
    assert result.heatmaps().shape == (2, *images.shape[2:])
    swapped = model[:1]  # the same network with its axes turned: the map turns along
    with torch.no_grad():
        swapped[0].weight.copy_(swapped[0].weight.transpose(2, 4).clone())
    if name in (
        "grad_cam",
        "hires_cam",
        "layer_cam",
        "saliency",
        "integrated_gradients",
        "cam",
        "shapley_cam",
    ):
        turned = explain(model, images.transpose(2, 4), 1, method=name).maps
        np.testing.assert_allclose(turned.transpose(0, 3, 2, 1), result.maps, rtol=1e-3, atol=1e-6)


def test_volumes_have_closed_forms_and_preflight_too(tmp_path):
    model, images = volumetric().eval(), torch.rand(2, 3, 6, 7, 8)
    maps = class_maps(model, images)
    np.testing.assert_allclose(
        maps.sum((2, 3, 4)), (model(images) - model[4].bias).detach(), rtol=1e-3, atol=1e-5
    )
    assert "6x7x8 cells" in str(preflight(model, (1, 3, 6, 7, 8)))
    explain(model, images).save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["maps.npz"]


def test_a_data_parallel_model_is_taken_out_of_its_wrapping():
    model, images = seeded(Staged), pictures(size=24)
    expected = explain(model, images)
    wrapped = nn.DataParallel(model)
    result = explain(wrapped, images)
    assert result.layer == target_layer(wrapped, images) == "layer3"
    np.testing.assert_array_equal(result.maps, expected.maps)


def test_a_distributed_model_is_taken_out_of_its_wrapping():
    from torch import distributed

    model, images = seeded(Staged), pictures(size=24)
    expected = explain(model, images, method="shapley_cam")
    distributed.init_process_group("gloo", store=distributed.HashStore(), rank=0, world_size=1)
    try:
        wrapped = nn.parallel.DistributedDataParallel(model)
        np.testing.assert_array_equal(explain(wrapped, images, method="shapley_cam").maps, expected.maps)
    finally:
        distributed.destroy_process_group()


def test_compiled_models_are_run_as_they_were_written():
    model, images = seeded(Staged), pictures(size=24)
    expected = explain(model, images, layer="layer3")
    compiled = torch.compile(model, backend="eager")
    np.testing.assert_array_equal(explain(compiled, images, layer="layer3").maps, expected.maps)
    np.testing.assert_array_equal(explain(compiled, images, layer=model.layer3).maps, expected.maps)
    assert preflight(compiled, images).layer == "layer3"


def test_a_model_compiled_in_place_is_run_as_it_was_written():
    images = pictures(size=24)
    expected = explain(seeded(Staged), images, layer="layer3")
    model = seeded(Staged)
    model.compile(backend="eager")
    model.layer2.compile(backend="eager")
    with torch.no_grad():
        model(images)  # compiled before there is a hook
    np.testing.assert_allclose(explain(model, images, layer="layer3").maps, expected.maps, rtol=1e-5)
    assert model._compiled_call_impl is not None


def plain() -> nn.Module:
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)]
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), *head).eval()


class TwoInputs(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv, self.fc = nn.Conv2d(3, 8, 3), nn.Linear(8, 4)

    def forward(self, image, age):
        return self.fc(self.conv(image).mean((2, 3)) + age)


def exported(images: torch.Tensor) -> nn.Module:
    return torch.export.export(plain(), (images,)).module()


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of torch.jit itself
@pytest.mark.parametrize(
    ("model", "images", "message"),
    [
        (lambda x: torch.jit.trace(plain(), x), lambda x: x, r"torch.jit module, .* pass the nn.Module that"),
        (lambda x: plain().to("meta"), lambda x: x, "Sequential has weights on the meta device"),
        (lambda x: plain(), lambda x: x.to("meta"), "the images are on the meta device"),
        (
            lambda x: plain(),
            lambda x: x.permute(0, 2, 3, 1),
            r"images are \(\d, 12, 12, 3\), channels last, and Sequential takes \(B, 3, H, W\); pass im",
        ),
        (lambda x: TwoInputs(), lambda x: x, r"TwoInputs takes 2 inputs \(image, age\); pass a module whose"),
        (exported, lambda x: x, "the exported program takes batches of 2 alone"),
    ],
)
def test_what_cannot_be_explained_is_said_in_one_line(model, images, message):
    pictures = torch.rand(2, 3, 12, 12)
    with pytest.raises(SightlineError, match=message) as caught:
        explain(model(pictures), images(pictures))
    assert "\n" not in str(caught.value)


@pytest.mark.filterwarnings("ignore")  # of the quantisation itself, which torch is about to drop
def test_full_grad_refuses_quantised_layers():
    model = plain()
    quantised = torch.ao.quantization.quantize_dynamic(model, {nn.Linear}, dtype=torch.qint8)
    with pytest.raises(SightlineError, match="full_grad needs the gradients of biases, and '4' is quantised"):
        explain(quantised, torch.rand(1, 3, 12, 12), method="full_grad")


class Once(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx, slope):
        return 2 * ctx.saved_tensors[0] * slope


class SquaredOnce(nn.Module):
    def forward(self, x):
        return Once.apply(x)


def test_shapley_cam_does_not_become_grad_cam_where_the_second_derivative_is_hidden():
    model = plain()
    model.insert(2, SquaredOnce())
    with pytest.raises(
        SightlineError, match="Once behind layer '1' says that it is differentiable only once"
    ):
        explain(model, torch.rand(2, 3, 12, 12), method="shapley_cam", layer="1")
