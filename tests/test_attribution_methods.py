"""What every method owes, whatever it computes: by name or function, batch or single, nothing left behind."""

import gc
import sys
from functools import partial

import numpy as np
import pytest
import torch
from attribution_nets import nonlinear, pictures, pooled, seeded
from test_attribution_hooks import snapshot, used
from torch import nn

from sightline.attribution import METHODS, explain
from sightline.attribution.methods import find_method, takes_context
from sightline.errors import InputError, InputTypeError, SightlineError, UntrustedError

# So many passes that a test of what is left behind needs fewer.
FEWER = {
    "rise": {"masks": 8},
    "smooth_grad": {"samples": 3},
    "smooth_grad_cam_plus_plus": {"samples": 3},
    "integrated_gradients": {"steps": 4},
}
EVERY = [partial(method, **FEWER[name]) if name in FEWER else method for name, method in METHODS.items()]
every_method = pytest.mark.parametrize("method", EVERY, ids=METHODS)


def exact(method) -> nn.Module:
    """A model that the method can serve: with a hidden layer, but for CAM."""
    return seeded(pooled if method is METHODS["cam"] else nonlinear)


@every_method
def test_a_batch_equals_its_images_one_by_one_and_batches_of_any_size(method):
    model, images = exact(method), pictures(5)
    whole = explain(model, images, [0, 1, 2, 3, 0], method=method, layer="1")
    parts = explain(model, images, [0, 1, 2, 3, 0], method=method, layer="1", batch_size=2)
    singles = [
        explain(model, image[None], i % 4, method=method, layer="1").maps for i, image in enumerate(images)
    ]
    scale = np.abs(whole.maps).max()
    np.testing.assert_allclose(whole.maps, np.concatenate(singles), rtol=1e-3, atol=1e-4 * scale)
    np.testing.assert_allclose(whole.maps, parts.maps, rtol=1e-3, atol=1e-4 * scale)
    assert whole.status == parts.status


@every_method
def test_float64_agrees_and_stays_float64(method):
    model, images = exact(method), pictures(2)
    single = explain(model, images, 1, method=method, layer="1")
    double = explain(model.double(), images, 1, method=method, layer="1")
    assert (single.maps.dtype, double.maps.dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(single.maps, double.maps, rtol=1e-2, atol=1e-3 * np.abs(double.maps).max())


@every_method
def test_everything_is_left_as_it_was_found(method):
    model, images = used(), pictures()
    layer = "body.layer4" if method is METHODS["cam"] else "body.layer3"
    before = snapshot(model)
    explain(model, images, method=method, layer=layer)
    assert snapshot(model) == before
    with torch.inference_mode():
        explain(model, images * 1, method=method, layer=layer)
    assert snapshot(model) == before
    assert images.grad is None


@every_method
def test_everything_is_left_as_it_was_found_after_an_exception_in_the_middle(method):
    model, images = used(broken=True), pictures()
    before = snapshot(model)
    with pytest.raises(RuntimeError, match="midway"):
        explain(model, images, 0, method=method, layer="body.layer3")
    assert snapshot(model) == before


@every_method
def test_frozen_weights_and_the_callers_grad_mode_do_not_matter(method):
    model, images = exact(method), pictures(2)
    expected = explain(model, images, 1, method=method, layer="1").maps
    with torch.no_grad():
        np.testing.assert_array_equal(explain(model, images, 1, method=method, layer="1").maps, expected)
    model.requires_grad_(False)
    with torch.inference_mode():
        frozen = explain(model, images * 1, 1, method=method, layer="1").maps
    np.testing.assert_array_equal(frozen, expected)


@every_method
def test_under_autocast_maps_are_float32_and_near(method):
    model, images = exact(method), pictures(2)
    expected = explain(model, images, 1, method=method, layer="1").maps
    with torch.autocast("cpu", torch.bfloat16):
        result = explain(model, images, 1, method=method, layer="1")
    assert result.maps.dtype == result.logits.dtype == np.float32
    if method is METHODS["score_cam"] or isinstance(method, partial) or method is METHODS["occlusion"]:
        return  # small differences of scores, which bfloat16 rounds away
    assert np.corrcoef(result.maps.ravel(), expected.ravel())[0, 1] > 0.9


@every_method
def test_many_calls_leave_no_tensor_behind(method):
    def living() -> int:
        gc.collect()
        return sum(type(thing) is torch.Tensor for thing in gc.get_objects())

    model, images = exact(method), pictures(2)
    explain(model, images, method=method, layer="1")
    before = living()
    for _ in range(5):
        explain(model, images, method=method, layer="1")
    assert living() <= before


def test_a_thousand_calls_do_not_grow():
    model, images = seeded(pooled), pictures(1)

    def living() -> int:
        gc.collect()
        return len(gc.get_objects())

    def some(count: int) -> None:
        for _ in range(count):
            explain(model, images, 1, layer="1")
            explain(model, images, 1, layer="1", method="cam")

    some(5)
    before = living()
    some(500)
    assert living() <= before + 50


def test_the_two_forms_are_told_apart_by_what_they_demand():
    class Callable:
        def __call__(self, context):
            return context.images.mean(1)

    def with_default(context, factor=2):
        return factor * context.images.mean(1)

    def keyword(context, *, factor=2):
        return factor * context.images.mean(1)

    def two(activations, gradients, *more, power=1):
        return activations.sum(1)

    model, images = seeded(pooled), pictures()
    for method in (Callable(), with_default, keyword, partial(two, power=2)):
        assert takes_context(method) is (getattr(method, "func", None) is not two)
        assert explain(model, images, 0, method=method).maps.shape == (3, 12, 12)
    assert explain(model, images, method=Callable()).method == "Callable"
    assert explain(model, images, method=partial(two, power=2)).method == "two"


@pytest.mark.parametrize(
    ("method", "count"),
    [(lambda: None, 0), (lambda a, b, c: None, 3), (lambda a, b, *, c: None, 3), (lambda *a: None, 0)],
)
def test_a_function_of_neither_form_is_refused(method, count):
    with pytest.raises(
        SightlineError,
        match=rf"method <lambda> has {count} parameters without default; a method takes \(activations, "
        r"gradients\), or \(context\)",
    ):
        explain(seeded(pooled), pictures(), method=method)


@pytest.mark.parametrize(
    ("method", "message"),
    [
        (lambda context: context.images, r"returned \(3, 3, 12, 12\); a method returns .*, here \(3, h, w\)"),
        (
            lambda context: context.images[:2].mean(1),
            r"returned \(2, 12, 12\); a method returns .*, here \(3, h, w\)",
        ),
        (lambda context: None, r"returned NoneType; a method returns a tensor \(B, h, w\), here \(3, h, w\)"),
    ],
)
def test_what_a_method_of_a_case_returns_is_checked(method, message):
    with pytest.raises(SightlineError, match=message):
        explain(seeded(pooled), pictures(), method=method)


def test_a_method_that_looks_at_the_image_alone_needs_no_layer():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(3 * 144, 5), nn.ReLU(), nn.Linear(5, 3))
    result = explain(flat, pictures(), method="saliency")
    assert (result.layer, result.maps.shape) == ("input", (3, 12, 12))
    with pytest.raises(SightlineError, match=r"Sequential has no layer with a map"):
        explain(flat, pictures())


def test_a_method_may_be_named_by_its_module_and_a_file_needs_trust(tmp_path, monkeypatch):
    (tmp_path / "written_elsewhere.py").write_text(
        "def bright(activations, gradients):\n    return activations.sum(1)\n\n\nnothing = 3\n\n\n"
        "def odd(a, b, c):\n    return a\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    model, images = seeded(nonlinear), pictures(2)
    with pytest.raises(UntrustedError, match="--trust written_elsewhere"):
        find_method("written_elsewhere:bright", trust=())
    assert "written_elsewhere" not in sys.modules
    found = explain(model, images, method="written_elsewhere:bright", layer="1")
    own = explain(model, images, method=lambda activations, gradients: activations.sum(1), layer="1")
    np.testing.assert_array_equal(found.maps, own.maps)
    assert found.method == "bright"
    assert find_method("written_elsewhere:bright", trust=["written_elsewhere"]).__name__ == "bright"
    with pytest.raises(InputTypeError, match="method is int; pass a name or a function"):
        explain(model, images, method="written_elsewhere:nothing")
    with pytest.raises(InputError, match="method odd has 3 parameters without default"):
        explain(model, images, method="written_elsewhere:odd")
    with pytest.raises(InputError, match="method 'written_elsewhere:dark' cannot be imported"):
        explain(model, images, method="written_elsewhere:dark")
    del sys.modules["written_elsewhere"]
