"""TLS with certificates from files, and cheap connections.

asyncio's own TLS reserves 256 KiB for each connection. Here all connections read into one shared buffer, which is
decrypted at once, so that a connection costs only what OpenSSL needs for it.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import Callable
from typing import Any

from ..errors import BadArgument
from ..names import check_path
from .refusal import refusal

BUFFER_BYTES = 64 << 10  # read, or encrypted, together
LAST_WORDS_S = 1.0  # for a refused client to read why
_PART_BYTES = 4 << 10  # decrypted together
_MAX_HELLO = 16 << 10  # bytes of a client's first message: OpenSSL allocates the length it states, up to 128 KiB
_HEAD = 9  # bytes: of a record, and of the message in it
_MAX_RECORD = 5 + (16 << 10) + 2_048  # bytes, with its head
_CHANGE_CIPHER = 20
# The random of a HelloRetryRequest: RFC 8446, 4.1.3.
_HELLO_RETRY = bytes.fromhex("cf21ad74e59a6111be1d8c021e65b891c2a211167abb8c5e079e09e2c8a8339c")
_HANDSHAKE, _CLIENT_HELLO = 22, 1  # what the first bytes of the two are
# Of TLS 1.2, with forward secrecy and authenticated encryption; those of TLS 1.3 all are so.
_CIPHERS = "ECDHE+AESGCM:ECDHE+CHACHA20"


# --- certificates -----------------------------------------------------------------------------------------------


def tls_context(certificate: str, key: str | None) -> ssl.SSLContext:
    """Return a context for TLS 1.2 or newer with this certificate. Raise `BadArgument` where the files are invalid."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers(_CIPHERS)
    context.options |= ssl.OP_NO_RENEGOTIATION
    load_certificate(context, certificate, key)
    return context


def load_certificate(context: ssl.SSLContext, certificate: str, key: str | None) -> None:
    """Load the certificate into the context, also again after the files have changed: new connections use it. Raise
    `BadArgument`; then the context is unchanged."""
    for path in (certificate, key or certificate):
        if not os.access(check_path(path), os.R_OK) or not os.path.isfile(path):
            raise BadArgument(f"expected a certificate and its key as PEM files, but {path} cannot be read")
    for each in (ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), context):  # one that it fails with can be thrown away
        try:
            each.load_cert_chain(certificate, key, password=lambda: b"")  # never asked for on a terminal
        except (ssl.SSLError, OSError, ValueError) as error:
            reason = getattr(error, "reason", None) or error
            raise BadArgument(
                f"expected a certificate and its key, not encrypted, as PEM files, got {certificate} and "
                f"{key or certificate}: {reason}"
            ) from None


# --- connections ------------------------------------------------------------------------------------------------


class Tls(asyncio.Transport, asyncio.BufferedProtocol):
    """A TLS layer: a protocol to the socket and, after the handshake, a transport to the protocol above."""

    def __init__(
        self,
        context: ssl.SSLContext,
        buffer: memoryview,
        protocol: asyncio.Protocol,
        connections: set[Any],
        handshake_s: float,
        failed: Callable[[], None],
    ) -> None:
        """`buffer` is shared by all connections. It is one of the `connections` until `protocol` is; where it is lost
        before, `failed` is called."""
        super().__init__()
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._context = context
        self._buffer = buffer
        self._protocol: Any = protocol
        self._connections = connections
        self._handshake_s = handshake_s
        self._failed = failed
        self._socket: asyncio.Transport = None  # type: ignore[assignment]
        self._early = bytearray()  # part of a record, during the handshake
        self._awaits_hello = True  # the next message must be one
        self._again = False  # after a HelloRetryRequest
        self._open = False  # the handshake is complete
        self._over = False  # the peer has sent close_notify
        self._closing = False

    # The socket's side --------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._socket = transport
        self._connections.add(self)
        self._timer = asyncio.get_running_loop().call_later(self._handshake_s, self.abort)

    def connection_lost(self, error: Exception | None) -> None:
        self._closing = True
        if self._open:
            self._protocol.connection_lost(error)
        else:
            self._leave()
            self._failed()

    def _leave(self) -> None:
        self._timer.cancel()
        self._connections.discard(self)

    @property
    def transport(self) -> asyncio.Transport | None:
        """The transport of the protocol above, after the handshake."""
        return self if self._socket else None

    def shutdown(self) -> None:
        """Close it: the server stops, and no request has come."""
        self.abort()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        data: bytes | memoryview = self._buffer[:nbytes]
        found: list[bytes] = []
        if not self._open:
            self._early += data
            self._shake(found)
            data = bytes(self._early) if self._open else b""
            if self._open:
                self._early.clear()
        for at in range(0, len(data), _PART_BYTES):
            if self._closing or self._over:
                break
            self._incoming.write(data[at : at + _PART_BYTES])
            self._decrypt(found)
        self._flush()
        if found:
            self._protocol.data_received(b"".join(found))
        if self._over and not self._closing:
            self._protocol.eof_received()
            self.close()

    def _shake(self, found: list[bytes]) -> None:
        """Pass records to OpenSSL one by one, so that each hello is checked before."""
        early = self._early
        while len(early) >= _HEAD - 4 and not (self._open or self._closing or self._over):
            length = _HEAD - 4 + int.from_bytes(early[3:5], "big")
            # Between the two hellos a dummy change_cipher_spec record may come.
            if self._awaits_hello and not (self._again and early[0] == _CHANGE_CIPHER):
                if len(early) < _HEAD:
                    return
                if not _is_hello(early):
                    self._refuse(bytes(early))
                    return
                self._awaits_hello = length > len(early)  # looked at again when it is whole
            if length > _MAX_RECORD:
                self._refuse(bytes(early))
                return
            if len(early) < length:
                return
            self._incoming.write(early[:length])
            del early[:length]
            self._decrypt(found)
            self._flush()

    def _decrypt(self, found: list[bytes]) -> None:
        try:
            if not self._open:
                self._tls.do_handshake()
                self._leave()
                self._open = True
                self._protocol.connection_made(self)
            while data := self._tls.read(BUFFER_BYTES):
                found.append(data)
            self._over = True
        except ssl.SSLWantReadError:
            pass
        except ssl.SSLError:  # its alert for the peer is in the outgoing bytes
            self._flush()
            self._closing = True
            self._socket.close()

    def _refuse(self, data: bytes | memoryview) -> None:
        """Refuse input that is no TLS. A client that speaks HTTP gets an answer, and a moment to read it."""
        self._closing = True
        if not bytes(data[:_HEAD]).isascii() or not bytes(data[:1]).isupper():
            self._socket.close()
            return
        self._socket.write(refusal(400, "protocol", "expected TLS, got a plain request: ask with https or wss"))
        self._socket.write_eof()
        self._timer.cancel()
        self._timer = asyncio.get_running_loop().call_later(LAST_WORDS_S, self.abort)

    def eof_received(self) -> None:
        """End the connection, because the socket was closed."""
        if self._open:
            self._protocol.eof_received()

    def pause_writing(self) -> None:
        if self._open:
            self._protocol.pause_writing()

    def resume_writing(self) -> None:
        if self._open:
            self._protocol.resume_writing()

    # The protocol's side ------------------------------------------------------------------------------

    def write(self, data: bytes | bytearray | memoryview) -> None:
        view, at = memoryview(data), 0
        try:
            while at < len(view) and not self.is_closing():
                at += self._tls.write(view[at : at + BUFFER_BYTES])
                if self._outgoing.pending >= BUFFER_BYTES:
                    self._flush()
        except ssl.SSLError:
            self.abort()
        self._flush()

    def _flush(self) -> None:
        if self._outgoing.pending:
            data = self._outgoing.read()
            if not self._open and data[11:43] == _HELLO_RETRY:
                self._awaits_hello = self._again = True
            self._socket.write(data)

    def close(self) -> None:
        """Send close_notify, and close once it is sent; the peer need not answer."""
        if self._closing:
            return
        self._closing = True
        try:
            self._tls.unwrap()
        except ssl.SSLError:
            pass
        self._flush()
        self._socket.close()

    def abort(self) -> None:
        self._closing = True
        self._socket.abort()

    def is_closing(self) -> bool:
        return self._closing or self._socket.is_closing()

    def is_reading(self) -> bool:
        return self._socket.is_reading()

    def pause_reading(self) -> None:
        self._socket.pause_reading()

    def resume_reading(self) -> None:
        self._socket.resume_reading()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._socket.set_write_buffer_limits(high, low)

    def get_write_buffer_size(self) -> int:
        return self._socket.get_write_buffer_size()

    def can_write_eof(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        own = {"sslcontext": self._context, "ssl_object": self._tls}
        return own[name] if name in own else self._socket.get_extra_info(name, default)

    def set_protocol(self, protocol: asyncio.BaseProtocol) -> None:
        self._protocol = protocol

    def get_protocol(self) -> asyncio.BaseProtocol:
        protocol: asyncio.BaseProtocol = self._protocol
        return protocol


def _is_hello(data: bytes | bytearray) -> bool:
    """Return whether it begins a TLS handshake message of acceptable length. It need not be complete."""
    record, length = int.from_bytes(data[3:5], "big"), int.from_bytes(data[6:_HEAD], "big")
    return data[0] == _HANDSHAKE and data[5] == _CLIENT_HELLO and record > _HEAD - 5 and length <= _MAX_HELLO
