"""The dispatcher and a store in this process: the engine of `memory://` and `sqlite://`, and what a server serves.

One loop of commits carries everything: whatever was submitted and reported while the last commit ran goes into the
next one. That is a group commit without a setting, and a lone event leaves at once. A settle that nobody waits for
goes with the next commit, or after a moment without one, so that the event behind it need not wait for its fsync.
"""

from __future__ import annotations

import asyncio
import logging
import random as chance
from collections.abc import Callable, Collection, Coroutine
from contextlib import suppress
from secrets import token_bytes
from time import perf_counter_ns
from typing import Any

from ..batch import AUTHOR_BYTES, Batch
from ..core.dispatcher import Dispatcher
from ..core.effects import Closed, Effect, Fault, Fetch, Join, Offer, Report
from ..core.log import Stored
from ..core.spans import Spans
from ..errors import Busy, StoreError
from ..limits import Limits
from ..logs import limited
from ..names import DEAD
from ..origin import this_process
from ..plugins import registered
from ..store.base import FOREVER, Full, Recovered, Store
from .alarm import Alarm
from .audit import Audit
from .base import NOTHING, Receiver, Since
from .cache import LogCache
from .clock import Clock, SteadyClock
from .commits import Commit, Commits
from .deaths import DeathNotices
from .fetching import Fetcher
from .gate import Gate
from .held_reports import HeldReports
from .history import Trimmer
from .idle import IdleWaits, left_of
from .nobody import NobodyUp
from .notices import warn_of_forgotten
from .operations import Operations
from .relays import RelayNotes
from .release import Releaser
from .room import Room
from .running import log_stale, refuse
from .sampling import Sampler
from .schedules import Scheduler
from .schemas import Schemas, without_schema
from .taking_back import TakingBack
from .tasks import Tasks, end_tasks
from .wall import SAID_NS, WallClock, in_time_of
from .watch import Watch

log = logging.getLogger("solarwind")

RIDE_S = 0.005  # for which settles wait for a commit to go with
FULL_S = 0.25  # between two looks whether there is room again


class LocalEngine(Operations):
    """See `Engine`. Tests pass `clock` and `random`, and a `service_clock` where services are to go by another clock,
    so that they seem to hang while time passes for the dispatcher."""

    def __init__(
        self,
        store: Store,
        *,
        clock: Clock | None = None,
        service_clock: Clock | None = None,
        random: Callable[[], float] = chance.random,
        limits: Limits | None = None,
    ) -> None:
        self.store = store
        self.author = token_bytes(AUTHOR_BYTES)  # in this process nothing has to be proved
        self._clock = clock or SteadyClock()
        self.service_clock = service_clock or self._clock
        self._random = random
        self._limits = limits or Limits()
        self._audit = Audit(lambda: store.definitions)
        self._clear()

    def _clear(self) -> None:
        """Reset everything to what it was before the first start: only the store outlives a stop."""
        self._error = None
        self._cache = LogCache(lambda topic, position: self._fetcher.read_ahead(topic, position))
        store = self.store
        keeps, limits, home = store.keep_ns, self._limits, this_process()
        self._dispatcher = Dispatcher(
            self._cache,
            self._random,
            keep_ns=keeps,
            durable=store.durable,
            limits=limits,
            home=home,
            exchanges=registered,
            wall=lambda now: self._clock.wall(),
            owns=store.owns,
        )
        self._receivers: dict[int, Receiver] = {}
        self._delivered: list[Receiver] = []  # to those, and not flushed
        self._commits: Commits[asyncio.Future[None]] = Commits(self._dispatcher, self._cache)
        self._room = Room()
        self._held = HeldReports(self._count_report)
        self._durable: list[tuple[int, asyncio.Future[None]]] = []  # futures by the commit that they wait for
        self._committer: asyncio.Task[None] | None = None
        self._riding: asyncio.TimerHandle | None = None  # until settles are committed by themselves
        self._ending = False  # commits are made as long as there are any to be made
        self._tasks = Tasks(self._fail)
        self._fetcher = Fetcher(
            store, self._cache, self._dispatcher, self._clock, self._spawn, self._carry_out, self._fail
        )
        self._alarm = Alarm(self._dispatcher, self._clock, self._carry_out, self._tasks)
        self._releaser = Releaser(store, self._commits.due, self._clock, self._arrived, self._commit_soon)
        self._taking_back = TakingBack(store, self._clock, self._tasks)
        self._wall = WallClock(self._clock)
        self._trimmer = Trimmer(store, self._dispatcher, self._clock, self._wall, self._spawn, self._fail)
        self._sampler = Sampler(self._dispatcher, self._clock, self._tasks)
        self._watch = Watch(lambda name, **given: getattr(self, name)(**given), lambda: self._tasks)
        self._gate = Gate(store, self._spawn, self._deliver_all, self._fail)
        self._nobody_up = NobodyUp(self._dispatcher, self._clock)
        self._scheduler = Scheduler(store, self.submit, self._clock, self._spawn)
        self._deaths = DeathNotices(store, self._cache, self._dispatcher, self._clock)
        self._relays = RelayNotes(self._clock)
        self._schemas = Schemas(lambda: store.definitions, self._clock)
        self._idle_waits = IdleWaits(self._dispatcher.has_work, self._commits, self._clock)

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        self._clear()
        self._loop = asyncio.get_running_loop()
        self._begun: asyncio.Future[None] = self._loop.create_future()  # done while there are commits to be made
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.store.failed = self._store_failed
        self._clock.start(0)
        recovered = await self.store.open(self._clock.now())
        self.store_id = self.store.id
        early: list[Stored] = []  # what arrives before it can be dispatched
        self.store.follow(early.append)
        try:
            delayed = await self._releaser.recover()
            await self._deaths.start()
            self._recover(recovered)
            self._arrived(*early)
            for name in delayed:
                with suppress(Busy):  # it is counted once it can be
                    self._dispatcher.topic(name)
        except BaseException:
            self._running = False
            await self.store.close()
            raise
        self._releaser.set_timer()

    def _recover(self, recovered: Recovered) -> None:
        # Where services go by another clock they seem to hang, and are not waited for.
        under_way = self._under_way if self.service_clock is self._clock else None
        earlier = max(0, recovered.now - self._clock.now())
        if earlier < SAID_NS:  # it goes on from there
            earlier = 0
            self._clock.start(recovered.now, under_way)
        else:
            self._clock.start(0, under_way)
        self._wall.start(recovered.now)
        for record in recovered.topics:
            topic = self._dispatcher.topic(record.name)
            topic.end = record.end
            topic.keep_ns = record.keep_ns if record.keep_ns is not None else topic.keep_ns
            topic.keep_bytes = record.keep_bytes
        self._running = True
        now, clean = self._clock.now(), recovered.clean
        self._commits.recover(recovered.snapshots, recovered.changes, clean=clean, now=now, earlier=earlier)
        self._sampler.start()
        self._trimmer.start()
        self._nobody_up.start()
        self._scheduler.start()
        self._carry_out()
        self.store.follow(self._arrived)

    async def drain(self, wait_s: float) -> None:
        """Hand out nothing more, and wait for what is in hand to be reported or given back, for at most `wait_s`
        seconds."""
        until = self._loop.time() + wait_s
        self._dispatcher.leaving(list(self._dispatcher.instances), self._clock.now())
        self._carry_out()
        while self._loop.time() < until and self._error is None and self._dispatcher.in_flight:  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def limit_cache(self, max_bytes: int) -> None:
        """Limit the bytes of recent batches that it keeps in memory."""
        self._cache.max_bytes = max_bytes

    async def stop(self) -> None:
        if not self._running:
            return
        self._ending = True
        self._releaser.stop()
        if self._commits.waiting:
            self._commit_soon()
        while self._committing and self._committer is not None and not self._room.full_for_all:
            await asyncio.wait([self._committer], timeout=FULL_S)
        if self._committing and self._room.full_for_all:
            log.warning("there is no room for the last settles: their events will be handed out again")
        self._running = False
        for part in self._trimmer, self._nobody_up, self._scheduler, self._schemas, self._deaths, self._alarm:
            part.stop()
        await self._tasks.end()
        if self._committer is not None:
            await end_tasks([self._committer])
        if not self.store.durable:
            warn_of_forgotten(self._dispatcher.topics.values())
        await self.store.close()

    def check(self) -> None:
        self._check_running()
        self._releaser.check()

    def _fail(self, error: StoreError) -> None:
        """Stop, because the store's promise cannot be kept any more."""
        if self._error is None:
            if self.store.is_over:
                log.warning("%s", error)
            else:
                log.critical("solarwind stops: %s", error)
            self.end(error)

    def _store_failed(self, error: StoreError) -> None:
        """Stop, because the store failed. Called on a thread of the store's, when no request may be running."""
        with suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._fail, error)

    def end(self, error: StoreError) -> None:
        """End everything: nothing goes on from here."""
        self._error = error
        for future in self._commits.abandon():
            refuse(future, error)
        waiters: list[asyncio.Future[Any]] = [*self._idle_waits.pop_futures(), *self._held.pop_futures()]
        waiters += [future for _, future in self._durable]
        for waiter in waiters:
            refuse(waiter, error)
        self._durable.clear()
        if not self._begun.done():
            self._begun.set_result(None)  # there is nothing more to be made
        if not self.failed.done():
            self.failed.set_exception(error)  # so that receivers know that it is not they alone
        for receiver in self._receivers.values():
            receiver.close(str(error))
        self._receivers.clear()

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        self._tasks.begin(work, "the dispatcher")

    # Events in ----------------------------------------------------------------------------------------

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        self._check_running()
        future: asyncio.Future[None] = self._loop.create_future()
        if self._commits.submit(batch, future):
            self._commit_soon()
        else:
            future.set_result(None)
        return future

    def withdraw(self, submitted: asyncio.Future[None]) -> bool:
        return self._commits.withdraw(submitted)

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        if self._error is not None or not self._running:
            return False
        if self._room.full and fired and report.done and not report.refusal:
            self._hold(report, fired)
            return True
        return self._count_report(report, fired)

    def _hold(self, report: Report, fired: Collection[Batch]) -> asyncio.Future[bool]:
        future = self._held.add(report, fired)
        if len(self._held) == 1:
            self._spawn(self._try_held())
        return future

    async def _try_held(self) -> None:
        try:
            while self._held and self._running and self._error is None:
                if self._room.full and not await self.store.has_room(self._held.next_bytes):
                    await asyncio.sleep(FULL_S)
                    continue
                self._held.count_next()
                await self._committed()
        except StoreError as error:
            self._fail(error)

    def _count_report(self, report: Report, fired: Collection[Batch]) -> bool:
        try:
            counts = self._commits.report(report, fired, self._clock.now())
        except Exception as error:  # half of it must not be committed
            self._tasks.broken("what an instance reported", error)
            return False
        found = self._dispatcher.instances.get(report.instance) if fired or not counts else None
        if not counts:
            log_stale(found[0].join if found is not None else None, report.instance, report.lease)
        elif found is not None:
            self._schemas.note_fired(found[0].join, fired)
        self._carry_out()
        return counts

    async def settle(self, report: Report, fired: Collection[Batch] = ()) -> bool:
        self._check_running()
        if self._room.full and fired and report.done and not report.refusal:
            counts = await self._hold(report, fired)
        else:
            counts = self.report(report, fired)
        await self._committed()
        return counts

    def alive(self, instance: int) -> None:
        self._dispatcher.alive(instance, self._clock.now())
        self._carry_out()

    # Commits ------------------------------------------------------------------------------------------

    @property
    def _committing(self) -> bool:
        """Whether a commit is under way, or about to be."""
        return self._begun.done() and self._error is None

    def _commit_soon(self) -> None:
        if self._running and self._error is None and not self._begun.done():
            self._begun.set_result(None)
            if self._committer is None:
                self._committer = self._loop.create_task(self._commit_all())
                self._committer.add_done_callback(self._commits_ended)

    def _commit_in_time(self) -> None:
        """Commit what waits: at once, or once what may ride has found nothing to go with."""
        if self._ending or self._durable or self._idle_waits.waiting or not self._commits.can_wait:
            self._commit_soon()
        elif self._riding is None:
            self._riding = self._loop.call_later(RIDE_S, self._commit_soon)

    async def _commit_all(self) -> None:
        due = self._commits.due
        try:
            while self._error is None:
                if self._commits.waiting or self._durable:
                    await self._commit_once()
                if due.nearest is not None and await self._releaser.release():
                    continue
                begun = self._begun = self._loop.create_future()
                if self._idle_waits.waiting:
                    self._idle_waits.check()
                if self._commits.waiting:
                    self._commit_in_time()
                elif self._ending:
                    return
                await begun
        except StoreError as error:
            self._fail(error)

    def _commits_ended(self, task: asyncio.Task[None]) -> None:
        self._committer = None
        if self._begun.cancelled():  # with the task, by a program that cancels all tasks: it had nothing to do
            self._begun = self._loop.create_future()
            if self._commits.waiting:
                self._commit_soon()
            return
        self._tasks.ended("the dispatcher's commits", task)

    async def _commit_once(self) -> None:
        """Commit everything that waits; if there is no room, at least what was settled."""
        if self._riding is not None:
            self._riding.cancel()
            self._riding = None
        if self._dispatcher.deaths.waiting:
            await self._deaths.fire(self._commits)
        commit, began = self._commits.begin(), perf_counter_ns()
        try:
            await self._write(commit)
            self._room.commits.add(perf_counter_ns() - began, 1)
            if self._room.full:
                self._room.note_room(bool(commit.incoming or commit.later))
        except Full as full:
            self._room.note_full(full, self._clock.now())
            for _, future in self._commits.refuse(commit):
                refuse(future, StoreError(str(full)))
            try:
                await self._write_settles(commit)
            except Full:
                self._room.full_for_all = True
                self._commits.put_back(commit)
                await asyncio.sleep(FULL_S)
                return
        now = self._clock.now()
        if commit.incoming or commit.later:
            for _, submitted in (*commit.incoming, *commit.later):
                if submitted is not None and not submitted.done():
                    submitted.set_result(None)
            self._carry_out()  # a producer that waits for its event need not wait for what follows
        for offer in self._commits.end(commit, now):
            self._deliver(offer)
        for number, waiter in self._durable:
            if number <= commit.number and not waiter.done():
                waiter.set_result(None)
        self._durable = [each for each in self._durable if not each[1].done()]
        if commit.changes:
            self._carry_out()
        self._sampler.wake()

    async def _write(self, commit: Commit[asyncio.Future[None]]) -> None:
        """Make it durable, and dispatch its events meanwhile; afterwards, where they expire: the disk may take long."""
        content = commit.batches, commit.changes, commit.snapshots, self._clock.now()
        more = commit.delayed if commit.later else (), commit.notes, self._clock.wall()
        expiring = [batch for batch in content[0] if batch.header.expires]
        stored = await self.store.commit(*content, *more, None if expiring else self._dispatch)
        if expiring:
            self._dispatch(stored)

    async def _write_settles(self, commit: Commit[asyncio.Future[None]]) -> None:
        """Write settles, if need be with the room that is reserved for them."""
        try:
            await self._write(commit)
        except Full:
            if not await self.store.make_room():
                raise
            await self._write(commit)

    def _dispatch(self, stored: list[Stored | None]) -> None:
        now = self._clock.now()
        for each in stored:
            if each is not None:
                self._accept_one(each, now)

    def _accept_one(self, stored: Stored, now: int) -> None:
        self._commits.accept(stored, now)
        self._trimmer.look_at(self._dispatcher.topics[stored.batch.topic])

    def _arrived(self, *arrived: Stored) -> None:
        """Dispatch batches that arrived in the log from elsewhere, or were due."""
        now = self._clock.now()
        for stored in arrived:
            self._enter(in_time_of(self._clock, stored) if self.store.shared else stored, now)
        self._carry_out()

    def _enter(self, stored: Stored, now: int) -> None:
        try:
            self._dispatcher.topic(stored.batch.topic)
        except Busy as busy:
            log.error("events are kept but not handed out: %s", busy)
        else:
            self._accept_one(stored, now)

    async def _caught_up(self, topics: Collection[str] = ()) -> None:
        """Wait until everything accepted has arrived. What was fired on these topics, and neither kept nor listened to,
        is in a log that others write into all the same: it is deleted before it can be read."""
        await self.store.synced()
        self._check_running()
        for name in topics if self.store.shared else ():
            topic = self._dispatcher.topics.get(name)
            if topic is not None and not topic.purposes and topic.keep_ns == 0:
                await self.store.trim(name, Spans((topic.end, FOREVER)), FOREVER, None)

    # Effects ------------------------------------------------------------------------------------------

    def _carry_out(self) -> None:
        """Carry out the dispatcher's effects. Every call that may have changed something ends with it."""
        dispatcher = self._dispatcher
        try:
            while dispatcher.effects:
                for effect in dispatcher.pop_effects():
                    self._carry_out_one(effect)
            if self._delivered:
                delivered, self._delivered = self._delivered, []
                for receiver in delivered:
                    receiver.flush()
        except Exception as error:  # what is not handed out now never is
            self._tasks.broken("what the dispatcher hands out", error)
        if not self._begun.done() and self._commits.waiting:
            self._commit_in_time()
        if self._running:
            self._alarm.set()
        if self._idle_waits.waiting:
            self._idle_waits.check()

    def _carry_out_one(self, effect: Effect) -> None:
        if isinstance(effect, Offer):
            if not self._commits.hold(effect):
                self._deliver(effect)
        elif isinstance(effect, Fetch):
            self._fetcher.fetch(effect.topic, effect.position)
        elif isinstance(effect, Fault):
            level = logging.WARNING if effect.about[0] == "keyless" else logging.ERROR  # those go on
            limited.log(("fault", *effect.about), level, "%s", effect.text)
        elif isinstance(effect, Closed):
            receiver = self._receivers.pop(effect.instance, None)
            if receiver is not None:
                receiver.close(effect.reason)

    def _deliver_all(self, offers: list[Offer]) -> None:
        for offer in offers:
            self._deliver(offer)
        self._carry_out()

    def _deliver(self, offer: Offer) -> None:
        if not self.store.is_sure():
            self._gate.hold(offer)
            return
        receiver = self._receivers.get(offer.instance)
        if receiver is not None:
            receiver.deliver(offer)
            self._delivered.append(receiver)

    # Instances ----------------------------------------------------------------------------------------

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        self._check_running()
        if not self._dispatcher.goes_on(join):
            await self._caught_up([join.topic])
        async with self._trimmer.guard:
            position = await self._position(join.topic, since)
            instance = self._dispatcher.join(without_schema(join), position, self._clock.now())
        self._receivers[instance] = receiver
        self._carry_out()
        try:
            await self._committed()
            await self._schemas.joined(join, receiver, self._dispatcher)
            if join.topic == DEAD:
                await self._deaths.look()
        except BaseException:  # the caller does not wait for it any more
            await self.leave(instance)
            raise
        return instance

    def leaving(self, *instances: int) -> None:
        for instance in instances:
            self._held.count_all(instance)
        self._dispatcher.leaving(instances, self._clock.now())
        self._nobody_up.set_timer()
        self._carry_out()

    async def leave(self, instance: int, *, died: bool = False) -> None:
        self._receivers.pop(instance, None)
        self._held.count_all(instance)
        self._dispatcher.leave(instance, self._clock.now(), died=died)
        self._nobody_up.set_timer()
        self._carry_out()

    async def _committed(self) -> None:
        self._check_running()  # it may have ended since the call began
        fresh = self._commits.changed
        if not fresh and not self._committing:
            return
        waiter: asyncio.Future[None] = self._loop.create_future()
        self._durable.append((self._commits.number + fresh, waiter))
        self._commit_soon()
        await waiter

    # Idle --------------------------------------------------------------------------------------------

    async def idle(self, purposes: Collection[tuple[str, str]]) -> None:
        """Wait as `Engine` says. Where what handlers fired arrives from elsewhere, wait until all of it has, and there
        is nothing to do. What arrived meanwhile may be handled, but not committed yet: then wait once more."""
        while True:
            await self._caught_up()
            ends = self._ends(purposes)
            if self._commits.waiting:
                self._commit_soon()
            await self._idle_waits.wait(purposes)
            if not self.store.shared:
                return
            await self.store.forwarded()
            if ends == self._ends(purposes) and not any(self._dispatcher.has_work(*names) for names in purposes):
                return

    def _ends(self, purposes: Collection[tuple[str, str]]) -> list[int]:
        """Return how many events were fired on each topic of these purposes."""
        topics = self._dispatcher.topics
        return [topics[name].end for name in sorted({topic for topic, _ in purposes}) if name in topics]

    def _under_way(self) -> set[object]:
        """See `Clock.start`: leases, reads, schedules and the commit."""
        found: set[object] = {*self._fetcher.reading}
        if self._committing:
            found.add(self._begun)
        if self._scheduler.at_work is not None:
            found.add(self._scheduler.at_work)
        for instance, _ in self._dispatcher.instances.values():
            found.update(instance.leases)
        return found

    async def left(self, purposes: Collection[tuple[str, str]]) -> str:
        await self._caught_up()
        parts = left_of(self._dispatcher, purposes)
        if self._commits.due.has_work(self._clock.wall()):
            parts.append("delayed events that are due")
        if self._committing:
            parts.append("a commit under way")
        return "; ".join(parts) or NOTHING
