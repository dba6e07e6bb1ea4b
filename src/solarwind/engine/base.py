"""What the Python API asks of an engine: the one interface, wherever the dispatcher runs."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Protocol, TypeVar

from ..batch import Batch
from ..core.effects import Join, Offer, Report
from ..store.base import Keep as Keep
from ..store.definitions import Definition as Definition
from ..store.definitions import Definitions as Definitions
from .clock import Clock

if TYPE_CHECKING:
    from .request import Request

R = TypeVar("R")

Since = str | datetime | timedelta  # "now", "beginning", a time, or so long ago

NOTHING = "nothing"  # is left


class Receiver(Protocol):
    """The service side of an instance."""

    def deliver(self, offer: Offer) -> None:
        """Handle these events and report."""
        ...

    def flush(self) -> None:
        """All that is to be delivered for now was: whoever passes it on need not wait for more."""
        ...

    def lost(self, lease: int | None = None) -> None:
        """What it has in hand, by this lease or at all, is no longer its own; more may come."""
        ...

    def close(self, reason: str) -> None:
        """The purpose is gone: nothing more comes, and reports count for nothing."""
        ...


class Engine(Protocol):
    """All calls on the loop it was started on. Every method raises `Unavailable` unless it runs."""

    author: bytes  # what the header of a batch says of who numbers it, for all that this process fires there
    service_clock: Clock  # what services in this process go by, so that a test's clock moves them too
    failed: asyncio.Future[None]  # gets the error after which the engine can do nothing any more
    patience_s: float  # a process that stood still for less is not taken for gone, whatever its leases

    @property
    def definitions(self) -> Definitions:
        """What is defined by name in its store, while it runs."""
        ...

    async def start(self) -> None: ...

    async def stop(self) -> None:
        """Finish what is submitted and reported, and let go of the store."""
        ...

    def check(self) -> None:
        """Raises what it failed with, and `Unavailable` while nothing can be accepted."""
        ...

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """The future is done when the batch is accepted, or has the error why it is not."""
        ...

    def add_author(self, secret: bytes) -> None:
        """A client of this process, whose author is the hash of `secret`, numbers batches of its own: they are
        submitted as its. As often as it is added it is to be removed. Raises `Busy`."""
        ...

    def remove_author(self, secret: bytes) -> None:
        """It is gone."""
        ...

    def take_back(self, submitted: asyncio.Future[None]) -> bool:
        """A batch that was submitted is not wanted any more. False if it may be accepted all the same; else it is as if
        it had not been submitted, and its future gets no answer."""
        ...

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        """Register an instance and give its number; its purpose is durable then. `since` counts for a new purpose."""
        ...

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        """What an instance made of its events, and what its handler fired for those that are done: all of it is
        committed together or not at all. False if it is known already that it does not count."""
        ...

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        """Report, and wait until what it says is durable. False if the lease was not, or no longer, its own."""
        ...

    def random(self) -> float:
        """From 0 up to 1: for what instances draw by chance."""
        ...

    def alive(self, instance: int) -> None:
        """The instance is at work: its lease runs on."""
        ...

    def leaving(self, *instances: int) -> None:
        """They take nothing more, and may still report what they began."""
        ...

    async def leave(self, instance: int, *, died: bool = False) -> None:
        """It is gone: what it still has in hand is handed out again. `died`: it did not say so itself, so that what it
        had may be to blame."""
        ...

    async def ask(self, request: Request[R]) -> R:
        """Do one of the operations (see `solarwind/operations.py`), and return its answer. Raises what it raises."""
        ...


class Link(Protocol):
    """What carries the bytes of a client's connection. That it is over, and why, is told once, unless closed."""

    silent: int  # beats since the server was heard of: set to 0 by whatever comes

    def send(self, data: bytes) -> None:
        """Send a message."""
        ...

    async def close(self) -> None:
        """Say goodbye, and wait until the server has read what was sent before."""
        ...

    def abort(self, why: str) -> None:
        """The server does not answer, or not as it should: it is over at once, before this returns."""
        ...
