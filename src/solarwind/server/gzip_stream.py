"""gzip for streams whose readers get the same texts: each is compressed once, and the same bytes go to all of them.

A text becomes raw deflate that refers to nothing before it and ends with a whole byte. So the stream of a reader is the
header of gzip, any such pieces, and the trailer. The trailer's CRC is put together from those of the pieces, because to
read all text again for each reader would cost more than to write it.
"""

from __future__ import annotations

import asyncio
import struct
import zlib
from functools import lru_cache
from typing import NamedTuple

_HEADER = b"\x1f\x8b\x08\0\0\0\0\0\0\xff"
_LAST_BLOCK = b"\x03\0"  # an empty one
_LEVEL = 4  # a step more costs a third more time, and saves a few hundredths of the bytes
_AT_ONCE_BYTES = 8 << 10  # are compressed without a thread
_POLYNOMIAL = 0xEDB88320  # of the CRC; here and below the highest bit is x⁰
_ONE = 1 << 31
_KNOWN = 1 << 12  # products: readers that began together have the same CRC, and powers are those of a length's bits


class _Packed(NamedTuple):
    data: bytes
    crc: int
    size: int  # of the text
    shift: int  # what the CRC of the text before it is multiplied by


class Piece:
    """A text that many readers get."""

    __slots__ = ("_lock", "_packed", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._packed: _Packed | None = None
        self._lock: asyncio.Lock | None = None  # of compressing it in a thread

    async def packed(self) -> _Packed:
        """Return it compressed, which is done once."""
        if self._packed is None and len(self.text) <= _AT_ONCE_BYTES:
            self._packed = _pack(self.text)
        elif self._packed is None:
            self._lock = self._lock or asyncio.Lock()
            async with self._lock:
                if self._packed is None:
                    self._packed = await asyncio.to_thread(_pack, self.text)
        return self._packed


class GzipStream:
    """The stream of one reader."""

    def __init__(self) -> None:
        self._crc = 0
        self._size = 0

    async def next(self, piece: Piece) -> bytes:
        """Return the bytes of a piece that follows the former ones."""
        data, crc, size, shift = await piece.packed()
        if not self._size:
            data = _HEADER + data
        self._crc = _times(shift, self._crc) ^ crc
        self._size += size
        return data

    def end(self) -> bytes:
        """Return the bytes of the end, after at least one piece."""
        return _LAST_BLOCK + struct.pack("<LL", self._crc, self._size & 0xFFFFFFFF)


def accepts_gzip(header: str) -> bool:
    """Return whether a value of Accept-Encoding names gzip, with a weight above 0."""
    for each in header.lower().split(","):
        name, _, weight = each.partition(";")
        if name.strip() == "gzip":
            return weight.replace(" ", "").rstrip("0") not in ("q=", "q=0.", "q=.")
    return False


def _pack(text: bytes) -> _Packed:
    deflate = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    data = deflate.compress(text) + deflate.flush(zlib.Z_FULL_FLUSH)
    return _Packed(data, zlib.crc32(text), len(text), _shift(8 * len(text)))


def _shift(bits: int) -> int:
    """Return x to the power of `bits`, modulo the polynomial."""
    found = _ONE
    for number in range(bits.bit_length()):
        if bits >> number & 1:
            found = _times(_power(number), found)
    return found


def _power(number: int) -> int:
    """Return x to the power of 2 to the power of `number`, modulo the polynomial."""
    found = _ONE >> 1
    for _ in range(number):
        found = _times(found, found)
    return found


@lru_cache(_KNOWN)
def _times(one: int, other: int) -> int:
    """Return the product modulo the polynomial."""
    product = 0
    while one:
        if one & _ONE:
            product ^= other
        one = one << 1 & 0xFFFFFFFF
        other = other >> 1 ^ (_POLYNOMIAL if other & 1 else 0)
    return product
