"""Who is there: topics, purposes and instances, how they join and leave, what operators do to them, and how all of it
is taken up again after a restart. What happens to events is in `dispatcher`, which builds on this.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heappush

import msgspec

from ..errors import Busy, ConflictError, NotAllowed, NotFound
from ..limits import Limits
from .effects import Closed, Effect, Fault, Join
from .exchange import check, lookup
from .log import Log, Stored
from .process import Process
from .purpose import Instance, Purpose
from .spans import Spans
from .state import Change, Snapshot, State, Statement, recovered

LOOK = -1  # in place of a position: a timer to look at the copies that are held back


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


def no_purpose(topic: str, purpose: str, there: Collection[str] = ()) -> NotFound:
    """Return the refusal for a purpose that a topic does not have; it has those that are `there`."""
    names = ", ".join(map(repr, sorted(there)[:5]))
    has = f"it has {names}" if names else "it has no purposes"
    return NotFound(f"expected a purpose of topic {topic!r}, got {purpose!r}, which is none: {has}")


class Registry:
    """The part of a dispatcher that knows who is there."""

    def __init__(
        self,
        log: Log,
        random: Callable[[], float],
        *,
        keep_ns: int,
        durable: bool,
        limits: Limits | None = None,
        home: str = "",
    ) -> None:
        """`keep_ns` is for topics of which nobody said how much history they keep; `durable`, whether changes are
        committed to something that survives the process, which is `home` (see `Join.process`)."""
        self.topics: dict[str, Topic] = {}
        self.instances: dict[int, tuple[Instance, Purpose]] = {}
        self._limits = limits or Limits()
        self._log = log
        self._random = random
        self._keep_ns = keep_ns
        self._durable = durable
        self._home = home
        self._processes: dict[str, Process] = {}
        self._effects: list[Effect] = []
        self._changes: list[Change] = []
        self._timers: list[tuple[int, int, Purpose, int, bool]] = []  # (when, n, purpose, position or instance, retry?)
        self._number = 0
        self._purposes = 0
        self._creating: Counter[tuple[str, str]] = Counter()  # purposes, until they are durable
        # What is put off, so that others get their turn: batches, with the purposes that are still to get them, the
        # first last; and purposes that look for what they can hand out.
        self._passes: deque[tuple[Topic, Stored, list[Purpose]]] = deque()
        self._looking: dict[Purpose, None] = {}
        self._last_ends: list[Process] = []  # in which a last attempt ended, and that is not durable yet

    def exchange(self, purpose: Purpose, now: int) -> None:
        """Hand out what the purpose has and its instances have room for."""
        raise NotImplementedError

    def _take_away(self, purpose: Purpose, instance: Instance, now: int, attempts: int, *, died: bool) -> None:
        """Take back what an instance has in hand, all of which may be tried so often."""
        raise NotImplementedError

    def _proceed(self, process: Process, now: int) -> None:
        """Go on with the last attempts that have their turn in a process, and then with all else."""
        raise NotImplementedError

    # Topics and purposes ------------------------------------------------------------------------------

    def topic(self, name: str) -> Topic:
        """The topic of that name, made if it is new."""
        topic = self.topics.get(name)
        if topic is None:
            if len(self.topics) >= self._limits.names:
                raise Busy(f"expected no more than {self._limits.names:,} topics, got another: {name!r}")
            topic = self.topics[name] = Topic(name, self._keep_ns)
        return topic

    def purpose(self, topic_name: str, name: str) -> Purpose:
        """The purpose, which must exist; else `NotFound`."""
        topic = self.topics.get(topic_name)
        if topic is None or name not in topic.purposes:
            raise no_purpose(topic_name, name, topic.purposes if topic is not None else ())
        return topic.purposes[name]

    def join(self, join: Join, since: int, now: int) -> int:
        """Register an instance, and its purpose if it is new: that one listens from position `since` on, or from now on
        where its events do not pend. Gives the instance's number. Raises `BadArgument` for an exchange that nobody
        knows, `ConflictError` for a statement that contradicts an earlier one of the same version."""
        check(join.exchange, join.key, join.key_missing)
        topic = self.topic(join.topic)
        statement = Statement(join.version, join.exchange, join.key, join.key_missing)
        purpose = topic.purposes.get(join.purpose)
        if purpose is None:
            purpose = self._create(topic, join.purpose, statement, since)
        else:
            self._state_version(topic, purpose, statement)
        process = self._process(join.process)
        instance = Instance(self._next_number(), join, join.room, self._limits.in_hand_bytes, process)
        purpose.enter(instance)
        process.instances[instance.id] = (instance, purpose)
        self._note_change(topic, purpose)
        self.instances[instance.id] = (instance, purpose)
        self.exchange(purpose, now)
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
        """Unless there is something to be known of it."""
        if not process.instances and process.last_end is None:
            self._processes.pop(process.name, None)

    def _create(self, topic: Topic, name: str, statement: Statement, since: int) -> Purpose:
        if self._purposes >= self._limits.names:
            raise Busy(f"expected no more than {self._limits.names:,} purposes, got another: {name!r}")
        self._purposes += 1
        state = State(topic.name, name)
        exchange = lookup(statement.exchange)
        if exchange is not None and not exchange.pends:
            change = Change(topic.name, name, created=topic.end, stated=[statement], copied_from=topic.end)
        else:
            change = Change(topic.name, name, created=since, stated=[statement])
        state.apply(change)
        self._changes.append(change)
        purpose = topic.purposes[name] = Purpose(state, reached=-1 if self._durable else None, limits=self._limits)
        self._creating[purpose.key] += 1
        return purpose

    def _state_version(self, topic: Topic, purpose: Purpose, statement: Statement) -> None:
        before = purpose.state.statements.get(statement.version)
        if before is None:
            self._change(purpose, Change(*purpose.key, stated=[statement]))
        elif before != statement:
            raise ConflictError(
                f"version {statement.version} of purpose {purpose.state.purpose!r} on topic {topic.name!r} stated "
                f"{before}, this instance states {statement}: state the same, or join as a new version "
                f"(version={max(purpose.state.statements) + 1})"
            )

    def _note_change(self, topic: Topic, purpose: Purpose) -> None:
        """An instance came, leaves or went, so another exchange may be at work. From where on events are copied, and
        none of them pends, is remembered; what pends at that moment goes on doing so."""
        copies = purpose.state.copied_from is not None
        if purpose.exchange_pends and copies:
            self._change(purpose, Change(*purpose.key, copied_until=topic.end))
        elif not purpose.exchange_pends and not copies:
            pending = len(purpose.state.pending(topic.end))
            self._change(purpose, Change(*purpose.key, copied_from=topic.end))
            if pending:
                active = purpose.active
                earlier = "an earlier event stays" if pending == 1 else f"{pending:,} earlier events stay"
                text = (
                    f"version {active.version} of purpose {purpose.state.purpose!r} on topic {topic.name!r} states "
                    f"exchange {active.exchange!r}, which hands out only what is fired from now on: {earlier} pending "
                    "until an instance is at work whose exchange pends"
                )
                self._effects.append(Fault(text, ("exchange", *purpose.key)))

    def leaving(self, instances: Iterable[int], now: int) -> None:
        """They take nothing more; what they have begun they may still report."""
        touched: dict[Purpose, None] = {}
        for instance, purpose in [self.instances[each] for each in instances if each in self.instances]:
            purpose.begin_leaving(instance)
            purpose.dropped += instance.copied
            instance.copies.clear()
            instance.copied = instance.copied_bytes = 0
            touched[purpose] = None
        for purpose in touched:
            self._note_change(self.topics[purpose.state.topic], purpose)
            self.exchange(purpose, now)

    def leave(self, instance_id: int, now: int, *, died: bool = False) -> None:
        """An instance is gone; what it had in hand is handed out again. `died`: it did not say so itself."""
        found = self.instances.pop(instance_id, None)
        if found is not None:
            instance, purpose = found
            attempts = purpose.attempts
            purpose.forget(instance)
            self._note_change(self.topics[purpose.state.topic], purpose)
            purpose.dropped += instance.copied
            self._take_away(purpose, instance, now, attempts, died=died)
            self._leave_process(instance)
            if instance.process.closed:
                self._proceed(instance.process, now)
            self.exchange(purpose, now)

    def retire(self, topic_name: str, name: str, now: int, *, force: bool) -> None:
        """Forget a purpose. Unless forced, `ConflictError` while events pend, or instances are at work for it."""
        purpose = self.purpose(topic_name, name)
        if not force:
            left = purpose.left(self.topics[topic_name].end)
            if left:
                raise ConflictError(
                    f"expected purpose {name!r} on topic {topic_name!r} to have nothing left, "
                    f"got {' and '.join(left)}: "
                    "settle, redrive or discard them and stop its instances, or retire it with force"
                )
        for instance in purpose.instances.values():
            self._effects.append(Closed(instance.id, f"purpose {name!r} on topic {topic_name!r} was retired"))
            del self.instances[instance.id]
            self._leave_process(instance)
        for lease in purpose.leases.values():
            lease.instance.put_down(lease, len(lease.positions))
        processes = {id(each.process): each.process for each in purpose.instances.values() if each.process.closed}
        purpose.instances.clear()
        purpose.live.clear()
        purpose.note_change()
        purpose.delayed.clear()  # so that its timers find nothing to do
        purpose.held.clear()
        purpose.last_tries.clear()
        del self.topics[topic_name].purposes[name]
        self._purposes -= 1
        self._changes.append(Change(topic_name, name, retired=True))
        for process in processes.values():
            self._proceed(process, now)

    # What an operator does ----------------------------------------------------------------------------

    def replay(self, topic_name: str, name: str, since: int, until: int, now: int) -> int:
        """Make what is done with, from position `since` up to `until`, pend again. Gives how many events do."""
        purpose = self.purpose(topic_name, name)
        if not purpose.exchange_pends:
            raise NotAllowed(
                f"expected a purpose whose events pend, got {name!r} on topic {topic_name!r} with exchange "
                f"{purpose.active.exchange!r}: its events are dropped, "
                "not kept for replay"
            )
        until = min(until, self.topics[topic_name].end)
        pending = purpose.state.pending(until).within(since, until)
        spans = pending.outside(since, until)
        self._reopen(purpose, Change(*purpose.key, reopened=spans.edges), spans, now)
        return len(spans)

    def redrive(self, topic_name: str, name: str, positions: Spans, now: int) -> int:
        """Hand dead letters out again, as if never tried. Gives how many; positions that are none are passed over."""
        purpose = self.purpose(topic_name, name)
        spans = purpose.state.dead.common(positions)
        self._reopen(purpose, Change(*purpose.key, redriven=spans.edges), spans, now)
        return len(spans)

    def _reopen(self, purpose: Purpose, change: Change, spans: Spans, now: int) -> None:
        if spans:
            self._change(purpose, change)
            purpose.rewind()
            self.exchange(purpose, now)

    def discard(self, topic_name: str, name: str, positions: Spans) -> int:
        """Forget dead letters. Gives how many."""
        purpose = self.purpose(topic_name, name)
        spans = purpose.state.dead.common(positions)
        if spans:
            self._change(purpose, Change(*purpose.key, discarded=spans.edges))
        return len(spans)

    # Changes and effects ------------------------------------------------------------------------------

    def _change(self, purpose: Purpose, change: Change) -> None:
        self._changes.append(purpose.apply(change))

    def take_changes(self) -> list[Change]:
        """What has changed since the last call, for the next commit."""
        changes, self._changes = self._changes, []
        return changes

    @property
    def changed(self) -> bool:
        return bool(self._changes)

    def committed(self, changes: Sequence[Change], now: int) -> None:
        """These changes are durable."""
        if self._last_ends:
            durable = {id(change) for change in changes}
            ended = [process for process in self._last_ends if id(process.last_end) in durable]
            self._last_ends = [process for process in self._last_ends if process not in ended]
            for process in ended:
                process.last_end = None
                self._proceed(process, now)
                self._forget_process(process)
        for change in changes:
            if change.reach or change.created is not None:
                topic = self.topics.get(change.topic)
                purpose = topic.purposes.get(change.purpose) if topic is not None else None
                if self._is_own(change) and purpose is not None and purpose.reached is not None:
                    purpose.reached = max(purpose.reached, change.reach, change.created or 0)
                    self.exchange(purpose, now)

    def _is_own(self, change: Change) -> bool:
        """Whether a change that became durable is the present purpose's, not one's of that name that was retired."""
        name = (change.topic, change.purpose)
        if change.created is not None:
            self._creating[name] -= 1
            if not self._creating[name]:
                del self._creating[name]
        return name not in self._creating

    def take_effects(self) -> list[Effect]:
        """What is to be done since the last call, in order."""
        effects, self._effects = self._effects, []
        return effects

    def _wake(self, when: int, purpose: Purpose, number: int, *, retry: bool) -> None:
        heappush(self._timers, (when, self._next_number(), purpose, number, retry))

    def _next_number(self) -> int:
        self._number += 1
        return self._number

    # Recovery -----------------------------------------------------------------------------------------

    def recover(self, snapshots: Iterable[Snapshot], changes: Iterable[Change], *, clean: bool) -> None:
        """Take up what a store remembers, before anybody joins; topics were made already. From here on it is the code
        above that goes on. Unless the last writer stopped cleanly, whatever may have been in a handler is suspect."""
        for state in recovered(snapshots, changes):
            topic = self.topic(state.topic)
            purpose = topic.purposes[state.purpose] = Purpose(
                state, reached=state.reach if self._durable else None, limits=self._limits
            )
            self._purposes += 1
            self._note_change(topic, purpose)
            purpose.suspects = state.unended() if clean else state.pending(min(state.reach, topic.end))
            for position, due in state.due.items():
                self._wake(due, purpose, position, retry=True)

    # How it stands ------------------------------------------------------------------------------------

    def goes_on(self, join: Join) -> bool:
        """Whether an instance that joins so goes on with what pends, wherever the topic's end is by now."""
        topic = self.topics.get(join.topic)
        purpose = topic.purposes.get(join.purpose) if topic is not None else None
        return purpose is not None and purpose.exchange_pends and purpose.active.exchange == join.exchange

    def has_work(self, topic_name: str, name: str) -> bool:
        """Whether a purpose has anything in flight or pending."""
        topic = self.topics.get(topic_name)
        purpose = topic.purposes.get(name) if topic is not None else None
        return (
            topic is not None
            and purpose is not None
            and bool(topic.behind or purpose.flying or purpose.pending(topic.end))
        )

    @property
    def in_flight(self) -> bool:
        """Whether any instance has something in hand."""
        return any(purpose.flying for topic in self.topics.values() for purpose in topic.purposes.values())

    def snapshot(self, topic_name: str, name: str) -> Snapshot | None:
        """The purpose's state as of all changes taken so far; None where it was retired."""
        topic = self.topics.get(topic_name)
        purpose = topic.purposes.get(name) if topic is not None else None
        return purpose.state.snapshot() if purpose is not None else None
