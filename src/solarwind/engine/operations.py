"""What is asked of a dispatcher and its store: a method for each operation, the same wherever the two are together.

How each is asked, and by whom, is a row of the table in `solarwind/operations.py`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime, timedelta
from operator import attrgetter
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from ..core.spans import Spans
from ..errors import BadArgument, NotFound, SolarWindError
from ..event import Event
from ..names import DEAD, no_topic
from ..origin import this_process
from ..records import (
    Attention,
    AuditEntry,
    DeadLetter,
    DelayedEvent,
    Difference,
    EventInfo,
    InstanceInfo,
    LocatedEvent,
    OwnerInfo,
    PurposeInfo,
    PurposeStatistics,
    RateHistory,
    RolloutInfo,
    Statistics,
    StoreInfo,
    TopicInfo,
    TopicStatistics,
    Trace,
    listed,
    sorted_attention,
    sorted_instances,
)
from ..store.base import FOREVER, Store
from ..store.definitions import Definitions
from ..timing import time_of
from . import attention, audit, outcomes, tracing
from .answers import Page
from .arguments import (
    After,
    AtBatch,
    Behind,
    CausedBy,
    EventId,
    Ids,
    Limit,
    NewFile,
    Place,
    Purpose,
    Purposes,
    Share,
    Since,
    Topic,
    Until,
    Version,
    read_version,
)
from .base import Since as When
from .clock import Clock
from .delays import delayed_event, page_of_delayed
from .facts import instance_info, joined, store_info
from .keeping import KeepOperations, delayed_of
from .outcomes import Outcomes
from .payload_types import TypeOperations
from .reading import MAX_SEARCH_BYTES, events_at, no_event_at, page_of_events
from .relays import RelayOperations
from .rest import Rest
from .retries import RetryOperations
from .rollouts import differences, rollout_info, states
from .running import Running
from .schedules import ScheduleOperations
from .schemas import SchemaOperations, Schemas
from .taking_back import TakingBack
from .tracing import caused_by_version, effects_of, located, with_outcomes
from .waiting import Waiting
from .wall import WallClock
from .watch import Watched
from .webhook_part import WebhookOperations

if TYPE_CHECKING:  # a client of a server needs the table of operations, and nothing of a dispatcher
    from ..core.dispatcher import Dispatcher
    from ..core.purpose import Purpose as LivePurpose
    from .cache import LogCache
    from .deaths import DeathNotices
    from .history import Trimmer
    from .nobody import NobodyUp
    from .release import Releaser
    from .request import Request
    from .room import Room
    from .sampling import Sampler
    from .schedules import Scheduler

R = TypeVar("R")

_MAX_READS = 1_000  # of the log, to say how old the oldest events of purposes are, for one question


class Operations(
    Running,
    Watched,
    KeepOperations,
    RetryOperations,
    ScheduleOperations,
    SchemaOperations,
    RelayOperations,
    TypeOperations,
    WebhookOperations,
):
    """The part of an engine that answers and serves operators. Arguments come checked."""

    store: Store
    _cache: LogCache
    _dispatcher: Dispatcher
    _clock: Clock
    _trimmer: Trimmer
    _room: Room
    _audit: audit.Audit
    _nobody_up: NobodyUp
    _releaser: Releaser
    _taking_back: TakingBack
    _wall: WallClock
    _sampler: Sampler
    _scheduler: Scheduler
    _schemas: Schemas
    _deaths: DeathNotices

    @property
    def definitions(self) -> Definitions:
        return self.store.definitions

    def _stored_definitions(self) -> Definitions:
        return self.definitions

    def _wall_time(self) -> int:
        return self._clock.wall()

    async def ask(self, request: Request[R]) -> R:
        """See `Engine`."""
        self._check_running()
        operation, before = request.operation, self._setting(request)
        answer: R = await getattr(self, operation.function.__name__)(**request.arguments)
        changes = answer is not False and not request.arguments.get("dry_run")
        changes = changes and (before is None or before != self._setting(request))
        if operation.audited and changes:
            by = request.by or this_process()
            request = msgspec.structs.replace(request, by=by)
            await self._audit.note(audit.entry_of(request, answer, self._clock.wall()))
        return answer

    def _setting(self, request: Request[Any]) -> object:
        """Return what the operation sets and services state at each start, so that only changes of it are noted."""
        if request.operation.name != "keep":
            return None
        topic = self._dispatcher.topics.get(request.arguments["topic"])
        return (topic.keep_ns, topic.keep_bytes) if topic is not None else (self.store.keep_ns, None)

    def _carry_out(self) -> None:
        """Carry out what the dispatcher wants done."""
        raise NotImplementedError

    async def _committed(self) -> None:
        """Wait until what has changed so far is durable."""
        raise NotImplementedError

    async def _caught_up(self, topics: Collection[str] = ()) -> None:
        """Wait until everything accepted has arrived, and what is not kept of these topics is deleted."""
        raise NotImplementedError

    async def _position(self, topic: str, since: When) -> int:
        """Return where in the topic's log `since` is."""
        end = self._dispatcher.topics[topic].end if topic in self._dispatcher.topics else 0
        if since == "now":
            return end
        if since == "beginning":
            first = await self.store.read(topic, 0, 1)
            return first[0].start if first else end
        if isinstance(since, timedelta):
            time = self._clock.wall() - int(since / timedelta(microseconds=1)) * 1000
            return await self.store.seek(topic, min(max(0, time), FOREVER))
        if isinstance(since, datetime):
            time = int(since.timestamp() * 1_000_000) * 1000
            return await self.store.seek(topic, min(max(0, time), FOREVER))
        raise BadArgument(f"expected 'now', 'beginning', a datetime or a timedelta ago, got {since!a}")

    async def _count(self, purpose: LivePurpose, reads: Iterator[object]) -> PurposeStatistics:
        """Return its numbers. For the age of its oldest event the log is read only where `reads` has another item."""
        fired_at = await self._oldest(purpose, reads)
        end, delayed, until = self._dispatcher.topics[purpose.topic].end, 0, None
        if any(track.delay is not None for track in purpose.tracks.values()):
            delayed, until = await Waiting(self.store, self._cache, self._clock.wall()).count(purpose, end, reads)
        return PurposeStatistics(
            exchange=purpose.active.exchange,
            versions=tuple(sorted(purpose.statements)),
            version_joined=joined(purpose),
            instances=len(purpose.instances),
            pending=purpose.pending(end),
            in_flight=purpose.in_flight,
            settled=purpose.settled,
            retried=purpose.retried,
            dead=purpose.dead_count,
            dropped=purpose.dropped,
            expired=purpose.expired,
            key_missing=purpose.key_missing,
            state=purpose.state(end, self._clock.now()),
            oldest=None if fired_at is None else time_of(fired_at),
            rates=self._sampler.mean(purpose),
            version_states=tuple(states(purpose).values()),
            times=outcomes.times(purpose),
            delay=purpose.active.delay_ns / 1e9,
            delayed=delayed,
            delayed_until=None if until is None else time_of(until),
            rate=purpose.active.rate,
            at_most=purpose.active.at_most,
            limited=purpose.is_limited,
        )

    async def _oldest(self, purpose: LivePurpose, reads: Iterator[object]) -> int | None:
        """Return when the purpose's oldest event that is not done was fired, or due, in ns since 1970. It is read when
        asked, and once: of a purpose that stands still it is known. Where nothing may be read, it is as last known."""
        position = purpose.oldest_position(self._dispatcher.topics[purpose.topic].end)
        if position is None:
            return purpose.oldest_copy()
        if purpose.oldest[0] != position:
            stored = self._cache.peek(purpose.topic, position)
            if stored is None:
                if next(reads, None) is None:
                    return purpose.oldest[1] or None
                stored = next(iter(await self.store.read(purpose.topic, position, 1)), None)
                if stored is None:  # it was lost: the purpose goes on without it
                    return None
            index = max(0, position - stored.start)
            purpose.oldest = position, max(stored.batch.time(index), stored.batch.due(index) or 0)
        return purpose.oldest[1]

    async def statistics(self) -> Statistics:
        """Return a frozen record of all topics and purposes, with their numbers."""
        await self._caught_up()
        topics: dict[str, TopicStatistics] = {}
        purposes: dict[tuple[str, str], PurposeStatistics] = {}
        reads, rest, delayed = iter(range(_MAX_READS)), Rest(), await self.store.delays.topics()
        for name, topic in list(self._dispatcher.topics.items()):
            later = delayed_of(delayed.get(name))
            topics[name] = TopicStatistics(topic.end + topic.unkept, self._sampler.mean_fired(topic), *later)
            for purpose in list(topic.purposes.values()):
                purposes[name, purpose.name] = await self._count(purpose, reads)
                await rest.now_and_then()  # there may be very many
        return Statistics(topics, purposes)

    async def purposes(self, topic: Topic | None = None) -> list[PurposeInfo]:
        """Return the purposes, of one topic or of all."""
        return listed(await self.statistics(), topic)

    async def purpose(self, topic: Topic, purpose: Purpose) -> PurposeInfo:
        """Return a purpose and its numbers. Raise `NotFound`."""
        await self._caught_up()
        return PurposeInfo(topic, purpose, await self._count(self._dispatcher.purpose(topic, purpose), iter((0,))))

    async def rates(self, topic: Topic, purpose: Purpose) -> RateHistory:
        """Return how many events a purpose settled, retried and gave up, and how many were fired on its topic, in the
        last five minutes, hour and day. Raise `NotFound`."""
        await self._caught_up()
        return self._sampler.history(self._dispatcher.purpose(topic, purpose))

    async def all_rates(self, topic: Topic | None = None) -> RateHistory:
        """Return how many events were fired, settled, retried and given up in the last five minutes, hour and day, by
        all purposes together: of one topic, or of all. What is not named is "" in it."""
        await self._caught_up()
        return self._sampler.total(topic)

    async def instances(self, topic: Topic | None = None) -> list[InstanceInfo]:
        """Return the live instances of the purposes, of one topic or of all."""
        await self._caught_up()
        found: list[InstanceInfo] = []
        rest = Rest()
        for instance, purpose in list(self._dispatcher.instances.values()):
            if topic in (None, purpose.topic):
                found.append(instance_info(instance, purpose, self._clock.now()))
                await rest.now_and_then()
        return sorted_instances(found)

    async def stores(self) -> list[StoreInfo]:
        """Return how each dispatcher's store is: how much room it has, and how long commits take."""
        return [store_info(self.store, self._room)]

    async def attention(self, limit: Limit = 1_000) -> list[Attention]:
        """Return what needs a person, the most urgent first, at most `limit` of each dispatcher."""
        facts = attention.Facts(
            self._clock.now(),
            self._dispatcher,
            self.store,
            self._room,
            self._nobody_up,
            self._releaser,
            self._scheduler,
            self._wall,
            self._relays,
            self._schemas,
        )
        with suppress(SolarWindError):  # then those are not among it
            await self._schemas.load()
        return sorted_attention(await attention.find(facts))[:limit]

    async def audit(self, after: After = None, limit: Limit = 1_000) -> Page[AuditEntry]:
        """Return a page of what operators did, the latest first: `limit` entries. Its `next` is the `after` of the page
        behind it. The last thousand are kept."""
        return await audit.read(self.definitions, after, limit)

    async def topics(self) -> list[TopicInfo]:
        """Return the topics, and how much history each has."""
        await self._caught_up(list(self._dispatcher.topics))
        found, rest, delayed = [], Rest(), await self.store.delays.topics()
        for name in sorted(self._dispatcher.topics):
            found.append(await self._topic_info(name, delayed))
            await rest.now_and_then()
        return found

    async def _letters_at(self, topic: str, purpose: str, positions: Spans) -> Page[DeadLetter]:
        """Return the dead letters at these positions, the first ones where all of them would be too much to read at
        once: then `next` is the last one's position. Those that were discarded meanwhile are left out."""
        tracks = self._dispatcher.purpose(topic, purpose).tracks
        by_track = [(number, track.state.dead.common(positions)) for number, track in tracks.items()]
        await self._committed()
        letters = [each for track in by_track for each in await self.store.dead(topic, purpose, *track)]
        page, events = Page[DeadLetter](), await events_at(self.store, topic, positions)
        last = max(events, default=FOREVER)
        for each in sorted(letters, key=attrgetter("position")):
            if each.position > last:
                page.next = str(last)
                break
            event = events.get(each.position)
            if event is not None:
                page.append(DeadLetter(event, each.error, each.tried, time_of(each.time), each.version))
            elif self._dispatcher.purpose(topic, purpose).is_dead(each.position):
                raise no_event_at(topic, each.position)
        return page

    async def dead(self, topic: Topic, purpose: Purpose, after: After = None, limit: Limit = 1_000) -> Page[DeadLetter]:
        """Return a page of the purpose's dead letters, in the order accepted: `limit` of them, or fewer if they are
        large. Its `next` is the `after` of the page behind it. Raise `NotFound`."""
        start, tracks = 0 if after is None else int(after) + 1, self._dispatcher.purpose(topic, purpose).tracks
        positions = Spans()
        for track in tracks.values():
            positions.update(track.state.dead.first(limit + 1, start))
        wanted = positions.first(limit)
        page = await self._letters_at(topic, purpose, wanted)
        if page.next is None and len(positions) > limit:
            page.next = str(wanted.edges[-1] - 1)
        return page

    async def letter(self, topic: Topic, purpose: Purpose, id: EventId) -> DeadLetter:
        """Return the purpose's dead letter of the event with that id. Raise `NotFound`."""
        for letter in await self._letters_at(topic, purpose, await self._dead_positions(topic, purpose, [id])):
            return letter
        raise _no_letter(topic, purpose, id)

    async def _dead_positions(self, topic: str, purpose: str, ids: Collection[str] | None) -> Spans:
        found = self._dispatcher.purpose(topic, purpose)
        if ids is None:
            return found.dead
        positions = []
        for id in ids:
            there = await self.store.find(id, topic)
            if there is None or not found.is_dead(there[1]):
                raise _no_letter(topic, purpose, id)
            positions.append(there[1])
        return Spans.of(positions)

    async def redrive(self, topic: Topic, purpose: Purpose, ids: Ids = None, version: Version | None = None) -> int:
        """Hand dead letters out again as if never tried, these or all: to the version that gets such events now, or
        with `version` to that one alone. Return how many.

        Raise `NotFound`, and `NotAllowed` for a version with a fan-out, or another one's while that keeps the order of
        keys."""
        positions = await self._dead_positions(topic, purpose, ids)
        count = self._dispatcher.redrive(topic, purpose, positions, self._clock.now(), version)
        return await self._carried_out(count)

    async def discard(self, topic: Topic, purpose: Purpose, ids: Ids) -> int:
        """Forget dead letters, these, or with None all. Return how many. Raise `NotFound`."""
        positions = await self._dead_positions(topic, purpose, ids)
        return await self._carried_out(self._dispatcher.discard(topic, purpose, positions))

    async def replay(
        self,
        topic: Topic,
        purpose: Purpose,
        since: Since = "beginning",
        until: Until = "now",
        caused_by: CausedBy | None = None,
        dry_run: bool = False,
    ) -> int:
        """Make the history fired from `since` up to `until` pend again: all of it, or what a version of a purpose
        caused, `caused_by` as TOPIC/PURPOSE@VERSION. Return how many events, where versions have shares at least; with
        `dry_run` that is all.

        Raise `NotFound`, and `NotAllowed` for a purpose whose events do not pend."""
        await self._caught_up()
        self._dispatcher.purpose(topic, purpose)
        async with self._trimmer.guard:
            start, stop = await self._position(topic, since), await self._position(topic, until)
            start = max(start, await self._position(topic, "beginning"))
            only = None
            if caused_by is not None:
                only = await caused_by_version(self.store, topic, start, stop, *read_version(caused_by))
            now = self._clock.now()
            count = self._dispatcher.replay(topic, purpose, start, stop, now, only=only, dry=dry_run)
        return count if dry_run else await self._carried_out(count)

    async def pause(self, topic: Topic, purpose: Purpose) -> None:
        """Hand out nothing more of a purpose until it is resumed, also by another dispatcher. What its instances have
        in hand they finish; what is fired pends, and for a fan-out is dropped. Nothing changes where it is paused
        already. Raise `NotFound`."""
        self._dispatcher.pause(topic, purpose, self._clock.now())
        await self._carried_out(0)

    async def resume(self, topic: Topic, purpose: Purpose) -> None:
        """Hand out a paused purpose again. Nothing changes where it is not paused. Raise `NotFound`."""
        self._dispatcher.resume(topic, purpose, self._clock.now())
        await self._carried_out(0)

    async def rollout(self, topic: Topic, purpose: Purpose) -> RolloutInfo:
        """Return the versions of a purpose, each with its state and its share of the events. Raise `NotFound`."""
        await self._caught_up()
        return rollout_info(self._dispatcher.purpose(topic, purpose), self._dispatcher.topics[topic].end)

    async def share(self, topic: Topic, purpose: Purpose, version: Version, share: Share) -> RolloutInfo:
        """Give a version this share of the events that are fired from now on, from 0 to 1: with 0 it is held. The
        events of a key go to one version, also while a share grows. Return the purpose's versions.

        Raise `NotFound`, `BadArgument` for an impossible share, `NotAllowed` for a fan-out, and `ConflictError` where
        there is not so much left or nobody for the rest, beside a fan-out, or while it has a shadow's copies in
        hand."""
        self._dispatcher.versions.share(topic, purpose, version, share, self._clock.now())
        return await self._rolled(topic, purpose)

    async def shadow(self, topic: Topic, purpose: Purpose, version: Version) -> RolloutInfo:
        """Give a version a copy of what the current one gets from now on. What it settles, fires and fails counts for
        nothing, and is compared: see `differences`. Return the purpose's versions.

        Raise `NotFound`, `ConflictError` where there is no other version or beside a fan-out, and `NotAllowed` for a
        fan-out."""
        self._dispatcher.versions.shadow(topic, purpose, version, self._clock.now())
        return await self._rolled(topic, purpose)

    async def differences(self, topic: Topic, purpose: Purpose, limit: Limit = 1_000) -> list[Difference]:
        """Return the events of which shadows made something else than the current version, the latest first. The last
        thousand of a purpose are kept, until the dispatcher ends. Raise `NotFound`."""
        return differences(self._dispatcher.purpose(topic, purpose), limit)

    async def promote(self, topic: Topic, purpose: Purpose, version: Version) -> RolloutInfo:
        """Make a version the current one, which gets all events that are in no other's share. What is in a handler
        ends there. Return the purpose's versions. Raise `NotFound`, and `ConflictError` while it has a shadow's copies
        in hand, or for a fan-out while another version has a share or is a shadow."""
        self._dispatcher.versions.promote(topic, purpose, version, self._clock.now())
        return await self._rolled(topic, purpose)

    async def rollback(self, topic: Topic, purpose: Purpose) -> RolloutInfo:
        """Make the version current that was so before; the present one gets nothing more until it is promoted or has a
        share. Return the purpose's versions. Raise `NotFound`, and `ConflictError` where there was none before, or
        another version has a share."""
        self._dispatcher.versions.rollback(topic, purpose, self._clock.now())
        return await self._rolled(topic, purpose)

    async def _rolled(self, topic: str, purpose: str) -> RolloutInfo:
        await self._carried_out(0)
        return await self.rollout(topic, purpose)

    async def retire(self, topic: Topic, purpose: Purpose, force: bool = False) -> None:
        """Forget a purpose. Raise `ConflictError` while it is paused, or has events, dead letters or instances, unless
        `force`."""
        await self._caught_up()
        self._dispatcher.retire(topic, purpose, self._clock.now(), force=force)
        await self._carried_out(0)
        await self._schemas.forget(topic, purpose)
        if topic == DEAD:
            await self._deaths.look()

    async def _carried_out(self, count: int) -> int:
        """Return `count` once what an operator changed is durable."""
        self._carry_out()
        await self._committed()
        return count

    async def trace(self, id: EventId, after: EventId | None = None, limit: Limit = 1_000) -> Trace:
        """Return the event with that id and the tree of what it caused, from the history: at most `limit` events, the
        nearest first. Where an event has `more`, ask for its own, `after` the last one there. Raise `NotFound`."""
        return await tracing.trace(self.lookup, self.effects, id, after, limit)

    async def lookup(self, id: EventId) -> list[LocatedEvent]:
        """Return the event with that id, of any topic, and what became of it; nothing where the history has none."""
        await self._committed()
        await self._caught_up()
        found = await self.store.find(id)
        return [] if found is None else await located(self.store, *found, self._became)

    async def effects(
        self, ids: Ids, at: AtBatch = None, after: After = None, limit: Limit = 1_000
    ) -> Page[LocatedEvent]:
        """Return what these events caused, of all topics, and what became of that: at most `limit` events, or fewer if
        they are large. There is more where `next` is not None: ask again from the batch at the place `at` on, and of
        that for what is behind the position `after`."""
        await self._caught_up()
        wanted = set(ids or ())
        stored, more = await self.store.caused(wanted, at, MAX_SEARCH_BYTES, limit)
        events = list(effects_of(wanted, stored, at, int(after or -1)))
        page = Page(await with_outcomes(events[:limit], self._became))
        page.next = str(page[-1].position if page else 0) if more or len(events) > limit else None
        return page

    async def _became(self, events: list[Event]) -> list[Outcomes]:
        return await outcomes.of_events(self._dispatcher, self.store, events, self._committed)

    async def backup(self, path: NewFile) -> None:
        """Copy the store to a new file while it is in use. Raise `NotAllowed` where there is none, `StoreError`."""
        await self.store.backup(path)

    async def owners(self) -> list[OwnerInfo]:
        """Return which process owns which partition, and its topics. Except on NATS that is one, and has all."""
        store = store_info(self.store, self._room)
        return [OwnerInfo(0, store.store, store.process, tuple(sorted(self._dispatcher.topics)))]

    async def events(
        self,
        topic: Topic,
        since: Since = "beginning",
        after: Behind = None,
        key: str | None = None,
        limit: Limit = 100,
        tail: bool = False,
    ) -> Page[Event]:
        """Return a page of a topic's history, in the order accepted: the events from `since` on, or behind the page
        whose `next` is `after`; only those with a key, if one is given. `limit` of them, or fewer if they are large or
        far apart: there are more where `next` is not None. With `tail` it is never None: at the end it is the `after`
        of what is accepted later. Raise `NotFound` for an unknown topic, and where what follows `after` was trimmed."""
        await self._caught_up([topic])
        if topic not in self._dispatcher.topics:
            raise no_topic(topic)
        position = await self._position(topic, since) if after is None else int(after) + 1
        end, how = self._dispatcher.topics[topic].end, {"goes_on": after is not None, "tail": tail}
        return await page_of_events(self.store, topic, position, end=end, key=key, limit=limit, **how)

    async def event(self, topic: Topic, id: EventId) -> EventInfo:
        """Return an event of a topic's history, and what became of it for each purpose. Raise `NotFound` for a topic or
        an event that does not exist, or was trimmed."""
        await self._caught_up([topic])
        if topic not in self._dispatcher.topics:
            raise no_topic(topic)
        return await outcomes.event_info(self._dispatcher, self.store, topic, id, self._committed)

    async def delayed(
        self, topic: Topic | None = None, after: Place | None = None, limit: Limit = 1_000
    ) -> Page[DelayedEvent]:
        """Return a page of the delayed events, of one topic or of all, the next one that is due first: `limit` of them,
        or fewer if they are large. Its `next` is the `after` of the page behind it. How many there are is in
        `statistics` and `topics`."""
        return await page_of_delayed(self.store.delays, topic, after, limit)

    async def delayed_event(self, topic: Topic, id: EventId) -> DelayedEvent:
        """Return the delayed event with that id. Raise `NotFound`, also once it is in its topic."""
        return await delayed_event(self.store.delays, topic, id)

    async def cancel(self, topic: Topic, id: EventId) -> bool:
        """Take a delayed event back, for good, while it is not due. Return whether that was so: False where it is due
        or in its topic, was cancelled before, or never fired."""
        return await self._taking_back.take_back(topic, id)

    async def idle(self, purposes: Purposes) -> None:
        """Wait until all that was submitted is accepted, and these purposes have nothing left to do."""
        raise NotImplementedError

    async def left(self, purposes: Purposes) -> str:
        """Return in words what `idle` still waits for, or `NOTHING`."""
        raise NotImplementedError


def _no_letter(topic: str, purpose: str, id: str) -> NotFound:
    return NotFound(
        f"expected the id of a dead letter of {purpose!r} on {topic!r}, got {id!a}, which is not one: "
        f"`solarwind dead list` shows them"
    )
