"""All classes at once, and one class over another."""

import numpy as np
import pytest
import torch
from attribution_nets import Staged, nonlinear, pictures, pooled, seeded

from sightline.attribution import class_maps, explain, explain_difference
from sightline.errors import SightlineError


@pytest.mark.parametrize(
    ("build", "layer"), [(pooled, "1"), (nonlinear, "3"), (Staged, "layer2"), (Staged, None)]
)
def test_class_maps_are_the_hires_maps_of_each_class(build, layer):
    model, images = seeded(build), pictures(5, size=12)
    maps = class_maps(model, images, layer, batch_size=2)
    for c in range(maps.shape[1]):
        expected = explain(model, images, c, layer=layer or "layer4", method="hires_cam").maps
        np.testing.assert_allclose(maps[:, c], expected, rtol=1e-4, atol=1e-7)


def test_behind_an_exact_head_class_maps_sum_to_all_logits_and_need_no_backward_pass():
    model, images = seeded(Staged).requires_grad_(False), pictures(3, size=24)
    model.fc.register_full_backward_hook(lambda *arguments: pytest.fail("a backward pass was made"))
    maps = class_maps(model, images)
    assert maps.shape == (3, 5, 3, 3)
    logits = model(images) - model.fc.bias
    np.testing.assert_allclose(maps.sum((2, 3)), logits, rtol=1e-4, atol=1e-5)


def test_the_difference_of_two_classes_behind_an_exact_head_accounts_for_the_gap():
    model, images = seeded(pooled), pictures(4)
    a, b = [0, 1, 2, 3], [1, 2, 3, 0]
    found = explain_difference(model, images, a, b, batch_size=3)
    A, weight, bias = model[:2](images).detach(), model[5].weight.detach(), model[5].bias.detach()
    expected = torch.einsum("bk,bkhw->bhw", weight[a] - weight[b], A) / 144
    np.testing.assert_allclose(found.explanation.maps, expected, rtol=1e-4, atol=1e-7)
    logits = model(images).detach()
    gap = logits[range(4), a] - logits[range(4), b]
    np.testing.assert_allclose(found.gap, gap, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.rest, bias[a] - bias[b], rtol=1e-3, atol=1e-5)
    np.testing.assert_allclose(found.shown, expected.clamp(min=0).sum((1, 2)), rtol=1e-4, atol=1e-7)
    np.testing.assert_allclose(found.gap, found.shown + found.against + found.rest, rtol=1e-6)
    leads = found.gap > 0
    np.testing.assert_allclose(found.share[leads], found.shown[leads] / found.gap[leads])
    assert np.isnan(found.share[~leads]).all()
    assert found.exact
    assert found.explanation.layer == "1"
    np.testing.assert_array_equal((found.a, found.b), (a, b))


def test_the_difference_elsewhere_is_a_linearisation_and_says_so():
    model, images = seeded(nonlinear), pictures(3)
    found = explain_difference(model, images, None, lambda logits: logits.argmin(1), layer="3")
    assert not found.exact
    np.testing.assert_array_equal(found.a, found.explanation.logits.argmax(1))
    np.testing.assert_array_equal(found.b, found.explanation.logits.argmin(1))
    for a in range(3):
        first, second = (
            explain(model, images[a : a + 1], int(c[a]), layer="3", method="hires_cam").maps[0]
            for c in (found.a, found.b)
        )
        np.testing.assert_allclose(found.explanation.maps[a], first - second, rtol=1e-3, atol=1e-6)
    assert (found.share > 0).all()  # the predicted class leads


def test_a_difference_of_a_class_from_itself_is_refused():
    with pytest.raises(
        SightlineError, match="a and b are both class 1 for 1 of 3 images; pass two classes, and only"
    ):
        explain_difference(seeded(pooled), pictures(), [0, 1, 2], [1, 1, 1])
    with pytest.raises(SightlineError, match="class 9 is out of range; the model has 4: 0 to 3"):
        explain_difference(seeded(pooled), pictures(), 0, 9)
    with pytest.raises(SightlineError, match=r"targets are \(2,\) for 3 images"):
        explain_difference(seeded(pooled), pictures(), 0, [1, 2])
    with pytest.raises(SightlineError, match=r"images are torch\.int64; pass floats"):
        class_maps(seeded(pooled), pictures().long())
