"""What all parts of a server share: the engine, access control, and limits."""

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
from ..service.group import IdNumbers
from ..wind import SolarWind
from .access import Access, Grant
from .bodies import BodyBudget
from .guard import Guard
from .revocation import Revocables
from .settings import Settings

log = logging.getLogger("solarwind")


class Upload(Protocol):
    """A request whose body may be endless."""

    def refuse(self, error: SolarWindError) -> None:
        """End it with this error."""
        ...


class ServerHost(Clients):
    """The shared state of a server; a `peer.host.Host`."""

    def __init__(self, wind: SolarWind, settings: Settings, access: Access, guard: Guard) -> None:
        super().__init__()
        self.wind = wind
        self.settings = settings
        self.access = access
        self.guard = guard
        self.name = f"{MACHINE}/{process_name()}"
        self.running = False
        self.numbers = IdNumbers(wind.engine.author)  # for events that come by HTTP
        self.revocables = Revocables(access)
        self.bodies = BodyBudget(settings.bodies_bytes)
        self.uploads: set[Upload] = set()
        self.requests: Counter[tuple[str, str, int]] = Counter()  # answered: method, path, status
        self.failed: asyncio.Future[None]  # gets the error for which it cannot go on; exists once started
        self._error: SolarWindError | None = None

    def begin(self) -> None:
        """Start."""
        self.failed = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._error = None

    @property
    def engine(self) -> Engine:
        """The engine that endpoints call."""
        return self.wind.engine

    @property
    def limits(self) -> Limits:
        """The engine's limits."""
        return self.wind.limits

    @property
    def connection_count(self) -> int:
        """The number of WebSocket connections."""
        return len(self._connections)

    def grant(self, token: str | None) -> Grant:
        """Return the rights of `token`. Raise `BadToken`."""
        return self.access.grant(token)

    def hold(self, size: int) -> None:
        """Reserve memory: see `peer.host.Host`. Raise `Busy`."""
        if size > 0:
            self.bodies.reserve(size)
        else:
            self.bodies.release(-size)

    def check(self) -> None:
        """Raise the reason why nothing can be accepted: the failure of the server or the engine, or `Unavailable`."""
        if self._error is not None:
            raise self._error
        if not self.running:
            raise Unavailable("expected a server that runs, got one that does not: ask another, or try again")
        self.engine.check()

    def fail(self, error: SolarWindError) -> None:
        """Stop serving after an unexpected error of a part: the server reports it and ends."""
        if self._error is None:
            self._error = error
            log.critical("the server cannot go on: %s", error)
            if not self.failed.done():
                self.failed.set_exception(error)
