"""Which layer is explained when none is named, over families of three libraries: right, refused or silent?

    python benchmarks/architectures.py --out architectures.json [--only vit swin] [--part 0/4] [--time 30]

The libraries are timm, torchvision (classifiers, segmenters, detectors, video networks) and transformers.
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
from collections.abc import Callable
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

# The same of torchvision: a builder, its options, the sides of a picture or clip, layers, kind of output.
PICTURE, CLIP = (224, 224), (16, 112, 112)
LEVELS = ("backbone.body.layer2", "backbone.body.layer3", "backbone.body.layer4")  # by the level of the box
TORCHVISION: dict[str, tuple[str, dict, tuple[int, ...], tuple[str, ...], str]] = {
    "tv alexnet": ("alexnet", {}, PICTURE, ("features",), "logits"),
    "tv vgg": ("vgg11_bn", {}, PICTURE, ("features",), "logits"),
    "tv resnet": ("resnet18", {}, PICTURE, ("layer4",), "logits"),
    "tv resnext": ("resnext50_32x4d", {}, PICTURE, ("layer4",), "logits"),
    "tv wide resnet": ("wide_resnet50_2", {}, PICTURE, ("layer4",), "logits"),
    "tv squeezenet": ("squeezenet1_1", {}, PICTURE, ("features",), "logits"),
    "tv densenet": ("densenet121", {}, PICTURE, ("features",), "logits"),
    "tv googlenet": ("googlenet", {"aux_logits": False}, PICTURE, ("inception5b",), "logits"),
    "tv inception_v3": ("inception_v3", {"aux_logits": False}, (299, 299), ("Mixed_7c",), "logits"),
    "tv shufflenet": ("shufflenet_v2_x0_5", {}, PICTURE, ("conv5",), "logits"),
    "tv mobilenet_v2": ("mobilenet_v2", {}, PICTURE, ("features",), "logits"),
    "tv mobilenet_v3": ("mobilenet_v3_small", {}, PICTURE, ("features",), "logits"),
    "tv mnasnet": ("mnasnet0_5", {}, PICTURE, ("layers",), "logits"),
    "tv efficientnet": ("efficientnet_b0", {}, PICTURE, ("features",), "logits"),
    "tv efficientnet_v2": ("efficientnet_v2_s", {}, PICTURE, ("features",), "logits"),
    "tv regnet": ("regnet_y_400mf", {}, PICTURE, ("trunk_output",), "logits"),
    "tv convnext": ("convnext_tiny", {}, PICTURE, ("features",), "logits"),
    "tv vit": ("vit_b_32", {}, PICTURE, ("encoder.layers.encoder_layer_11.ln_1",), "logits"),
    "tv swin": ("swin_t", {}, PICTURE, ("norm", "features", "permute"), "logits"),
    "tv swin_v2": ("swin_v2_t", {}, (256, 256), ("norm", "features", "permute"), "logits"),
    "tv maxvit": ("maxvit_t", {}, PICTURE, ("blocks", "blocks.3"), "logits"),
    "tv fcn": ("segmentation.fcn_resnet50", {}, PICTURE, ("backbone.layer4", "classifier.2"), "mask"),
    "tv deeplabv3": (
        "segmentation.deeplabv3_resnet50", {}, PICTURE, ("backbone.layer4", "classifier.3"), "mask",
    ),
    "tv deeplabv3, mobilenet": (
        "segmentation.deeplabv3_mobilenet_v3_large", {}, PICTURE, ("backbone.16", "classifier.3"), "mask",
    ),
    "tv lraspp": ("segmentation.lraspp_mobilenet_v3_large", {}, PICTURE, (), "mask"),
    "tv faster rcnn": ("detection.fasterrcnn_resnet50_fpn", {"box_score_thresh": 0.0}, PICTURE, (), "boxes"),
    "tv faster rcnn, mobilenet": (
        "detection.fasterrcnn_mobilenet_v3_large_320_fpn", {"box_score_thresh": 0.0}, PICTURE,
        ("backbone.body.13", "backbone.body.16"), "boxes",
    ),
    "tv mask rcnn": ("detection.maskrcnn_resnet50_fpn", {"box_score_thresh": 0.0}, PICTURE, (), "boxes"),
    "tv retinanet": ("detection.retinanet_resnet50_fpn", {"score_thresh": 0.0}, PICTURE, LEVELS, "boxes"),
    "tv fcos": ("detection.fcos_resnet50_fpn", {"score_thresh": 0.0}, PICTURE, LEVELS, "boxes"),
    "tv ssd": ("detection.ssd300_vgg16", {"score_thresh": 0.0}, (300, 300), (), "boxes"),
    "tv ssdlite": (
        "detection.ssdlite320_mobilenet_v3_large", {"score_thresh": 0.0}, (320, 320),
        ("backbone.features.0", "backbone.features.1"), "boxes",
    ),
    "tv r3d": ("video.r3d_18", {}, CLIP, ("layer4",), "logits"),
    "tv mc3": ("video.mc3_18", {}, CLIP, ("layer4",), "logits"),
    "tv r2plus1d": ("video.r2plus1d_18", {}, CLIP, ("layer4",), "logits"),
    "tv s3d": ("video.s3d", {}, (16, 224, 224), ("features",), "logits"),
    "tv mvit, video": ("video.mvit_v1_b", {}, (16, 224, 224), ("blocks.15.norm1",), "logits"),
    "tv swin, video": ("video.swin3d_t", {}, (8, 224, 224), ("norm", "features"), "logits"),
}  # fmt: skip
SCORES: dict[str, Callable] = {
    "mask": lambda output: output["out"].mean((2, 3)),
    "boxes": lambda output: torch.stack([boxes["scores"].max() for boxes in output]),  # of the surest box
}

REDUCED = (
    "vit", "deit, distilled", "beit", "eva02", "cait", "xcit", "swin", "mvitv2", "hiera", "vitamin", "levit",
    "pit", "tnt", "crossvit", "coatnet", "pvt_v2", "mixer", "resmlp", "convnext", "mambaout", "hrnet",
    "resnet", "densenet", "efficientnet", "mobilenetv3", "tv squeezenet", "tv vit", "tv fcn", "tv r3d",
    "HF vit",
)  # fmt: skip


def imported(package: str):
    """Import timm or torchvision; beside a torchvision of another torch, with what it misses then."""
    try:
        return importlib.import_module(package)
    except RuntimeError:
        library = torch.library.Library("torchvision", "FRAGMENT")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        module = importlib.import_module(package)
        module._kept = library  # the operators live as long as it does
        importlib.import_module("torch._dynamo")  # what is compiled inside of a model is run as it is
        boxes = importlib.import_module("torchvision.ops.boxes")
        boxes.nms = lambda dets, scores, iou_threshold: _non_maximum(boxes, dets, scores, iou_threshold)
        return module


def _non_maximum(boxes, dets: torch.Tensor, scores: torch.Tensor, threshold: float) -> torch.Tensor:
    """Non-maximum suppression, one box after the other; of the surest 200, which serves a score."""
    order = scores.argsort(descending=True)[:200]
    overlaps = boxes.box_iou(dets[order], dets[order]) > threshold
    kept: list[int] = []
    for place in range(len(order)):
        if not overlaps[place, kept].any():
            kept.append(place)
    return order[kept]


def made(family: str) -> tuple[nn.Module, tuple[int, ...], tuple[str, ...], dict]:
    """Return a model with random weights, its input's sides, the layers by hand, and options of `explain`."""
    torch.manual_seed(0)
    if family in TIMM:
        name, size, by_hand = TIMM[family]
        model = imported("timm").create_model(name, pretrained=False, num_classes=10).eval()
        return _without_zeros(model), (size, size), by_hand, {}
    if family in TORCHVISION:
        path, values, sides, by_hand, kind = TORCHVISION[family]
        builders = imported("torchvision").models
        *rooms, name = path.split(".")
        for room in rooms:
            builders = getattr(builders, room)
        plain = {"weights": None} | ({} if kind == "logits" else {"weights_backbone": None})
        classes = {"num_classes": 91 if kind == "boxes" else 10}
        model = getattr(builders, name)(**plain, **classes, **values).eval()
        model = _without_zeros(model)
        if kind == "boxes":  # a picture as it is, not enlarged to 800 pixels
            model.transform.min_size, model.transform.max_size = sides[:1], sides[0]
        return model, sides, by_hand, {} if kind == "logits" else {"score": SCORES[kind]}
    import transformers

    kind, config, values, size, by_hand = TRANSFORMERS[family]
    settings = getattr(transformers, config)(**values)
    settings.num_labels = 10
    model = getattr(transformers, kind)(settings).eval()
    return model, (size, size), by_hand, {"score": lambda output: output.logits}


def _without_zeros(model: nn.Module) -> nn.Module:
    """Draw what starts at 0: such a head reacts to nothing."""
    for parameter in model.parameters():
        if parameter.ndim > 1 and not parameter.any():
            nn.init.normal_(parameter, std=0.02)
    return model


def examined(family: str) -> dict:
    """Return the row of a family."""
    begin = time.perf_counter()
    row: dict = {"family": family}
    try:
        model, sides, by_hand, options = made(family)
    except Exception as error:  # a family that this version of the library does not have
        return row | {"verdict": "not available", "reason": f"{type(error).__name__}: {error}"[:200]}
    row |= {"model": type(model).__name__, "size": list(sides), "by_hand": list(by_hand)}
    image = torch.rand(1, 3, *sides, generator=torch.Generator().manual_seed(1))
    try:
        wrapped = wrap_model(model, options.get("score"))
        with at_rest(wrapped.model):
            choice = layer_choice(wrapped, image)
        found = explain(model, image, layer=choice.layer, **options)
    except SightlineError as error:
        return row | {"verdict": "refused", "reason": str(error), "seconds": time.perf_counter() - begin}
    except Exception as error:  # a traceback, where one line should stand
        return row | {"verdict": "error", "reason": f"{type(error).__name__}: {error}"[:200]}
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
    model, sides, _, options = made(family)
    image = torch.rand(1, 3, *sides)
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
    families = arguments.only or [*TIMM, *TORCHVISION, *TRANSFORMERS][first::count]
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
