"""The examples of docs/targets.md run, on small models of each kind, and explain what they say."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

PAGE = Path(__file__).parents[1] / "docs" / "targets.md"


@pytest.mark.slow
def test_the_examples_run_and_hold(torchvision):
    if not PAGE.exists():
        pytest.skip("the package is installed without its project")
    hf = pytest.importorskip("transformers")
    torch.manual_seed(0)
    small = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
    detector = hf.YolosForObjectDetection(
        hf.YolosConfig(**small, image_size=[48, 48], patch_size=8, num_detection_tokens=5, num_labels=3)
    ).eval()
    segmenter = hf.SegformerForSemanticSegmentation(
        hf.SegformerConfig(
            depths=[1, 1, 1, 1], hidden_sizes=[8, 8, 16, 16], decoder_hidden_size=16, num_labels=3,
            num_attention_heads=[1, 1, 2, 2],
        )
    ).eval()  # fmt: skip
    clip = hf.CLIPModel(
        hf.CLIPConfig(
            text_config={**small, "vocab_size": 50, "max_position_embeddings": 8, "eos_token_id": 49},
            vision_config={**small, "image_size": 48, "patch_size": 8},
            projection_dim=16,
        )
    ).eval()

    class Encoder(nn.Sequential):
        pass

    body = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()]
    pooled = [nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    found: dict = {
        "images": torch.rand(3, 3, 48, 48),
        "encoder": Encoder(*body, *pooled, nn.Linear(8, 6)).eval(),
        "regressor": Encoder(*body, *pooled, nn.Linear(8, 1)).eval(),
        "wanted": torch.randn(3, 6),
        "detector": detector,
        "segmenter": segmenter,
        "segmenter_layer": "decode_head.linear_fuse",
        "clip": clip,
        "prompts": torch.tensor([[1, 2, 49], [3, 4, 49], [5, 6, 49]]),
    }
    for code in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), flags=re.DOTALL):
        exec(code, found)
    for name in ("likely", "ages", "boxes", "streets", "said"):
        assert len(found[name].maps) == 3, name
        assert np.isfinite(found[name].maps).all(), name
    with torch.inference_mode():
        own = detector(found["images"]).logits[torch.arange(3), found["box"], found["kind"]]
        likeness = torch.cosine_similarity(found["encoder"](found["images"]), found["wanted"])
    np.testing.assert_allclose(found["boxes"].logits[:, 0], own, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(found["likely"].logits[:, 0], likeness, rtol=1e-4, atol=1e-5)
    assert found["said"].maps.shape[1:] == (6, 6)
