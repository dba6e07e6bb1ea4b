"""`SolarWind`: the public object, a thin layer over an engine and the services that run on it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextvars import copy_context
from datetime import timedelta
from functools import partial
from threading import get_ident
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

from .asyncapi import document
from .calls import explains_calls
from .declaring import Declaring
from .engine.base import NOTHING, Engine
from .engine.running import Running
from .engine.tasks import complete
from .errors import BadArgument, SolarWindError, Unavailable
from .event import Event
from .handlers import Registering
from .lifecycle import Life, check_may_start, finish, log_draining
from .limits import Limits
from .logs import limited
from .loops import needed_loop, on_own_loop
from .names import check_token
from .operations import Internal
from .options import check_engine, check_seconds, check_type
from .outbox.effects import Effects
from .records import SchemaInfo
from .schema import read_schema
from .service.buffer import not_running
from .service.middleware import Middleware, check_middleware
from .service.registration import Options, Registration, described, handled_here, shows_options, stated
from .service.runner import handling
from .service.settling import wait_idle
from .service.stream import Reader, Stream, check_free
from .urls import open_engine

if TYPE_CHECKING:
    from .outbox.relay import Relay

log = logging.getLogger("solarwind")

M = TypeVar("M", bound=Middleware)


@explains_calls
class SolarWind(Life, Registering, Effects, Declaring):
    """Fires events, and handles them for a purpose.

    `url` is the dispatcher's address: `memory://`, `sqlite:///wind.db`, `ws://host:7400`, `nats://host`; None is
    `$SOLARWIND_URL`, or else `memory://`. `token` identifies this client to a server; None is `$SOLARWIND_TOKEN`.
    `grace` is how long handlers have to finish when it stops; `limits` bounds everything that can grow. Times are
    seconds, or a timedelta. An invalid URL raises `BadArgument`.

    Register handlers with `on`, then start it: with `async with`, with `with` where there is no asyncio, or with
    `run`."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        grace: float | timedelta = 30.0,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        self.grace = grace
        if limits is not None:
            check_type("limits", limits, Limits, "Limits(payload_bytes=4 << 20)")
        check_token(token)
        if engine is not None:
            check_engine(engine, url)
        self._limits = limits or Limits()
        self._token = token
        self._engine = engine if engine is not None else open_engine(url, self._limits, token)
        Registering.__init__(self)
        Effects.__init__(self, self._limits)
        Declaring.__init__(self)
        self._readers: set[Reader] = set()
        self._state: str = "not started"
        self._loop: asyncio.AbstractEventLoop | None = None
        self._starting: asyncio.Future[None] | None = None
        self._stopping: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    def use(self, url: str | None = None, token: str | None = None, *, engine: Engine | None = None) -> None:
        """Use another dispatcher than the one it was made with: that of a URL, or an engine. Raise `BadArgument`, or
        `Unavailable` while it runs."""
        check_token(token)
        if engine is not None:
            check_engine(engine, url)
        self._check_not_running()
        self._engine = engine if engine is not None else open_engine(url, self._limits, token or self._token)

    @property
    def engine(self) -> Engine:
        """The engine, which a server exposes over HTTP and WebSocket."""
        return self._engine

    @property
    def grace(self) -> float:
        """How long handlers have to finish when it stops, in seconds. May be set, also to a timedelta."""
        return self._grace

    @grace.setter
    def grace(self, grace: float | timedelta) -> None:
        self._grace = check_seconds("grace", grace)

    @property
    def limits(self) -> Limits:
        """The limits on what can grow."""
        return self._limits

    # Handling -----------------------------------------------------------------------------------------

    def _register(self, new: list[Registration]) -> None:
        self._check_process()
        self._check_new(new)
        self._registrations += new
        if self._loop is not None and self._state == "running":
            for registration in new:
                self._on_loop(partial(self._start_joining, registration))

    @property
    def dependency_overrides(self) -> dict[Callable[..., Any], Callable[..., Any]]:
        """The functions that stand in for dependencies, in tests: `wind.dependency_overrides[get_session] = fake`. What
        is changed here counts for the next event. One that cannot be called makes events dead letters."""
        return self._around.overrides

    @dependency_overrides.setter
    def dependency_overrides(self, overrides: dict[Callable[..., Any], Callable[..., Any]]) -> None:
        check_type("dependency_overrides", overrides, dict, "{get_session: fake_session}")
        self._around.overrides = overrides

    def middleware(self, function: M) -> M:
        """Put `async def m(call_next, handing)` around every fire and every hand-out, which is one call of a handler.

        The one that was added first is the outermost. Each says `await call_next(handing)` once. What it raises fails
        the hand-out, or comes out of `fire`; around a fire it may not wait. Raise `BadArgument`, and `Unavailable`
        while it runs. See `Handing`."""
        check_middleware(function)
        self._check_process()
        self._check_not_running()
        self._around.middlewares.append(function)
        return function

    def asyncapi(self, title: str = "Solar Wind application", version: str = "0.1.0") -> dict[str, Any]:
        """Return the AsyncAPI document of its handlers, and of the topics that it states: see `solarwind docs`. It need
        not run. `version` is that of the application."""
        stated = {name: SchemaInfo(name, schema=read_schema(each.schema)) for name, each in self._typed.items()}
        ticks = [SchemaInfo(each["topic"]) for each in self._declared.values() if each["topic"] not in stated]
        return document([*stated.values(), *ticks, *described(self._registrations)], title=title, version=version)

    @on_own_loop
    async def joined(self) -> None:
        """Wait until every handler registered so far has joined. Raise the error of one that could not."""
        for registration in list(self._registrations):
            if registration.joining is not None:
                await asyncio.shield(registration.joining)

    @on_own_loop
    async def off(self, function: Callable[..., Any]) -> None:
        """Remove a function's instances: they finish what they began and give back the rest.

        Called by that function itself, it does not wait for it to finish.
        """
        if not callable(function):
            raise BadArgument(f"expected a function that was registered with on, got {function!a}")
        handled = handling.get()
        for registration in self._registrations.of(function):
            self._registrations.remove(registration)
            leaving = self._leave_once_joined(registration)
            if handled is not None and (handled.topic, handled.purpose) == (
                registration.join.topic,
                registration.join.purpose,
            ):
                self._spawn(leaving)
            else:
                await leaving

    async def _leave_once_joined(self, registration: Registration) -> None:
        if registration.joining is not None:
            await asyncio.wait([registration.joining])
        await registration.leave(self._engine, self.grace)

    @shows_options
    def listen(self, topic: str, purpose: str, **options: Unpack[Options]) -> Stream:
        """Return the events of a purpose as an async iterator; asking for the next settles the last. See `on` and
        `Stream`. Without `retry`, what the version stated before is left as it is."""
        join, since = stated(topic, purpose, **options), options.get("since", "now")

        async def enter() -> Reader:
            self._check_running()
            if asyncio.get_running_loop() is not self._loop:
                raise Unavailable(
                    "expected a stream on the event loop of its SolarWind, got it on another: read it there"
                )
            reader = Reader(self._engine, join, self._limits)
            reader.observer = self._around.observer
            reader.enter(await self._engine.join(handled_here(join), since, reader))
            self._readers.add(reader)
            if self._bound is not None:  # the app that it runs in is to stop
                reader.end()
            return reader

        def leave_soon(reader: Reader) -> None:
            loop = self._loop
            if loop is not None and not loop.is_closed():
                loop.call_soon_threadsafe(lambda: self._spawn(self._leave_reader(reader)))

        return Stream(enter, self._leave_reader, leave_soon)

    async def _leave_reader(self, reader: Reader) -> None:
        if reader in self._readers:
            self._readers.remove(reader)
            reader.end()
            self._engine.leaving(reader.instance)
            reader.give_back()
            reader.stop_reports()
            await self._engine.leave(reader.instance)

    @property
    def failed(self) -> asyncio.Future[None]:
        """A future that gets the error after which the dispatcher cannot go on. It exists once started."""
        return self._engine.failed

    # Asking -------------------------------------------------------------------------------------------

    @on_own_loop
    async def settled(self, timeout: float | timedelta | None = None) -> None:
        """Wait until what this process fired is accepted, the purposes it has instances of have nothing pending, in
        flight or waiting for a retry, and its fan-out copies are handled.

        Raise `TimeoutError` after `timeout` seconds, with what is left; `Unavailable` in a handler, which would wait
        for itself. The log says so where it waits for a purpose that is paused.
        """
        self._check_running()
        check_free(self._handled_now(), self._readers)
        if timeout is None:
            await self._settle()
            return
        seconds = check_seconds("a timeout", timeout)
        limit = asyncio.timeout(seconds)
        try:
            async with limit:
                await self._settle()
        except TimeoutError:
            if not limit.expired():  # a test's clock stands, which the error says
                raise
            left = await self._left()
            if left == NOTHING and self._all_accepted:  # there was no time to ask
                return
            raise TimeoutError(f"expected everything settled within {seconds:g} s; left: {left}") from None

    async def _settle(self) -> None:
        if {each.joining for each in self._registrations} - {None}:
            await self.joined()
        while True:
            await self._drain_fired()
            await wait_idle(Internal.idle(self._engine, self._purposes_here()), self._left)
            if self._all_accepted:
                return

    async def _left(self) -> str:
        try:
            left = await Internal.left(self._engine, self._purposes_here())
            return left if left == NOTHING else left + self._registrations.cannot_settle()
        except Unavailable as error:
            return str(error)

    def _purposes_here(self) -> set[tuple[str, str]]:
        joins = [registration.join for registration in self._registrations]
        joins += [reader.join for reader in self._readers]
        return {(join.topic, join.purpose) for join in joins}

    # Life ---------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Connect and register every handler; `async with` calls it. A stopped object may be started again with its
        handlers, also on another loop. If it fails or is cancelled, nothing is left open."""
        self._check_process()
        self._check_not_running()
        check_may_start()
        loop = needed_loop()
        self._state = "starting"
        self._starting = loop.create_future()
        try:
            await complete(loop.create_task(self._start()), cancel=True)
        except BaseException:
            try:
                if self._state == "running":
                    await complete(asyncio.gather(self._begin_stop(0), return_exceptions=True))
            finally:
                self._state = "not started"
            raise
        finally:
            self._starting.set_result(None)
            self._starting = None
        self._on_ready()
        self._begun.set()

    async def _start(self) -> None:
        await self._engine.start()
        self._loop = asyncio.get_running_loop()
        self._begun = asyncio.Event()
        self._context = copy_context()  # handlers start from it
        self._begin_firing(self._loop, self._engine)
        self._state = "running"
        await self._declare_all()
        # No handler runs before all have joined, so that what it fires reaches the others.
        joining = [self._join(registration) for registration in list(self._registrations)]
        refusals = [each for each in await asyncio.gather(*joining, return_exceptions=True) if each is not None]
        if refusals:
            raise refusals[0]
        await self._start_relays(self._engine)

    @on_own_loop
    async def stop(self, grace: float | timedelta | None = None) -> None:
        """Let handlers finish for `grace` seconds, give back the events that they did not handle, and flush what was
        fired.

        A second caller waits for the same stop; a `grace` that it states counts from that moment, if it ends sooner. A
        handler that calls it does not wait, because it would wait for itself."""
        seconds = None if grace is None else check_seconds("grace", grace)
        if self._starting is not None:
            await asyncio.shield(self._starting)
        stopping = self._stopping
        if self._state == "running":
            stopping = self._begin_stop(min(self._grace, self._engine.grace_s) if seconds is None else seconds)
        elif stopping is not None and seconds is not None:
            asyncio.get_running_loop().call_later(seconds, stopping.cancel)
        if stopping is None:
            return
        if self._handled_now() is not None:
            stopping.add_done_callback(_log_refusal)
            return
        await asyncio.wait([stopping])
        if not stopping.cancelled():
            stopping.result()

    def _begin_stop(self, grace: float) -> asyncio.Task[None]:
        self._state = "stopping"
        self._stopping = asyncio.get_running_loop().create_task(self._stop(grace))
        return self._stopping

    async def _stop(self, grace: float) -> None:
        until = monotonic() + max(1.0, grace)  # for all of it together
        try:
            begun = {each.joining for each in self._registrations if each.joining is not None} | self._tasks
            await finish(begun, max(1.0, grace))  # a server may be unreachable
            await self._stop_relays()
            # All of them stop before any gives something back, or it would be handed to the next.
            for registration in self._registrations:
                if registration.runner is not None:
                    self._engine.leaving(registration.instance)
            for reader in list(self._readers):
                await self._leave_reader(reader)
            await asyncio.gather(*(each.leave(self._engine, grace) for each in self._registrations))
        except asyncio.CancelledError:  # by a later call of stop with less time
            until = monotonic()
            left = [each.leave(self._engine, 0) for each in self._registrations]  # those not reached yet
            await asyncio.gather(*left, return_exceptions=True)
            raise
        finally:
            await self._end(max(0.5, until - monotonic()))

    async def _end(self, seconds: float) -> None:
        """Refuse further events, and send those already fired, for at most `seconds`."""
        try:
            await self._end_firing(seconds)
        finally:
            try:
                await complete(asyncio.ensure_future(self._engine.stop()))
            finally:
                limited.flush()
                self._state = "stopped"
                self._loop = self._stopping = None

    @property
    def busy(self) -> int:
        """How many handlers are running in this process."""
        return sum(each.runner.at_work for each in self._registrations if each.runner is not None)

    async def __aenter__(self) -> SolarWind:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if isinstance(error, asyncio.CancelledError):  # by Ctrl-C, in most programs
            log_draining(self)
        await self.stop()

    # Inner --------------------------------------------------------------------------------------------

    async def _join(self, registration: Registration) -> None:
        await registration.enter(self._engine, self._begun, self._limits, self._context, self._around)

    def _start_joining(self, registration: Registration) -> None:
        registration.joining = asyncio.ensure_future(self._join_late(registration))
        registration.joining.add_done_callback(_log_refusal)

    async def _join_late(self, registration: Registration) -> None:
        try:
            await self._join(registration)
        except BaseException:
            if registration in self._registrations:  # else it was removed meanwhile
                self._registrations.remove(registration)
            raise

    def _begin_relay(self, relay: Relay) -> None:
        if self._loop is not None and self._state == "running":
            self._on_loop(lambda: self._spawn(relay.start(self._engine, self._limits, self._around.observer)))

    def _handled_now(self) -> Event | None:
        """Return the event whose handler calls this, unless the handler has returned."""
        handled = handling.get()
        return handled if handled is not None and handled._of.home is self._engine and handled._is_handled else None

    def _on_loop(self, work: Callable[[], object]) -> None:
        assert self._loop is not None
        if get_ident() == self._thread_id:
            work()
        else:
            self._loop.call_soon_threadsafe(work)

    def _is_started(self) -> bool:
        return self._state != "not started"

    def _declare_soon(self, work: Callable[[], Any]) -> None:
        if self._loop is not None and self._state == "running":
            self._on_loop(lambda: self._spawn(work()))

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(_log_refusal)

    def _leave_behind(self) -> None:
        super()._leave_behind()
        self._state = "forked"
        error = Unavailable(self._forked)
        if isinstance(self._engine, Running):
            self._engine.leave_behind(error)
        self._loop = self._starting = self._stopping = None  # the parent's
        for reader in self._readers:
            reader.closed = self._forked

    def _check_process(self) -> None:
        if self._forked:
            raise Unavailable(self._forked)

    def _check_running(self) -> None:
        self._check_process()
        if self._state != "running":
            raise Unavailable(not_running(self._state, self._to_start))

    def _check_not_running(self) -> None:
        if self._state not in ("not started", "stopped"):
            raise Unavailable(f"expected a SolarWind that does not run, got one that is {self._state}: stop it first")


def _log_refusal(task: asyncio.Future[None]) -> None:
    error = None if task.cancelled() else task.exception()
    if error is not None:
        log.error("refused: %s", error, exc_info=None if isinstance(error, SolarWindError) else error)
