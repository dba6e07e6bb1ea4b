"""One port: its sockets, TLS, and how little a peer may cost before anybody knows who it is.

Connections are counted as they are accepted, before TLS and before any protocol, so that one address cannot take what
is there for all. Whoever sends no whole request in time is let go, and so is whoever stops in the middle of one.
"""

from __future__ import annotations

import asyncio
import errno
import ipaddress
import logging
import re
import resource
import socket
import ssl
import sys
from email.utils import formatdate
from typing import TYPE_CHECKING, Any

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol
from uvicorn.server import ServerState

from ..errors import Unavailable
from .events import NDJSON
from .refusal import refusal
from .settings import Settings
from .tls import BUFFER_BYTES, Tls
from .websocket import WebSocket

if TYPE_CHECKING:
    from .asgi import Server

log = logging.getLogger("solarwind")

VISIT = "solarwind.visit"  # the name of a connection's `Visit` in the state of its requests
RESERVED_FILES = 128  # for the store, for webhooks, and for what the libraries open
_MAX_FILES = 1 << 20
BACKLOG = 2_048  # connections that wait to be accepted
_ACCEPT_AT_ONCE = 64
_ACCEPT_AGAIN_S = 0.5  # where there are no file descriptors left
_DATE_S = 1.0
_MOST_HEADERS = 100  # each of them becomes a few objects, however short it is
_MOST_LINE = 8_000  # bytes of one of them, and of what is asked for
_ABSOLUTE = re.compile(rb"https?://([A-Za-z0-9._~:\[\]-]+)((?:[/?][!-~]*)?)", re.IGNORECASE)
_UNREAD_BYTES = 16 << 10  # of answers that are not read: nothing more is written then
_BODY_S = 20.0  # over which the rate of a body is measured
_LAST_WORDS_S = 1.0  # what has been aborted has so long to notice


class Visit:
    """A connection, from when it is accepted until it is lost, as TLS, as HTTP or as what it was upgraded to."""

    __slots__ = ("_sources", "address", "ended", "since", "transport")

    def __init__(self, sources: Sources, address: str, since: float) -> None:
        self._sources = sources
        self.address = address
        self.since = since
        self.transport: asyncio.Transport | None = None  # once there is one
        self.ended = False

    @property
    def known(self) -> bool:
        """Whether it has shown a token, where tokens are needed, or asked for something."""
        return self not in self._sources.strangers

    def welcome(self) -> None:
        """It has."""
        if self._sources.strangers.pop(self, self) is None and self.transport is not None:
            self.transport.set_write_buffer_limits()

    def end(self) -> None:
        """Let go of it."""
        self.ended = True
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """It is lost."""
        self._sources.leave(self)


class Sources:
    """How many connections there are, of each address and of all.

    Not more than there are files for, with some left for everything else; of those that nobody knows yet half as many.
    One more of these lets go of the one that has been unknown for longest: who just connects cannot keep others out.
    """

    def __init__(self, most: int, most_of_all: int) -> None:
        """`most` of one address."""
        self._most = most
        self._most_of_all = most_of_all
        self._counts: dict[str, int] = {}
        self._all = 0
        self.strangers: dict[Visit, None] = {}  # the oldest first
        self._empty: list[asyncio.Future[None]] = []
        self.refused = 0

    def enter(self, address: str) -> Visit | None:
        """Count a connection of it; None if there are as many as there may be."""
        source = _source(address)
        count = self._counts.get(source, 0)
        if count >= self._most or (self._all >= self._most_of_all and not self.strangers):
            self.refused += 1
            return None
        if self._all >= self._most_of_all or len(self.strangers) >= max(1, self._most_of_all // 2):
            self._let_go()
        self._counts[source] = count + 1
        self._all += 1
        visit = Visit(self, address, asyncio.get_running_loop().time())
        self.strangers[visit] = None
        return visit

    def _let_go(self) -> None:
        oldest = next(iter(self.strangers))
        del self.strangers[oldest]
        self.refused += 1
        oldest.end()

    def leave(self, visit: Visit) -> None:
        self.strangers.pop(visit, None)
        source = _source(visit.address)
        self._all -= 1
        if self._counts[source] > 1:
            self._counts[source] -= 1
        else:
            del self._counts[source]
        if not self._counts:
            for waiter in self._empty:
                if not waiter.done():
                    waiter.set_result(None)
            self._empty.clear()

    def count(self, address: str) -> int:
        return self._counts.get(_source(address), 0)

    async def empty(self) -> None:
        """Wait until there are none."""
        if self._counts:
            waiter = asyncio.get_running_loop().create_future()
            self._empty.append(waiter)
            await waiter


def _source(address: str) -> str:
    """What counts as one: an IPv4 address, or the network of an IPv6 address, all of which one host may use."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))


class Config(uvicorn.Config):
    """What uvicorn's protocols are given. `server` and `sources` are for ours."""

    def __init__(self, server: Server, sources: Sources) -> None:
        super().__init__(
            server,
            http=Http,
            ws=_websocket(server),
            lifespan="off",
            interface="asgi3",
            log_config=None,
            log_level="error",  # what a peer does wrong is answered, and not worth a line in the log each
            access_log=False,
            proxy_headers=False,
            server_header=False,
            h11_max_incomplete_event_size=server.settings.header_bytes,
        )
        self.server = server
        self.sources = sources
        self.load()


def _websocket(server: Server) -> type[WebSocket]:
    """What a connection is upgraded to: it counts on."""

    class Counted(WebSocket):
        __slots__ = ("_visit",)

        def __init__(self, *, app_state: dict[str, Any], **given: Any) -> None:
            super().__init__(server, **given)
            self._visit: Visit = app_state[VISIT]

        def connection_lost(self, error: Exception | None) -> None:
            super().connection_lost(error)
            self._visit.leave()

        def authenticated(self) -> None:
            super().authenticated()
            self._visit.welcome()

    return Counted


# --- HTTP -------------------------------------------------------------------------------------------------------


class _Head(h11.Connection):
    """h11 looks at the size of a head only while it is incomplete, and not at what it is made of."""

    def __init__(self, most: int) -> None:
        super().__init__(h11.SERVER, most)
        self._most = most

    def next_event(self) -> Any:
        event = super().next_event()
        if type(event) is h11.Request:
            names = [name for name, _ in event.headers]
            if b"transfer-encoding" in names and b"content-length" in names:
                raise h11.RemoteProtocolError("expected Content-Length or Transfer-Encoding, got both: send one")
            lines = [len(event.target), *(len(name) + len(value) + 4 for name, value in event.headers)]
            if sum(lines) > self._most or max(lines) > _MOST_LINE or len(lines) > _MOST_HEADERS + 1:
                raise h11.RemoteProtocolError("head too long", error_status_hint=431)
            if not event.target.startswith((b"/", b"*")):
                return _origin_form(event)
        return event


def _origin_form(event: h11.Request) -> h11.Request:
    """A target may be a whole URL: RFC 9112, 3.2.2. Then that says the host, and not the header."""
    found = _ABSOLUTE.fullmatch(event.target)
    if found is None:
        raise h11.RemoteProtocolError("expected a path or a URL of http or https as the target, got something else")
    headers = [(name, value) for name, value in event.headers if name != b"host"]
    return h11.Request(
        method=event.method,
        target=found[2] if found[2].startswith(b"/") else b"/" + found[2],
        headers=[(b"host", found[1]), *headers],
        http_version=event.http_version,
    )


class Http(H11Protocol):
    """uvicorn's protocol with an end to everything that a peer may leave unfinished."""

    config: Config

    def __init__(self, config: Config, *arguments: Any, **options: Any) -> None:
        super().__init__(config, *arguments, **options)
        self._settings: Settings = config.server.settings
        self.timeout_keep_alive = self._settings.idle_s  # type: ignore[assignment]
        self.conn = _Head(self._settings.header_bytes)
        self._first: asyncio.TimerHandle | None = None  # until there is a whole head
        self._body: asyncio.TimerHandle | None = None  # while there is more of a body to come
        self._stuck: asyncio.TimerHandle | None = None  # what we write is not read
        self._heard = 0.0
        self._body_bytes = 0  # that came since the last look at it
        self._refused = False
        self._visit: Visit = self.app_state[VISIT]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(_UNREAD_BYTES)
        self._first = self.loop.call_later(self._settings.authenticate_s, self._let_go)

    def connection_lost(self, exc: Exception | None) -> None:
        self._has_come()
        if self._body is not None:
            self._body.cancel()
        self._unset_keepalive_if_required()
        self.resume_writing()
        super().connection_lost(exc)
        self._visit.leave()

    def data_received(self, data: bytes) -> None:
        """Unlike uvicorn's, what is not yet a whole head leaves the time for it running."""
        if self._refused:
            return
        self._heard = self.loop.time()
        self._body_bytes += len(data)
        self.conn.receive_data(data)
        self.handle_events()
        if self.cycle is not None:
            self._has_come()
        if not self._visit.known and len(self.conn.trailing_data[0]) > self._settings.header_bytes:
            self._let_go()  # requests by the hundred, whose answers are not waited for
        if self._body is None and self._waits_for_body():
            self._body_bytes = len(data)
            self._body = self.loop.call_later(min(self._settings.idle_s, _BODY_S), self._look)

    def _waits_for_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self.cycle.response_complete

    def _look(self) -> None:
        """A body that does not go on, or does so too slowly, ends the connection, unless it is we who do not read it.
        Lines may come one by one, as long as they do: see events.py."""
        self._body = None
        if not self._waits_for_body():
            return
        period = min(self._settings.idle_s, _BODY_S)
        came, self._body_bytes = self._body_bytes, 0
        slow = came < self._settings.body_rate * period and not self._sends_lines()
        idle = self._heard + self._settings.idle_s <= self.loop.time()
        if (slow or idle) and not self.flow.read_paused:
            self._let_go()
        else:
            self._body = self.loop.call_later(period, self._look)

    def _sends_lines(self) -> bool:
        kind = next((value for name, value in self.headers if name == b"content-type"), b"")
        return kind.partition(b";")[0].strip().lower().decode("latin-1") in NDJSON

    def handle_websocket_upgrade(self, event: h11.Request) -> None:
        self._has_come()
        super().handle_websocket_upgrade(event)

    def on_response_complete(self) -> None:
        """What was asked is not kept while the connection waits for what is asked next."""
        self.cycle.body.clear()
        self.cycle.scope = self.scope = {}  # type: ignore[typeddict-item]
        self.headers = []
        # Somebody unknown is not waited for as long, however often he asks what anybody may.
        self.timeout_keep_alive = self._keep_alive_s()  # type: ignore[assignment]
        super().on_response_complete()

    def _keep_alive_s(self) -> float:
        settings = self._settings
        if self._visit.known:
            return settings.idle_s
        left = self._visit.since + settings.idle_s - self.loop.time()
        return max(0.0, min(settings.authenticate_s, left))

    def timeout_keep_alive_handler(self) -> None:
        super().timeout_keep_alive_handler()
        self._let_go_soon()

    def shutdown(self) -> None:
        if self._refused:
            self._let_go()
        else:
            super().shutdown()

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._stuck is None:
            self._stuck = self.loop.call_later(self._settings.idle_s, self._let_go)

    def resume_writing(self) -> None:
        super().resume_writing()
        if self._stuck is not None:
            self._stuck.cancel()
            self._stuck = None

    def send_400_response(self, msg: str) -> None:
        """As a problem, and with the status that fits; nothing, if an answer has begun already. What else comes is read
        for a moment, or the peer would not get to read the answer."""
        error = sys.exception() if sys.version_info >= (3, 11) else None
        status = getattr(error, "error_status_hint", 400)
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            self.transport.write(_refusal(status, self._settings.header_bytes, str(error or "")))
        self._refused = True
        if self.cycle is not None and not self.cycle.response_complete:  # it has its answer
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        self.conn = _Head(self._settings.header_bytes)  # the other has all that came
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()
        self._let_go_soon()

    def _let_go(self) -> None:
        self.transport.abort()

    def _let_go_soon(self) -> None:
        """It is closed, which waits until what was written is read: not for ever."""
        self.loop.call_later(_LAST_WORDS_S, self._let_go)

    def _has_come(self) -> None:
        if self._first is not None:
            self._first.cancel()
            self._first = None


def _refusal(status: int, header_bytes: int, why: str) -> bytes:
    """A whole answer to what is no request."""
    if status == 431:
        most = f"{_MOST_HEADERS} headers of {_MOST_LINE:,} bytes, {header_bytes:,} together"
        return refusal(status, "too-large", f"expected a request of at most {most}, got more")
    detail = why if why.startswith("expected ") else "expected an HTTP/1.1 request, got bytes that are none"
    return refusal(status, "protocol", detail)


# --- the port ---------------------------------------------------------------------------------------------------


class Listener:
    """Accepts connections for a `Server` that runs."""

    def __init__(
        self,
        server: Server,
        *,
        host: str = "127.0.0.1",
        port: int = 7400,
        inherited: socket.socket | None = None,
        tls: ssl.SSLContext | None = None,
        grace: float = 30.0,
    ) -> None:
        """`inherited` listens already, and is taken instead of `host` and `port`."""
        self.host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        self.port = port  # the one chosen, once it is bound
        self.sources = Sources(server.settings.connections, max(1, raise_file_limit() - RESERVED_FILES))
        self._settings = server.settings
        self._inherited = inherited
        self._tls = tls
        self._buffer = memoryview(bytearray(BUFFER_BYTES if tls is not None else 0))
        self._grace = grace
        self._config = Config(server, self.sources)
        self._state = ServerState()
        self._sockets: list[socket.socket] = []
        self._opening: set[asyncio.Task[None]] = set()
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def bind(self) -> None:
        """Have the port, so that nothing else is begun without. Raises `Unavailable` where it cannot be had."""
        self._loop = asyncio.get_running_loop()
        if self._inherited is None:
            await self._bind_all()
        else:
            self._sockets.append(self._inherited)
            self.port = self._inherited.getsockname()[1]

    async def start(self) -> None:
        """Accept; and bind before, if that was not done. Raises `Unavailable`."""
        if not self._sockets:
            await self.bind()
        self._set_date()
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    async def _bind_all(self) -> None:
        try:
            found = await self._loop.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, number, _, address in dict.fromkeys(found):
                self._bind(family, kind, number, address)
        except OSError as error:
            self._close_sockets()
            raise Unavailable(
                f"expected to listen on {self.host} port {self.port}, which cannot be ({error.strerror}): "
                f"{_instead(error)}"
            ) from None

    def _bind(self, family: int, kind: int, number: int, address: Any) -> None:
        try:
            self._sockets.append(_bound(family, kind, number, (address[0], self.port, *address[2:])))
        except OSError as error:
            if not self._sockets or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise  # else localhost is an address of IPv6 too, which is not set up
        self.port = self._sockets[0].getsockname()[1]

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted for now: %s", error.strerror)
                self._loop.remove_reader(listening)
                self._timers["accept"] = self._loop.call_later(_ACCEPT_AGAIN_S, self._accept_again)
                return
            visit = self.sources.enter(address[0])
            if visit is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            task = self._loop.create_task(self._open(accepted, visit))
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    def _accept_again(self) -> None:
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    async def _open(self, accepted: socket.socket, visit: Visit) -> None:
        http = Http(self._config, self._state, {VISIT: visit}, self._loop)
        protocol: Http | Tls = http
        if self._tls is not None:
            seconds = self._settings.authenticate_s
            protocol = Tls(self._tls, self._buffer, http, self._state.connections, seconds, visit.leave)
        try:
            visit.transport, _ = await self._loop.connect_accepted_socket(lambda: protocol, accepted)
            if visit.ended:
                visit.end()
        except (OSError, asyncio.CancelledError):  # it is gone already, or we are
            if protocol.transport is None:
                accepted.close()
                visit.leave()

    def _set_date(self) -> None:
        self._state.default_headers = [(b"date", formatdate(usegmt=True).encode())]
        self._timers["date"] = self._loop.call_later(_DATE_S, self._set_date)

    def close(self) -> None:
        """Accept nothing more, and tell connections to finish what they are at."""
        self._close_sockets()
        for task in self._opening:
            task.cancel()
        for connection in list(self._state.connections):
            connection.shutdown()

    async def stop(self) -> None:
        """Wait until all have, for the time that they are given, then let go of them."""
        self.close()
        try:
            async with asyncio.timeout(self._grace):
                await self.sources.empty()
        except TimeoutError:
            log.warning("connections are closed that did not finish within %g s", self._grace)
            await self._abort()
        for timer in self._timers.values():
            timer.cancel()

    async def _abort(self) -> None:
        for connection in list(self._state.connections):
            connection.transport.abort()
        for task in self._state.tasks:
            task.cancel()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.sources.empty()
        except TimeoutError:
            pass

    def _close_sockets(self) -> None:
        for each in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()


def raise_file_limit() -> int:
    """Give this process as many open files as it may have. Returns how many."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # as some containers do
            return soft
    return wanted


def _instead(error: OSError) -> str:
    """What to do where there is nothing to listen on."""
    if isinstance(error, socket.gaierror) or error.errno in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
        return "name an address of this machine with --host"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "name a port from 1024 on with --port, or give the process the right to use it"
    return "stop what has it, or name another with --port"


def _bound(family: int, kind: int, number: int, address: Any) -> socket.socket:
    made = socket.socket(family, kind, number)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            made.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        made.bind(address)
        made.listen(BACKLOG)
        made.setblocking(False)
    except BaseException:
        made.close()
        raise
    return made
