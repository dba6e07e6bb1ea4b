"""What is true of a purpose, as the simulator's `Book` has it: a few numbers.

A set of positions is a whole number here, bit n for position n, so that a copy of the model costs nothing and every
rule is a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import accumulate
from zlib import crc32

import msgspec

from ..core.effects import Join
from ..core.purpose import Purpose
from ..core.spans import Spans
from ..core.state import Snapshot
from .sim_store import Name

PENDING_EXCHANGES = ("direct", "direct:least-busy", "direct:random", "keyed")


class Broken(AssertionError):
    """A rule of the contract does not hold."""


def bits(spans: Spans) -> int:
    mask = 0
    for edge in spans.edges:  # what is below an edge is in or out, by turns
        mask = (1 << edge) - 1 ^ mask
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


Shares = dict[int, float]  # a version -> its part of the events


def _made(id: str) -> float:
    """Return the place of an event whose id was made here: a UUID, with a producer and a number at its end. It is the
    same for four numbers in a row."""
    producer, number = divmod(int(id.replace("-", ""), 16) % 2**62, 2**30)
    return (number // 4 * 0x9E3779B97F4A7C15 + producer * 0xD1B54A32D192ED03 >> 32) % 2**32 / 2**32


def owned(
    splits: Sequence[tuple[int, Shares, str | None]],
    end: int,
    keys: Sequence[tuple[str | None, str | None]],
    ids: Sequence[str],
) -> dict[int, int]:
    """Return which events are in which track, a set for each: by these splits, with the events' keys of both kinds and
    ids."""
    found = dict[int, int]()
    for (start, shares, kind), stop in zip(splits, [*(split[0] for split in splits[1:]), end], strict=False):
        for position in range(start, stop if shares else start):
            key = keys[position][0 if kind is None else 1] or ids[position]
            place = _made(key) if len(key) == 36 else (crc32(key.encode()) * 0x9E3779B97F4A7C15 >> 16) % 2**32 / 2**32
            sums = zip(shares, accumulate(shares.values()), strict=True)
            track = next((version for version, top in sums if place < top), 0)
            found[track] = found.get(track, 0) | 1 << position
    others = 0
    for mask in [mask for track, mask in found.items() if track]:
        others |= mask
    found[0] = ((1 << end) - 1) & ~others
    return found


class Facts(msgspec.Struct):
    """What is true of a purpose: of the live one, and, as of a commit, of the durable one."""

    statements: dict[int, tuple[str, str | None]]
    line: list[int] = []  # the versions that may be current, in the order in which they became so
    wanted: Shares = {}
    shadows: list[int] = []
    given: dict[int, int] = {}  # events that were redriven into a version, by position
    splits: list[tuple[int, Shares, str | None]] = []  # from which position on, who has how much, and the key by which
    settled: int = 0
    dead: int = 0
    skipped: int = 0  # from before it listened, trimmed, or handed out as copies
    copied_from: int | None = None  # while the exchange does not pend: nothing from there on does
    failures: dict[int, int] = {}  # since it pends: how often its handler raised
    due: dict[int, tuple[int, int]] = {}  # not to be handed out before: (earliest, latest)
    handed: dict[int, int] = {}  # how often it was handed out and not given back
    paused: int = 0  # since when
    created_at: int = 0
    # When the process started earliest since then, by the engine's clock; 0 for never. What was later was so at a wrong
    # time, and is corrected.
    started_paused: int = 0
    started_created: int = 0

    @property
    def done(self) -> int:
        """The positions that are done, without an end while events are copied: use it with a mask."""
        copied = -1 << self.copied_from if self.copied_from is not None else 0
        return self.settled | self.dead | self.skipped | copied

    def copy(self) -> Facts:
        return Facts(
            dict(self.statements),
            list(self.line),
            dict(self.wanted),
            list(self.shadows),
            dict(self.given),
            list(self.splits),
            self.settled,
            self.dead,
            self.skipped,
            self.copied_from,
            dict(self.failures),
            dict(self.due),
            dict(self.handed),
            self.paused,
            self.created_at,
            self.started_paused,
            self.started_created,
        )

    def start(self, now: int, earlier: int) -> None:
        """Note that the process starts, with a clock that was set back by `earlier` meanwhile."""
        self.due = {at: (first - earlier, last - earlier) for at, (first, last) in self.due.items()}
        self.started_paused = min(self.started_paused or now, now)
        self.started_created = min(self.started_created or now, now)

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
    copy: bool = False  # for a shadow
    counted: bool = False  # ahead


Verdicts = dict[int, str]  # what was made of an event, by position


class ShadowBook(msgspec.Struct, eq=False):
    """A version that is a shadow from position `since` on."""

    since: int
    given: int = 0  # a set: the copies that it got, and did not give back
    in_hand: int = 0  # a set, of these
    own: Verdicts = {}
    current: Verdicts = {}  # of the current version, the first time
    seen: tuple[int, int, int] = (0, 0, 0)  # how much there was when it was checked last


class PurposeBook:
    def __init__(self, name: Name, facts: Facts) -> None:
        self.name = name
        self.facts = facts
        self.holders: dict[int, Holder] = {}
        self.leases: dict[int, Held] = {}
        self.forgot = False  # some of its versions
        self.excused = 0  # in hand when something before it was made pending again
        self.shadows: dict[int, ShadowBook] = {}
        self.gone: dict[int, int] = {}  # a version with a share and without an instance -> until when it keeps it
        self.made = 0  # fan-out: copies to be made, and events that nobody was there for
        self._owned: tuple[list[tuple[int, Shares, str | None]], int, dict[int, int]] = ([], 0, {0: 0})

    def owned(self, end: int, keys: Sequence[tuple[str | None, str | None]], ids: Sequence[str]) -> dict[int, int]:
        """Return what `owned` returns, and remember the last result: what is in a log does not change."""
        splits, until, found = self._owned
        if end != until or splits != self.facts.splits:
            found = owned(self.facts.splits, end, keys, ids)
            self._owned = list(self.facts.splits), end, found
        if not self.facts.given:
            return found
        given = dict[int, int]()
        for position, version in self.facts.given.items():
            given[-version] = given.get(-version, 0) | 1 << position
        return {track: mask & ~bits_of(self.facts.given) for track, mask in found.items()} | given

    def worker(self, track: int) -> int:
        """Return the version that works on a track."""
        return abs(track) if track in self.shares or track < 0 else self.active[0]

    def rightful(self, owned: dict[int, int], mask: int) -> set[int]:
        """Return the versions that these events belong to: the version whose share has all of them, or else the active
        one."""
        track = next((track for track, its in owned.items() if not mask & ~its), None)
        return {self.worker(track)} if track is not None else set()

    def may_have(self, owned: dict[int, int], mask: int, version: int) -> bool:
        """Return whether these dead letters may be redriven into a version alone."""
        others = {self.worker(track) for track, its in owned.items() if mask & its} - {version}
        return all(self.facts.statements[each][0] != "keyed" for each in (others and others | {version}))

    def redriven(self, owned: dict[int, int], mask: int, version: int) -> None:
        for track, its in owned.items():
            if self.worker(track) != version:
                self.facts.given.update(dict.fromkeys(positions(mask & its), version))

    @property
    def active(self) -> tuple[int, str, str | None]:
        """The active version, its exchange and key."""
        live = [version for version in self.facts.line if self.has(version)]
        heard = [version for version in live if self.is_heard_of(version)]
        version = (heard or live or self.facts.line)[-1]
        return version, *self.facts.statements[version]

    def state(self, join: Join) -> None:
        """Note what a version states when it is first seen. The first of all is current."""
        facts, version = self.facts, join.version
        if version in facts.statements:
            return
        if not facts.line or join.rollout == "newest":
            newest = not facts.line or version > facts.line[-1]
            at = next((at for at, each in enumerate(facts.line) if each > version and not newest), len(facts.line))
            facts.line.insert(at, version)
        elif join.rollout == "shadow":
            facts.shadows = sorted([*facts.shadows, version])
        else:
            self.share(version, 0.0 if join.rollout == "hold" else float(join.rollout))
        facts.statements[version] = (join.exchange, join.key)

    def may_share(self, version: int, share: float) -> bool:
        """Return whether a version may have such a share: another is current, and no more than all is shared."""
        others = sum(part for each, part in self.facts.wanted.items() if each != version)
        return any(each != version for each in self.facts.line) and others + share < 1.000001

    @property
    def is_clear(self) -> bool:
        """Whether no fan-out has a share, is a shadow, or may be current beside either."""
        facts = self.facts
        beside = [*facts.shadows, *(version for version, share in facts.wanted.items() if share)]
        its = {facts.statements[each][0] for each in beside + facts.line}
        return not beside or its.issubset(PENDING_EXCHANGES)

    def share(self, version: int, share: float) -> None:
        facts = self.facts
        facts.line = [each for each in facts.line if each != version]
        facts.wanted = dict(sorted({**facts.wanted, version: share}.items()))
        facts.shadows = [each for each in facts.shadows if each != version]

    def shadow(self, version: int) -> None:
        facts = self.facts
        facts.line = [each for each in facts.line if each != version]
        facts.wanted = {each: part for each, part in facts.wanted.items() if each != version}
        facts.shadows = sorted({*facts.shadows, version})

    def note_shadows(self, end: int) -> None:
        """Begin and end shadows."""
        wanted = self.facts.shadows
        self.shadows = {each: self.shadows.get(each) or ShadowBook(end) for each in wanted}

    def has_copies(self, version: int) -> bool:
        """Return whether a version has a shadow's copies in hand."""
        return any(held.copy and self.holders[held.instance].join.version == version for held in self.leases.values())

    def promote(self, version: int) -> None:
        facts = self.facts
        facts.line = [*(each for each in facts.line if each != version), version]
        facts.wanted = {each: part for each, part in facts.wanted.items() if each != version}
        facts.shadows = [each for each in facts.shadows if each != version]

    @property
    def may_roll_back(self) -> bool:
        return len(self.facts.line) > 1 and not any(self.facts.wanted.values())

    def has(self, version: int) -> bool:
        return any(holder.join.version == version and not holder.leaving for holder in self.holders.values())

    def is_heard_of(self, version: int) -> bool:
        there = [holder for holder in self.holders.values() if holder.join.version == version and not holder.leaving]
        return any(not holder.silent for holder in there)

    @property
    def shares(self) -> Shares:
        """The shares that there are now."""
        return self.facts.splits[-1][1] if self.facts.splits else {}

    def note_shares(self, end: int, now: int, lease_ns: int) -> None:
        """Divide the events anew. A version whose share is wanted keeps it for a lease after its last instance, and
        gets it back with the next."""
        for version in self.facts.wanted:
            if self.is_heard_of(version):
                self.gone.pop(version, None)
            elif version in self.shares and version not in self.gone:
                self.gone[version] = now if self.has(version) else now + lease_ns
        self.split(end, {each: share for each, share in self.facts.wanted.items() if share and self._keeps(each)})

    def _keeps(self, version: int) -> bool:
        return self.is_heard_of(version) or version in self.gone

    def split(self, end: int, shares: Shares) -> None:
        stated = [self.facts.statements[version][1] for version in sorted(shares)] + [self.active[2]]
        key = next((each for each in stated if each is not None), None)
        if shares != self.shares or (shares and self.facts.splits[-1][2] != key):
            self.facts.splits = [split for split in self.facts.splits if split[0] < end] + [(end, shares, key)]

    @property
    def pends(self) -> bool:
        return self.active[1] in PENDING_EXCHANGES

    def note_change(self, end: int) -> None:
        """Note that an instance came or went: what pends goes on pending, and what is accepted while the exchange
        copies never pends."""
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
        return not self.forgot and all(exchange == "fanout" for exchange, _ in self.facts.statements.values())

    @property
    def in_hand(self) -> int:
        mask = 0
        for held in self.leases.values():
            if held.pends:
                mask |= held.positions
        return mask

    def check_times(self, purpose: Purpose) -> None:
        """Check that it is since when it is, and paused since when the operator paused it; or, where a later start was
        before that by its clock, that it is not known since when, and paused since then at the latest."""
        facts, created, paused = self.facts, purpose.main.state.created_at, purpose.paused
        if created != facts.created_at and (created or not 0 < facts.started_created < facts.created_at):
            raise Broken(f"{self.name}: it is since {created}, not {facts.created_at}")
        if paused != facts.paused and not 0 < facts.started_paused <= paused < facts.paused:
            raise Broken(f"{self.name}: it is paused since {paused}, not {facts.paused}")

    def check_hands(self, purpose: Purpose) -> None:
        """Check that everything is in the hands that it is known to be in, and waits for as long as it has to."""
        theirs = {number: bits(lease.positions) for number, lease in purpose.leases.items()}
        ours = {number: held.positions for number, held in self.leases.items()}
        if theirs != ours:
            raise Broken(f"{self.name}: leases are {theirs}, not {ours}")
        for instance, holder in self.holders.items():
            in_hand = purpose.instances[instance].in_flight
            if in_hand != holder.in_hand.bit_count():
                raise Broken(
                    f"{self.name}: instance {instance} has {in_hand} in hand, not {holder.in_hand.bit_count()}"
                )
        waiting = {at: due for track in purpose.tracks.values() for at, due in track.state.due.items()}
        for position, (earliest, latest) in self.facts.due.items():
            due = waiting.get(position, -1)
            if not (earliest <= due <= latest):
                raise Broken(f"{self.name}: {position} is due at {due}, not by {latest}")

    def check_attempts(self, purpose: Purpose, attempts: int) -> None:
        """Check that no event was tried more often than it may be, or than it was handed out."""
        for position, tried in [each for track in purpose.tracks.values() for each in track.state.tried.items()]:
            failures, handed = self.facts.failures.get(position, 0), self.facts.handed.get(position, 0)
            if not (failures <= tried <= handed):
                raise Broken(f"{self.name}: {position} was tried {tried} times, not {failures} to {handed}")
            if tried > attempts:
                raise Broken(f"{self.name}: {position} was tried {tried} times of {attempts}")


def comparable(snapshot: Snapshot, *, turned: bool, earlier: int = 0) -> object:
    """Return what of a snapshot must not change. `turned`: from here on it copies, or no longer does. `earlier`: by how
    much the clock is set back, which what waits follows."""
    pending = (
        snapshot.floor,
        snapshot.done,
        {each.position: (each.tried, each.due - earlier) for each in snapshot.waiting},
        dict(snapshot.tried),
    )
    return (
        {each.version: each for each in snapshot.statements},
        None if turned else pending,
        snapshot.dead,
        snapshot.reach,
        snapshot.settled,
        snapshot.retried,
    )
