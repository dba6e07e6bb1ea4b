"""A memory budget for unfinished bodies, messages and held batches of all peers together."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

from ..errors import Busy

_TRIM_BYTES = 32 << 20  # the peak from which on memory is trimmed: the allocator keeps what is freed


class BodyBudget:
    """The bytes in use, of one server."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.size = 0
        self._peak = 0

    def reserve(self, size: int) -> None:
        """Add bytes to the budget. Raise `Busy` where there is no room."""
        if self.size + size > self._max_bytes:
            raise Busy(
                f"expected bodies, messages and held batches of at most {self._max_bytes:,} bytes on their way at a "
                "time, got more: send it again in a moment, in smaller parts if that can be"
            )
        self.size += size
        self._peak = max(self._peak, self.size)

    def release(self, size: int) -> None:
        self.size -= size

    def trim(self) -> None:
        """Return freed memory to the system after a peak. Called now and then; allocators other than glibc's do this
        themselves."""
        if self._peak < _TRIM_BYTES or self.size > self._peak // 4:
            return
        self._peak = self.size
        gc.collect(0)
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
