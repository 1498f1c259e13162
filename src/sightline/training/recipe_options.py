"""Options of a recipe that are the arguments of a function: read off its signature and checked by it."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, get_type_hints

import pydantic
from pydantic import BaseModel, ConfigDict

from sightline.errors import SightlineError, nearest


class Section(BaseModel):
    """A table of a recipe: unknown keys and wrong types are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


def as_table(where: str, value: Any) -> dict[str, Any]:
    """Return `value`, or raise if it is not a table."""
    if not isinstance(value, dict):
        raise SightlineError(
            f"recipe: {where} is {value!r}; it needs a table such as {{ low = 0.85, high = 0.95 }}"
        )
    return value


def choose(section: str, table: Mapping[str, Any], registry: Mapping[str, Callable[..., Any]]) -> Any:
    """Return what the function that `table` names in `registry` makes of the table's other entries."""
    options = dict(table)
    name = options.pop("name", None)
    if name not in registry:
        raise SightlineError(f"recipe: {section}.name is {name!r}; {nearest(str(name), list(registry))}")
    function = registry[name]
    return function(**checked_options(f"{section} ({name})", options, function))


def checked_options(where: str, options: Mapping[str, Any], function: Callable[..., Any]) -> dict[str, Any]:
    """Return `options` with the types of the function's arguments, or raise with the place and the reason."""
    hints = get_type_hints(function, include_extras=True)
    fields: dict[str, Any] = {}
    for name, parameter in inspect.signature(function).parameters.items():
        default = ... if parameter.default is inspect.Parameter.empty else parameter.default
        fields[name] = (hints[name], default)
    shape = pydantic.create_model(function.__name__, __base__=Section, **fields)
    try:
        made = shape.model_validate(dict(options))
    except pydantic.ValidationError as error:
        raise SightlineError(describe_problem(error, list(fields), where)) from None
    return {name: getattr(made, name) for name in options}


def describe_problem(error: pydantic.ValidationError, known: Sequence[str], where: str = "") -> str:
    """Return the first problem of `error` in one line; known: the names that would have done there."""
    first = error.errors(include_url=False)[0]
    place = ".".join([*([where] if where else []), *(str(part) for part in first["loc"])])
    if first["type"] == "extra_forbidden":
        return f"recipe: {place} is not known; {nearest(str(first['loc'][-1]), list(known))}"
    if first["type"] == "missing":
        return f"recipe: {place} is missing; it has no default"
    reason = first["msg"][0].lower() + first["msg"][1:]
    return f"recipe: {place} is {first['input']!r}; {reason}"
