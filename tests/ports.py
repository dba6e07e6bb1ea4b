"""Ports for servers of tests."""

from __future__ import annotations

import socket

LOOPBACK = "127.0.0.1"


class Port:
    """A port that nobody else gets until it is given up: a socket is bound to it, but does not listen, and the server
    binds to it beside that, since both say SO_REUSEADDR. So a server that is down loses it to nobody."""

    def __init__(self, address: str = LOOPBACK) -> None:
        self._bound = socket.socket()
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind((address, 0))
        self.number: int = self._bound.getsockname()[1]

    def close(self) -> None:
        self._bound.close()

    def __del__(self) -> None:
        self.close()
