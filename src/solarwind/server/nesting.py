"""JSON that somebody sent, looked at before anything else is done with it: that it is JSON, and how deep it is.

Nothing is built of it: arrays of nothing take thirty times their bytes as objects. What is long is looked at in pieces,
so that nobody waits for it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from ..errors import BadPayload, TooLarge
from ..payload import check_grammar, json_fault
from ..peer.turns import PIECE_BYTES, Turns

_TOKEN = re.compile(rb"[\[{\]},]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def check_json(data: bytes, max_nesting: int, what: str = "JSON") -> None:
    """Raises `BadPayload` for what is not JSON, `TooLarge` for arrays and objects deeper within each other.

    In one go: for what is short, or of which a `Shape` was made before."""
    _refuse_other(data, max_nesting, what)
    if data.count(b"[") + data.count(b"{") > max_nesting:
        for _ in Shape(max_nesting).read(data):
            pass


async def check_long_json(
    data: bytes, max_nesting: int, turns: Turns, what: str = "JSON", max_values: int | None = None
) -> None:
    """The same, in pieces, for what may be long. Raises `TooLarge`, too, for more than about `max_values` values."""
    if len(data) <= PIECE_BYTES:
        return check_json(data, max_nesting, what)
    await Shape(max_nesting, max_values).read_slowly(data, turns)
    await turns.next()
    with turns.piece():
        return _refuse_other(data, max_nesting, what)


def _refuse_other(data: bytes, max_nesting: int, what: str) -> None:
    try:
        check_grammar(data)
    except RecursionError:
        raise _too_deep(max_nesting) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadPayload(json_fault(bytes(data), error, what)) from None


class Shape:
    """Where a text of JSON has its brackets and commas. Of what is no JSON nothing is said."""

    def __init__(self, max_nesting: int, max_values: int | None = None, max_items: int | None = None) -> None:
        self._max_nesting = max_nesting
        self._max_values = max_values
        self._max_items = max_items
        self.values = 1  # about
        self.cuts: list[int] = []  # the commas of the outermost array, where `max_items` is given
        self._depth = 0
        self._in_string = False

    async def read_slowly(self, data: bytes, turns: Turns) -> Shape:
        """Raises `TooLarge`."""
        pieces = self.read(data)
        more = True
        while more:
            await turns.next()
            with turns.piece():
                more = next(pieces, False)
        return self

    def read(self, data: bytes) -> Iterator[bool]:
        """Gives True after each piece of it. Raises `TooLarge`."""
        at = 0
        while at < len(data):
            at = self._read_piece(data, at, at + PIECE_BYTES // 4)
            yield True

    def _read_piece(self, data: bytes, start: int, stop: int) -> int:
        """Gives how far it came."""
        chunk = data[start:stop]
        if b"\\" in chunk:
            if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and stop < len(data):  # what it escapes comes next
                chunk, stop = chunk[:-1], stop - 1
            chunk = chunk.replace(b"\\\\", b"__").replace(b'\\"', b"__")
        texts = chunk.split(b'"')
        inside, self._in_string = self._in_string, self._in_string != (len(texts) % 2 == 0)
        rest = b"".join(texts[inside::2])
        steps = memoryview(rest.translate(_STEPS, _OTHERS)).cast("b")
        depths = list(accumulate(steps, initial=self._depth))
        if max(depths) > self._max_nesting:
            raise _too_deep(self._max_nesting)
        self.values += rest.count(b",") + len(depths) // 2
        if self._max_values is not None and self.values > self._max_values:
            raise TooLarge(f"expected JSON of at most {self._max_values:,} values, got more: send several requests")
        if self._max_items is not None and min(depths) <= 1:
            self._cut(texts, inside, start, self._max_items)
        self._depth = depths[-1]
        return stop

    def _cut(self, texts: list[bytes], inside: bool, at: int, most: int) -> None:
        """Note the commas of the outermost array. Every other text, from the first or second on, is one of a string."""
        depth = self._depth
        for text in texts:
            for token in () if inside else _TOKEN.finditer(text):
                if token[0] != b",":
                    depth += _DEEPER[token[0]]
                elif depth == 1:
                    self.cuts.append(at + token.start())
                    if len(self.cuts) >= most:
                        raise TooLarge(f"expected an array of at most {most:,}, got a longer one: send several")
            inside, at = not inside, at + len(text) + 1


def _too_deep(most: int) -> TooLarge:
    return TooLarge(f"expected JSON nested at most {most} deep, got it deeper: send it flatter")
