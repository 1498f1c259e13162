"""Record what pytorch-grad-cam and torchcam say about two small networks, for the tests to compare with.

    python benchmarks/record_peers.py --peers FOLDER [--out tests/data/peers.npz]

How FOLDER is filled, and why torchvision is stood in for, is told in `peers.py`. The file was made
with grad-cam 1.5.7, torchcam 0.5.0 and torch 2.13.0 (CPU), as its `versions` say. It holds the
weights, the images and the targets too, so a test needs neither the libraries nor the same random
numbers. Only raw maps are kept (before the ReLU, resize and scaling to [0, 1] of those libraries),
and only of methods that they compute as published: their epsilons make Grad-CAM++ another
function, and their Finer-CAM weighs classes by probability.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from peers import load_peers
from torch import nn

from sightline.files import write_atomic

ROOT = Path(__file__).parents[1]
TARGETS = [0, 3, 1]
# method here -> class there; of activations behind a ReLU, where XGrad-CAM is well defined.
RECORDED = {
    "grad_cam": "GradCAM",
    "hires_cam": "HiResCAM",
    "layer_cam": "LayerCAM",
    "elementwise_grad_cam": "GradCAMElementWise",
    "xgrad_cam": "XGradCAM",
    "shapley_cam": "ShapleyCAM",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--peers", type=Path, required=True)
    parser.add_argument("--out", type=Path, default=ROOT / "tests" / "data" / "peers.npz")
    options = parser.parse_args()
    sys.path.append(str(ROOT / "tests"))
    from attribution_nets import nonlinear, pictures, pooled, seeded

    peers = load_peers(options.peers)
    missing = {"pytorch_grad_cam", "torchcam"} - peers.keys()
    if missing:
        sys.exit(f"nothing is recorded without {', '.join(sorted(missing))}")
    images, arrays = pictures(), {}
    models = {"nonlinear": _out_of_place(seeded(nonlinear)), "pooled": _out_of_place(seeded(pooled))}
    for name, model in models.items():
        arrays |= {f"{name}/weights/{key}": value.numpy() for key, value in model.state_dict().items()}
    # A layer right before a flatten or a pooling gets its gradient as a view, and pytorch-grad-cam fails.
    layer = models["nonlinear"][2]
    for method, peer in RECORDED.items():
        arrays[f"nonlinear/{method}"] = _pytorch_grad_cam(peer, models["nonlinear"], layer, images)
    arrays["pooled/cam"] = _torchcam(models["pooled"], images)
    versions = [f"{name} {importlib.metadata.version(name)}" for name in ("grad-cam", "torchcam", "torch")]
    arrays |= {"images": images.numpy(), "targets": np.array(TARGETS), "versions": np.array(versions)}
    options.out.parent.mkdir(exist_ok=True)
    write_atomic(options.out, lambda file: np.savez_compressed(file, **arrays))
    print(f"{len(arrays)} arrays in {options.out}, made with {', '.join(versions)}")


def _out_of_place(model: nn.Module) -> nn.Module:
    # Neither library copies what its hook keeps, so an operation in place would change it.
    for module in model.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    return model


def _pytorch_grad_cam(peer: str, model: nn.Module, layer: nn.Module, images: torch.Tensor) -> np.ndarray:
    import pytorch_grad_cam
    from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

    kept: list[Any] = []
    with getattr(pytorch_grad_cam, peer)(model, [layer]) as method:
        of_image = method.get_cam_image
        method.get_cam_image = lambda *arguments: kept.append(of_image(*arguments)) or kept[-1]
        method(images, [ClassifierOutputTarget(target) for target in TARGETS])
    return np.asarray(torch.as_tensor(kept[0]).detach())


def _torchcam(model: nn.Module, images: torch.Tensor) -> np.ndarray:
    from torchcam.methods import CAM

    with CAM(model, "1", "5") as method, torch.no_grad():
        method._relu = False
        return method(TARGETS, model(images), normalized=False)[0].numpy()


if __name__ == "__main__":
    main()
