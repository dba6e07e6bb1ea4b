"""What all parts of a server share: the engine, access control, and limits."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

from ..engine.answers import Page
from ..engine.audit import Audit
from ..engine.base import Engine
from ..engine.request import Request
from ..engine.tasks import Tasks
from ..engine.watch import Facts, Filter, Watch
from ..errors import SolarWindError, Unavailable
from ..limits import Limits
from ..operations import OPERATIONS
from ..origin import MACHINE, process_name
from ..peer.clients import Clients
from ..peer.host import Rights
from ..service.group import IdNumbers
from ..wind import SolarWind
from .access import Access, Grant
from .bodies import BodyBudget
from .guard import Guard
from .payloads import without_payloads
from .revocation import Revocables
from .settings import Settings

log = logging.getLogger("solarwind")

R = TypeVar("R")


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
        self.engine: Engine = wind.engine  # that endpoints call
        self.limits: Limits = wind.limits
        self.settings = settings
        self.access = access
        self.guard = guard
        self.name = f"{MACHINE}/{process_name()}"
        self.running = self.was_started = False
        self.numbers = IdNumbers(wind.engine.author)  # for events that come by HTTP
        self.revocables = Revocables(access)
        self.bodies = BodyBudget(settings.bodies_bytes)
        self.uploads: set[Upload] = set()
        self.audit = Audit(lambda: self.engine.definitions)
        self.facts: dict[str, Callable[[], Facts]] = {}  # what the server's parts show viewers, by part
        self.collecting = Tasks(lambda _: None)  # ends when the server does
        self.watch = Watch(self._answer, lambda: self.collecting, self.facts)
        self.requests: Counter[tuple[str, str, int]] = Counter()  # answered: method, path, status
        self.failed: asyncio.Future[None]  # gets the error for which it cannot go on; exists once started
        self._error: SolarWindError | None = None

    def begin(self) -> None:
        """Start."""
        self.failed = asyncio.get_running_loop().create_future()
        self.failed.add_done_callback(lambda future: future.cancelled() or future.exception())
        self._error = None

    @property
    def connection_count(self) -> int:
        """The number of WebSocket connections."""
        return len(self._connections)

    def grant(self, token: str | None, uid: int | None) -> Grant:
        """See `peer.host.Host`."""
        return self.access.grant(token, uid)

    async def ask(self, request: Request[R], rights: Rights, by: str = "") -> R:
        """See `peer.host.Host`. Payloads and errors are left out for who may not see them."""
        assert isinstance(rights, Grant)  # which `grant` returned
        if request.operation.name == "watch":
            return await self._watched(rights, **request.arguments)  # type: ignore[return-value]
        answer = await self.wind.ask_here(self.asked_by(request, rights, by))
        if not rights.sees_payloads:
            answer = await without_payloads(request.operation.form.kind, answer)
        return answer

    async def _answer(self, name: str, **given: Any) -> Any:
        return await self.wind.ask_here(OPERATIONS[name].request(given))

    async def _watched(
        self,
        rights: Grant,
        parts: tuple[str, ...],
        topic: str | None,
        purpose: str | None,
        interval: int,
        after: str | None,
        wait: float,
    ) -> Page[str]:
        filter = Filter(parts, topic, purpose, interval, rights.sees_payloads)
        return await self.watch.page(filter, after, wait)

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
            raise self.not_running()
        self.engine.check()

    def not_running(self) -> Unavailable:
        """Return the refusal while it does not run."""
        if self.was_started:
            return Unavailable("expected a server that runs, got one that stops: try again when it is back")
        return Unavailable(
            "expected a server that runs, got one that was not started: enter its lifespan with that of the app "
            "that it is mounted in, as in `async with wind.lifespan(app), events.lifespan(app)`"
        )

    def fail(self, error: SolarWindError) -> None:
        """Stop serving after an unexpected error of a part: the server reports it and ends."""
        if self._error is None:
            self._error = error
            log.critical("the server cannot go on: %s", error)
            if not self.failed.done():
                self.failed.set_exception(error)
