"""HTTP/1.1 on a socket's bytes: `h11` parses and writes them, and each request is a call of the ASGI app.

Everything that a peer may leave unfinished has a time limit: a head, a body, an answer that it does not read, a
connection without a request. Input is handled in pieces, since a few kilobytes may be thousands of events.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterable
from email.utils import formatdate
from http import HTTPStatus
from time import time
from typing import Any, cast
from urllib.parse import unquote

import h11
from starlette.types import ASGIApp

from .admission import ADMITTED, Admitted
from .events import NDJSON
from .guard import SOCKET_HOST
from .host import ServerHost
from .refusal import refusal
from .websocket import Acceptor, WebSocket

log = logging.getLogger("solarwind")

_MAX_HEADERS = 100  # each of them becomes a few objects, however short it is
_MAX_LINE_BYTES = 8_000  # of one of them, and of what is asked for
_ABSOLUTE = re.compile(rb"https?://([A-Za-z0-9._~:\[\]-]+)((?:[/?][!-~]*)?)", re.IGNORECASE)
_UNREAD_BYTES = 16 << 10  # of answers that are not read: nothing more is written then
_UNREAD_BODY_BYTES = 64 << 10  # of a body that the app does not read: nothing more is read then
_BODY_S = 20.0  # over which the rate of a body is measured
_LAST_WORDS_S = 1.0  # that a peer has to read why it is refused
_EVENTS_AT_ONCE = 64  # of a connection, before others have their turn
_MAX_EMPTY_BYTES = 8  # of empty lines before a request, which are passed over: RFC 9112, 2.2
_UPGRADE = b"websocket"


class Port:
    """What the connections of a port have in common. `connections` are all of them, also those that were upgraded."""

    def __init__(self, app: ASGIApp, acceptor: Acceptor, host: ServerHost) -> None:
        self.app = app
        self.acceptor = acceptor
        self.settings = host.settings
        self.slices = host.slices
        self.connections: set[Any] = set()
        self.tasks: set[asyncio.Task[None]] = set()
        self._date = (0, b"")

    @property
    def date(self) -> bytes:
        """The value of the Date header, made once a second."""
        now = int(time())
        if self._date[0] != now:
            self._date = now, formatdate(now, usegmt=True).encode()
        return self._date[1]


class Http11(asyncio.Protocol):
    """A connection that speaks HTTP/1.1."""

    def __init__(self, port: Port, admitted: Admitted) -> None:
        self._port = port
        self._settings = port.settings
        self._admitted = admitted
        self._loop = asyncio.get_running_loop()
        self._conn = self._new_parser()
        self._exchange: RequestCycle | None = None  # the request that is being answered
        self._first: asyncio.TimerHandle | None = None  # until there is a whole head
        self._body: asyncio.TimerHandle | None = None  # while there is more of a body to come
        self._stuck: asyncio.TimerHandle | None = None  # what is written is not read
        self._idle: asyncio.TimerHandle | None = None  # until the next request begins
        self._behind: asyncio.Task[None] | None = None  # reads what came faster than it could be looked at
        self._heard = 0.0
        self._body_bytes = 0  # that came since the last look at it
        self._empty_bytes = 0  # of empty lines since the last request
        self._refused = False
        self._closing = False  # after the answer that is under way
        self._is_chunked = False  # the answer that is under way
        self._over = False  # it is something else by now
        self._paused = False  # reading
        self._pipelined = False  # the next request came before the answer to this one
        self._writable: asyncio.Future[None] | None = None  # for callers that wait until the peer has read
        self.transport: asyncio.Transport = None  # type: ignore[assignment]

    def _new_parser(self) -> h11.Connection:
        return h11.Connection(h11.SERVER, self._settings.header_bytes)

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self.transport.set_write_buffer_limits(_UNREAD_BYTES)
        self._port.connections.add(self)
        self._first = self._loop.call_later(self._settings.authenticate_s, self._let_go)

    def connection_lost(self, error: Exception | None) -> None:
        self._port.connections.discard(self)
        self._end_timers()
        if self._behind is not None:
            self._behind.cancel()
        if self._exchange is not None:
            self._exchange.disconnect()
        self.resume_writing()
        self._admitted.leave()

    def _end_timers(self) -> None:
        for timer in (self._first, self._body, self._stuck, self._idle):
            if timer is not None:
                timer.cancel()
        self._first = self._body = self._stuck = self._idle = None

    def data_received(self, data: bytes) -> None:
        if self._refused:
            return
        self._heard = self._loop.time()
        self._body_bytes += len(data)
        if self._conn.their_state is h11.IDLE and not self._conn.trailing_data[0]:
            data = self._without_empty_lines(data)
            if not data:
                return
        self._conn.receive_data(data)
        if self._behind is None:
            self._read()

    def pause_writing(self) -> None:
        if self._writable is None:
            self._writable = self._loop.create_future()
        if self._stuck is None:
            self._stuck = self._loop.call_later(self._settings.idle_s, self._let_go)

    def resume_writing(self) -> None:
        if self._writable is not None and not self._writable.done():
            self._writable.set_result(None)
        self._writable = None
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    # In -----------------------------------------------------------------------------------------------

    def _without_empty_lines(self, data: bytes) -> bytes:
        """Return the start of a request without the empty lines that some clients send after a body."""
        left = _MAX_EMPTY_BYTES - self._empty_bytes
        found = data[:left].lstrip(b"\r\n")
        skipped = min(left, len(data)) - len(found)
        self._empty_bytes += skipped
        return data[skipped:]

    def _start_next_cycle(self) -> None:
        self._conn.start_next_cycle()
        data = self._conn.trailing_data[0]
        if data[:1] in (b"\r", b"\n"):
            self._conn = self._new_parser()
            self._conn.receive_data(self._without_empty_lines(data))

    def _read(self) -> None:
        """Handle what came: some of it now, and the rest as fast as other work allows."""
        with self._port.slices.piece():
            more = self._read_some()
        if more:
            self._behind = self._loop.create_task(self._catch_up())
        self.regulate()

    async def _catch_up(self) -> None:
        slices = self._port.slices
        more = True
        try:
            while more:
                await slices.next()
                with slices.piece():
                    more = self._read_some()
        except Exception:
            log.exception("input on a connection could not be read: the connection is closed")
            self._let_go()
        self._behind = None
        self.regulate()

    def _read_some(self) -> bool:
        """Return whether there is more."""
        for _ in range(_EVENTS_AT_ONCE):
            try:
                event = self._conn.next_event()
                if type(event) is h11.Request:
                    event = _checked(event, self._settings.header_bytes)
            except h11.RemoteProtocolError as error:
                self._refuse(error)
                return False
            if event is h11.NEED_DATA:
                return self._wait_for_more()
            if event is h11.PAUSED:
                self._pipelined = True
                self._bound_pipeline()
                return False
            if type(event) is h11.Request:
                if not self._begin(event):
                    return False
            elif type(event) is h11.Data:
                self._receive_body(event.data)
            elif type(event) is h11.EndOfMessage:
                self._end_body()
            else:  # the peer has closed
                return False
        return True

    def _wait_for_more(self) -> bool:
        if self._exchange is not None:
            self._has_come()
        self._bound_pipeline()
        return False

    def _bound_pipeline(self) -> None:
        """Limit how many requests an unknown client may send without waiting for their answers."""
        if not self._admitted.known and len(self._conn.trailing_data[0]) > self._settings.header_bytes:
            self._let_go()

    def _begin(self, request: h11.Request) -> bool:
        """Begin a request. Return False where it ended already, or cannot be answered."""
        self._has_come()
        self._pipelined = False
        self._empty_bytes = 0
        if self._idle is not None:
            self._idle.cancel()
            self._idle = None
        headers = list(request.headers)
        if _wants_websocket(headers):
            self._upgrade(request, headers)
            return False
        path, _, query = request.target.partition(b"?")
        scope = {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": request.http_version.decode("ascii"),
            "server": self._server(),
            "client": self._address("peername"),
            "scheme": "https" if self.transport.get_extra_info("ssl_object") else "http",
            "method": request.method.decode("ascii"),
            "root_path": "",
            "path": unquote(path.decode("ascii")),
            "raw_path": path,
            "query_string": query,
            "headers": headers,
            "state": {ADMITTED: self._admitted},
        }
        self._exchange = exchange = RequestCycle(self, self._conn.they_are_waiting_for_100_continue)
        task = self._loop.create_task(exchange.run(self._port.app, scope))
        self._port.tasks.add(task)
        task.add_done_callback(self._port.tasks.discard)
        return True

    def _server(self) -> tuple[str, int | None] | None:
        return self._address("sockname") if self._admitted.uid is None else (SOCKET_HOST, None)

    def _address(self, which: str) -> tuple[str, int] | None:
        found = self.transport.get_extra_info(which)
        return (str(found[0]), int(found[1])) if isinstance(found, tuple) else None

    def _receive_body(self, data: bytes | bytearray | memoryview) -> None:
        if self._exchange is not None:
            self._exchange.body += data
            self._exchange.wake()

    def _end_body(self) -> None:
        if self._exchange is not None:
            self._exchange.more_body = False
            self._exchange.wake()
        elif self._conn.our_state is h11.DONE:  # of a body that was not asked for
            self._start_next_cycle()

    def _upgrade(self, request: h11.Request, headers: list[tuple[bytes, bytes]]) -> None:
        """Hand the connection over to a WebSocket, if its handshake is accepted."""
        scheme = "wss" if self.transport.get_extra_info("ssl_object") else "ws"
        address = (self._server() or (None,))[0]
        method, target = request.method.decode("ascii"), request.target.decode("ascii")
        handshake = self._port.acceptor.shake(method, target, headers, scheme, address)
        self.transport.write(handshake.answer)
        if not handshake.accepted:
            self._end_input()
            return
        rest, closed = self._conn.trailing_data
        self._end_timers()
        self._port.connections.discard(self)
        if self._paused:
            self.transport.resume_reading()
        self._over = True
        port = self._port
        socket = WebSocket(port.acceptor, port.connections, self._admitted, self.transport, handshake.token)
        self.transport.set_protocol(socket)
        if rest and not closed:
            socket.data_received(rest)

    # The body's rate ----------------------------------------------------------------------------------

    def _waits_for_body(self) -> bool:
        return self._exchange is not None and self._exchange.more_body

    def _look(self) -> None:
        """End the connection where a body does not go on, or too slowly, unless it is this side that does not read it.
        Lines may come one by one, as long as they do: see events.py."""
        self._body = None
        if not self._waits_for_body():
            return
        period = min(self._settings.idle_s, _BODY_S)
        came, self._body_bytes = self._body_bytes, 0
        slow = came < self._settings.body_rate * period and not self._sends_lines()
        idle = self._heard + self._settings.idle_s <= self._loop.time()
        if (slow or idle) and not self._paused:
            self._let_go()
        else:
            self._body = self._loop.call_later(period, self._look)

    def _sends_lines(self) -> bool:
        headers = self._exchange.headers if self._exchange is not None else ()
        kind = next((value for name, value in headers if name == b"content-type"), b"")
        return kind.partition(b";")[0].strip().lower().decode("latin-1") in NDJSON

    # The exchange's side ------------------------------------------------------------------------------

    def regulate(self) -> None:
        """Stop reading while there is enough to handle, and limit the time to wait for what does not come."""
        if self._body is None and self._waits_for_body():  # of a request that came behind another, too
            self._body = self._loop.call_later(min(self._settings.idle_s, _BODY_S), self._look)
        full = self._exchange is not None and len(self._exchange.body) > _UNREAD_BODY_BYTES
        # Some of further requests is read: otherwise a peer that hangs up would not be noticed.
        ahead = self._pipelined and len(self._conn.trailing_data[0]) > self._settings.header_bytes
        paused = full or ahead or self._behind is not None
        if paused is not self._paused and not self._over and not self.transport.is_closing():
            self._paused = paused
            if paused:
                self.transport.pause_reading()
            else:
                self.transport.resume_reading()

    async def writable(self) -> None:
        """Wait until the peer has read most of what was written."""
        while self._writable is not None:
            await asyncio.shield(self._writable)

    def continue_(self) -> None:
        """Tell the peer to send its body."""
        if not self.transport.is_closing():
            self.transport.write(self._conn.send(h11.InformationalResponse(status_code=100, headers=[])))

    def head(self, status: int, headers: Iterable[tuple[bytes, bytes]]) -> bytes:
        more = [(b"connection", b"close")] if self._closing else []
        reason = HTTPStatus(status).phrase.encode()
        said = [(b"date", self._port.date), *headers, *more]
        self._is_chunked = False
        return self._conn.send(h11.Response(status_code=status, headers=said, reason=reason))

    def part(self, data: bytes) -> bytes:
        if self._is_chunked and data:  # as those before: h11 takes longer than all the rest of writing it
            return b"%x\r\n%b\r\n" % (len(data), data)
        sent = self._conn.send(h11.Data(data=data))
        self._is_chunked = len(sent) > len(data)
        return sent

    def complete(self, last: bytes) -> None:
        """Finish the answer to the request, with these as its last bytes."""
        self.transport.write(last + self._conn.send(h11.EndOfMessage()))
        self._exchange = None
        if self._conn.our_state is h11.MUST_CLOSE or self._closing:
            self.transport.close()
            self._let_go_soon()
        if self.transport.is_closing():
            return
        self._idle = self._loop.call_later(self._keep_alive_s(), self._rest)
        if self._conn.our_state is h11.DONE and self._conn.their_state is h11.DONE:
            self._start_next_cycle()
            self._pipelined = False
            if self._behind is None:
                self._read()
        self.regulate()

    def _keep_alive_s(self) -> float:
        """Return how long to wait for a further request: less for an unknown client, however often it asks what anyone
        may."""
        settings = self._settings
        if self._admitted.known:
            return settings.idle_s
        left = self._admitted.since + settings.idle_s - self._loop.time()
        return max(0.0, min(settings.authenticate_s, left))

    # The end ------------------------------------------------------------------------------------------

    def _rest(self) -> None:
        """Close the connection, because no further request came."""
        self._idle = None
        self.transport.close()
        self._let_go_soon()

    def shutdown(self) -> None:
        """Close the connection, because the server stops, once what is being answered is."""
        self._closing = True
        if self._refused:
            self._let_go()
        elif self._exchange is None:
            self.transport.close()

    def _refuse(self, error: h11.RemoteProtocolError) -> None:
        """Answer an invalid request with problem details and the status that fits; send nothing if an answer has begun
        already. Input is read for a moment longer, because otherwise the peer could not read the answer."""
        exchange, self._exchange = self._exchange, None
        if self._conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and (exchange is None or not exchange.started):
            self.transport.write(_refusal(error.error_status_hint, self._settings.header_bytes, str(error)))
        if exchange is not None:  # it has its answer
            exchange.disconnect()
        self._end_input()

    def _end_input(self) -> None:
        """Close after a refusal."""
        self._refused = True
        self._conn = self._new_parser()  # the other has all that came
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._let_go_soon()

    def _let_go(self) -> None:
        self.transport.abort()

    def _let_go_soon(self) -> None:
        """Abort the connection after a while: closing waits until the peer has read what was written, which may be
        never."""
        self._loop.call_later(_LAST_WORDS_S, self._let_go)

    def _has_come(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None


class RequestCycle:
    """One request and its answer, as an ASGI app receives and sends them."""

    __slots__ = (
        *("_awaits_continue", "_connection", "_gone", "_head", "_is_head", "_news", "_received"),
        *("body", "headers", "more_body", "started"),
    )

    def __init__(self, connection: Http11, awaits_continue: bool) -> None:
        self._connection: Http11 | None = connection  # until it is over
        self._awaits_continue = awaits_continue
        self._gone = False  # the peer is
        self._head = b""  # goes with the first part of the body
        self._is_head = False  # the answer has no body
        self._received = False  # by the app: all of the body
        self._news: asyncio.Future[None] | None = None
        self.body = bytearray()  # that the app has not received yet
        self.headers: list[tuple[bytes, bytes]] = []
        self.more_body = True
        self.started = False

    async def run(self, app: Any, scope: dict[str, Any]) -> None:
        self.headers, self._is_head = scope["headers"], scope["method"] == "HEAD"
        try:
            await app(scope, self.receive, self.send)
        except Exception:
            log.exception("a request could not be answered")
        connection = self._connection
        if connection is not None and not self._gone:  # the answer is not whole
            connection.transport.abort()

    def wake(self) -> None:
        """Wake the app, because there is something to receive."""
        if self._news is not None and not self._news.done():
            self._news.set_result(None)

    def disconnect(self) -> None:
        self._gone = True
        self.body.clear()
        self.wake()

    async def receive(self) -> dict[str, Any]:
        connection = self._connection
        while connection is not None and not self._gone and not self.body and self.more_body:
            if self._awaits_continue:
                self._awaits_continue = False
                connection.continue_()
            await self._wait()
            connection = self._connection
        if connection is not None and not self._gone and not self._received:
            body, self.body = bytes(self.body), bytearray()
            self._received = not self.more_body
            connection.regulate()
            return {"type": "http.request", "body": body, "more_body": self.more_body}
        while self._connection is not None and not self._gone:
            await self._wait()
        return {"type": "http.disconnect"}

    async def _wait(self) -> None:
        self._news = asyncio.get_running_loop().create_future()
        try:
            await self._news
        finally:
            self._news = None

    async def send(self, message: dict[str, Any]) -> None:
        connection = self._connection
        if connection is None:
            raise RuntimeError("expected no message after the end of an answer")
        await connection.writable()
        if self._gone:
            return
        if message["type"] == "http.response.start":
            self._awaits_continue = False
            self.started = True
            self._head = connection.head(message["status"], message.get("headers", ()))
            return
        data = message.get("body", b"")
        more = message.get("more_body", False)
        head, self._head = self._head, b""
        written = head + connection.part(b"" if self._is_head else data)
        if more:
            connection.transport.write(written)
            return
        self._connection, self.headers = None, []
        self.body.clear()
        self.wake()
        connection.complete(written)


# --- what is checked before a request is answered ---------------------------------------------------------------


def _checked(request: h11.Request, max_bytes: int) -> h11.Request:
    """Return the request as it is to be answered. h11 limits the size of a head only while it is incomplete, and does
    not check its content. Raise `RemoteProtocolError`."""
    names = [name for name, _ in request.headers]
    if b"transfer-encoding" in names and b"content-length" in names:
        raise h11.RemoteProtocolError("expected Content-Length or Transfer-Encoding, got both: send one")
    if not request.http_version.startswith(b"1."):
        raise h11.RemoteProtocolError("expected HTTP/1.1, got another version", error_status_hint=505)
    lines = [len(request.target), *(len(name) + len(value) + 4 for name, value in request.headers)]
    if sum(lines) > max_bytes or max(lines) > _MAX_LINE_BYTES or len(lines) > _MAX_HEADERS + 1:
        raise h11.RemoteProtocolError("head too long", error_status_hint=431)
    if _wants_websocket(request.headers) and (b"transfer-encoding" in names or b"content-length" in names):
        raise h11.RemoteProtocolError("expected the handshake of a WebSocket, which has no body, got one with a body")
    return request if request.target.startswith((b"/", b"*")) else _origin_form(request)


def _origin_form(request: h11.Request) -> h11.Request:
    """Return the target in origin form. It may be a whole URL (RFC 9112, 3.2.2); then that states the host, and not the
    header."""
    found = _ABSOLUTE.fullmatch(request.target)
    if found is None:
        raise h11.RemoteProtocolError("expected a path or a URL of http or https as the target, got something else")
    headers = [(name, value) for name, value in request.headers if name != b"host"]
    return h11.Request(
        method=request.method,
        target=found[2] if found[2].startswith(b"/") else b"/" + found[2],
        headers=[(b"host", found[1]), *headers],
        http_version=request.http_version,
    )


def _wants_websocket(headers: Iterable[tuple[bytes, bytes]]) -> bool:
    upgrades = connection = False
    for name, value in headers:
        if name == b"upgrade":
            upgrades = value.lower() == _UPGRADE
        elif name == b"connection":
            connection = connection or b"upgrade" in [each.strip().lower() for each in value.split(b",")]
    return upgrades and connection


def _refusal(status: int, max_bytes: int, why: str) -> bytes:
    """Return a whole answer to input that is not a valid request."""
    if status == 431:
        maximum = f"{_MAX_HEADERS} headers of {_MAX_LINE_BYTES:,} bytes, {max_bytes:,} together"
        return refusal(status, "too-large", f"expected a request of at most {maximum}, got more")
    return refusal(status, "protocol", why if why.startswith("expected ") else _wrong(why))


def _wrong(why: str) -> str:
    """Return what is wrong with a request, by h11's error, but not in its words, which repeat the input."""
    why = why.partition(":")[0].lower()
    for words, sentence in _WRONG:
        if words in why:
            return f"expected {sentence}"
    return "expected an HTTP/1.1 request, got other bytes"


_WRONG = (
    ("request line", "a request line such as GET /healthz HTTP/1.1, got another line"),
    ("target", "a target such as /healthz in printable ASCII, got another"),
    ("missing mandatory host", "a Host header, such as Host: localhost, got none"),
    ("multiple host", "one Host header, got several"),
    ("content-length", "one Content-Length of at most 20 digits, got another value, or several that differ"),
    ("transfer-encoding", "Transfer-Encoding: chunked, once, got another"),
    ("chunk", "a chunk that is its length in hexadecimal, CRLF, so many bytes and CRLF, got another"),
    ("header", "headers of the form name: value, without control characters, one a line, got another line"),
)
