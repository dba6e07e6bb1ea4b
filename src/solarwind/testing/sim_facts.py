"""What is true of a purpose, as the simulator's `Book` has it: a few numbers.

A set of positions is a whole number here, bit n for position n, so that a copy of the model costs nothing and every
rule is a line.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from ..core.effects import Join
from ..core.spans import Spans
from .sim_store import Name

PENDING_EXCHANGES = ("direct", "direct:least-busy", "direct:random", "keyed")


class Broken(AssertionError):
    """A rule of the contract does not hold."""


def bits(spans: Spans) -> int:
    mask = 0
    for start, stop in zip(spans.edges[::2], spans.edges[1::2], strict=True):
        mask |= (1 << stop) - (1 << start)
    return mask


def bits_of(positions: Iterable[int]) -> int:
    mask = 0
    for position in positions:
        mask |= 1 << position
    return mask


def positions(mask: int) -> list[int]:
    found = []
    while mask:
        lowest = mask & -mask
        found.append(lowest.bit_length() - 1)
        mask ^= lowest
    return found


class Facts(msgspec.Struct):
    """What is true of a purpose: true of the live one, and as of a commit of the durable one."""

    statements: dict[int, tuple[str, str | None]]
    settled: int = 0
    dead: int = 0
    skipped: int = 0  # from before it listened, trimmed, or handed out as copies
    copied_from: int | None = None  # while the exchange does not pend: nothing from there on does
    failures: dict[int, int] = {}  # since it pends: how often its handler raised
    due: dict[int, tuple[int, int]] = {}  # not to be handed out before: (earliest, latest)
    handed: dict[int, int] = {}  # how often it was handed out and not given back

    @property
    def done(self) -> int:
        """Without an end while events are copied: use it with a mask."""
        copied = -1 << self.copied_from if self.copied_from is not None else 0
        return self.settled | self.dead | self.skipped | copied

    def copy(self) -> Facts:
        return Facts(
            dict(self.statements),
            self.settled,
            self.dead,
            self.skipped,
            self.copied_from,
            dict(self.failures),
            dict(self.due),
            dict(self.handed),
        )

    def hand_out(self, mask: int) -> None:
        for position in positions(mask):
            self.handed[position] = self.handed.get(position, 0) + 1

    def give_back(self, mask: int) -> None:
        for position in positions(mask):
            self.handed[position] -= 1


class Holder(msgspec.Struct, eq=False):
    """A live instance."""

    join: Join
    room: int  # at most
    heard: int = 0
    silent: bool = False
    leaving: bool = False
    in_hand: int = 0  # a set
    copied: int = 0  # a set


class Held(msgspec.Struct, eq=False):
    """A lease."""

    instance: int
    positions: int
    pends: bool


class PurposeBook:
    def __init__(self, name: Name, facts: Facts) -> None:
        self.name = name
        self.facts = facts
        self.holders: dict[int, Holder] = {}
        self.leases: dict[int, Held] = {}
        self.excused = 0  # in hand when something before it was made pending again
        self.made = 0  # fan-out: copies to be made, and events that nobody was there for

    @property
    def active(self) -> tuple[int, str, str | None]:
        """Version, exchange and key."""
        live = [holder.join.version for holder in self.holders.values() if not holder.leaving]
        version = max(live or self.facts.statements)
        return version, *self.facts.statements[version]

    @property
    def pends(self) -> bool:
        return self.active[1] in PENDING_EXCHANGES

    def note_change(self, end: int) -> None:
        """Somebody came or went: what pends goes on doing so, and what is accepted while the exchange copies never
        does."""
        facts = self.facts
        if not self.pends and facts.copied_from is None:
            facts.copied_from = end
        elif self.pends and facts.copied_from is not None:
            facts.skipped |= (1 << end) - (1 << facts.copied_from)
            facts.copied_from = None

    def pending(self, end: int) -> int:
        return ((1 << end) - 1) & ~self.facts.done

    @property
    def pure_fanout(self) -> bool:
        return all(exchange == "fanout" for exchange, _ in self.facts.statements.values())

    @property
    def in_hand(self) -> int:
        mask = 0
        for held in self.leases.values():
            if held.pends:
                mask |= held.positions
        return mask
