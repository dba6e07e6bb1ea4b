"""The ASGI app: one port for WebSocket and HTTP, run by `solarwind serve` or mounted in somebody's app."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from ..engine.base import Engine
from ..errors import Unavailable
from ..wind import SolarWind
from .access import Access
from .settings import Settings


class Server:
    """See `app`."""

    def __init__(
        self,
        source: str | SolarWind | None = None,
        *,
        tokens: str | None = None,
        settings: Settings | None = None,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
    ) -> None:
        self._owns = not isinstance(source, SolarWind)
        self.wind = source if isinstance(source, SolarWind) else SolarWind(source)
        self.settings = settings or Settings()
        self.access = Access(tokens)
        self.hosts = hosts
        self.origins = origins
        self.running = False
        self._router = Router(routes=[])

    @property
    def engine(self) -> Engine:
        """What the doors hand everything to."""
        return self.wind.engine

    async def start(self) -> None:
        """Start the dispatcher, unless it is somebody else's SolarWind."""
        if self._owns:
            await self.wind.start()
        self.running = True

    async def stop(self) -> None:
        """End all connections, and stop the dispatcher if it is the server's own."""
        self.running = False
        if self._owns:
            await self.wind.stop()

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """For the app that this one is mounted in: `FastAPI(lifespan=events.lifespan)`."""
        await self.start()
        try:
            yield
        finally:
            await self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if not self.running and scope["type"] != "lifespan":
            raise Unavailable("expected a server that runs, got one that was not started")
        await self._router(scope, receive, send)


def app(
    source: str | SolarWind | None = None,
    *,
    tokens: str | None = None,
    settings: Settings | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
) -> Server:
    """An ASGI app on a dispatcher: that of a URL, or of a SolarWind that you start and stop yourself.

    `tokens` is the path of a token file; without one anybody who reaches the port may do everything. `hosts` are the
    names it answers to; those of loopback if not given and there are no tokens. `origins` are the origins of web pages
    that may use it besides its own.
    """
    return Server(source, tokens=tokens, settings=settings, hosts=hosts, origins=origins)
