"""`GET /v1/watch`: all facts as server-sent events, a snapshot and then differences, one stream a viewer.

What is sent is in the log of a view (`engine/watch.py`), which all viewers with the same query and right share. A
viewer has nothing of its own but where it is in there, so one that does not read costs no memory. It gets a snapshot
again where the log does not reach back to where it is; and where not even a snapshot is read in that time, its stream
is closed. The HTTP connection ends one that reads nothing at all.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Annotated

import msgspec
from msgspec import Meta
from starlette.responses import Response
from starlette.types import Send

from ..engine.arguments import MAX_INTERVAL_S, PARTS
from ..engine.watch import PIECE_BYTES, Entry, Fact, Facts, Filter, View, Watch
from ..errors import Busy, NotAllowed, SolarWindError, Unavailable
from ..operations import Internal
from .access import Grant
from .call import Call, encode
from .gzip_stream import GzipStream, Piece, accepts_gzip
from .host import ServerHost
from .revocation import Revocable
from .schemas import PurposeName, TopicName
from .streams import RETRY_MS, StreamResponse, end_all

_TURN_S = 0.001_5  # after a whole message of a snapshot, of all viewers together, so that events are not held up
_SHORT_TURN_S = 0.000_2  # after one that is short or compressed, and after a heartbeat
_RETRY = Piece(b"retry: %d\n\n" % RETRY_MS)
_HEARTBEAT = Piece(b":\n\n")
_LIST = "^(" + "|".join(PARTS) + ")(,(" + "|".join(PARTS) + "))*$"


class WatchQuery(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the viewer wants to see: parts, separated by commas; of one topic or purpose; and every so many seconds."""

    parts: Annotated[str, Meta(extra_json_schema={"pattern": _LIST})] = ",".join(PARTS)
    topic: TopicName | None = None
    purpose: PurposeName | None = None
    interval: Annotated[int, Meta(ge=1, le=MAX_INTERVAL_S)] = 1


async def watch(call: Call, viewers: Viewers) -> Response:
    """Answer with all facts and their changes, without end. Raise the error for which it cannot."""
    wanted = Internal.watch.request(msgspec.structs.asdict(call.query(WatchQuery))).arguments
    return viewers.open(call, wanted, call.request.headers.get("last-event-id"))


class Turns:
    """Turns that have a time between them."""

    def __init__(self) -> None:
        self._next = 0.0

    async def next(self, size: int) -> None:
        """Wait for a turn to write so many bytes; where there was none for a while it is now."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next)
        self._next = at + max(_SHORT_TURN_S, _TURN_S * size / PIECE_BYTES)
        if at > now:
            await asyncio.sleep(at - now)


class Viewer:
    """One stream. It is at a tick of its view."""

    def __init__(self, watch: Watch, filter: Filter, after: str | None, turns: Turns, gzip: GzipStream | None) -> None:
        """Messages of snapshots and heartbeats take `turns`: all viewers want them at once, after a restart or a quiet
        time."""
        self._turns = turns
        self._gzip = gzip
        self.use: Revocable | None = None  # the right by which it is open
        self.writing: asyncio.Task[None] | None = None
        self.left = asyncio.Event()
        self._watch = watch
        self._filter = filter
        self._tick = watch.tick_of(after)
        self._closed: str | None = None
        self._over = False
        self._waiter: asyncio.Future[None] | None = None
        self._beats = False
        self._sent = asyncio.get_running_loop().time()

    def end(self, reason: str | None = None) -> None:
        """Write the reason and end; without a reason the viewer is to reconnect."""
        self._over = True
        self._closed = self._closed or reason
        self._wake()

    def beat(self, now: float, heartbeat_s: float) -> None:
        """Send a heartbeat where nothing else was sent for `heartbeat_s`."""
        if now - self._sent >= heartbeat_s:
            self._beats = True
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def write(self, send: Send) -> None:
        """Write until it is closed."""
        await self._send(send, _RETRY)
        try:
            with self._watch.view(self._filter) as view:
                while not self._over:
                    await self._write_some(send, view)
        except Unavailable:  # the dispatcher stops
            pass
        except SolarWindError as error:
            self._closed = str(error)
        if self._closed is not None:
            await self._send(send, Piece(b"event: closed\ndata: %b\n\n" % encode({"detail": self._closed})))
        last = b"" if self._gzip is None else self._gzip.end()
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _write_some(self, send: Send, view: View) -> None:
        entries = view.since(self._tick)
        if entries is None:
            await self._write_snapshot(send, view)
            return
        for entry in entries:
            if entry.sent is None:
                entry.sent = Piece(self._text(entry, entry.messages))
            await self._send(send, entry.sent)
            self._tick = entry.tick
        if not entries and self._beats:
            await self._turns.next(0)
            await self._send(send, _HEARTBEAT)
        elif not entries:
            self._waiter = self._watch.news(view)
            try:
                await self._waiter
            finally:
                self._waiter = None

    async def _write_snapshot(self, send: Send, view: View) -> None:
        """Write a snapshot message by message. One that is not whole cannot be gone on with, so the first message takes
        the id away, and the last one has it."""
        snapshot = await self._watch.snapshot(view)
        if snapshot.sent is None:
            first, *rest = snapshot.messages
            texts = (b"id\ndata: %b\n\n" % first, *(b"data: %b\n\n" % each for each in rest))
            snapshot.sent = [*map(Piece, texts), Piece(self._text(snapshot, [b"{}"]))]
        for piece in snapshot.sent:
            if self._over:
                return
            if snapshot.tick < view.floor:
                self.end("expected a viewer that reads a snapshot in time, got one that is slower: watch less")
                return
            await self._turns.next(len(piece.text) if self._gzip is None else 0)
            await self._send(send, piece)
        self._tick = snapshot.tick

    def _text(self, entry: Entry, messages: Sequence[bytes]) -> bytes:
        """Return messages of an entry, the last of which has its id."""
        *others, last = messages
        lines = [b"data: %b\n\n" % each for each in others]
        return b"".join((*lines, b"id: %b\ndata: %b\n\n" % (self._watch.number(entry.tick).encode(), last)))

    async def _send(self, send: Send, piece: Piece) -> None:
        self._beats = False
        body = piece.text if self._gzip is None else await self._gzip.next(piece)
        await send({"type": "http.response.body", "body": body, "more_body": True})
        self._sent = asyncio.get_running_loop().time()


class Viewers:
    """All open streams of viewers. Used on the engine's loop."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._open: set[Viewer] = set()
        self._turns = Turns()

    @property
    def count(self) -> int:
        return len(self._open)

    def open(self, call: Call, wanted: dict[str, object], after: str | None) -> Response:
        """Return the response. Raise `Busy`."""
        host, grant = self._host, call.grant
        if not host.running:
            raise host.not_running()
        if len(self._open) >= host.settings.viewers:
            raise Busy(f"expected at most {host.settings.viewers:,} viewers, got another: try again later")
        assert grant is not None
        names = {name: wanted[name] for name in ("parts", "topic", "purpose", "interval")}
        filter = msgspec.convert(names | {"payloads": grant.sees_payloads}, Filter)
        with host.watch.view(filter):  # whether there may be one more
            gzip = GzipStream() if accepts_gzip(",".join(call.request.headers.getlist("accept-encoding"))) else None
            viewer = Viewer(host.watch, filter, after, self._turns, gzip)
        self._open.add(viewer)
        viewer.use = host.revocables.begin(
            grant, lambda grant: _check(grant, filter), lambda error: viewer.end(str(error))
        )
        headers = {"vary": "accept-encoding"} | ({"content-encoding": "gzip"} if gzip is not None else {})
        return StreamResponse(viewer, call, self._leave, headers)

    async def _leave(self, viewer: Viewer) -> None:
        self._open.discard(viewer)
        if viewer.use is not None:
            viewer.use.close()
        viewer.left.set()

    def check(self, now: float) -> None:
        """Send heartbeats. Called now and then."""
        for viewer in list(self._open):
            viewer.beat(now, self._host.settings.heartbeat_s)

    def end(self) -> None:
        """Ask all of them to end."""
        for viewer in self._open:
            viewer.end()

    async def stop(self) -> None:
        """End all of them."""
        await end_all(self._open)


def _check(grant: Grant, filter: Filter) -> None:
    """Raise `NotAllowed` unless it may go on watching what it watches."""
    grant.check_watch()
    if filter.payloads and not grant.sees_payloads:
        raise NotAllowed("expected a token that still has the right watch:payloads, got one that has not: watch again")


class OpenStreams(msgspec.Struct, frozen=True):
    """How many connections and streams of each kind there are."""

    websockets: int
    viewers: int
    feeds: int


def server_facts(host: ServerHost, streams: OpenStreams) -> Facts:
    """Return what viewers see of a server: its limits, and what is open."""
    return {
        "connections": Fact("", "", streams),
        "limits": Fact("", "", host.limits),
        "settings": Fact("", "", host.settings),
    }
