"""What both ends of a WebSocket have in common: bytes come in and are messages, messages go out as bytes.

`websockets` does the protocol; there is no task and no queue, so a message is handled in the turn of the loop in which
it came. What nearly everything is, a message in one frame that comes alone, and one that goes out, has a short way of
its own: it is what a lone event costs, at both ends.
"""

from __future__ import annotations

import asyncio
import logging
import os
from typing import Any, cast

from websockets.exceptions import InvalidState
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, OPEN, Protocol
from websockets.streams import StreamReader

try:
    from websockets.speedups import apply_mask
except ImportError:
    from websockets.utils import apply_mask

log = logging.getLogger("solarwind.websocket")
log.setLevel(logging.WARNING)

_MESSAGE = 0x82  # a frame's first byte: binary, and whole
_MASKED = 0x80  # of the second byte, which is else the length or how many bytes that has
_SHORT, _IN_TWO, _IN_EIGHT = 125, 126, 127
_BETWEEN_FRAMES = StreamReader.at_eof.__code__  # where the parser waits then


class Endpoint(asyncio.Protocol):
    """One end. A subclass says what becomes of the handshake and of messages."""

    __slots__ = ("_between", "_masks", "_parts", "_protocol", "transport")

    def __init__(self, protocol: Protocol) -> None:
        self._protocol = protocol
        self._parts: bytearray | None = None  # of a message that comes in several frames, any number of them empty
        self._between = False  # what came so far ended with a message
        self._masks = _MASKED if protocol.side is CLIENT else 0  # whether we do; the other side does if we do not

    def opened(self, handshake: Any) -> None:
        """The other side's part of the handshake came."""
        raise NotImplementedError

    def message(self, data: bytes) -> None:
        """A message came."""
        raise NotImplementedError

    def text(self) -> None:
        """A text came, which is none of ours."""
        raise NotImplementedError

    def goodbye(self) -> None:
        """The other side closes."""
        raise NotImplementedError

    # In -----------------------------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        if self._between and data[0] == _MESSAGE:
            message = self._alone(data)
            if message is not None:
                self.message(message)
                return
        self._protocol.receive_data(data)
        self._take_events()
        self._write()
        self._between = self._parts is None and self._waits_for_frame()

    def _waits_for_frame(self) -> bool:
        waits: Any = self._protocol.parser
        while waits is not None:
            if waits.gi_code is _BETWEEN_FRAMES:
                return True
            waits = waits.gi_yieldfrom
        return False

    def _alone(self, data: bytes) -> bytes | None:
        """The message, if just one frame came, all of it, and nothing is wrong with it."""
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
        most = self._protocol.max_message_size
        if start + length != len(data) or (most is not None and length > most):
            return None
        return data[start:] if self._masks else apply_mask(data[start:], data[at:start])

    def eof_received(self) -> None:
        self._protocol.receive_eof()
        self._take_events()

    def _take_events(self) -> None:
        for event in self._protocol.events_received():
            if isinstance(event, Frame):
                self._frame(event)
            else:
                self.opened(event)

    def _frame(self, frame: Frame) -> None:
        if frame.opcode is Opcode.BINARY:
            if frame.fin:
                self.message(bytes(frame.data))
            else:
                self._parts = bytearray(frame.data)
        elif frame.opcode is Opcode.CONT and self._parts is not None:
            self._parts += frame.data
            if frame.fin:
                data, self._parts = bytes(self._parts), None
                self.message(data)
        elif frame.opcode is Opcode.TEXT:
            self.text()
        elif frame.opcode is Opcode.CLOSE:
            self.goodbye()

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
        self._write()

    def _write(self) -> None:
        for data in self._protocol.data_to_send():
            if data:
                self.transport.write(data)
            elif self.transport.can_write_eof():
                self.transport.write_eof()
            else:  # TLS has no end of one direction
                self.transport.close()
