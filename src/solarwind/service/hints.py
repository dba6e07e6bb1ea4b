"""What can be read of a function: the one inside decorators, and its annotations."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_type_hints

from ..errors import BadArgument

_MAX_WRAPPERS = 100  # around a function


def innermost(function: Any) -> Any:
    """Return the function inside objects, methods, `partial` and decorators."""
    for _ in range(_MAX_WRAPPERS):
        following: Any = None
        if isinstance(function, partial):
            following = function.func
        else:
            following = getattr(function, "__wrapped__", None) or getattr(function, "__func__", None)
            if following is None and not inspect.isroutine(function):
                following = type(function).__call__
        if following is None or following is function:
            break
        function = following
    return function


def hint(parameter: inspect.Parameter, inner: Any, what: str) -> Any:
    """Return the resolved annotation of a parameter of the function `inner`, which `what` names; `Any` without one.
    Raise `BadArgument`."""
    if parameter.annotation is parameter.empty:
        return Any
    try:
        return resolved(parameter.annotation, inner)
    except Exception as error:  # evaluating text may raise anything
        raise BadArgument(f"expected {what} with annotations that can be resolved, got {parameter}: {error}") from None


def resolved(annotation: Any, inner: Any) -> Any:
    """Return an annotation, evaluated where it is text: by itself, since others of the function need not be such that
    it can be done. May raise anything."""

    def carrier() -> None: ...

    carrier.__annotations__ = {"it": annotation}
    return get_type_hints(carrier, getattr(inner, "__globals__", {}), include_extras=True)["it"]


def wraps(outer: Any, inner: Any, kind: Callable[[Any], bool]) -> bool:
    """Return whether a `def` only wraps a function of a kind, such as `inspect.iscoroutinefunction`. A decorator's
    `def` returns what the function in it does; an object may do something else."""
    return (inspect.isfunction(outer) or inspect.ismethod(outer)) and kind(inner)
