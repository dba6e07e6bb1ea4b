"""`top`: the operation `statistics` as a table that is refreshed, with the changes since the last time as rates."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import msgspec

from ..errors import Unavailable
from ..records import PurposeStatistics, Statistics
from . import show
from .options import DEFAULT_URL, JsonOption, UrlOption, option

if TYPE_CHECKING:
    from ..wind import SolarWind

_COLUMNS = (
    "TOPIC", "FIRED", "FIRED/S", "PURPOSE", "EXCHANGE", "INSTANCES", "PENDING", "IN FLIGHT", "SETTLED", "SETTLED/S",
    "RETRIED", "DEAD", "DROPPED",
)  # fmt: skip


def top(
    interval: Annotated[float, option("interval", "Seconds between two looks.", min=0.05)] = 1.0,
    count: Annotated[int | None, option("count", "Leave after so many looks.", min=1)] = None,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Show the numbers of topics and purposes, and their rates, again and again."""
    from .reach import operate

    operate(url, lambda wind: _watch(wind, interval, count, json))


class Sample(NamedTuple):
    """The statistics at a time, in seconds."""

    time: float
    statistics: Statistics


async def _watch(wind: SolarWind, interval: float, count: int | None, json: bool) -> None:
    """Show the statistics every `interval` seconds, `count` times or until it is interrupted."""
    from .reach import leave_on_signals

    leave_on_signals()
    screen, put = _screen(json)
    before = None
    shown = 0
    is_there = True
    with screen, suppress(asyncio.CancelledError):
        while True:
            try:
                look = Sample(monotonic(), await wind.statistics())
            except Unavailable as error:  # it may come back: a final failure ends the engine, which reports it
                if wind.failed.done():
                    raise
                if is_there:
                    show.note(f"{error}: reconnecting")
                is_there, before = False, None
                await asyncio.sleep(interval)
                continue
            if not is_there:
                show.note("reconnected")
            is_there = True
            put(look, before)
            before = look
            shown += 1
            if shown == count:
                return
            await asyncio.sleep(interval)


def _screen(json: bool) -> tuple[AbstractContextManager[object], Callable[[Sample, Sample | None], None]]:
    """Return the context of the output, and the function that shows a sample."""
    if json:
        return nullcontext(), _put_line
    if not sys.stdout.isatty():
        return nullcontext(), _put_table
    from rich.console import Console
    from rich.live import Live

    live = Live(console=Console(highlight=False), auto_refresh=False, vertical_overflow="crop")

    def put(look: Sample, before: Sample | None) -> None:
        values = _rows(look, before)
        live.update(show.Fitting(_COLUMNS, values) if values else "No topics.", refresh=True)

    return live, put


def _put_table(look: Sample, before: Sample | None) -> None:
    show.say(show.cell(datetime.now(UTC)))
    show.rows(_COLUMNS, _rows(look, before), none="No topics.")
    show.say("")
    sys.stdout.flush()


def _rows(look: Sample, before: Sample | None) -> list[tuple[object, ...]]:
    """Return a row for each purpose, and one for each topic without a purpose."""
    rows: list[tuple[object, ...]] = []
    for topic, counts in sorted(look.statistics.topics.items()):
        fired = (topic, counts.fired, _fired_rate(look, before, topic))
        purposes = sorted((key[1], now) for key, now in look.statistics.purposes.items() if key[0] == topic)
        for purpose, now in purposes:
            rate = _settled_rate(look, before, topic, purpose)
            held = now.instances, now.pending, now.in_flight, now.settled
            rows.append((*fired, purpose, now.exchange, *held, rate, now.retried, now.dead, now.dropped))
        if not purposes:
            rows.append((*fired, *[None] * 10))
    return rows


def _put_line(look: Sample, before: Sample | None) -> None:
    topics = [
        {"topic": topic, "fired": counts.fired, "fired_per_s": _fired_rate(look, before, topic)}
        for topic, counts in sorted(look.statistics.topics.items())
    ]
    purposes: list[dict[str, Any]] = [
        {"topic": topic, "purpose": purpose}
        | msgspec.structs.asdict(now)
        | {"settled_per_s": _settled_rate(look, before, topic, purpose)}
        for (topic, purpose), now in sorted(look.statistics.purposes.items(), key=_name)
    ]
    show.put(show.line({"time": datetime.now(UTC), "topics": topics, "purposes": purposes}))


def _name(item: tuple[tuple[str, str], PurposeStatistics]) -> tuple[str, str]:
    return item[0]


def _fired_rate(look: Sample, before: Sample | None, topic: str) -> float:
    if before is None:
        return 0.0
    was = before.statistics.topics.get(topic)
    return _rate(look, before, look.statistics.topics[topic].fired - (was.fired if was else 0))


def _settled_rate(look: Sample, before: Sample | None, topic: str, purpose: str) -> float:
    if before is None:
        return 0.0
    was = before.statistics.purposes.get((topic, purpose))
    return _rate(look, before, look.statistics.purposes[topic, purpose].settled - (was.settled if was else 0))


def _rate(look: Sample, before: Sample, change: int) -> float:
    # A purpose that was retired and joined anew counts from 0 again.
    return round(max(0, change) / max(look.time - before.time, 1e-9), 1)
