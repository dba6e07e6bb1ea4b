"""Receipts: what `fire` returns, to be awaited or dropped."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Generator, Iterator, Sequence
from datetime import timedelta
from time import monotonic
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary

import msgspec

from ..batch import make_id
from ..columns import words
from ..errors import Unavailable
from ..event import Cause
from ..loops import on_loop, running_loop
from ..options import check_seconds
from .group import Group, IdNumbers

HELD_BYTES = 320  # about the memory of an event that a handler fired, besides its payload, key and id


class Receipt:
    """What `fire` returns. Drop it, or await it: then the event is accepted, and the result is its id.

    Awaiting raises the error that kept it from being accepted, such as `StoreError`. What was fired inside a handler is
    accepted together with the settle, after the handler has returned; awaiting it there returns the id at once."""

    __slots__ = ()

    @property
    def id(self) -> str:
        """The event's id, known at once."""
        raise NotImplementedError

    def __await__(self) -> Generator[Any, None, str]:
        raise NotImplementedError

    def wait(self, timeout: float | timedelta | None = None) -> str:
        """Wait from a thread until the event is accepted, and return its id. Raise `TimeoutError`."""
        raise NotImplementedError

    @property
    def _state(self) -> str:
        """Return its state in words."""
        return "pending"

    def __repr__(self) -> str:
        return f"<Receipt id={self.id}, {self._state}>"


class SentReceipt(msgspec.Struct, Receipt, eq=False, gc=False):
    """The receipt of an event that is on its way."""

    group: Group
    index: int

    @property
    def id(self) -> str:
        return self.group.id(self.index)

    def __await__(self) -> Generator[Any, None, str]:
        yield from _acceptance(self.group).__await__()
        return self.id

    def wait(self, timeout: float | timedelta | None = None) -> str:
        _wait_in_thread(self.group.accepted, _seconds(timeout))
        return self.id

    @property
    def _state(self) -> str:
        accepted = self.group.accepted
        if not accepted.done():
            return "pending"
        error = accepted.exception()
        return "accepted" if error is None else f"failed: {error}"

    __repr__ = Receipt.__repr__


class SentPart(NamedTuple):
    """Events that were added together to one group."""

    group: Group
    start: int
    stop: int

    def ids(self) -> list[str]:
        return [self.group.id(index) for index in range(self.start, self.stop)]


class Fired(msgspec.Struct):
    """An event that a handler fired, kept until the handler returns."""

    topic: str
    data: bytes
    content: str
    time: int
    attributes: dict[str, Any]  # see `columns`


class HeldEvents(list[Fired]):
    """What one handler has fired so far, in order. `size` is about how much memory it takes, in bytes."""

    def __init__(self, cause: Cause) -> None:
        """`cause` is the handled event."""
        super().__init__()
        self.cause = cause
        self.size = 0

    def add(self, fired: Fired) -> None:
        self.append(fired)
        self.size += HELD_BYTES + len(fired.data) + words(fired.attributes)


class HeldReceipt(Receipt):
    """The receipt of an event that is held until the handler returns."""

    __slots__ = ("_fired", "_numbers")

    def __init__(self, fired: Fired, numbers: IdNumbers) -> None:
        self._fired = fired
        self._numbers = numbers

    @property
    def id(self) -> str:
        attributes = self._fired.attributes
        if "ids" not in attributes:
            producer, number = self._numbers.allocate(self._fired.topic, 1)
            attributes["ids"] = make_id(self._fired.time, producer, number)
        return str(attributes["ids"])

    def __await__(self) -> Generator[Any, None, str]:
        yield from ()
        return self.id

    def wait(self, timeout: float | timedelta | None = None) -> str:
        _seconds(timeout)
        return self.id


class Receipts:
    """What `fire_many` returns. Drop it, or await it: then all of the events are accepted, and the result is this
    object.

    Awaiting raises the error that kept one from being accepted."""

    __slots__ = ("_parts",)

    def __init__(self, parts: Sequence[Receipt | SentPart]) -> None:
        self._parts = parts

    @property
    def ids(self) -> list[str]:
        """The events' ids in their order, known at once, and made when they are read."""
        return [id for part in self._parts for id in ([part.id] if isinstance(part, Receipt) else part.ids())]

    def _of_each_group(self) -> Iterator[Receipt]:
        """Yield one receipt for all events that are accepted together."""
        group: Group | None = None
        for part in self._parts:
            if isinstance(part, SentReceipt | SentPart):
                if part.group is not group:
                    group = part.group
                    yield SentReceipt(group, 0)
            else:
                yield part

    def __repr__(self) -> str:
        states = {receipt._state for receipt in self._of_each_group()}
        failed = sorted(state for state in states if state.startswith("failed"))
        state = failed[0] if failed else "pending" if "pending" in states else "accepted"
        count = len(self)
        return f"<Receipts of {count:,} event{'' if count == 1 else 's'}, {state}>"

    def __len__(self) -> int:
        return sum(1 if isinstance(part, Receipt) else part.stop - part.start for part in self._parts)

    def __await__(self) -> Generator[Any, None, Receipts]:
        for receipt in self._of_each_group():
            yield from receipt.__await__()
        return self

    def wait(self, timeout: float | timedelta | None = None) -> Receipts:
        """Wait from a thread until all are accepted. Raise `TimeoutError`."""
        seconds = _seconds(timeout)
        until = None if seconds is None else monotonic() + seconds
        for receipt in self._of_each_group():
            receipt.wait(None if until is None else max(0.0, until - monotonic()))
        return self


def _seconds(timeout: float | timedelta | None) -> float | None:
    return None if timeout is None else check_seconds("a timeout", timeout)


LEFT_BEHIND: WeakKeyDictionary[asyncio.AbstractEventLoop, str] = WeakKeyDictionary()  # a parent's, and why


def _check_here(accepted: asyncio.Future[None]) -> None:
    """Raise `Unavailable` where the loop belongs to another process, so that waiting would never end."""
    why = LEFT_BEHIND.get(accepted.get_loop())
    if why is not None:
        raise Unavailable(why)


def _acceptance(group: Group) -> Awaitable[None]:
    """Return an awaitable for the acceptance of a group."""
    accepted = group.accepted
    if accepted.done():
        return accepted
    loop = accepted.get_loop()
    if running_loop() is loop:
        # Each with a future of its own: a caller that gives up waiting must not cancel the others.
        waiter = loop.create_future()
        group.waiters.append(waiter)
        return waiter
    _check_here(accepted)
    return on_loop(loop, _until_accepted(accepted))


async def _until_accepted(accepted: asyncio.Future[None]) -> None:
    await asyncio.shield(accepted)


def _wait_in_thread(accepted: asyncio.Future[None], timeout: float | None) -> None:
    loop = accepted.get_loop()
    if running_loop() is loop:
        raise Unavailable(
            "expected wait() in a thread, got it on the event loop, which it would block: await it instead"
        )
    if accepted.done():
        accepted.result()
        return
    _check_here(accepted)
    if not loop.is_running():
        raise Unavailable(
            "expected the event loop of its SolarWind to run, but it ended: whether the event was accepted is not known"
        )
    asyncio.run_coroutine_threadsafe(_until_accepted(accepted), loop).result(timeout)
