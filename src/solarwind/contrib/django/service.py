"""`DjangoSolarWind`: a `SolarWind` with Django's settings, that starts with requests and keeps connections fresh."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any, TypeVar

import msgspec
from asgiref.sync import sync_to_async
from django.db import close_old_connections

from ...engine.local import LocalEngine
from ...errors import BadArgument, SolarWindError
from ...failure import Later
from ...service.registration import Registration
from ...service.signature import Handler
from ..beside import AGAIN_S, BesideRequests
from . import conf
from .databases import database_url

__all__ = ["DjangoSolarWind"]

T = TypeVar("T")
Application = Callable[[Any, Any, Any], Coroutine[Any, Any, Any]]


class Connections:
    """What is done about the database connections of the thread in which a handler runs."""

    are_committed = True  # what is written with them, so that a relay can see it

    def before(self) -> None:
        """Prepare for a handler, in the thread whose connections it uses."""
        close_old_connections()

    def after(self) -> None:
        """Clean up after a handler, in the same thread."""
        close_old_connections()

    @contextmanager
    def around(self) -> Iterator[None]:
        """Yield in the thread of a `def` handler, around all of it."""
        self.before()
        try:
            yield
        finally:
            self.after()

    async def run(self, call: Callable[[Any], Awaitable[T]], given: Any) -> T:
        """Call an `async def` handler, which uses the connections of the thread of `sync_to_async`. Raise what it
        raises, and `Later` once that thread takes no more work, since the process ends."""
        try:
            await sync_to_async(self.before)()
            try:
                return await call(given)
            finally:
                await sync_to_async(self.after)()
        except RuntimeError as error:
            if _threads_work():
                raise
            raise Later(AGAIN_S) from error

    def written(self, connection: Any) -> None:
        """Note that somebody writes into the outbox of a database."""

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Yield while the caller's thread only waits."""
        yield

    async def settle(self, settled: Callable[[], Awaitable[None]]) -> None:
        """Wait until all is settled."""
        await settled()


def _threads_work() -> bool:
    """Return whether threads of `concurrent.futures`, such as that of `sync_to_async`, still take work: they do not
    once the process ends, while `wind` stops."""
    try:
        with ThreadPoolExecutor(1) as threads:
            threads.submit(bool)
    except RuntimeError:
        return False
    return True


class DjangoSolarWind(BesideRequests):
    """The `SolarWind` of a Django project: `from solarwind.contrib.django import wind`.

    Under WSGI it starts with the first request of a process, on a thread of its own; under ASGI with the lifespan, by
    `application = wind.asgi(get_asgi_application())`; elsewhere by `with wind:`."""

    _to_start = (
        "with 'solarwind.contrib.django' in INSTALLED_APPS Django starts it with the first request under WSGI; under "
        "ASGI say `application = wind.asgi(get_asgi_application())` in asgi.py, and use a server with lifespan; in a "
        "command or a shell use `with wind:`, and in a test `wind_in_memory` of solarwind.testing.django"
    )

    def __init__(self) -> None:
        """Read the settings. What is wrong with them is told by Django's checks, and by the start."""
        stated = conf.read()
        super().__init__(stated.url, token=stated.token, grace=stated.grace, limits=stated.limits)
        self.settings = stated
        self.handles_here = stated.handle
        self._connections = Connections()
        self._around.outermost = self._with_connections

    # Where it runs ------------------------------------------------------------------------------------

    @property
    def handles(self) -> bool:
        """Whether this process runs handlers, not only fires: as `handles_here` says, or else where the dispatcher is
        in this process, so that no other could."""
        if self.handles_here is None:
            return isinstance(self._engine, LocalEngine)
        return self.handles_here

    async def start(self) -> None:
        """See `SolarWind.start`. Raise `BadArgument` for wrong settings."""
        if self.settings.problems:
            raise BadArgument(self.settings.problems[0])
        if self.handles and self._connections.are_committed:
            for url in map(database_url, self.settings.relay):
                if url not in self._relays:
                    self.relay(url)
        await super().start()

    def _restore(self) -> None:
        """Use the dispatcher of the settings again, after `use` named another. Raise `Unavailable` while it runs."""
        self.use(self.settings.url, self.settings.token)

    def _begin_with_request(self, environ: Any = None, **_: Any) -> None:
        """Start it with a WSGI request: a receiver of Django's `request_started`."""
        if environ is not None and not self._is_tested():
            self._begin_for_request()

    def _is_tested(self) -> bool:
        """Return whether Django's tests run, whose requests do not start it: it would fire to a real dispatcher."""
        from django.core import mail

        return hasattr(mail, "outbox")

    def asgi(self, application: Application) -> Application:
        """Return an ASGI application that runs this from its lifespan's start to its end, and is else the given one:
        `application = wind.asgi(get_asgi_application())`. Django's own knows no lifespan."""

        async def with_lifespan(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] == "lifespan":
                await self._live(application, receive, send)
            else:
                await application(scope, receive, send)

        return with_lifespan

    async def _live(self, application: Application, receive: Any, send: Any) -> None:
        phase = "startup"
        await receive()
        try:
            async with self.lifespan(application):
                await send({"type": "lifespan.startup.complete"})
                await receive()
                phase = "shutdown"
        except SolarWindError as error:
            await send({"type": f"lifespan.{phase}.failed", "message": str(error)})
            return
        await send({"type": "lifespan.shutdown.complete"})

    # Handlers -----------------------------------------------------------------------------------------

    async def _join(self, registration: Registration) -> None:
        if self.handles:
            await super()._join(registration)

    def _purposes_here(self) -> set[tuple[str, str]]:
        return super()._purposes_here() if self.handles else set()

    def _with_connections(self, handler: Handler) -> Handler:
        call, connections = handler.call, self._connections

        async def on_loop(given: Any) -> Any:
            return await connections.run(call, given)

        def in_thread(given: Any) -> Any:
            with connections.around():
                return call(given)

        return msgspec.structs.replace(handler, call=on_loop if handler.is_async else in_thread)

    # Waiting, and the outbox --------------------------------------------------------------------------

    def wait(self, work: Awaitable[T], timeout: float | timedelta | None = None) -> T:
        """See `SolarWind.wait`."""
        with self._connections.waiting():
            return super().wait(work, timeout)

    async def settled(self, timeout: float | timedelta | None = None) -> None:
        """See `SolarWind.settled`."""
        await self._connections.settle(partial(super().settled, timeout))

    def outbox(self, connection: Any) -> Any:
        """See `SolarWind.outbox`; the name of a Django database is a connection."""
        self._connections.written(connection)
        return super().outbox(connection)
