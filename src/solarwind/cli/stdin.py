"""The standard input, for commands that read it and end on signals."""

from __future__ import annotations

import os
import socket
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Self


class Input:
    """The standard input, which can be ended here too: a thread that reads from it cannot be interrupted, so one for
    which nobody waits passes on what comes."""

    def __init__(self) -> None:
        import anyio

        self._ours, self._theirs = socket.socketpair()
        self.file = anyio.wrap_file(self._theirs.makefile("r", encoding="utf-8", errors="replace"))

    def __enter__(self) -> Self:
        threading.Thread(target=self._pass_on, name="solarwind-stdin", daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.end()

    def end(self) -> None:
        """Have the reader come to the end, if it has not yet."""
        try:
            self._ours.shutdown(socket.SHUT_WR)
        except OSError:  # it has
            pass

    def _pass_on(self) -> None:
        try:
            while data := os.read(0, 1 << 16):
                self._ours.sendall(data)
        except OSError:  # nobody is there to give, or to take
            pass
        self.end()
