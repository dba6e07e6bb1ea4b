"""What a dispatcher asks of the place that remembers.

A store keeps, for each topic, a log of batches at positions, and for each purpose a snapshot of its state and
the changes since. One commit takes batches and changes together or not at all; when it returns they are
as durable as the store promises. A store keeps to what it is told: it decides nothing about dispatching.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from typing import Protocol

import msgspec

from ..batch import Batch
from ..core.log import Stored
from ..core.spans import Spans
from ..core.state import Change, Letter, Snapshot
from ..errors import StoreError
from .definitions import Definitions
from .delays import Delayed, DueLog

Keep = int | None | msgspec.UnsetType  # None: the default, or no bound; UNSET: as it was


class Full(Exception):
    """There is no room for a commit; nothing of it was stored. The next one may go through."""


class TopicRecord(msgspec.Struct, frozen=True):
    """What a store knows of a topic. `keep_ns` and `keep_bytes` are None where nobody has set them."""

    name: str
    end: int  # the position of the next event
    keep_ns: int | None = None
    keep_bytes: int | None = None


class Recovered(msgspec.Struct, frozen=True):
    """What a store remembers when it is opened. `changes` came after `snapshots`, in this order."""

    clean: bool  # the last writer closed it; else it was cut off
    now: int  # no time written in it is later than this, ns since 1970
    topics: list[TopicRecord]
    snapshots: list[Snapshot]
    changes: list[Change]


class Alone:
    """The part of a `Store` into whose log nobody else writes: all that is accepted has come by its own commits."""

    shared = False
    is_over = False

    def follow(self, arrived: Callable[[Stored], None]) -> None:
        """Nothing arrives by itself."""

    async def synced(self) -> None:
        """All has arrived."""

    async def forwarded(self) -> None:
        """Nothing is on its way."""

    def is_sure(self) -> bool:
        """Nobody else is there."""
        return True

    async def make_sure(self) -> None:
        """It is sure."""


class Store(Protocol):
    """All positions are of events. `StoreError` where it cannot do what is asked; then nothing was done."""

    durable: bool  # whether what is committed outlives the process
    shared: bool  # whether others write into its log, too: then batches arrive there by themselves. Else see `Alone`
    keep_ns: int  # how long history is kept where nobody has said otherwise
    definitions: Definitions
    failed: Callable[[StoreError], None]  # called, on any thread, when it finds by itself that it is of no use any more

    async def open(self, now: int) -> Recovered: ...

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int
    ) -> list[Stored | None]:
        """Store all of it or nothing; give each batch with its position, in order.

        An event whose id its topic's history holds already (given before, or made by an earlier batch) is left out:
        its batch comes back without it, or as None where nothing is left; or where its position is known only when it
        arrives, see `follow`. A snapshot replaces the purpose's
        earlier snapshot and changes, this commit's included. A change's `dead` are kept with their text until they are
        redriven, discarded, reopened or their purpose retires; a retired purpose is forgotten.
        Raises `Full` where there is no room; `StoreError` where the outcome is unknown, and then the store is of no use
        any more.
        """
        ...

    async def has_room(self, size: int) -> bool:
        """Whether a commit of so many bytes may go through, after one was `Full`."""
        ...

    async def make_room(self) -> bool:
        """Give up what was set aside for settles. Return whether there was anything."""
        ...

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        """The batches from the one that holds `position` (or else the first after it) on, in order.

        At least one if there is any; no more than come to `max_bytes`. A batch that is not what was written is a
        `StoreError`.
        """
        ...

    async def trim(self, topic: str, pinned: Spans, before: int | None, max_bytes: int | None) -> int:
        """Delete whole batches with no event in `pinned`: those fired before `before` (ns since 1970), then the
        oldest until the rest come to `max_bytes`. A call may delete only some of them, so that nobody waits long.
        Return how many events were deleted: 0 where nothing more is to go."""
        ...

    async def shrink(self) -> bool:
        """Give back to the disk a piece of what trimming left free. Return whether there may be more."""
        ...

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        """Set how much history a topic keeps; None is as if nobody had set it, `UNSET` leaves it as it is."""
        ...

    async def history(self, topic: str) -> tuple[int, int]:
        """How many events, and how many bytes, the topic's log holds."""
        ...

    async def seek(self, topic: str, time: int) -> int:
        """The position of the first event in the log that was fired at or after `time`, ns since 1970; the topic's end
        where there is none."""
        ...

    async def find(self, id: str) -> tuple[str, int] | None:
        """The topic and position of the event with that id, given or made, if its history holds it."""
        ...

    def caused(self, since: int) -> AsyncIterator[Stored]:
        """All batches in which an event caused some event, fired at or after `since`, topic by topic."""
        ...

    async def dead(self, topic: str, purpose: str) -> list[Letter]:
        """The purpose's dead letters, by position."""
        ...

    async def backup(self, path: str) -> None:
        """Write a copy to a new file, of one moment between two commits, while commits go on."""
        ...

    # Where others write, too

    def follow(self, arrived: Callable[[Stored], None]) -> None:
        """Call `arrived`, on the loop, with each batch that gets its position in the log by another way than `commit`,
        in order. Called right after `open`, which gives what came before."""
        ...

    async def synced(self) -> None:
        """Wait until all that is accepted by now, by whomever, has arrived."""
        ...

    async def forwarded(self) -> None:
        """Wait until all that was committed by now has arrived, in whatever logs it belongs to."""
        ...

    def is_sure(self) -> bool:
        """Whether no other process can have taken this store over by now. Asked before each offer."""
        ...

    async def make_sure(self) -> None:
        """Wait until it is. Raises `StoreError` where another process has."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether its end is no fault: another process has taken it over, or it was deleted."""
        ...

    # Its end

    async def close(self) -> None:
        """Note that it was closed in order, and let go. Nothing may be under way."""
        ...


class DelayingStore(Store, Protocol):
    """A store that has a due-log, too."""

    delays: DueLog

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed] = (),
    ) -> list[Stored | None]:
        """See `Store.commit`. Together with that, what is `delayed` is put into the due-log, without events whose ids
        are there already or in their topic's history."""
        ...
