"""One WebSocket connection of a client: from the handshake to the goodbye."""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable

import msgspec
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .. import wire
from ..errors import BadToken, NotAllowed, ProtocolError, SolarWindError, Unavailable
from ..text import redact
from .frames import Endpoint, log

CONNECT_S = 10.0
CLOSE_S = 2.0  # that a server has to answer a goodbye


class Link(Endpoint):
    """Made by `connect`; `received` gets each message, and `lost` is called once, with why, unless it was closed."""

    _protocol: ClientProtocol

    def __init__(
        self, url: str, token: str | None, received: Callable[[bytes], None], lost: Callable[[str], None]
    ) -> None:
        super().__init__(
            ClientProtocol(
                parse_uri(url + wire.PATH), subprotocols=[Subprotocol(wire.SUBPROTOCOL)], max_size=None, logger=log
            )
        )
        self._received = received
        self._lost = lost
        self._token = token
        self._why = "the server closed the connection"
        self._over = False
        loop = asyncio.get_running_loop()
        self.open: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.silent = 0  # heartbeats since the server was heard of

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        request = self._protocol.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._protocol.send_request(request)
        self._write()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._why = str(error)
        if not self.closed.done():
            self.closed.set_result(None)
        self._end()

    def data_received(self, data: bytes) -> None:
        self.silent = 0
        super().data_received(data)
        if self._protocol.close_expected() and not self._over:  # what came was none of the protocol
            self._why = str(self._protocol.handshake_exc or self._protocol.parser_exc or self._why)
            self.goodbye()

    # Frames -------------------------------------------------------------------------------------------

    def opened(self, handshake: Response) -> None:
        if self.open.done():
            return
        if self._protocol.handshake_exc is None and self._protocol.subprotocol == wire.SUBPROTOCOL:
            self.open.set_result(None)
        else:
            self.open.set_exception(_refusal(handshake, self._protocol.handshake_exc))

    def message(self, data: bytes) -> None:
        if not self._over:
            self._received(data)

    def text(self) -> None:
        self.abort("it sent a text")

    def goodbye(self) -> None:
        closed = self._protocol.close_rcvd
        if closed is not None and closed.reason:
            self._why = closed.reason
        self._write()
        self.transport.close()
        self._end()

    def _end(self) -> None:
        if not self.open.done():
            hint = "" if self._protocol.uri.secure else ": is it wss://?"
            self.open.set_exception(Unavailable(f"expected a Solar Wind server, but {self._why}{hint}"))
        if not self._over:
            self._over = True
            if not self.open.cancelled() and self.open.exception() is None:
                self._lost(self._why)

    # The engine's side --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raises `Unavailable` where it is over: a goodbye may come right behind the handshake."""
        if self._over:
            raise Unavailable(f"expected a server at hand, but {self._why}")

    async def close(self) -> None:
        """Say goodbye, and wait until the server has read what was sent before."""
        self._over = True
        self.say_goodbye(1000)
        try:
            async with asyncio.timeout(CLOSE_S):
                await self.closed
        except TimeoutError:
            self.transport.abort()

    def abort(self, why: str) -> None:
        """The server does not answer, or not as it should."""
        self._why = why
        self.transport.abort()
        self._end()


async def connect(url: str, token: str | None, received: Callable[[bytes], None], lost: Callable[[str], None]) -> Link:
    """Connect and shake hands. Raises `Unavailable` where there is no server, and for now; `BadToken`, `NotAllowed` and
    `ProtocolError` where it is one that does not want this client, or another."""
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
                link.check()
            except BaseException:
                link.abort("it was given up")
                raise
    except TimeoutError:
        raise Unavailable(f"expected a server at {redact(url)}, got no answer within {CONNECT_S:g} s") from None
    except OSError as error:
        raise _unreachable(url, error) from None
    return link


def _unreachable(url: str, error: OSError) -> Unavailable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unavailable(
            f"expected a certificate of {redact(url)} that is trusted here and has that name, got one that is not or "
            f"has not ({error.verify_message}): name its issuer's file with $SSL_CERT_FILE, or the server as it does"
        )
    if isinstance(error, ssl.SSLError):
        return Unavailable(f"expected TLS at {redact(url)}, got something else ({error.reason}): is it ws://?")
    reason = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return Unavailable(
        f"expected a server at {redact(url)}, got {reason!r}: start one with `solarwind serve`, or name another"
    )


class _Problem(msgspec.Struct):
    detail: str


def _said(body: bytes) -> str:
    try:
        return msgspec.json.decode(body, type=_Problem).detail
    except msgspec.MsgspecError:
        return body.decode(errors="replace").strip()


def _refusal(response: Response, reason: Exception | None) -> SolarWindError:
    """Why there is no connection. A server that fails, or one on the way to it that does not find it, may come back."""
    status = response.status_code
    text = f"expected a server of {wire.SUBPROTOCOL}, got HTTP {status}: "
    text += _said(bytes(response.body or b"")) or str(reason or "another subprotocol")
    if status >= 500 or status in (408, 429):
        return Unavailable(text)
    return {401: BadToken, 403: NotAllowed}.get(status, ProtocolError)(text)
