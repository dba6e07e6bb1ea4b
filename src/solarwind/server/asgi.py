"""The ASGI app: one port for WebSocket and HTTP, run by `solarwind serve` or mounted in another app."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from starlette.routing import Router, WebSocketRoute
from starlette.types import Receive, Scope, Send

from .. import wire
from ..calls import explained
from ..engine.tasks import Tasks
from ..engine.watch import Facts
from ..errors import Unavailable
from ..peer.client import Client
from ..shutdown import Lifespan, Shutdown
from ..urls import open_engine
from ..wind import SolarWind
from .access import Access
from .console import Console
from .feed import Feeds
from .guard import Guard
from .host import ServerHost
from .http import HttpApp
from .revocation import CHECK_S
from .settings import Settings
from .shown_webhooks import ShownWebhooks
from .take import Takes
from .token_audit import TokenAudit
from .viewers import OpenStreams, Viewers, server_facts
from .webhooks import Webhooks
from .websocket import Acceptor


class Server:
    """The ASGI app that `app` returns. Its parts share the `host`."""

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
        console: bool = False,
        delivers: bool = True,
    ) -> None:
        """See `app`. Unless it `delivers`, webhooks are only shown: those of its store, or of the server that it is a
        client of."""
        self._owns = not isinstance(source, SolarWind)
        wind = source if isinstance(source, SolarWind) else SolarWind(engine=open_engine(source, serves=True))
        access = tokens if isinstance(tokens, Access) else Access(tokens)
        self.host = host = ServerHost(wind, settings or Settings(), access, Guard(access, hosts, origins))
        if not delivers and isinstance(wind.engine, Client):
            self.webhooks: Webhooks = ShownWebhooks(host, wind.engine)
        else:
            self.webhooks = Webhooks(host, networks=webhook_networks, origin=webhook_origin, delivers=delivers)
        self.token_audit = TokenAudit(host)
        self.takes = Takes(host)
        self.feeds = Feeds(host)
        self.viewers = Viewers(host)
        self.console = Console(console)
        host.facts["server"] = self._facts
        self.acceptor = Acceptor(host)
        self._tasks = Tasks(self.host.fail)
        self._shutdown = Shutdown(self._leave)
        self._http = HttpApp(host, self)
        self._others = Router([WebSocketRoute(wire.PATH, self.acceptor)], lifespan=self.lifespan)

    @property
    def wind(self) -> SolarWind:
        """The dispatcher."""
        return self.host.wind

    @property
    def running(self) -> bool:
        """Whether it serves requests."""
        return self.host.running

    @property
    def failed(self) -> asyncio.Future[None]:
        """A future that gets the error for which the server cannot go on. It exists once started."""
        return self.host.failed

    async def start(self) -> None:
        """Start the dispatcher, unless it is a SolarWind that the caller runs."""
        self._loop = asyncio.get_running_loop()
        self.host.begin()
        if self._owns:
            await self.wind.start()
        try:
            await self.webhooks.start()
        except BaseException:
            await self._stop_own()
            raise
        self.host.running = self.host.was_started = True
        self._tasks.begin(self._sweep(), "the server's look at who is there and may be")

    def leave(self) -> None:
        """End everything that would not end by itself, and begin nothing new: the process is about to stop.

        It may be called from any thread. Where the outer app does not run on the main thread, no signal arrives there:
        call this before telling that app's server to stop.
        """
        self._loop.call_soon_threadsafe(self._leave)

    def _leave(self) -> None:
        host = self.host
        if host.running:
            host.running = False
            self.feeds.end()
            self.viewers.end()
            for upload in list(host.uploads):
                upload.refuse(
                    Unavailable("the server stops: send what was not accepted again, elsewhere or when it is back")
                )
            host.spawn(self.takes.stop())

    async def stop(self) -> None:
        """End all connections, and stop the dispatcher if it is the server's own."""
        self._leave()
        await self._tasks.end()
        self.host.leave_all()
        await asyncio.gather(self.takes.stop(), self.feeds.stop(), self.viewers.stop())
        await self.host.collecting.end()
        await self.host.finish()
        await self._stop_own()

    def _facts(self) -> Facts:
        streams = OpenStreams(self.host.connection_count, self.viewers.count, self.feeds.count)
        return server_facts(self.host, streams)

    async def _stop_own(self) -> None:
        await self.webhooks.stop()
        if self._owns:
            await self.wind.stop()

    async def _sweep(self) -> None:
        """End what belongs to clients that are gone or have lost their rights. Where this process stood still, silence
        is no proof that a client is gone."""
        loop = asyncio.get_running_loop()
        pause = min(self.host.settings.heartbeat_s / 8, self.host.settings.authenticate_s / 2, CHECK_S)
        due = loop.time() + pause
        while True:
            await asyncio.sleep(pause)
            now = loop.time()
            late, due = now - due, now + pause
            if late > self.host.settings.heartbeat_s:
                continue
            self.host.look(now)
            self.host.revocables.check()
            self.token_audit.check()
            self.webhooks.check()
            self.host.bodies.trim()
            self.feeds.check(now)
            self.viewers.check(now)

    def lifespan(self, app: Any = None) -> AbstractAsyncContextManager[None]:
        """Run it with the app that it is mounted in: `FastAPI(lifespan=events.lifespan)`."""
        return Lifespan(self._run_beside, "events.lifespan")

    @asynccontextmanager
    async def _run_beside(self) -> AsyncIterator[None]:
        await self.start()
        self._shutdown.watch()
        try:
            yield
        finally:
            self._shutdown.end()
            await self.stop()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        app = self._http if scope["type"] == "http" else self._others
        await app(scope, receive, send)


@explained
def app(
    source: str | SolarWind | None = None,
    *,
    tokens: str | None = None,
    settings: Settings | None = None,
    hosts: Collection[str] | None = None,
    origins: Collection[str] = (),
    webhook_networks: Collection[str] = (),
    webhook_origin: str | None = None,
    console: bool = False,
) -> Server:
    """Return an ASGI app for a dispatcher: that of a URL, or of a SolarWind that you start and stop yourself.

    `tokens` is the path of a token file; without one every client that reaches the port may do everything. `hosts` are
    the names it answers to; without tokens the default is the loopback names. `origins` are further origins of web
    pages that may use it. `webhook_networks` are networks, addresses or hosts that webhooks may reach besides public
    addresses; `webhook_origin` is the name that webhook targets are told, by default the machine's.
    `console` is whether it has the console, a web page, at `/console`."""
    return Server(
        source,
        tokens=tokens,
        settings=settings,
        hosts=hosts,
        origins=origins,
        webhook_networks=webhook_networks,
        webhook_origin=webhook_origin,
        console=console,
    )
