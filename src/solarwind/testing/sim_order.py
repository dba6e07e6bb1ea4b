"""In which order a simulated purpose gets its events, and how early: the order of keys, and the purpose's own delay."""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence

from ..core.effects import Join
from .sim_facts import Broken, PurposeBook, bits_of, positions
from .sim_log import LogBook
from .sim_store import Name


class Order:
    """What is known of all purposes, also over restarts."""

    def __init__(self, log: LogBook, counts: Counter[str]) -> None:
        self._log = log
        self._counts = counts
        self.passed = 0  # how much time did, whatever clocks say
        # By topic and position: when it was accepted by the wall clock, and by `passed`; and what that said since.
        self._accepted: dict[str, list[tuple[int, int, list[int]]]] = {}
        self._delays: dict[tuple[Name, int], int] = {}  # by version
        self._had: defaultdict[Name, int] = defaultdict(int)  # what was handed out once, a set for each purpose
        self._suspect: defaultdict[Name, int] = defaultdict(int)  # accepted before a crash: it goes apart
        self._copied: defaultdict[Name, int] = defaultdict(int)  # by a fan-out, in this life
        self._copied_before: defaultdict[Name, int] = defaultdict(int)

    def accepted(self, topic: str, count: int, wall: int) -> None:
        self._accepted.setdefault(topic, []).extend([(wall, self.passed, [wall])] * count)

    def saw(self, wall: int) -> None:
        """Note what the wall clock says: what has waited by that has waited, though it is set back."""
        for events in self._accepted.values() if any(self._delays.values()) else ():
            for _, _, latest in events:
                latest[0] = max(latest[0], wall)

    def joined(self, join: Join) -> None:
        self._delays[(join.topic, join.purpose), join.version] = join.delay_ns

    def has_delay(self, name: Name) -> bool:
        return any(delay for (each, _), delay in self._delays.items() if each == name)

    def retired(self, name: Name) -> None:
        for sets in (self._had, self._suspect, self._copied, self._copied_before):
            sets.pop(name, None)

    def restarted(self, names: Iterable[Name], *, clean: bool) -> None:
        for topic, purpose in names if not clean else ():
            self._suspect[topic, purpose] = (1 << len(self._accepted.get(topic, ()))) - 1
        for name, mask in self._copied.items():
            self._copied_before[name] |= mask
        self._copied.clear()

    def check_delay(self, book: PurposeBook, version: int, picks: Sequence[int], wall: int, where: str) -> None:
        """Check that no event is handed out before it waited for the delay of the version that gets it: by the wall
        clock, or by the time that passed where that was set back. What was handed out before has waited."""
        delay = self._delays.get((book.name, version), 0)
        if book.facts.statements[version][0] == "fanout":  # it goes to those who are there once it has waited
            delay = min(each for (name, _), each in self._delays.items() if name == book.name)
        for position in picks if delay else ():
            accepted, passed, latest = self._accepted[book.name[0]][position]
            waited = max(wall - accepted, latest[0] - accepted, self.passed - passed)
            if waited < delay and not self._had[book.name] >> position & 1:
                raise Broken(f"{where}, {position} after {waited / 1e9:.3f} s of {delay / 1e9:.0f}")
        self._counts["waited for a delay"] += len(picks) if delay else 0

    def check_turn(
        self, book: PurposeBook, version: int, picks: Sequence[int], owned: int, pending: int, where: str
    ) -> None:
        """Check that what was never handed out comes in order where there is a delay, of the track that has `owned`."""
        if self._delays.get((book.name, version), 0) and book.facts.statements[version][0] != "keyed":
            other = self._had[book.name] | self._suspect[book.name]
            fresh = bits_of(picks) & ~other
            before = owned & pending & ~other & ~fresh & ((1 << fresh.bit_length()) - 1)
            if fresh and before:
                raise Broken(f"{where}, before {positions(before)}")
        self._had[book.name] |= bits_of(picks)

    def check_copies(self, book: PurposeBook, mask: int, where: str) -> None:
        """Check that no event of a fan-out is copied again after a restart."""
        if again := mask & self._copied_before[book.name]:
            raise Broken(f"{where}, of which {positions(again)} were copied before a restart")
        self._copied[book.name] |= mask
        self._had[book.name] |= mask

    def check_keys(
        self,
        book: PurposeBook,
        picks: Sequence[int],
        kind: str | None,
        owned: dict[int, int],
        end: int,
        wall: int,
        where: str,
    ) -> None:
        """Check that the events of a key go one at a time, and in order."""
        keys, pending = self._log.keys[book.name[0]], ~book.facts.done & ~self._log.expired(book.name[0], wall)
        track = next(own for own in owned.values() if own >> picks[0] & 1)
        out = 0  # in the hands of those who are in any order
        for held in [held for held in book.leases.values() if held.pends]:
            keyed = book.holders[held.instance].join.exchange == "keyed"
            out |= held.positions if keyed else held.positions & track
        for position in picks:
            key = keys[position][0 if kind is None else 1]
            if key is None:
                continue
            same = self._log.with_key[book.name[0], kind, key]
            # In one split all of a key is in one track, unless nobody stated how it is read when they were divided.
            starts = [0, *(since for since, *_ in book.facts.splits), end]
            at = bisect_right(starts[:-1], position)
            same &= track | ~((1 << starts[at]) - (1 << starts[at - 1]))
            if same & out:
                raise Broken(f"{where}, {position} of key {key!r} while {positions(same & out)} is in hand")
            before = same & pending & ((1 << position) - 1)
            if not book.excused >> position & 1 and before:
                raise Broken(f"{where}, {position} of key {key!r} before {positions(before)}")
            out |= 1 << position
