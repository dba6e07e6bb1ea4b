"""The interface between a dispatcher and its store.

A store keeps a log of batches at positions for each topic, and for each purpose a snapshot of its state and the changes
since. One commit stores batches and changes together or not at all; when it returns they are as durable as the store
promises. A store makes no decisions about dispatching.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import msgspec

from ..batch import Batch
from ..core.log import Stored
from ..core.spans import Spans
from ..errors import StoreError
from .definitions import Definitions

if TYPE_CHECKING:
    from ..core.facts import Note
    from ..core.state import Change, Letter, Snapshot
    from .delays import Delayed, DueLog

Keep = int | None | msgspec.UnsetType  # None: the default, or no bound; UNSET: as it was
Meanwhile = Callable[[list[Stored | None]], object]  # done while a commit is made durable: see `Store.commit`
FOREVER = (1 << 63) - 1  # ns since 1970


class BatchPlace(NamedTuple):
    """Where a batch is among those of all topics, in the order of a trace: the time of its first event, its topic, and
    its position there."""

    time: int
    topic: str
    start: int


class Full(Exception):
    """There is no room for a commit; nothing of it was stored. The next one may succeed."""


class TopicRecord(msgspec.Struct, frozen=True):
    """What a store knows of a topic. `keep_ns` and `keep_bytes` are None where they were not set."""

    name: str
    end: int  # the position of the next event
    keep_ns: int | None = None
    keep_bytes: int | None = None


class Recovered(msgspec.Struct, frozen=True):
    """The content of a store when it is opened. `changes` came after `snapshots`, in this order."""

    clean: bool  # the last writer closed it; else it was interrupted
    now: int  # the latest time in the store, ns since 1970
    topics: list[TopicRecord]
    snapshots: list[Snapshot]
    changes: list[Change]


class Space(msgspec.Struct, frozen=True):
    """How much of its room is free, in bytes."""

    free: int
    size: int


def was_caused(batch: Batch, ids: Collection[str]) -> bool:
    """Return whether one of these events caused an event of the batch."""
    return any(cause.kind == "event" and cause.id in ids for cause in batch.header.causes or ())


class SingleWriter:
    """The part of a `Store` for logs with a single writer: all accepted events come by its own commits."""

    shared = False
    is_over = False

    def follow(self, arrived: Callable[[Stored], None]) -> None:
        """Do nothing: no batches arrive from others."""

    def owns(self, topic: str) -> bool:
        """Return True: all topics are in its log."""
        return True

    async def synced(self) -> None:
        """Return at once: everything has arrived."""

    async def forwarded(self) -> None:
        """Return at once: nothing is on its way."""

    def is_sure(self) -> bool:
        """Return True: there is no other owner."""
        return True

    async def confirm_ownership(self) -> None:
        """Return at once."""


class Store(Protocol):
    """The interface. All positions are of events. Methods raise `StoreError` where they fail, with nothing changed."""

    name: str  # of it among those of its kind, for people
    id: str  # another one where all is forgotten that was here before; "" if that does not happen while clients go on
    durable: bool  # whether what is committed outlives the process
    shared: bool  # whether other processes write into its log, so that their batches arrive. Else see `SingleWriter`
    keep_ns: int  # how long history is kept by default
    definitions: Definitions
    failed: Callable[[StoreError], None]  # called, on any thread, when it fails outside of a call

    async def open(self, now: int) -> Recovered: ...

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        delayed: Sequence[Delayed] = (),
        notes: Sequence[Note] = (),
        accepted_at: int | None = None,
        meanwhile: Meanwhile | None = None,
    ) -> list[Stored | None]:
        """Store everything or nothing; return each of `batches` with its position, in order.

        `meanwhile` gets that list as soon as it is known, which may be before the commit is durable: what it does must
        be seen by nobody until this returns. Where this raises after that, the store has ended.

        `delayed` goes into the due-log, without events whose ids are there already or in their topic's history.

        An event whose id is already in its topic's history (given before, or made by an earlier batch) is left out: its
        batch is returned without it, or as None where nothing is left. It is None, too, where its position is known
        only when it arrives: see `follow`. A snapshot replaces the purpose's earlier snapshot and changes, this
        commit's included. A change's `dead` are kept with their text until they are redriven, discarded, reopened or
        their purpose retires; a retired purpose is deleted. `notes` are kept until the events that they are about are
        trimmed. History goes by `accepted_at`, the wall clock's time; without it the events count as accepted when they
        were fired. Raise `Full` where there is no room; `StoreError` where the outcome is
        unknown, and then the store must not be used any more.
        """
        ...

    async def has_room(self, size: int) -> bool:
        """Return whether a commit of `size` bytes may succeed, after one was `Full`."""
        ...

    def space(self) -> Space | None:
        """Return how much room is left for it; None where that is not known."""
        ...

    async def make_room(self) -> bool:
        """Release the space that is reserved for settles. Return whether there was any."""
        ...

    async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
        """Return the batches from the one that holds `position`, or the first after it, in order.

        At least one if there is any; at most `max_bytes` otherwise. Raise `StoreError` for a batch that is damaged.
        """
        ...

    async def read_at(self, topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        """Return the batches that hold events at these positions, in order. At least one if there is any; at most
        `max_bytes` otherwise. Raise `StoreError` for a batch that is damaged."""
        ...

    async def trim(
        self, topic: str, pinned: Spans, before: int | None, max_bytes: int | None, now: int = FOREVER
    ) -> int:
        """Delete whole batches with no event in `pinned`: first those accepted before `before` (ns since 1970), up to
        the first that was not. One that was accepted later than `now`, by a clock that was wrong, goes with the next
        after it. Then delete the oldest until the rest come to `max_bytes`. A call may delete only some of them, so
        that it is short. Return how many events were deleted; 0 means that nothing more is to be deleted."""
        ...

    async def shrink(self) -> bool:
        """Return a piece of the space freed by trimming to the disk. Return whether there may be more."""
        ...

    async def topic(self, name: str, keep_ns: Keep, keep_bytes: Keep) -> None:
        """Set how much history a topic keeps; None restores the default, `UNSET` changes nothing."""
        ...

    async def history(self, topic: str) -> tuple[int, int]:
        """Return the number of events and bytes in the topic's log."""
        ...

    async def seek(self, topic: str, time: int) -> int:
        """Return the position of the first event fired at or after `time`, in ns since 1970; the topic's end where
        there is none."""
        ...

    async def find(self, id: str, topic: str | None = None) -> tuple[str, int] | None:
        """Return the topic and position of the event with that id, given or made, if the history of the topic, or of
        any topic, holds it."""
        ...

    async def caused(
        self, ids: Collection[str], since: BatchPlace | None, max_bytes: int, max_batches: int = 1_000
    ) -> tuple[list[Stored], bool]:
        """Return the batches of all topics with events that these events caused, in the order accepted or that of
        their places, and whether there may be more: from the one at the place `since` on, if that is given. About
        `max_bytes` are read at most."""
        ...

    async def dead(self, topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        """Return the dead letters of a track at these positions, by position; those that there are."""
        ...

    async def notes(self, topic: str, positions: Spans) -> list[Note]:
        """Return what was noted about the events at these positions, in any order; some of it perhaps twice."""
        ...

    async def backup(self, path: str) -> None:
        """Write a copy to a new file, as of one moment between two commits, while commits go on."""
        ...

    @property
    def delays(self) -> DueLog:
        """The due-log; another one after each `open`."""
        ...

    # Logs with several writers

    def follow(self, arrived: Callable[[Stored], None]) -> None:
        """Call `arrived`, on the loop and in order, with each batch that gets its position in the log by another way
        than `commit`. Called right after `open`, which returned everything before."""
        ...

    def owns(self, topic: str) -> bool:
        """Return whether a topic is one of those in this store's log."""
        ...

    async def synced(self) -> None:
        """Wait until everything accepted by now, by any process, has arrived."""
        ...

    async def forwarded(self) -> None:
        """Wait until everything committed by now has arrived in the logs of all topics."""
        ...

    def is_sure(self) -> bool:
        """Return whether this process is certainly still the owner. Asked before each offer."""
        ...

    async def confirm_ownership(self) -> None:
        """Confirm the ownership. Raise `StoreError` where another process has taken over."""
        ...

    @property
    def is_over(self) -> bool:
        """Whether it ended without a fault: another process has taken over, or the store was deleted."""
        ...

    # Its end

    async def close(self) -> None:
        """Record that it was closed in order, and close it. No other call may be running."""
        ...
