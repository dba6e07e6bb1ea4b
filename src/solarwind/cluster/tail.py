"""A stream from some message on, in order and without a gap: read on as it grows, whatever happens to the servers.

The reader is an ordered consumer: it acknowledges nothing, and is made anew behind the last message that came when a
message is missing, the consumer is silent, or the connection was lost. That needs the cluster's own leader; while there
is none the stream is read on page by page.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from functools import partial
from typing import Any
from uuid import uuid4

from nats.aio.msg import Msg
from nats.aio.subscription import Subscription

from ..engine.backoff import Backoff
from ..engine.tasks import Tasks, end_tasks
from ..errors import SolarWindError, StoreError
from ..logs import limited
from .pieces import Pieces
from .session import NO_STREAM, NoAnswer, Raw, Refusal, Session

log = logging.getLogger("solarwind")

HEARTBEAT_S = 1.0
SILENT_S = 3.0
DOUBT_S = 2.5  # without a heartbeat of a consumer's
LOOK_S = 2.0  # between two times that the leader is asked whether there is more, of a consumer that is new
NEW_S = 60.0
SELDOM_LOOK_S = 30.0  # the same, later
PAGES_S = 0.25  # between two pages, while there is no consumer
_PAGE = {"next_by_subj": ">", "batch": 256, "max_bytes": 4 << 20}
_S = 1_000_000_000


class Tail:
    """`received` gets each message, with its pieces put together, and is called on the loop. `gone` is called when
    there is no such stream (any more), or not the one that was `created` then; `failed` where it cannot be read on."""

    def __init__(
        self,
        session: Session,
        stream: str,
        received: Callable[[Raw], None],
        gone: Callable[[], None],
        failed: Callable[[StoreError], None],
        *,
        start: int = 1,
        created: str = "",
        last_per_subject: bool = False,
    ) -> None:
        self._session = session
        self._stream = stream
        self._received = received
        self._stream_gone = gone
        self._start = start
        self._created = created
        self._per_subject = last_per_subject
        self.seen = start - 1  # the sequence of the last message that came, with all of its pieces
        self._reached = start - 1  # of the last one or piece
        self._gone = 0  # nothing comes any more up to here, as a leader said that may be behind
        self._delivered = 0  # by the present consumer
        self._consumer = ""
        self._is_same = False
        self._subscription: Subscription | None = None
        self._heard = 0.0
        self._broken = asyncio.Event()
        self._came = asyncio.Event()
        self._pieces = Pieces()
        self._failed = failed
        self._tasks = Tasks(failed)
        self._task: asyncio.Task[None] | None = None
        self._last_sync: asyncio.Task[None] | None = None  # under way, or the last one
        self._next_sync: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._session.lost.append(self._broken.set)
        self._task = self._tasks.begin(self._run(), f"the reading of stream {self._stream}")

    async def end(self) -> None:
        if self._task is not None:
            self._session.lost.remove(self._broken.set)
            await self._tasks.end()
            self._task = None
        await self._drop()

    def sync(self) -> asyncio.Task[None]:
        """Return the task that ends once all that is in the stream by now has come. Callers while a request is under
        way share the next one, and go on in the order in which they called."""
        if self._next_sync is None:
            self._next_sync = self._tasks.spawn(self._sync(self._last_sync), f"the reading of {self._stream}")
        return self._next_sync

    async def _sync(self, before: asyncio.Task[None] | None) -> None:
        if before is not None and not before.done():
            await asyncio.wait([before])
        self._last_sync, self._next_sync = self._next_sync, None
        try:
            last = await self._session.until_answered(
                lambda: self._session.last_sequence(self._stream), f"ask stream {self._stream} how long it is"
            )
        except (Refusal, SolarWindError):
            return  # whoever reads it on notices that it is gone, or that the connection is over
        await self.until(last)

    async def until(self, seq: int) -> None:
        """Wait until everything up to that sequence has come."""
        while max(self.seen, self._reached, self._gone) < seq and self._task is not None:
            self._came.clear()
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._came.wait()
            except TimeoutError:
                if await self._is_more() is False:  # what is missing was deleted
                    self._gone = seq

    async def _is_more(self) -> bool | None:
        """Return whether the stream's leader has something that did not come yet; None if it does not answer."""
        try:
            return await self._next() is not None
        except (NoAnswer, Refusal):
            return None

    async def _next(self) -> Raw | None:
        return await self._session.next(self._stream, ">", max(self.seen, self._reached) + 1)

    async def _read_from_leader(self) -> None:
        """Read one message after the other from the leader: slowly, but all that there is."""
        try:
            async with asyncio.timeout(LOOK_S):
                while raw := await self._next():
                    self._in_order(raw)
        except (NoAnswer, Refusal, TimeoutError):
            pass

    # The consumer -------------------------------------------------------------------------------------

    async def _run(self) -> None:
        backoff = Backoff()
        while True:
            try:
                await self._session.ready()
            except SolarWindError:
                return
            try:
                await self._make()
                backoff = Backoff()
                await self._watch()
            except NoAnswer as error:
                kind = ("unread", self._stream)
                limited.log(kind, logging.INFO, "stream %s cannot be read yet: %s", self._stream, error)
            except Refusal as refusal:
                if refusal.code == NO_STREAM:
                    self._stream_gone()
                else:
                    log.warning("stream %s cannot be read: %s; trying again", self._stream, refusal)
            except Exception:
                log.exception("stream %s cannot be read; trying again", self._stream)
            try:
                await self._drop()
                await self._pause(backoff.next())
            except Exception:
                log.exception("stream %s cannot be read; trying again", self._stream)

    async def _pause(self, seconds: float) -> None:
        """Pause before the consumer is made again; read on meanwhile, if it is certain to be the same stream."""
        until = asyncio.get_running_loop().time() + seconds
        while (left := until - asyncio.get_running_loop().time()) > 0:
            if self._is_same:
                await self._read_on()
            await asyncio.sleep(min(left, PAGES_S))

    async def _make(self) -> None:
        self._is_same = False
        if self._created:
            info = await self._session.api(f"STREAM.INFO.{self._stream}")
            if info["created"] != self._created:
                raise Refusal(NO_STREAM, f"stream {self._stream} was deleted and made again")
            self._is_same = True
        self._broken.clear()
        self._pieces.clear()
        self._delivered = 0
        self._consumer = f"solarwind-{uuid4().hex[:12]}"
        inbox = self._session.channel.new_inbox()
        self._heard = asyncio.get_running_loop().time()
        self._subscription = await self._session.subscribe(inbox, partial(self._message, self._consumer))
        config: dict[str, Any] = {
            "name": self._consumer,
            "deliver_subject": inbox,
            "ack_policy": "none",
            "max_deliver": 1,
            "replay_policy": "instant",
            "flow_control": True,
            "idle_heartbeat": int(HEARTBEAT_S * _S),
            "inactive_threshold": 30 * _S,
            "mem_storage": True,
            "num_replicas": 1,
        }
        if self._per_subject and self.seen < self._start:
            config["deliver_policy"] = "last_per_subject"
            config["filter_subject"] = ">"
        else:
            config |= {"deliver_policy": "by_start_sequence", "opt_start_seq": max(1, self.seen + 1)}
        name = f"CONSUMER.CREATE.{self._stream}.{self._consumer}"
        making = asyncio.create_task(self._session.api(name, {"stream_name": self._stream, "config": config}))
        try:
            while not (await asyncio.wait([making], timeout=PAGES_S))[0]:
                await self._read_on()
            making.result()
        finally:
            await end_tasks([making])

    async def _read_on(self) -> None:
        try:
            for raw in await self._session.get(self._stream, {"seq": max(1, self.seen + 1), **_PAGE}):
                self._in_order(raw)
        except (NoAnswer, Refusal):
            pass  # the consumer will have it

    async def _watch(self) -> None:
        """Return once the consumer has to be made anew. It may be on a server that is behind and does not know it: so
        ask the leader, most often while the consumer is new."""
        loop = asyncio.get_running_loop()
        made, behind = loop.time(), -1
        look_at = made + HEARTBEAT_S
        while not self._broken.is_set():
            try:
                async with asyncio.timeout(HEARTBEAT_S):
                    await self._broken.wait()
            except TimeoutError:
                pass
            now = loop.time()
            if not self._session.is_up or now - self._heard > SILENT_S:
                return
            if now - self._heard > DOUBT_S:
                self._session.doubt()
            if behind == self._delivered:
                log.info("stream %s: more is stored than comes; reading it from its leader", self._stream)
                await self._read_from_leader()
                return
            behind = -1
            if now >= look_at:
                look_at = now + (LOOK_S if now - made < NEW_S else SELDOM_LOOK_S)
                delivered = self._delivered
                behind = delivered if await self._is_more() else -1

    async def _drop(self) -> None:
        subscription, self._subscription = self._subscription, None
        if subscription is not None:
            await self._session.unsubscribe(subscription)
            try:
                await self._session.tell(f"$JS.API.CONSUMER.DELETE.{self._stream}.{self._consumer}", b"")
            except NoAnswer:
                pass  # it ends by itself without a subscriber

    # What it delivers ---------------------------------------------------------------------------------

    async def _message(self, consumer: str, message: Msg) -> None:
        if self._broken.is_set() or consumer != self._consumer:
            return  # of an earlier consumer, or one that is given up
        self._heard = asyncio.get_running_loop().time()
        headers = message.headers or {}
        if headers.get("Status") == "100":
            await self._control(message, headers)
            return
        tokens = message.reply.split(".")
        tokens = tokens[2:] if len(tokens) == 9 else tokens[4:]
        seq, delivered, time = int(tokens[3]), int(tokens[4]), int(tokens[5])
        if delivered != self._delivered + 1:
            log.info("stream %s: a message was lost on the way; reading it again", self._stream)
            self._broken.set()
            return
        self._delivered = delivered
        self._in_order(Raw(message.subject, seq, message.data, headers, time))

    def _in_order(self, raw: Raw) -> None:
        if raw.seq <= self.seen:
            return  # read while the consumer was made
        whole = self._pieces.add(raw)
        if whole is not None:
            self._receive(whole, raw.seq)
        self._reached = raw.seq
        self._came.set()

    def _receive(self, raw: Raw, last: int) -> None:
        try:
            self._received(raw)
        except Exception as error:
            what = f"message {raw.seq} of stream {self._stream} could not be handled"
            log.exception(what)
            self._failed(StoreError(f"{what} after an unexpected {type(error).__name__}: {error}"))
        self.seen = last

    async def _control(self, message: Msg, headers: dict[str, str]) -> None:
        """Answer when all that came before was handled, so that a slow reader is not overrun."""
        answer = message.reply or headers.get("Nats-Consumer-Stalled")
        if answer:
            try:
                await self._session.tell(answer, b"")
            except NoAnswer:
                self._broken.set()
        last = headers.get("Nats-Last-Consumer")
        if last is not None and int(last) != self._delivered:
            self._broken.set()
