"""A message that is larger than NATS accepts is cut into pieces, stored whole or not at all, and joined again."""

from __future__ import annotations

from .session import Raw, Session, log

PIECE = "Solarwind-Piece"  # which of how many: "1/3"
MAX_PIECES = 1_000  # that JetStream stores together
HEADERS_BYTES = 2 << 10  # of a message, at most
Message = tuple[str, bytes, dict[str, str]]


def in_pieces(subject: str, data: bytes, headers: dict[str, str], room: int) -> list[Message]:
    """Return a message, or several if it has more than `room` bytes."""
    count = max(1, -(-len(data) // room))
    if count == 1:
        return [(subject, data, dict(headers))]
    return [(subject, data[at * room : (at + 1) * room], headers | {PIECE: f"{at + 1}/{count}"}) for at in range(count)]


def piece_of(raw: Raw) -> tuple[int, int] | None:
    """Return which piece of how many a message is; None if it is whole, or if Solar Wind did not write it."""
    at, _, count = raw.headers.get(PIECE, "").partition("/")
    if not (at.isdecimal() and count.isdecimal() and 1 <= int(at) <= int(count) <= MAX_PIECES):
        return None
    return int(at), int(count)


class Pieces:
    """Puts the messages of a stream together, given one after the other."""

    def __init__(self) -> None:
        self._pieces: list[Raw] = []

    def clear(self) -> None:
        self._pieces.clear()

    def add(self, raw: Raw) -> Raw | None:
        """Return the message; with the last piece of one, the whole of it, at the sequence of its first; else None."""
        piece, pieces = piece_of(raw), self._pieces
        if piece is None or piece[0] != len(pieces) + 1 or (pieces and pieces[0].subject != raw.subject):
            pieces.clear()  # of something that was deleted in part
        if piece is None:
            return raw
        at, count = piece
        if at != len(pieces) + 1:
            return None
        pieces.append(raw)
        if at != count:
            return None
        first = pieces[0]
        headers = {name: value for name, value in first.headers.items() if name != PIECE}
        whole = Raw(first.subject, first.seq, b"".join(each.data for each in pieces), headers, first.time)
        pieces.clear()
        return whole


def pass_over(raw: Raw, stream: str, error: object) -> None:
    """Log that a message is passed over: other users of NATS may write anything into our streams."""
    log.error("message %d of stream %s was not written by Solar Wind; it is skipped: %s", raw.seq, stream, error)


async def whole(session: Session, stream: str, raw: Raw) -> Raw | None:
    """Return the message of which `raw` is the last piece, or all."""
    piece = piece_of(raw)
    if piece is None:
        return raw
    pieces, found = Pieces(), None
    for seq in range(max(1, raw.seq - piece[1] + 1), raw.seq + 1):
        each = await session.next(stream, raw.subject, seq)
        found = pieces.add(each) if each is not None and each.seq == seq else None
    return found
