"""The connections of whoever has an engine, and what goes on beside them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, cast

from ..engine.tasks import Tasks
from .connection import Connection
from .host import Host
from .transport import Transport
from .turns import Turns


class Clients:
    """The part of a `Host` that is the same in all of them."""

    checks_authors = True

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._tasks = Tasks(lambda _: None)  # none of which the others depend on
        self.turns = Turns()  # of all long work for them

    def connected(self, transport: Transport, token: str | None = None) -> Connection:
        """A client is there; `token` is what its handshake brought."""
        connection = Connection(cast(Host, self), transport, token)
        self._connections.add(connection)
        return connection

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    def hold(self, size: int) -> None:
        """See `Host`. Where clients are the processes of a cluster, each has its own bound, and that is all."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside everything else; whoever has the engine does not stop before it is done."""
        self._tasks.spawn(work, "what is done for a client")

    async def finish(self) -> None:
        """Wait until all of that is done."""
        await self._tasks.wait()

    def look(self, now: float) -> None:
        """Called now and then: is everybody still there, and may they still be?"""
        for connection in list(self._connections):
            try:
                connection.check(now)
            except Exception as error:
                connection.failed(error)

    def leave_all(self) -> None:
        """The dispatcher stops: clients come again when it is back."""
        for connection in list(self._connections):
            connection.leave()
