"""The log of events of `dev`: what is fired, and what becomes of it, in no more lines than a person can read.

It looks twice a second: the counts of topics say where something was fired, and the events that are shown are followed
until nothing of them is open. What is too much for a look is counted, and said in one line for each topic. So what it
asks of the dispatcher is bounded, whatever flows.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..errors import NotFound, SolarWindError
from ..logs import limited
from ..records import Outcome
from ..text import plain
from . import show

if TYPE_CHECKING:
    from ..event import Event
    from ..wind import SolarWind

LOOK_S = 0.5  # between two looks
MAX_EVENTS = 20  # that are shown of one look,
MAX_TOPICS = 20  # and topics that are read for it
MAX_ASKED = 40  # events that are asked what became of them, in one look
MAX_OPEN = 500  # that are followed
NOBODY_S = 10  # an event that no purpose gets is followed: so long an app may take to join; fewer than MAX_OPEN in it
MAX_KNOWN = 10_000  # events whose depth in their chain is known
MAX_DEPTH = 8  # that is shown
_SHARE = 9  # looking takes no more than one part in ten of the time
_PAYLOAD = 100  # characters
_SHORT = 8  # of an id
_NAMED = 3  # topics in the line of those that are only counted
_OVER = "settled", "dead", "expired", "discarded", "copied", "not for it"
_QUIET = "pending", "in hand", "not for it"
_SIGNS = {"settled": ("✓", "green"), "dead": ("✕", "red"), "waiting": ("↻", "yellow")}


class Line(NamedTuple):
    """What is said at a time: a text with its style, and the same for programs."""

    time: datetime
    root: str  # the id of the event at the head of the chain; "" for none
    depth: int
    text: str
    style: str
    record: dict[str, Any]


Put = Callable[[Line], None]


class _Open(msgspec.Struct):
    """An event that is followed, and what was said of it for each purpose."""

    event: Event
    depth: int
    since: float  # by the monotonic clock
    said: dict[str, tuple[str, int]] = {}


class _Source(msgspec.Struct):
    """A topic: how many of the fired events were shown or counted, and where to read on."""

    counted: int
    since: datetime | str
    after: str | None = None


class EventLog:
    """Follows what is fired at a dispatcher."""

    def __init__(self, wind: SolarWind, put: Put) -> None:
        self._wind = wind
        self._put = put
        self._began = datetime.now(UTC)
        self._sources: dict[str, _Source] | None = None
        self._open: OrderedDict[tuple[str, str], _Open] = OrderedDict()
        self._depths: OrderedDict[str, int] = OrderedDict()

    async def run(self) -> None:
        """Look again and again. A dispatcher that is away is waited for."""
        while True:
            began = time.perf_counter()
            try:
                await self.look()
            except SolarWindError as error:
                limited.warning(("event log",), "the log of events cannot be written now: %s", error)
            await asyncio.sleep(max(LOOK_S, _SHARE * (time.perf_counter() - began)))

    async def look(self) -> None:
        """Say what is new. The first look finds out where that begins."""
        fired = {name: topic.fired for name, topic in (await self._wind.statistics()).topics.items()}
        if self._sources is None:
            self._sources = {name: _Source(count, self._began) for name, count in fired.items()}
            return
        lines: list[Line] = []
        try:
            await self._new(self._sources, fired, lines)
            await self._became(lines)
        finally:  # what was counted is said
            for line in sorted(lines, key=lambda each: each.time):
                self._put(line)
        self._say_more(self._sources, fired)

    async def _new(self, sources: dict[str, _Source], fired: dict[str, int], lines: list[Line]) -> None:
        """Add lines of new events: of quiet topics first, so that a loud one does not hide them."""
        for name in sources.keys() - fired.keys():
            del sources[name]
        for name in fired.keys() - sources.keys():
            sources[name] = _Source(0, "beginning")
        news = sorted((count - sources[name].counted, name) for name, count in fired.items())
        active = [name for more, name in news if more > 0]
        for name in active[MAX_TOPICS:]:
            sources[name].since, sources[name].after = datetime.now(UTC), None
        found: list[Event] = []
        try:
            for number, name in enumerate(active[:MAX_TOPICS]):
                limit = (MAX_EVENTS - len(found)) // (min(len(active), MAX_TOPICS) - number)
                found += await self._read(name, sources[name], max(1, limit), fired[name])
        finally:  # a cause comes before what it caused, whose depth depends on it
            lines += [self._line_of(event) for event in sorted(found, key=lambda event: event.time)]

    async def _read(self, topic: str, source: _Source, limit: int, fired: int) -> list[Event]:
        """Return the next events of a topic, and go to its end where there are more."""
        how: dict[str, Any] = {"since": source.since} if source.after is None else {"after": source.after}
        try:
            page = await self._wind.events(topic, **how, limit=limit, tail=True)
        except NotFound:  # it is not kept
            source.since, source.after = datetime.now(UTC), None
            return []
        source.counted, source.after = source.counted + len(page), page.next
        if fired > source.counted:
            source.since, source.after = datetime.now(UTC), None
        return list(page)

    def _say_more(self, sources: dict[str, _Source], fired: dict[str, int]) -> None:
        """Say how many were fired that were not shown."""
        more = {name: count - sources[name].counted for name, count in fired.items()}
        loud = sorted(((count, name) for name, count in more.items() if count > 0), reverse=True)
        for _, name in loud:
            sources[name].counted = fired[name]
        shown, rest = (loud, []) if len(loud) <= _NAMED + 1 else (loud[:_NAMED], loud[_NAMED:])
        now = datetime.now(UTC)
        for count, name in shown:
            self._put(_note(now, f"… {count:,} more of {name}", {"more": count, "topic": name}))
        if rest:
            count = sum(each for each, _ in rest)
            text = f"… {count:,} more of {len(rest):,} other topics"
            self._put(_note(now, text, {"more": count, "topics": len(rest)}))

    # What became of them ----------------------------------------------------------------------------------------

    def _line_of(self, event: Event) -> Line:
        """Return the line of an event that was fired, and follow it from now on."""
        cause = event.cause
        by_event = cause.kind == "event"
        depth = self._depths.get(cause.id, 0) + 1 if by_event else 0
        self._depths[event.id] = depth
        if len(self._depths) > MAX_KNOWN:
            self._depths.popitem(last=False)
        self._open[event.topic, event.id] = _Open(event, depth, time.monotonic())
        by = f"by {cause.purpose} v{cause.version}" if by_event else f"by {cause.kind} {cause.id}"
        key = f" key={event.key}" if event.key is not None else ""
        payload = show.payload_text(event)
        short = payload if len(payload) <= _PAYLOAD else f"{payload[:_PAYLOAD]}…"
        text = f"{event.topic} {event.id}{key} {by}  {short}"
        return Line(event.time, event.root, depth, text, "bold", {"fired": show.event_record(event)})

    async def _became(self, lines: list[Line]) -> None:
        """Add what is new of the events that are followed: of the newest, and of those not looked at for longest."""
        left = len(self._open) - MAX_OPEN
        if left > 0:
            for _ in range(left):
                self._open.popitem(last=False)
            events = show.counted(left, "event that is" if left == 1 else "event")
            now = datetime.now(UTC)
            lines.append(_note(now, f"… {events} not followed any more", {"not_followed": left}))
        keys = list(self._open)
        asked = keys[-MAX_EVENTS:] + keys[: min(MAX_ASKED - MAX_EVENTS, max(0, len(keys) - MAX_EVENTS))]
        found = await asyncio.gather(*(self._wind.event(*key) for key in asked), return_exceptions=True)
        errors: dict[str, dict[tuple[str, int], str | None]] = {}
        for key, info in zip(asked, found, strict=True):
            of = self._open[key]
            if isinstance(info, NotFound):  # it is not kept any more
                del self._open[key]
                continue
            if isinstance(info, BaseException):
                raise info
            for each in _changed(of, info.outcomes):
                error = each.error
                if each.state == "waiting" and each.attempts:
                    if key[0] not in errors:
                        errors[key[0]] = await self._errors(key[0])
                    error = errors[key[0]].get((each.purpose, each.version or 0))
                lines.append(_line_of(of, each, error))
            waits = not info.outcomes and time.monotonic() - of.since < NOBODY_S
            if not waits and all(each.state in _OVER for each in info.outcomes):
                del self._open[key]
            else:
                self._open.move_to_end(key)

    async def _errors(self, topic: str) -> dict[tuple[str, int], str | None]:
        """Return why an instance of each purpose and version failed the last time."""
        found = await self._wind.instances(topic)
        return {(each.purpose, each.version): each.error for each in found if each.error is not None}


def _changed(of: _Open, outcomes: Iterable[Outcome]) -> Iterable[Outcome]:
    """Yield what was not said of an event yet, and is to be said."""
    for each in outcomes:
        now = each.state, each.attempts
        if of.said.get(each.purpose) != now:
            of.said[each.purpose] = now
            if each.state not in _QUIET:
                yield each


def _line_of(of: _Open, outcome: Outcome, error: str | None) -> Line:
    sign, style = _SIGNS.get(outcome.state, ("–", "dim"))
    version = f" v{outcome.version}" if outcome.version is not None else ""
    text = f"{sign} {outcome.purpose}{version} {outcome.state}"
    if outcome.state == "waiting" and outcome.until is not None:
        text += f" until {_clock(outcome.until)}" + ", for its delay" * (not outcome.attempts)
    if outcome.took_s is not None:
        text += f" in {show.took(outcome.took_s)}"
    if outcome.attempts > (outcome.state == "settled"):
        text += f" after {show.counted(outcome.attempts, 'attempt')}"
    if shown := show.error_line(error):
        text += f": {shown}"
    at = outcome.ended or (of.event.time if outcome.state == "copied" else datetime.now(UTC))
    record = {"topic": of.event.topic, "id": of.event.id, "outcome": msgspec.structs.replace(outcome, error=error)}
    return Line(at, of.event.root, of.depth + 1, text, style, record)


def _note(now: datetime, text: str, record: dict[str, Any]) -> Line:
    return Line(now, "", 0, text, "dim", record)


def _clock(at: datetime) -> str:
    return at.astimezone().strftime("%H:%M:%S.%f")[:-3]


def _short(id: str) -> str:
    """Return what tells an event from others nearby: the end of an id that the dispatcher made."""
    return id if len(id) <= _SHORT else id[-_SHORT:]


def printer(json: bool) -> Put:
    """Return what writes lines to stderr: as JSON, or for people, in colours on a terminal."""
    import sys

    if json:
        return lambda line: show.put(show.line({"time": line.time, "root": line.root} | line.record), sys.stderr)
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True, highlight=False, soft_wrap=True)

    def put(line: Line) -> None:
        head = f"{_clock(line.time)}  {plain(_short(line.root)):<{_SHORT}}  {'  ' * min(line.depth, MAX_DEPTH)}"
        console.print(Text.assemble((head, "dim"), (plain(line.text), line.style)), soft_wrap=True)

    return put


async def log_events(url: str, token: str, put: Put, begun: Callable[[], None]) -> None:
    """Log the events of a dispatcher until this is cancelled. What is fired once `begun` was called is in the log."""
    from ..wind import SolarWind

    async with SolarWind(url, token=token) as wind:
        log = EventLog(wind, put)
        await log.look()
        begun()
        await log.run()
