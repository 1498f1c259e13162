"""What a method of one argument is given: a model, a batch of images, and the ways to ask about them.

    def fragile(case):  # a method of one's own: explain(model, images, method=fragile)
        darker = 0.9 * case.images  # (B, C, H, W)
        drop = case.score(case.images) - case.score(darker)  # (B,)
        return drop[:, None, None] * case.activations.mean(1)  # (B, h, w)

While a method runs, the model is in evaluation mode, gradients are off (switch them on with
`torch.enable_grad()`), and autocast is off but for the model's own passes; afterwards everything
is put back. A case is alive only for that long.

Several variants of every image of a case in one pass: n copies of B images, (n, B, C, H, W).
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
from sightline.attribution.layers import Grid, as_maps, choose_layer, find_grid, place_back
from sightline.attribution.validation import Targets
from sightline.attribution.wrapped_model import Head, Subject, find_head
from sightline.models.layers import find_layer


@dataclass(frozen=True, eq=False)
class Case:
    """One batch of images and, for each, the class that is to be explained.

    images: float (B, C, H, W) or (B, C, D, H, W), on the model's device and in its dtype.
    wanted, asked, given: classes, layer and token grid as the caller of `explain` put them, None to
    choose; a method reads `targets`, `layer` and `activations`. batch_size: see `chunks`.

    Whatever takes a pass is made when it is first read, and kept: logits and targets come with the
    pass that a method needs anyway, `look` or `record`, if that is what it asks for first.
    """

    subject: Subject
    images: torch.Tensor
    wanted: Targets | None = None
    asked: str | None = None
    given: Grid | None = None
    batch_size: int = 64

    @property
    def model(self) -> nn.Module:
        """The user's module, without compiled or distributed wrapping."""
        return self.subject.model

    @cached_property
    def layer(self) -> str:
        """The name of the layer: the one asked for, or else what `target_layer` finds."""
        return self._name

    def settle(self, layer: str) -> None:
        """Take `layer` where the caller left the choice open and nothing was read from one yet."""
        vars(self).setdefault("_name", self.asked or layer)

    @property
    def used(self) -> str | None:
        """The name of the layer, if the method has read anything of it."""
        return self._name if vars(self).keys() & {"layer", "_grid"} else None

    @cached_property
    def logits(self) -> torch.Tensor:
        """(B, C), float32 or float64, without graph."""
        if self.asked or "_name" in vars(self):
            return self._pass[0].detach()
        # Where a method is the first to ask, it may do so inside a precision of its own.
        with torch.no_grad(), torch.autocast(self.images.device.type, enabled=False):
            return self.subject.logits(self.images)

    @cached_property
    def targets(self) -> torch.Tensor:
        """The class to explain, (B,) int64, on the model's device."""
        return validation.choose_classes(self.wanted, self.logits)

    def score(self, images: torch.Tensor, rows: torch.Tensor | None = None) -> torch.Tensor:
        """Return the target's logit of M arbitrary images, (M, C, H, W) to (M,), in one forward pass.

        rows: (M,) int64, which of the case's images (hence which target) each belongs to; None where
        they are as many and in the same order. No gradient, unless the caller enabled them.
        """
        classes = self.targets if rows is None else self.targets[rows]
        return self.subject.logits(images).gather(1, classes[:, None])[:, 0]

    def look(self) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the images as a leaf, and the target's logit of each (B,), joined to them by a graph.

        One forward pass, which gives `logits` as well if nothing did before.
        """
        with torch.enable_grad():
            images = self.images.detach().requires_grad_()
            logits = self.subject.logits(images)
            vars(self).setdefault("logits", logits.detach())
            return images, logits.gather(1, self.targets[:, None])[:, 0]

    def chunks(self, count: int) -> Iterator[slice]:
        """Yield slices of at most `batch_size` that cover range(count): one pass each."""
        for start in range(0, count, self.batch_size):
            yield slice(start, min(start + self.batch_size, count))

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

        Raises SightlineError if no gradient reaches the layer, or its output is no map.
        """
        return self.activations, self.gradients

    def slopes(self, weights: torch.Tensor) -> torch.Tensor:
        """Return the gradient of sum_c weights_bc y_bc with respect to A, (B, C) to (B, K, h, w)."""
        logits, output = self._pass
        return self._maps(gradients_of(logits, weights, {self._name: output}, keep_graph=True)[self._name])

    def curvature(self) -> torch.Tensor:
        """Return H A, with H the Hessian of each target's logit with respect to A: (B, K, h, w)."""
        try:
            return self._curvature(*self._pass)
        except RuntimeError as error:
            if "is not implemented" not in str(error):
                raise
        # Fused attention has no second derivative; the same attention spelt out has one.
        with sdpa_kernel(SDPBackend.MATH):
            logits, outputs = self.subject.record(self.images, {self._name: self._module})
        return self._curvature(logits, outputs[self._name])

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
        return find_head(self.subject, self.activations.flatten(2).mean(2), self.logits)

    @property
    def affine(self) -> bool:
        """Whether what follows the layer is affine in A: pooling and a linear head."""
        return self.head is not None

    @property
    def extra_tokens(self) -> int:
        """How many tokens the layer puts out that have no place in the maps, as a class token has none."""
        output = self._pass[1]
        return output.shape[1] - self.activations[0, 0].numel() if output.ndim == 3 else 0

    def tail(self, activations: torch.Tensor, row: int) -> torch.Tensor:
        """Return the logits (M, C) of image `row` with its A replaced: the model from the layer on.

        activations: (M, K, h, w). What comes before the layer runs for a single image where the model
        lets it broadcast to M (a skip connection does, a concatenation does not). No gradient, unless
        the caller enabled them.
        """
        return self._tail(activations, row, 1 if self._broadcasts else len(activations))

    @cached_property
    def _broadcasts(self) -> bool:
        twice = self.activations[:1].repeat_interleave(2, dim=0)
        try:
            with torch.no_grad():
                logits = self._tail(twice, row=0, copies=1)
        except Exception:  # whatever a model raises that does not expect the batch to grow
            return False
        return torch.allclose(logits, self.logits[[0, 0]], rtol=1e-3, atol=1e-3)

    def _tail(self, activations: torch.Tensor, row: int, copies: int) -> torch.Tensor:
        def replace(name: str, inputs: tuple, output: object) -> torch.Tensor:
            assert isinstance(output, torch.Tensor)  # as `_pass` has seen
            if self._grid is None:
                return activations.to(output.dtype).clone()  # an in-place operation may follow
            output = output.detach().expand(len(activations), *output.shape[1:])
            return place_back(self._grid, activations, output)

        images = self.images[row : row + 1].expand(copies, *self.images.shape[1:])
        with hooks({self._name: self._module}, replace):
            return self.subject.logits(images, len(activations))

    @cached_property
    def _name(self) -> str:
        return self.asked or choose_layer(self.subject, self.images)

    @property
    def _module(self) -> nn.Module:
        return find_layer(self.model, self._name)

    @cached_property
    def _pass(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The logits (B, C) and the layer's own output, joined by a graph."""
        logits, outputs = self.subject.record(self.images, {self._name: self._module})
        return logits, outputs[self._name]

    @cached_property
    def _grid(self) -> Grid | None:
        return self.given or find_grid(self.model, self._module, self._pass[1], self.images.shape[2:])

    def _maps(self, output: torch.Tensor) -> torch.Tensor:
        return as_maps(self.subject, self._name, output, self._grid, self.images)


def per_pass(case: Case) -> int:
    """Return how many copies of all images one pass takes; one, where the images alone fill it."""
    return max(1, case.batch_size // len(case.images))


def scores(case: Case, copies: torch.Tensor) -> torch.Tensor:
    """Return the score of each copy, (n, B, C, H, W) to (n, B), for the target of its image."""
    rows = torch.arange(len(case.images), device=copies.device).repeat(len(copies))
    images = copies.flatten(0, 1).to(case.images.dtype)
    return case.score(images, rows).view(len(copies), -1)
