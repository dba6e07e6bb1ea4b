"""`Depends`: how a parameter of a handler says that it gets what a function makes.

An object of FastAPI's class of that name says the same, and is recognised without an import of FastAPI.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_args, get_origin

from .calls import explains_calls
from .errors import BadArgument

_FASTAPI = "fastapi.params"


@explains_calls
class Depends:
    """States in an annotation that a parameter gets what `dependency` returns, or yields:
    `Annotated[Session, Depends(get_session)]`.

    Without a `dependency` the annotated class is called. Within one call of a handler a dependency is made once,
    however many parameters ask for it; with `use_cache=False` this parameter has one of its own."""

    __slots__ = ("dependency", "use_cache")

    def __init__(self, dependency: Callable[..., Any] | None = None, *, use_cache: bool = True) -> None:
        """Raise `BadArgument` for what cannot be called."""
        if dependency is not None and not callable(dependency):
            raise BadArgument(
                f"expected a function in Depends(...), got {dependency!a}: name the function, and do not call it"
            )
        if not isinstance(use_cache, bool):
            raise BadArgument(f"expected use_cache to be True or False, got {use_cache!a}")
        self.dependency = dependency
        self.use_cache = use_cache

    def __repr__(self) -> str:
        return f"Depends({getattr(self.dependency, '__qualname__', self.dependency)})"


def stated_dependency(parameter: inspect.Parameter, type_: Any, what: str) -> Depends | None:
    """Return what a parameter depends on, by its resolved annotation or its default; None for any other parameter.
    `what` names the function. Raise `BadArgument` for two statements, and for one that is about requests."""
    while (value := getattr(type_, "__value__", None)) is not None and get_origin(type_) is None:
        type_ = value  # of a `type` statement
    given = [*get_args(type_)[1:], parameter.default] if get_origin(type_) is Annotated else [parameter.default]
    found = [each for each in given if isinstance(each, Depends) or _is_fastapi(each, "Depends")]
    if not found:
        return None
    if len(found) > 1:
        raise BadArgument(f"expected one Depends(...) for parameter {parameter.name} of {what}, got {len(found)}")
    stated = found[0]
    if _is_fastapi(stated, "Security"):
        raise BadArgument(
            f"expected Depends for parameter {parameter.name} of {what}, got FastAPI's Security, whose scopes are "
            "about requests: use Depends"
        )
    if stated.dependency is not None:
        return stated if isinstance(stated, Depends) else Depends(stated.dependency, use_cache=stated.use_cache)
    class_ = get_args(type_)[0] if get_origin(type_) is Annotated else type_
    if not isinstance(class_, type):
        raise BadArgument(
            f"expected Depends(function), or an annotation that is a class, for parameter {parameter.name} of {what}, "
            f"got {class_!a}"
        )
    return Depends(class_, use_cache=stated.use_cache)


def is_of_request(parameter: inspect.Parameter) -> bool:
    """Return whether its default says what of a request FastAPI is to fill it with."""
    return type(parameter.default).__module__ == _FASTAPI


def _is_fastapi(value: object, name: str) -> bool:
    return any((each.__module__, each.__name__) == (_FASTAPI, name) for each in type(value).__mro__)
