"""One WebSocket connection of a client: from the handshake to the goodbye."""

from __future__ import annotations

import asyncio
import os
import shlex
import ssl
import stat
from collections.abc import Callable
from urllib.parse import urlsplit

import msgspec
from websockets.client import ClientProtocol
from websockets.http11 import Response
from websockets.protocol import CLIENT, OPEN
from websockets.typing import Subprotocol
from websockets.uri import parse_uri

from .. import wire
from ..errors import BadToken, NotAllowed, ProtocolError, SolarWindError, Unavailable
from ..text import plain, redact
from .frames import WebSocketProtocol, log

CONNECT_S = 10.0
CLOSE_S = 2.0  # that a server has to answer a goodbye
_FIRST_BYTES = 60  # of what is no answer, to tell by it what is there
_TEXT_BYTES = 100  # of a body that is shown
_HERE = "ws://localhost"  # by a Unix socket
_HEAD_END = b"\r\n\r\n"
_TLS = (b"\x15\x03", b"\x16\x03")  # how an alert, and a handshake, begin


class WebSocketLink(WebSocketProtocol):
    """Made by `connect`; `received` gets each message, and `lost` is called once, with why, unless it was closed."""

    def __init__(
        self,
        url: str,
        path: str | None,
        token: str | None,
        received: Callable[[bytes], None],
        lost: Callable[[str], None],
    ) -> None:
        """`path` is that of a Unix socket, if `url` names one."""
        uri = parse_uri((url if path is None else _HERE) + wire.PATH)
        self._client = ClientProtocol(uri, subprotocols=[Subprotocol(wire.SUBPROTOCOL)], max_size=None, logger=log)
        super().__init__(CLIENT, protocol=self._client)
        self._received = received
        self._lost = lost
        self._token = token
        self._other = _other(uri.secure, path)
        self._url = redact(url)
        self._head = b""  # of what the server says, until it is a whole handshake or too long to be one
        self._why = "the server closed the connection"
        self._over = False
        loop = asyncio.get_running_loop()
        self.open: asyncio.Future[None] = loop.create_future()
        self.closed: asyncio.Future[None] = loop.create_future()
        self.silent = 0  # heartbeats since the server was heard of

    # asyncio's side -----------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        request = self._client.connect()
        if self._token is not None:
            request.headers["Authorization"] = f"Bearer {self._token}"
        self._client.send_request(request)
        self.write()

    def connection_lost(self, error: Exception | None) -> None:
        if error is not None:
            self._why = _reason(error)
        if not self.closed.done():
            self.closed.set_result(None)
        self._end()

    def part_received(self, data: bytes) -> None:
        self.silent = 0
        if self.open.done():
            super().part_received(data)
        else:
            self._shake(data)
        if self.close_expected and not self._over:  # what came was none of the protocol
            self._why = str(self._client.handshake_exc or self._library.parser_exc or self._why)
            self.goodbye("")

    def _shake(self, data: bytes) -> None:
        """Pass on what belongs to the handshake, up to an empty line; messages may follow it at once."""
        before = max(0, len(self._head) - len(_HEAD_END) + 1)
        self._head += data
        end = self._head.find(_HEAD_END, before) + len(_HEAD_END)
        rest = self._head[end:] if end >= len(_HEAD_END) else b""
        self.handshake_received(data[: len(data) - len(rest)])
        if rest and self._client.state is OPEN:
            super().data_received(rest)
        elif rest:  # the body of a refusal
            self.handshake_received(rest)

    # Frames -------------------------------------------------------------------------------------------

    def opened(self, handshake: Response) -> None:
        if self.open.done():
            return
        if self._client.handshake_exc is None and self._client.subprotocol == wire.SUBPROTOCOL:
            self._protocol = None  # frames need none that has shaken hands
            self.open.set_result(None)
        else:
            self.open.set_exception(_refusal(self._url, handshake))

    def message(self, data: bytes) -> None:
        self.silent = 0
        if not self._over:
            self._received(data)

    def text(self) -> None:
        self.abort("it sent a text")

    def goodbye(self, reason: str) -> None:
        if reason and " " not in reason:  # a code
            reason = f"{self._why}, with the reason {reason!a}"
        self._why = reason or self._why
        self.write()
        self.transport.close()
        self._end()

    def _end(self) -> None:
        if not self.open.done():
            self.open.set_exception(_no_server(self._url, self._head[:_FIRST_BYTES], self._why, self._other))
        if not self._over:
            self._over = True
            if not self.open.cancelled() and self.open.exception() is None:
                self._lost(self._why)

    # The engine's side --------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `Unavailable` where it is over: a goodbye may come right behind the handshake."""
        if self._over:
            raise Unavailable(f"expected a server at hand, but {self._why}: try again")

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
        """Close at once, because the server does not answer, or not as it should."""
        self._why = why
        self.transport.abort()
        self._end()


async def connect(
    url: str, path: str | None, token: str | None, received: Callable[[bytes], None], lost: Callable[[str], None]
) -> WebSocketLink:
    """Connect and shake hands; `path` is that of a Unix socket, if `url` names one. Raise `Unavailable` where there is
    no server for now; `BadToken`, `NotAllowed` and `ProtocolError` where a server refuses this client, or is another
    kind of server."""
    try:
        async with asyncio.timeout(CONNECT_S):
            link = await _connected(url, path, lambda: WebSocketLink(url, path, token, received, lost))
            try:
                await link.open
                link.check()
            except BaseException:
                link.abort("it was given up")
                raise
    except TimeoutError:
        raise Unavailable(
            f"expected a server at {redact(url)}, got no answer within {CONNECT_S:g} s: is it another service's port, "
            "or does something on the way drop what is sent?"
        ) from None
    except OSError as error:
        raise _unreachable(url, path, error) from None
    return link


async def _connected(url: str, path: str | None, make: Callable[[], WebSocketLink]) -> WebSocketLink:
    loop = asyncio.get_running_loop()
    if path is not None:
        return (await loop.create_unix_connection(make, path))[1]
    uri = parse_uri(url)
    context = ssl.create_default_context() if uri.secure else None
    name = uri.host if uri.secure else None
    return (await loop.create_connection(make, uri.host, uri.port, ssl=context, server_hostname=name))[1]


def _reason(error: Exception) -> str:
    """Return the error in words, without the operating system's number for it."""
    if isinstance(error, OSError) and not isinstance(error, ssl.SSLError):
        return os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or str(error)
    return str(error)


def _unreachable(url: str, path: str | None, error: OSError) -> Unavailable:
    if isinstance(error, ssl.SSLCertVerificationError):
        return Unavailable(
            f"expected a certificate of {redact(url)} that is trusted here and has that name, got one that is not or "
            f"has not ({error.verify_message}): name its issuer's file with $SSL_CERT_FILE, or the server as it does"
        )
    if isinstance(error, ssl.SSLError):
        return Unavailable(f"expected TLS at {redact(url)}, got something else ({error.reason}): is it ws://?")
    reason = _reason(error)
    if path is not None and isinstance(error, PermissionError):
        return Unavailable(
            f"expected a server at {redact(url)} that this user may connect to, got {reason!r}: be the server's user, "
            "or start it with another --socket-mode, in a folder that you may enter"
        )
    if path is not None:
        if kind := _no_socket(path):
            return Unavailable(f"expected a server's socket at {redact(url)}, but there is a {kind}: name another")
        command = f"solarwind serve --socket {shlex.quote(path)}"
        return Unavailable(
            f"expected a server at {redact(url)}, got {reason!r}: start one with `{command}`, or name another"
        )
    port = "" if urlsplit(url).port else f" (port {parse_uri(url).port}, as the URL names none; 7400 is the usual one)"
    return Unavailable(
        f"expected a server at {redact(url)}{port}, got {reason!r}: start one with `solarwind serve`, or name another"
    )


def _no_socket(path: str) -> str:
    """Return what is at a path instead of a socket; empty where there is one, or nothing."""
    try:
        mode = os.stat(path).st_mode
    except OSError:
        return ""
    return "" if stat.S_ISSOCK(mode) else "folder" if stat.S_ISDIR(mode) else "file"


def _other(secure: bool, path: str | None) -> str:
    """Return what may be there instead of a server."""
    if path is not None:
        return "is it another service's socket?"
    return "is it another service's port" + ("?" if secure else ", or is it wss://?")


def _no_server(url: str, first: bytes, why: str, other: str) -> Unavailable:
    """Return the refusal for a peer that is no Solar Wind server, with what it said first; `other` may be there."""
    if not first:
        return Unavailable(f"expected a Solar Wind server at {url}, but {why}: {other}")
    if first.startswith(_TLS):
        return Unavailable(f"expected a Solar Wind server at {url}, got TLS: is it wss://?")
    line = plain(first.splitlines()[0].decode("utf-8", "replace"))
    return Unavailable(f"expected a Solar Wind server at {url}, got something else, which says {line!r}: {other}")


class _Problem(msgspec.Struct):
    detail: str


def _said(body: bytes, status: int) -> str:
    """Return what a Solar Wind server says, or else what may be there instead of one."""
    try:
        return plain(msgspec.json.decode(body, type=_Problem).detail)
    except msgspec.MsgspecError:
        pass
    if status == 101:
        return "another subprotocol"
    text = body.decode(errors="replace").strip()
    shown = f"{text}: " if text.isprintable() and 0 < len(text) <= _TEXT_BYTES and "<" not in text else ""
    if status >= 500:
        return f"{shown}it fails, or what is before it does not reach it: try again"
    return f"{shown}is it another web server, or is a part of its path missing?"


def _refusal(url: str, response: Response) -> SolarWindError:
    """Return the reason why there is no connection. A server that fails, or a proxy that does not find it, may come
    back."""
    status = response.status_code
    text = f"expected a server of {wire.SUBPROTOCOL} at {url}, got HTTP {status}: "
    text += _said(bytes(response.body or b""), status)
    if status >= 500 or status in (408, 429):
        return Unavailable(text)
    return {401: BadToken, 403: NotAllowed}.get(status, ProtocolError)(text)
