"""`GET …/feed`: events as they come, as server-sent events, for whoever can do no more than read: a browser, or curl.

A feed is a fan-out instance. It settles nothing, so it is for purposes that keep nothing; and since there is nothing to
go back to, no message has an id: a browser that lost its connection just comes again.
"""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ..core.effects import Join
from ..core.exchange import lookup
from ..engine.base import Engine
from ..errors import Busy, NotAllowed, Unavailable
from ..event import Event
from ..limits import Limits
from ..peer.turns import PIECE_BYTES, Turns
from ..service.consumer import Consumer, Work
from ..service.registration import make_join
from .call import Call
from .cloudevents import encode, to_cloudevent
from .described import Purpose, Version
from .host import ServerHost
from .uses import Use

ROOM = 500  # events, for a reader that reads
MAX_EVENTS = 100  # that are written with one send
RETRY_MS = 1_000  # after which a browser comes again
LAST_WORDS_S = 1.0  # for a reader that is behind when the server stops
_SPACES = bytes.maketrans(b"\r\n", b"  ")


class FeedQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What whoever reads states."""

    purpose: Purpose
    exchange: str = "fanout"
    version: Version = 1


async def feed(call: Call, feeds: Feeds) -> Response:
    """Events as they come, without end. Raises what stands against it."""
    query = call.query(FeedQuery)
    if "last-event-id" in call.request.headers:
        raise NotAllowed(
            "expected a request without Last-Event-ID, got one: a feed keeps nothing to go back to, "
            "take events from a purpose that does if none may be missed"
        )
    join = make_join(call.topic, call.purpose, query.exchange, query.version, None, "now", None, 30.0, ROOM)
    exchange = lookup(join.exchange)
    if exchange is None or exchange.pends:
        raise NotAllowed(
            f"expected an exchange that gives everybody a copy, such as fanout, got {join.exchange!r}, whose events "
            "pend until they are settled: a feed settles none, take them instead"
        )
    return await feeds.open(call, join)


class Feed(Consumer):
    """One reader's instance. What is written counts as handled once the reader has room for more: one that is slow has
    its own buffer at the dispatcher, which drops the oldest."""

    def __init__(self, engine: Engine, join: Join, limits: Limits, turns: Turns) -> None:
        """What is written is made in `turns`: of a reader that is gone
        that is noticed meanwhile, and nothing more is made for it."""
        super().__init__(engine, join, limits)
        self.use: Use | None = None  # by whose right it is read
        self._turns = turns
        self.left = asyncio.Event()
        self.writing: asyncio.Task[None] | None = None
        self._over = False
        self._beats = False
        self._awake = asyncio.Event()
        self._sent = asyncio.get_running_loop().time()

    def wake(self) -> None:
        self._awake.set()

    def end(self, reason: str | None = None) -> None:
        """Write no more than why; without a reason the reader had better come again."""
        self._over = True
        self.closed = self.closed or reason
        self.wake()

    def beat(self, now: float, heartbeat_s: float) -> None:
        """Show that there is still somebody here, where nothing else did for so long."""
        if now - self._sent >= heartbeat_s:
            self._beats = True
            self.wake()

    async def write(self, send: Send) -> None:
        """All that comes, until it is over."""
        await self._send(send, b"retry: %d\n\n" % RETRY_MS)
        while not self._over and self.closed is None:
            self._awake.clear()
            await self._turns.next()
            with self._turns.piece():
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
        """What is written next, and the events that are in it."""
        messages: list[bytes] = []
        taken: list[tuple[Work, list[int]]] = []
        size = 0
        while size < PIECE_BYTES and len(messages) < MAX_EVENTS and (work := self.next_work()) is not None:
            hand_out, positions = work.hand_out(self.join, None), []
            while size < PIECE_BYTES and len(messages) < MAX_EVENTS and work.todo:
                position = work.todo.popleft()
                positions.append(position)
                event = encode(to_cloudevent(Event(hand_out, position - hand_out.start)))
                # A line break in it would be one in the stream; in JSON it may as well be a space.
                messages.append(b"data: %b\n\n" % event.translate(_SPACES))
                size += len(messages[-1])
            taken.append((work, positions))
        return b"".join(messages), taken


class Stream(Response):
    """The answer that a feed is."""

    media_type = "text/event-stream"

    def __init__(self, feeds: Feeds, feed: Feed, call: Call) -> None:
        self.status_code = 200
        self.background = None
        self.init_headers({"cache-control": "no-store", "x-accel-buffering": "no"})
        self._feeds = feeds
        self._feed = feed
        self._call = call

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        feed = self._feed
        feed.writing = asyncio.ensure_future(self._write(send))
        gone = asyncio.ensure_future(self._call.gone())
        try:
            await asyncio.wait((feed.writing, gone), return_when=asyncio.FIRST_COMPLETED)
        finally:
            gone.cancel()
            feed.writing.cancel()
            await self._feeds.leave(feed)
        if not feed.writing.cancelled() and feed.writing.done():
            feed.writing.result()

    async def _write(self, send: Send) -> None:
        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._feed.write(send)
        except OSError:  # how some servers say that the client is gone
            pass


class Feeds:
    """All that are read. On the loop of the engine."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._open: set[Feed] = set()

    async def open(self, call: Call, join: Join) -> Response:
        """Raises what joining raises, and `Busy`."""
        host = self._host
        if not host.running:
            raise Unavailable("expected a server that runs, got one that stops: try again when it is back")
        if len(self._open) >= host.settings.instances:
            raise Busy(f"expected at most {host.settings.instances:,} feeds, got another: end one that is not read")
        assert call.grant is not None
        feed = Feed(host.engine, join, host.limits, host.turns)
        self._open.add(feed)
        feed.use = host.uses.begin(
            call.grant,
            lambda grant: grant.check_listen(join.topic, join.purpose),
            lambda error: feed.end(str(error)),
        )
        try:
            feed.enter(await host.engine.join(join, "now", feed))
        except BaseException:
            self._forget(feed)
            raise
        return Stream(self, feed, call)

    async def leave(self, feed: Feed) -> None:
        feed.stop_reports()
        await self._host.engine.leave(feed.instance)
        self._forget(feed)
        feed.left.set()

    def _forget(self, feed: Feed) -> None:
        self._open.discard(feed)
        if feed.use is not None:
            feed.use.close()

    def check(self, now: float) -> None:
        """Called now and then: is somebody there?"""
        for feed in list(self._open):
            feed.beat(now, self._host.settings.heartbeat_s)

    def end(self) -> None:
        """All of them are to come to an end."""
        for feed in self._open:
            feed.end()

    async def stop(self) -> None:
        """End them all; those that read are told so in time."""
        ending = {asyncio.ensure_future(feed.left.wait()): feed for feed in self._open}
        for feed in ending.values():
            feed.end()
        if ending:
            _, late = await asyncio.wait(ending, timeout=LAST_WORDS_S)
            for each in late:
                if (writing := ending[each].writing) is not None:
                    writing.cancel()
            await asyncio.wait(ending, timeout=LAST_WORDS_S)
