"""`GET …/feed`: events as server-sent events, for clients that can only read, such as a browser or curl.

A feed is a fan-out instance. It settles nothing, so it is only for purposes whose events do not pend. Messages have no
id, because there is nothing to resume: a browser that lost its connection reconnects and goes on with new events.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Send

from ..core.effects import Join
from ..engine.base import Engine
from ..errors import Busy, NotAllowed
from ..event import Event
from ..limits import Limits
from ..peer.time_slices import PIECE_BYTES, TimeSlices
from ..plugins import registered
from ..service.consumer import Consumer, Work
from ..service.registration import stated
from ..shares import read_rollout
from ..text import escape_controls
from .call import Call
from .cloudevents import encode, to_cloudevent
from .host import ServerHost
from .revocation import Revocable
from .schemas import Delay, PurposeName, RolloutStated, VersionNumber
from .streams import RETRY_MS, StreamResponse, end_all
from .times import read_delay

ROOM = 500  # events, for a reader that keeps up
MAX_EVENTS = 100  # written at once
_SPACES = bytes.maketrans(b"\r\n", b"  ")


class FeedQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the reader states."""

    purpose: PurposeName
    exchange: str = "fanout"
    version: VersionNumber = 1
    rollout: RolloutStated = "newest"
    delay: Delay = "0"


async def feed(call: Call, feeds: Feeds) -> Response:
    """Answer with events as they come, without end. Raise the error for which it cannot."""
    query = call.query(FeedQuery)
    if "last-event-id" in call.request.headers:
        raise NotAllowed(
            "expected a request without Last-Event-ID, got one: a feed keeps nothing to go back to, "
            "take events from a purpose that does if none may be missed"
        )
    join = stated(
        call.topic,
        call.purpose,
        exchange=query.exchange,
        version=query.version,
        delay=read_delay(query.delay),
        rollout=read_rollout(query.rollout),
        room=ROOM,
    )
    exchange = registered.lookup(join.exchange)
    if exchange is None or exchange.pends:
        raise NotAllowed(
            f"expected an exchange that gives everybody a copy, such as fanout, got {join.exchange!r}, whose events "
            "pend until they are settled: a feed settles none, take them instead"
        )
    return await feeds.open(call, join)


class Feed(Consumer):
    """One reader's instance. What was written counts as handled once the reader has room for more. The dispatcher
    buffers for a slow one, and drops the oldest."""

    def __init__(self, engine: Engine, join: Join, limits: Limits, slices: TimeSlices) -> None:
        """Messages are made in `slices`, so that a reader that is gone is noticed before more is made for it."""
        super().__init__(engine, join, limits)
        self.use: Revocable | None = None  # the right by which it is open
        self._slices = slices
        self.left = asyncio.Event()
        self.writing: asyncio.Task[None] | None = None
        self._over = False
        self._beats = False
        self._awake = asyncio.Event()
        self._sent = asyncio.get_running_loop().time()

    def wake(self) -> None:
        self._awake.set()

    def end(self, reason: str | None = None) -> None:
        """Write the reason and end; without a reason the reader is to reconnect."""
        self._over = True
        self.closed = self.closed or reason
        self.wake()

    def beat(self, now: float, heartbeat_s: float) -> None:
        """Send a heartbeat where nothing else was sent for `heartbeat_s`."""
        if now - self._sent >= heartbeat_s:
            self._beats = True
            self.wake()

    async def write(self, send: Send) -> None:
        """Write events until it is closed."""
        await self._send(send, b"retry: %d\n\n" % RETRY_MS)
        while not self._over and self.closed is None:
            self._awake.clear()
            await self._slices.next()
            with self._slices.piece():
                text, taken = self._next()
            if text or self._beats:
                self._beats = False
                await self._send(send, text or b":\n\n")
                for work, positions in taken:
                    work.done += positions
                    self.leave_work(work)
            else:
                await self._awake.wait()
        if self.closed is not None:
            await self._send(send, b"event: closed\ndata: %b\n\n" % encode({"detail": self.closed}))
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def _send(self, send: Send, text: bytes) -> None:
        await send({"type": "http.response.body", "body": text, "more_body": True})
        self._sent = asyncio.get_running_loop().time()

    def _next(self) -> tuple[bytes, list[tuple[Work, list[int]]]]:
        """Return the next text to write, and the events in it."""
        messages: list[bytes] = []
        taken: list[tuple[Work, list[int]]] = []
        size = 0
        while size < PIECE_BYTES and len(messages) < MAX_EVENTS and (work := self.next_work()) is not None:
            hand_out, positions = work.hand_out(self.join, None), []
            while size < PIECE_BYTES and len(messages) < MAX_EVENTS and work.todo:
                position = work.todo.popleft()
                positions.append(position)
                event = escape_controls(encode(to_cloudevent(Event(hand_out, position - hand_out.start))))
                # A line break would end the message; in JSON a space means the same.
                messages.append(b"data: %b\n\n" % event.translate(_SPACES))
                size += len(messages[-1])
            taken.append((work, positions))
        return b"".join(messages), taken


class Feeds:
    """All open feeds. Used on the engine's loop."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._open: set[Feed] = set()

    async def open(self, call: Call, join: Join) -> Response:
        """Join and return the response. Raise what joining raises, and `Busy`."""
        host = self._host
        if not host.running:
            raise host.not_running()
        if len(self._open) >= host.settings.instances:
            raise Busy(f"expected at most {host.settings.instances:,} feeds, got another: end one that is not read")
        assert call.grant is not None
        feed = Feed(host.engine, join, host.limits, host.slices)
        self._open.add(feed)
        feed.use = host.revocables.begin(
            call.grant,
            lambda grant: grant.check_listen(join.topic, join.purpose),
            lambda error: feed.end(str(error)),
        )
        try:
            feed.enter(await host.engine.join(join, "now", feed))
        except BaseException:
            self._forget(feed)
            raise
        return StreamResponse(feed, call, self.leave)

    @property
    def count(self) -> int:
        return len(self._open)

    async def leave(self, feed: Feed) -> None:
        try:
            feed.stop_reports()
            await self._host.engine.leave(feed.instance)
        finally:
            self._forget(feed)
            feed.left.set()

    def _forget(self, feed: Feed) -> None:
        self._open.discard(feed)
        if feed.use is not None:
            feed.use.close()

    def check(self, now: float) -> None:
        """Send heartbeats and end feeds whose reader is gone. Called now and then."""
        for feed in list(self._open):
            feed.beat(now, self._host.settings.heartbeat_s)

    def end(self) -> None:
        """Ask all of them to end."""
        for feed in self._open:
            feed.end()

    async def stop(self) -> None:
        """End all of them; readers are told in time."""
        await end_all(self._open)
