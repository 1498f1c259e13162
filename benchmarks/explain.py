"""What each explanation costs, here and in pytorch-grad-cam, torchcam and captum, against one forward pass.

    python benchmarks/explain.py [--models resnet18,resnet18_mlp,resnet50] [--methods a,b] [--layer layer4]
                                 [--peers FOLDER] [--batch B] [--few F] [--repeats R]
                                 [--run RUN] [--json FILE]

ResNet-18 takes a batch of 256 images of 32 pixels, ResNet-50 one of 16 images of 224; "resnet18_mlp" ends
in two linear layers with a ReLU between, so that no closed form holds behind `layer4`, only a short tail.
"forwards" is the time per image over that of a plain forward pass of the whole batch, measured just
before. Methods of many passes per image are timed on the first F images only; they fill their passes
with copies. "peak MB" is what a call needs on top of what was there before. Peers: see `peers.py`; those
that are absent are left out with a line.
"""

from __future__ import annotations

import argparse
import ctypes
import functools
import gc
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from harness import publish, repeat
from peers import load_peers
from resnet50 import ResNet50
from torch import nn

from sightline.attribution import METHODS, class_maps, explain
from sightline.attribution.methods.perturbation import score_cam
from sightline.models import to_float
from sightline.models.resnet import resnet18
from sightline.runs import load_run


def _with_two_linear_layers() -> nn.Module:
    model = resnet18(10)
    head = nn.Sequential(nn.Linear(512, 512), nn.ReLU(), nn.Linear(512, 10))
    model.fc = head  # pyright: ignore[reportAttributeAccessIssue]
    return model


# name: (how it is built, images in a batch, their size, classes)
MODELS: dict[str, tuple[Callable[[], nn.Module], int, int, int]] = {
    "resnet18": (lambda: resnet18(10), 256, 32, 10),
    "resnet18_mlp": (_with_two_linear_layers, 256, 32, 10),
    "resnet50": (lambda: ResNet50(1000), 16, 224, 1000),
}
MANY_PASSES = {
    *("score_cam", "score_cam_bfloat16", "ablation_cam", "rise", "occlusion"),
    *("smooth_grad", "smooth_grad_cam_plus_plus", "integrated_gradients"),
}
HERE = {**METHODS, "score_cam_bfloat16": functools.partial(score_cam, autocast=torch.bfloat16)}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", default="resnet18,resnet50")
    parser.add_argument("--methods", default=",".join([*HERE, "class_maps"]))
    parser.add_argument("--layer", default="layer4")
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--few", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--run", type=Path, help="a finished run, for the agreement of Score-CAM in bfloat16")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    peers = load_peers(options.peers)
    rows: list[dict[str, Any]] = []
    for name in options.models.split(","):
        for row in measure_model(name, peers, options):
            print(row, flush=True)
            rows.append(row)
    publish("explain", rows, device=options.device, json_file=options.json)
    if options.run:
        print(agreement(options.run))


def measure_model(name: str, peers: dict, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Yield a row for the forward pass, and one per method and library."""
    build, batch, size, classes = MODELS[name]
    batch = options.batch or batch
    torch.manual_seed(0)
    model = build().eval().to(options.device)
    images = torch.rand(batch, 3, size, size, device=options.device)
    targets = torch.randint(classes, (batch,)).tolist()
    layer = model.get_submodule(options.layer)
    forward = functools.partial(_forward, model, images)
    forward()  # what the first pass sets up for good is nobody's cost
    yield {
        "model": name,
        "method": "forward pass",
        "library": "torch",
        **measure(forward, batch, None, options),
    }
    for method in options.methods.split(","):
        for library in ("here", *(library for library in peers if method in peers[library])):
            count = min(options.few, batch) if _takes_many_passes(method, library, options.layer) else batch
            some, of_some = images[:count], targets[:count]
            if method == "class_maps":
                work = functools.partial(class_maps, model, some, options.layer, batch_size=max(64, count))
            elif library == "here":
                work = functools.partial(
                    explain,
                    model,
                    some,
                    of_some,
                    method=HERE[method],
                    layer=options.layer,
                    batch_size=max(64, count),
                )
            else:
                work = peers[library][method](model, layer, some, of_some)
            # Beside each row, not once: a shared machine changes its pace within minutes.
            once = measure(forward, batch, None, options)["ms/image"]
            try:
                row = measure(work, count, once, options)
            except Exception as error:  # whatever a peer raises on this model is its result
                print(f"{name}: {method} of {library} fails: {error!r:.200}")
            else:
                yield {"model": name, "method": method, "library": library, **row}


def _takes_many_passes(method: str, library: str, layer: str) -> bool:
    closed_form = method == "ablation_cam" and library == "here" and layer == "layer4"
    return method in MANY_PASSES and not closed_form


@torch.no_grad()
def _forward(model: nn.Module, images: torch.Tensor) -> torch.Tensor:
    return model(images)


def measure(
    work: Callable[[], object], images: int, once: float | None, options: argparse.Namespace
) -> dict[str, Any]:
    """Return time and memory of `work` for so many images; `once` is the ms of a forward pass."""

    def counted() -> int:
        work()
        return images

    gc.collect()
    before = _memory_now(options.device)
    rate = repeat(counted, repeats=options.repeats, device=options.device)
    ms = 1000 / rate["median"]
    return {
        "images": images,
        "ms/image": round(ms, 3),
        "low": round(1000 / rate["high"], 3),
        "high": round(1000 / rate["low"], 3),
        "forwards": round(ms / once, 2) if once else 1.0,
        "peak MB": round(_memory_peak(options.device) - before) if before is not None else "-",
    }


def _memory_now(device: str) -> float | None:
    """Return the MB in use and let the peak start anew from here; None where the system does not tell."""
    if torch.device(device).type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return torch.cuda.memory_allocated(device) / 1e6
    try:
        # Freed memory that the allocator keeps would hide what the next call takes. Linux with glibc only.
        ctypes.CDLL("libc.so.6").malloc_trim(0)
        Path("/proc/self/clear_refs").write_text("5")
    except (OSError, AttributeError):
        return None
    return _status("VmRSS")


def _memory_peak(device: str) -> float:
    if torch.device(device).type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 1e6
    return _status("VmHWM")


def _status(field: str) -> float:
    """Return a size of this process in MB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) / 1e3


def agreement(folder: Path, count: int = 32) -> str:
    """Say how near Score-CAM in bfloat16 comes to float32 on the first test images of a run."""
    run = load_run(folder)
    layer = json.loads((folder / "explanations.json").read_text())["main_layer"]
    images = to_float(run.data().test.images[:count])
    exact, near = (
        explain(run.model(), images, run.predictions.predicted[:count], method=HERE[name], layer=layer).maps
        for name in ("score_cam", "score_cam_bfloat16")
    )
    exact, near = exact.reshape(count, -1), near.reshape(count, -1)
    cosine = (exact * near).sum(1) / np.linalg.norm(exact, axis=1) / np.linalg.norm(near, axis=1)
    error = np.abs(exact - near).max(1) / np.abs(exact).max(1)
    return (
        f"Score-CAM in bfloat16 against float32 at {layer}, {count} images: cosine at least "
        f"{cosine.min():.5f}, largest error {np.median(error):.2%} of the map's maximum (median), "
        f"{error.max():.2%} (worst)"
    )


if __name__ == "__main__":
    main()
