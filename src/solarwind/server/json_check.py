"""Checks that JSON from clients is valid and not too deeply nested, before it is decoded.

No objects are built: empty arrays need thirty times their bytes as objects. A long text is checked in pieces, so that
it does not hold up the loop.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from itertools import accumulate

import msgspec

from ..errors import BadPayload, TooLarge
from ..payload import check_grammar, json_fault
from ..peer.time_slices import PIECE_BYTES, TimeSlices

_TOKEN = re.compile(rb"[\[{\]},]")
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_STEPS = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")
_DEEPER = {b"[": 1, b"{": 1, b"]": -1, b"}": -1}


def check_json(data: bytes, max_nesting: int, what: str = "JSON") -> None:
    """Raise `BadPayload` for invalid JSON, `TooLarge` for arrays and objects nested too deeply.

    It runs in one go: use it for short texts, or after a `Shape` was made.
    """
    _refuse_other(data, max_nesting, what)
    if data.count(b"[") + data.count(b"{") > max_nesting:
        for _ in Shape(max_nesting).read(data):
            pass


async def check_long_json(
    data: bytes, max_nesting: int, slices: TimeSlices, what: str = "JSON", max_values: int | None = None
) -> None:
    """Do the same in pieces, for a text that may be long. Raise `TooLarge` also for more than about `max_values`
    values."""
    if len(data) <= PIECE_BYTES:
        return check_json(data, max_nesting, what)
    await Shape(max_nesting, max_values).read_slowly(data, slices)
    await slices.next()
    with slices.piece():
        return _refuse_other(data, max_nesting, what)


def _refuse_other(data: bytes, max_nesting: int, what: str) -> None:
    try:
        check_grammar(data)
    except RecursionError:
        raise _too_deep(max_nesting) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadPayload(json_fault(bytes(data), error, what)) from None


class Shape:
    """The positions of brackets and commas in a JSON text. The text need not be valid."""

    def __init__(self, max_nesting: int, max_values: int | None = None, max_items: int | None = None) -> None:
        self._max_nesting = max_nesting
        self._max_values = max_values
        self._max_items = max_items
        self.values = 1  # about
        self.cuts: list[int] = []  # the commas of the outermost array, where `max_items` is given
        self._depth = 0
        self._in_string = False

    async def read_slowly(self, data: bytes, slices: TimeSlices) -> Shape:
        """Return the shape, computed in pieces. Raise `TooLarge`."""
        pieces = self.read(data)
        more = True
        while more:
            await slices.next()
            with slices.piece():
                more = next(pieces, False)
        return self

    def read(self, data: bytes) -> Iterator[bool]:
        """Compute the shape, and yield True after each piece. Raise `TooLarge`."""
        at = 0
        while at < len(data):
            at = self._read_piece(data, at, at + PIECE_BYTES // 4)
            yield True

    def _read_piece(self, data: bytes, start: int, stop: int) -> int:
        """Read a piece and return where it ended."""
        chunk = data[start:stop]
        if b"\\" in chunk:
            if (len(chunk) - len(chunk.rstrip(b"\\"))) % 2 and stop < len(data):  # the escaped character comes next
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

    def _cut(self, texts: list[bytes], inside: bool, at: int, maximum: int) -> None:
        """Note the commas of the outermost array. Every other text, from the first or second on, is inside a string."""
        depth = self._depth
        for text in texts:
            for token in () if inside else _TOKEN.finditer(text):
                if token[0] != b",":
                    depth += _DEEPER[token[0]]
                elif depth == 1:
                    self.cuts.append(at + token.start())
                    if len(self.cuts) >= maximum:
                        raise TooLarge(f"expected an array of at most {maximum:,}, got a longer one: send several")
            inside, at = not inside, at + len(text) + 1


def _too_deep(maximum: int) -> TooLarge:
    return TooLarge(f"expected JSON nested at most {maximum} deep, got it deeper: send it flatter")
