"""WebSocket messages, from bytes and to bytes: the short way of a whole message gives what the library gives."""

from __future__ import annotations

import gc
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.protocol import CLIENT, SERVER, Protocol, Side

from solarwind.peer.frames import WebSocketProtocol

SIZES = st.sampled_from([0, 1, 4, 5, 124, 125, 126, 127, 128, 65_535, 65_536, 70_000])


class Wire:
    """A transport that keeps what is written."""

    def __init__(self) -> None:
        self.written = b""

    def write(self, data: bytes) -> None:
        self.written += data

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        """End this direction."""


class End(WebSocketProtocol):
    """Keeps what comes."""

    def __init__(self, side: Side) -> None:
        super().__init__(side)
        self.came: list[object] = []
        self.transport = Wire()  # type: ignore[assignment]

    def opened(self, handshake: Any) -> None:
        raise AssertionError("it was opened already")

    def message(self, data: bytes) -> None:
        self.came.append(data)

    def text(self) -> None:
        self.came.append("text")

    def goodbye(self, reason: str) -> None:
        self.came.append("goodbye")


def end(side: Side, most: int | None = None) -> End:
    """Return an end that has shaken hands."""
    made = End(side)
    made.max_bytes = most
    return made


def frames(side: Side, parts: list[tuple[Opcode, bytes, bool]]) -> bytes:
    """Return frames as the library writes them."""
    return b"".join(Frame(code, data, fin).serialize(mask=side is CLIENT) for code, data, fin in parts)


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(sizes=st.lists(SIZES, min_size=1, max_size=4), cuts=st.lists(st.integers(1, 300) | st.integers(1, 70_020)))
def test_what_one_end_sends_comes_to_the_other_however_it_is_cut(
    sender: Side, sizes: list[int], cuts: list[int]
) -> None:
    one, other = end(sender), end(SERVER if sender is CLIENT else CLIENT)
    sent = [bytes([size % 251]) * size for size in sizes]
    for message in sent:
        one.send(message)
    written = one.transport.written  # type: ignore[attr-defined]
    for cut in [*cuts, len(written)]:
        if written:
            other.data_received(written[:cut])
            written = written[cut:]
    assert other.came == sent


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
@settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(size=SIZES)
def test_a_message_that_comes_alone_is_read_as_the_library_wrote_it(sender: Side, size: int) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    for _ in range(3):
        other.data_received(frames(sender, [(Opcode.BINARY, b"x" * size, True)]))
    assert other.came == [b"x" * size] * 3


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_an_end_to_which_only_whole_messages_came_holds_no_object_of_the_library(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    sent = [b"x" * size for size in (0, 1, 125, 126, 70_000)]
    other.data_received(frames(sender, [(Opcode.BINARY, data, True) for data in sent]))
    other.send(b"answer")
    assert other.came == sent
    assert not [each for each in gc.get_referents(other) if isinstance(each, Protocol)]


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_a_message_in_the_middle_of_another_is_refused(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    other.data_received(frames(sender, [(Opcode.BINARY, b"whole", True)]))
    other.data_received(frames(sender, [(Opcode.BINARY, b"begun", False)]))
    other.data_received(frames(sender, [(Opcode.BINARY, b"intruder", True)]))
    assert other.came == [b"whole"]


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_parts_and_pings_between_them_are_put_together(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    for part in [
        (Opcode.BINARY, b"whole", True),
        (Opcode.BINARY, b"in ", False),
        (Opcode.PING, b"?", True),
        (Opcode.CONT, b"parts", True),
        (Opcode.BINARY, b"whole", True),
    ]:
        other.data_received(frames(sender, [part]))
    assert other.came == [b"whole", b"in parts", b"whole"]
    assert other.transport.written[:1] == b"\x8a", "the ping was answered"  # type: ignore[attr-defined]


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_a_frame_above_the_limit_is_refused(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT, most=100)
    other.data_received(frames(sender, [(Opcode.BINARY, b"x" * 100, True)]))
    other.data_received(frames(sender, [(Opcode.BINARY, b"x" * 101, True)]))
    assert other.came == [b"x" * 100]
    assert other.transport.written[:1] == b"\x88", "it said goodbye"  # type: ignore[attr-defined]


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_a_mask_where_there_must_be_none_and_the_other_way_round_is_refused(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    other.data_received(frames(sender, [(Opcode.BINARY, b"good", True)]))
    wrong = SERVER if sender is CLIENT else CLIENT
    other.data_received(frames(wrong, [(Opcode.BINARY, b"wrongly masked", True)]))
    assert other.came == [b"good"]


@pytest.mark.parametrize("sender", [CLIENT, SERVER])
def test_after_the_goodbye_nothing_is_sent_or_read(sender: Side) -> None:
    other = end(SERVER if sender is CLIENT else CLIENT)
    other.say_goodbye(1000)
    written = other.transport.written  # type: ignore[attr-defined]
    other.send(b"late")
    assert other.transport.written == written  # type: ignore[attr-defined]
