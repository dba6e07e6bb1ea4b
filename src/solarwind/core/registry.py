"""Topics, purposes and instances: how they join and leave, what operators do to them, and how all of it is recovered
after a restart. What happens to events is in `dispatcher`, which builds on this.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from heapq import heappush
from typing import TYPE_CHECKING

import msgspec

from ..errors import Busy, ConflictError, NotAllowed
from ..limits import Limits
from ..names import no_purpose
from .deaths import Deaths
from .effects import Closed, Effect, Fault, Join
from .exchange import Exchanges
from .facts import Note
from .instance import Instance
from .log import Log, Stored
from .process import Process
from .purpose import Purpose
from .rates import Rates, RecentRate
from .spans import Spans
from .state import Change, Creation, Snapshot, State, Statement, recovered
from .track import Track

if TYPE_CHECKING:
    from .copies import Copies
    from .crashes import Crashes
    from .delay import Delays
    from .shadows import Shadows
    from .versions import Versions


class Topic(msgspec.Struct, eq=False):
    """A topic, and the purposes on it. `keep_ns` is how long it keeps events that nothing pends on."""

    name: str
    keep_ns: int
    keep_bytes: int | None = None
    end: int = 0  # the position of the next event
    unkept: int = 0  # events accepted and dropped at once
    asked: dict[int, int] = msgspec.field(default_factory=dict)  # position to fetch -> the end when it was asked for
    purposes: dict[str, Purpose] = msgspec.field(default_factory=dict)
    behind: int = 0  # batches that are accepted, but not all purposes have got yet
    rates: Rates | None = None


class Registry:
    """The part of a dispatcher that knows topics, purposes and instances."""

    copies: Copies  # of fan-outs
    crashes: Crashes  # what is done after one
    delays: Delays  # of purposes
    shadows: Shadows  # versions that get copies of what the current one gets
    versions: Versions  # which is current, and which have shares

    def __init__(
        self,
        log: Log,
        random: Callable[[], float],
        *,
        keep_ns: int,
        durable: bool,
        limits: Limits | None = None,
        home: str = "",
        exchanges: Exchanges | None = None,
        wall: Callable[[int], int] = lambda now: now,
        owns: Callable[[str], bool] = lambda topic: True,
    ) -> None:
        """`wall` returns the wall clock's time, by which events expire, in ns since 1970; by default `now`. `exchanges`
        are those that it hands out by; by default the ones that come with Solar Wind. `keep_ns` is for topics whose
        history has no setting of its own; `durable` says whether changes are committed to something that survives the
        process, which is `home` (see `Join.process`). Of a topic that it does not own another dispatcher knows the
        purposes and the history."""
        self.topics: dict[str, Topic] = {}
        self.instances: dict[int, tuple[Instance, Purpose]] = {}
        # Those of whose events some have no instance at work, and since when; 0 since before this dispatcher.
        self.alone: dict[Purpose, int] = {}
        self.exchanges = exchanges or Exchanges()
        self.limits = limits or Limits()
        self.log = log
        self.random = random
        self.wall = wall
        self.owns = owns
        self._keep_ns = keep_ns
        self.durable = durable
        self._home = home
        self._processes: dict[str, Process] = {}
        self.effects: list[Effect] = []  # that are to be carried out next
        self.changes: list[Change] = []  # that are to be committed next
        self.notes: list[Note] = []  # likewise
        self.deaths = Deaths(self)
        # (when, n, of a retry its track and position, of a lease its instance, of held copies their purpose)
        self._timers: list[tuple[int, int, Track | Instance | Purpose, int]] = []
        self._number = 0
        self._purposes = 0
        self._creating: Counter[tuple[str, str, int]] = Counter()  # tracks, until they are durable
        # What is put off, so that others get their turn: batches, with the purposes that are still to get them, the
        # first last; and purposes that look for what they can hand out.
        self._put_off: deque[tuple[Topic, Stored, list[Purpose]]] = deque()
        self._looking: dict[Track, None] = {}

    def further_partitions(self, purpose: Purpose, now: int, fresh: Stored | None = None) -> None:
        """Hand out what the purpose has, as far as its instances have room; `fresh` is what was just accepted."""
        raise NotImplementedError

    def exchange(self, track: Track, now: int) -> None:
        """Hand out what the track has, as far as its instances have room."""
        raise NotImplementedError

    def remove_instance(self, purpose: Purpose, instance: Instance, now: int, *, died: bool) -> None:
        """Take an instance's events from it."""
        raise NotImplementedError

    # Topics and purposes ------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """Return the topic of that name, which is made if it is new."""
        topic = self.topics.get(name)
        if topic is None:
            if len(self.topics) >= self.limits.names:
                raise Busy(
                    f"expected no more than {self.limits.names:,} topics, got another: {name!r}: raise Limits.names"
                )
            topic = self.topics[name] = Topic(name, self._keep_ns)
        return topic

    def purpose(self, topic_name: str, name: str) -> Purpose:
        """Return a purpose. Raise `NotFound` where it does not exist."""
        topic = self.topics.get(topic_name)
        if topic is None or name not in topic.purposes:
            raise no_purpose(topic_name, name, topic.purposes if topic is not None else ())
        return topic.purposes[name]

    def join(self, join: Join, since: int, now: int) -> int:
        """Register an instance, and its purpose if it is new: that one listens from position `since` on, or from now on
        where its events do not pend. Return the instance's number. Raise `BadArgument` for an unknown exchange, and
        `ConflictError` for a statement that contradicts an earlier one of the same version."""
        self.exchanges.check(join.exchange, join.key, join.key_missing)
        topic = self.topic(join.topic)
        purpose = topic.purposes.get(join.purpose)
        before = purpose.statements.get(join.version) if purpose is not None else None
        statement = Statement.of(join, before, now)
        if purpose is None:
            purpose = self._create(topic, join.purpose, statement, since, now)
        elif statement != before:
            self._state(purpose, statement, before, join)
        process = self._process(join.process)
        instance = Instance(
            self.next_number(),
            join,
            join.room,
            self.limits.in_hand_bytes,
            process,
            purpose.times_of(join.version),
            joined_at=now,
            heard_at=now,
            rate=RecentRate(now),
        )
        purpose.add(instance)
        process.instances[instance.id] = (instance, purpose)
        self.note_change(topic, purpose, now)
        self.instances[instance.id] = (instance, purpose)
        self.further_partitions(purpose, now)
        return instance.id

    def _process(self, name: str) -> Process:
        if not name:
            return Process()
        if name not in self._processes:
            self._processes[name] = Process(name, home=name == self._home)
        return self._processes[name]

    def _leave_process(self, instance: Instance) -> None:
        del instance.process.instances[instance.id]
        self._forget_process(instance.process)

    def _forget_process(self, process: Process) -> None:
        """Forget a process unless something about it must be kept."""
        if not process.instances and process.last_end is None:
            self._processes.pop(process.name, None)

    def _create(self, topic: Topic, name: str, statement: Statement, since: int, now: int) -> Purpose:
        if self._purposes >= self.limits.names:
            raise Busy(
                f"expected no more than {self.limits.names:,} purposes, got another: {name!r}: raise Limits.names"
            )
        self._purposes += 1
        purpose = Purpose(topic.name, name, self.exchanges)
        state = State(topic.name, name)
        exchange = self.exchanges.lookup(statement.exchange)
        if exchange is not None and not exchange.pends:
            change = Change(topic.name, name, created=Creation(topic.end, now), copied_from=topic.end)
        else:
            change = Change(topic.name, name, created=Creation(since, now))
        change.stated = [statement]
        state.apply(change)
        self.changes.append(change)
        topic.purposes[name] = purpose
        self.add_track(purpose, state, reached=-1)
        self._creating[purpose.main.key] += 1
        return purpose

    def add_track(self, purpose: Purpose, state: State, *, reached: int) -> Track:
        track = Track(purpose, state, reached=reached if self.durable else None, limits=self.limits)
        return purpose.tracks.setdefault(state.track, track)

    def create_track(self, purpose: Purpose, state: State, since: int) -> Track:
        """Add a track for a version's own events, from there on, and return it."""
        track = self.add_track(purpose, state, reached=-1)
        self._creating[track.key] += 1
        self.change(track, Change(*track.key, created=Creation(since)))
        return track

    def end_track(self, track: Track) -> None:
        """Forget a track."""
        track.retrying.clear()  # so that its timers find nothing to do
        track.errors.clear()
        track.delay = None
        track.last_attempts.clear()
        self._looking.pop(track, None)
        self.changes.append(Change(*track.key, retired=True))

    def _state(self, purpose: Purpose, statement: Statement, before: Statement | None, join: Join) -> None:
        rollout = self.versions.first_seen(purpose, statement, join) if before is None else None
        if before is not None and not before.agrees_with(statement):
            raise ConflictError(
                f"version {statement.version} of purpose {purpose.name!r} on topic {purpose.topic!r} stated "
                f"{before}, this instance states {statement}: state the same, register for a purpose of your "
                f"own, or join as a new version (version={max(purpose.statements) + 1}), which gets all that comes then"
            )
        self.change(purpose.main, Change(*purpose.key, stated=[statement], rollout=rollout))
        if before is None:
            self.versions.forget(purpose, self.topics[purpose.topic].end)

    def note_change(self, topic: Topic, purpose: Purpose, now: int) -> None:
        """Note that an instance came, leaves or went, so that another exchange may be at work. From where on events are
        copied, and do not pend, is remembered; what pends at that moment goes on pending."""
        self.versions.note_change(topic, purpose, now)
        for track in purpose.tracks.values():
            self.note_exchange(topic, track)
        self.note_alone(purpose, now)

    def note_alone(self, purpose: Purpose, now: int) -> None:
        """Note whether some of its events have no instance at work."""
        end = self.topics[purpose.topic].end
        tracks = purpose.tracks.values()
        if all(track.instances or (track.number < 0 and not track.not_done(end)) for track in tracks):
            self.alone.pop(purpose, None)
        else:
            self.alone.setdefault(purpose, now)

    def note_silent(self, purpose: Purpose, instance: Instance, now: int, *, silent: bool) -> None:
        """Note that an instance is silent or heard of again: its version may be without any."""
        purpose.note_silent(instance, silent)
        self.note_change(self.topics[purpose.topic], purpose, now)

    def note_exchange(self, topic: Topic, track: Track) -> None:
        """Note whether the track's events are copied or pend from now on, and after which delay."""
        exchange, state = track.exchange, track.state
        pends, copies = exchange is None or exchange.pends, state.copied_from is not None
        if pends and copies:
            until = topic.end if state.copied_to is None else state.copied_to  # what waited for the delay pends
            self.change(track, Change(*track.key, copied_until=until))
        elif not pends and not copies:
            pending = track.not_done(topic.end)
            self.change(track, Change(*track.key, copied_from=topic.end))
            if pending:
                statement, purpose = track.statement, track.purpose
                earlier = "an earlier event stays" if pending == 1 else f"{pending:,} earlier events stay"
                self.fault(
                    f"version {statement.version} of purpose {purpose.name!r} on topic {topic.name!r} states exchange "
                    f"{statement.exchange!r}, which hands out only what is fired from now on: {earlier} pending "
                    "until the highest version that has an instance is one whose exchange pends",
                    "exchange",
                    *purpose.key,
                )
        if track.delay is not None or track.statement.delay_ns or state.copied_to is not None:
            self.delays.note_change(track, topic.end)

    def leaving(self, instances: Iterable[int], now: int) -> None:
        """Hand these instances nothing more; what they have begun they may still report."""
        touched: dict[Purpose, None] = {}
        for instance, purpose in [self.instances[each] for each in instances if each in self.instances]:
            purpose.begin_leaving(instance)
            purpose.dropped += instance.copied
            instance.copies = None
            instance.copied = instance.copied_bytes = 0
            touched[purpose] = None
        for purpose in touched:
            self.note_change(self.topics[purpose.topic], purpose, now)
            self.further_partitions(purpose, now)

    def leave(self, instance_id: int, now: int, *, died: bool = False) -> None:
        """Remove an instance; what it had in hand is handed out again. With `died`, it did not leave by itself."""
        found = self.instances.pop(instance_id, None)
        if found is not None:
            instance, purpose = found
            purpose.remove(instance)
            self.note_change(self.topics[purpose.topic], purpose, now)
            purpose.dropped += instance.copied
            self.remove_instance(purpose, instance, now, died=died)
            self._leave_process(instance)
            if instance.process.closed:
                self.crashes.proceed(instance.process, now)
            self.further_partitions(purpose, now)

    def retire(self, topic_name: str, name: str, now: int, *, force: bool) -> None:
        """Forget a purpose. Raise `ConflictError`, unless forced, while it is paused, while events pend, or while
        instances are at work for it."""
        purpose = self.purpose(topic_name, name)
        if purpose.paused and not force:
            raise ConflictError(
                f"expected purpose {name!r} on topic {topic_name!r} not to be paused, got one that is: "
                "resume it first, or retire it with force"
            )
        if not force:
            left = purpose.left(self.topics[topic_name].end)
            if left:
                raise ConflictError(
                    f"expected purpose {name!r} on topic {topic_name!r} to have nothing left, "
                    f"got {' and '.join(left)}: "
                    "settle, redrive or discard them and stop its instances, or retire it with force"
                )
        for instance in purpose.instances.values():
            self.effects.append(Closed(instance.id, f"purpose {name!r} on topic {topic_name!r} was retired"))
            del self.instances[instance.id]
            self._leave_process(instance)
        for lease in purpose.leases.values():
            lease.instance.remove_events(lease, len(lease.positions))
        processes = {id(each.process): each.process for each in purpose.instances.values() if each.process.closed}
        purpose.instances.clear()
        purpose.live.clear()
        purpose.shadows.clear()
        purpose.note_change()
        purpose.held = purpose.limiter = None
        purpose.gone.clear()
        for track in purpose.tracks.values():
            self.end_track(track)
        del self.topics[topic_name].purposes[name]
        self.alone.pop(purpose, None)
        self._purposes -= 1
        for process in processes.values():
            self.crashes.proceed(process, now)

    # What an operator does ----------------------------------------------------------------------------

    def pause(self, topic_name: str, name: str, now: int) -> None:
        """Hand out nothing more of a purpose until it is resumed. What instances have in hand stays with them; what
        pends goes on pending, and what a fan-out has in its instances' buffers waits there. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        if not purpose.paused:
            self._set_paused(purpose, now, now)

    def resume(self, topic_name: str, name: str, now: int) -> None:
        """Go on handing out a purpose that was paused. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        if purpose.paused:
            self._set_paused(purpose, 0, now)
            for instance in purpose.instances.values():
                self.copies.drain(instance, now)

    def _set_paused(self, purpose: Purpose, paused: int, now: int) -> None:
        self.change(purpose.main, Change(*purpose.main.key, paused=paused))
        purpose.note_change()
        self.note_alone(purpose, now)
        self.further_partitions(purpose, now)  # also where it is paused: its last attempts hold up no process

    def replay(
        self,
        topic_name: str,
        name: str,
        since: int,
        until: int,
        now: int,
        *,
        only: Spans | None = None,
        dry: bool = False,
    ) -> int:
        """Make what is done, from position `since` up to `until`, pend again: all of it, or `only` these positions.
        Return how many events that are; with `dry` that is all. Where versions have shares it is a lower bound: what
        one has done and another has not come past yet is replayed, and not counted, since a track does not know whose
        the events before it are."""
        purpose = self.purpose(topic_name, name)
        if not purpose.exchange_pends:
            raise NotAllowed(
                f"expected a purpose whose events pend, got {name!r} on topic {topic_name!r} with exchange "
                f"{purpose.active.exchange!r}: its events are dropped, "
                "not kept for replay"
            )
        until = min(until, self.topics[topic_name].end)

        def chosen(spans: Spans) -> Spans:
            return spans if only is None else spans.common(only)

        pending, reopened = Spans(), dict[Track, Change]()
        redriven = Spans()  # into a version, and not done there
        for track in [each for each in purpose.tracks.values() if each.number < 0]:
            redriven.update(track.state.pending(until).within(since, until))
            if dead := chosen(track.state.dead.within(since, until)):
                reopened[track] = Change(*track.key, discarded=dead.edges)
        for track in [each for each in purpose.tracks.values() if each.number >= 0 and each.state.copied_from is None]:
            its = track.state.pending(until).within(since, until)
            pending.update(its)
            spans = its.outside(since, until)
            spans.difference_update(redriven)
            if spans := chosen(spans):
                reopened[track] = Change(*track.key, reopened=spans.edges)
        pending.update(redriven)
        if not dry:
            self._reopen(purpose, reopened, now)
        return len(chosen(pending.outside(since, until)))

    def redrive(self, topic_name: str, name: str, positions: Spans, now: int, version: int | None = None) -> int:
        """Hand dead letters out again, as if they had never been tried: to the version that works on the track where
        they died, or to this one alone. Return how many; other positions are ignored. Raise `NotFound`, and
        `NotAllowed` where that version may not have them."""
        purpose, count, reopened = self.purpose(topic_name, name), 0, dict[Track, Change]()
        if version is not None:
            reopened = self.versions.redriven(purpose, positions, version)
        for track in purpose.tracks.values():
            spans = track.state.dead.common(positions)
            count += len(spans)
            if spans and track not in reopened:
                reopened[track] = Change(*track.key, redriven=spans.edges)
        self._reopen(purpose, reopened, now)
        self.note_alone(purpose, now)
        return count

    def _reopen(self, purpose: Purpose, reopened: dict[Track, Change], now: int) -> None:
        """Let these events pend again in all tracks before anything is handed out: the order per key holds across
        tracks."""
        for track, change in reopened.items():
            self.change(track, change)
        for track in purpose.tracks.values() if reopened else ():
            track.rewind()
        if reopened:
            self.further_partitions(purpose, now)

    def retry_now(self, topic_name: str, name: str, now: int, *, dry: bool = False) -> int:
        """End the waits of the events that wait for a retry. Return how many these are; with `dry` that is all. It is
        as when they are over: nothing of it is written down. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        count = sum(len(track.retrying) for track in purpose.tracks.values())
        if count and not dry:
            for track in purpose.tracks.values():
                track.end_waits()
            self.further_partitions(purpose, now)
        return count

    def discard(self, topic_name: str, name: str, positions: Spans) -> int:
        """Forget dead letters. Return how many."""
        count = 0
        for track in self.purpose(topic_name, name).tracks.values():
            spans = track.state.dead.common(positions)
            if spans:
                self.change(track, Change(*track.key, discarded=spans.edges))
            count += len(spans)
        return count

    # Changes and effects ------------------------------------------------------------------------------

    def change(self, track: Track, change: Change) -> None:
        """Apply a change to a track, and have it committed unless that is a shadow's. Other tracks may have waited for
        it, so that keys stay in order."""
        change = track.apply(change)
        if track.shadow is not None:
            return
        self.changes.append(change)
        if change.dead:
            self.deaths.note(track, change.dead)
        if len(track.purpose.tracks) > 1:
            for other in track.purpose.tracks.values():
                if other.blocked and other is not track:
                    other.blocked = False
                    self._looking[other] = None

    def put_off(self, track: Track) -> None:
        """Go on with a track in another turn, so that others have theirs."""
        self._looking[track] = None

    def fault(self, text: str, *about: str) -> None:
        """Log a fault, once for each `about`."""
        self.effects.append(Fault(text, about))

    def pop_changes(self) -> list[Change]:
        """Remove and return what has changed since the last call, for the next commit."""
        changes, self.changes = self.changes, []
        return changes

    def pop_notes(self) -> list[Note]:
        """Remove and return what instances made of events since the last call, for the next commit."""
        notes, self.notes = self.notes, []
        return notes

    def committed(self, changes: Sequence[Change], now: int) -> None:
        """Note that these changes are durable."""
        for process in self.crashes.ends_durable(changes):
            self.crashes.proceed(process, now)
            self._forget_process(process)
        for change in changes:
            if change.reach or change.created is not None or change.copied_to is not None:
                topic = self.topics.get(change.topic)
                purpose = topic.purposes.get(change.purpose) if topic is not None else None
                track = purpose.tracks.get(change.track) if purpose is not None else None
                if self._is_own(change) and track is not None and track.reached is not None:
                    since = change.created.since if change.created is not None else 0
                    track.reached = max(track.reached, change.reach, since)
                    if change.copied_to is not None:
                        self.delays.hand_out(track, change.copied_to, now)
                    self.exchange(track, now)

    def _is_own(self, change: Change) -> bool:
        """Return whether a change that became durable is of the present purpose, not of a retired one of the same
        name."""
        name = (change.topic, change.purpose, change.track)
        if change.created is not None:
            self._creating[name] -= 1
            if not self._creating[name]:
                del self._creating[name]
        return name not in self._creating

    def pop_effects(self) -> list[Effect]:
        """Remove and return what is to be done since the last call, in order."""
        effects, self.effects = self.effects, []
        return effects

    def wake(self, when: int, about: Track | Instance | Purpose, position: int = 0) -> None:
        """Have `tick` look at something at that time."""
        heappush(self._timers, (when, self.next_number(), about, position))

    def next_number(self) -> int:
        self._number += 1
        return self._number

    # Recovery -----------------------------------------------------------------------------------------

    def recover(
        self,
        snapshots: Iterable[Snapshot],
        changes: Iterable[Change],
        *,
        clean: bool,
        now: int,
        earlier: int = 0,
    ) -> None:
        """Recover what a store remembers, before any instance joins; topics were made already. Unless the last writer
        stopped cleanly, everything that may have been in a handler is suspect. `earlier`: by how many ns the clock was
        set back to `now` meanwhile."""
        for state in recovered(snapshots, changes):
            if change := state.set_back(earlier, now):
                self.changes.append(change)
            topic = self.topic(state.topic)
            purpose = topic.purposes.get(state.purpose)
            if purpose is None:
                purpose = topic.purposes[state.purpose] = Purpose(state.topic, state.purpose, self.exchanges)
                self._purposes += 1
            track = self.add_track(purpose, state, reached=state.reach)
            self.note_exchange(topic, track)
            track.suspects = state.unended() if clean else state.pending(min(state.reach, topic.end))
            for position, due in state.due.items():
                self.wake(due, track, position)
            if track.delay is not None:
                self.put_off(track)
        for topic in self.topics.values():
            for purpose in topic.purposes.values():
                self.alone[purpose] = 0
                self.versions.recovered(purpose)
                if purpose.main.state.rollout.splits:  # what its tracks had passed last is not written down
                    self._looking.update(dict.fromkeys(purpose.tracks.values()))

    # How it stands ------------------------------------------------------------------------------------

    def goes_on(self, join: Join) -> bool:
        """Return whether an instance that joins so goes on with what pends, wherever the topic's end is by now."""
        topic = self.topics.get(join.topic)
        purpose = topic.purposes.get(join.purpose) if topic is not None else None
        return purpose is not None and purpose.exchange_pends and purpose.active.exchange == join.exchange

    def has_work(self, topic_name: str, name: str) -> bool:
        """Return whether a purpose has anything in flight or pending."""
        topic = self.topics.get(topic_name)
        purpose = topic.purposes.get(name) if topic is not None else None
        return (
            topic is not None
            and purpose is not None
            and bool(topic.behind or purpose.in_flight or purpose.pending(topic.end))
        )

    @property
    def in_flight(self) -> bool:
        """Whether any instance has something in hand."""
        return any(purpose.in_flight for topic in self.topics.values() for purpose in topic.purposes.values())

    def snapshot(self, topic_name: str, name: str, number: int) -> Snapshot | None:
        """Return the state of a purpose's track as of all changes popped so far; None where the purpose was retired."""
        topic = self.topics.get(topic_name)
        purpose = topic.purposes.get(name) if topic is not None else None
        track = purpose.tracks.get(number) if purpose is not None else None
        return track.state.snapshot() if track is not None else None
