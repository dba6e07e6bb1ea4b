"""The table of `top`: how it is made, shown and asked for anew, and which keys change it."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from datetime import UTC, datetime
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from ..errors import Unavailable
from ..records import PurposeStatistics, Statistics, TopicStatistics
from ..text import plain
from . import show, tables
from .top import Sort

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType

    from ..wind import SolarWind

_COLUMNS = tables.Columns(
    ("TOPIC", "PURPOSE", "STATE", "INSTANCES", "PENDING", "OLDEST", "IN FLIGHT", "FIRED/S", "SETTLED/S", "5 MIN",
     "RETRIED", "DEAD", "DROPPED", "FIRED", "SETTLED", "EXCHANGE", "VERSIONS"),
    ("TOPIC", "PURPOSE", "PENDING", "OLDEST", "SETTLED/S", "5 MIN", "STATE", "VERSIONS", "DEAD", "FIRED/S",
     "INSTANCES", "IN FLIGHT"),
)  # fmt: skip
_NO_PURPOSE = PurposeStatistics("", (), 0, 0, 0, 0, 0, 0, 0)
_STYLES = {"nobody up": "red", "failing": "yellow", "paused": "dim"}
_SLOW_S = 2.0  # without an answer, after which that is said
_MAX_FILTER = 80  # characters
_ARROWS = re.compile(r"\x1b[\[O][0-9;]*[A-Za-z~]")  # and other keys that have no letter


class Row(NamedTuple):
    """A purpose, or a topic without one."""

    topic: str
    purpose: str | None
    fired: TopicStatistics
    now: PurposeStatistics

    def cells(self) -> tuple[object, ...]:
        now, fired = self.now, self.fired
        if self.purpose is None:
            return (self.topic, *[None] * 6, fired.fired_per_s, *[None] * 5, fired.fired, *[None] * 3)
        course = tables.Spark(now.rates.recent or (0,) * 30)
        state = now.state, now.instances, now.pending, show.age(now.oldest), now.in_flight
        rates = fired.fired_per_s, now.rates.settled, course, now.retried, now.dead, now.dropped
        return (self.topic, self.purpose, *state, *rates, fired.fired, now.settled, now.exchange, show.versions(now))


_AGELESS = datetime.max.replace(tzinfo=UTC)
# The smallest first: the largest numbers, the oldest event, the highest rates.
_KEYS: dict[Sort, Callable[[Row], Any]] = {
    Sort.TOPIC: lambda row: "",
    Sort.PENDING: lambda row: -row.now.pending,
    Sort.OLDEST: lambda row: row.now.oldest or _AGELESS,
    Sort.FIRED: lambda row: -row.fired.fired_per_s,
    Sort.SETTLED: lambda row: -row.now.rates.settled,
    Sort.RETRIED: lambda row: -row.now.retried,
    Sort.DEAD: lambda row: -row.now.dead,
}


class View:
    """What is shown: the last answer, in which order, of which names, and whether the server is there."""

    def __init__(self, url: str, sort: Sort, filter: str) -> None:
        self._url = url
        self.sort, self.filter, self.reverse = sort, filter, False
        self.typing = False  # the filter is being typed
        self.answer: Statistics | None = None
        self.asked_at = self.answered_at = monotonic()
        self.away = ""  # why there is no answer

    def rows(self) -> list[Row]:
        """Return the rows that the filter lets through, in order."""
        found, of_topic = self.answer or Statistics({}, {}), dict[str, list[Row]]()
        for (topic, purpose), now in found.purposes.items():
            of_topic.setdefault(topic, []).append(Row(topic, purpose, found.topics[topic], now))
        rows = [
            row
            for topic, fired in found.topics.items()
            for row in of_topic.get(topic, [Row(topic, None, fired, _NO_PURPOSE)])
        ]
        text, key = self.filter.casefold(), _KEYS[self.sort]
        shown = [row for row in rows if text in row.topic.casefold() or text in (row.purpose or "").casefold()]
        shown.sort(key=lambda row: (row.topic, row.purpose or ""))
        shown.sort(key=key)
        return shown[::-1] if self.reverse else shown

    def press(self, key: str) -> bool:
        """Do what a key says. Return False where it says to leave."""
        if self.typing:
            self._type(key)
        elif key == "s":
            order = list(Sort)
            self.sort = order[(order.index(self.sort) + 1) % len(order)]
        elif key == "r":
            self.reverse = not self.reverse
        elif key == "/":
            self.typing, self.filter = True, ""
        elif key == "\x1b":
            self.filter = ""
        return self.typing or key not in ("q", "\x04")

    def _type(self, key: str) -> None:
        if key in ("\r", "\n", "\x1b"):
            self.typing, self.filter = False, "" if key == "\x1b" else self.filter
        elif key in ("\x7f", "\b"):
            self.filter = self.filter[:-1]
        elif key.isprintable():
            self.filter = (self.filter + key)[:_MAX_FILTER]

    def status(self) -> str:
        """Return in a line what is shown."""
        if self.away:
            return f"away for {monotonic() - self.answered_at:.0f} s, waiting: {self.away}"
        silent = monotonic() - self.asked_at
        if self.asked_at > self.answered_at and silent > _SLOW_S:
            return f"no answer for {silent:.0f} s, waiting for {self._url}"
        order = f"by {self.sort} reversed" if self.reverse else f"by {self.sort}"
        names = [f"with {self.filter!r}"] if self.filter or self.typing else []
        return "  ".join([datetime.now(UTC).strftime("%H:%M:%SZ"), order, *names, self._url])

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        from rich.text import Text

        def line(text: str, style: str) -> Text:
            return Text(plain(text), style, no_wrap=True, overflow="ellipsis")

        rows = self.rows()
        shown = rows[: max(1, options.max_height - 4)]
        more = f"{len(rows) - len(shown)} more" if len(rows) > len(shown) else ""
        keys = "type a part of a name, Enter" if self.typing else "s sort  r reverse  / filter  q leave"
        yield line(self.status(), "bold red" if self.away else "")
        if shown:
            table = tables.Table(_COLUMNS, [row.cells() for row in shown])
            table.styles = ["dim" if self.away else _STYLES.get(row.now.state, "") for row in shown]
            yield table
        elif self.answer is not None:
            yield Text("Nothing has that in its name." if self.answer.topics else "No topics.")
        yield Text("")
        yield line("  ".join([each for each in (more, keys) if each]), "dim")


class Output(NamedTuple):
    """Where a view is shown: `draw` it, with a new answer or not; and `note` what a screen has in its first line."""

    context: AbstractContextManager[object]
    draw: Callable[[bool], None]
    note: Callable[[str], None]


async def watch(wind: SolarWind, view: View, interval: float, count: int | None, json: bool) -> None:
    """Show the statistics every `interval` seconds, `count` times or until it is interrupted."""
    from .reach import leave_on_signals

    leave_on_signals()
    left: asyncio.Future[None] = asyncio.get_running_loop().create_future()  # done, or failed, by a key
    output = _output(view, json, count, left)
    shown = 0
    with output.context, suppress(asyncio.CancelledError):
        while not left.done():
            shown += await _ask(wind, view, output)
            if shown == count:
                return
            await asyncio.wait([left], timeout=interval)
        left.result()


async def _ask(wind: SolarWind, view: View, output: Output) -> bool:
    """Ask for the numbers and show them. Return whether there is an answer; while there is none, a screen says so."""
    view.asked_at = monotonic()
    asked = asyncio.ensure_future(wind.statistics())
    try:
        while not (await asyncio.wait([asked], timeout=1.0))[0]:
            output.draw(False)
        view.answer = asked.result()
    except Unavailable as error:  # it may come back: a final failure ends the engine, which reports it
        if wind.failed.done():
            raise
        if not view.away:
            output.note(f"{error}: reconnecting")
        view.away = str(error)
        output.draw(False)
        return False
    finally:
        asked.cancel()
    if view.away:
        output.note("reconnected")
    view.away, view.answered_at = "", monotonic()
    output.draw(True)
    return True


def _output(view: View, json: bool, count: int | None, left: asyncio.Future[None]) -> Output:
    if json:
        return Output(nullcontext(), lambda new: _put_line(view) if new else None, show.note)
    if not sys.stdout.isatty():
        return Output(nullcontext(), lambda new: _put_table(view) if new else None, show.note)
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    live = Live(console=console, auto_refresh=False, vertical_overflow="crop", screen=count is None)

    def draw(new: bool) -> None:
        live.update(view, refresh=True)

    def press(keys: str) -> None:
        pressed = [view.press(key) for key in keys]
        draw(False)
        if not all(pressed) and not left.done():
            left.set_result(None)

    @contextmanager
    def screen() -> Iterator[None]:
        with live, _keys(press, left):
            yield

    return Output(screen(), draw, lambda text: None)


@contextmanager
def _keys(press: Callable[[str], None], failed: asyncio.Future[None]) -> Iterator[None]:
    """Call `press` with what is typed, where standard input is the terminal, and this process in its foreground. The
    future gets what it raises."""
    import termios
    import tty

    terminal = sys.__stdin__.fileno() if sys.__stdin__ is not None else -1
    try:
        listens = os.tcgetpgrp(terminal) == os.getpgrp()
    except OSError:  # no terminal, or not its own
        listens = False
    if not listens:
        yield
        return
    loop = asyncio.get_running_loop()

    def read() -> None:
        try:
            typed = os.read(terminal, 1024).decode(errors="ignore")
            if typed:
                press(_ARROWS.sub("", typed))
            else:
                loop.remove_reader(terminal)
        except Exception as error:
            loop.remove_reader(terminal)
            if not failed.done():
                failed.set_exception(error)

    before = termios.tcgetattr(terminal)
    tty.setcbreak(terminal)
    loop.add_reader(terminal, read)
    try:
        yield
    finally:
        loop.remove_reader(terminal)
        termios.tcsetattr(terminal, termios.TCSADRAIN, before)


def _put_table(view: View) -> None:
    show.say(show.cell(datetime.now(UTC)))
    found = "Nothing has that in its name." if view.filter else "No topics."
    tables.rows(_COLUMNS, [row.cells() for row in view.rows()], none=found)
    show.say("")
    sys.stdout.flush()


def _put_line(view: View) -> None:
    rows = view.rows()
    fired = {row.topic: row.fired for row in rows}
    topics = [{"topic": topic} | msgspec.structs.asdict(counts) for topic, counts in fired.items()]
    purposes = [
        {"topic": row.topic, "purpose": row.purpose} | msgspec.structs.asdict(row.now)
        for row in rows
        if row.purpose is not None
    ]
    show.put(show.line({"time": datetime.now(UTC), "topics": topics, "purposes": purposes}))
