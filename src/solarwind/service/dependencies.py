"""What a handler's dependencies are, in the order in which they are made.

They are looked at when the handler is registered, so that a wrong one is refused before any event comes. What comes out
is a flat list of steps: each makes one value, of the values before it.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager, asynccontextmanager, contextmanager
from functools import partial
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from .. import payload as codec
from ..depends import Depends, is_of_request, stated_dependency
from ..errors import BadArgument
from ..event import Event
from ..names import shown
from .hints import hint, innermost, wraps

MAX_DEPENDENCIES = 1_000  # of one handler
EVENT = -1  # an argument: the event, or a batch handler's list of them

Overrides = Mapping[Callable[..., Any], Callable[..., Any]]


class Step(msgspec.Struct, frozen=True):
    """A call that makes one value. `make` returns it; with `closes`, a context manager that gives it. The arguments are
    indexes of earlier steps, or `EVENT`."""

    name: str
    make: Callable[..., Any]
    is_async: bool
    closes: bool
    positional: tuple[int, ...]
    keywords: tuple[tuple[str, int], ...]


class Plan(msgspec.Struct, frozen=True):
    """The steps of a handler, and which of them its parameters get."""

    steps: tuple[Step, ...]
    values: tuple[int, ...]

    @property
    def is_async(self) -> bool:
        """Whether a step has to run on the loop."""
        return any(step.is_async for step in self.steps)


def plan(wanted: Sequence[tuple[str, Depends]], what: str, is_batch: bool, overrides: Overrides) -> Plan:
    """Return how to make what the parameters of a handler ask for. Raise `BadArgument` for what can never be made."""
    for each in overrides if wanted else ():
        if not callable(each):  # such as its name: the real one must not be called instead
            raise BadArgument(
                f"expected a function as a key of dependency_overrides, got {shown(each)}: name the function itself"
            )
    planner = _Planner(is_batch, overrides)
    try:
        values = tuple(planner.step_for(each, name, what) for name, each in wanted)
    except RecursionError:
        raise BadArgument(f"expected dependencies of {what} that need fewer of each other, in a row") from None
    return Plan(values=values, steps=tuple(planner.steps))


class _Planner:
    def __init__(self, is_batch: bool, overrides: Overrides) -> None:
        self.steps: list[Step] = []
        self._is_batch = is_batch
        self._overrides = overrides
        self._made: dict[Any, int] = {}
        self._path: list[tuple[Any, str]] = []  # from the handler to the one that is looked at

    def step_for(self, wanted: Depends, parameter: str, by: str) -> int:
        """Return the index of the step that makes it, after adding those that it needs."""
        function = _replaced(wanted.dependency, self._overrides)
        if not callable(function):
            raise BadArgument(f"expected a function in dependency_overrides for {parameter} of {by}, got {function!a}")
        key, name = _key(function), _name(function)
        if wanted.use_cache and key in self._made:
            return self._made[key]
        if any(key == each for each, _ in self._path):
            path = " -> ".join([*(each for _, each in self._path), name])
            raise BadArgument(f"expected dependencies without a cycle, got {path}: one must do without the next")
        if len(self.steps) >= MAX_DEPENDENCIES:
            raise BadArgument(
                f"expected at most {MAX_DEPENDENCIES:,} dependencies of a handler, got more by way of {by}"
            )
        self._path.append((key, name))
        step = self._step(function, name)
        self._path.pop()
        self.steps.append(step)
        if wanted.use_cache:
            self._made[key] = len(self.steps) - 1
        return len(self.steps) - 1

    def _step(self, function: Any, name: str) -> Step:
        what = f"dependency {name}"
        positional: list[int] = []
        keywords: list[tuple[str, int]] = []
        inner = _Defined(function) if isinstance(function, type) else innermost(function)
        try:
            parameters = inspect.signature(function).parameters.values()
        except (TypeError, ValueError) as error:
            raise BadArgument(
                f"expected {what} with parameters that can be seen, got: {error}: call it in a def of your own"
            ) from None
        for parameter in parameters:
            argument = self._argument(parameter, inner, what)
            if argument is None:
                continue
            if parameter.kind is parameter.POSITIONAL_ONLY:
                positional.append(argument)
            else:
                keywords.append((parameter.name, argument))
        target = _target(function)
        # An object may say by itself that it is `async`, as an `AsyncMock` does.
        is_async = inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(target)
        make, closes = function, False
        if inspect.isgeneratorfunction(target):
            make, closes = contextmanager(function), True
        elif inspect.isasyncgenfunction(target):
            make, closes, is_async = asynccontextmanager(function), True, True
        elif not is_async and wraps(target, inner, inspect.isgeneratorfunction):
            make, closes = contextmanager(_yielding(function)), True
        elif not is_async and wraps(target, inner, inspect.isasyncgenfunction):
            make, closes, is_async = asynccontextmanager(_yielding_async(function)), True, True
        elif wraps(target, inner, inspect.iscoroutinefunction):
            is_async = True
        return Step(name, make, is_async, closes, tuple(positional), tuple(keywords))

    def _argument(self, parameter: inspect.Parameter, inner: Any, what: str) -> int | None:
        """Return what a parameter of a dependency gets, or None where it is left out."""
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            return None
        has_default = parameter.default is not parameter.empty
        try:
            type_ = hint(parameter, inner, what)
        except BadArgument:
            if not has_default:
                raise
            type_ = Any
        wanted = stated_dependency(parameter, type_, what)
        if wanted is not None:
            return self.step_for(wanted, parameter.name, what)
        if has_default:
            if is_of_request(parameter):
                raise BadArgument(
                    f"expected {what} to do without a request, got parameter {parameter.name}, which FastAPI fills "
                    "from one: override it, or make what the handler needs in another way"
                )
            return None
        if _is_event(type_):
            if self._is_batch:
                raise BadArgument(
                    f"expected list[Event] for parameter {parameter.name} of {what}, since the handler gets a batch, "
                    "got Event"
                )
            return EVENT
        if get_origin(type_) is list and _is_event(get_args(type_)[0]):
            if not self._is_batch:
                raise BadArgument(
                    f"expected Event for parameter {parameter.name} of {what}, since the handler gets one event at a "
                    "time, got list[Event]"
                )
            return EVENT
        raise BadArgument(
            f"expected {what} to take what other dependencies make, and an Event, got parameter {parameter.name}: give "
            "it a default, annotate it with Event, or say Depends(...) in its annotation"
        )


class _Defined:
    """Where a class is defined, whose annotations name what is there."""

    def __init__(self, class_: type) -> None:
        self.__globals__ = vars(sys.modules.get(class_.__module__, object))


def _yielding(function: Callable[..., Any]) -> Callable[..., Iterator[Any]]:
    """Return what yields as the generator function does which `function` decorates. With `contextmanager` it has become
    a function that returns a context manager."""

    def yielding(*args: Any, **keywords: Any) -> Iterator[Any]:
        made = function(*args, **keywords)
        with made if isinstance(made, AbstractContextManager) else contextmanager(lambda: made)() as value:
            yield value

    return yielding


def _yielding_async(function: Callable[..., Any]) -> Callable[..., AsyncIterator[Any]]:
    """See `_yielding`."""

    async def yielding(*args: Any, **keywords: Any) -> AsyncIterator[Any]:
        made = function(*args, **keywords)
        managed = made if isinstance(made, AbstractAsyncContextManager) else asynccontextmanager(lambda: made)()
        async with managed as value:
            yield value

    return yielding


def _replaced(function: Any, overrides: Overrides) -> Any:
    try:
        return overrides.get(function, function)
    except TypeError:  # it has no hash, so nobody could name it
        return function


def _key(function: Any) -> Any:
    """Return what two names of the same dependency have in common: a bound method is another object each time."""
    try:
        hash(function)
    except TypeError:
        return id(function)
    return function


def _name(function: Any) -> str:
    while isinstance(function, partial):
        function = function.func
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def _target(function: Any) -> Any:
    """Return what says whether it is `async`, or yields."""
    while isinstance(function, partial):
        function = function.func
    if isinstance(function, type) or inspect.isroutine(function):
        return function
    return type(function).__call__


def _is_event(type_: Any) -> bool:
    bare = codec.unwrapped(type_)
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else (bare,)
    return {codec.unwrapped(each) for each in members} - {type(None)} == {Event}
