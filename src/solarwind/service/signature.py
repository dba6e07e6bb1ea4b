"""How to call a handler: which parameter gets the event, which the payload, and as what type.

A handler is looked at once, when it is registered, so that a wrong one is refused before any event comes. What comes
out is a function from an event (or a list of them) to the call, as flat as it can be: it runs once an event.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin

import msgspec

from .. import payload as codec
from ..depends import Depends, stated_dependency
from ..errors import BadArgument, BadPayload
from ..event import Event
from .dependencies import plan
from .hints import hint, innermost, resolved, wraps

MAX_BATCH = 500  # events that a batch handler gets at once


class Unfit(Exception):
    """The payload does not fit the handler's annotation; no other attempt can help."""

    def __init__(self, index: int, error: BadPayload) -> None:
        super().__init__(str(error))
        self.index = index  # which of the events of a batch handler


class Needs(msgspec.Struct, frozen=True):
    """What a handler with dependencies has instead of one `call`: `decode` gives its payload, `call` gets what it is
    called with, the payload, and the values of the dependencies that it `wants` by the names of its parameters."""

    wants: tuple[tuple[str, Depends], ...]
    decode: Callable[[Any], Any]
    call: Callable[[Any, Any, Sequence[Any]], Any]


class Handler(msgspec.Struct, frozen=True):
    """A function that handles events. `call` gets an `Event`; of a batch handler, a list of up to `batch` of them; of
    one that wants only the undecoded payload (`is_raw`), just that. `purpose` is the default of its purpose. One with
    dependencies `needs` them; it has its `call` once they are bound to it (see `bound.py`)."""

    name: str
    purpose: str
    call: Callable[[Any], Any]
    is_async: bool
    is_batch: bool
    is_raw: bool
    batch: int = MAX_BATCH
    needs: Needs | None = None
    around: Any = None  # the `Bound` of `call`, where something is around it
    reads: Any = msgspec.UNSET  # the type of an event's payload, where it gets that


class _Parameter(msgspec.Struct, frozen=True):
    name: str
    by_keyword: bool
    is_event: bool
    is_list: bool
    type_: Any
    wanted: Depends | None = None
    by_position: bool = False  # alone


def inspect_handler(function: Callable[..., Any], batch: int | None = None, payload: Any = Any) -> Handler:
    """Return the handler, which gets a `payload` where it states no type. Raise `BadArgument` for a function that
    cannot be called with an event and a payload, and for a `batch` size where it handles one event at a time."""
    outer, inner = _unwrapped(function)
    named = outer if hasattr(outer, "__qualname__") else type(outer)
    name = named.__qualname__
    target = outer if inspect.isroutine(outer) else type(outer).__call__
    if any(inspect.isgeneratorfunction(each) or inspect.isasyncgenfunction(each) for each in (outer, target)):
        raise BadArgument(f"expected handler {name} to return, got one with yield: fire events with wind.fire instead")
    found = _parameters(function, inner, name)
    parameters = [parameter for parameter in found if parameter.wanted is None]
    is_batch = any(parameter.is_list for parameter in parameters)
    if is_batch and not all(parameter.is_list for parameter in parameters):
        raise BadArgument(f"expected all parameters of handler {name} to be lists, or none, got both")
    if batch is not None and not is_batch:
        raise BadArgument(
            f"expected batch={batch} with a handler that takes lists, got {name}, which takes one event at a time: "
            "annotate its parameter with list[...], or leave batch out"
        )
    payloads = [parameter for parameter in parameters if not parameter.is_event]
    if len(payloads) > 1 or len(parameters) - len(payloads) > 1:
        names = ", ".join(parameter.name for parameter in parameters)
        raise BadArgument(
            f"expected handler {name} to take a payload, an Event, or both, got ({names}): "
            "annotate the one that gets the event with Event, and give others a default, or Depends(...)"
        )
    stated = payloads[0].type_ if payloads else msgspec.UNSET
    reads = payload if stated is Any else stated
    decode = codec.decoder(reads) if payloads else None
    is_raw = len(parameters) == 1 and not is_batch and payloads == parameters and reads is bytes
    if parameters and parameters[0].by_keyword:
        is_raw = False
    wants = tuple((parameter.name, parameter.wanted) for parameter in found if parameter.wanted is not None)
    if wants:
        plan(wants, f"handler {name}", is_batch, {})  # which says now what is wrong
        is_raw = False
    call = function if is_raw else _bind(function, parameters, decode, is_batch)
    is_async = inspect.iscoroutinefunction(outer) or inspect.iscoroutinefunction(target)
    if not is_async and (wraps(outer, inner, inspect.iscoroutinefunction) or _returns_awaitable(function, inner)):
        is_async, call = True, _awaited(call)
    needs = _needs(function, found, wants, decode, is_batch) if wants else None
    return Handler(name, named.__name__, call, is_async, is_batch, is_raw, batch or MAX_BATCH, needs, reads=reads)


def _unwrapped(function: Any) -> tuple[Any, Any]:
    """Return the function without what `partial` binds, and the innermost one inside decorators."""
    if isinstance(function, type):
        raise BadArgument(
            f"expected a function to handle events, got the class {function.__qualname__}: "
            "register a method of an object of it, or an object that can be called"
        )
    if not callable(function):
        of_class = ": register the method of the finished class" if isinstance(function, classmethod) else ""
        raise BadArgument(f"expected a function to handle events, got {function!a}{of_class}")
    outer = function
    while isinstance(outer, partial | staticmethod):
        outer = outer.func if isinstance(outer, partial) else outer.__func__
    return outer, innermost(function)


def _parameters(function: Callable[..., Any], inner: Any, name: str) -> list[_Parameter]:
    """Return the parameters to fill: those without a default."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError) as error:
        raise BadArgument(f"expected handler {name} with parameters that can be seen, got: {error}") from None
    found, variable = [], ""
    for at, parameter in enumerate(signature.parameters.values()):
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            variable = variable or str(parameter)
            continue
        if at == 0 and (parameter.name in ("self", "cls") or _is_unbound(function, parameter)):
            raise BadArgument(
                f"expected a function, or a method of an object, got {name}, which takes {parameter.name}: "
                "register the method of the object, as in wind.on(...)(object.method)"
                + ("" if parameter.name in ("self", "cls") else f", or annotate {parameter.name} if it is the payload")
            )
        described = _parameter(parameter, inner, name)
        if described is not None:
            found.append(described)
    if variable and not found:
        raise BadArgument(
            f"expected handler {name} to name its parameters, got ({variable}), which says nothing of what it takes: "
            "name them, or where it is a decorator's wrapper put functools.wraps(function) on it"
        )
    return found


def _is_unbound(function: Any, first: inspect.Parameter) -> bool:
    """Return whether a function is a method without its object, such as one that is decorated in the body of its class:
    it is defined in a class, and its first parameter, which has no annotation in a method, would get the payload."""
    if not inspect.isfunction(function) or first.annotation is not first.empty:
        return False
    names = function.__qualname__.split(".")
    if len(names) < 2 or names[-2] == "<locals>" or names[-1] == "<lambda>":
        return False
    owner: Any = sys.modules.get(function.__module__)
    for name in names[:-1]:
        owner = getattr(owner, name, None)
    return not isinstance(inspect.getattr_static(owner, names[-1], None), staticmethod)


def _parameter(parameter: inspect.Parameter, inner: Any, name: str) -> _Parameter | None:
    """Return what a parameter gets, or None where its default is left to it."""
    has_default = parameter.default is not parameter.empty
    by_keyword, by_position = parameter.kind is parameter.KEYWORD_ONLY, parameter.kind is parameter.POSITIONAL_ONLY
    try:
        type_ = hint(parameter, inner, f"handler {name}")
    except BadArgument:
        if not has_default:
            raise
        type_ = Any
    wanted = stated_dependency(parameter, type_, f"handler {name}")
    if wanted is not None:
        return _Parameter(parameter.name, by_keyword, False, False, type_, wanted, by_position)
    if has_default:
        return None
    bare = codec.unwrapped(type_)
    is_list = get_origin(bare) is list and bool(get_args(bare))
    if is_list and bare is not type_ and any(type(each) is msgspec.Meta for each in type_.__metadata__):
        _refuse(name, parameter, "a list of what a batch handler gets, without a constraint on the list itself", type_)
    if is_list:
        type_ = get_args(bare)[0]
        bare = codec.unwrapped(type_)
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else (bare,)
    is_event = any(codec.unwrapped(each) is Event for each in members)
    if (is_event and not {codec.unwrapped(each) for each in members} <= {Event, type(None)}) or (
        not is_event and _mentions_event(type_)
    ):
        _refuse(name, parameter, "an Event itself, a list of Events, or the type of a payload", type_)
    return _Parameter(parameter.name, by_keyword, is_event, is_list, type_, by_position=by_position)


def _mentions_event(type_: Any) -> bool:
    """Return whether a type is, or contains, an Event or a class derived from it; such objects cannot be made."""
    type_ = getattr(type_, "__bound__", None) or codec.unwrapped(type_)
    is_event = isinstance(type_, type) and get_origin(type_) is None and issubclass(type_, Event)
    return is_event or any(_mentions_event(each) for each in get_args(type_))


def _refuse(name: str, parameter: inspect.Parameter, expected: str, got: Any) -> NoReturn:
    raise BadArgument(f"expected parameter {parameter.name} of handler {name} to be {expected}, got {got}")


def _returns_awaitable(function: Any, inner: Any) -> bool:
    returned = inspect.signature(function).return_annotation
    try:
        type_ = resolved(returned, inner)
    except Exception:  # then it says nothing
        return False
    found = get_origin(type_) or type_
    return isinstance(found, type) and issubclass(found, Awaitable)


def _awaited(call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    """Return an `async def` for a `def` that wraps an `async def` and returns its coroutine."""

    async def run(given: Any) -> Any:
        result = call(given)
        return await result if inspect.isawaitable(result) else result

    return run


def refuse_unrun(result: object) -> None:
    """Raise `TypeError` where a handler returned something that has yet to run: nothing was handled."""
    if inspect.iscoroutine(result):
        result.close()
    elif not (inspect.isawaitable(result) or inspect.isgenerator(result) or inspect.isasyncgen(result)):
        return
    raise TypeError(
        f"expected a handler that is done when it returns, got {type(result).__name__} from it, which nobody runs: "
        "await it in an async def handler, or loop over it"
    )


def _bind(
    function: Callable[..., Any], parameters: list[_Parameter], decode: codec.Decoder | None, is_batch: bool
) -> Callable[[Any], Any]:
    """Return the function with the fewest calls for these parameters."""
    gets_event = [parameter.is_event for parameter in parameters]
    if not any(parameter.by_keyword for parameter in parameters) and not is_batch:
        if not gets_event:
            return lambda event: function()
        if gets_event == [True]:
            return function
        if gets_event == [False]:
            return lambda event: function(_decoded(decode, event))
    one = _decode_all if is_batch else _decode_one
    positional = [parameter.is_event for parameter in parameters if not parameter.by_keyword]
    keywords = {parameter.name: parameter.is_event for parameter in parameters if parameter.by_keyword}

    def call(given: Any) -> Any:
        decoded = one(decode, given) if decode is not None else None
        return function(
            *[given if is_event else decoded for is_event in positional],
            **{name: given if is_event else decoded for name, is_event in keywords.items()},
        )

    return call


def _needs(
    function: Callable[..., Any],
    parameters: list[_Parameter],
    wants: tuple[tuple[str, Depends], ...],
    decode: codec.Decoder | None,
    is_batch: bool,
) -> Needs:
    """Return how to call a function with dependencies. The payload is decoded before any is made."""
    names = [name for name, _ in wants]

    def decoded(given: Any) -> Any:
        if decode is None:
            return None
        return _decode_all(decode, given) if is_batch else _decoded(decode, given)

    def call(given: Any, payload: Any, values: Sequence[Any]) -> Any:
        by_name = dict(zip(names, values, strict=True))

        def argument(parameter: _Parameter) -> Any:
            if parameter.wanted is not None:
                return by_name[parameter.name]
            return given if parameter.is_event else payload

        return function(
            *[argument(each) for each in parameters if each.by_position],
            **{each.name: argument(each) for each in parameters if not each.by_position},
        )

    return Needs(wants, decoded, call)


def _decode_one(decode: codec.Decoder, event: Event) -> Any:
    return _decoded(decode, event)


def _decode_all(decode: codec.Decoder, events: list[Event]) -> list[Any]:
    """Return the events' payloads. They are of one batch, so that what they have in common is decoded once."""
    batch = events[0]._of.batch
    data, starts = batch.layout
    contents = batch.header.content
    decoded: list[Any] = []
    try:
        for event in events:
            index = event._index
            content = contents if isinstance(contents, str) else contents[index]
            decoded.append(decode(data[starts[index] : starts[index + 1]], content))
    except BadPayload as error:
        raise Unfit(len(decoded), error) from None
    return decoded


def _decoded(decode: codec.Decoder | None, event: Event) -> Any:
    assert decode is not None
    try:
        return decode(event.data, event.content_type)
    except BadPayload as error:
        raise Unfit(0, error) from None
