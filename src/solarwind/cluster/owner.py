"""An owner of a partition: the dispatcher of its topics, and the connections of those who use it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Collection
from time import monotonic
from typing import Any

import msgspec

from ..core.effects import Join, Offer
from ..core.log import Stored
from ..core.spans import Spans
from ..engine.base import Receiver, Since
from ..engine.clock import Clock, SteadyClock
from ..engine.local import LocalEngine
from ..engine.operations import FOREVER
from ..errors import Busy, StoreError
from ..limits import Limits
from ..origin import MACHINE, process_name
from ..peer.clients import Clients
from ..records import Statistics, TopicInfo
from ..store.base import Full
from .store import JetStreamStore

log = logging.getLogger("solarwind")

HEARTBEAT_S = 2.0  # of connections: who is silent for two is gone
STOP_S = 3.0  # that what was settled last has to be written
SURE_S = 1.5  # that an owner is taken for one without a sign: before anybody replaces it
FULL_S = 1.0  # between two tries to write where there is no room
DRAIN_S = 1.0  # that handlers have to end what they began before a partition moves
CACHE_BYTES = 96 << 20  # of the recent batches of all partitions that a process owns
_MOST = 1 << 30


class Settings(msgspec.Struct, frozen=True):
    """What a client may cost: it is one of us."""

    frame_bytes: int = 64 << 20
    authenticate_s: float = 10.0
    heartbeat_s: float = HEARTBEAT_S
    instances: int = _MOST
    unanswered: int = _MOST


class Everything:
    """Whoever NATS lets in may do everything: rights are NATS's."""

    def check_fire(self, topic: str) -> None:
        """He may."""

    def check_listen(self, topic: str, purpose: str) -> None:
        """He may."""

    def check_admin(self) -> None:
        """He may."""


_EVERYTHING = Everything()


class PartitionEngine(LocalEngine):
    """The engine of one partition. What was accepted may not have come here yet when somebody asks: so whatever depends
    on it waits for it first."""

    store: JetStreamStore

    async def start(self) -> None:
        self._sure_at = monotonic()  # that this process is the owner
        self._in_doubt: list[Offer] = []
        await super().start()
        self.store.failed = self._fail
        self.store.follow(self._arrived)

    def _arrived(self, stored: Stored) -> None:
        try:
            self._dispatcher.topic(stored.batch.topic)
        except Busy as busy:
            log.error("events are kept but not handed out: %s", busy)
            return
        self._accept_one(stored, self._clock.now())
        self._carry_out()

    async def _drop_unkept(self, names: Collection[str]) -> None:
        """What was fired on topics that keep no history and that nobody listens to is in the stream all the same; it
        goes before anybody sees it."""
        for name in names:
            topic = self._dispatcher.topics.get(name)
            if topic is not None and not topic.purposes and topic.keep_ns == 0:
                await self.store.trim(name, Spans((topic.end, FOREVER)), FOREVER, None)

    # Whether it is the owner still -------------------------------------------------------------------

    def look(self) -> None:
        """Called now and then: while it is, and NATS is in reach, nobody takes this process for gone."""
        if self._is_sure():
            self._sure_at = monotonic()

    def _is_sure(self) -> bool:
        return monotonic() - self._sure_at < SURE_S and self.store.is_in_touch(SURE_S)

    def _deliver(self, offer: Offer) -> None:
        """Who stood still or was cut off for a while may have been replaced, and what it has may be handled: it hands
        out nothing before a commit shows that it was not."""
        if self._is_sure():
            super()._deliver(offer)
            return
        self._in_doubt.append(offer)
        if len(self._in_doubt) == 1:
            self._spawn(self._make_sure())

    async def _make_sure(self) -> None:
        while not self._is_sure():
            began = monotonic()
            try:
                await self.store.checkpoint()
            except Full as full:
                log.warning("%s", full)
                await asyncio.sleep(FULL_S)
            except StoreError as error:
                self._fail(error)
                return
            else:
                self._sure_at = began
        offers, self._in_doubt = self._in_doubt, []
        for offer in offers:
            self._deliver(offer)
        self._carry_out()

    # The end ------------------------------------------------------------------------------------------

    def _fail(self, error: StoreError) -> None:
        if (self.store.fenced or self.store.gone) and self._error is None:
            log.warning("%s", error)
            self.end(error)
        else:
            super()._fail(error)

    def share_cache(self, partitions: int) -> None:
        """So many there are in this process."""
        self._cache.most_bytes = CACHE_BYTES // partitions

    async def drain(self) -> None:
        """Hand out nothing more, and let what is out come back."""
        loop = asyncio.get_running_loop()
        until = loop.time() + DRAIN_S
        now = self._clock.now()
        for instance in list(self._dispatcher.instances):
            self._dispatcher.leaving(instance, now)
        self._carry_out()
        while loop.time() < until and self._error is None and self._in_flight():  # noqa: ASYNC110
            await asyncio.sleep(0.005)

    def _in_flight(self) -> bool:
        return any(purpose.flying for topic in self._dispatcher.topics.values() for purpose in topic.purposes.values())

    # What depends on all that was accepted ------------------------------------------------------------

    async def _committed(self) -> None:
        self._check_running()  # it may have ended since the call began
        await super()._committed()

    async def join(self, join: Join, since: Since, receiver: Receiver) -> int:
        self._check_running()
        if not self._goes_on(join):
            await self.store.synced()
            await self._drop_unkept([join.topic])
        return await super().join(join, since, receiver)

    def _goes_on(self, join: Join) -> bool:
        """Whether it goes on with what pends, however much came since nobody owned the topic."""
        topic = self._dispatcher.topics.get(join.topic)
        purpose = topic.purposes.get(join.purpose) if topic is not None else None
        return purpose is not None and purpose.exchange_pends and purpose.active.exchange == join.exchange

    async def statistics(self) -> Statistics:
        self._check_running()
        await self.store.synced()
        return await super().statistics()

    async def topics(self) -> list[TopicInfo]:
        self._check_running()
        await self.store.synced()
        await self._drop_unkept(list(self._dispatcher.topics))
        return await super().topics()

    async def replay(self, topic: str, purpose: str, since: Since = "beginning", until: Since = "now") -> int:
        self._check_running()
        await self.store.synced()
        return await super().replay(topic, purpose, since, until)

    async def retire(self, topic: str, purpose: str, force: bool = False) -> None:
        self._check_running()
        await self.store.synced()
        await super().retire(topic, purpose, force)

    async def quiet(self, purposes: Collection[tuple[str, str]]) -> None:
        """What handlers fired is on its way back here: until all has come, and there is still nothing to do."""
        while True:
            self._check_running()
            await self.store.synced()
            await super().quiet(purposes)
            commits = self._commit_number
            await self.store.forwarder.idle()
            await self.store.synced()
            if commits == self._commit_number and not any(self._work_left(*names) for names in purposes):
                return

    async def left(self, purposes: Collection[tuple[str, str]]) -> str:
        await self.store.synced()
        return await super().left(purposes)


class Owner(Clients):
    """One partition that this process owns. A `Host` of connections."""

    checks_authors = False  # whoever may use NATS may write into the streams anyway

    def __init__(
        self,
        store: JetStreamStore,
        limits: Limits,
        ended: Callable[[Owner, StoreError], None],
        *,
        clock: Clock | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        """`ended` is called when it is over without having been stopped."""
        super().__init__()
        self.partition = store.partition
        self.name = f"{MACHINE}/{process_name()}"
        self.limits = limits
        self.settings = Settings()
        options: dict[str, Any] = {} if random is None else {"random": random}
        self.engine: PartitionEngine = PartitionEngine(
            store, clock=clock, service_clock=SteadyClock(), limits=limits, **options
        )
        self._store = store
        self._ended = ended
        self._sweeper: asyncio.Task[None] | None = None
        self.ready = False

    async def start(self) -> None:
        """Take the partition up. Raises `StoreError`."""
        try:
            await self.engine.start()
        except BaseException:
            await self._store.abandon()
            raise
        self.engine.failed.add_done_callback(self._failed)
        self._sweeper = asyncio.create_task(self._sweep())
        self.ready = True

    def _failed(self, future: asyncio.Future[None]) -> None:
        error = future.exception() if not future.cancelled() else None
        if isinstance(error, StoreError) and self.ready:
            self.ready = False
            self._ended(self, error)

    async def stop(self, *, drain: bool = False) -> None:
        """Let go of it in order, so that whoever comes next need suspect nobody. `drain`: the others go on, so let them
        come to an end with what they have."""
        running = self.ready
        self.ready = False
        if drain and running:
            await self.engine.drain()
        for connection in list(self._connections):
            connection.leave()
        if self._sweeper is not None:
            self._sweeper.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if running and not self.engine.failed.done():
            try:
                async with asyncio.timeout(STOP_S):
                    await self.engine.stop()
            except TimeoutError:
                self.engine.end(StoreError(f"partition {self.partition} could not be written before its owner stopped"))
                log.warning("partition %d cannot be written: what was settled last is handled again", self.partition)
        await self._store.abandon()
        await self.engine.stop()

    async def _sweep(self) -> None:
        """While this process stood still nobody could be heard of."""
        loop = asyncio.get_running_loop()
        pause = HEARTBEAT_S / 4
        due = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            late, due = now - due, now + pause
            self.engine.look()
            for connection in list(self._connections) if late < HEARTBEAT_S else ():
                connection.check(now)

    # A host -------------------------------------------------------------------------------------------

    def grant(self, token: str | None) -> Everything:
        return _EVERYTHING
