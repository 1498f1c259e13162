"""Controls, verdicts and the comparison of methods, on models whose evidence is known to the pixel."""

from __future__ import annotations

import functools

import numpy as np
import pandas as pd
import pytest
import torch
from attribution_nets import pictures, pooled, seeded
from torch import nn

from sightline.attribution import explain
from sightline.errors import SightlineError
from sightline.faithfulness import (
    CONTROLS,
    Measurement,
    blur,
    class_probability,
    compare_methods,
    control_maps,
    deletion,
    edge_map,
    energy_in_mask,
    gaussian_map,
    insertion,
    judge,
    pointing_game,
    random_map,
    road,
    untrained_twin,
)

SIDE = 12


def patch_masks() -> np.ndarray:
    """The pixels that each of two classes reads: a square near a corner, and one in another."""
    masks = np.zeros((2, SIDE, SIDE), dtype=bool)
    masks[0, 1:4, 7:11] = masks[1, 8:11, 1:4] = True
    return masks


def patch_net() -> nn.Sequential:
    """Three classes: brightness in one square, brightness in another, and neither."""
    model = nn.Sequential(nn.Conv2d(3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(SIDE**2, 3))
    with torch.no_grad():
        model[0].weight.fill_(1 / 3)
        model[0].bias.zero_()
        model[3].weight.zero_()
        model[3].weight[:2] = torch.from_numpy(patch_masks().reshape(2, -1)).float()
        model[3].bias.copy_(torch.tensor([-7.0, -7, 0]))
    return model.eval()


def hires(activations, gradients):
    return (activations * gradients).sum(dim=1)


def noise(activations, gradients):
    """A map of nothing, the same whenever it is asked for."""
    return torch.from_numpy(np.random.default_rng(9).random((len(activations), SIDE, SIDE)))


def plain_grad_cam(activations, gradients):
    return (gradients.mean(dim=(2, 3), keepdim=True) * activations).sum(dim=1) * SIDE**2


def broken(activations, gradients):
    raise SightlineError("broken needs a model of another kind; use hires")


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """Dark noise, with the square that class 0 reads bright."""
    bright = torch.from_numpy(patch_masks()[0])
    return torch.where(bright, 0.7 + 0.3 * pictures(40, SIDE, seed=2), 0.6 * pictures(40, SIDE))


@pytest.fixture(scope="module")
def comparison(images):
    masks = np.repeat(patch_masks()[:1], len(images), axis=0)
    return compare_methods(
        patch_net(), images, 0, methods=[noise, hires, broken], measures=["deletion", "insertion"],
        layer="1", masks=masks,
    )  # fmt: skip


def test_controls_have_the_grain_that_was_asked_for(images):
    for control in CONTROLS.values():
        coarse = control(images, (3, 3), 0)
        assert coarse.shape == (40, SIDE, SIDE)
        assert coarse.min() >= 0
        assert coarse.max(axis=(1, 2)) == pytest.approx(np.ones(40))
        # A map of 3x3 cells is linear between their centres: its second differences vanish there.
        assert np.abs(np.diff(coarse[:, 2:6, 2], n=2, axis=1)).max() < 1e-6
    fine = random_map(images, (SIDE, SIDE), 0)
    assert np.unique(fine).size > 0.9 * fine.size
    assert (fine[0] != fine[1]).any()


def test_the_edge_map_of_a_step_is_its_sobel_magnitude():
    image = torch.zeros(1, 3, 5, 6)
    image[..., 3:] = 0.5
    image[..., 4:, :] = 0.9
    gray = np.pad(image[0].mean(0).numpy(), 1, mode="edge").astype(float)
    expected = np.zeros((5, 6))
    for i in range(5):
        for j in range(6):
            w = gray[i : i + 3, j : j + 3]
            across = (w[0, 2] + 2 * w[1, 2] + w[2, 2]) - (w[0, 0] + 2 * w[1, 0] + w[2, 0])
            down = (w[2, 0] + 2 * w[2, 1] + w[2, 2]) - (w[0, 0] + 2 * w[0, 1] + w[0, 2])
            expected[i, j] = np.hypot(across, down)
    assert edge_map(image, (5, 6), 0)[0] == pytest.approx(expected / expected.max(), abs=1e-6)


def test_the_gaussian_map_is_centred_and_falls_off_by_its_formula():
    found = gaussian_map(torch.zeros(2, 3, 9, 9), (9, 9), 0)
    assert found[1, 4, 4] == 1
    assert found[1, 4, 8] == pytest.approx(np.exp(-2))
    assert found[1] == pytest.approx(found[1].T)


def test_model_controls_are_the_runner_up_and_the_twin(images):
    model = patch_net()
    maps = control_maps(model, images, 0, grid=(SIDE, SIDE), method=hires, layer="1")
    with torch.no_grad():
        others = model(images)[:, 1:].argmax(dim=1) + 1
    expected = explain(model, images, others, method=hires, layer="1").heatmaps()
    assert maps["another class"].tolist() == expected.tolist()
    twin = explain(untrained_twin(model), images, 0, method=hires, layer="1").heatmaps()
    assert maps["an untrained twin"].tolist() == twin.tolist()
    assert list(maps) == ["random", "a centred blob", "edges", "another class", "an untrained twin"]


def judged(measure, maps, images):
    model = patch_net()
    score = class_probability(model, [0] * len(images))
    controls = control_maps(model, images, 0, grid=(SIDE, SIDE), method=hires, layer="1", seed=3)
    return judge(
        measure(score, images, maps),
        {name: measure(score, images, control) for name, control in controls.items()},
    )


@pytest.mark.parametrize("measure", [deletion, insertion, road])
def test_the_map_of_what_the_model_reads_beats_every_control(measure, images):
    truth = np.repeat(patch_masks()[:1].astype(float), len(images), axis=0)
    found = judged(functools.partial(measure, batch_size=512), truth, images)
    assert found.verdict == "better than every control"
    assert all(gap.low > 0 for gap in found.differences.values())


@pytest.mark.parametrize("measure", [deletion, insertion, road])
def test_a_random_map_is_no_better_than_random(measure, images):
    nothing = random_map(images, (SIDE, SIDE), 8)
    found = judged(functools.partial(measure, batch_size=512), nothing, images)
    gap = found.differences["random"]
    assert gap.word == "tied"
    assert gap.low < 0 < gap.high
    assert "no better than" in found.verdict


def test_the_map_of_what_the_model_does_not_read_is_worse(images):
    wrong = 1.0 - np.repeat(patch_masks()[:1], len(images), axis=0)
    assert judged(functools.partial(deletion, batch_size=512), wrong, images).verdict.startswith("worse than")


def line(own, *controls, higher=True):
    def made(value):
        return Measurement("m", value + np.linspace(-0.5, 0.5, 50), higher)

    def shuffled(value):
        values = made(value).values
        return Measurement("m", np.random.default_rng(int(10 * value)).permutation(values), higher)

    return judge(
        made(own), {name: shuffled(value) for name, value in zip("abc", controls, strict=False)}
    ).verdict


def test_verdicts_in_words():
    assert line(5, 1, 2, 3) == "better than every control"
    assert line(1, 2, 3, 4) == "worse than every control"
    assert line(1, 1, 1, 1) == "no better than any control"
    assert line(1, 1) == "no better than a"
    assert line(2, 1, 2, 3) == "better than a; no better than b; worse than c"
    assert line(2, 1, 2, 1) == "better than a and c; no better than b"
    assert line(1, 2, 3, 1, higher=False) == "better than a and b; no better than c"


def test_what_does_not_pair_is_named():
    one, other = (Measurement("road", np.zeros(n), True) for n in (3, 4))
    with pytest.raises(SightlineError, match="road of 3 images does not pair with road of 4"):
        judge(one, {"a": other})
    with pytest.raises(SightlineError, match="there are no controls to judge by"):
        judge(one, {})


def test_the_comparison_names_the_method_that_is_right_and_says_so(comparison, images):
    assert comparison.best == "hires"
    assert comparison.tied == ()
    assert comparison.verdicts["hires"] == "better than every control"
    assert "no better than" in comparison.verdicts["noise"]
    assert "random" in comparison.verdicts["noise"]
    assert comparison.n == 40
    assert comparison.skipped == {"broken": "broken needs a model of another kind; use hires"}


def test_the_table_holds_what_the_measures_give_one_by_one(comparison, images):
    maps = explain(patch_net(), images, 0, method=hires, layer="1").heatmaps()
    score = class_probability(patch_net(), [0] * 40)
    masks = np.repeat(patch_masks()[:1], 40, axis=0)
    row = comparison.table.loc["hires"]
    for name, found in {
        "deletion": deletion(score, images, maps),
        "insertion": insertion(score, images, maps),
        "pointing_game": pointing_game(maps, masks),
        "energy_in_mask": energy_in_mask(maps, masks),
    }.items():
        low, high = found.interval()
        assert row[[name, f"{name}_low", f"{name}_high"]].tolist() == pytest.approx([found.mean, low, high])
        assert comparison.measurements["hires"][name].values == pytest.approx(found.values)
    assert (row["pointing_game"], row["energy_in_mask"], row["no_map"]) == (1, 1, 0)
    assert comparison.table.index.tolist() == ["hires", "noise"]


def test_the_control_table_holds_paired_differences(comparison, images):
    score = class_probability(patch_net(), [0] * 40)
    noisy = noise(images[:, :1], None).numpy()
    own = deletion(score, images, noisy / noisy.max(axis=(1, 2), keepdims=True))
    edges = deletion(score, images, edge_map(images, (SIDE, SIDE), 0))
    table = comparison.controls.set_index(["method", "measure", "control"])
    row = table.loc[("noise", "deletion", "edges")]
    assert row["mean"] == pytest.approx(edges.mean)
    assert row["difference"] == pytest.approx(edges.mean - own.mean, abs=1e-5)
    assert row["low"] < row["difference"] < row["high"]
    assert len(table) == 2 * 4 * 5


def test_the_comparison_reads_as_a_table(comparison):
    text = str(comparison)
    assert "deletion (lower)" in text
    assert "pointing_game (higher)" in text
    assert "n 40; mean and 95 % interval; filled with: deletion mean, insertion blur" in text
    assert "\nbest: hires\n" in text
    assert "\nhires: better than every control\n" in text
    assert "\nbroken: left out, broken needs a model of another kind; use hires" in text
    assert isinstance(comparison.table, pd.DataFrame)


def test_methods_that_coincide_are_said_to_and_measured_once():
    found = compare_methods(
        seeded(pooled), pictures(4), methods=["grad_cam", hires, plain_grad_cam],
        measures=[functools.partial(deletion, steps=3, fill=blur)], layer="1",
    )  # fmt: skip
    assert found.coincide == {"hires": "grad_cam", "plain_grad_cam": "grad_cam"}
    assert found.table.index.tolist() == ["grad_cam"]
    assert "hires: the same maps as grad_cam on this model" in str(found)
    assert "deletion (steps=3, fill=blur)" in found.table


def test_equal_merits_are_ties(images):
    def slightly(activations, gradients):
        return hires(activations, gradients) + 1e-3 * torch.linspace(0, 1, SIDE)

    found = compare_methods(
        patch_net(), images, 0, methods=[hires, slightly], measures=["average_increase"], layer="1"
    )
    assert found.best == "hires"
    assert found.tied == ("slightly",)
    assert "not separable from it: slightly" in str(found)


def test_the_comparison_leaves_the_model_and_the_random_state_as_they_were(images):
    model = patch_net().train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = torch.get_rng_state()
    compare_methods(model, images[:3], methods=[hires], measures=["average_drop", "infidelity"], layer="1")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(module.training for module in model.modules())
    assert torch.equal(torch.get_rng_state(), state)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"measures": ["delation"]}, "measure 'delation' is not known; did you mean 'deletion'"),
        ({"methods": []}, "there is nothing to compare; pass at least one method and one measure"),
        ({"methods": [broken]}, "broken needs a model of another kind"),
        ({"targets": [0, 1]}, "targets are (2,) for 3 images; pass one class for all, or (3,)"),
    ],
)
def test_what_does_not_fit_the_comparison_is_named_in_one_line(options, message):
    with pytest.raises(SightlineError) as caught:
        compare_methods(patch_net(), pictures(3, SIDE), layer="1", **options)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_image_is_not_compared():
    with pytest.raises(
        SightlineError, match="there is 1 image; compare_methods needs 2 or more for intervals"
    ):
        compare_methods(patch_net(), pictures(1, SIDE))
