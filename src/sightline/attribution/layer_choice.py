"""Which layer is explained if the user names none: found in the graph of one pass, and remembered.

A map tells where the evidence is only if all of it passes through the layer. Whether it does can be counted:
a layer lies on every path from the logit back to the image if (paths from the logit to it) times (paths from
it to the image) is the number of all paths. What lies inside a residual branch, or in one of two branches,
does not.

In a network of attention with a class token, no layer after the last block's first normalisation gets
a gradient on the patches; that normalisation is taken if it is the only way of the patches to the logit.
"""

from __future__ import annotations

import dataclasses
import logging
import weakref
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from sightline.attribution.hooks import at_rest
from sightline.attribution.layers import (
    Grid,
    LayerRun,
    Size,
    find_grid,
    follows_the_image,
    likely_grid,
    observe,
    outermost,
)
from sightline.attribution.validation import as_input, check_images
from sightline.attribution.wrapped_model import Score, WrappedModel, score_of, wrap_model
from sightline.errors import InputError
from sightline.models.layers import find_layer

log = logging.getLogger(__name__)

MINIMUM = 5  # cells along the shorter side
EARLY = 1 / 3  # of a network's layers with weights: a map from before says little about the class
LATE = 2 / 3
SAME = 1.4  # times as many cells are the same grid
REQUESTED = "as requested"
POOLED = "the layer that is pooled for the linear head"
REMEMBERED = 8  # choices for one model: input sizes, scores


@dataclass(frozen=True)
class Candidate:
    """A layer that could be explained.

    Attributes:
        layer: Its name.
        grid: Its cells, (h, w) or (d, h, w).
        whole: Whether all evidence passes through it.
    """

    layer: str
    grid: Size
    whole: bool

    def __str__(self) -> str:
        part = "" if self.whole else ", a part of the evidence"
        return f"{self.layer!r} ({_cells(self.grid)}{part})"


@dataclass(frozen=True)
class Choice:
    """The layer that was found.

    Attributes:
        layer: Its name.
        reason: A sentence on how it was found, and where it is a second choice, why.
        second_choice: Whether there is reason for doubt.
        candidates: Other layers too, best first.
    """

    layer: str
    reason: str
    second_choice: bool
    candidates: tuple[Candidate, ...]


def target_layer(
    model: nn.Module, images: torch.Tensor, minimum: int = MINIMUM, *, score: Score | None = None
) -> str:
    """Return the name of the deepest layer that all evidence passes, with `minimum` x `minimum` cells.

    Depth is read from the grid: the coarsest one that is large enough. Among the layers with that
    grid, whole stages go before their parts, and late before early. So ResNet-18 gives "layer3"
    (8x8) for images of 32 pixels and "layer4" (7x7) for images of 224. No candidate is what lies in a branch
    beside others, what runs before the first weights (normalisation), what enlarges its input, or what runs
    several times. If no grid is that large, or only in the first third of the network, the largest
    one is taken: read `maps.shape`. Time and depth do not count.

    Of tokens it is the last layer whose patches the logit of the predicted class still reacts to: the
    normalisation before the last attention if a class token is read, the final one (or the last block, where
    there is none) if patches are pooled. That the tokens lie in rows is tried out on the image.

    Args:
        model: Any module that `explain` takes.
        images: Float (B, C, H, W), or (B, C, D, H, W); the first is passed once, for tokens six times.
        minimum: Cells along the shorter side.
        score: As for `explain`.

    Raises:
        InputError: No layer has a map of more than one cell that says where the evidence is; the
            candidates are listed.

    >>> small = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    >>> target_layer(small, torch.rand(1, 3, 8, 8))
    '1'
    """
    check_images(images)
    wrapped = wrap_model(model, score)
    with at_rest(wrapped.model):
        return choose_layer(wrapped, as_input(wrapped.model, images[:1]), minimum)


def choose_layer(wrapped: WrappedModel, images: torch.Tensor, minimum: int = MINIMUM) -> str:
    """Return what `target_layer` finds, for a wrapped model and images that were checked."""
    return layer_choice(wrapped, images, minimum).layer


@dataclass
class _Memory:
    """What was found out about one model; it is lost when the model or its hooks change."""

    structure: object
    choices: dict[tuple, tuple[Any, Choice]] = field(default_factory=dict)  # with the score, weakly held
    grids: dict[tuple, Grid | None] = field(default_factory=dict)


_memories: weakref.WeakKeyDictionary[nn.Module, _Memory] = weakref.WeakKeyDictionary()


def _memory_of(model: nn.Module) -> _Memory:
    structure = tuple(
        (name, id(module), type(module), tuple(module._forward_hooks), tuple(module._forward_pre_hooks))
        for name, module in model.named_modules()
    )
    found = _memories.get(model)
    if found is None or found.structure != structure:
        found = _memories[model] = _Memory(structure)
    return found


def layer_choice(wrapped: WrappedModel, images: torch.Tensor, minimum: int = MINIMUM) -> Choice:
    """Return the choice for a model and images of this size; the second time it is remembered.

    Raises:
        InputError: As for `target_layer`.
    """
    choices = _memory_of(wrapped.model).choices
    score = wrapped.score
    key = (tuple(images.shape[1:]), images.dtype, minimum, wrapped.autocast, id(score))
    if key in choices:
        kept, choice = choices[key]
        if score is None or kept() is score:
            return choice
    choice = _choose(wrapped, images[:1], minimum)
    if choice.second_choice:
        log.warning("layer %r is a second choice: %s", choice.layer, choice.reason)
    try:
        kept = None if score is None else weakref.ref(score)
    except TypeError:  # a function that cannot be held weakly
        return choice
    while len(choices) >= REMEMBERED:
        del choices[next(iter(choices))]
    choices[key] = (kept, choice)
    return choice


def grid_for(wrapped: WrappedModel, name: str, output: torch.Tensor, images: torch.Tensor) -> Grid | None:
    """Return the function from the layer's output to maps; None where it is a map, or nothing known.

    Tokens without a patch embedding get the grid of the image's proportions, if the image confirms it.
    """
    size = images.shape[2:]
    found = find_grid(wrapped.model, find_layer(wrapped.model, name), output, size)
    guess = likely_grid(output, size) if found is None and output.ndim == 3 else None
    if guess is None:
        return found
    grids = _memory_of(wrapped.model).grids
    key = (name, output.shape[1], tuple(size))
    if key not in grids:
        grids[key] = guess if follows_the_image(wrapped, name, guess, images) else None
    return grids[key]


def _choose(wrapped: WrappedModel, images: torch.Tensor, minimum: int) -> Choice:
    trace = _trace(wrapped, images)
    seen = trace.seen
    served = {name: run for name, run in seen.items() if run.serves and run.cells > 1}
    if not served:
        raise InputError(
            f"{type(wrapped.model).__name__} has no layer with a map (B, K, h, w) larger than 1x1; "
            "explain needs a network with convolutions, or tokens and grid="
        )
    # What does nothing, and a mere projection of tokens (to keys and values), are not worth a name.
    kinds = {name: wrapped.model.get_submodule(name) for name in served}
    passive = {name for name, kind in kinds.items() if isinstance(kind, nn.Identity | nn.Linear)}
    whole = _whole(wrapped, trace, [name for name in served if name in trace.tensors and name not in passive])
    if not whole and (whole is None or not _reacts(trace)):
        name, _ = _best(served, seen, minimum)
        reason = "no gradient goes from the logits back to the image, so what depends on it is not known"
        return Choice(name, reason, True, _ranked(name, served, ()))
    inner = [name for name in whole if _channels(served[name]) not in trace.shown]
    # What a segmenter returns is the scores of classes at every cell, and no layer to explain them by.
    choice = _settle(wrapped, images, seen, served, inner or whole, minimum)
    if trace.listed:
        doubt = "for what was found in the first image; what comes from another level may pass by it"
        return dataclasses.replace(choice, reason=f"{choice.reason}, {doubt}", second_choice=True)
    return choice


def _reacts(trace: _Trace) -> bool:
    with torch.enable_grad():
        top = trace.logits[0, trace.logits.argmax()]
    (slope,) = torch.autograd.grad(top, trace.image, retain_graph=True, allow_unused=True)
    return slope is not None and bool(slope.any())


def _channels(run: LayerRun) -> int:
    return 0 if run.pooled is None else run.pooled.shape[1]


def _settle(
    wrapped: WrappedModel,
    images: torch.Tensor,
    seen: Mapping[str, LayerRun],
    served: Mapping[str, LayerRun],
    whole: list[str],
    minimum: int,
) -> Choice:
    weighted = _weighted(wrapped.model, seen)
    unordered: list[str] = []
    name, coarse = "", False
    while whole:
        # A map of the stem says little: a coarser one from deeper in the network goes before it.
        deep = [one for one in whole if _depth(one, seen, weighted) >= EARLY]
        name, coarse = _best({one: served[one] for one in deep or whole}, seen, minimum)
        if served[name].extra:  # a class token carries evidence that no map shows
            bare = [one for one in deep if not served[one].extra and _depth(one, seen, weighted) >= LATE]
            bare = [one for one in bare if served[one].size == served[name].size]
            name, coarse = _best({one: served[one] for one in bare or [name]}, seen, minimum)
        if not served[name].tokens or follows_the_image(
            wrapped, name, _grid_of(wrapped, name, served), images
        ):
            break
        unordered.append(name)
        whole = [one for one in whole if one != name]
    depth = _depth(name, seen, weighted) if whole else 0.0
    if not whole or (depth < EARLY and len(weighted) > 3):
        raise InputError(_refusal(wrapped, served, whole, unordered, depth))
    reason = f"the last layer of {_cells(served[name].size)} cells that all evidence passes"
    if served[name].tokens:
        reason += ", its tokens in the order of the image"
    if coarse:
        reason += f"; none so deep in the network has {minimum} cells along each side"
    if unordered:
        reason += f"; of {unordered[0]!r}, which is deeper, the order of tokens could not be confirmed"
    return Choice(name, reason, bool(unordered), _ranked(name, served, whole))


def _refusal(
    wrapped: WrappedModel,
    served: Mapping[str, LayerRun],
    whole: list[str],
    unordered: list[str],
    depth: float,
) -> str:
    last = [name for name in served if name not in unordered][-4:][::-1]
    listed = ", ".join(str(Candidate(name, served[name].size, name in whole)) for name in last) or "none"
    why = "no layer has all evidence of the image in one map"
    if unordered:
        why = f"the tokens of {unordered[0]!r} are not in the order of the image"
    elif whole:
        why = f"the only layers with all evidence come within the first {max(depth, 0.01):.0%} of the network"
    return f"{type(wrapped.model).__name__}: {why}; name one with layer=, or pass grid=; candidates: {listed}"


def _grid_of(wrapped: WrappedModel, name: str, served: Mapping[str, LayerRun]) -> Grid:
    grid = served[name].grid
    assert grid is not None  # its output is tokens
    return grid


def _weighted(model: nn.Module, seen: Mapping[str, LayerRun]) -> list[str]:
    """Return the layers with weights of their own, in the order in which they ran."""
    return [
        name
        for name in seen
        if any(parameter.ndim > 1 for parameter in model.get_submodule(name).parameters(recurse=False))
    ]


def _depth(name: str, seen: Mapping[str, LayerRun], weighted: list[str]) -> float:
    """Return the share of the layers with weights that ended before `name` did."""
    order = {one: place for place, one in enumerate(seen)}
    return sum(order[one] <= order[name] for one in weighted) / max(1, len(weighted))


def _best(runs: Mapping[str, LayerRun], seen: Mapping[str, LayerRun], minimum: int) -> tuple[str, bool]:
    """Return the best of some layers, and whether its grid is smaller than wanted."""
    sizes = {name: run.size for name, run in runs.items()}
    large = [size for size in sizes.values() if min(size[-2:]) >= minimum]  # time and depth do not count
    chosen = min(large, key=_area) if large else max(sizes.values(), key=_area)
    # In the order in which they ended; padding makes 8 cells of 7.
    most = SAME * _area(chosen)
    fitting = [name for name, size in sizes.items() if _area(chosen) <= _area(size) <= most]
    fitting = fitting if large else [name for name in fitting if sizes[name] == chosen]
    if runs[fitting[-1]].tokens:
        return fitting[-1], not large
    return outermost([name for name in fitting if not runs[name].tokens], dict(seen))[-1], not large


def _area(size: Size) -> int:
    return size[-2] * size[-1]


def _ranked(chosen: str, served: Mapping[str, LayerRun], whole: list[str] | tuple) -> tuple[Candidate, ...]:
    """Return candidates, the chosen one first, then those with all evidence from late to early."""
    late = list(served)[::-1]
    order = [chosen, *[name for name in late if name in whole and name != chosen]]
    order += [name for name in late if name not in order]
    return tuple(Candidate(name, served[name].size, name in whole) for name in order)


def _cells(size: Size) -> str:
    return "x".join(map(str, size))


@dataclass(frozen=True, eq=False)
class _Trace:
    """One pass of one image with its graph.

    Attributes:
        image: The leaf.
        logits: (1, C).
        seen: What each module put out.
        tensors: The output of each module, as it was then, and its first input if that is a tensor.
        shown: The channels of maps that the model itself returns, as in segmentation.
        listed: Whether it returns a list with what it found in each image, as in detection.
    """

    image: torch.Tensor
    logits: torch.Tensor
    seen: dict[str, LayerRun]
    tensors: dict[str, tuple[torch.Tensor, torch.Tensor | None]]
    shown: set[int]
    listed: bool


def _trace(wrapped: WrappedModel, images: torch.Tensor) -> _Trace:
    shown: set[int] = set()
    listed: list[bool] = []
    tensors: dict[str, tuple[torch.Tensor, torch.Tensor | None]] = {}

    def watch(name: str, inputs: tuple, output: object) -> torch.Tensor | None:
        if not isinstance(output, torch.Tensor) or not output.requires_grad or name in tensors:
            return None
        before = inputs[0] if inputs and isinstance(inputs[0], torch.Tensor) else None
        tensors[name] = (output, before)
        return output.clone()  # an in-place operation after it gets the copy

    def score(output: Any, index: torch.Tensor) -> torch.Tensor:
        listed.append(_lists_findings(output))
        shown.update(part.shape[1] for part in _tensors_in(output) if part.ndim == images.ndim)
        return output if wrapped.score is None else score_of(wrapped.score, output, index)

    image = images[:1].detach().clone().requires_grad_()
    spying = dataclasses.replace(wrapped, score=score) if wrapped.score else wrapped
    logits, seen = observe(spying, image, watch)
    return _Trace(image, logits, seen, tensors, shown, any(listed))


def _lists_findings(output: object) -> bool:
    return isinstance(output, list) and all(isinstance(found, Mapping) for found in output)


def _tensors_in(output: Any) -> list[torch.Tensor]:
    if isinstance(output, torch.Tensor):
        return [output]
    if isinstance(output, Mapping):
        output = list(output.values())
    parts = output if isinstance(output, list | tuple) else list(getattr(output, "__dict__", {}).values())
    return [
        part for one in parts if isinstance(one, torch.Tensor | list | tuple) for part in _tensors_in(one)
    ]


def _whole(wrapped: WrappedModel, trace: _Trace, names: list[str]) -> list[str] | None:
    """Return those of the layers that all evidence passes and the predicted logit reacts to, in their order.

    None: no path leads from the logit back to the image.
    """
    with torch.enable_grad():
        top = trace.logits[0, trace.logits.argmax()]
    cuts = _cuts(top, trace.image)
    if cuts is None:
        return None
    asked: list[torch.Tensor] = []
    for name in names:
        output, before = trace.tensors[name]
        if _is_whole(output, cuts):
            asked.append(output)
        elif _is_norm(wrapped.model, name) and before is not None and _is_whole(before, cuts):
            asked += [output, before]
    slopes = torch.autograd.grad(top, asked, allow_unused=True, retain_graph=True) if asked else ()
    gradients = {id(tensor): slope for tensor, slope in zip(asked, slopes, strict=True)}
    whole: list[str] = []
    for name in names:
        output, before = trace.tensors[name]
        slope, run = gradients.get(id(output)), trace.seen[name]
        if run.tokens and whole and _origin(output) is _origin(trace.tensors[whole[-1]][0]):
            continue  # a container that hands on what its last part put out
        if slope is None or not _on_cells(run, slope).any():
            continue
        if not _is_whole(output, cuts):
            assert before is not None  # or it would not have been asked
            if not _is_only_way(wrapped.model.get_submodule(name), before, slope, gradients[id(before)], run):
                continue
        whole.append(name)
    return whole


def _on_cells(run: LayerRun, values: torch.Tensor) -> torch.Tensor:
    return values if run.grid is None else run.grid(values)


def _is_norm(model: nn.Module, name: str) -> bool:
    return "norm" in type(model.get_submodule(name)).__name__.lower()


def _is_only_way(
    norm: nn.Module, before: torch.Tensor, slope: torch.Tensor, total: torch.Tensor | None, run: LayerRun
) -> bool:
    """Whether the gradient at the patches before a normalisation is what comes back through it alone."""
    if total is None or before.shape != slope.shape:
        return False
    with torch.enable_grad():
        leaf = before.detach().requires_grad_()
        (through,) = torch.autograd.grad(norm(leaf), leaf, slope)
    through, total = _on_cells(run, through), _on_cells(run, total)
    return bool((through - total).abs().max() <= 1e-3 * total.abs().max())


def _cuts(top: torch.Tensor, image: torch.Tensor) -> set[torch.autograd.graph.Node] | None:
    """Return the nodes on every path from the logit to the image; None if there is no path."""
    end = torch.autograd.graph.get_gradient_edge(image).node
    order = nodes_in_order(top.grad_fn)
    down, up = dict.fromkeys(order, 0), dict.fromkeys(order, 0)  # numbers of paths, exact integers
    if end not in up:
        return None
    down[order[0]], up[end] = 1, 1
    for node in order:
        for after in _next(node):
            down[after] += down[node]
    for node in reversed(order):
        up[node] += sum(up[after] for after in _next(node))
    return {node for node in order if down[node] * up[node] == down[end]}


def nodes_in_order(top: Any) -> list[Any]:
    """Return all nodes of a graph, each before those that its gradient goes to."""
    done: list[Any] = []
    entered, stack = set(), [(top, False)] if top is not None else []
    while stack:
        node, left = stack.pop()
        if left:
            done.append(node)
        elif node not in entered:
            entered.add(node)
            stack.append((node, True))
            stack += [(after, False) for after in _next(node) if after not in entered]
    return done[::-1]


def _next(node: Any) -> list[Any]:
    return [after for after, _ in node.next_functions if after is not None]


def _origin(tensor: torch.Tensor) -> Any:
    """Return the node that made a tensor, before it was copied for the record."""
    node: Any = tensor.grad_fn
    while type(node).__name__.startswith(("Clone", "Alias")) and _next(node):
        node = _next(node)[0]
    return node


def _is_whole(tensor: torch.Tensor, cuts: set) -> bool:
    node = tensor.grad_fn
    several = node is None or type(node).__name__.startswith(("Split", "Unbind"))  # one part of an output
    return not several and node in cuts
