"""What has come and is not whole yet, of all peers: how much it takes together, and that it is given back."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

from ..errors import Busy

_TRIM_BYTES = 32 << 20  # that there were once: the allocator keeps what is given back to it


class Bodies:
    """All of them, of one server."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self.size = 0
        self._peak = 0

    def take(self, size: int) -> None:
        """So many bytes more. Raises `Busy`."""
        if self.size + size > self._max_bytes:
            raise Busy(
                f"expected bodies, messages and held batches of at most {self._max_bytes:,} bytes on their way at a "
                "time, got more: send it again in a moment, in smaller parts if that can be"
            )
        self.size += size
        self._peak = max(self._peak, self.size)

    def leave(self, size: int) -> None:
        self.size -= size

    def trim(self) -> None:
        """Called now and then: give back to the system what a great deal of bodies took. Other allocators than glibc's
        do so by themselves."""
        if self._peak < _TRIM_BYTES or self.size > self._peak // 4:
            return
        self._peak = self.size
        gc.collect(0)
        with suppress(OSError, AttributeError):
            ctypes.CDLL(None).malloc_trim(0)
