"""The owner of a partition: the dispatcher of its topics, and the connections of its clients."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

import msgspec

from ..engine.clock import Clock, SteadyClock
from ..engine.local import LocalEngine
from ..engine.tasks import Tasks
from ..errors import StoreError
from ..limits import Limits
from ..origin import MACHINE, process_name
from ..peer.clients import Clients
from .store import JetStreamStore

log = logging.getLogger("solarwind")

HEARTBEAT_S = 2.0  # of connections: a client that misses two is gone
STOP_S = 3.0  # that what was settled last has to be written
DRAIN_S = 1.0  # that handlers have to end what they began before a partition moves
CACHE_BYTES = 96 << 20  # of the recent batches of all partitions that a process owns
_MAX = 1 << 30


class OwnerSettings(msgspec.Struct, frozen=True):
    """The limits of a client. It is a process of the same namespace, so there are hardly any."""

    frame_bytes: int = 64 << 20
    authenticate_s: float = 10.0
    heartbeat_s: float = HEARTBEAT_S
    instances: int = _MAX
    unanswered: int = _MAX


class FullRights:
    """The rights of a client: NATS has decided who may connect, so it may do everything."""

    name = ""

    def check_fire(self, topic: str | None) -> None:
        """Allow it."""

    def check_listen(self, topic: str, purpose: str) -> None:
        """Allow it."""

    def check_watch(self) -> None:
        """Allow it."""

    def check_admin(self) -> None:
        """Allow it."""


_FULL_RIGHTS = FullRights()


class Owner(Clients):
    """One partition that this process owns. It is the `Host` of its clients' connections."""

    checks_authors = False  # a user of NATS may write into the streams anyway

    def __init__(
        self,
        store: JetStreamStore,
        limits: Limits,
        ended: Callable[[Owner, StoreError], None],
        *,
        clock: Clock | None = None,
        random: Callable[[], float] | None = None,
    ) -> None:
        """`ended` is called when it ends without having been stopped."""
        super().__init__()
        self.partition = store.partition
        self.name = f"{MACHINE}/{process_name()}"
        self.limits = limits
        self.settings = OwnerSettings()
        options: dict[str, Any] = {} if random is None else {"random": random}
        self.engine = LocalEngine(store, clock=clock, service_clock=SteadyClock(), limits=limits, **options)
        self.store = store
        self._ended = ended
        self._background = Tasks(self._broken)
        self.ready = False

    async def start(self) -> None:
        """Recover the partition and dispatch it. Raise `StoreError`."""
        try:
            await self.engine.start()
        except BaseException:
            await self.store.abandon()
            raise
        self.engine.failed.add_done_callback(self._failed)
        self._background.begin(self._sweep(), f"the look at the clients of partition {self.partition}")
        self.ready = True

    def _broken(self, error: StoreError) -> None:
        log.error("%s", error)
        self.engine.end(error)

    def _failed(self, future: asyncio.Future[None]) -> None:
        error = future.exception() if not future.cancelled() else None
        if isinstance(error, StoreError) and self.ready:
            self.ready = False
            self._ended(self, error)

    async def stop(self, *, drain: bool = False) -> None:
        """Release the partition in order, so that the next owner suspects no event. `drain`: other processes go on, so
        let handlers end what they began."""
        running = self.ready
        self.ready = False
        self.store.is_followed = drain
        if drain and running:
            await self.engine.drain(DRAIN_S)
        for connection in list(self._connections):
            connection.leave()
        await self._background.end()
        await self.finish()
        if running and not self.engine.failed.done():
            try:
                async with asyncio.timeout(STOP_S):
                    await self.engine.stop()
            except TimeoutError:
                self.engine.end(StoreError(f"partition {self.partition} could not be written before its owner stopped"))
                log.warning("partition %d cannot be written: the events settled last are handled again", self.partition)
        await self.store.abandon()
        await self.engine.stop()

    async def _sweep(self) -> None:
        """Check each connection now and then, but not right after this process stood still: it could not receive
        heartbeats then."""
        loop = asyncio.get_running_loop()
        pause = HEARTBEAT_S / 4
        due = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            late, due = now - due, now + pause
            self.store.look()
            for connection in list(self._connections) if late < HEARTBEAT_S else ():
                connection.check(now)

    def share_cache(self, partitions: int) -> None:
        """Use the memory for recent batches with the other partitions of this process, of which there are `partitions`
        in all."""
        self.engine.limit_cache(CACHE_BYTES // partitions)

    # A host -------------------------------------------------------------------------------------------

    def grant(self, token: str | None, uid: int | None) -> FullRights:
        return _FULL_RIGHTS
