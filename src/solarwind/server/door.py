"""The WebSocket door where the app is mounted in another: a `Connection` on ASGI's receive and send."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from starlette.types import Receive, Scope, Send

from .. import wire
from ..errors import NotAllowed
from .connect import Connection
from .guard import bearer

if TYPE_CHECKING:
    from .asgi import Server

_MOST_UNSENT = 64 << 10  # bytes


class Door:
    """The ASGI app of `/v1/connect`."""

    def __init__(self, server: Server) -> None:
        self._server = server

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "websocket":
            await _upgrade_required(send)
            return
        await receive()
        try:
            self._server.guard.check(scope["scheme"], scope["headers"])
            token = bearer(scope["headers"])
        except NotAllowed as error:
            await send({"type": "websocket.close", "code": 1008, "reason": error.code})
            return
        if wire.SUBPROTOCOL not in scope["subprotocols"]:
            await send({"type": "websocket.close", "code": 1002})
            return
        await send({"type": "websocket.accept", "subprotocol": wire.SUBPROTOCOL})
        transport = _AsgiTransport(send)
        connection = self._server.connected(transport, token)
        transport.connection = connection
        writer = asyncio.create_task(transport.write())
        try:
            while connection.open:
                message = await receive()
                if message["type"] == "websocket.disconnect":
                    break
                data = message.get("bytes")
                if data is None:
                    connection.refuse_text()
                    break
                if len(data) > self._server.settings.frame_bytes:
                    connection.refuse_large(len(data))
                    break
                connection.received(data)
                await transport.readable.wait()
        finally:
            connection.lost()
            await transport.finish(writer)


class _AsgiTransport:
    """Sends from a task of its own, so that whoever has something to send need not wait."""

    connection: Connection

    def __init__(self, send: Send) -> None:
        self._send = send
        self._queue: asyncio.Queue[dict[str, object] | None] = asyncio.Queue()
        self._unsent = 0
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
        self.abort()

    def abort(self) -> None:
        self._queue.put_nowait(None)
        self.readable.set()

    def authenticated(self) -> None:
        """All frames may be large here: how large is for whoever runs the outer app to say."""

    async def write(self) -> None:
        while (message := await self._queue.get()) is not None:
            await self._send(message)
            self._unsent -= len(message.get("bytes", b""))  # type: ignore[arg-type]
            if self._unsent <= _MOST_UNSENT // 2:
                self.connection.unstuck()

    async def finish(self, writer: asyncio.Task[None]) -> None:
        """Let it send what there is for the peer, which may be gone already."""
        self._queue.put_nowait(None)
        await asyncio.wait([writer], timeout=1.0)
        writer.cancel()
        await asyncio.gather(writer, return_exceptions=True)


async def _upgrade_required(send: Send) -> None:
    headers = [(b"upgrade", b"websocket"), (b"content-type", b"text/plain")]
    await send({"type": "http.response.start", "status": 426, "headers": headers})
    await send({"type": "http.response.body", "body": f"expected a WebSocket of {wire.SUBPROTOCOL}\n".encode()})
