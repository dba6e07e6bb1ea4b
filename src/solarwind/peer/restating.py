"""What a client states of itself that a dispatcher may have forgotten while it was away, such as one in memory that
was started again: it is stated again on each new connection."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from ..errors import Busy, SolarWindError, StoreError, Unavailable
from ..logs import limited

if TYPE_CHECKING:
    from ..engine.request import Request

MAX_RESTATED = 2_000  # requests: the newest


class Restating:
    """The last request of each operation that says `restated`, for each topic."""

    def __init__(self) -> None:
        self._requests: dict[tuple[str, str], Request[Any]] = {}

    def note(self, request: Request[Any]) -> None:
        """Note a request that was answered, if it is one to restate."""
        if request.operation.restated:
            name = (request.operation.name, request.arguments["topic"])
            self._requests.pop(name, None)
            if len(self._requests) == MAX_RESTATED:
                del self._requests[next(iter(self._requests))]
            self._requests[name] = request

    async def restate(self, ask: Callable[[Request[Any]], Awaitable[list[Any]]]) -> None:
        """Ask all of them, and log what is answered. Raise what passes: then the connection is made anew."""
        for (name, topic), request in list(self._requests.items()):
            try:
                (text,) = await ask(request)
            except SolarWindError as error:
                if isinstance(error, Unavailable | StoreError | Busy):
                    raise
                text = f"what this process states of topic {topic!r} is not known to the dispatcher any more: {error}"
            if text:
                limited.warning((name, topic), "%s", text)
