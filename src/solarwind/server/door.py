"""The WebSocket door where the app is mounted in another: a `Connection` on ASGI's receive and send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .. import wire
from ..errors import ProtocolError, SolarWindError, Unavailable
from ..peer.connection import UNAUTHENTICATED_BYTES, Connection
from .call import problem
from .guard import bearer

if TYPE_CHECKING:
    from .asgi import Server

LAST_WORDS_S = 1.0  # that a peer has to read what it is sent in the end
SERVICE_RESTART = 1012  # why a connection ends that uvicorn closes because it stops
_MOST_UNSENT = 64 << 10  # bytes


class Door:
    """The ASGI app of `/v1/connect`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        try:
            token = self._check(scope)
        except SolarWindError as error:
            await _refuse(scope, send, error)
            return
        await send({"type": "websocket.accept", "subprotocol": wire.SUBPROTOCOL})
        transport = _AsgiTransport(send, self._server.settings.frame_bytes)
        connection = transport.connection = self._server.connected(transport, token)
        writer = asyncio.create_task(transport.write())
        try:
            await self._read(connection, transport, receive)
        except asyncio.CancelledError:
            if not transport.aborted:
                raise
        finally:
            connection.lost()
            await transport.finish(writer)

    def _check(self, scope: Scope) -> str | None:
        """The token that the handshake brought. Raises what it is refused for."""
        if not self._server.running:
            raise Unavailable("expected a server that runs, got one that stops: come again")
        self._server.guard.check(scope["scheme"], scope["headers"], (scope.get("server") or (None,))[0])
        if wire.SUBPROTOCOL not in scope["subprotocols"]:
            raise ProtocolError(f"expected the subprotocol {wire.SUBPROTOCOL}, got another or none")
        return bearer(scope["headers"])

    async def _read(self, connection: Connection, transport: _AsgiTransport, receive: Receive) -> None:
        while connection.open:
            message = await receive()
            if message["type"] == "websocket.disconnect":
                connection.lost(died=message.get("code") != SERVICE_RESTART)
                return
            data = message.get("bytes")
            if data is None:
                connection.refuse_text()
            elif len(data) > transport.most_bytes:
                connection.refuse_large(len(data), transport.most_bytes)
            else:
                connection.received(data)
            await transport.readable.wait()


class _AsgiTransport:
    """Sends from a task of its own, so that whoever has something to send need not wait."""

    local = False
    connection: Connection

    def __init__(self, send: Send, frame_bytes: int) -> None:
        self._send = send
        self._frame_bytes = frame_bytes
        self.most_bytes = min(UNAUTHENTICATED_BYTES, frame_bytes)
        self._queue: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._unsent = 0
        self._reader = asyncio.current_task()
        self.aborted = False
        self.readable = asyncio.Event()
        self.readable.set()

    def send(self, data: bytes) -> None:
        self._unsent += len(data)
        self._queue.put_nowait({"type": "websocket.send", "bytes": data})
        if self._unsent > _MOST_UNSENT:
            self.connection.stuck()

    def pause(self) -> None:
        self.readable.clear()

    def resume(self) -> None:
        self.readable.set()

    def close(self, code: int, reason: str) -> None:
        self._queue.put_nowait({"type": "websocket.close", "code": code, "reason": reason})
        self._queue.put_nowait(None)
        self.readable.set()

    def abort(self) -> None:
        self.aborted = True
        if self._reader is not None:
            self._reader.cancel()

    def authenticated(self) -> None:
        """How large a message can be that gets here is for whoever runs the outer app to say."""
        self.most_bytes = self._frame_bytes

    async def write(self) -> None:
        while (message := await self._queue.get()) is not None:
            await self._send(message)
            self._unsent -= len(message.get("bytes", b""))  # type: ignore[arg-type]
            if self._unsent <= _MOST_UNSENT // 2:
                self.connection.unstuck()

    async def finish(self, writer: asyncio.Task[None]) -> None:
        """Let it send what there is for the peer, which may be gone already."""
        if not self.aborted:
            self._queue.put_nowait(None)
            await asyncio.wait([writer], timeout=LAST_WORDS_S)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def _refuse(scope: Scope, send: Send, error: SolarWindError) -> None:
    """As a problem, where the one who runs the outer app can send it."""
    if "websocket.http.response" not in scope.get("extensions", {}):
        await send({"type": "websocket.close", "code": 1008, "reason": error.code})
        return
    answer = problem(error)
    start = {"type": "websocket.http.response.start", "status": answer.status_code, "headers": answer.raw_headers}
    await send(start)
    await send({"type": "websocket.http.response.body", "body": answer.body})
