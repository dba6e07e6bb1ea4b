"""The commands' output: tables for people, JSON for programs, and one line for a refusal.

Answers go to stdout, everything else to stderr. Text from events and names is escaped: it is never interpreted as
markup or as control codes of a terminal.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from ..event import Event
from ..payload import BYTES, as_json, is_json
from ..text import plain, plain_json

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderableType
    from rich.table import Table

ProgressCallback = Callable[[int, int | None], None]

_WIDE = 1 << 16  # the width where there is no terminal
_TIME_WIDTH = len("12:00:00.000Z")  # where there is little room, the date gets a line of its own
_TEXT_WIDTH = 8  # the narrowest that a column of text is folded to
MAX_NAMES = 2  # columns of text that identify a row, such as topic and purpose
_UNITS = ((86400, "d"), (3600, "h"), (60, "m"))


# --- for programs -------------------------------------------------------------------------------------------


def document(value: object) -> None:
    """Print one JSON document, with dates in ISO 8601."""
    put(plain_json(msgspec.json.format(msgspec.json.encode(value), indent=2)) + b"\n")


def line(value: object) -> bytes:
    """Return one JSON object on a line of its own, whatever whitespace its payload has."""
    return plain_json(msgspec.json.format(msgspec.json.encode(value), indent=-1)) + b"\n"


def put(data: bytes, file: TextIO | None = None) -> None:
    file = sys.stdout if file is None else file
    file.flush()
    while data:  # an unbuffered file may take a part
        data = data[file.buffer.write(data) :]
    file.buffer.flush()


def event_record(event: Event) -> dict[str, Any]:
    """Return an event for JSON. A payload of bytes is base64, with its content type."""
    cause = event.cause
    record = {
        "id": event.id,
        "topic": event.topic,
        "time": event.time,
        "machine": event.machine,
        "process": event.process,
        "key": event.key,
        "cause": {name: getattr(cause, name) for name in ("kind", "id", "purpose", "version") if getattr(cause, name)},
        "root": event.root,
    }
    if event.extensions:
        record["extensions"] = event.extensions
    data = as_json(event.data, event.content_type)
    if data is not None:
        return record | {"payload": data}
    return record | {
        "content_type": BYTES if is_json(event.content_type) else event.content_type,
        "payload": event.data,
    }


# --- for people ---------------------------------------------------------------------------------------------


def say(text: str) -> None:
    sys.stdout.write(plain(text) + "\n")


def refuse(error: object) -> None:
    """Print the one line on stderr."""
    note(f"solarwind: {' '.join(str(error).split())}")


def note(text: str) -> None:
    sys.stderr.write(plain(text) + "\n")
    sys.stderr.flush()


def rows(columns: Sequence[str], values: Sequence[Sequence[object]], none: str) -> None:
    """Print a table, or the sentence `none` where it would be empty."""
    if values:
        render(Fitting(columns, values))
    else:
        say(none)


def table(columns: Sequence[str], values: Sequence[Sequence[object]]) -> Table:
    """Return a table with numbers aligned to the right, in which no value is truncated and no id is broken."""
    from rich.table import Table
    from rich.text import Text

    made = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, name in enumerate(columns):
        number = any(isinstance(row[index], int | float) for row in values)
        min_width = _TIME_WIDTH if any(isinstance(row[index], datetime) for row in values) else None
        whole = number or name == "ID"
        made.add_column(
            name, justify="right" if number else "left", no_wrap=whole, min_width=min_width, overflow="fold"
        )
    for row in values:
        made.add_row(*(Text(cell(value)) for value in row))
    return made


class Fitting:
    """A table where the terminal is wide enough; else each row as a line of names, with the other values below.

    On 80 columns rich would break the headings and names of a purpose into pieces, and leave out whole columns.
    """

    def __init__(self, columns: Sequence[str], values: Sequence[Sequence[object]]) -> None:
        self._columns = columns
        self._values = values

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        made = table(self._columns, self._values)
        if self._min_width() <= options.max_width:
            yield made
            return
        from rich.text import Text

        named = [index for index, column in enumerate(made.columns) if column.justify == "left"][:MAX_NAMES]
        for row in self._values:
            yield Text("  ".join(cell(row[index]) for index in named), style="bold")
            rest = [index for index, value in enumerate(row) if index not in named and cell(value) != "-"]
            pairs = [f"{self._columns[index].lower()} {cell(row[index])}" for index in rest]
            yield Text("\n".join(f"  {line}" for line in _filled(pairs, options.max_width - 2)))

    def _min_width(self) -> int:
        """Return the width of a table that is still readable: numbers, ids and headings are whole, text is folded."""
        width = 2 * (len(self._columns) - 1)
        for index, name in enumerate(self._columns):
            values = [row[index] for row in self._values]
            longest = max((len(cell(value)) for value in values), default=0)
            if any(isinstance(value, datetime) for value in values):
                longest = _TIME_WIDTH
            elif name != "ID" and not any(isinstance(value, int | float) for value in values):
                longest = min(longest, _TEXT_WIDTH)
            width += max(len(name), longest)
        return width


def _filled(words: Sequence[str], width: int) -> list[str]:
    """Return lines with as many whole words as fit."""
    lines: list[str] = []
    for word in words:
        if lines and len(lines[-1]) + 2 + len(word) <= width:
            lines[-1] += f"  {word}"
        else:
            lines.append(word)
    return lines


def fields(record: Mapping[str, object]) -> None:
    """Print one record, one name and value on each line."""
    width = max(map(len, record))
    for name, value in record.items():
        say(f"{name:<{width}}  {cell(value)}")


def render(what: RenderableType, file: TextIO | None = None) -> None:
    """Print a renderable of rich: as wide as the terminal, or unlimited where there is none."""
    from rich.console import Console

    file = sys.stdout if file is None else file
    if file.isatty():
        Console(file=file, highlight=False).print(what)
        return
    text = io.StringIO()
    Console(file=text, width=_WIDE, color_system=None, force_terminal=False, highlight=False).print(what)
    file.writelines(each.rstrip() + "\n" for each in text.getvalue().splitlines())
    file.flush()


def cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat(" ", "milliseconds").replace("+00:00", "Z")
    if isinstance(value, float):
        return f"{value:,.1f}"
    if isinstance(value, int):
        return f"{value:,}"
    return plain(str(value))


def span(seconds: float) -> str:
    """Return a duration as options have it."""
    for unit, name in _UNITS:
        if seconds and seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:g}s" if seconds else "0"


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def payload_text(event: Event) -> str:
    data = as_json(event.data, event.content_type)
    if data is None:
        return f"{len(event.data):,} bytes"
    return plain(msgspec.json.format(data, indent=-1).decode())


# --- progress -----------------------------------------------------------------------------------------------


@contextmanager
def progress(what: str, unit: str) -> Iterator[ProgressCallback]:
    """Yield a function to call with the amount done, and the total if it is known. It shows only on a terminal."""
    if not sys.stderr.isatty():
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, Progress, TextColumn

    columns = TextColumn("{task.description}", markup=False), BarColumn(), TextColumn("{task.completed:,.0f} " + unit)
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(plain(what), total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
