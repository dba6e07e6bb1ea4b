"""How to call a handler: which parameter gets the event, which the payload, and as what type.

A handler is looked at once, when it is registered, so that a wrong one is refused before any event comes. What comes
out is a function from an event (or a list of them) to the call, as flat as it can be: it runs once an event.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import partial
from typing import Any, get_args, get_origin, get_type_hints

import msgspec

from .. import payload as codec
from ..errors import BadArgument, BadPayload
from ..event import Event


class Unfit(Exception):
    """The payload does not fit what the handler takes; no other attempt can help."""

    def __init__(self, index: int, error: BadPayload) -> None:
        super().__init__(str(error))
        self.index = index  # which of the events of a batch handler


class Handler(msgspec.Struct, frozen=True):
    """A function that handles events. `call` takes an `Event`; of a batch handler, a list of them; of one that takes
    nothing but the undecoded payload (`is_raw`), just that."""

    name: str
    call: Callable[[Any], Any]
    is_async: bool
    is_batch: bool
    is_raw: bool


class _Parameter(msgspec.Struct, frozen=True):
    name: str
    by_keyword: bool
    is_event: bool
    is_list: bool
    type_: Any


def inspect_handler(function: Callable[..., Any]) -> Handler:
    """Raises `BadArgument` for a function that cannot be called with an event and a payload."""
    if not callable(function):
        raise BadArgument(f"expected a function to handle events, got {function!a}")
    name = getattr(function, "__qualname__", type(function).__qualname__)
    target = function if inspect.isroutine(function) else function.__call__  # type: ignore[operator]
    if inspect.isgeneratorfunction(target) or inspect.isasyncgenfunction(target):
        raise BadArgument(f"expected handler {name} to return, got one with yield: fire events with wind.fire instead")
    parameters = _parameters(function, target, name)
    is_batch = any(parameter.is_list for parameter in parameters)
    if is_batch and not all(parameter.is_list for parameter in parameters):
        raise BadArgument(f"expected all parameters of handler {name} to be lists, or none, got both")
    payloads = [parameter for parameter in parameters if not parameter.is_event]
    if len(payloads) > 1 or len(parameters) - len(payloads) > 1:
        names = ", ".join(parameter.name for parameter in parameters)
        raise BadArgument(
            f"expected handler {name} to take a payload, an Event, or both, got ({names}): "
            "annotate the one that gets the event with Event, and give others a default"
        )
    decode = codec.decoder(payloads[0].type_) if payloads else None
    is_raw = len(parameters) == 1 and not is_batch and payloads == parameters and payloads[0].type_ is bytes
    if parameters and parameters[0].by_keyword:
        is_raw = False
    call = function if is_raw else _bind(function, parameters, decode, is_batch)
    return Handler(name, call, inspect.iscoroutinefunction(target), is_batch, is_raw)


def _parameters(function: Callable[..., Any], target: Any, name: str) -> list[_Parameter]:
    """The parameters to fill: those without a default."""
    try:
        signature = inspect.signature(function)
        hints = get_type_hints(inspect.unwrap(target.func if isinstance(target, partial) else target))
    except (TypeError, ValueError, NameError) as error:
        raise BadArgument(f"expected handler {name} with annotations that can be resolved, got: {error}") from None
    found = []
    for parameter in signature.parameters.values():
        variable = parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
        if variable or parameter.default is not parameter.empty:
            continue
        type_ = hints.get(parameter.name, Any)
        is_list = get_origin(type_) is list
        inner = get_args(type_)[0] if is_list else type_
        by_keyword = parameter.kind is parameter.KEYWORD_ONLY
        found.append(_Parameter(parameter.name, by_keyword, inner is Event, is_list, inner))
    return found


def _bind(
    function: Callable[..., Any], parameters: list[_Parameter], decode: codec.Decoder | None, is_batch: bool
) -> Callable[[Any], Any]:
    """The flattest call there is for these parameters."""
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


def _decode_one(decode: codec.Decoder, event: Event) -> Any:
    return _decoded(decode, event)


def _decode_all(decode: codec.Decoder, events: list[Event]) -> list[Any]:
    """They are of one batch, so that what they have in common is looked at once."""
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
