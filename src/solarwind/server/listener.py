"""Where a server listens: its port and its Unix socket, TLS, and the connections that it accepts.

A client that sends no complete request in time is disconnected, and so is one that stops in the middle: see `http11`.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import resource
import socket
import ssl
from collections.abc import Collection
from typing import Any

from ..engine.tasks import Tasks
from ..errors import Unavailable
from .admission import Admission, Admitted
from .asgi import Server
from .http11 import Http11, Port
from .tls import BUFFER_BYTES, Tls
from .unix_socket import BACKLOG, UnixSocket, credentials

log = logging.getLogger("solarwind")

RESERVED_FILES = 128  # for the store, webhooks and libraries
_MAX_FILES = 1 << 20
_ACCEPT_AT_ONCE = 64
_ACCEPT_AGAIN_S = 0.5  # where there are no file descriptors left
_LAST_WORDS_S = 1.0  # for aborted connections to notice


class Listener:
    """Accepts connections for a running `Server`."""

    def __init__(
        self,
        server: Server,
        *,
        host: str = "127.0.0.1",
        port: int | None = 7400,
        unix: UnixSocket | None = None,
        inherited: Collection[socket.socket] = (),
        tls: ssl.SSLContext | None = None,
        grace: float = 30.0,
    ) -> None:
        """With None as its `port` it has none. `inherited` are sockets that listen already. `tls` is for ports."""
        self.host = host[1:-1] if host.startswith("[") and host.endswith("]") else host
        self.port = port or 0  # the actual one, once it is bound; 0 if there is none
        self._has_port = port is not None
        self._unix = unix
        self.admission = Admission(server.host.settings.connections, max(1, raise_file_limit() - RESERVED_FILES))
        self._settings = server.host.settings
        self._inherited = inherited
        self._tls = tls
        self._buffer = memoryview(bytearray(BUFFER_BYTES if tls is not None else 0))
        self._grace = grace
        self._port = Port(server, server.acceptor, server.host)
        self._sockets: list[socket.socket] = []
        self._opening = Tasks(lambda _: None)
        self._timers: dict[str, asyncio.TimerHandle] = {}

    async def bind(self) -> None:
        """Bind the port and the Unix socket, before anything else is started. Raise `Unavailable`."""
        self._loop = asyncio.get_running_loop()
        try:
            if self._unix is not None:
                self._sockets.append(self._unix.bind())
            if self._has_port:
                await self._bind_port()
        except BaseException:
            self._close_sockets()
            raise
        for each in self._inherited:
            self._sockets.append(each)
            if each.family != socket.AF_UNIX and not self.port:
                self.port = each.getsockname()[1]

    async def start(self) -> None:
        """Accept connections, after `bind` if that was not called. Raise `Unavailable`."""
        if not self._sockets:
            await self.bind()
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    async def _bind_port(self) -> None:
        bound: list[socket.socket] = []
        try:
            found = await self._loop.getaddrinfo(
                self.host or None, self.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )
            for family, kind, number, _, address in dict.fromkeys(found):
                self._bind(bound, family, kind, number, address)
        except OSError as error:
            raise Unavailable(
                f"expected to listen on {self.host} port {self.port}, which cannot be ({error.strerror}): "
                f"{_instead(error)}"
            ) from None
        finally:
            self._sockets += bound

    def _bind(self, bound: list[socket.socket], family: int, kind: int, number: int, address: Any) -> None:
        try:
            bound.append(_bound(family, kind, number, (address[0], self.port, *address[2:])))
        except OSError as error:
            if not bound or error.errno not in (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT):
                raise  # else localhost is an address of IPv6 too, which is not set up
        self.port = bound[0].getsockname()[1]

    def _accept(self, listening: socket.socket) -> None:
        for _ in range(_ACCEPT_AT_ONCE):
            if self.admission.crowded:
                return  # the next turn of the loop goes on here
            try:
                accepted, address = listening.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError as error:
                log.error("no connection can be accepted for now: %s", error.strerror)
                self._loop.remove_reader(listening)
                self._timers["accept"] = self._loop.call_later(_ACCEPT_AGAIN_S, self._accept_again)
                return
            if listening.family == socket.AF_UNIX:
                _, uid = credentials(accepted)
                admitted = self.admission.enter(f"uid {uid}", uid)
            else:
                admitted = self.admission.enter(address[0])
            if admitted is None:
                accepted.close()
                continue
            accepted.setblocking(False)
            self._opening.spawn(self._open(accepted, admitted), "the opening of a connection")

    def _accept_again(self) -> None:
        for each in self._sockets:
            self._loop.add_reader(each, self._accept, each)

    async def _open(self, accepted: socket.socket, admitted: Admitted) -> None:
        protocol: Http11 | Tls | None = None
        try:
            made = protocol = self._protocol(admitted)
            admitted.transport, _ = await self._loop.connect_accepted_socket(lambda: made, accepted)
            if admitted.ended:
                admitted.end()
        except BaseException as error:
            if protocol is None or protocol.transport is None:
                accepted.close()
                admitted.leave()
            if not isinstance(error, OSError | asyncio.CancelledError):  # it is gone already, or the server stops
                raise

    def _protocol(self, admitted: Admitted) -> Http11 | Tls:
        http = Http11(self._port, admitted)
        if self._tls is None or admitted.uid is not None:
            return http
        seconds = self._settings.authenticate_s
        return Tls(self._tls, self._buffer, http, self._port.connections, seconds, admitted.leave)

    def close(self) -> None:
        """Stop accepting, and tell connections to finish."""
        self._close_sockets()
        self._opening.cancel()
        for connection in list(self._port.connections):
            connection.shutdown()

    async def stop(self) -> None:
        """Wait until all connections have finished, for the time that they are given, then abort them."""
        self.close()
        try:
            async with asyncio.timeout(self._grace):
                await self.admission.empty()
        except TimeoutError:
            log.warning("connections are closed that did not finish within %g s", self._grace)
            await self._abort()
        for timer in self._timers.values():
            timer.cancel()

    async def _abort(self) -> None:
        for connection in list(self._port.connections):
            connection.transport.abort()
        for task in self._port.tasks:
            task.cancel()
        try:
            async with asyncio.timeout(_LAST_WORDS_S):
                await self.admission.empty()
        except TimeoutError:
            pass

    def _close_sockets(self) -> None:
        if self._unix is not None:  # first: by now a file that nobody listens at may be replaced by another server's
            self._unix.remove()
        for each in self._sockets:
            if self._loop is not None:
                self._loop.remove_reader(each)
            each.close()
        self._sockets.clear()


def raise_file_limit() -> int:
    """Raise this process's limit of open files as far as allowed, and return it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, _MAX_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        except (OSError, ValueError):  # as some containers do
            return soft
    return wanted


def _instead(error: OSError) -> str:
    """Return what to do where it cannot listen."""
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
