"""Options that are the arguments of a function: their ranges stand in its signature, and are checked there.

    >>> def step(lr: LearningRate, *, every: Count = 10): ...
    >>> checked_options("schedule (step)", {"lr": 0.1, "every": 5}, step)
    {'lr': 0.1, 'every': 5}
    >>> checked_options("schedule (step)", {"lr": 0.1, "evry": 5}, step)
    Traceback (most recent call last):
    sightline.errors.InputError: schedule (step).evry is not known; did you mean 'every'?

Arguments without annotation take any value.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Annotated, Any, get_origin, get_type_hints

import pydantic
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ConfigDict

from sightline.errors import InputError, nearest

_LARGEST = 1e30  # a larger number is a slip, and ends in an overflow: float32 has room up to 3.4e38

Positive = Annotated[float, Gt(0), Le(_LARGEST)]
NonNegative = Annotated[float, Ge(0), Le(_LARGEST)]
Share = Annotated[float, Ge(0), Le(1)]
BelowOne = Annotated[float, Ge(0), Lt(1)]
Decay = Annotated[float, Gt(0), Le(1)]
AtLeastOne = Annotated[float, Ge(1), Le(_LARGEST)]
LearningRate = Annotated[float, Gt(0), Le(1e6)]
Count = Annotated[int, Ge(1), Le(2**31 - 1)]
CountOrZero = Annotated[int, Ge(0), Le(2**31 - 1)]
Seed = Annotated[int, Ge(0), Le(2**32 - 1)]  # what every generator that is seeded takes


class Section(BaseModel):
    """A table of options: unknown keys, wrong types and numbers that are not finite are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


class _Options(Section):
    model_config = ConfigDict(arbitrary_types_allowed=True, protected_namespaces=())


def checked_options(
    where: str, options: Mapping[str, Any], function: Callable[..., Any], *, given: Collection[str] = ()
) -> dict[str, Any]:
    """Return `options` as the function takes them.

    Args:
        where: What an error says before the option's name.
        options: Values by the names of arguments, as a file has them: a list may stand for a tuple.
        function: A function or a class, with or without annotations.
        given: Arguments that are not options, because whoever calls the function has them.

    Raises:
        InputError: An option is unknown, missing, of a wrong type or out of range.
    """
    fields, open_ended = _fields(function, given)
    if open_ended:
        options = {name: value for name, value in options.items() if name not in given}
        known = {name: value for name, value in options.items() if name in fields}
    else:
        known = dict(options)
    shape = pydantic.create_model("Options", __base__=_Options, **fields)
    try:
        made = shape.model_validate(
            {name: _as_tuple(value, fields.get(name, (Any,))[0]) for name, value in known.items()}
        )
    except pydantic.ValidationError as error:
        raise InputError(describe_problem(error, list(fields), where)) from None
    return {name: getattr(made, name) if name in fields else value for name, value in options.items()}


def takes(function: Callable[..., Any], name: str) -> bool:
    """Whether a function has an argument of that name."""
    return name in _parameters(function)


def needs_two(function: Callable[..., Any]) -> bool:
    """Whether a function cannot be called with one positional argument, but with two."""
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    needed = [
        one for one in _parameters(function).values() if one.kind in positional and one.default is one.empty
    ]
    return len(needed) == 2


def accepts(function: Callable[..., Any], name: str) -> bool:
    """Whether a function can be given an argument of that name, by its own name or among any others."""
    parameters = _parameters(function)
    return name in parameters or any(one.kind is one.VAR_KEYWORD for one in parameters.values())


def _parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):  # of some built-in functions nothing is known
        return {"options": inspect.Parameter("options", inspect.Parameter.VAR_KEYWORD)}


def _fields(function: Callable[..., Any], given: Collection[str]) -> tuple[dict[str, Any], bool]:
    """Return type and default of each option, and whether the function takes others too."""
    called = function.__init__ if inspect.isclass(function) else function
    try:
        hints = get_type_hints(called, include_extras=True)
    except (NameError, TypeError):  # a name that is imported for type checkers only
        hints = {}
    fields, open_ended = {}, False
    for name, parameter in _parameters(function).items():
        open_ended |= parameter.kind is parameter.VAR_KEYWORD
        if name in given or parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        default = ... if parameter.default is parameter.empty else parameter.default
        fields[name] = (hints.get(name, Any), default)
    return fields, open_ended


def _as_tuple(value: Any, hint: Any) -> Any:
    while get_origin(hint) is Annotated:
        hint = hint.__origin__
    return tuple(value) if isinstance(value, list) and get_origin(hint) is tuple else value


def describe_problem(error: pydantic.ValidationError, known: Sequence[str], where: str) -> str:
    """Return the first problem of `error` in one line; known: the names that would have done there."""
    first = error.errors(include_url=False)[0]
    path = [str(part) for part in first["loc"]]
    key = ".".join([where, *path]) if where and not where.endswith(" ") else where + ".".join(path)
    if first["type"] == "extra_forbidden":
        return f"{key} is not known; {nearest(path[-1], list(known)) if known else 'there are none'}"
    if first["type"] == "missing":
        return f"{key} is missing; it has no default"
    reason = first["msg"].removeprefix("Value error, ")
    value = repr(first["input"])
    shown = value if len(value) <= 200 else value[:200] + "..."
    return f"{key} is {shown}; {reason[0].lower()}{reason[1:]}"
