"""A batch at a time, with the model at rest, the images where the model is, and autocast off."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar

import torch

from sightline.explain import arguments
from sightline.explain.arguments import Targets
from sightline.explain.hooks import at_rest
from sightline.explain.subject import Subject

T = TypeVar("T")


def in_batches(
    subject: Subject,
    images: torch.Tensor,
    targets: Sequence[Targets | None],
    batch_size: int,
    visit: Callable[..., T],
) -> list[T]:
    """Return visit(images, *targets) of each batch in turn: at most `batch_size` images and their targets.

    Raises SightlineError for images, targets or a batch size that do not fit.
    """
    arguments.check_images(images)
    arguments.check_batch_size(batch_size)
    wanted = [arguments.as_classes(each, len(images)) for each in targets]
    results = []
    for start in range(0, len(images), batch_size):
        part = slice(start, start + batch_size)
        chosen = [each[part] if isinstance(each, torch.Tensor) else each for each in wanted]
        with at_rest(subject.model), torch.autocast(subject.device.type, enabled=False):
            results.append(visit(arguments.as_input(subject.model, images[part]), *chosen))
    return results
