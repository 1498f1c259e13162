"""Which layer is explained when none is named, over families of timm and transformers: right or silent?

    python benchmarks/architectures.py --out architectures.json [--only vit swin] [--part 0/4] [--time 30]

Weights are random and nothing is downloaded. A model counts as right if the layer is one of those that a
person would name, or if its map of Grad-CAM agrees with that layer's to 0.99; as refused if `explain` says
that it needs a layer and lists the candidates; as warned if it says that its layer is a second choice; else
as silent.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import time
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from sightline import explain
from sightline.attribution.hooks import at_rest
from sightline.attribution.layer_choice import layer_choice
from sightline.attribution.wrapped_model import wrap_model
from sightline.errors import SightlineError

# family -> (the smallest model of it in timm, input size, layers that a person would name, any of them)
TIMM: dict[str, tuple[str, int, tuple[str, ...]]] = {
    "vit": ("vit_tiny_patch16_224", 224, ("blocks.11.norm1",)),
    "vit, pooled": ("vit_base_patch16_rpn_224", 224, ("norm", "blocks.11")),
    "siglip": ("vit_base_patch16_siglip_224", 224, ("norm", "blocks.11")),
    "deit": ("deit_tiny_patch16_224", 224, ("blocks.11.norm1",)),
    "deit, distilled": ("deit_tiny_distilled_patch16_224", 224, ("blocks.11.norm1",)),
    "deit3": ("deit3_small_patch16_224", 224, ("blocks.11.norm1",)),
    "beit": ("beit_base_patch16_224", 224, ("blocks.11",)),
    "eva02": ("eva02_tiny_patch14_224", 224, ("blocks.11",)),
    "cait": ("cait_xxs24_224", 224, ("blocks", "blocks.23")),
    "xcit": ("xcit_nano_12_p16_224", 224, ("blocks.11",)),
    "swin": ("swin_tiny_patch4_window7_224", 224, ("norm", "layers.3")),
    "swinv2": ("swinv2_tiny_window8_256", 256, ("norm", "layers.3")),
    "swin_s3": ("swin_s3_tiny_224", 224, ("norm", "layers.3")),
    "mvitv2": ("mvitv2_tiny", 224, ("norm", "stages.3")),
    "hiera": ("hiera_tiny_224", 224, ("blocks", "blocks.11")),
    "vitamin": ("vitamin_small_224", 224, ("norm", "blocks", "blocks.13")),
    "levit": ("levit_128s", 224, ("stages.1",)),
    "pit": ("pit_ti_224", 224, ("transformers.2.blocks.3.norm1",)),
    "tnt": ("tnt_s_patch16_224", 224, ("blocks.11.norm_out",)),
    "crossvit": ("crossvit_9_240", 240, ()),
    "convit": ("convit_tiny", 224, ("blocks.9",)),
    "coat": ("coat_tiny", 224, ()),
    "coatnet": ("coatnet_nano_rw_224", 224, ("norm", "stages")),
    "maxvit": ("maxvit_tiny_tf_224", 224, ("stages", "stages.3")),
    "pvt_v2": ("pvt_v2_b0", 224, ("stages", "stages.3")),
    "twins": ("twins_svt_small", 224, ("norm",)),
    "nest": ("nest_tiny", 224, ("norm",)),
    "volo": ("volo_d1_224", 224, ("norm", "network.4", "network.4.1")),
    "davit": ("davit_tiny", 224, ("stages", "stages.3")),
    "focalnet": ("focalnet_tiny_srf", 224, ("norm", "layers")),
    "edgenext": ("edgenext_xx_small", 224, ("stages", "stages.3")),
    "efficientformer": ("efficientformer_l1", 224, ("norm", "stages.3")),
    "efficientformerv2": ("efficientformerv2_s0", 224, ("norm", "stages.3")),
    "efficientvit (MIT)": ("efficientvit_b0", 224, ("stages", "stages.3")),
    "efficientvit (MSRA)": ("efficientvit_m0", 224, ("stages.0", "stages.1")),
    "fastvit": ("fastvit_t8", 224, ("final_conv", "stages", "stages.3")),
    "mobilevit": ("mobilevit_xxs", 224, ("final_conv", "stages")),
    "mobilevitv2": ("mobilevitv2_050", 224, ("stages", "final_conv")),
    "poolformer": ("poolformer_s12", 224, ("stages", "stages.3")),
    "caformer": ("caformer_s18", 224, ("stages", "stages.3")),
    "repvit": ("repvit_m0_9", 224, ("stages", "stages.3")),
    "tiny_vit": ("tiny_vit_5m_224", 224, ("stages", "stages.3")),
    "gcvit": ("gcvit_xxtiny", 224, ("stages", "stages.3")),
    "mixer": ("mixer_s16_224", 224, ("norm",)),
    "gmlp": ("gmlp_ti16_224", 224, ("norm",)),
    "resmlp": ("resmlp_12_224", 224, ("norm",)),
    "convmixer": ("convmixer_768_32", 224, ("blocks",)),
    "convnext": ("convnext_atto", 224, ("stages", "stages.3")),
    "convnextv2": ("convnextv2_atto", 224, ("stages", "stages.3")),
    "mambaout": ("mambaout_femto", 224, ("stages", "stages.3")),
    "inception_next": ("inception_next_atto", 224, ("stages", "stages.3")),
    "hrnet": ("hrnet_w18_small", 224, ("final_layer",)),
    "resnet": ("resnet18", 224, ("layer4",)),
    "resnetv2": ("resnetv2_18", 224, ("norm", "stages")),
    "resnest": ("resnest14d", 224, ("layer4",)),
    "res2net": ("res2net50_14w_8s", 224, ("layer4",)),
    "sknet": ("skresnet18", 224, ("layer4",)),
    "regnet": ("regnetx_002", 224, ("s4", "final_conv")),
    "densenet": ("densenet121", 224, ("features",)),
    "dla": ("dla34", 224, ("level5",)),
    "dpn": ("dpn48b", 224, ("features",)),
    "efficientnet": ("efficientnet_b0", 224, ("bn2", "conv_head", "blocks")),
    "ghostnet": ("ghostnet_050", 224, ("blocks",)),
    "hardcorenas": ("hardcorenas_a", 224, ("blocks",)),
    "inception_v3": ("inception_v3", 299, ("Mixed_7c",)),
    "inception_v4": ("inception_v4", 299, ("features",)),
    "inception_resnet_v2": ("inception_resnet_v2", 299, ("conv2d_7b",)),
    "lcnet": ("lcnet_035", 224, ("blocks",)),
    "mnasnet": ("mnasnet_small", 224, ("bn2", "conv_head")),
    "mobilenetv2": ("mobilenetv2_035", 224, ("bn2", "conv_head")),
    "mobilenetv3": ("mobilenetv3_small_050", 224, ("blocks",)),
    "mobilenetv4": ("mobilenetv4_conv_small_035", 224, ("blocks",)),
    "mobileone": ("mobileone_s0", 224, ("stages", "final_conv")),
    "nasnet": ("nasnetalarge", 331, ("act", "cell_17")),
    "nfnet": ("nf_regnet_b0", 224, ("final_conv", "final_act")),
    "pnasnet": ("pnasnet5large", 331, ("act", "cell_11")),
    "rexnet": ("rexnet_100", 224, ("features",)),
    "selecsls": ("selecsls42", 224, ("head.1",)),
    "starnet": ("starnet_s1", 224, ("norm", "stages")),
    "tresnet": ("tresnet_m", 224, ("body",)),
    "vgg": ("vgg11", 224, ("features",)),
    "vovnet": ("ese_vovnet19b_dw", 224, ("stages", "stages.3")),
    "xception": ("xception41", 299, ("act", "blocks")),
    "cspnet": ("cspdarknet53", 224, ("stages",)),
    "hgnet": ("hgnetv2_b0", 224, ("stages",)),
    "sequencer": ("sequencer2d_s", 224, ("norm", "stages")),
    "visformer": ("visformer_tiny", 224, ("norm", "stage3")),
    "nextvit": ("nextvit_small", 224, ("norm", "stages")),
    "rdnet": ("rdnet_tiny", 224, ("dense_stages",)),
    "swiftformer": ("swiftformer_xs", 224, ("norm", "stages")),
    "shvit": ("shvit_s1", 224, ("stages.1",)),
}

# The same of transformers: a class and a small configuration. Sizes are those of the pictures.
TRANSFORMERS: dict[str, tuple[str, str, dict, int, tuple[str, ...]]] = {
    "HF vit": ("ViTForImageClassification", "ViTConfig", {"image_size": 96}, 96, ("layernorm_before",)),
    "HF beit": ("BeitForImageClassification", "BeitConfig", {"image_size": 96}, 96, ("layers.11",)),
    "HF clip": ("CLIPForImageClassification", "CLIPConfig", {}, 224, ("layers.11",)),
    "HF convnext": ("ConvNextForImageClassification", "ConvNextConfig", {}, 224, ("encoder.stages.3",)),
    "HF cvt": ("CvtForImageClassification", "CvtConfig", {}, 224, ("layers.9.layernorm_before",)),
    "HF levit": ("LevitForImageClassification", "LevitConfig", {}, 224, ()),
    "HF swin": ("SwinForImageClassification", "SwinConfig", {}, 224, ("layernorm",)),
    "HF resnet": ("ResNetForImageClassification", "ResNetConfig", {}, 224, ("encoder.stages.3",)),
    "HF pvt": (
        "PvtForImageClassification",
        "PvtConfig",
        {},
        224,
        ("patch_embeddings.3.layer_norm", "block.3.1.layer_norm_1"),
    ),
    "HF dinov2": ("Dinov2ForImageClassification", "Dinov2Config", {"image_size": 98}, 98, ("layernorm",)),
}

REDUCED = (
    "vit", "deit, distilled", "beit", "eva02", "cait", "xcit", "swin", "mvitv2", "hiera", "vitamin", "levit",
    "pit", "tnt", "crossvit", "coatnet", "pvt_v2", "mixer", "resmlp", "convnext", "mambaout", "hrnet",
    "resnet", "densenet", "efficientnet", "mobilenetv3",
)  # fmt: skip


def import_timm():
    """Import timm; beside a torchvision of another torch, with the operators declared that it misses then."""
    try:
        return importlib.import_module("timm")
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module = importlib.import_module("timm")
        module._kept = library  # the operators live as long as it does
        return module


def made(family: str) -> tuple[nn.Module, int, tuple[str, ...], dict]:
    """Return a model with random weights, its input size, the layers by hand, and options of `explain`."""
    torch.manual_seed(0)
    if family in TIMM:
        name, size, by_hand = TIMM[family]
        model = import_timm().create_model(name, pretrained=False, num_classes=10).eval()
        for parameter in model.parameters():  # a head that starts at 0 reacts to nothing
            if parameter.ndim > 1 and not parameter.any():
                nn.init.normal_(parameter, std=0.02)
        return model, size, by_hand, {}
    import transformers

    kind, config, values, size, by_hand = TRANSFORMERS[family]
    settings = getattr(transformers, config)(**values)
    settings.num_labels = 10
    model = getattr(transformers, kind)(settings).eval()
    return model, size, by_hand, {"score": lambda output: output.logits}


def examined(family: str) -> dict:
    """Return the row of a family."""
    begin = time.perf_counter()
    row: dict = {"family": family}
    try:
        model, size, by_hand, options = made(family)
    except Exception as error:  # a family that this version of the library does not have
        return row | {"verdict": "not available", "reason": f"{type(error).__name__}: {error}"[:200]}
    row |= {"model": type(model).__name__, "size": size, "by_hand": list(by_hand)}
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    try:
        wrapped = wrap_model(model, options.get("score"))
        with at_rest(wrapped.model):
            choice = layer_choice(wrapped, image)
        found = explain(model, image, layer=choice.layer, **options)
    except SightlineError as error:
        return row | {"verdict": "refused", "reason": str(error), "seconds": time.perf_counter() - begin}
    row |= {"layer": choice.layer, "grid": list(found.maps.shape[1:]), "reason": choice.reason}
    row["status"] = found.status[0]
    row["agreement"] = _agreement(model, image, found.maps, by_hand, options)
    right = choice.layer in by_hand or choice.layer.endswith(by_hand or "?") or (row["agreement"] or 0) > 0.99
    row["verdict"] = (
        "right" if right else "warned" if choice.second_choice else "silent" if by_hand else "unjudged"
    )
    return row | {"seconds": time.perf_counter() - begin}


def second_call(family: str, repeats: int) -> tuple[float, float, float]:
    """Return CPU time without a layer over CPU time with it named, paired: quartile, median, quartile."""
    model, size, _, options = made(family)
    image = torch.rand(1, 3, size, size)
    layer = explain(model, image, **options).layer
    ratios = []
    for _ in range(repeats):
        begin = time.process_time()
        explain(model, image, **options)
        middle = time.process_time()
        explain(model, image, layer=layer, **options)
        ratios.append((middle - begin) / (time.process_time() - middle))
    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
    return float(low), float(median), float(high)


def _agreement(model, image, maps, by_hand, options) -> float | None:
    """Return the largest cosine with the map of a layer by hand; None if none is of the same grid."""
    cosines = []
    for layer in by_hand:
        try:
            other = explain(model, image, layer=layer, **options).maps
        except SightlineError:
            continue
        if other.shape == maps.shape:
            norms = np.linalg.norm(maps) * np.linalg.norm(other)
            cosines.append(float((maps * other).sum() / norms) if norms else 0.0)
    return max(cosines, default=None)


def main() -> None:
    """Examine the families and write the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--out", type=Path, default=Path("architectures.json"))
    parser.add_argument("--only", nargs="*")
    parser.add_argument("--part", default="0/1", help="i/n: every n-th family from the i-th on")
    parser.add_argument(
        "--time", type=int, default=0, metavar="N", help="time the second call N times instead"
    )
    arguments = parser.parse_args()
    warnings.simplefilter("ignore")
    logging.getLogger("sightline").setLevel(logging.ERROR)
    first, count = map(int, arguments.part.split("/"))
    families = arguments.only or [*TIMM, *TRANSFORMERS][first::count]
    if arguments.time:
        for family in families:
            print(family, second_call(family, arguments.time))
        return
    rows = json.loads(arguments.out.read_text()) if arguments.out.exists() else []
    for family in families:
        row = examined(family)
        rows = [kept for kept in rows if kept["family"] != family] + [row]
        print({key: row[key] for key in row if key not in ("by_hand", "model", "size")}, flush=True)
        arguments.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
