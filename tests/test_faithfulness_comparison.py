"""Methods next to baseline maps: verdicts, tables, ties, and what is skipped."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pandas as pd
import pytest
import torch
from attribution_nets import pictures, pooled, prototypical, seeded
from torch import nn

from sightline.attribution import explain
from sightline.attribution.methods.perturbation import occlusion
from sightline.errors import InputError, SightlineError
from sightline.faithfulness import (
    Measurement,
    baseline_maps,
    blur,
    class_logit,
    class_probability,
    compare_methods,
    compare_with_baselines,
    deletion,
    edge_map,
    energy_in_mask,
    insertion,
    pointing_game,
    random_map,
    road,
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


def compared(measure, maps, images):
    model = patch_net()
    score = class_probability(model, [0] * len(images))
    baselines = baseline_maps(model, images, 0, grid=(SIDE, SIDE), method=hires, layer="1", seed=3)
    return compare_with_baselines(
        measure(score, images, maps),
        {name: measure(score, images, baseline) for name, baseline in baselines.items()},
    )


def line(own, *baselines, higher=True):
    def made(value):
        return Measurement("m", value + np.linspace(-0.5, 0.5, 50), higher)

    def shuffled(value):
        values = made(value).values
        return Measurement("m", np.random.default_rng(int(10 * value)).permutation(values), higher)

    return compare_with_baselines(
        made(own), {name: shuffled(value) for name, value in zip("abc", baselines, strict=False)}
    ).sentence


@pytest.mark.parametrize("measure", [deletion, insertion, road])
def test_the_map_of_what_the_model_reads_beats_every_baseline(measure, images):
    truth = np.repeat(patch_masks()[:1].astype(float), len(images), axis=0)
    found = compared(functools.partial(measure, batch_size=512), truth, images)
    assert found.sentence == "better than every baseline map"
    assert all(gap.low > 0 for gap in found.differences.values())


@pytest.mark.parametrize("measure", [deletion, insertion, road])
def test_a_random_map_is_no_better_than_another(measure, images):
    nothing = random_map(images, (SIDE, SIDE), 8)
    found = compared(functools.partial(measure, batch_size=512), nothing, images)
    gap = found.differences["a random map"]
    assert gap.word == "tied"
    assert gap.low < 0 < gap.high
    assert "no better than" in found.sentence


def test_the_map_of_what_the_model_does_not_read_is_worse(images):
    wrong = 1.0 - np.repeat(patch_masks()[:1], len(images), axis=0)
    assert compared(functools.partial(deletion, batch_size=512), wrong, images).sentence.startswith(
        "worse than"
    )


def test_verdicts_in_words():
    assert line(5, 1, 2, 3) == "better than every baseline map"
    assert line(1, 2, 3, 4) == "worse than every baseline map"
    assert line(1, 1, 1, 1) == "no better than any baseline map"
    assert line(1, 1) == "no better than a"
    assert line(2, 1, 2, 3) == "better than a; no better than b; worse than c"
    assert line(2, 1, 2, 1) == "better than a and c; no better than b"
    assert line(1, 2, 3, 1, higher=False) == "better than a and b; no better than c"


def test_what_does_not_pair_is_named():
    one, other = (Measurement("road", np.zeros(n), True) for n in (3, 4))
    with pytest.raises(SightlineError, match="road of 3 images does not pair with road of 4"):
        compare_with_baselines(one, {"a": other})
    with pytest.raises(SightlineError, match="there are no baseline maps to compare with"):
        compare_with_baselines(one, {})


def test_the_comparison_names_the_method_that_is_right_and_says_so(comparison, images):
    assert comparison.best == "hires"
    assert comparison.tied == ()
    assert comparison.verdicts["hires"] == "better than every baseline map"
    assert "no better than" in comparison.verdicts["noise"]
    assert "a random map" in comparison.verdicts["noise"]
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


def test_the_baseline_table_holds_paired_differences(comparison, images):
    score = class_probability(patch_net(), [0] * 40)
    noisy = noise(images[:, :1], None).numpy()
    own = deletion(score, images, noisy / noisy.max(axis=(1, 2), keepdims=True))
    edges = deletion(score, images, edge_map(images, (SIDE, SIDE), 0))
    table = comparison.baselines.set_index(["method", "measure", "baseline"])
    row = table.loc[("noise", "deletion", "an edge map")]
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
    assert "\nhires: better than every baseline map\n" in text
    assert "\nbroken: skipped, broken needs a model of another kind; use hires" in text
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
        ({"methods": ["hires", "grad_cam_"]}, "method 'hires' is not known; did you mean 'hires_cam'"),
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


def test_a_method_that_cannot_serve_the_model_is_skipped_and_the_rest_goes_on():
    quick = [functools.partial(deletion, steps=2)]
    found = compare_methods(
        seeded(prototypical),
        pictures(2, 8),
        methods=["shapley_cam", "cam", "grad_cam"],
        measures=quick,
        layer="1",
    )
    assert found.table.index.tolist() == ["grad_cam"]
    assert set(found.skipped) == {"shapley_cam", "cam"}
    assert "has no second derivative" in found.skipped["shapley_cam"]
    assert "\nshapley_cam: skipped, an operation behind layer '1'" in str(found)


@pytest.fixture
def written(tmp_path, monkeypatch) -> str:
    """A module of a user with a method and a measure, by its name."""
    (tmp_path / "written_by_a_user.py").write_text(
        "from sightline.faithfulness import Measurement\n"
        "def bright(activations, gradients):\n"
        "    return activations.sum(1)\n"
        "def heat(score, images, maps):\n"
        "    return Measurement('heat', maps.mean(axis=(1, 2)), True)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "written_by_a_user"
    sys.modules.pop("written_by_a_user", None)


def test_methods_and_measures_may_be_named_by_their_module(written, images):
    method, measure = f"{written}:bright", f"{written}:heat"
    found = compare_methods(patch_net(), images, 0, methods=[method, hires], measures=[measure], layer="1")
    maps = explain(
        patch_net(), images, 0, method=lambda activations, gradients: activations.sum(1), layer="1"
    )
    assert found.table.loc[method, measure] == pytest.approx(maps.heatmaps().mean(), rel=1e-5)
    assert set(found.table.index) == {method, "hires"}
    with pytest.raises(InputError, match="measure 'written_by_a_user:hot' cannot be imported"):
        compare_methods(patch_net(), images, 0, measures=[f"{written}:hot"])


def test_partials_of_one_method_stand_apart(images):
    fine, coarse = (functools.partial(occlusion, patch=n) for n in (2, 6))
    found = compare_methods(patch_net(), images[:4], 0, methods=[fine, coarse], measures=["average_drop"])
    assert set(found.table.index) == {"occlusion (patch=2)", "occlusion (patch=6)"}
    with pytest.raises(InputError, match="'hires' is listed 2 times"):
        compare_methods(patch_net(), images[:4], 0, methods=[hires, hires])


def test_a_score_of_one_number_is_compared_as_it_is_explained():
    net, some = pooled(), pictures(4)

    class Regression(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return {"value": self.net(x)[:, :1]}

    methods = ["grad_cam", "hires_cam"]
    found = compare_methods(
        Regression(), some, methods=methods, measures=["deletion"], score=lambda output: output["value"][:, 0]
    )
    names = set(found.baselines["baseline"])
    assert "the map of an untrained network" in names
    assert "the map of another class" not in names  # there is none
    maps = explain(net, some, 0, method="grad_cam").heatmaps()
    known = deletion(class_logit(net, [0] * 4), some, maps)
    assert found.measurements[found.best]["deletion"].values == pytest.approx(known.values, abs=1e-5)


def test_logits_in_a_dict_are_compared_as_plain_ones():
    net, some = pooled(), pictures(4)

    class Wrapped(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = net

        def forward(self, x):
            return {"logits": self.net(x)}

    options = {"methods": ["grad_cam", "layer_cam"], "measures": ["insertion"]}
    plain = compare_methods(net, some, **options)
    found = compare_methods(Wrapped(), some, score=lambda output: output["logits"], **options)
    pd.testing.assert_frame_equal(
        found.table.drop(columns="ms_per_image"), plain.table.drop(columns="ms_per_image")
    )
    pd.testing.assert_frame_equal(found.baselines, plain.baselines)


def test_the_log_counts_the_passes_that_the_measures_take(caplog):
    net, some, seen = pooled(), pictures(3), []
    caplog.set_level("INFO", logger="sightline")

    def counting(score, images, maps):
        def counted(variants, rows):
            seen.append(len(variants))
            return score(variants, rows)

        return deletion(counted, images, maps, steps=5)

    compare_methods(net, some, methods=["grad_cam", "layer_cam"], measures=[counting])
    line = next(text for text in caplog.messages if "forward passes" in text)
    stated = int(line.split("about ")[1].split()[0])
    first = stated // ((3 * 2 + 3) * 3)  # of one map on one image
    assert sum(seen) == stated + first


def test_a_fast_budget_takes_the_coarse_measures(images):
    found = compare_methods(
        patch_net(), images, methods=["grad_cam"], measures=["deletion", "road"], budget="fast"
    )
    measured = found.measurements["grad_cam"]
    assert measured["deletion"].curve.shape[1] == 17
    assert measured["road"].curve is None or measured["road"].curve.shape[1] <= 6
    with pytest.raises(InputError, match="full"):
        compare_methods(patch_net(), images, methods=["grad_cam"], budget="slow")
