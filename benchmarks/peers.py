"""The same methods in pytorch-grad-cam, torchcam and captum, as functions of no argument to be timed.

captum comes with the extra `test`. The two others would bring a torchvision that need not fit the
installed torch, so they live in a folder of their own, without their dependencies:

    pip install --target FOLDER --no-deps grad-cam torchcam ttach
    pip install --target FOLDER --no-deps scikit-learn joblib cloudpickle loky threadpoolctl narwhals

pytorch-grad-cam imports torchvision for code that no class-activation map runs: an empty stand-in
takes its place, unless torchvision is there.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import logging
import sys
import types
import warnings
from collections.abc import Callable, Iterable
from pathlib import Path

import torch
from torch import nn

Work = Callable[[], object]
# (model, layer, images, targets) -> the work to be timed.
Peer = Callable[[nn.Module, nn.Module, torch.Tensor, list[int]], Work]

PYTORCH_GRAD_CAM = {
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMPlusPlus",
    "xgrad_cam": "XGradCAM",
    "hires_cam": "HiResCAM",
    "elementwise_grad_cam": "GradCAMElementWise",
    "layer_cam": "LayerCAM",
    "eigen_cam": "EigenCAM",
    "eigen_grad_cam": "EigenGradCAM",
    "shapley_cam": "ShapleyCAM",
    "score_cam": "ScoreCAM",
    "ablation_cam": "AblationCAM",
    "full_grad": "FullGrad",
}
TORCHCAM = {
    "cam": "CAM",
    "grad_cam": "GradCAM",
    "grad_cam_plus_plus": "GradCAMpp",
    "xgrad_cam": "XGradCAM",
    "layer_cam": "LayerCAM",
    "smooth_grad_cam_plus_plus": "SmoothGradCAMpp",
    "score_cam": "ScoreCAM",
}


def load_peers(folder: Path | None) -> dict[str, dict[str, Peer]]:
    """Return library -> method -> peer, for what can be imported; a line says what cannot."""
    if folder:
        sys.path.append(str(folder))
    _be_quiet()
    peers = {}
    for library, load in (
        ("pytorch_grad_cam", _pytorch_grad_cam),
        ("torchcam", _torchcam),
        ("captum", _captum),
    ):
        try:
            peers[library] = load()
        except ImportError as error:
            print(f"{library} is left out: {error}")
    return peers


def _be_quiet() -> None:
    warnings.filterwarnings("ignore")  # the peers', on hooks and on gradients that they require
    logging.getLogger("torchcam").setLevel(logging.ERROR)
    with contextlib.suppress(ImportError):
        import tqdm

        tqdm.tqdm.__init__ = functools.partialmethod(tqdm.tqdm.__init__, disable=True)  # type: ignore


def _stand_in_for_torchvision() -> None:
    if importlib.util.find_spec("torchvision"):
        return
    names = {
        "torchvision": (),
        "torchvision.transforms": ("Compose", "Normalize", "ToTensor"),
        "torchvision.transforms.functional": ("resize",),
    }
    for name, members in names.items():
        sys.modules[name] = types.ModuleType(name)
        for member in members:
            setattr(sys.modules[name], member, None)


def _pytorch_grad_cam() -> dict[str, Peer]:
    _stand_in_for_torchvision()
    import pytorch_grad_cam

    def peer(name: str, model: nn.Module, layer: nn.Module, images: torch.Tensor, targets: list[int]) -> Work:
        def work() -> object:
            from pytorch_grad_cam.utils.model_targets import ClassifierOutputTarget

            # Built anew: after FullGrad's run the object still holds the images' graph.
            with getattr(pytorch_grad_cam, name)(model, [] if name == "FullGrad" else [layer]) as method:
                method.batch_size = 64  # of ScoreCAM and AblationCAM; their own is 16 and 32
                return method(images, [ClassifierOutputTarget(target) for target in targets])

        return work

    return {method: functools.partial(peer, name) for method, name in PYTORCH_GRAD_CAM.items()}


def _torchcam() -> dict[str, Peer]:
    from torchcam import methods

    def peer(name: str, model: nn.Module, layer: nn.Module, images: torch.Tensor, targets: list[int]) -> Work:
        options = {"num_samples": 16} if name == "SmoothGradCAMpp" else {}
        options |= {"batch_size": 64} if name == "ScoreCAM" else {}

        def work() -> object:
            with getattr(methods, name)(model, layer, **options) as method:
                if name in ("CAM", "ScoreCAM"):
                    with torch.no_grad():
                        return method(targets, model(images))
                return method(targets, model(images))

        return work

    return {method: functools.partial(peer, name) for method, name in TORCHCAM.items()}


def _captum() -> dict[str, Peer]:
    from captum import attr

    def of_model(name: str, options: Callable[[torch.Tensor], dict] = lambda images: {}) -> Peer:
        def peer(model: nn.Module, layer: nn.Module, images: torch.Tensor, targets: list[int]) -> Work:
            at, method = torch.tensor(targets, device=images.device), getattr(attr, name)
            built = method(model, layer) if name in ("LayerGradCam", "GuidedGradCam") else method(model)
            return lambda: built.attribute(images, target=at, **options(images))

        return peer

    def noise_tunnel(model: nn.Module, layer: nn.Module, images: torch.Tensor, targets: list[int]) -> Work:
        at, built = torch.tensor(targets, device=images.device), attr.NoiseTunnel(attr.Saliency(model))
        return lambda: built.attribute(
            images, nt_type="smoothgrad", nt_samples=50, nt_samples_batch_size=1, stdevs=0.15, target=at
        )

    return {
        "grad_cam": of_model("LayerGradCam"),
        "saliency": of_model("Saliency"),
        "smooth_grad": noise_tunnel,
        "integrated_gradients": of_model(
            "IntegratedGradients", lambda images: {"n_steps": 50, "internal_batch_size": max(64, len(images))}
        ),
        "guided_backprop": of_model("GuidedBackprop"),
        "deconvnet": of_model("Deconvolution"),
        "guided_grad_cam": of_model("GuidedGradCam"),
        "occlusion": of_model("Occlusion", _patches),
    }


def _patches(images: torch.Tensor) -> dict[str, Iterable[int] | int]:
    """The windows that occlusion takes by default here."""
    patch = min(images.shape[2:]) // 8
    shift = patch // 2
    return {
        "sliding_window_shapes": (3, patch, patch),
        "strides": (3, shift, shift),
        "perturbations_per_eval": max(1, 64 // len(images)),
    }
