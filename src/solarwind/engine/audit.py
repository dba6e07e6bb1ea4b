"""Who did which operator's verb, when, and to how many events: kept with the store, as definitions.

The verbs are the operations that are `audited`, and `OTHER_VERBS`, which are no operations of a dispatcher.

The last entries are kept, each in a place of its own that a later one takes over, so that there are never more. Of
several dispatchers that note something at a time, one changes a place first, and the others take the next.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import ConflictError, SolarWindError
from ..records import AuditEntry
from ..store.base import Full
from ..store.definitions import Definitions
from ..timing import time_of
from .answers import Page

if TYPE_CHECKING:
    from .arguments import ArgumentKind
    from .request import Request

log = logging.getLogger("solarwind")

MAX_ENTRIES = 1_000
OTHER_VERBS = "webhook put", "webhook delete", "token create", "token revoke"
_KIND = "audit"
_MAX_ARGUMENTS = 500  # characters
_TRIES = 100


class Audit:
    """Notes what operators do, where the dispatcher is that does it."""

    def __init__(self, definitions: Callable[[], Definitions]) -> None:
        self._definitions = definitions
        self._last = -1  # the number of the last entry; -1 until it is read
        self._places: dict[str, int] = {}  # a place -> the number of its definition
        self._noting = asyncio.Lock()
        self._waiting: list[AuditEntry] = []

    async def note(self, entry: AuditEntry) -> None:
        """Note what was done, with what is alike and waits too. Where that fails the log has it instead: it was done
        all the same."""
        self._waiting.append(entry)
        async with self._noting:
            await asyncio.sleep(0)  # for what was done at the same time
            if not any(each is entry for each in self._waiting):  # it went with another
                return
            alike = [each for each in self._waiting if each is entry or _are_alike(each, entry)]
            together, over = _together(alike), [entry]  # if this is cancelled, the next notes the others
            try:
                await self._put(together)
                over = alike
            except (SolarWindError, Full) as error:
                log.error("what %s did cannot be noted: %s: %s", together.by, together, error)
                over = alike
            finally:
                self._waiting = [each for each in self._waiting if not any(each is one for one in over)]

    async def _put(self, entry: AuditEntry) -> None:
        definitions = self._definitions()
        for _ in range(_TRIES):
            if self._last < 0:
                await self._read(definitions)
            number = self._last + 1
            place = f"{number % MAX_ENTRIES:04d}"
            value = msgspec.json.encode(msgspec.structs.replace(entry, number=number))
            try:
                definition = await definitions.put(_KIND, place, value, before=self._places.get(place, 0))
            except ConflictError:  # another dispatcher noted something there
                self._last = -1
                continue
            self._last, self._places[place] = number, definition.number
            return
        raise ConflictError("expected a place for the entry, but others keep taking it")

    async def _read(self, definitions: Definitions) -> None:
        found = await definitions.list(_KIND)
        self._places = {each.name: each.number for each in found}
        self._last = max((_entry(each.value).number for each in found), default=0)


async def read(definitions: Definitions, after: str | None, limit: int) -> Page[AuditEntry]:
    """Return a page of the entries, the latest first, from behind the one with the number `after` on."""
    found = sorted((_entry(each.value) for each in await definitions.list(_KIND)), key=lambda each: -each.number)
    left = [each for each in found if after is None or each.number < int(after)]
    return Page(left[:limit], str(left[limit - 1].number) if len(left) > limit else None)


def entry_of(request: Request[Any], answer: Any, time_ns: int) -> AuditEntry:
    """Return the entry for an operation, without its number."""
    arguments = request.arguments
    return AuditEntry(
        number=0,
        time=time_of(time_ns),
        by=request.by,
        verb=request.operation.name,
        topic=arguments.get("topic", ""),
        purpose=arguments.get("purpose", ""),
        arguments=_text(request),
        events=int(answer) if isinstance(answer, int) else None,
    )


def other_entry(verb: str, by: str, time: datetime, topic: str = "", purpose: str = "", **arguments: Any) -> AuditEntry:
    """Return the entry for one of `OTHER_VERBS`, without its number."""
    assert verb in OTHER_VERBS
    return AuditEntry(0, time, by, verb, topic, purpose, _short(arguments), None)


def _are_alike(one: AuditEntry, other: AuditEntry) -> bool:
    """Return whether both took an event of the same topic back, for the same person."""
    alike = (one.verb, one.by, one.topic) == (other.verb, other.by, other.topic)
    return alike and one.verb == "cancel"


def _together(entries: list[AuditEntry]) -> AuditEntry:
    """Return one entry for several that are alike, with the time of the first."""
    if len(entries) == 1:
        return entries[0]
    ids = [msgspec.json.decode(each.arguments)["id"] for each in entries]
    return msgspec.structs.replace(entries[0], arguments=_short({"ids": ids}), events=len(ids))


def _entry(value: bytes | None) -> AuditEntry:
    return msgspec.json.decode(value or b"", type=AuditEntry)


def _text(request: Request[Any]) -> str:
    """Return the further arguments as JSON, as far as they are stated and short."""
    operation = request.operation
    stated = {
        name: _shown(value, kind)
        for name, kind in operation.kinds.items()
        if name not in ("topic", "purpose")
        and (value := request.arguments[name]) != operation.defaults.get(name, msgspec.UNSET)
    }
    return _short(stated)


def _shown(value: Any, kind: ArgumentKind) -> Any:
    """Return an argument as JSON may have it, and a time so that people can read it."""
    if isinstance(value, timedelta):
        return f"{value / timedelta(seconds=1):g} s ago"
    return value if kind.wire is None or isinstance(value, datetime) else kind.pack(value)


def _short(stated: dict[str, Any]) -> str:
    text = msgspec.json.encode(stated).decode() if stated else ""
    return text if len(text) <= _MAX_ARGUMENTS else text[: _MAX_ARGUMENTS - 1] + "…"
