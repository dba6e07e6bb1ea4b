"""The ASGI app: one port for WebSocket and HTTP, run by `solarwind serve` or mounted in somebody's app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from typing import Any

from starlette.routing import Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from .. import wire
from ..engine.base import Engine
from ..engine.url import open_engine
from ..errors import Unavailable
from ..limits import Limits
from ..origin import MACHINE, process_name
from ..peer.clients import Clients
from ..service.group import Numbers
from ..shutdown import Shutdown
from ..wind import SolarWind
from .access import Access, Grant
from .bodies import Bodies
from .call import Call
from .feed import Feeds
from .guard import Guard
from .http import Http
from .settings import Settings
from .take import Takes
from .uses import CHECK_S, Uses
from .webhooks import Webhooks
from .websocket import Door


class Server(Clients):
    """See `app`."""

    def __init__(
        self,
        source: str | SolarWind | None = None,
        *,
        tokens: str | Access | None = None,
        settings: Settings | None = None,
        hosts: Collection[str] | None = None,
        origins: Collection[str] = (),
        webhook_networks: Collection[str] = (),
        webhook_origin: str | None = None,
    ) -> None:
        super().__init__()
        self._owns = not isinstance(source, SolarWind)
        self.wind = source if isinstance(source, SolarWind) else SolarWind(engine=open_engine(source, serves=True))
        self.settings = settings or Settings()
        self.access = tokens if isinstance(tokens, Access) else Access(tokens)
        self.guard = Guard(self.access, hosts, origins)
        self.running = False
        self.name = f"{MACHINE}/{process_name()}"
        self.webhooks = Webhooks(self, networks=webhook_networks, origin=webhook_origin)
        self.numbers = Numbers(self.wind.engine.author)  # of events that come by HTTP
        self.uses = Uses(self)
        self.bodies = Bodies(self.settings.bodies_bytes)
        self.uploads: set[Call] = set()  # whose bodies may have no end
        self._shutdown = Shutdown(self.leave)
        self.takes = Takes(self)
        self.feeds = Feeds(self)
        self.http = Http(self)
        self.door = Door(self)
        self._others = Router([WebSocketRoute(wire.PATH, self.door)], lifespan=self.lifespan)

    @property
    def engine(self) -> Engine:
        """What the doors hand everything to."""
        return self.wind.engine

    @property
    def limits(self) -> Limits:
        """The same that the engine has."""
        return self.wind.limits

    def grant(self, token: str | None) -> Grant:
        """What the bearer of `token` may do. Raises `BadToken`."""
        return self.access.grant(token)

    async def start(self) -> None:
        """Start the dispatcher, unless it is somebody else's SolarWind."""
        if self._owns:
            await self.wind.start()
        try:
            await self.webhooks.start()
        except BaseException:
            await self._stop_own()
            raise
        self.running = True
        self._sweeper = asyncio.create_task(self._sweep())

    def leave(self) -> None:
        """Whatever would not end by itself ends, and nothing new begins: the process is about to stop."""
        if self.running:
            self.running = False
            self.feeds.end()
            for upload in list(self.uploads):
                upload.refuse(
                    Unavailable("the server stops: send what was not accepted again, elsewhere or when it is back")
                )
            self.spawn(self.takes.stop())

    async def stop(self) -> None:
        """End all connections, and stop the dispatcher if it is the server's own."""
        self.leave()
        self._sweeper.cancel()
        for connection in list(self._connections):
            connection.leave()
        await asyncio.gather(self.takes.stop(), self.feeds.stop())
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._stop_own()

    async def _stop_own(self) -> None:
        await self.webhooks.stop()
        if self._owns:
            await self.wind.stop()

    @property
    def connection_count(self) -> int:
        """How many WebSocket connections there are."""
        return len(self._connections)

    async def _sweep(self) -> None:
        """See to it that whoever is gone, or may not be here any more, does not stay. While this process stood still
        nobody could be heard of."""
        loop = asyncio.get_running_loop()
        pause = min(self.settings.heartbeat_s / 8, self.settings.authenticate_s / 2, CHECK_S)
        due = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            late, due = now - due, now + pause
            if late > self.settings.heartbeat_s:
                continue
            for connection in list(self._connections):
                connection.check(now)
            self._shutdown.look()
            self.uses.check()
            self.webhooks.check()
            self.bodies.trim()
            self.feeds.check(now)

    @asynccontextmanager
    async def lifespan(self, app: Any = None) -> AsyncIterator[None]:
        """For the app that this one is mounted in: `FastAPI(lifespan=events.lifespan)`."""
        await self.start()
        self._shutdown.watch()
        try:
            yield
        finally:
            self._shutdown.end()
            await self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self.http if scope["type"] == "http" else self._others
        await app(scope, receive, send)


def app(
    source: str | SolarWind | None = None,
    *,
    tokens: str | None = None,
    settings: Settings | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
    webhook_networks: Collection[str] = (),
    webhook_origin: str | None = None,
) -> Server:
    """An ASGI app on a dispatcher: that of a URL, or of a SolarWind that you start and stop yourself.

    `tokens` is the path of a token file; without one anybody who reaches the port may do everything. `hosts` are the
    names it answers to; those of loopback if not given and there are no tokens. `origins` are the origins of web pages
    that may use it besides its own. `webhook_networks` are networks, addresses or hosts that webhooks may reach besides
    public addresses; `webhook_origin` is the name by which their targets know who sends, the machine's if not given.
    """
    return Server(
        source,
        tokens=tokens,
        settings=settings,
        hosts=hosts,
        origins=origins,
        webhook_networks=webhook_networks,
        webhook_origin=webhook_origin,
    )
