"""The commands' output: tables for people, JSON for programs, and one line for a refusal.

Answers go to stdout, everything else to stderr. Text from events and names is escaped: it is never interpreted as
markup or as control codes of a terminal.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

import msgspec

from ..engine.watch import HIDDEN
from ..event import Event
from ..payload import BYTES, HIDDEN_JSON, as_json, is_json
from ..records import PurposeStatistics
from ..text import plain, plain_json

if TYPE_CHECKING:
    from rich.console import RenderableType

ProgressCallback = Callable[[int, int | None], None]

_WIDE = 1 << 30  # the width where there is no terminal
_ERROR = 200  # characters
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
    for name, time in (("due", event.due), ("expires", event.expires)):
        if time is not None:
            record[name] = time
    if event.extensions:
        record["extensions"] = event.extensions
    data = as_json(event.data, event.content_type)
    if _is_hidden(event):
        return record | {"content_type": HIDDEN_JSON, "payload": None}
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


def took(seconds: float) -> str:
    """Return how long something took, such as `12.5 ms` or `3 s`."""
    return f"{seconds * 1e3:.3g} ms" if seconds < 1 else f"{seconds:.3g} s"


def error_line(error: str | None) -> str:
    """Return an error in a line that says more than it: without its line ends, and cut where it is long."""
    text = " ".join((error or "").split())
    return text if len(text) <= _ERROR else f"{text[:_ERROR]}…"


def span(seconds: float) -> str:
    """Return a duration as options have it."""
    for unit, name in _UNITS:
        if seconds and seconds % unit == 0:
            return f"{seconds / unit:.0f}{name}"
    return f"{seconds:g}s" if seconds else "0"


def age(time: datetime | None) -> str | None:
    """Return how long ago it was, in its largest unit."""
    if time is None:
        return None
    seconds = max(0, int((datetime.now(UTC) - time).total_seconds()))
    for unit, name in _UNITS:
        if seconds >= unit:
            return f"{seconds // unit}{name}"
    return f"{seconds}s"


def counted(number: int, thing: str) -> str:
    return f"{number:,} {thing}" if number == 1 else f"{number:,} {thing}s"


def versions(now: PurposeStatistics) -> str:
    """Return the versions of a purpose: the current one, and the others that are not drained with their states, such as
    `1, 2: 25 %, 3: held`."""
    states = zip(now.versions, now.version_states or ["current"] * len(now.versions), strict=True)
    shown = ((version, state.removeprefix("ramping ")) for version, state in states if state != "drained")
    return ", ".join(str(version) if state == "current" else f"{version}: {state}" for version, state in shown)


def _is_hidden(event: Event) -> bool:
    """Return whether who asked has no right to see payloads: the server has put null in its place."""
    return event.content_type == HIDDEN_JSON and event.data == b"null"


def payload_text(event: Event) -> str:
    if _is_hidden(event):
        return HIDDEN
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
