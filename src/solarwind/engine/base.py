"""The interface between the Python API and an engine, wherever the dispatcher runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Sequence
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..batch import Batch
from ..core.effects import Join, Offer, Report
from ..event import Event
from ..store.base import Keep as Keep
from ..store.definitions import Definition as Definition
from ..store.definitions import Definitions as Definitions
from .clock import Clock

if TYPE_CHECKING:
    from .request import Request

R = TypeVar("R")

Since = str | datetime | timedelta  # "now", "beginning", a time, or so long ago

NOTHING = "nothing"  # is left
PAUSED = "which is paused: resume it"  # is in what is left of such a purpose


class Receiver(Protocol):
    """The service side of an instance."""

    def deliver(self, offer: Offer) -> None:
        """Handle these events and report."""
        ...

    def flush(self) -> None:
        """Note that everything for now was delivered, so that a receiver that forwards it need not wait for more."""
        ...

    def lost(self, lease: int | None = None) -> None:
        """Note that the events in hand, of this lease or of all, are no longer its own; more may come."""
        ...

    def told(self, text: str) -> None:
        """Note what is to be said to who joined, though it may: not all that comes can be read as it states."""
        ...

    def close(self, reason: str) -> None:
        """Note that the purpose is gone: nothing more comes, and reports do not count."""
        ...


class Engine(Protocol):
    """A dispatcher, here or elsewhere. Its methods are called on the loop that it was started on, and raise
    `Unavailable` unless it runs."""

    author: bytes  # the author in the headers of all batches that this process fires there
    service_clock: Clock  # what services in this process go by, so that a test's clock moves them too
    failed: asyncio.Future[None]  # gets the error after which the engine can do nothing any more
    patience_s: float  # a process that stood still for less does not count as gone, whatever its leases
    grace_s: float  # that handlers have at most when it stops, unless who stops it says otherwise
    store_id: str  # another one where the dispatcher has forgotten all: see `Store.id`
    delay_s: float  # from a question to the dispatcher until its answer, the last time: what arrives may be so old

    @property
    def definitions(self) -> Definitions:
        """The named definitions in its store, while it runs."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Finish what is submitted and reported, and close the store."""
        ...

    def check(self) -> None:
        """Raise the error that it failed with; `Unavailable` while nothing can be accepted; `StoreError` while delayed
        events cannot enter their topics."""
        ...

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """Submit a batch. The future is done when it is accepted, or gets the error."""
        ...

    def add_author(self, secret: bytes) -> None:
        """Accept batches of a client of this process, whose author is the hash of `secret`. It must be removed as often
        as it is added. Raise `Busy`."""
        ...

    def remove_author(self, secret: bytes) -> None:
        """Remove a client's secret."""
        ...

    def withdraw(self, submitted: asyncio.Future[None]) -> bool:
        """Withdraw a submitted batch. Return False if it may be accepted all the same; else it is as if it had not been
        submitted, and its future is never done."""
        ...

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        """Register an instance and return its number; then its purpose is durable. `since` counts for a new purpose."""
        ...

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        """Report what an instance made of its events, with what its handler fired for the done ones: all is committed
        together or not at all. Return False if the report is already known not to count."""
        ...

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        """Report, and wait until it is durable. Return False if the lease was not, or no longer, its own."""
        ...

    def random(self) -> float:
        """Return a number from 0 up to 1, for random choices of instances."""
        ...

    def cut_off(self, handler: str, events: Sequence[Event]) -> None:
        """Note a handler that had not ended, with the events that it was called with, when its service stopped."""
        ...

    def alive(self, instance: int) -> None:
        """Renew the leases of an instance."""
        ...

    def leaving(self, *instances: int) -> None:
        """Hand nothing more to these instances, which may still report what they began."""
        ...

    async def leave(self, instance: int, *, died: bool = False) -> None:
        """Remove an instance: what it still has in hand is handed out again. `died`: it did not leave by itself, so the
        events in hand may be the cause."""
        ...

    async def ask(self, request: Request[R]) -> R:
        """Do one of the operations (see `solarwind/operations.py`), and return its answer. Raise what it raises."""
        ...


class Link(Protocol):
    """Carries the bytes of a client's connection. Its end is reported once, with the reason, unless it was closed."""

    silent: int  # beats since the server was heard of: set to 0 by whatever comes

    def send(self, data: bytes) -> None:
        """Send a message."""
        ...

    async def close(self) -> None:
        """Say goodbye, and wait until the server has read everything sent before."""
        ...

    def abort(self, why: str) -> None:
        """End it before this returns, because the server does not answer, or not as it should."""
        ...
