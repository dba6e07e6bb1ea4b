"""The WebSocket door of `solarwind serve`: a `Connection` right on the socket's bytes.

There is no task, queue or ASGI scope for a connection, so that ten thousand idle ones cost little. uvicorn makes one of
these when a request asks for a WebSocket, and gives it the request's bytes.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from starlette.responses import Response as Answer
from websockets.http11 import Request, Response
from websockets.server import ServerProtocol
from websockets.typing import Subprotocol

from .. import wire
from ..engine.frames import Endpoint, log
from ..errors import NotFound, ProtocolError, SolarWindError, Unavailable
from ..peer.connection import UNAUTHENTICATED_BYTES, Connection
from .call import problem, problem_of
from .guard import bearer

if TYPE_CHECKING:
    from .asgi import Server

CLOSE_S = 2.0  # that a peer has to answer a close
_PONG = b"\x8a"  # a frame's first byte


class WebSocket(Endpoint):
    """The transport of one `Connection`; the one it needs of uvicorn's state is the set of connections."""

    local = False
    __slots__ = ("_authenticated", "_closing", "_connection", "_connections", "_server", "_stuck")

    _protocol: ServerProtocol

    def __init__(self, server: Server, *, server_state: Any, **ignored: Any) -> None:
        most = min(UNAUTHENTICATED_BYTES, server.settings.frame_bytes)
        super().__init__(ServerProtocol(subprotocols=[Subprotocol(wire.SUBPROTOCOL)], max_size=most, logger=log))
        self._server = server
        self._connections = server_state.connections
        self._connection: Connection | None = None
        self._authenticated = False
        self._closing = False
        self._stuck = False  # the peer does not read

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        self.transport.set_write_buffer_limits(UNAUTHENTICATED_BYTES)
        self._connections.add(self)

    def connection_lost(self, error: Exception | None) -> None:
        self._connections.discard(self)
        if self._connection is not None:
            self._connection.lost()

    def data_received(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.heard = asyncio.get_running_loop().time()
        super().data_received(data)
        if self._protocol.close_expected() and not self._closing:
            self._close_soon()

    def pause_writing(self) -> None:
        """Whoever has not said who he is has nothing to be slow with."""
        self._stuck = True
        if not self._authenticated:
            self.transport.abort()
        elif self._connection is not None:
            self._connection.stuck()

    def resume_writing(self) -> None:
        self._stuck = False
        if self._connection is not None:
            self._connection.unstuck()

    def shutdown(self) -> None:
        """uvicorn stops."""
        if self._connection is not None:
            self._connection.leave()
        else:
            self.transport.close()

    # The handshake ------------------------------------------------------------------------------------

    def opened(self, handshake: Request) -> None:
        protocol, token = self._protocol, None
        response = protocol.accept(handshake)
        if response.status_code != 101:
            reason = f"expected the handshake of a WebSocket, got another: {protocol.handshake_exc}"
            _put(problem_of(response.status_code, ProtocolError.code, reason), response)
        else:
            try:
                token = self._check(handshake)
            except SolarWindError as error:
                answer = problem(error)
                response = protocol.reject(answer.status_code, "")
                _put(answer, response)
        protocol.send_response(response)
        if response.status_code == 101:
            # A message may be in the same packet: its frames come as events right after this one.
            self._connection = self._server.connected(self, token)

    def _check(self, request: Request) -> str | None:
        """The token that the handshake brought. Raises what it is refused for."""
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in request.headers.raw_items()]
        if not self._server.running:
            raise Unavailable("expected a server that runs, got one that stops: come again")
        scheme = "wss" if self.transport.get_extra_info("ssl_object") else "ws"
        self._server.guard.check(scheme, headers, (self.transport.get_extra_info("sockname") or (None,))[0])
        if request.path.partition("?")[0] != wire.PATH:
            raise NotFound(f"expected a WebSocket at {wire.PATH}, got one elsewhere")
        if self._protocol.subprotocol is None:
            raise ProtocolError(f"expected the subprotocol {wire.SUBPROTOCOL}, got another or none")
        return bearer(headers)

    # Frames -------------------------------------------------------------------------------------------

    def message(self, data: bytes) -> None:
        if self._connection is not None:
            self._connection.received(data)

    def text(self) -> None:
        if self._connection is not None:
            self._connection.refuse_text()

    def goodbye(self) -> None:
        if self._connection is not None:
            self._connection.lost()

    # The connection's side ----------------------------------------------------------------------------

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
        self.transport.set_write_buffer_limits()
        self._protocol.max_message_size = self._server.settings.frame_bytes

    def _write(self) -> None:
        """Pongs are not kept for a peer that asks for them and does not read."""
        if self._stuck:
            self._protocol.writes = [each for each in self._protocol.writes if each[:1] != _PONG]
        super()._write()

    def _close_soon(self) -> None:
        """The peer answers the close and hangs up, or is let go."""
        self._closing = True
        asyncio.get_running_loop().call_later(CLOSE_S, self.transport.abort)


def _put(answer: Answer, response: Response) -> None:
    """A refusal is a problem here as at all doors."""
    for name, value in answer.headers.items():
        if name in response.headers:
            del response.headers[name]
        response.headers[name] = value
    response.body = bytes(answer.body)
