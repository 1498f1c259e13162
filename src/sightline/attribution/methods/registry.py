"""The methods by name, and the two forms that a method has; a user's own function works the same way.

    (activations, gradients) -> maps    both (B, K, h, w), of the target's logit; maps (B, h, w)
    (case) -> maps                      asks for passes of its own, see `Case`; maps (B, h', w')

They are told apart by the number of parameters that have no default. Options are keyword-only, so
that `functools.partial(smooth_grad, samples=10)` is a method as well.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import TypeGuard

import torch

from sightline.attribution.context import Case
from sightline.attribution.methods.cam import (
    cam,
    eigen_cam,
    eigen_grad_cam,
    elementwise_grad_cam,
    finer_cam,
    grad_cam,
    grad_cam_plus_plus,
    hires_cam,
    layer_cam,
    shapley_cam,
    xgrad_cam,
)
from sightline.attribution.methods.full_grad import full_grad
from sightline.attribution.methods.gradients import (
    deconvnet,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    saliency,
    smooth_grad,
    smooth_grad_cam_plus_plus,
)
from sightline.attribution.methods.perturbation import ablation_cam, occlusion, rise, score_cam
from sightline.errors import SightlineError, nearest

OfRecord = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
OfCase = Callable[[Case], torch.Tensor]
Method = OfRecord | OfCase

METHODS: dict[str, Method] = {
    "cam": cam,
    "grad_cam": grad_cam,
    "grad_cam_plus_plus": grad_cam_plus_plus,
    "xgrad_cam": xgrad_cam,
    "hires_cam": hires_cam,
    "elementwise_grad_cam": elementwise_grad_cam,
    "layer_cam": layer_cam,
    "smooth_grad_cam_plus_plus": smooth_grad_cam_plus_plus,
    "eigen_cam": eigen_cam,
    "eigen_grad_cam": eigen_grad_cam,
    "score_cam": score_cam,
    "ablation_cam": ablation_cam,
    "full_grad": full_grad,
    "shapley_cam": shapley_cam,
    "finer_cam": finer_cam,
    "rise": rise,
    "occlusion": occlusion,
    "saliency": saliency,
    "smooth_grad": smooth_grad,
    "integrated_gradients": integrated_gradients,
    "guided_backprop": guided_backprop,
    "deconvnet": deconvnet,
    "guided_grad_cam": guided_grad_cam,
}


def find_method(method: str | Method) -> Method:
    """Return the function called `method`, or the one that was passed.

    Raises SightlineError for an unknown name, or a function of neither form.
    """
    if callable(method):
        takes_case(method)
        return method
    if method not in METHODS:
        raise SightlineError(f"method {method!r} is not known; {nearest(method, list(METHODS))}")
    return METHODS[method]


def takes_case(method: Method) -> TypeGuard[OfCase]:
    """Tell whether the method is a function of one argument, a case; otherwise it takes two.

    >>> takes_case(lambda case: case.images.mean(1)), takes_case(grad_cam)
    (True, False)
    """
    try:
        parameters = list(inspect.signature(method).parameters.values())
    except ValueError:  # written in C, without a signature
        parameters = []
    positional = [p for p in parameters if p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD)]
    required = [p for p in positional if p.default is p.empty]
    demanded = [p for p in parameters if p.kind is p.KEYWORD_ONLY and p.default is p.empty]
    if len(required) not in (1, 2) or demanded:
        raise SightlineError(
            f"method {method_name(method)} has {len(required) + len(demanded)} parameters without default; "
            "a method takes (activations, gradients), or (case)"
        )
    return len(required) == 1


def method_name(method: Method) -> str:
    """Return the name to show: of the function inside a partial, or of a class."""
    method = getattr(method, "func", method)
    return getattr(method, "__name__", type(method).__name__)
