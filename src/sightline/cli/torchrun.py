"""A command that several processes do together.

torchrun starts them, each with this command line, and tells each in its environment who it is:

    torchrun --nproc-per-node 2 -m sightline run cifar10-quick
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext

_SHARED = ("run", "train", "analyze")  # process 0 does any other command alone
_NEEDED = {"RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"}


def is_one_of_many() -> bool:
    """Whether the environment says that this is one of several processes of a job."""
    return os.environ.keys() >= _NEEDED and int(os.environ["WORLD_SIZE"]) > 1


def own_arguments(given: Sequence[str]) -> list[str] | None:
    """Return what this process has to do of a job's command line: None is nothing, as process 0 does it."""
    if os.environ["RANK"] == "0":
        return list(given)
    return [*given, "--quiet"] if _is_shared(given) else None


def group_for(given: Sequence[str]) -> AbstractContextManager[Callable[[], bool]]:
    """Return the context in which the command runs; its value says whether this process tells an error."""
    if not _is_shared(given):
        return nullcontext(lambda: True)
    from sightline.distributed import joined

    return joined()


def _is_shared(given: Sequence[str]) -> bool:
    return bool(given) and given[0] in _SHARED and not {"-h", "--help"} & set(given)
