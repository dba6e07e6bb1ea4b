"""The simulator's judge of limits: a purpose is handed out no more than its rate, and has no more in flight than its
maximum."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from ..core.effects import Join, Offer
from .sim_facts import Broken, PurposeBook
from .sim_store import Name

_UNITS = {"s": 10**9, "m": 60 * 10**9, "h": 3_600 * 10**9}
_TOGETHER = 10**8  # ns: of a rate so much may come at once
_KEPT = 10**8  # ns: with longer intervals it is kept over a restart


class LimitBook:
    """What is known of the limits of all purposes, also over restarts."""

    def __init__(self, counts: Counter[str]) -> None:
        self._counts = counts
        self._stated: dict[tuple[Name, int], tuple[float, int | None]] = {}  # ns from one to the next, and the maximum
        self._times: dict[Name, list[int]] = {}  # when events were handed out, by the engine's time
        self._committing: dict[Name, list[int]] = {}
        self._durable: dict[Name, list[int]] = {}
        self._slow: dict[int, int] = {}  # when the events of a lease were handed out, at a rate that is kept

    def joined(self, join: Join) -> None:
        count, _, unit = (join.rate or "").partition("/")
        interval = _UNITS[unit] / int(count) if unit else 0.0
        self._stated[(join.topic, join.purpose), join.version] = interval, join.at_most

    def retired(self, name: Name) -> None:
        self._times.pop(name, None)

    def commit_begins(self) -> None:
        self._committing = {name: list(times) for name, times in self._times.items()}

    def commit_ends(self) -> None:
        self._durable = self._committing

    def restarted(self, names: Iterable[Name]) -> None:
        slow = {name for (name, _), (interval, _) in self._stated.items() if interval > _KEPT}
        self._times = {name: list(self._durable.get(name, ())) for name in names if name in slow}
        self._slow.clear()

    def set_back(self, earlier: int) -> None:
        """Note that the engine's time is earlier by so much than before the restart."""
        self._times = {name: [time - earlier for time in times] for name, times in self._times.items()}

    def check(self, book: PurposeBook, offer: Offer, now: int, where: str) -> None:
        """Check a hand-out, which is not among the leases yet, by what the current version states."""
        picks, (interval, at_most) = offer.picks, self._stated[book.name, book.active[0]]
        if at_most is not None:
            there = sum([held.positions.bit_count() for held in book.leases.values() if held.pends])
            self._counts["at the maximum"] += there + len(picks) == at_most
            if there + len(picks) > at_most:
                raise Broken(f"{where}: {there + len(picks)} in flight, {at_most} at most")
        if interval:
            times = self._times.setdefault(book.name, [])
            times += [now] * len(picks)
            together = max(0.0, _TOGETHER - interval)
            for at, time in enumerate(times):
                count = len(times) - at
                if count > 1 and count > 1 + (now - time + together) / interval + 1e-3:
                    raise Broken(f"{where}: {count} within {(now - time) / 1e9} s, one in {interval / 1e9} s")
            self._counts["at a rate"] += len(picks)
            if interval > _KEPT:
                self._slow[offer.lease] = now

    def delivered(self, name: Name, offer: Offer, where: str) -> None:
        """Check that what a handler gets at a slow rate is known after a crash, too."""
        time = self._slow.pop(offer.lease, None)
        if time is not None and time not in self._durable.get(name, ()):
            raise Broken(f"{where} before it is durable when the next may be handed out")
