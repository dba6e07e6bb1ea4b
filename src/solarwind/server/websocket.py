"""The WebSocket door of `solarwind serve`: a `Connection` right on the socket's bytes.

`websockets` does the protocol; there is no task, queue or ASGI scope for a connection, so that ten thousand idle ones
cost little and a message goes to the engine in the turn of the loop in which it came. uvicorn makes one of these when a
request asks for a WebSocket, and gives it the request's bytes.
"""

from __future__ import annotations

import asyncio
import logging
from http import HTTPStatus
from typing import TYPE_CHECKING, Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Request
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from .. import wire
from ..errors import BadToken, NotAllowed
from .connect import Connection
from .guard import bearer

if TYPE_CHECKING:
    from .asgi import Server

UNAUTHENTICATED_BYTES = 16 << 10  # a message of somebody who has not said who he is
CLOSE_S = 2.0  # that a peer has to answer a close
_log = logging.getLogger("solarwind.websocket")
_log.setLevel(logging.WARNING)


class WebSocket(asyncio.Protocol):
    """The transport of one `Connection`; the one it needs of uvicorn's state is the set of connections."""

    __slots__ = ("_closing", "_connection", "_connections", "_parts", "_protocol", "_server", "transport")

    def __init__(self, server: Server, *, server_state: Any, **ignored: Any) -> None:
        self._server = server
        self._connections = server_state.connections
        self._connection: Connection | None = None
        self._parts: list[bytes | bytearray | memoryview] | None = None  # of a message that comes in several frames
        self._closing = False
        self._protocol = ServerProtocol(
            subprotocols=[Subprotocol(wire.SUBPROTOCOL)], max_size=UNAUTHENTICATED_BYTES, logger=_log
        )

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        if self._connection is not None:
            self._connection.lost()

    def data_received(self, data: bytes) -> None:
        protocol = self._protocol
        protocol.receive_data(data)
        for event in protocol.events_received():
            if isinstance(event, Request):
                self._accept(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._write()
        if protocol.close_expected() and not self._closing:
            self._close_soon()

    def eof_received(self) -> None:
        self._protocol.receive_eof()

    def pause_writing(self) -> None:
        if self._connection is not None:
            self._connection.stuck()

    def resume_writing(self) -> None:
        if self._connection is not None:
            self._connection.unstuck()

    def shutdown(self) -> None:
        """uvicorn stops."""
        if self._connection is not None:
            self._connection.leave()
        else:
            self.transport.close()

    # The handshake ------------------------------------------------------------------------------------

    def _accept(self, request: Request) -> None:
        protocol = self._protocol
        path = request.path.partition("?")[0]
        response = protocol.accept(request)
        token = None
        if response.status_code == 101:
            headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
            try:
                refusal = self._refusal(path)
                self._server.guard.check("wss" if self.transport.get_extra_info("ssl_object") else "ws", headers)
                token = bearer(headers)
            except BadToken as error:
                refusal = HTTPStatus.UNAUTHORIZED, str(error)
            except NotAllowed as error:
                refusal = HTTPStatus.FORBIDDEN, str(error)
            if refusal is not None:
                response = protocol.reject(*refusal)
        protocol.send_response(response)
        if response.status_code == 101:
            # A message may be in the same packet: its frames come as events right after this one.
            self._connection = self._server.connected(self, token)

    def _refusal(self, path: str) -> tuple[HTTPStatus, str] | None:
        if path != wire.PATH:
            return HTTPStatus.NOT_FOUND, f"expected a WebSocket at {wire.PATH}, got one elsewhere"
        if self._protocol.subprotocol is None:
            return HTTPStatus.BAD_REQUEST, f"expected the subprotocol {wire.SUBPROTOCOL}, got another or none"
        return None

    # Frames -------------------------------------------------------------------------------------------

    def _frame(self, frame: Frame) -> None:
        connection = self._connection
        if connection is None:
            return
        if frame.opcode is Opcode.BINARY:
            if frame.fin:
                connection.received(bytes(frame.data))
            else:
                self._parts = [frame.data]
        elif frame.opcode is Opcode.CONT and self._parts is not None:
            self._parts.append(frame.data)
            if frame.fin:
                data, self._parts = b"".join(self._parts), None
                connection.received(data)
        elif frame.opcode is Opcode.TEXT:
            connection.refuse_text()
        elif frame.opcode is Opcode.CLOSE:
            connection.lost()

    # The connection's side ----------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        try:
            self._protocol.send_binary(data)
        except InvalidState:  # it is closing
            return
        self._write()

    def pause(self) -> None:
        self.transport.pause_reading()

    def resume(self) -> None:
        if not self.transport.is_closing():
            self.transport.resume_reading()

    def close(self, code: int, reason: str) -> None:
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            pass
        self._write()
        self._close_soon()

    def abort(self) -> None:
        self.transport.abort()

    def authenticated(self) -> None:
        self._protocol.max_message_size = self._server.settings.frame_bytes

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()

    def _close_soon(self) -> None:
        """The peer answers the close and hangs up, or is let go."""
        self._closing = True
        asyncio.get_running_loop().call_later(CLOSE_S, self.transport.close)
