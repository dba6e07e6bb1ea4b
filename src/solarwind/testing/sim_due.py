"""The simulator's judge of delayed events: each enters its topic once, and not before it is due."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..batch import Batch
from ..core.log import Stored
from ..store.delays import Delayed
from .sim_facts import Broken


def numbers(batch: Batch) -> Iterator[int]:
    """Yield the numbers with which its events were fired."""
    yield from range(batch.header.first, batch.header.first + batch.header.count)


class DueBook:
    """What is in the due-log, by the number of the event."""

    def __init__(self) -> None:
        self.due: dict[int, int] = {}  # when, in ns since 1970 by the wall clock

    def delayed(self, delayed: Sequence[Delayed]) -> None:
        """Note that they are durable in the due-log."""
        for due, batch in delayed:
            for index, number in enumerate(numbers(batch)):
                when = (batch.header.due or [])[index]
                if when != due:
                    raise Broken(f"event {number} is delayed until {due}, not until {when}")
                self.due[number] = due

    def released(self, stored: Sequence[Stored], wall: int) -> None:
        """Note that they have left the due-log for their topics."""
        for each in stored:
            for number in numbers(each.batch):
                due = self.due.pop(number, None)
                if due is None:
                    raise Broken(f"event {number} enters its topic twice, or was not delayed")
                if due > wall:
                    raise Broken(f"event {number} enters its topic at {wall}, and is due at {due}")
