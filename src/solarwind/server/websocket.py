"""The WebSocket endpoint, `/v1/connect`: its handshake, and the transport of a `Connection`.

On the port of `solarwind serve` it reads a socket's bytes, with no task, queue or ASGI scope for each connection, so
that ten thousand idle ones cost little. Mounted in another app it uses ASGI's receive and send.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable
from typing import Any, NamedTuple

from starlette.responses import Response as Answer
from starlette.types import Receive, Scope, Send
from websockets.datastructures import Headers
from websockets.http11 import Request, Response
from websockets.protocol import SERVER
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from .. import wire
from ..errors import NotFound, ProtocolError, SolarWindError
from ..peer.connection import UNAUTHENTICATED_BYTES, Connection
from ..peer.frames import WebSocketProtocol, log
from .admission import Admitted
from .call import problem, problem_of
from .guard import bearer
from .host import ServerHost

CLOSE_S = 2.0  # for a peer to answer a close
LAST_WORDS_S = 1.0  # for a peer to read the last messages
SERVICE_RESTART = 1012  # the close code of an outer app's server that stops
_MAX_UNSENT_BYTES = 64 << 10
_PONG = b"\x8a"  # a frame's first byte


class Acceptor:
    """Checks handshakes and opens connections, on either transport. It is an ASGI app itself."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self.frame_bytes = host.settings.frame_bytes
        self.first_bytes = min(UNAUTHENTICATED_BYTES, self.frame_bytes)  # the limit before authentication

    def check(
        self, scheme: str, headers: Iterable[tuple[bytes, bytes]], address: str | None, subprotocols: Collection[str]
    ) -> str | None:
        """Return the token of a handshake, if any. Raise the error that refuses it."""
        headers = list(headers)
        if not self._host.running:
            raise self._host.not_running()
        self._host.guard.check(scheme, headers, address)
        if wire.SUBPROTOCOL not in subprotocols:
            raise ProtocolError(f"expected the subprotocol {wire.SUBPROTOCOL}, got another or none")
        return bearer(headers)

    def shake(
        self, method: str, target: str, headers: Collection[tuple[bytes, bytes]], scheme: str, address: str | None
    ) -> Handshake:
        """Answer the request for a WebSocket on the server's own port. `headers` have names in lower case."""
        protocol, token = ServerProtocol(subprotocols=[Subprotocol(wire.SUBPROTOCOL)], logger=log), None
        texts = Headers([(name.decode("latin-1"), value.decode("latin-1")) for name, value in headers])
        response = protocol.accept(Request(target, texts, method))
        if response.status_code != 101:
            reason = f"expected the handshake of a WebSocket, got another: {protocol.handshake_exc}"
            _put(problem_of(response.status_code, ProtocolError.code, reason), response)
        else:
            try:
                chosen = protocol.subprotocol
                token = self.check(scheme, headers, address, () if chosen is None else (chosen,))
                if target.partition("?")[0] != wire.PATH:
                    raise NotFound(f"expected a WebSocket at {wire.PATH}, got one elsewhere")
            except SolarWindError as error:
                answer = problem(error)
                response = protocol.reject(answer.status_code, "")
                _put(answer, response)
        return Handshake(response.status_code == 101, response.serialize(), token)

    def hold(self, size: int) -> None:
        """Reserve memory: see `peer.host.Host`. Raise `Busy`."""
        self._host.hold(size)

    def open(self, carrier: WebSocket | AsgiWebSocket, token: str | None) -> Connection:
        """Open the connection after the handshake."""
        return self._host.connected(carrier, token)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        address = (scope.get("server") or (None,))[0]
        try:
            token = self.check(scope["scheme"], scope["headers"], address, scope["subprotocols"])
        except SolarWindError as error:
            await _refuse(scope, send, error)
            return
        await send({"type": "websocket.accept", "subprotocol": wire.SUBPROTOCOL})
        await AsgiWebSocket(self, token, send).run(receive)


class Handshake(NamedTuple):
    """A handshake, as far as it is the server's."""

    accepted: bool
    answer: bytes
    token: str | None  # that came with it


def _put(answer: Answer, response: Response) -> None:
    """Answer a refused handshake with problem details, as all endpoints do."""
    for name, value in answer.headers.items():
        if name in response.headers:
            del response.headers[name]
        response.headers[name] = value
    response.body = bytes(answer.body)


# --- on a socket's bytes ----------------------------------------------------------------------------------------


class WebSocket(WebSocketProtocol):
    """A WebSocket on the server's own port, from the end of its handshake on."""

    local = False
    __slots__ = (
        *("_acceptor", "_admitted", "_authenticated", "_closing", "_connection", "_connections", "_counted", "_stuck"),
    )

    def __init__(
        self,
        acceptor: Acceptor,
        connections: set[Any],
        admitted: Admitted,
        transport: asyncio.Transport,
        token: str | None,
    ) -> None:
        """It is one of the port's `connections` until it is lost."""
        super().__init__(SERVER, acceptor.frame_bytes)
        self.max_bytes = acceptor.first_bytes
        self._acceptor = acceptor
        self._connections = connections
        self._admitted = admitted
        self._authenticated = False
        self._counted = 0  # bytes of an unfinished message
        self._closing = False
        self._stuck = False  # the peer does not read
        self.connection_made(transport)
        self.transport.set_write_buffer_limits(UNAUTHENTICATED_BYTES)
        self._connections.add(self)
        self._connection = acceptor.open(self, token)

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        self._connection.lost()
        self._acceptor.hold(-self._counted)
        self._admitted.leave()

    def part_received(self, data: bytes) -> None:
        self._connection.heard = asyncio.get_running_loop().time()
        super().part_received(data)
        if self.unfinished_bytes != self._counted:
            self._count(self.unfinished_bytes)
        if self.close_expected and not self._closing:
            self._close_soon()

    def _count(self, unfinished: int) -> None:
        """Count the bytes of an unfinished message in the budget for all peers."""
        try:
            self._acceptor.hold(unfinished - self._counted)
        except SolarWindError as error:
            self._connection.end(error)
            self.transport.close()
        else:
            self._counted = unfinished

    def pause_writing(self) -> None:
        """Tell the connection that the peer reads too slowly; abort one that is not authenticated."""
        self._stuck = True
        if not self._authenticated:
            self.transport.abort()
        else:
            self._connection.stuck()

    def resume_writing(self) -> None:
        self._stuck = False
        self._connection.unstuck()

    def shutdown(self) -> None:
        """Close it, because the server stops."""
        self._connection.leave()

    # Frames -------------------------------------------------------------------------------------------

    def message(self, data: bytes) -> None:
        if self._counted:  # it is complete, and its content is counted separately
            self._count(0)
        self._connection.received(data)

    def text(self) -> None:
        self._connection.refuse_text()

    def goodbye(self, reason: str) -> None:
        self._connection.lost()

    # The connection's side ----------------------------------------------------------------------------

    @property
    def uid(self) -> int | None:
        return self._admitted.uid

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        self.resume()  # for the peer's answer
        self.say_goodbye(code, reason)
        self._close_soon()

    def abort(self) -> None:
        self.transport.abort()

    def authenticated(self) -> None:
        self._authenticated = True
        self.max_bytes = self._acceptor.frame_bytes
        self.transport.set_write_buffer_limits()
        self._admitted.welcome()

    def write(self) -> None:
        """Write what the frames have to send. Pongs are dropped for a peer that does not read."""
        self.write_all(each for each in self._library.data_to_send() if not (self._stuck and each[:1] == _PONG))

    def _close_soon(self) -> None:
        """Abort it after a moment, unless the peer answers the close and disconnects."""
        self._closing = True
        asyncio.get_running_loop().call_later(CLOSE_S, self.transport.abort)


# --- on ASGI's receive and send ---------------------------------------------------------------------------------


class AsgiWebSocket:
    """A WebSocket of an app that this one is mounted in. A task of its own sends, so that senders need not wait."""

    local = False
    uid = None

    def __init__(self, acceptor: Acceptor, token: str | None, send: Send) -> None:
        self._acceptor = acceptor
        self._send = send
        self._max_bytes = acceptor.first_bytes
        self._queue: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._unsent = 0
        self._reader = asyncio.current_task()
        self._aborted = False
        self._readable = asyncio.Event()
        self._readable.set()
        self._connection = acceptor.open(self, token)

    async def run(self, receive: Receive) -> None:
        """Read until it is closed."""
        writer = asyncio.create_task(self._write())
        writer.add_done_callback(self._writer_ended)
        try:
            await self._read(receive)
        except asyncio.CancelledError:
            if not self._aborted:
                raise
        finally:
            self._connection.lost()
            await self._finish(writer)

    async def _read(self, receive: Receive) -> None:
        connection = self._connection
        while connection.open:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                connection.lost(died=message.get("code") != SERVICE_RESTART)
                return
            data = message.get("bytes")
            if data is None:
                connection.refuse_text()
            elif len(data) > self._max_bytes:
                connection.refuse_large(len(data), self._max_bytes)
            else:
                connection.received(data)
            await self._readable.wait()

    async def _write(self) -> None:
        while (message := await self._queue.get()) is not None:
            await self._send(message)
            self._unsent -= len(message.get("bytes", b""))  # type: ignore[arg-type]
            if self._unsent <= _MAX_UNSENT_BYTES // 2:
                self._connection.unstuck()

    def _writer_ended(self, writer: asyncio.Task[None]) -> None:
        """Close it, because nothing can be sent. Some servers report a peer that is gone by an `OSError`."""
        error = None if writer.cancelled() else writer.exception()
        if error is not None:
            if not isinstance(error, OSError):
                log.error("nothing can be sent on a connection: it is closed", exc_info=error)
            self.abort()

    async def _finish(self, writer: asyncio.Task[None]) -> None:
        """Let the task send what remains for a moment; the peer may be gone already."""
        if not self._aborted:
            self._queue.put_nowait(None)
            await asyncio.wait([writer], timeout=LAST_WORDS_S)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)

    # The connection's side ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        self._unsent += len(data)
        self._queue.put_nowait({"type": "websocket.send", "bytes": data})
        if self._unsent > _MAX_UNSENT_BYTES:
            self._connection.stuck()

    def pause(self) -> None:
        self._readable.clear()

    def resume(self) -> None:
        self._readable.set()

    def close(self, code: int, reason: str) -> None:
        self._queue.put_nowait({"type": "websocket.close", "code": code, "reason": reason})
        self._queue.put_nowait(None)
        self._readable.set()

    def abort(self) -> None:
        self._aborted = True
        if self._reader is not None:
            self._reader.cancel()

    def authenticated(self) -> None:
        """Do nothing: the outer app's server limits the size of messages."""
        self._max_bytes = self._acceptor.frame_bytes


async def _refuse(scope: Scope, send: Send, error: SolarWindError) -> None:
    """Answer with problem details, where the outer app's server can send them."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    answer = problem(error)
    start = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": answer.body})
