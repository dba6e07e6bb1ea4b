"""`on_dead`: a handler that gets the deaths of one purpose. It has a purpose of its own on `solarwind.dead`, so it is
called at least once for each death, by one instance, and is retried as any other."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import sha256
from typing import Any

import msgspec
from msgspec import UNSET

from ..errors import BadArgument, BadPayload
from ..event import Event
from ..names import check_topic, shown
from ..payload import JSON, decoder
from ..plugins import registered
from ..records import Dead
from ..timing import time_of
from .signature import Handler, inspect_handler, refuse_unrun

_MAX_NAME = 200  # characters of a purpose
_MARK = 16  # of its hash
_EXAMPLE = msgspec.json.encode(
    Dead("T", "id", "p", version=1, error="no", attempts=1, time=time_of(0), key="k", fired=time_of(0))
)


class Of(msgspec.Struct, frozen=True):
    """Whose deaths they are."""

    topic: str
    purpose: str

    @property
    def hook(self) -> str:
        """The name of the purpose that hears of them."""
        name = f"Dead letters of {self.purpose} on {self.topic}"
        if len(name) <= _MAX_NAME:
            return name
        mark = sha256(name.encode()).hexdigest()[:_MARK]
        return f"{name[: _MAX_NAME - _MARK - 1].rstrip()} {mark}"

    def below(self, prefix: str) -> Of:
        """Return the same where the topic has a prefix. Raise `BadName`."""
        return Of(check_topic(f"{prefix}.{self.topic}"), self.purpose)


def inspect_on_dead(function: Any, exchange: str) -> Handler:
    """Return the handler of deaths. Raise `BadArgument` for one that cannot be that, and where no event ever dies."""
    if not callable(function):
        raise BadArgument(f"expected on_dead as a function that takes a Dead, got {shown(function)}")
    found = registered.lookup(exchange)
    if found is not None and not found.pends:
        raise BadArgument(
            f"expected no on_dead with exchange {exchange!r}, of which no event becomes a dead letter: leave it out, "
            "or use an exchange whose events pend"
        )
    try:
        handler = inspect_handler(function, payload=Dead)
    except BadArgument as error:
        raise BadArgument(f"expected on_dead as a function that takes a Dead, got another: {error}") from None
    if handler.reads is not UNSET:
        try:
            decoder(handler.reads)(_EXAMPLE, JSON)
        except BadPayload as error:
            raise BadArgument(
                f"expected on_dead as a function that takes a Dead, got {handler.name}, whose parameter cannot be one "
                f"({error}): annotate it with Dead"
            ) from None
    if handler.is_batch:
        raise BadArgument(f"expected on_dead to take one Dead at a time, got {handler.name}, which takes lists")
    return handler


def only(handler: Handler, of: Of) -> Handler:
    """Return the handler, which is called for these deaths and no others."""
    call: Callable[[Any], Any] = handler.call

    def given(event: Event) -> Any:
        return event.data if handler.is_raw else event

    async def call_on_loop(event: Event) -> None:
        if event.decode(Of) == of:
            refuse_unrun(await call(given(event)))

    def call_on_thread(event: Event) -> None:
        if event.decode(Of) == of:
            refuse_unrun(call(given(event)))

    return msgspec.structs.replace(handler, call=call_on_loop if handler.is_async else call_on_thread, is_raw=False)
