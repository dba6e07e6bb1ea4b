"""Middleware: functions around each fire, and around each call of a handler."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextvars import copy_context
from typing import Any, Literal, TypeVar

from .. import payload as codec
from ..errors import BadArgument, NotAllowed
from ..event import Event
from ..loops import running_loop

T = TypeVar("T")


class Handing:
    """What goes through a middleware: a `fire` of one or many events, or a hand-out: one call of a handler, with one
    event or a batch.

    `kind` is "fire" or "handle"; `purpose`, `version`, `events` and `attempt` are of a hand-out, else empty and 0."""

    __slots__ = ("_extensions", "_payloads", "_skipped", "events", "kind", "purpose", "topic", "version")

    kind: Literal["fire", "handle"]

    def __init__(
        self,
        kind: Literal["fire", "handle"],
        topic: str,
        *,
        events: Sequence[Event] = (),
        payloads: Sequence[tuple[bytes, str]] = (),
        extensions: dict[str, str] | None = None,
    ) -> None:
        """`payloads` are encoded, each with its content type."""
        self.kind = kind
        self.topic = topic
        self.events = tuple(events)
        self.purpose = self.events[0].purpose if self.events else ""
        self.version = self.events[0].version if self.events else 0
        self._payloads = payloads
        self._extensions = extensions
        self._skipped = False

    @property
    def attempt(self) -> int:
        """The number of this attempt, 1 the first time; of a batch, the highest of its events. 0 for a fire."""
        return max((event.attempt for event in self.events), default=0)

    @property
    def count(self) -> int:
        """How many events it is about."""
        return len(self._payloads) if self.kind == "fire" else len(self.events)

    @property
    def payloads(self) -> list[Any]:
        """The payloads as handlers see them, as plain Python values; decoded on each use."""
        if self.kind == "handle":
            return [event.payload for event in self.events]
        return [codec.decode(data, content) for data, content in self._payloads]

    @property
    def extensions(self) -> dict[str, str]:
        """The texts that go with what is fired, by name: change them before calling on. Of a hand-out those of its
        event, and none of a batch, whose events have their own; to change these has no effect."""
        if self._extensions is None:
            self._extensions = self.events[0].extensions if len(self.events) == 1 else {}
        return self._extensions

    def skip(self) -> None:
        """State that this hand-out is done without its handler: it is settled if the middleware does not call on. Raise
        `NotAllowed` for a fire, which is to be refused with an error."""
        if self.kind == "fire":
            raise NotAllowed("expected skip() of a hand-out, got it of a fire: raise what says why it is not fired")
        self._skipped = True

    def __repr__(self) -> str:
        what = f" for {self.purpose!r}, {len(self.events)} events" if self.kind == "handle" else ""
        return f"<Handing: {self.kind} on {self.topic!r}{what}>"


CallNext = Callable[[Handing], Awaitable[Any]]
Middleware = Callable[[CallNext, Handing], Coroutine[Any, Any, Any]]


def check_middleware(function: Any) -> None:
    """Raise `BadArgument` for what is not `async def m(call_next, handing)`."""
    fits = callable(function) and not isinstance(function, type)
    if fits and not inspect.iscoroutinefunction(function):
        fits = inspect.iscoroutinefunction(type(function).__call__)
    if fits:
        try:
            taken = inspect.signature(function)
            taken.bind(None, None)
            fits = [*taken.parameters][:2] != ["handing", "call_next"]
        except (TypeError, ValueError):
            fits = False
    if not fits:
        raise BadArgument(f"expected a middleware, async def m(call_next, handing), got {function!a}")


async def run_around(
    middlewares: Sequence[Middleware], handing: Handing, last: Callable[[], Coroutine[Any, Any, Any]]
) -> Any:
    """Call the middlewares, the first outermost, around `last`. Raise what they raise, and `NotAllowed` where one does
    not call on exactly once."""
    if not middlewares:
        return await last()
    middleware, called, over, ended = middlewares[0], False, False, False
    task: asyncio.Task[Any] | None = None  # that calls on

    async def call_next(given: Handing) -> Any:
        nonlocal called, over, task
        if given is not handing:
            raise BadArgument(f"expected call_next(handing) in middleware {_name(middleware)}, got {given!a}")
        if called:
            instead = (
                "the first time has fired it"
                if handing.kind == "fire"
                else "let the handler raise, and it is tried again"
            )
            raise NotAllowed(f"expected middleware {_name(middleware)} to call on once, got it twice: {instead}")
        if ended:
            raise NotAllowed(
                f"expected middleware {_name(middleware)} to call on before it returns, got it afterwards: await "
                "call_next(handing)"
            )
        called, task = True, _task()
        try:
            return await run_around(middlewares[1:], handing, last)
        finally:
            over = True

    is_early = False
    try:
        result = await middleware(call_next, handing)
    finally:
        ended, is_early = True, called and not over
        if is_early and task is not None and (now := _task()) is not None and now is not task:
            task.cancel()  # else it would go on beside the next attempt
            await asyncio.wait([task])
    if is_early:
        raise NotAllowed(
            f"expected middleware {_name(middleware)} to return after what it called on, got it while that still ran: "
            "await call_next(handing)"
        )
    if not called and not handing._skipped:
        instead = (
            "nothing was fired: call on, or raise what says why not"
            if handing.kind == "fire"
            else "nothing was handled: call on, or say handing.skip() to settle it all the same, or raise Reject"
        )
        raise NotAllowed(
            f"expected middleware {_name(middleware)} to say `await call_next(handing)`, got one that returned "
            f"without, and {instead}"
        )
    return result


def _task() -> asyncio.Task[Any] | None:
    return None if running_loop() is None else asyncio.current_task()


def _name(function: Any) -> str:
    return str(getattr(function, "__qualname__", type(function).__qualname__))


def run_now(work: Coroutine[Any, Any, T], waiting: Callable[[], str]) -> T:
    """Run a coroutine to its end, here, in a context of its own. Raise `NotAllowed`, with the sentence of `waiting`,
    where it waits."""
    context = copy_context()
    try:
        context.run(work.send, None)
    except StopIteration as ended:
        result: T = ended.value
        return result
    try:
        context.run(work.close)
    except RuntimeError:  # it waits while it is closed, too
        pass
    raise NotAllowed(waiting())
