"""A topic's log as the core sees it: batches at positions."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..batch import Batch


class Stored(NamedTuple):
    """A batch, the position of its first event in its topic's log, and when it was accepted or was due, in ns since
    1970, by the wall clock; 0 where nobody asks for that."""

    start: int
    batch: Batch
    accepted: int = 0

    @property
    def stop(self) -> int:
        return self.start + self.batch.count


def waits_since(stored: Stored) -> int:
    """Return from when on the events of a batch wait, in ns since 1970: they were accepted then, or were due."""
    due = stored.batch.header.due
    return stored.accepted if due is None else max(stored.accepted, *(each or 0 for each in due))


class Log(Protocol):
    """The part of the log that is in memory. The rest is requested by the effect `Fetch`."""

    def find(self, topic: str, position: int) -> Stored | None:
        """Return the batch that holds `position`, if it is in memory."""
        ...
