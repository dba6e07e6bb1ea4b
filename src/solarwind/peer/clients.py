"""The connections of whoever has an engine, and what goes on beside them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, cast

from .connection import Connection
from .host import Host
from .transport import Transport
from .turns import Turns


class Clients:
    """The part of a `Host` that is the same in all of them."""

    checks_authors = True

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[Any]] = set()
        self.turns = Turns()  # of all long work for them

    def connected(self, transport: Transport, token: str | None = None) -> Connection:
        """A client is there; `token` is what its handshake brought."""
        connection = Connection(cast(Host, self), transport, token)
        self._connections.add(connection)
        return connection

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside everything else; whoever has the engine does not stop before it is done."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
