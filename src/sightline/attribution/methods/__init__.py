"""The methods by name, and the two forms that a method has; a user's own function works the same way.

    (activations, gradients) -> maps    both (B, K, h, w), of the target's logit; maps (B, h, w)
    (context) -> maps                   makes passes of its own, see `AttributionContext`; maps (B, h', w')

They are told apart by the number of parameters that have no default. Options are keyword-only, so
that `functools.partial(smooth_grad, samples=10)` is a method as well.

A package adds names by the entry point "method.NAME", see `sightline.extensions`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TypeGuard, cast

import torch

from sightline.attribution.context import AttributionContext
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
from sightline.attribution.methods.gradients import (
    deconvnet,
    full_grad,
    guided_backprop,
    guided_grad_cam,
    integrated_gradients,
    saliency,
    smooth_grad,
    smooth_grad_cam_plus_plus,
)
from sightline.attribution.methods.perturbation import ablation_cam, occlusion, rise, score_cam
from sightline.errors import InputError, InputTypeError
from sightline.extensions import resolve

LayerMethod = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
ContextMethod = Callable[[AttributionContext], torch.Tensor]
Method = LayerMethod | ContextMethod

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
"""Attribution methods by name; where a name is taken, a function of yours is too."""


def find_method(method: str | Method, *, trust: Collection[str] | None = None) -> Method:
    """Return the function that `method` stands for.

    Args:
        method: A name in `METHODS`, of a plugin, or "package.module:function"; or a function.
        trust: Modules that may be imported for a name that a file holds; None, for a name that the caller
            wrote, allows all.

    Raises:
        InputError: The name is not known, or the function has neither form of a method.
        UntrustedError: The name would import a module that is not in `trust`.
    """
    function = cast(Method, resolve("method", method, METHODS, trust=trust))
    if not callable(function):
        raise InputTypeError(f"method is {type(function).__name__}; pass a name or a function")
    takes_context(function)
    return function


def takes_context(method: Method) -> TypeGuard[ContextMethod]:
    """Whether the method is a function of one argument, the context; otherwise it takes two.

    Raises:
        InputError: It has neither form.

    >>> takes_context(lambda context: context.images.mean(1)), takes_context(grad_cam)
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
        raise InputError(
            f"method {function_name(method)} has {len(required) + len(demanded)} parameters without default; "
            "a method takes (activations, gradients), or (context)"
        )
    return len(required) == 1


def function_name(function: Callable) -> str:
    """Return the name to show: of the function inside a partial, or of a class."""
    function = getattr(function, "func", function)
    return getattr(function, "__name__", type(function).__name__)
