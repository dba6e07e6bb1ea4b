"""One WebSocket connection of a client: bytes in and out.

`websockets` does the protocol; there is no task and no queue, so a message is handled in the turn of the loop in which
it came.
"""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable
from typing import cast

from websockets.client import ClientProtocol
from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .. import wire
from ..errors import ProtocolError, Unavailable

CONNECT_S = 10.0
_log = logging.getLogger("solarwind.websocket")
_log.setLevel(logging.WARNING)


class Link(asyncio.Protocol):
    """Made by `connect`; `received` gets each message, `lost` is called once, with why."""

    def __init__(
        self, url: str, token: str | None, received: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> None:
        self._received = received
        self._lost = lost
        self._token = token
        self._parts: list[bytes | bytearray | memoryview] | None = None
        self._why = "the server closed the connection"
        self._over = False
        self.open: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._protocol = ClientProtocol(
            parse_uri(url + wire.PATH), subprotocols=[Subprotocol(wire.SUBPROTOCOL)], max_size=None, logger=_log
        )

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        request = self._protocol.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._why = str(error)
        if not self.open.done():
            self.open.set_exception(Unavailable(f"expected a Solar Wind server, but {self._why}"))
        self._end()

    def data_received(self, data: bytes) -> None:
        self._protocol.receive_data(data)
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._opened(event)
            elif isinstance(event, Frame):
                self._frame(event)
        self._write()

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        for event in self._protocol.events_received():
            if isinstance(event, Response):
                self._opened(event)

    def _opened(self, response: Response) -> None:
        if self.open.done():
            return
        refusal = self._protocol.handshake_exc
        if refusal is None and self._protocol.subprotocol == wire.SUBPROTOCOL:
            self.open.set_result(None)
            return
        said = (response.body or b"").decode(errors="replace").strip()
        self.open.set_exception(
            ProtocolError(
                f"expected a server of {wire.SUBPROTOCOL}, got HTTP {response.status_code}: {said or refusal}"
            )
        )

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY and frame.fin:
            self._received(bytes(frame.data))
        elif frame.opcode is Opcode.BINARY:
            self._parts = [frame.data]
        elif frame.opcode is Opcode.CONT and self._parts is not None:
            self._parts.append(frame.data)
            if frame.fin:
                data, self._parts = b"".join(self._parts), None
                self._received(data)
        elif frame.opcode is Opcode.CLOSE:
            closed = self._protocol.close_rcvd
            if closed is not None and closed.reason:
                self._why = closed.reason
            self._transport.close()
            self._end()

    def _end(self) -> None:
        if not self._over:
            self._over = True
            self._lost(self._why)

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self._transport.write(data)

    # The engine's side --------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        try:
            self._protocol.send_binary(data)
        except InvalidState:  # it is closing, and `lost` will say so
            return
        self._write()

    def close(self) -> None:
        """What was sent is still written."""
        try:
            self._protocol.send_close(1000)
        except InvalidState:
            pass
        self._write()
        self._over = True
        self._transport.close()

    def abort(self, why: str) -> None:
        """The server does not answer."""
        self._why = why
        self._transport.abort()
        self._end()


async def connect(url: str, token: str | None, received: Callable[[bytes], None], lost: Callable[[str], None]) -> Link:
    """Connect and shake hands. Raises `Unavailable` where there is no server, `ProtocolError` where it is another."""
    uri = parse_uri(url)
    context = ssl.create_default_context() if uri.secure else None
    try:
        async with asyncio.timeout(CONNECT_S):
            _, link = await asyncio.get_running_loop().create_connection(
                lambda: Link(url, token, received, lost),
                uri.host,
                uri.port,
                ssl=context,
                server_hostname=uri.host if uri.secure else None,
            )
            try:
                await link.open
            except BaseException:
                link.close()
                raise
    except TimeoutError:
        raise Unavailable(f"expected a server at {url}, got no answer within {CONNECT_S:g} s") from None
    except OSError as error:
        reason = error.strerror or str(error)
        raise Unavailable(
            f"expected a server at {url}, got {reason!r}: start one with `solarwind serve`, or name another"
        ) from None
    return link
