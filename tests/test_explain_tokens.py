"""Transformers of the layouts of timm, torchvision and Hugging Face (stand-ins), and grids given by hand."""

import numpy as np
import pytest
import torch
from explain_nets import pictures
from explain_transformers import (
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
from sightline.attribution.layers import find_grid, place_back
from sightline.errors import SightlineError

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
    assert "1 token has no place in the image (class, distillation, register)" in said
    assert "2 tokens have no place" in str(preflight(made(deit_timm)[0], IMAGES))


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
        placed = place_back(grid, maps, output)
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
