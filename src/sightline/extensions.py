"""From a name to a function: a registry's own, an installed plugin's, or `package.module:function`.

Wherever a recipe or the command line takes a name, a user's own function works too. An installed package adds
names by the entry-point group `sightline.plugins`; an entry is called KIND.NAME:

    [project.entry-points."sightline.plugins"]
    "model.tiny" = "my_package.nets:tiny"

Nothing of a plugin is imported before its name is used.

Importing a module runs its code. A name that a caller wrote (in Python, or with --set) is imported; a name
that stands in a file (a run's recipe.toml or model.json, a recipe from somebody else) only if its module is
trusted.

    >>> resolve("metric", "sqrt", {"sqrt": abs}) is abs
    True
    >>> resolve("metric", "math:sqrt", {})(9.0)
    3.0
    >>> resolve("metric", "math:sqrt", {}, trust=())
    Traceback (most recent call last):
    sightline.errors.UntrustedError: metric 'math:sqrt' comes from a file, and opening it would import ...
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable, Collection, Mapping
from importlib.metadata import EntryPoint, entry_points
from typing import Any, TypeVar

from sightline.errors import InputError, UntrustedError, nearest

GROUP = "sightline.plugins"
KINDS = (
    *("model", "data", "augmentation", "optimizer", "schedule", "weight_averaging", "mix"),
    *("callback", "metric", "tta", "method", "measure", "section"),
)
"""What a plugin can add; the first part of its entry point's name."""

T = TypeVar("T")


def resolve(
    kind: str,
    name: str | Callable[..., Any],
    registry: Mapping[str, T],
    *,
    trust: Collection[str] | None = None,
) -> T | Any:
    """Return what `name` stands for.

    Args:
        kind: One of `KINDS`, for plugins and for errors.
        name: A key of `registry`, a plugin's name, "package.module:function", or a function, which is
            returned as it is.
        registry: The names of the package itself.
        trust: Modules that may be imported for the sake of `name`, each with its submodules. None, for a
            name that the caller wrote, allows all.

    Raises:
        UntrustedError: `name` would import a module that is not in `trust`.
        InputError: Nothing is called so, or it cannot be imported.
    """
    if not isinstance(name, str):
        return name
    if name in registry:
        return registry[name]
    found = plugins(kind)
    if name in found:
        return _loaded(kind, name, found[name].value)
    if ":" in name:
        module = name.partition(":")[0]
        if trust is not None and not is_trusted(module, trust):
            raise UntrustedError(
                f"{kind} {name!r} comes from a file, and opening it would import the module {module!r}, "
                f"which runs its code; if you trust it, say so: --trust {module}"
            )
        return _loaded(kind, name, name)
    known = [*registry, *found]
    raise InputError(
        f"{kind} {name!r} is not known; {nearest(name, known) if known else 'there are no others'} "
        "(a function of your own is written package.module:function)"
    )


def is_trusted(module: str, trust: Collection[str]) -> bool:
    """Whether a module is among the trusted ones or inside one of them."""
    return any(module == one or module.startswith(f"{one}.") for one in trust)


@functools.cache
def plugins(kind: str) -> dict[str, EntryPoint]:
    """Return the installed plugins of a kind by name; none of them is imported."""
    found = {}
    for entry in entry_points(group=GROUP):
        own, _, name = entry.name.partition(".")
        if own == kind and name:
            found[name] = entry
    return found


def spelled(function: str | Callable[..., Any]) -> str:
    """Return how a file names a function: a name as it is, a function as "package.module:function".

    Raises InputError for a function that cannot be found again by its module and name.
    """
    if isinstance(function, str):
        return function
    module, name = getattr(function, "__module__", ""), getattr(function, "__qualname__", "")
    if not module or module == "__main__" or "<" in name:
        raise InputError(
            f"{name or function!r} lives in {module or 'no module'}, where another process cannot find it; "
            "put it into a module and pass module:function"
        )
    return f"{module}:{name}"


def _loaded(kind: str, name: str, place: str) -> Any:
    module, _, attribute = place.partition(":")
    try:
        value: Any = importlib.import_module(module)
        for part in attribute.split("."):
            value = getattr(value, part)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{kind} {name!r} cannot be imported ({error}); it has to be package.module:function"
        ) from error
    return value
