"""What a client states of itself that a dispatcher may have forgotten while it was away, such as one in memory that
was started again: then it is stated again, before its instances join and before its events.

What a dispatcher remembers is not stated again: an operator may have changed it since. What an operator said is none of
this: a dispatcher that forgets everything forgets pauses, shares and webhooks, too.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Busy, SolarWindError, StoreError, Unavailable
from ..logs import limited

if TYPE_CHECKING:
    from ..engine.request import Request

MAX_RESTATED = 2_000  # statements: the newest


class _Stated(msgspec.Struct):
    """The last request for one name, and the store that has it."""

    request: Request[Any]
    store: str


class Restating:
    """What was stated last, by operation and name: see `Restated`."""

    def __init__(self) -> None:
        self._stated: dict[tuple[str, str], _Stated] = {}

    def note(self, request: Request[Any], store: str) -> None:
        """Note a request that was answered, if it is one to restate, or takes one back. `store` has it now."""
        operation, arguments = request.operation, request.arguments
        if operation.unstates:
            self._stated.pop((operation.unstates, arguments["name"]), None)
        if operation.restated is None or arguments.get("dry_run"):
            return
        name = (operation.name, arguments[operation.restated.what])
        before = self._stated.pop(name, None)
        if before is not None:
            said = {each: value for each, value in arguments.items() if value is not msgspec.UNSET}
            request = msgspec.structs.replace(request, arguments=before.request.arguments | said)
        if len(self._stated) == MAX_RESTATED:
            del self._stated[next(iter(self._stated))]
        self._stated[name] = _Stated(request, store)

    async def restate(self, ask: Callable[[Request[Any]], Awaitable[list[Any]]], store: str) -> None:
        """Ask all that is not known in `store`, in the order in which it was stated, and log what is answered. Raise
        what passes: then the connection is made anew."""
        for (operation, name), each in list(self._stated.items()):
            restated = each.request.operation.restated
            if each.store == store and not (restated and restated.always):
                continue
            try:
                texts = await ask(each.request)
            except SolarWindError as error:
                if isinstance(error, Unavailable | StoreError | Busy):
                    raise
                what = "schedule" if operation == "declare_schedule" else "topic"
                texts = [
                    f"what this process states of {what} {name!r} is not known to the dispatcher any more: {error}"
                ]
            each.store = store
            if texts and isinstance(texts[0], str) and texts[0]:
                limited.warning((operation, name), "%s", texts[0])
