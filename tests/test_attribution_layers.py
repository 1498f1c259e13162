"""Which layer is explained, and transformers of the layouts of timm, torchvision and Hugging Face."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from attribution_nets import Scale, Staged, Wrapped, conv, pictures
from attribution_transformers import (
    deit_timm,
    swin_hugging_face,
    swin_timm,
    swin_torchvision,
    vit_hugging_face,
    vit_timm,
    vit_timm_pooled,
    vit_torchvision,
)
from torch import nn

from sightline.attribution import METHODS, class_maps, explain, grid_of_tokens, preflight, target_layer
from sightline.attribution.layers import find_grid, is_per_head, put_maps_back, spatial_layers
from sightline.attribution.wrapped_model import wrap_model
from sightline.errors import SightlineError


def head(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(channels, 3)]


@pytest.mark.parametrize(
    ("size", "minimum", "expected"),
    [
        (32, 5, "layer3"),
        (40, 5, "layer4"),
        (56, 5, "layer4"),
        (32, 9, "layer2"),
        (32, 4, "layer4"),
        (16, 5, "layer2"),
    ],
)
def test_the_deepest_stage_whose_map_is_large_enough(size, minimum, expected):
    assert target_layer(Staged(), pictures(1, size), minimum=minimum) == expected


def test_a_backbone_in_a_wrapper_is_entered():
    model = nn.Sequential(Scale(), Wrapped(Staged()))
    assert target_layer(model, pictures(1, 32)) == "1.backbone.layer3"


def test_a_plain_sequence_gives_its_last_module_with_a_large_map():
    first = [nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    second = [nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(4)]
    model = nn.Sequential(*first, *second, *head(6))
    assert target_layer(model, pictures(1, 32)) == "4"


def test_a_whole_stage_goes_before_the_parts_of_a_later_one():
    # The convolution in front of the pooling has a map of 8x8 as well, but the stage before is complete.
    late = nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.MaxPool2d(2), nn.ReLU())
    model = nn.Sequential(conv(3, 4), conv(4, 6, 4), late, *head(8))
    assert target_layer(model, pictures(1, 32)) == "1"


def test_a_trunk_that_ends_in_one_cell_is_entered_rather_than_left_for_the_stem():
    trunk = nn.Sequential(conv(4, 4, 2), conv(4, 6, 2), conv(6, 8, 8))
    model = nn.Sequential(Scale(), conv(3, 4), trunk, *head(8))
    assert target_layer(model, pictures(1, 32)) == "2.1"


def test_stages_in_a_module_list_are_found():
    class Listed(nn.Module):
        def __init__(self):
            super().__init__()
            self.stages = nn.ModuleList([conv(3, 4, 2), conv(4, 4, 2), conv(4, 4, 2)])
            self.head = nn.Sequential(*head(4))

        def forward(self, x):
            for stage in self.stages:
                x = stage(x)
            return self.head(x)

    assert target_layer(Listed(), pictures(1, 32)) == "stages.1"


def test_pooling_that_enlarges_one_cell_is_no_map():
    features = nn.Sequential(conv(3, 4), nn.MaxPool2d(4), conv(4, 4), nn.MaxPool2d(8))
    model = nn.Sequential(features, nn.AdaptiveAvgPool2d(7), nn.Flatten(), nn.Linear(4 * 49, 3))
    assert target_layer(model, pictures(1, 32)) == "0.2"


def test_normalisation_is_no_candidate_though_the_grid_never_shrinks():
    trunk = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), *head(4)
    )
    assert target_layer(nn.Sequential(Scale(), trunk), pictures(1, 16)) == "1.3"


def test_order_of_execution_counts_and_not_order_of_definition():
    class Reversed(nn.Module):
        def __init__(self):
            super().__init__()
            self.late, self.early, self.fc = conv(4, 4), conv(3, 4, 2), nn.Linear(4, 3)

        def forward(self, x):
            return self.fc(self.late(self.early(x)).mean((2, 3)))

    assert target_layer(Reversed(), pictures(1, 16)) == "late"


def test_where_no_map_is_large_enough_the_largest_serves():
    model = nn.Sequential(Scale(), conv(3, 4, 2), conv(4, 4), conv(4, 4, 2), *head(4))
    result = explain(model, pictures(2, 8))
    assert (result.layer, result.maps.shape) == ("2", (2, 4, 4))


@pytest.mark.parametrize("body", [[nn.Flatten(), nn.Linear(3 * 64, 3)], [nn.Conv2d(3, 3, 8), nn.Flatten()]])
def test_a_model_without_maps_is_an_error(body):
    with pytest.raises(
        SightlineError, match=r"Sequential has no layer with a map .* larger than 1x1; explain needs"
    ):
        target_layer(nn.Sequential(Scale(), *body), pictures(1, 8))


def test_a_layer_that_runs_several_times_is_no_candidate():
    class Shared(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.again = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)

        def forward(self, x):
            return self.again(self.again(self.first(x))).mean((2, 3))

    assert target_layer(Shared(), pictures(1, 8)) == "first"


def test_the_outermost_maps_are_listed_in_the_order_in_which_they_ran():
    expected = ["stem", "layer1", "layer2", "layer3", "layer4"]
    assert spatial_layers(wrap_model(Staged()), torch.rand(1, 3, 32, 32)) == expected


IMAGES = torch.rand(
    2, 3, 24, 32, generator=torch.Generator().manual_seed(3)
)  # not square: rows are not columns

LAYOUTS = [
    (vit_timm, "blocks.1.norm1", 1),
    (vit_timm_pooled, "norm", 1),
    (deit_timm, "blocks.1.norm1", 2),
    (vit_torchvision, "encoder.layers.encoder_layer_1.ln_1", 1),
    (vit_hugging_face, "vit.encoder.layer.1.layernorm_before", 1),
    (swin_timm, "norm", 0),
    (swin_torchvision, "norm", 0),
    (swin_hugging_face, "swin.layernorm", 0),
]
layouts = pytest.mark.parametrize(("build", "layer", "extra"), LAYOUTS)


def made(build) -> tuple[nn.Module, dict]:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = build().eval()
    hugging_face = build in (vit_hugging_face, swin_hugging_face)
    return model, {"score": lambda output: output.logits} if hugging_face else {}


@layouts
def test_the_layer_that_is_found_is_the_last_whose_patches_matter(build, layer, extra):
    model, options = made(build)
    expected = "permute" if build is swin_torchvision else layer  # its channels come first
    assert target_layer(model, IMAGES, **options) == expected
    with torch.inference_mode():
        assert target_layer(model, IMAGES * 1, **options) == expected


@layouts
def test_grad_cam_equals_a_loop_over_tokens(build, layer, extra):
    model, options = made(build)
    result = explain(model, IMAGES, 1, layer=layer, **options)
    assert result.maps.shape == (2, 6, 8)
    for i, image in enumerate(IMAGES):
        kept = []
        handle = model.get_submodule(layer).register_forward_hook(
            lambda module, inputs, output, kept=kept: kept.append(output) or output + 0
        )
        output = model(image[None])
        handle.remove()
        (gradient,) = torch.autograd.grad(getattr(output, "logits", output)[0, 1], kept[0])
        tokens = kept[0].detach().flatten(1, -2)[0, extra:]  # (48, C)
        slopes = gradient.flatten(1, -2)[0, extra:]
        weights = slopes.mean(0)
        for y in range(6):
            for x in range(8):
                value = float(weights @ tokens[8 * y + x])
                assert result.maps[i, y, x] == pytest.approx(value, rel=1e-3, abs=1e-7)


@layouts
def test_swapping_two_patches_before_the_layer_moves_the_map_with_them(build, layer, extra):
    # The map's cell is the image's place: light up one patch, and only its cell changes in the embedding.
    model, options = made(build)
    conv = next(name for name, module in model.named_modules() if isinstance(module, nn.Conv2d))
    patch = model.get_submodule(conv).stride[0]
    image = torch.zeros(2, 3, 24, 32)
    image[1, :, patch : 2 * patch, 2 * patch : 3 * patch] = 1
    first = next(name for name, module in model.named_modules() if isinstance(module, nn.LayerNorm))
    seen = explain(model, image, 0, layer=first, method=lambda a, g: a[:, 0], **options).maps
    changed = np.argwhere(~np.isclose(seen[1], seen[0]))
    np.testing.assert_array_equal(changed, [[1, 2]])


@pytest.mark.parametrize("build", [vit_timm_pooled, swin_timm, swin_torchvision, swin_hugging_face])
def test_pooled_tokens_have_an_exact_head(build):
    model, options = made(build)
    result = explain(model, IMAGES, 2, method="hires_cam", **options)
    head = model.get_submodule(preflight(model, IMAGES, **options).head)
    np.testing.assert_allclose(
        result.maps.sum((1, 2)), result.logits[:, 2] - head.bias[2].item(), rtol=1e-4, atol=1e-5
    )
    every = class_maps(model, IMAGES, **options)
    np.testing.assert_allclose(every[:, 2], result.maps, rtol=1e-4, atol=1e-6)


def test_the_last_norm_before_a_class_token_has_no_gradient_and_the_preflight_says_so():
    model, _ = made(vit_timm)
    assert explain(model, IMAGES, layer="norm").status == ("zero gradient", "zero gradient")
    said = str(preflight(model, IMAGES, "norm"))
    assert "zero gradient) for 2 of 2 images; choose an earlier layer, such as 'blocks.1.norm1'" in said
    assert "1 token has no position in the image (class, distillation, register)" in said
    assert "2 tokens have no position" in str(preflight(made(deit_timm)[0], IMAGES))


def test_every_method_serves_a_transformer_or_says_why_not():
    model, _ = made(vit_timm)
    for name in METHODS:
        if name == "cam":
            with pytest.raises(SightlineError, match="cam needs global average pooling"):
                explain(model, IMAGES, 1, method=name)
        elif name in ("guided_backprop", "deconvnet", "guided_grad_cam"):
            with pytest.raises(SightlineError, match="Gelu"):
                explain(model, IMAGES, 1, method=name)
        else:
            assert np.isfinite(explain(model, IMAGES, 1, method=name).maps).all(), name


def test_shapley_cam_takes_the_second_derivative_of_fused_attention():
    model, _ = made(vit_timm)
    fused = explain(model, IMAGES, 1, method="shapley_cam").maps
    for block in model.blocks:
        block.attn.fused = False
    spelt_out = explain(model, IMAGES, 1, method="shapley_cam").maps
    np.testing.assert_allclose(fused, spelt_out, rtol=1e-3, atol=1e-6)
    assert not np.allclose(spelt_out, explain(model, IMAGES, 1).maps)


def test_ablation_of_patches_works_in_mixed_precision():
    model, _ = made(vit_timm)
    expected = explain(model, IMAGES, 1, method="ablation_cam").maps
    with torch.autocast("cpu", torch.bfloat16):
        near = explain(model, IMAGES, 1, method="ablation_cam").maps
    assert np.corrcoef(near.ravel(), expected.ravel())[0, 1] > 0.9


class Mixed(nn.Module):
    """Tokens in an order of their own: columns first, and no patch embedding to tell the grid by."""

    def __init__(self):
        super().__init__()
        self.conv, self.norm, self.fc = nn.Conv2d(3, 4, 3, 2, 1), nn.LayerNorm(4), nn.Linear(4, 3)

    def forward(self, x):
        return self.fc(self.norm(self.conv(x).transpose(2, 3).flatten(2).mT).square().mean(1))


def columns_first(tokens: torch.Tensor) -> torch.Tensor:
    return tokens.mT.unflatten(2, (8, 6)).transpose(2, 3)


def test_a_grid_can_be_given_by_hand():
    model = Mixed().eval()
    images = torch.rand(2, 3, 12, 16)
    with pytest.raises(
        SightlineError,
        match=r"layer 'norm' returns \(2, 48, 4\), no map .*; layers with a map: conv; for tokens pass grid=",
    ):
        explain(model, images, layer="norm")
    result = explain(model, images, 1, layer="norm", grid=columns_first, method=lambda a, g: a[:, 0])
    expected = model.norm(model.conv(images).permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
    np.testing.assert_allclose(result.maps, expected[:, 0].detach(), rtol=1e-5, atol=1e-6)
    dropped = explain(model, images, 1, layer="norm", grid=columns_first, method="ablation_cam").maps
    assert np.isfinite(dropped).all()
    with pytest.raises(SightlineError, match=r"which grid turned into \(2, 48, 4\), no map"):
        explain(model, images, layer="norm", grid=lambda tokens: tokens)


def test_the_way_back_is_exact_for_any_selection():
    output = torch.randn(2, 50, 4)
    for grid in (grid_of_tokens((6, 8)), lambda tokens: columns_first(tokens[:, 2:])):
        maps = torch.randn(2, 4, 6, 8)
        placed = put_maps_back(grid, maps, output)
        torch.testing.assert_close(grid(placed), maps)
        assert torch.equal(placed[:, :2], output[:, :2])


def test_token_grids_halve_with_patch_merging_and_ignore_what_does_not_fit():
    model = nn.Sequential(nn.Conv2d(3, 4, 4, 4), nn.LayerNorm(4))
    for tokens, size in (
        (56 * 56, (56, 56)),
        (28 * 28, (28, 28)),
        (197, (14, 14)),
        (198, (14, 14)),
        (49, (7, 7)),
    ):
        grid = find_grid(model, model[1], torch.zeros(1, tokens, 4), (224, 224))
        assert grid(torch.zeros(1, tokens, 4)).shape[2:] == size
    assert find_grid(model, model[1], torch.zeros(1, 60, 4), (224, 224)) is None
    assert find_grid(nn.Linear(4, 4), nn.Linear(4, 4), torch.zeros(1, 49, 4), (28, 28)) is None


def test_channels_last_is_read_from_the_layers_own_weights():
    output = torch.zeros(1, 6, 6, 8)
    assert find_grid(nn.LayerNorm(8), nn.LayerNorm(8), output, (24, 24)) is not None
    assert find_grid(nn.LayerNorm(6), nn.LayerNorm(6), output, (24, 24)) is None  # as timm's LayerNorm2d
    assert find_grid(nn.Conv2d(3, 6, 1), nn.Conv2d(3, 6, 1), output, (24, 24)) is None
    assert find_grid(nn.ReLU(), nn.ReLU(), output, (24, 24)) is None


def test_a_model_that_returns_an_object_needs_a_score():
    model, _ = made(vit_hugging_face)
    with pytest.raises(
        SightlineError,
        match=r"the model returned SimpleNamespace; explain needs logits \(B, C\): pass "
        r"score=lambda output: output.logits",
    ):
        explain(model, pictures(2, size=24))


class Pooled(nn.Module):
    """A transformer whose patches are pooled after the last block, with or without an order of its own."""

    def __init__(self, shuffled: bool = False, heads: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, 4, 1)  # its stride is not its kernel: no patch embedding to go by
        self.norm1, self.norm2 = nn.LayerNorm(8), nn.LayerNorm(4)
        self.mlp, self.fc = nn.Linear(8, 8), nn.Linear(8, 3)
        self.shuffled, self.heads = shuffled, heads
        self.block = nn.Identity() if heads else nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 8))

    def forward(self, x):
        x = self.conv(x).flatten(2).mT  # (B, 48, 8)
        if self.shuffled:
            x = x[:, torch.randperm(48, generator=torch.Generator().manual_seed(0))]
        x = self.block(x + self.mlp(self.norm1(x)))
        if self.heads:
            x = self.norm2(x.unflatten(2, (2, 4)).transpose(1, 2)).transpose(1, 2).flatten(2)
        return self.fc(x.mean(1))


def test_a_branch_beside_a_skip_connection_is_no_choice():
    model = Pooled().eval()
    found = explain(model, IMAGES)
    assert (found.layer, found.maps.shape) == ("block", (2, 6, 8))  # and neither "mlp" nor "norm1"
    assert found.layer_reason == (
        "the last layer of 6x8 cells that all evidence passes, its tokens in the order of the image"
    )
    assert explain(model, IMAGES, layer="conv").layer_reason == "as requested"
    assert explain(model, IMAGES, method="saliency").layer_reason == ""


def test_tokens_in_an_order_of_their_own_are_refused_or_a_second_choice_that_says_so(caplog):
    model = Pooled(shuffled=True).eval()
    with pytest.raises(
        SightlineError, match=r"the tokens of 'block' are not in the order of the image; name"
    ):
        explain(model, IMAGES)
    with pytest.raises(SightlineError, match=r"layer 'block' returns .*, no map"):
        explain(model, IMAGES, layer="block")
    model.conv = nn.Sequential(conv(3, 8), conv(8, 8), nn.Conv2d(8, 8, 3, 4, 1))  # now the stem is a third
    found = explain(model, IMAGES)
    assert found.layer == "conv"
    assert "of 'block', which is deeper, the order of tokens could not be confirmed" in found.layer_reason
    assert "layer 'conv' is a second choice" in caplog.text


def test_tokens_of_attention_heads_are_never_a_map():
    model = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.LayerNorm(8))
    for shape in ((1, 2, 48, 4), (1, 3, 49, 64), (1, 48, 2, 4)):  # with and without a class token
        assert is_per_head(model, torch.zeros(shape), (24, 32))
    assert not is_per_head(model, torch.zeros(1, 48, 6, 8), (24, 32))  # 48 channels of the grid
    model = Pooled(heads=True).eval()
    model.conv = nn.Conv2d(3, 8, 4, 4)
    with pytest.raises(
        SightlineError, match=r"layer 'norm2' returns \(2, 2, 48, 4\), tokens of separate att"
    ):
        explain(model, IMAGES, layer="norm2")
    assert target_layer(model, IMAGES) != "norm2"


class TwoBranches(nn.Module):
    """Half of the evidence goes through each branch, and no layer has it all but the first."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.a = nn.Sequential(*(conv(4, 4) for _ in range(3)))
        self.b = nn.Sequential(*(conv(4, 4) for _ in range(3)))
        self.fc = nn.Linear(8, 3)

    def forward(self, x):
        x = self.stem(x)
        return self.fc(torch.cat([self.a(x).mean((2, 3)), self.b(x).mean((2, 3))], 1))


def test_two_branches_are_refused_with_the_candidates():
    with pytest.raises(
        SightlineError,
        match=r"TwoBranches: the only layers with all evidence come within the first \d+% .* name one with "
        r"layer=, .* candidates: 'b' \(16x16, a part of the evidence\)",
    ):
        explain(TwoBranches().eval(), pictures(2, 16))
    assert explain(TwoBranches().eval(), pictures(2, 16), layer="b").layer == "b"


def test_the_choice_is_remembered_until_the_model_changes():
    model = Staged().eval()
    passes = []
    model.stem.register_forward_hook(lambda *_: passes.append(1))
    counts = []
    for size in (32, 32, 56):
        passes.clear()
        layer = target_layer(model, pictures(1, size))
        counts.append((layer, len(passes)))
    assert counts == [("layer3", 1), ("layer3", 0), ("layer4", 1)]
    model.layer3 = nn.Sequential(model.layer3)
    target_layer(model, pictures(1, 32))
    assert len(passes) == 2
    other = {"score": lambda logits: logits[:, :2]}
    target_layer(model, pictures(1, 32), **other)
    assert len(passes) == 3


def test_time_is_not_counted_as_cells():
    down = nn.Sequential(nn.Conv3d(3, 4, 3, (4, 2, 2), 1), nn.ReLU(), nn.Conv3d(4, 4, 3, (1, 2, 2), 1))
    model = nn.Sequential(down, nn.AdaptiveAvgPool3d(1), nn.Flatten(), nn.Linear(4, 3))
    assert explain(model, torch.rand(1, 3, 8, 32, 32)).maps.shape == (1, 2, 8, 8)


@pytest.mark.parametrize("swapped", [False, True])
def test_tokens_of_clips_are_confirmed_along_height_and_width(swapped):
    class Clips(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm, self.fc = (
                nn.Conv3d(3, 8, (2, 4, 4), (2, 4, 4)),
                nn.LayerNorm(8),
                nn.Linear(8, 3),
            )

        def forward(self, x):
            x = self.conv(x).movedim(1, -1)  # (B, 4, 6, 6, 8)
            return self.fc(self.norm(x.transpose(2, 3) if swapped else x).mean((1, 2, 3)))

    torch.manual_seed(0)
    model, clips = Clips().eval(), torch.rand(1, 3, 8, 24, 24)
    found = explain(model, clips)
    assert found.layer == ("conv" if swapped else "norm")
    assert found.maps.shape == (1, 4, 6, 6)
    assert ("could not be confirmed" in found.layer_reason) == swapped


class Detector(nn.Module):
    """One score from each of two levels, in a list, as detectors answer: the first is the surest here."""

    def __init__(self):
        super().__init__()
        self.stem, self.fine, self.coarse = conv(3, 4), conv(4, 4), conv(4, 4)
        self.deep, self.fc = conv(4, 4, 2), nn.Linear(4, 1)

    def forward(self, x):
        x = self.fine(self.stem(x))
        levels = [self.fc(level.mean((2, 3))) for level in (x, self.deep(self.coarse(x)))]
        return [{"scores": scores} for scores in torch.cat([levels[0] + 9, levels[1]], dim=1)]


def test_of_a_detector_the_layer_that_holds_for_the_first_image_is_a_second_choice(caplog):
    found = explain(
        Detector().eval(),
        pictures(2, 16),
        score=lambda out: torch.stack([one["scores"].max() for one in out]),
    )
    assert found.layer == "fine"  # what comes after it belongs to the other level
    assert "what comes from another level may pass by it" in found.layer_reason
    assert "layer 'fine' is a second choice" in caplog.text


def test_the_scores_that_a_segmenter_returns_are_not_explained_by_themselves():
    model = nn.Sequential(conv(3, 4), conv(4, 8), nn.Conv2d(8, 5, 1))
    assert target_layer(model, pictures(1, 16), score=lambda output: output.mean((2, 3))) == "1"


def test_the_preflight_ranks_the_candidates():
    found = preflight(Staged(), pictures(2, 32))
    assert [one.layer for one in found.candidates[:2]] == ["layer3", "layer4"] or found.candidates[0].whole
    assert f"It is {found.layer_reason}. Next in rank: " in str(found)
    assert preflight(Staged(), pictures(2, 32), "layer2").candidates == ()


def _architectures():
    path = Path(__file__).parents[1] / "benchmarks" / "architectures.py"
    spec = importlib.util.spec_from_file_location("architectures", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_no_wrong_layer_is_taken_in_silence_in_families_of_three_libraries(torchvision):
    pytest.importorskip("timm")
    architectures = _architectures()
    rows = [architectures.examined(family) for family in architectures.REDUCED]
    verdicts = {row["family"]: row["verdict"] for row in rows}
    assert len(verdicts) == 30
    assert {
        family for family, word in verdicts.items() if word not in ("right", "refused", "warned")
    } == set()
    assert sum(word == "right" for word in verdicts.values()) >= 26
