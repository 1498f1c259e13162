import functools
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from attribution_nets import Staged, nonlinear, pictures, pooled, seeded
from captum.attr import Occlusion
from torch import nn

from sightline.attribution import explain
from sightline.attribution.methods.gradients import full_grad, guided_grad_cam, integrated_gradients, saliency
from sightline.attribution.methods.perturbation import ablation_cam, occlusion, rise, score_cam
from sightline.errors import SightlineError

FEW_MASKS = functools.partial(rise, masks=60)
CASES = [
    (score_cam, nonlinear, "5"),
    (score_cam, Staged, "layer2"),
    (ablation_cam, pooled, "1"),
    (ablation_cam, nonlinear, "5"),
    (FEW_MASKS, nonlinear, None),
    (occlusion, nonlinear, None),
]


def output_of(layer, model, images):
    """What the layer puts out, before an in-place operation after it changes that."""
    kept = []
    handle = layer.register_forward_hook(lambda module, inputs, output: kept.append(output.clone()))
    with torch.no_grad():
        model(images)
    handle.remove()
    return kept[0]


def naive_score_cam(model, layer, image, target):
    """Algorithm 1 of the paper, a channel at a time."""
    activations = output_of(layer, model, image[None])[0]
    live, scores = [], []
    for k, channel in enumerate(activations):
        up = F.interpolate(channel[None, None], image.shape[1:], mode="bilinear", align_corners=False)
        if channel.max() - channel.min() <= 1e-6 * channel.abs().max():
            continue
        mask = (up - up.min()) / (up.max() - up.min())
        live.append(k)
        scores.append(model(image[None] * mask)[0, target].item())
    weights = torch.softmax(torch.tensor(scores), 0) if scores else []
    return sum((w * activations[k] for k, w in zip(live, weights, strict=True)), 0 * activations[0])


def naive_ablation_cam(model, layer, image, target):
    """Equation 3, a whole pass for each channel."""
    activations = output_of(layer, model, image[None])[0]
    y = model(image[None])[0, target]
    total = torch.zeros_like(activations[0])
    for k in range(len(activations)):

        def ablate(module, inputs, output, k=k):
            output = output.clone()
            output[:, k] = 0
            return output

        handle = layer.register_forward_hook(ablate)
        without = model(image[None])[0, target]
        handle.remove()
        total += ((y - without) / abs(y) * activations[k]).detach()
    return total


def naive_occlusion(model, image, target, patch, stride, fill):
    """A patch at a time, a pixel at a time."""
    size = image.shape[1:]
    y = model(image[None])[0, target].item()
    drops, covers = torch.zeros(size), torch.zeros(size)
    starts = [[*range(0, length - patch, stride), length - patch] for length in size]
    for top, left in itertools.product(*starts):
        hidden = image.clone()
        for c, i, j in itertools.product(range(3), range(patch), range(patch)):
            hidden[c, top + i, left + j] = fill[c]
        drop = y - model(hidden[None])[0, target].item()
        for i, j in itertools.product(range(patch), range(patch)):
            drops[top + i, left + j] += drop
            covers[top + i, left + j] += 1
    return drops / covers


@pytest.mark.parametrize(
    ("build", "layer"), [(pooled, "1"), (nonlinear, "1"), (nonlinear, "5"), (Staged, "layer2")]
)
@pytest.mark.parametrize(
    ("method", "naive"), [(score_cam, naive_score_cam), (ablation_cam, naive_ablation_cam)]
)
def test_cams_equal_the_paper_one_image_and_channel_at_a_time(method, naive, build, layer):
    model, images, targets = seeded(build), pictures(), [0, 3, 1]
    module = model.get_submodule(layer)
    with torch.no_grad():
        expected = [
            naive(model, module, image, target) for image, target in zip(images, targets, strict=True)
        ]
    result = explain(model, images, targets, method=method, layer=layer)
    np.testing.assert_allclose(result.maps, torch.stack(expected), rtol=2e-3, atol=1e-5)


def with_dead_channels(channels):
    model = seeded(pooled)
    with torch.no_grad():
        model[0].bias[:channels] = -100
    return model


def test_a_flat_channel_gets_no_mask_no_weight_and_no_pass_in_score_cam():
    model, images = with_dead_channels(4), pictures(2)
    passes = []
    model[5].register_forward_hook(lambda module, inputs, output: passes.append(len(output)))
    result = explain(model, images, 1, method=score_cam, layer="1")
    assert sum(passes) <= 2 * 2 + 2 + 2  # two live channels of two images, the recording, its first score
    expected = [naive_score_cam(model, model[1], image, 1) for image in images]
    np.testing.assert_allclose(result.maps, torch.stack(expected), rtol=1e-3, atol=1e-6)


def test_score_cam_of_a_layer_that_is_all_flat_is_zero_and_not_nan():
    result = explain(with_dead_channels(6), pictures(2), 1, method=score_cam, layer="1")
    np.testing.assert_array_equal(result.maps, 0)
    assert "not finite" not in result.status


def test_a_constant_channel_that_only_rounding_moves_is_no_mask():
    model = seeded(pooled)
    with torch.no_grad():
        model[0].weight[0] *= 1e-9
        model[0].bias[0] = 1  # the channel is 1 everywhere, give or take the last bit
    images = pictures(1)
    expected = naive_score_cam(model, model[1], images[0], 2)
    result = explain(model, images, 2, method=score_cam, layer="1")
    np.testing.assert_allclose(result.maps[0], expected, rtol=1e-3, atol=1e-6)


def test_score_cam_in_bfloat16_is_near_and_its_maps_are_float32():
    model, images = seeded(Staged), pictures(size=16)
    low = functools.partial(score_cam, autocast=torch.bfloat16)
    exact = explain(model, images, 1, method=score_cam, layer="layer2").maps
    near = explain(model, images, 1, method=low, layer="layer2").maps
    assert near.dtype == np.float32
    assert 0 < np.abs(near - exact).max() < 0.02 * np.abs(exact).max()


def test_ablation_of_a_linear_head_drops_by_weight_times_mean():
    model, images = seeded(pooled), pictures()
    activations = output_of(model[1], model, images)
    for target in range(4):
        result = explain(model, images, target, method=ablation_cam, layer="1")
        drops = model[5].weight[target].detach() * activations.mean((2, 3))
        y = torch.tensor(result.logits[:, target])
        expected = torch.einsum("bk,bkhw->bhw", drops / y.abs()[:, None], activations)
        np.testing.assert_allclose(result.maps, expected, rtol=1e-4, atol=1e-5)


def test_ablation_keeps_its_sign_where_the_score_is_negative():
    model, images = seeded(pooled), pictures()
    with torch.no_grad():
        model[5].weight[0] = torch.tensor([1.0, 0, 0, 0, 0, 0])
        model[5].bias[0] = -50  # y < 0, and channel 0 still speaks for the class
        model[0].bias[0] = 1
    result = explain(model, images, 0, method=ablation_cam, layer="1")
    assert result.logits[:, 0].max() < 0 <= result.maps.min() < result.maps.max()


@pytest.mark.parametrize(("build", "layer", "limit"), [(pooled, "1", 3), (nonlinear, "5", 3 + 1 + 3)])
def test_ablation_runs_what_precedes_the_layer_once_per_image_and_not_once_per_channel(build, layer, limit):
    model, images = seeded(build), pictures()
    count = []
    model[0].register_forward_hook(lambda module, inputs, output: count.append(len(output)))
    explain(model, images, 0, method=ablation_cam, layer=layer)
    assert sum(count) <= limit  # the recording; one trial whether a pass may grow; one for each image


def test_occlusion_equals_captum():
    model, images, targets = seeded(nonlinear), pictures(), torch.tensor([0, 3, 1])
    method = functools.partial(occlusion, patch=4, stride=2, fill=torch.zeros_like)
    captum = Occlusion(model).attribute(images, (3, 4, 4), strides=(3, 2, 2), target=targets, baselines=0)
    result = explain(model, images, targets, method=method)
    np.testing.assert_allclose(result.maps, captum.detach()[:, 0], rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize(("patch", "stride"), [(5, 3), (1, 1), (12, 12), (7, 4)])
def test_occlusion_equals_a_loop_over_patches_and_ends_at_the_border(patch, stride):
    model, images = seeded(nonlinear), pictures(2)
    method = functools.partial(occlusion, patch=patch, stride=stride)
    expected = [naive_occlusion(model, image, 2, patch, stride, image.mean((1, 2))) for image in images]
    result = explain(model, images, 2, method=method)
    np.testing.assert_allclose(result.maps, torch.stack(expected), rtol=1e-3, atol=1e-5)


class Weigh(nn.Module):
    """Class 0 is a weighted sum of pixels, class 1 its negative."""

    def __init__(self, size=6):
        super().__init__()
        weight = torch.zeros(3, size, size)
        weight[:, 1:3, 2:4] = 1
        self.register_buffer("weight", weight)

    def forward(self, x):
        y = (x * self.weight).sum((1, 2, 3))
        return torch.stack([y, -y], 1)


def test_occlusion_worked_out_by_hand():
    # White image, black patches of 2: each takes 3 * (pixels of the square under it) from the score.
    method = functools.partial(occlusion, patch=2, stride=2, fill=torch.zeros_like)
    result = explain(Weigh(), torch.ones(1, 3, 6, 6), [0], method=method)
    expected = torch.zeros(6, 6)
    expected[0:4, 2:4] = 6  # rows 0-1 and 2-3, columns 2-3: two of the four pixels under each
    np.testing.assert_allclose(result.maps[0], expected, atol=1e-5)
    opposite = explain(Weigh(), torch.ones(1, 3, 6, 6), [1], method=method)
    np.testing.assert_allclose(opposite.maps, -result.maps)


@pytest.mark.parametrize(("patch", "stride"), [(13, 1), (4, 5), (4, -1), (0, None), (4, 0)])
def test_occlusion_says_which_patches_fit(patch, stride):
    method = functools.partial(occlusion, patch=patch, stride=stride)
    with pytest.raises(SightlineError, match=r"occlusion needs 1 <= stride <= patch <= 12"):
        explain(seeded(nonlinear), pictures(1), 0, method=method)


def naive_masks(count, cells, share, seed, size):
    """The masks of the paper's section 3.2, one at a time from the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    grids = torch.rand(count, cells, cells, generator=generator) < share
    steps = [int(np.ceil(length / cells)) for length in size]
    shifts = [torch.randint(step, (count,), generator=generator) for step in steps]
    masks = []
    for i in range(count):
        large = F.interpolate(
            grids[i][None, None].float(), [(cells + 1) * step for step in steps], mode="bilinear"
        )[0, 0]
        top, left = shifts[0][i], shifts[1][i]
        masks.append(large[top : top + size[0], left : left + size[1]])
    return masks


def test_rise_equals_the_paper_a_mask_at_a_time_less_the_mean_score():
    model, images = seeded(nonlinear), pictures(2)
    masks = naive_masks(40, 5, 0.4, 3, (12, 12))
    method = functools.partial(rise, masks=40, cells=5, share=0.4, seed=3)
    result = explain(model, images, 1, method=method)
    with torch.no_grad():
        for image, found in zip(images, result.maps, strict=True):
            y = [model((image * mask)[None])[0, 1] for mask in masks]
            paper = sum(score * mask for score, mask in zip(y, masks, strict=True)) / (40 * 0.4)
            offset = sum(y) / 40 * sum(masks) / (40 * 0.4)
            np.testing.assert_allclose(found, paper - offset, rtol=1e-3, atol=1e-5)


def test_rise_finds_the_pixels_that_the_score_is_made_of():
    images = torch.ones(1, 3, 12, 12)
    result = explain(Weigh(12), images, [0], method=functools.partial(rise, masks=400, cells=6))
    row, column = np.unravel_index(result.maps[0].argmax(), (12, 12))
    assert row in (1, 2)
    assert column in (2, 3)
    outside = result.maps[0, 6:, 6:]
    assert np.abs(outside).max() < 0.25 * result.maps.max()
    opposite = explain(Weigh(12), images, [1], method=functools.partial(rise, masks=400, cells=6))
    np.testing.assert_allclose(opposite.maps, -result.maps, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("method", "build", "layer"), CASES)
def test_neither_the_batch_nor_the_size_of_a_pass_changes_a_map(method, build, layer):
    model, images, targets = seeded(build), pictures(4), [0, 3, 1, 2]
    whole = explain(model, images, targets, method=method, layer=layer)
    for batch_size in (1, 3, 7):
        part = explain(model, images, targets, method=method, layer=layer, batch_size=batch_size)
        np.testing.assert_allclose(part.maps, whole.maps, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize(("method", "build", "layer"), CASES)
def test_float64_agrees(method, build, layer):
    model, images = seeded(build), pictures(2)
    single = explain(model, images, 1, method=method, layer=layer)
    double = explain(model.double(), images, 1, method=method, layer=layer)
    assert double.maps.dtype == np.float64
    np.testing.assert_allclose(single.maps, double.maps, rtol=1e-2, atol=1e-5)


@pytest.mark.parametrize(("method", "build", "layer"), CASES)
def test_the_random_state_is_not_touched_and_a_second_call_gives_the_same(method, build, layer):
    model, images = seeded(build), pictures(2)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    first = explain(model, images, 1, method=method, layer=layer)
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(6)
    second = explain(model, images, 1, method=method, layer=layer)
    np.testing.assert_array_equal(first.maps, second.maps)


@pytest.mark.parametrize(("method", "build", "layer"), CASES)
def test_a_model_in_half_precision_gets_maps_in_float32(method, build, layer):
    model, images = seeded(build), pictures(2)
    exact = explain(model, images, 1, method=method, layer=layer).maps
    near = explain(model.bfloat16(), images, 1, method=method, layer=layer).maps
    assert near.dtype == np.float32
    assert np.abs(near - exact).max() < 0.35 * np.abs(exact).max()


def flat_net(convolution, pool, size, padding, classes=4):
    """The same network for pictures, and for volumes that are one cell deep."""
    return nn.Sequential(
        convolution(3, 5, size, padding=padding), nn.ReLU(), pool(2), convolution(5, 6, size, padding=padding)
    ).append(nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(6 * 36, 7), nn.ReLU(), nn.Linear(7, classes)))


@pytest.mark.parametrize(
    "method",
    [
        *(score_cam, ablation_cam, full_grad, saliency, integrated_gradients, guided_grad_cam),
        functools.partial(occlusion, patch=1),
    ],
)
def test_a_volume_of_depth_one_gets_the_map_of_the_picture(method):
    plane = flat_net(nn.Conv2d, nn.MaxPool2d, 3, 1).eval()
    volume = flat_net(nn.Conv3d, lambda n: nn.MaxPool3d((1, n, n)), (1, 3, 3), (0, 1, 1)).eval()
    weights = volume.state_dict()
    volume.load_state_dict({name: w.view(weights[name].shape) for name, w in plane.state_dict().items()})
    images = pictures(2)
    expected = explain(plane, images, 1, method=method, layer="3").maps
    result = explain(volume, images[:, :, None], 1, method=method, layer="3").maps
    np.testing.assert_allclose(result[:, 0], expected, rtol=1e-3, atol=1e-6)
    assert np.abs(expected).max() > 0


def test_occlusion_under_autocast_is_made_in_full_precision():
    model, images = seeded(Staged), pictures(2, 24)
    expected = explain(model, images, 1, method="occlusion").maps
    with torch.autocast("cpu", torch.bfloat16):
        found = explain(model, images, 1, method="occlusion").maps
    np.testing.assert_array_equal(found, expected)  # a drop of one patch is less than bfloat16 resolves
