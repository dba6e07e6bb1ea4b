"""What all parts of a server have in common: the engine, who may do what, and how much it may cost."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from typing import Protocol

from ..engine.base import Engine
from ..errors import SolarWindError, Unavailable
from ..limits import Limits
from ..origin import MACHINE, process_name
from ..peer.clients import Clients
from ..service.group import Numbers
from ..wind import SolarWind
from .access import Access, Grant
from .bodies import Bodies
from .guard import Guard
from .settings import Settings
from .uses import Uses

log = logging.getLogger("solarwind")


class Upload(Protocol):
    """A request whose body may have no end."""

    def refuse(self, error: SolarWindError) -> None:
        """It is to end, with this as the reason."""
        ...


class ServerHost(Clients):
    """See above; a `peer.host.Host`."""

    def __init__(self, wind: SolarWind, settings: Settings, access: Access, guard: Guard) -> None:
        super().__init__()
        self.wind = wind
        self.settings = settings
        self.access = access
        self.guard = guard
        self.name = f"{MACHINE}/{process_name()}"
        self.running = False
        self.numbers = Numbers(wind.engine.author)  # of events that come by HTTP
        self.uses = Uses(access)
        self.bodies = Bodies(settings.bodies_bytes)
        self.uploads: set[Upload] = set()
        self.requests: Counter[tuple[str, str, int]] = Counter()  # answered: method, path, status
        self.failed: asyncio.Future[None]  # gets why the server cannot go on, once it was started
        self._error: SolarWindError | None = None

    def begin(self) -> None:
        """The server starts."""
        self.failed = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._error = None

    @property
    def engine(self) -> Engine:
        """What the doors hand everything to."""
        return self.wind.engine

    @property
    def limits(self) -> Limits:
        """The same that the engine has."""
        return self.wind.limits

    @property
    def connection_count(self) -> int:
        """How many WebSocket connections there are."""
        return len(self._connections)

    def grant(self, token: str | None) -> Grant:
        """What the bearer of `token` may do. Raises `BadToken`."""
        return self.access.grant(token)

    def hold(self, size: int) -> None:
        """See `peer.host.Host`. Raises `Busy`."""
        if size > 0:
            self.bodies.take(size)
        else:
            self.bodies.leave(-size)

    def check(self) -> None:
        """Raises why nothing can be accepted: what the server or the engine failed with, or `Unavailable`."""
        if self._error is not None:
            raise self._error
        if not self.running:
            raise Unavailable("expected a server that runs, got one that does not: ask another, or try again")
        self.engine.check()

    def fail(self, error: SolarWindError) -> None:
        """Nobody is served by half a server: it says so, and what runs it ends it."""
        if self._error is None:
            self._error = error
            log.critical("the server cannot go on: %s", error)
            if not self.failed.done():
                self.failed.set_exception(error)
