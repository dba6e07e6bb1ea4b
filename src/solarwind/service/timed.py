"""A handler whose calls may take only so long."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from ..engine.clock import Clock
from ..errors import BadArgument
from .outcome import outcome_of
from .runner import handling
from .signature import Handler, refuse_unrun

# By the event that a call is about, as it is in its context: its limit, once that was reached, and what it says.
_reached: dict[int, tuple[asyncio.Timeout, str]] = {}


def failed_in_time(error: BaseException | None) -> BaseException | None:
    """Return what a call of a handler that ended in `error`, or with None in order, comes to: a `TimeoutError` where it
    took longer than its timeout. What is around a handler sees its cancellation, and the rest what this says."""
    limit, late = _reached.get(id(handling.get()), (None, ""))
    if limit is None or not limit.expired() or (error is not None and outcome_of(error).verdict != "retry"):
        return error
    found = TimeoutError(late)
    found.__cause__ = error
    return found


def check_may_be_timed(handler: Handler) -> None:
    """Raise `BadArgument` for a `def` handler. Its thread cannot be stopped: were its event handed out again meanwhile,
    two calls would be at it in one process, and at another of its key."""
    if not handler.is_async:
        raise BadArgument(
            f"expected a timeout only with an async def handler, got {handler.name}, a def, whose thread cannot be "
            "stopped: make it async def, or limit what it waits for, as in requests.get(url, timeout=5)"
        )


def timed(handler: Handler, timeout_ns: int, clock: Clock) -> Handler:
    """Return the handler, an `async def`, with a call that is cancelled once it takes longer by this clock, with all
    that is around it: then it raises `TimeoutError`, whatever the handler makes of the cancellation, unless it says
    what is to become of the event (`Later`, `Reject`)."""
    call, seconds = handler.call, timeout_ns / 1e9
    late = f"expected handler {handler.name} to return within {seconds:g} s, and it did not: its call was cancelled"

    async def call_in_time(given: Any) -> None:
        limit, event = asyncio.timeout(None), handling.get()

        def reached() -> None:
            _reached[id(event)] = limit, late
            limit.reschedule(0)

        try:
            async with limit:
                timer = clock.call_at(clock.now() + timeout_ns, reached, ends=True)
                try:
                    refuse_unrun(await call(given))
                finally:
                    timer.cancel()
                    _reached.pop(id(event), None)
        except BaseException as error:
            if not limit.expired() or outcome_of(error).verdict != "retry":
                raise
            raise TimeoutError(late) from error
        if limit.expired():  # it returned nevertheless, maybe in the middle of its work
            raise TimeoutError(late)

    return msgspec.structs.replace(handler, call=call_in_time)
