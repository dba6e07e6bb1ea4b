"""Events whose handlers are still running here though another process may have them by now.

Their lease is over, or the connection that they came by, and a handler cannot be stopped. The dispatcher hands them out
again, maybe to this very process. So none of them begins here a second time, and with a keyed exchange none of its key,
before the running handler has ended. Other processes know nothing of it.
"""

from __future__ import annotations

from time import monotonic
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from ..core.effects import Join
from ..core.exchange import key_of
from ..engine.base import Engine
from ..plugins import registered

if TYPE_CHECKING:
    from .consumer import Consumer, Work

# What is set aside is given back after so long. The pause doubles each time, so that an event that no other process
# handles does not go to and fro all the time.
MIN_PAUSE_S, MAX_PAUSE_S = 0.1, 5.0


class InDoubt:
    """The running handlers of one purpose whose events may be another process's by now, for all its instances in this
    process."""

    def __init__(self, join: Join) -> None:
        exchange = registered.lookup(join.exchange)
        self.pends = exchange is None or exchange.pends
        self._key = key_of(join.key) if exchange is not None and exchange.keyed else None
        self._pause_s = MIN_PAUSE_S
        self.works: list[Work] = []  # that run so
        self._waiting: list[tuple[Consumer, Work]] = []

    def add(self, work: Work) -> None:
        """Add work that is, or may be, no longer this process's."""
        if work.running and self.pends and work not in self.works:
            self.works.append(work)

    def hold(self, consumer: Consumer, work: Work) -> None:
        """Set aside the events of an offer that may not begin yet: none unless there are `works`."""
        running = self._running()
        held = [position for position in work.todo if self._name(work, position) in running]
        if held:
            work.held += held
            work.held_until = monotonic() + self._pause_s
            for position in held:
                work.todo.remove(position)
            self._waiting.append((consumer, work))

    def overdue(self, work: Work) -> list[int]:
        """Return events that were set aside for too long, to be given back: another process may be able to begin
        them."""
        if not work.held or monotonic() < work.held_until:
            return []
        self._pause_s = min(2 * self._pause_s, MAX_PAUSE_S)
        positions, work.held = work.held, []
        return positions

    def ended(self, work: Work) -> None:
        """Begin events that waited for a handler of this work, because it has ended."""
        if work not in self.works:
            return
        if not work.running:
            self.works.remove(work)
            self._pause_s = MIN_PAUSE_S
        running = self._running()
        waiting, self._waiting = self._waiting, []
        for consumer, each in waiting:
            free = [position for position in each.held if self._name(each, position) not in running]
            each.held = [position for position in each.held if position not in free]
            if each.held:
                self._waiting.append((consumer, each))
            if free:
                each.todo.extend(free)
                consumer.begin(each)

    def _running(self) -> set[object]:
        return {self._name(work, position) for work in self.works for position in work.at().positions()}

    def _name(self, work: Work, position: int) -> object:
        """Return what may run only once at a time: the event's key, or the event."""
        stored = work.offer.stored
        index = position - stored.start
        key = self._key(stored.batch, index) if self._key is not None else None
        return ("key", key) if key is not None else stored.batch.id(index)


_OF: WeakKeyDictionary[Engine, dict[tuple[str, str], InDoubt]] = WeakKeyDictionary()


def in_doubt(engine: Engine, join: Join) -> InDoubt:
    """Return the `InDoubt` of the purpose."""
    of_purpose = _OF.setdefault(engine, {})
    name = (join.topic, join.purpose)
    if name not in of_purpose:
        of_purpose[name] = InDoubt(join)
    return of_purpose[name]
