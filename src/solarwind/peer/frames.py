"""What both ends of a WebSocket have in common: bytes come in and are messages, messages go out as bytes.

`websockets` handles the protocol; there is no task and no queue, so a message is handled in the turn of the loop in
which it came. Nearly every message comes alone and in one frame. Such messages, and those that are sent, have a short
path of their own: it is what a lone event costs, at both ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Iterable
from typing import Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Close, CloseCode, Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol

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


class WebSocketProtocol(asyncio.Protocol):
    """One end of a WebSocket. A subclass handles the handshake and the messages."""

    __slots__ = ("_masks", "_parts", "_protocol", "_unfinished", "max_bytes", "transport")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._parts: bytearray | None = None  # of a message that comes in several frames, any number of them empty
        self._unfinished = 0  # bytes that came of a frame that is not whole
        self.max_bytes: int | None = None  # of a message; the library's own limit may be larger
        self._masks = _MASKED if protocol.side is CLIENT else 0  # whether we do; the other side does if we do not

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

    def handshake_received(self, data: bytes) -> None:
        """Handle the bytes of the other side's handshake, exactly."""
        self._protocol.receive_data(data)
        self._process_events()
        self.write()

    def data_received(self, data: bytes) -> None:
        if not self._unfinished and self._parts is None and data[0] == _MESSAGE:
            message = self._alone(data)
            if message is not None:
                self.message(message)
                return
        self._unfinished += len(data)
        self._protocol.receive_data(data)
        self._process_events()
        if self.max_bytes is not None and self.unfinished_bytes > self.max_bytes + _HEAD_BYTES:
            self._refuse_large()
        self.write()

    @property
    def unfinished_bytes(self) -> int:
        """The bytes kept of an incomplete message."""
        return self._unfinished + len(self._parts or b"")

    def _refuse_large(self) -> None:
        if self._protocol.state is OPEN:
            self._protocol.fail(CloseCode.MESSAGE_TOO_BIG, f"expected a message of at most {self.max_bytes:,} bytes")
        self._parts, self._unfinished = None, 0

    def _alone(self, data: bytes) -> bytes | None:
        """Return the message, if the data is exactly one complete and valid frame."""
        if self._protocol.state is not OPEN or len(data) < 8:
            return None
        length, at = data[1] ^ self._masks ^ _MASKED, 2
        if length == _IN_TWO:
            length, at = int.from_bytes(data[2:4]), 4
        elif length == _IN_EIGHT:
            length, at = int.from_bytes(data[2:10]), 10
        elif length > _SHORT:
            return None
        start = at if self._masks else at + 4
        if start + length != len(data) or (self.max_bytes is not None and length > self.max_bytes):
            return None
        return data[start:] if self._masks else apply_mask(data[start:], data[at:start])

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._process_events()

    def _process_events(self) -> None:
        for event in self._protocol.events_received():
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
        if self._protocol.state is not OPEN:  # it is closing
            return
        length, masks = len(data), self._masks
        if length <= _SHORT:
            head = bytes((_MESSAGE, masks | length))
        elif length < 1 << 16:
            head = bytes((_MESSAGE, masks | _IN_TWO)) + length.to_bytes(2)
        else:
            head = bytes((_MESSAGE, masks | _IN_EIGHT)) + length.to_bytes(8)
        if masks:
            mask = os.urandom(4)
            self.transport.write(head + mask + apply_mask(data, mask))
        else:
            self.transport.write(head + data)

    def say_goodbye(self, code: int, reason: str = "") -> None:
        """Close, after what was sent."""
        try:
            self._protocol.send_close(code, reason)
        except InvalidState:
            pass
        self.write()

    def write(self) -> None:
        """Send what the library has to send."""
        self.write_all(self._protocol.data_to_send())

    def write_all(self, writes: Iterable[bytes]) -> None:
        for data in writes:
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()
            else:  # TLS has no end of one direction
                self.transport.close()
