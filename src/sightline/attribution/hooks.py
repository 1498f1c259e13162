"""The one owner of hooks: the outputs of layers in a forward pass, with the model left as it was found.

    with recorded(model, {"layer3": model.layer3}) as outputs:
        logits = model(images)
    gradients = gradients_of(logits, torch.ones_like(logits), outputs)

The first recorded layer's output becomes a leaf. What runs before it builds no graph, so the
cost is a forward pass and a backward pass from the logits to that layer only: nothing is
computed for parameters, nor for the input.
"""

from __future__ import annotations

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping

import torch
from torch import nn

from sightline.errors import InputError
from sightline.models.device import evaluating

# (name, inputs, output) of a layer that ran; a returned tensor takes the output's place.
Visit = Callable[[str, tuple, object], torch.Tensor | None]


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Put the model in evaluation mode, uncompiled, with gradients off (they may be switched on inside).

    On leaving, also by an exception, everything is as before: the mode of every submodule, grad
    mode, and the random state of PyTorch.
    """
    random_state = torch.random.fork_rng(_cuda_devices(model))
    with torch.inference_mode(False), torch.no_grad(), random_state, evaluating(model), _eager(model):
        yield


@contextlib.contextmanager
def hooks(layers: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Call `visit` after each run of each layer, and remove every hook on leaving."""
    handles = []
    try:
        for name, layer in layers.items():
            handles.append(layer.register_forward_hook(functools.partial(_call, visit, name)))
        yield
    finally:
        for handle in handles:
            handle.remove()


@contextlib.contextmanager
def hooked(model: nn.Module, layers: Mapping[str, nn.Module], visit: Visit) -> Iterator[None]:
    """Call `visit` after each run of each layer of the model `at_rest`."""
    with at_rest(model), hooks(layers, visit):
        yield


def _call(visit: Visit, name: str, layer: nn.Module, inputs: tuple, output: object) -> torch.Tensor | None:
    return visit(name, inputs, output)


def _cuda_devices(model: nn.Module) -> list[int]:
    return sorted({tensor.device.index for tensor in model.parameters() if tensor.is_cuda})


def _eager(model: nn.Module) -> contextlib.AbstractContextManager:
    # Compiled code may not see hooks that came after it, and its graph serves one backward pass only; where
    # nothing is compiled, the compiler is not even imported.
    compiled = any(module._compiled_call_impl is not None for module in model.modules())
    if compiled or "torch._dynamo" in sys.modules:  # a function inside of the model may be compiled
        return torch.compiler.set_stance("force_eager")
    return contextlib.nullcontext()


@contextlib.contextmanager
def recorded(model: nn.Module, layers: Mapping[str, nn.Module]) -> Iterator[dict[str, torch.Tensor]]:
    """Yield a dict that one forward pass inside the context fills with the output of each layer.

    The outputs are joined to the logits by a graph and not to anything before the earliest of
    the layers. In-place operations that follow a layer do not reach what was recorded.

    Raises:
        InputError: A layer runs twice, or returns anything but one tensor of floats.
    """
    outputs: dict[str, torch.Tensor] = {}

    def record(name: str, inputs: tuple, output: object) -> torch.Tensor:
        if name in outputs:
            raise InputError(
                f"layer {name!r} runs several times in one forward pass, so its map is ambiguous; "
                "choose a layer that runs once"
            )
        if not isinstance(output, torch.Tensor) or not output.is_floating_point():
            kind = str(output.dtype) if isinstance(output, torch.Tensor) else type(output).__name__
            raise InputError(
                f"layer {name!r} returns {kind}; explain needs a layer that returns one tensor of floats"
            )
        torch.set_grad_enabled(True)  # from here on; `hooked` puts the caller's mode back
        # A later layer stays joined to the earlier one: only an output without a graph becomes a leaf.
        outputs[name] = output if output.requires_grad else output.detach().requires_grad_()
        return outputs[name].clone()

    with hooked(model, layers, record):
        yield outputs


def gradients_of(
    logits: torch.Tensor,
    weights: torch.Tensor,
    outputs: Mapping[str, torch.Tensor],
    *,
    keep_graph: bool = False,
) -> dict[str, torch.Tensor]:
    """Return the gradient of sum(weights * logits) with respect to each recorded output, by name.

    No image depends on another, so each gets the gradient of its own row.

    Args:
        logits: (B, C), joined to the outputs by a graph.
        weights: (B, C).
        outputs: What `recorded` yields.
        keep_graph: Whether another backward pass follows.

    Raises:
        InputError: The logits do not depend on one of the outputs.
    """
    gradients: tuple[torch.Tensor | None, ...] = (None,) * len(outputs)
    if logits.requires_grad:
        gradients = torch.autograd.grad(
            logits, list(outputs.values()), weights.to(logits), allow_unused=True, retain_graph=keep_graph
        )
    found = {}
    for name, gradient in zip(outputs, gradients, strict=True):
        if gradient is None:
            raise InputError(
                f"no gradient flows from the logits to layer {name!r}: the model does not use it for "
                "them, or detaches or switches gradients off in between; choose a later layer"
            )
        found[name] = gradient
    return found
