"""The versions of a purpose side by side: which is current, which have a share of its events, and which are shadows.

What an operator changes is written down with the purpose, in the record of track 0 (`Rollout`), and holds from the end
of the topic on. How events are divided among tracks follows from it and from which versions have instances.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING

import msgspec

from ..errors import BadArgument, ConflictError, NotAllowed, NotFound
from .purpose import Purpose
from .rollout import Rollout, Split
from .shadows import copies_in_hand
from .spans import Spans
from .state import Change, State, Statement, Totals
from .track import Track

if TYPE_CHECKING:
    from .effects import Join
    from .registry import Registry, Topic

NEVER = 1 << 62  # a position that no topic comes to
GONE = -1  # in place of a position: a timer to see whether the track's version is there
_TINY = 1e-9  # by which the sum of shares may be above 1, since 0.1 is not exactly a tenth


class Versions:
    """What a dispatcher does with the versions of its purposes."""

    def __init__(self, registry: Registry) -> None:
        self._registry = registry

    # What an operator does

    def share(self, topic: str, name: str, version: int, share: float, now: int) -> None:
        """Give a version this share of what is accepted from now on, by key or else by id; with 0 it is held. Raise
        `NotFound`, `BadArgument` for an impossible share, `NotAllowed` where it copies events, and `ConflictError`
        where another one that may be current does, there is not so much left or nobody for the rest, or while it has a
        shadow's copies in hand."""
        purpose = self._stated(topic, name, version)
        line = self._line_without(purpose, version, "the rest of its events")
        wanted = _with_share(purpose, version, share)
        if share:
            self._check_pends(purpose, purpose.statements[version])
            self._check_no_copies(purpose, version)
        self._change(purpose, wanted, line, _shadows(purpose, version), now)

    def shadow(self, topic: str, name: str, version: int, now: int) -> None:
        """Give a version a copy of what the current one gets from now on. Raise `NotFound`, `ConflictError` where
        there is no other version or one that may be current copies events anyway, and `NotAllowed` where it does."""
        purpose = self._stated(topic, name, version)
        line = self._line_without(purpose, version, "it to be a shadow of")
        self._check_pends(purpose, purpose.statements[version])
        wanted = [(each, share) for each, share in purpose.main.state.rollout.wanted if each != version]
        self._change(purpose, wanted, line, sorted([*_shadows(purpose, version), version]), now)

    def promote(self, topic: str, name: str, version: int, now: int) -> None:
        """Make a version the current one. Raise `NotFound`, and `ConflictError` while it has a shadow's copies in
        hand, or where it copies events and another one has a share or is a shadow."""
        purpose = self._stated(topic, name, version)
        self._check_no_copies(purpose, version)
        wanted = [(each, share) for each, share in purpose.main.state.rollout.wanted if each != version]
        line = [*(each for each in purpose.line if each != version), version]
        self._change(purpose, wanted, line, _shadows(purpose, version), now)

    def rollback(self, topic: str, name: str, now: int) -> None:
        """Make the version current that was so before; the present one gets nothing more. Raise `NotFound`, and
        `ConflictError` where there was none, or while another version has a share."""
        purpose = self._registry.purpose(topic, name)
        ramping = [version for version, share in purpose.main.state.rollout.wanted if share]
        if ramping:
            raise ConflictError(
                f"expected purpose {name!r} on topic {topic!r} to have no version with a share, got version "
                f"{ramping[0]}: share 0 takes it away, and leaves version {purpose.active.version} current"
            )
        *line, last = purpose.line
        if not line:
            raise ConflictError(
                f"expected purpose {name!r} on topic {topic!r} to have a version that was current before version "
                f"{last}, got none: promote another one"
            )
        self._change(purpose, purpose.main.state.rollout.wanted, line, _shadows(purpose), now)

    def _stated(self, topic: str, name: str, version: int) -> Purpose:
        purpose = self._registry.purpose(topic, name)
        if version not in purpose.statements:
            known = ", ".join(map(str, sorted(purpose.statements)))
            what = f"a version of purpose {name!r} on topic {topic!r}"
            raise NotFound(f"expected {what}, one of {known}, got {version}, which never joined or was forgotten since")
        return purpose

    def _line_without(self, purpose: Purpose, version: int, why: str) -> list[int]:
        """Return the line of the others. Raise `ConflictError` where there are none."""
        line = [each for each in purpose.line if each != version]
        if not line:
            raise ConflictError(
                f"expected another version of purpose {purpose.name!r} on topic {purpose.topic!r} that may be current, "
                f"for {why}, got only version {version}: give another one a share, or promote it"
            )
        return line

    def _check_no_copies(self, purpose: Purpose, version: int) -> None:
        """Refuse a version that has a shadow's copies in hand: what it does with them counts for nothing."""
        if copies := copies_in_hand(purpose, version):
            raise ConflictError(
                f"expected version {version} of purpose {purpose.name!r} on topic {purpose.topic!r} to have no copies "
                f"in hand, got {copies} that it has as a shadow: hold it with a share of 0, so that it gets no more, "
                "and try again once it is done with them"
            )

    def _copies(self, statement: Statement) -> bool:
        exchange = self._registry.exchanges.lookup(statement.exchange)
        return exchange is not None and not exchange.pends

    def _check_pends(self, purpose: Purpose, statement: Statement) -> None:
        """Refuse a version that copies events: each of its instances gets all."""
        if self._copies(statement):
            raise NotAllowed(
                f"expected a version of {purpose.name!r} on topic {purpose.topic!r} whose events pend, got version "
                f"{statement.version} with exchange {statement.exchange!r}, whose instances get all that comes"
            )

    def _check_undivided(
        self, purpose: Purpose, wanted: list[tuple[int, float]], line: list[Statement], shadows: list[int]
    ) -> None:
        """Refuse that a version that copies events may be current beside a share or a shadow: what is copied is neither
        divided nor compared."""
        beside = sorted([*(version for version, share in wanted if share), *shadows])
        copying = next((each for each in line if self._copies(each)), None) if beside else None
        if copying is not None:
            raise ConflictError(
                f"expected purpose {purpose.name!r} on topic {purpose.topic!r} to have no version with a share and no "
                f"shadow while one whose events do not pend may be current, got version {beside[0]} beside version "
                f"{copying.version} with exchange {copying.exchange!r}: hold one of the two, with a share of 0"
            )

    def _change(
        self, purpose: Purpose, wanted: list[tuple[int, float]], line: list[int], shadows: list[int], now: int
    ) -> None:
        registry, before = self._registry, purpose.main.state.rollout
        rollout = _rollout(before.splits, wanted, line, shadows, purpose.statements)
        self._check_undivided(purpose, wanted, [purpose.statements[each] for each in line], shadows)
        if rollout != before:
            registry.change(purpose.main, Change(*purpose.main.key, rollout=rollout))
            registry.note_change(registry.topics[purpose.topic], purpose, now)
            registry.further_partitions(purpose, now)

    def redriven(self, purpose: Purpose, positions: Spans, version: int) -> dict[Track, Change]:
        """Return the changes that hand dead letters to this version alone, whichever is at work where they died. These
        have a track of their own, of which all is done that was never redriven into the version. Raise `NotFound`, and
        `NotAllowed` for a version that copies events, or where another one keeps the order of keys."""
        target = self._stated(*purpose.key, version).statements[version]
        self._check_pends(purpose, target)
        changes, moved = dict[Track, Change](), Spans()
        for track in purpose.tracks.values():
            dead = track.state.dead.common(positions)
            if not dead or track.statement.version == version:
                continue
            for each in (target, track.statement):
                exchange = self._registry.exchanges.lookup(each.exchange)
                if exchange is not None and exchange.keyed:
                    raise NotAllowed(
                        f"expected to redrive into version {track.statement.version} of {purpose.name!r} on topic "
                        f"{purpose.topic!r}, which gets its events now, since version {each.version} keeps the order "
                        f"of keys, got version {version}: promote that one first"
                    )
            moved.update(dead)
            changes[track] = Change(*track.key, discarded=dead.edges)
        if moved:
            its = purpose.tracks.get(-version)
            its = its or self._registry.create_track(purpose, State(*purpose.key, -version), NEVER)
            moved.update(its.state.dead.common(positions))
            changes[its] = Change(*its.key, redriven=moved.edges)
        return changes

    # A version that is new

    def first_seen(self, purpose: Purpose, statement: Statement, join: Join) -> Rollout | None:
        """Return the rollout with a version that was not seen before, None where it stays as it is. Raise what `share`,
        `shadow` and `promote` raise."""
        before, version, stated = purpose.main.state.rollout, statement.version, join.rollout
        shadows = before.shadows
        if stated == "shadow":
            self._check_pends(purpose, statement)
            wanted, line, shadows = before.wanted, purpose.line, sorted([*shadows, version])
        elif stated == "hold" or isinstance(stated, float):
            share = stated if isinstance(stated, float) else 0.0
            if share:
                self._check_pends(purpose, statement)
            wanted, line = _with_share(purpose, version, share), purpose.line
        else:
            line = purpose.line
            at = next((at for at, each in enumerate(line) if each > version), len(line))
            at = len(line) if version > line[-1] else at
            wanted, line = before.wanted, [*line[:at], version, *line[at:]]
        known = {**purpose.statements, version: statement}
        self._check_undivided(purpose, wanted, [known[each] for each in line], shadows)
        rollout = _rollout(before.splits, wanted, line, shadows, known)
        return rollout if rollout != before else None

    def forget(self, purpose: Purpose, end: int) -> None:
        """Forget versions where too many are known, those first that joined first: of the ones that have no instance,
        share or event left, and are not among the last two that may be current. One that joins again is new."""
        state, registry = purpose.main.state, self._registry
        excess = len(state.statements) - registry.limits.versions
        if excess <= 0:
            return
        rollout, splits = state.rollout, _needed(purpose, end)
        splits = splits if splits[-1:] == rollout.splits[-1:] else [*splits, rollout.splits[-1]]  # it holds from now on
        needed = {purpose.active.version, *purpose.line[-2:], *purpose.gone}
        needed.update(instance.version for instance in purpose.instances.values())
        needed.update(version for version, share in rollout.wanted if share)
        needed.update(version for split in splits for version, _ in split.shares)
        needed.update(abs(track.number) for track in purpose.tracks.values() if not track.is_over(end))
        *earlier, _ = state.statements
        over = [version for version in earlier if version not in needed][:excess]
        if not over:
            return
        tracks = [purpose.tracks.pop(each) for each in (*over, *(-each for each in over)) if each in purpose.tracks]
        after = _rollout(
            splits,
            [each for each in rollout.wanted if each[0] not in over],
            [each for each in purpose.line if each not in over],
            [each for each in rollout.shadows if each not in over],
            state.statements.keys() - over,
        )
        ended = Totals(
            sum([track.state.settled for track in tracks]),
            sum([track.state.retried for track in tracks]),
            sum([track.state.expired for track in tracks]),
            max([track.state.died_at for track in tracks], default=0),
        )
        purpose.main.key_missing += sum([track.key_missing for track in tracks])
        registry.change(purpose.main, Change(*purpose.main.key, rollout=after, forgotten=over, ended=ended))
        purpose.forget(over)
        for track in tracks:
            if purpose.limiter is not None:
                purpose.limiter.waiting.pop(track, None)
            registry.end_track(track)

    # How events are divided

    def note_change(self, topic: Topic, purpose: Purpose, now: int) -> None:
        """Divide events anew, and begin and end shadows, where that has changed. A version without an instance
        keeps its share for as long as its last one's lease, and has it again when there is one."""
        state, before = purpose.main.state, purpose.shares
        if state.rollout.shadows or purpose.shadows:
            self._registry.shadows.note_change(purpose, topic.end)
        if not state.rollout.wanted and not before:
            return
        for version, _ in state.rollout.wanted:
            if purpose.is_heard_of(version):
                purpose.gone.pop(version, None)
            elif version in before and version not in purpose.gone:
                left = 0 if purpose.live[version] else purpose.lease_ns.get(version, 0)  # a silent one's is over
                when = purpose.gone[version] = now + left
                self._registry.wake(when, purpose.tracks[version], GONE)
        shares = [
            (version, share)
            for version, share in state.rollout.wanted
            if share and (purpose.is_heard_of(version) or version in purpose.gone)
        ]
        splits = state.rollout.splits
        if shares != list(before.items()) or (shares and splits[-1].key != purpose.key_of_shares(shares)):
            self.begin_split(topic, purpose, shares)

    def begin_split(self, topic: Topic, purpose: Purpose, shares: list[tuple[int, float]]) -> None:
        """Divide events so from the topic's end on. Nothing that was accepted before goes to another track."""
        state, registry = purpose.main.state, self._registry
        for version, _ in shares:
            if version not in purpose.tracks:
                registry.create_track(purpose, State(topic.name, purpose.name, version), topic.end)
        splits = [*_needed(purpose, topic.end), Split(topic.end, shares, purpose.key_of_shares(shares))]
        rollout = msgspec.structs.replace(state.rollout, splits=splits)
        registry.change(purpose.main, Change(*purpose.main.key, rollout=rollout))
        for track in purpose.all_tracks:
            if track.note_split():
                registry.change(track, Change(*track.key))

    def look_for_gone(self, track: Track, when: int) -> Collection[Track]:
        """Divide the share of the track's version among the others if none of its instances has come back by now.
        Return the tracks that are to be handed out then."""
        purpose = track.purpose
        if purpose.gone.get(track.number) != when:
            return ()
        del purpose.gone[track.number]
        self._without(purpose, track.number)
        self._registry.note_alone(purpose, when)
        return purpose.tracks.values()

    def recovered(self, purpose: Purpose) -> None:
        """Take the shares away until instances join: a version has its share again with its first one. A shadow gets
        what is accepted from now on."""
        self._registry.shadows.note_change(purpose, self._registry.topics[purpose.topic].end)
        if purpose.shares:
            self._without(purpose, *purpose.shares)

    def _without(self, purpose: Purpose, *versions: int) -> None:
        topic = self._registry.topics[purpose.topic]
        shares = [(version, share) for version, share in purpose.shares.items() if version not in versions]
        self.begin_split(topic, purpose, shares)
        for track in purpose.tracks.values():
            self._registry.note_exchange(topic, track)


def _with_share(purpose: Purpose, version: int, share: float) -> list[tuple[int, float]]:
    """Return the shares that are wanted with that of a version. Raise `BadArgument` for an impossible share, and
    `ConflictError` where there is not so much left."""
    wanted = dict(purpose.main.state.rollout.wanted)
    wanted.pop(version, None)
    others, got = sum(wanted.values()), f"got {share:.6g} for version {version} of {purpose.name!r}"
    if not 0 <= share <= 1:
        raise BadArgument(f"expected a share of 0 to 1, {got}")
    if others + share > 1 + _TINY:
        raise ConflictError(
            f"expected a share of 0 to {1 - others:.6g}, which is what is left beside other versions, {got}"
        )
    return sorted([*wanted.items(), (version, share)])


def _needed(purpose: Purpose, end: int) -> list[Split]:
    """Return the splits that something is left of."""
    needed, stop = list[Split](), end
    for split in reversed(purpose.main.state.rollout.splits):
        if any(track.state.has_left(split.since, stop) for track in purpose.all_tracks):
            needed.insert(0, split)
        stop = split.since
    return needed


def _shadows(purpose: Purpose, without: int = 0) -> list[int]:
    """Return the shadows, without one of them."""
    return [version for version in purpose.main.state.rollout.shadows if version != without]


def _rollout(
    splits: list[Split],
    wanted: list[tuple[int, float]],
    line: list[int],
    shadows: list[int],
    known: Collection[int],
) -> Rollout:
    """Return a rollout, whose line is empty where it follows from the versions that are known."""
    plain = sorted({*known}.difference(shadows, (version for version, _ in wanted)))
    return Rollout(wanted, splits, [] if line == plain else line, shadows)
