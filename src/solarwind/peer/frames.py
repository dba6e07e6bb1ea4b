"""What both ends of a WebSocket have in common: bytes come in and are messages, messages go out as bytes.

`websockets` handles the protocol; there is no task and no queue, so a message is handled in the turn of the loop in
which it came. Nearly every message comes alone and in one frame. Such messages, and those that are sent, have a short
path of their own: it is what a lone event costs, at both ends, and a connection on which nothing else comes has no
object of the library.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, SERVER, Protocol, Side

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

log = logging.getLogger("solarwind.websocket")
log.setLevel(logging.WARNING)

_MESSAGE = 0x82  # a frame's first byte: binary, and whole
_MASKED = 0x80  # of the second byte, which is else the length or how many bytes that has
_SHORT, _IN_TWO, _IN_EIGHT = 125, 126, 127
_HEAD_BYTES = 14  # of a frame, at most
_MASK_BYTES = 4
_DRAWN_BYTES = 128 * _MASK_BYTES  # of masks, which are drawn together: each by itself is a call of the system


class WebSocketProtocol(asyncio.Protocol):
    """One end of a WebSocket. A subclass handles the messages, and the handshake if `protocol` has yet to do it."""

    __slots__ = (
        *("_drawn", "_drawn_at", "_limit", "_masks", "_parts", "_protocol", "_unfinished", "max_bytes"),
        "transport",
    )

    def __init__(self, side: Side, limit: int | None = None, protocol: Protocol | None = None) -> None:
        """`limit` is the most bytes of a message that there may ever be. The library's `protocol` is made when first
        needed if the handshake is over."""
        self._limit = limit
        self._protocol = protocol
        self._parts: bytearray | None = None  # of a message that comes in several frames, any number of them empty
        self._unfinished = 0  # bytes that came of a frame that is not whole
        self.max_bytes: int | None = None  # of a message, for now
        self._masks = _MASKED if side is CLIENT else 0  # whether we do; the other side does if we do not
        self._drawn, self._drawn_at = b"", 0  # masks, and how many bytes of them are used up

    def opened(self, handshake: Any) -> None:
        """Handle the other side's part of the handshake."""
        raise NotImplementedError

    def message(self, data: bytes) -> None:
        """Handle a message."""
        raise NotImplementedError

    def text(self) -> None:
        """Refuse a text message."""
        raise NotImplementedError

    def goodbye(self, reason: str) -> None:
        """Handle the close of the other side."""
        raise NotImplementedError

    # In -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    @property
    def _library(self) -> Protocol:
        if self._protocol is None:
            self._protocol = Protocol(CLIENT if self._masks else SERVER, max_size=self._limit, logger=log)
        return self._protocol

    @property
    def close_expected(self) -> bool:
        """Whether the connection is to end soon by itself."""
        return self._protocol is not None and self._protocol.close_expected()

    def handshake_received(self, data: bytes) -> None:
        """Handle the bytes of the other side's handshake, exactly."""
        library = self._library
        library.receive_data(data)
        self._process_events()
        self.write_all(library.data_to_send())  # `opened` may have given it up by now

    def data_received(self, data: bytes) -> None:
        at, size = 0, len(data)
        while not self._unfinished and self._parts is None:
            found = self._message_at(at, data, size)
            if found is None:
                break
            message, at = found
            self.message(message)
            if at == size:
                return
        self.part_received(data[at:] if at else data)

    def part_received(self, data: bytes) -> None:
        """Handle bytes that are no whole message in one frame."""
        self._unfinished += len(data)
        self._library.receive_data(data)
        self._process_events()
        if self.max_bytes is not None and self.unfinished_bytes > self.max_bytes + _HEAD_BYTES:
            self._refuse_large()
        self.write()

    @property
    def unfinished_bytes(self) -> int:
        """The bytes kept of an incomplete message."""
        return self._unfinished + len(self._parts or b"")

    def _refuse_large(self) -> None:
        if self._library.state is OPEN:
            self._library.fail(CloseCode.MESSAGE_TOO_BIG, f"expected a message of at most {self.max_bytes:,} bytes")
        self._parts, self._unfinished = None, 0

    def _message_at(self, at: int, data: bytes, size: int) -> tuple[bytes, int] | None:
        """Return the message that begins here and its end, if it is one complete and valid frame. `size` is that of the
        data."""
        if size - at < 2 or data[at] != _MESSAGE or (self._protocol is not None and self._protocol.state is not OPEN):
            return None
        length, start = data[at + 1] ^ self._masks ^ _MASKED, at + 2
        if length == _IN_TWO:
            length, start = int.from_bytes(data[start : start + 2]), start + 2
        elif length == _IN_EIGHT:
            length, start = int.from_bytes(data[start : start + 8]), start + 8
        elif length > _SHORT:
            return None
        mask = b""
        if not self._masks:
            mask, start = data[start : start + 4], start + 4
        end = start + length
        if end > size or (self.max_bytes is not None and length > self.max_bytes):
            return None
        message = data[start:end]
        return apply_mask(message, mask) if mask else message, end

    def eof_received(self) -> None:
        self._library.receive_eof()
        self._process_events()

    def _process_events(self) -> None:
        for event in self._library.events_received():
            if isinstance(event, Frame):
                self._unfinished -= self._size(len(event.data))
                self._frame(event)
            else:
                self.opened(event)

    def _size(self, length: int) -> int:
        """Return the bytes of a frame of the other side. A frame that states its length in more bytes than needed
        leaves a rest, and then no later frame takes the short path."""
        return length + (2 if self._masks else 6) + (0 if length <= _SHORT else 2 if length < 1 << 16 else 8)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            if frame.fin:
                self._whole(bytes(frame.data))
            else:
                self._parts = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._parts is not None:
            self._parts += frame.data
            if frame.fin:
                data, self._parts = bytes(self._parts), None
                self._whole(data)
        elif frame.opcode is Opcode.TEXT:
            self.text()
        elif frame.opcode is Opcode.CLOSE:
            self.goodbye(Close.parse(frame.data).reason)

    def _whole(self, data: bytes) -> None:
        if self.max_bytes is not None and len(data) > self.max_bytes:
            self._refuse_large()
        else:
            self.message(data)

    # Out ----------------------------------------------------------------------------------------------

    def send(self, data: bytes) -> None:
        if self._protocol is not None and self._protocol.state is not OPEN:  # it is closing
            return
        length, masks = len(data), self._masks
        if length <= _SHORT:
            head = bytes((_MESSAGE, masks | length))
        elif length < 1 << 16:
            head = bytes((_MESSAGE, masks | _IN_TWO)) + length.to_bytes(2)
        else:
            head = bytes((_MESSAGE, masks | _IN_EIGHT)) + length.to_bytes(8)
        if masks:
            at = self._drawn_at
            if at == len(self._drawn):
                self._drawn, at = os.urandom(_DRAWN_BYTES), 0
            self._drawn_at = at + _MASK_BYTES
            mask = self._drawn[at : self._drawn_at]
            self.transport.write(head + mask + apply_mask(data, mask))
        else:
            self.transport.write(head + data)

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """Close, after what was sent."""
        try:
            self._library.send_close(code, reason)
        except InvalidState:
            pass
        self.write()

    def write(self) -> None:
        """Send what the library has to send."""
        self.write_all(self._library.data_to_send())

    def write_all(self, writes: Iterable[bytes]) -> None:
        for data in writes:
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()
            else:  # TLS has no end of one direction
                self.transport.close()
