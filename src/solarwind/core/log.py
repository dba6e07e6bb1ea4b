"""A topic's log as the core sees it: batches at positions."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from ..batch import Batch


class Stored(NamedTuple):
    """A batch and the position of its first event in its topic's log."""

    start: int
    batch: Batch

    @property
    def stop(self) -> int:
        return self.start + self.batch.count


class Log(Protocol):
    """The part of the log that is in memory. The rest is requested by the effect `Fetch`."""

    def find(self, topic: str, position: int) -> Stored | None:
        """Return the batch that holds `position`, if it is in memory."""
        ...
