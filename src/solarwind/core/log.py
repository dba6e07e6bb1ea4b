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


class Log(Protocol):
    """The part of the log that is in memory. The rest is requested by the effect `Fetch`."""

    def find(self, topic: str, position: int) -> Stored | None:
        """Return the batch that holds `position`, if it is in memory."""
        ...
