"""The connections of a process that has an engine, and the tasks beside them."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import Any, TypeVar, cast

import msgspec

from ..engine.request import Request
from ..engine.tasks import Tasks
from .connection import Connection
from .host import Host, Rights
from .time_slices import TimeSlices
from .transport import Transport

R = TypeVar("R")


class Clients:
    """The part of a `Host` that all hosts share."""

    checks_authors = True

    def __init__(self) -> None:
        self._connections: set[Connection] = set()
        self._tasks = Tasks(lambda _: None)  # none of which the others depend on
        self.slices = TimeSlices()  # of all long work for them

    def connected(self, transport: Transport, token: str | None = None) -> Connection:
        """Return the connection of a new client; `token` is from its handshake."""
        connection = Connection(cast(Host, self), transport, token)
        self._connections.add(connection)
        return connection

    def disconnected(self, connection: Connection) -> None:
        self._connections.discard(connection)

    async def ask(self, request: Request[R], rights: Rights, by: str = "") -> R:
        """See `Host`."""
        return await cast(Host, self).engine.ask(self.asked_by(request, rights, by))

    @staticmethod
    def asked_by(request: Request[R], rights: Rights, by: str) -> Request[R]:
        """Return the request with who asks: the one who has these rights, for whom it says."""
        return msgspec.structs.replace(request, by=" for ".join(filter(None, (rights.name, by))))

    def hold(self, size: int) -> None:
        """Accept the bytes: the processes of a cluster each have a limit of their own."""

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run it in the background; the host waits for it before it stops."""
        self._tasks.spawn(work, "what is done for a client")

    async def finish(self) -> None:
        """Wait until all background work is done."""
        await self._tasks.wait()

    def look(self, now: float) -> None:
        """Check that each peer is alive and still has its rights. Called now and then."""
        for connection in list(self._connections):
            try:
                connection.check(now)
            except Exception as error:
                connection.failed(error)

    def leave_all(self) -> None:
        """Close all connections, because the dispatcher stops: clients reconnect when it is back."""
        for connection in list(self._connections):
            connection.leave()
