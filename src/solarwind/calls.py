"""Calls with arguments that a function does not take: each is refused in a sentence that says how to call it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from functools import wraps
from inspect import Parameter, iscoroutinefunction, isfunction, signature
from typing import Any, ParamSpec, TypeVar

from .errors import BadArgument

P = ParamSpec("P")
T = TypeVar("T")

_MAX_GUESSED = 200  # characters of a name: to compare longer ones takes long


def meant(name: object, known: Iterable[str]) -> str | None:
    """Return the known name that is like the one that was given, if any."""
    near = get_close_matches(name, known, 1) if isinstance(name, str) and len(name) <= _MAX_GUESSED else []
    return near[0] if near else None


def hint(name: object, known: Iterable[str]) -> str:
    """Return the known name that may be meant, for the end of a sentence."""
    near = meant(name, known)
    return f": did you mean {near!r}?" if near else ""


def unknown_option(what: str, name: str, known: Iterable[str]) -> BadArgument:
    """Return the refusal of an option that there is not. Its value is not shown: it may be a secret."""
    names = list(known)
    return BadArgument(f"expected options of {what}, of {', '.join(names)}, got {name!a}{hint(name, names)}")


def wrong_call(what: str, takes: Iterable[Parameter], args: tuple[Any, ...], named: Mapping[str, Any]) -> str:
    """Return why a function cannot be called like this, as a sentence; "" if it can. `takes` are its parameters without
    the object."""
    parameters = [each for each in takes if each.kind not in (each.VAR_POSITIONAL, each.VAR_KEYWORD)]
    by_position = [each for each in parameters if each.kind is not each.KEYWORD_ONLY]
    options = [each.name for each in parameters if each.kind is each.KEYWORD_ONLY]
    texts = (each.name if each.default is each.empty else f"{each.name}={each.default!r}" for each in by_position)
    shown = f"{what}({', '.join(texts)})"
    for name in named.keys() - {each.name for each in parameters if each.kind is not each.POSITIONAL_ONLY}:
        return str(unknown_option(what, name, [each.name for each in parameters]))
    if len(args) > len(by_position):
        by_name = " with its options by name" if options else ""
        instead = f"give the others a name, as in {options[0]}=..." if options else "leave out what is too much"
        count = f"{len(args)} argument{'s' * (len(args) > 1)}"
        return f"expected {shown}{by_name}, got {count} without a name: {instead}"
    given = {each.name for each in by_position[: len(args)]}
    for name in given & named.keys():
        return f"expected {shown} with one {name}, got two: leave one out"
    missing = [each.name for each in parameters if each.default is each.empty and each.name not in given | named.keys()]
    names = " and ".join(missing)
    return f"expected {shown}, got it without {names}: add {names}" if missing else ""


def explained(function: Callable[P, T]) -> Callable[P, T]:
    """Let a function or method raise `BadArgument` for a call with wrong arguments, where Python would raise
    `TypeError`."""

    @wraps(function)
    def call(*args: P.args, **named: P.kwargs) -> T:
        try:
            return function(*args, **named)
        except TypeError as error:
            if error.__traceback__ is None or error.__traceback__.tb_next is not None:  # it comes from within
                raise
            takes, name = list(signature(function).parameters.values()), function.__name__
            given: tuple[Any, ...] = args
            if takes[0].name == "self":
                name = type(args[0]).__name__ if name == "__init__" else name
                takes, given = takes[1:], args[1:]
            raise BadArgument(wrong_call(name, takes, given, named) or str(error)) from None

    return call


def explains_calls(class_: type[T]) -> type[T]:
    """Let the public methods that a class defines raise `BadArgument` for calls with wrong arguments; those that are
    `async` stay what they are."""
    for name, value in list(vars(class_).items()):
        is_public = name == "__init__" or not name.startswith("_")
        if is_public and isfunction(value) and not iscoroutinefunction(value):
            setattr(class_, name, explained(value))
    return class_
