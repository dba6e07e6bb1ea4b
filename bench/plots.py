"""Bars for the tables: an SVG for each that has a peer in it. There is no script in it, it fetches nothing, and it is
readable where a reader prefers dark and where light.

A bar is the median, with a line from the least to the most of the rounds. The fastest of each unit has a star, whoever
that is. Lines across the bars are what the machine itself takes, as `machine.py` measured it."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any
from xml.sax.saxutils import escape

from harness import shown

# The words by which a row is known for a peer's, or for the machine's; all others are Solar Wind's.
PEERS = re.compile(
    r"blinker|huey|NATS|Redis|JetStream|ZeroMQ|by hand|js\.publish|uvicorn|taskiq|dramatiq|Celery|procrastinate"
    r"|FastStream|beanstalkd|RabbitMQ"
)
MACHINE = re.compile(r"fdatasync|loopback|\bthread\b|await a function|event loops|what is there|64 KiB")
KIND = re.compile(r", (p[\d.]+|mean)$")  # rows that end alike are compared with each other
US = {"µs": 1.0, "ms": 1e-3}  # of one microsecond
FDATASYNC, LOOPBACK, BARE = "fdatasync", "loopback", "bare loop"  # the machine's: two in µs, one in events/s
EACH = "one fdatasync each"  # events/s
LOOKS = {
    FDATASYNC: ("dashed", "6 3"),
    EACH: ("dashed", "6 3"),
    LOOPBACK: ("dotted", "1 3"),
    BARE: ("dashed and dotted", "8 3 1 3"),
}
WIDTH, BAR, GAP, TOP, LETTER = 960, 16, 10, 44, 6.7  # px; the width of a letter is a guess that does for most fonts

STYLE = """
text { font: 12px system-ui, sans-serif; fill: #1f2328 } .title { font-weight: 600; font-size: 14px }
.back { fill: #ffffff } .best { font-weight: 700 } .note { fill: #59636e } .kind { font-weight: 600 }
.ours { fill: #c2540a } .peer { fill: #8c959f } .machine { fill: #2f8f5b }
.range { stroke: #1f2328 } .line { stroke: #1f6f43; stroke-width: 1.5 }
.figure { stroke: #ffffff; stroke-width: 5px; stroke-linejoin: round; paint-order: stroke }
@media (prefers-color-scheme: dark) {
text, .note { fill: #e6edf3 } .back { fill: #0d1117 } .note { fill: #9198a1 }
.ours { fill: #f0883e } .peer { fill: #6e7681 } .machine { fill: #3fb27f }
.range { stroke: #e6edf3 } .line { stroke: #3fb27f } .figure { stroke: #0d1117 }
}
"""


def kind_of(row: Mapping[str, Any]) -> str:
    """Return which side a row is of."""
    name = row["name"]
    return "machine" if MACHINE.search(name) else "peer" if PEERS.search(name) else "ours"


def has_peer(table: Mapping[str, Any]) -> bool:
    kinds = {kind_of(row) for row in table["rows"]}
    return "ours" in kinds and "peer" in kinds


def best(rows: Sequence[Mapping[str, Any]]) -> Mapping[str, Any] | None:
    """Return the fastest of rows of one unit, the machine's apart; nothing where there is no choice."""
    able = [row for row in rows if kind_of(row) != "machine"]
    if len(able) < 2:
        return None
    pick = max if able[0]["unit"].endswith("/s") else min
    return pick(able, key=lambda row: row["median"])


def svg(table: Mapping[str, Any], machine: Mapping[str, float]) -> str:
    """Return the picture of a table. `machine` has the machine's own figures by name, in µs and events/s."""
    left = min(440.0, 24 + max(len("★ " + row["name"]) for row in table["rows"]) * LETTER)
    y, parts, figures = float(TOP), [], []  # figures come last: a line of the machine's may be where one stands
    drawn = set()
    for kind, rows in _groups(table).items():
        top = max(row["max"] for row in rows) or 1.0
        scale = (WIDTH - left - 215) / top
        lines = {name: figure for name, figure in _lines(rows[0]["unit"], machine).items() if figure <= top}
        if kind:
            parts.append(f'<text class="kind" x="16" y="{y + 12:.0f}">{escape(kind)}</text>')
            y += BAR + GAP / 2
        start, first = y, best(rows)
        for row in rows:
            bar, figure = _bar(row, row is first, left, y, scale)
            parts.append(bar)
            figures.append(figure)
            y += BAR + GAP
        for name, figure in lines.items():
            drawn.add(name)
            x, ends = left + figure * scale, f'y1="{start - 4:.0f}" y2="{y - 4:.0f}"'
            parts.append(f'<line class="line" stroke-dasharray="{LOOKS[name][1]}" x1="{x:.1f}" x2="{x:.1f}" {ends}/>')
        y += GAP
    for unit in dict.fromkeys(row["unit"] for row in table["rows"]):
        said = [
            f"{name} {shown(figure, unit)} ({LOOKS[name][0] if name in drawn else 'beyond the bars'})"
            for name, figure in _lines(unit, machine).items()
        ]
        if said:
            text = escape("This machine: " + " · ".join(said))
            parts.append(f'<text class="note" x="16" y="{y + 8:.0f}">{text}</text>')
            y += BAR + GAP / 2
    y += GAP
    title = escape(table["title"])
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {y:.0f}" width="{WIDTH}" height="{y:.0f}" '
        f'role="img"><title>{title}</title><style>{STYLE}</style>'
        f'<rect class="back" width="{WIDTH}" height="{y:.0f}"/><text class="title" x="16" y="26">{title}</text>\n'
        + "\n".join(parts + figures)
        + "\n</svg>\n"
    )


def _groups(table: Mapping[str, Any]) -> dict[str, list[Mapping[str, Any]]]:
    """Return the rows that are compared with each other, by what is said above them."""
    found: dict[tuple[str, str], list[Mapping[str, Any]]] = {}
    for row in table["rows"]:
        ending = KIND.search(row["name"])
        found.setdefault((row["unit"], ending[1] if ending else ""), []).append(row)
    if len(found) == 1:
        return {"": next(iter(found.values()))}
    return {" ".join(part for part in (ending, f"[{unit}]") if part): rows for (unit, ending), rows in found.items()}


def _bar(row: Mapping[str, Any], first: bool, left: float, y: float, scale: float) -> tuple[str, str]:
    """Return a row without its figure, and the figure."""
    kind, middle = kind_of(row), y + BAR / 2
    name = ("★ " if first else "") + row["name"]
    limit = round((left - 24) / LETTER)
    if len(name) > limit:
        name = name[: limit - 1] + "…"
    figure = shown(row["median"], row["unit"])
    if row["ratio"] is not None:
        figure += f" · {row['ratio']:.{2 if row['ratio'] >= 0.1 else 4}f} ×"
    width, low, high = (max(1.0, row[each] * scale) for each in ("median", "min", "max"))
    weight, kinds = (' class="best"', "figure best") if first else ("", "figure")
    bar = (
        f'<text{weight} x="{left - 8:.0f}" y="{middle + 4:.0f}" text-anchor="end">{escape(name)}</text>'
        f'<rect class="{kind}" x="{left:.0f}" y="{y:.0f}" width="{width:.1f}" height="{BAR}"/>'
        f'<line class="range" x1="{left + low:.1f}" x2="{left + high:.1f}" y1="{middle:.0f}" y2="{middle:.0f}"/>'
    )
    x = left + max(width, high) + 8
    return bar, f'<text class="{kinds}" x="{x:.1f}" y="{middle + 4:.0f}">{escape(figure)}</text>'


def _lines(unit: str, machine: Mapping[str, float]) -> dict[str, float]:
    """Return what the machine takes, in a unit; nothing where that is no comparison."""
    found = {}
    for name, figure in machine.items():
        if name == BARE:
            if unit == "events/s":
                found[name] = figure
        elif unit in US:
            found[name] = figure * US[unit]
        elif unit == "events/s" and name == FDATASYNC:
            found[EACH] = 1e6 / figure
    return found
