"""What a method that takes one argument is given: a model, a batch of images, and ways to query them.

    def fragile(context):  # a method of one's own: explain(model, images, method=fragile)
        darker = 0.9 * context.images  # (B, C, H, W)
        drop = context.score(context.images) - context.score(darker)  # (B,)
        return drop[:, None, None] * context.activations.mean(1)  # (B, h, w)

While a method runs, the model is in evaluation mode, gradients are off (switch them on with
`torch.enable_grad()`), and autocast is off but for the model's own passes; afterwards everything
is put back. A context is valid only for that long.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import torch
import torch.nn.functional as F
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from sightline.attribution import validation
from sightline.attribution.hooks import gradients_of, hooks
from sightline.attribution.layer_choice import POOLED, REQUESTED, grid_for, layer_choice, nodes_in_order
from sightline.attribution.layers import Grid, as_maps, put_maps_back
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Head, WrappedModel, find_head
from sightline.errors import InputError
from sightline.models.layers import find_layer


@dataclass(frozen=True, eq=False)
class AttributionContext:
    """One batch of images and, for each, the class that is to be explained.

    Whatever takes a forward pass is made when it is first read, and kept: logits and targets come with the
    pass that a method needs anyway, `images_and_score` or `record`, if that is what it asks for first.

    Attributes:
        wrapped: The model, as `wrap_model` returns it.
        images: Float (B, C, H, W) or (B, C, D, H, W), on the model's device and in its dtype.
        requested_targets, requested_layer, requested_grid: Classes, layer and token grid as the caller of
            `explain` gave them, None to choose. A method reads `targets`, `layer` and `activations`.
        batch_size: How many images one pass of a method of many passes may take; see `chunks`.
    """

    wrapped: WrappedModel
    images: torch.Tensor
    requested_targets: Targets | None = None
    requested_layer: str | None = None
    requested_grid: Grid | None = None
    batch_size: int = 64

    @property
    def model(self) -> nn.Module:
        """The user's module, without compiled or distributed wrapping."""
        return self.wrapped.model

    @cached_property
    def layer(self) -> str:
        """The name of the layer: the requested one, or else what `target_layer` finds."""
        return self._name

    def prefer_layer(self, layer: str) -> None:
        """Use `layer` if the caller left the choice open and nothing was read from a layer yet."""
        if "_name" not in vars(self):
            vars(self)["_name"] = self.requested_layer or layer
            vars(self)["_reason"] = REQUESTED if self.requested_layer else POOLED

    @property
    def used_layer(self) -> str | None:
        """The name of the layer, if the method has read anything of it."""
        return self._name if vars(self).keys() & {"layer", "_grid"} else None

    @property
    def layer_reason(self) -> str:
        """How the layer was found; empty if the method has read nothing of it."""
        return vars(self).get("_reason", REQUESTED) if self.used_layer else ""

    @cached_property
    def logits(self) -> torch.Tensor:
        """(B, C), float32 or float64, without graph."""
        if self.requested_layer or "_name" in vars(self):
            return self._pass[0].detach()
        # A method that reads them first may do so inside an autocast of its own.
        with torch.no_grad(), torch.autocast(self.images.device.type, enabled=False):
            return self.wrapped.logits(self.images)

    @cached_property
    def targets(self) -> torch.Tensor:
        """The class to explain, (B,) int64, on the model's device."""
        return validation.choose_classes(self.requested_targets, self.logits)

    def score(self, images: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return the target's logit of arbitrary images, in one forward pass.

        Args:
            images: (M, C, H, W).
            rows: (M,) int64, which of the context's images (hence which target) each belongs to; None if
                they are as many and in the same order.

        Returns:
            (M,), without gradient unless the caller enabled gradients.
        """
        classes = self.targets if rows is None else self.targets[rows]
        return self.wrapped.logits(images, rows=rows).gather(1, classes[:, None])[:, 0]

    def images_and_score(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images as a leaf, and the target's logit of each (B,), joined to them by a graph.

        One forward pass, which gives `logits` as well if nothing did before.
        """
        with torch.enable_grad():
            images = self.images.detach().requires_grad_()
            logits = self.wrapped.logits(images)
            vars(self).setdefault("logits", logits.detach())
            return images, logits.gather(1, self.targets[:, None])[:, 0]

    def chunks(self, count: int) -> Iterator[slice]:
        """Yield slices of at most `batch_size` that cover range(count): one pass each."""
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

    @property
    def copies_per_pass(self) -> int:
        """How many variants of all images one pass takes; 1 if the images alone fill it."""
        return max(1, self.batch_size // len(self.images))

    def score_copies(self, copies: torch.Tensor) -> torch.Tensor:
        """Return the score of n variants of every image, (n, B, C, H, W) to (n, B), in one forward pass."""
        rows = torch.arange(len(self.images), device=copies.device).repeat(len(copies))
        images = copies.flatten(0, 1).to(self.images.dtype)
        return self.score(images, rows).view(len(copies), -1)

    @cached_property
    def activations(self) -> torch.Tensor:
        """A, the output of the layer as maps: (B, K, h, w), float32 or float64, without graph."""
        return self._maps(self._pass[1].detach())

    @cached_property
    def gradients(self) -> torch.Tensor:
        """g, the gradient of each target's logit with respect to A: (B, K, h, w)."""
        return self.slopes(F.one_hot(self.targets, self.logits.shape[1]))

    def record(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return `activations` and `gradients`: one forward pass, and a backward pass to the layer.

        Raises:
            InputError: No gradient reaches the layer, or its output is no map.
        """
        return self.activations, self.gradients

    def slopes(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the gradient of sum_c weights_bc y_bc with respect to A, (B, C) to (B, K, h, w)."""
        logits, output = self._pass
        return self._maps(gradients_of(logits, weights, {self._name: output}, keep_graph=True)[self._name])

    def curvature(self) -> torch.Tensor:
        """Return H A, with H the Hessian of each target's logit with respect to A: (B, K, h, w).

        Raises:
            InputError: An operation behind the layer has no second derivative.
        """
        if name := _differentiable_once(self._pass[0]):
            # Where all that follows it is linear, autograd would give zeros in place of an error.
            raise InputError(
                f"{name} behind layer {self._name!r} says that it is differentiable only once; use a method "
                "that needs the first derivative only, such as grad_cam"
            )
        try:
            return self._curvature(*self._pass)
        except RuntimeError as error:
            if not _lacks_second_derivative(error):
                raise
        # Fused attention has no second derivative; the same attention written out in matrices has one.
        with sdpa_kernel(SDPBackend.MATH):
            logits, outputs = self.wrapped.record(self.images, {self._name: self._module})
        try:
            return self._curvature(logits, outputs[self._name])
        except RuntimeError as error:
            if not _lacks_second_derivative(error):
                raise
            reason = str(error).partition("\n")[0]
            raise InputError(
                f"an operation behind layer {self._name!r} has no second derivative ({reason}); use a method "
                "that needs the first one only, such as grad_cam"
            ) from error

    def _curvature(self, logits: torch.Tensor, output: torch.Tensor) -> torch.Tensor:
        with torch.enable_grad():
            score = logits.gather(1, self.targets[:, None]).sum()
            slope = torch.autograd.grad(score, output, create_graph=True)[0]
            along = (self._maps(slope) * self.activations).sum()
            if not along.requires_grad:  # what follows the layer is linear
                return torch.zeros_like(self.activations)
            product = torch.autograd.grad(along, output, retain_graph=True, materialize_grads=True)[0]
        return self._maps(product.detach())

    @cached_property
    def head(self) -> Head | None:
        """The linear head, where the logits are exactly a matrix times the mean of A; else None."""
        return find_head(self.wrapped, self.activations.flatten(2).mean(2), self.logits)

    @property
    def extra_tokens(self) -> int:
        """How many tokens of the layer belong to no cell of the maps, as a class token does."""
        output = self._pass[1]
        return output.shape[1] - self.activations[0, 0].numel() if output.ndim == 3 else 0

    def run_from_layer(self, activations: torch.Tensor, row: int) -> torch.Tensor:
        """Return the logits of image `row` with the layer's output replaced: the model from the layer on.

        What comes before the layer runs for a single image if the model lets it broadcast to M (a skip
        connection does, a concatenation does not).

        Args:
            activations: (M, K, h, w), in place of A.
            row: Index of the image.

        Returns:
            (M, C), without gradient unless the caller enabled gradients.
        """
        return self._run_from_layer(activations, row, 1 if self._broadcasts else len(activations))

    @cached_property
    def _broadcasts(self) -> bool:
        twice = self.activations[:1].repeat_interleave(2, dim=0)
        try:
            with torch.no_grad():
                logits = self._run_from_layer(twice, row=0, copies=1)
        except Exception:  # whatever a model raises that does not expect the batch to grow
            return False
        return torch.allclose(logits, self.logits[[0, 0]], rtol=1e-3, atol=1e-3)

    def _run_from_layer(self, activations: torch.Tensor, row: int, copies: int) -> torch.Tensor:
        def replace(name: str, inputs: tuple, output: object) -> torch.Tensor:
            assert isinstance(output, torch.Tensor)  # as `_pass` has seen
            if self._grid is None:
                return activations.to(output.dtype).clone()  # an in-place operation may follow
            output = output.detach().expand(len(activations), *output.shape[1:])
            return put_maps_back(self._grid, activations, output)

        images = self.images[row : row + 1].expand(copies, *self.images.shape[1:])
        with hooks({self._name: self._module}, replace):
            rows = torch.full((len(activations),), row, dtype=torch.int64)
            return self.wrapped.logits(images, len(activations), rows)

    @cached_property
    def _name(self) -> str:
        if self.requested_layer:
            return self.requested_layer
        choice = layer_choice(self.wrapped, self.images)
        vars(self)["_reason"] = choice.reason
        return choice.layer

    @property
    def _module(self) -> nn.Module:
        return find_layer(self.model, self._name)

    @cached_property
    def _pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits (B, C) and the layer's own output, joined by a graph."""
        logits, outputs = self.wrapped.record(self.images, {self._name: self._module})
        return logits, outputs[self._name]

    @cached_property
    def _grid(self) -> Grid | None:
        return self.requested_grid or grid_for(self.wrapped, self._name, self._pass[1].detach(), self.images)

    def _maps(self, output: torch.Tensor) -> torch.Tensor:
        return as_maps(self.wrapped, self._name, output, self._grid, self.images)


def _lacks_second_derivative(error: RuntimeError) -> bool:
    """Whether autograd says that it cannot differentiate a gradient: it has no exception of its own."""
    text = str(error)
    return any(words in text for words in ("is not implemented", "differentiate twice", "double backward"))


def _differentiable_once(logits: torch.Tensor) -> str | None:
    """Return the name of a function of the user's in the graph whose backward is `once_differentiable`."""
    once = torch.autograd.function.once_differentiable(lambda context: None).__code__
    for node in nodes_in_order(logits.grad_fn):
        function = getattr(type(node), "_forward_cls", None)
        if function and getattr(function.backward, "__code__", None) is once:
            return function.__name__
    return None
