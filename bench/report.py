"""Puts what was measured into a document: where it says `<!-- bench: NAME -->`, up to the next `<!-- end -->`, come the
command, the tables and the plots of that benchmark. All else in it stays as it is."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import machine
import plots
from harness import shown

PLOTS = "benchmarks"  # a folder beside the document
HEAD = "| ratio | median | min | max | goal |\n|---|---:|---:|---:|---:|---|"
PLACE = r"(<!-- bench: {name} -->\n).*?(<!-- end -->)"


def check_places(document: Path, names: Sequence[str]) -> None:
    """Raise `ValueError` if the document has no place for one of these benchmarks."""
    text = document.read_text()
    missing = [name for name in names if not re.search(PLACE.format(name=re.escape(name)), text, re.DOTALL)]
    if missing:
        wanted = f"<!-- bench: {missing[0]} --> and <!-- end -->"
        raise ValueError(f"expected {document} to have a place for {', '.join(missing)}: add lines with {wanted}")


def put(document: Path, name: str, command: str, tables: Sequence[Mapping[str, Any]], own: Mapping[str, float]) -> None:
    """Replace what a document says of a benchmark, and its plots. `own` are the machine's own figures."""
    folder = document.parent / PLOTS
    folder.mkdir(exist_ok=True)
    for old in folder.glob(f"{name}-*.svg"):
        if re.fullmatch(rf"{re.escape(name)}-\d+", old.stem):
            old.unlink()
    parts = [f"`{command}`"]
    for number, table in enumerate(tables, 1):
        parts.append(markdown(table))
        if plots.has_peer(table):
            picture = folder / f"{name}-{number}.svg"
            picture.write_text(plots.svg(table, own))
            parts.append(f"![{table['title']}]({PLOTS}/{picture.name})")
    body = "\n\n".join(parts) + "\n"
    place = re.compile(PLACE.format(name=re.escape(name)), re.DOTALL)
    document.write_text(place.sub(lambda found: found[1] + body + found[2], document.read_text(), count=1))


def markdown(table: Mapping[str, Any]) -> str:
    lines = [f"| {_cell(table['title'])} {HEAD}"]
    for row in table["rows"]:
        ratio = row["ratio"]
        shares = "" if ratio is None else f"{ratio:.{2 if ratio >= 0.1 else 4}f} ×"
        figures = [shown(row[each], row["unit"]) for each in ("median", "min", "max")]
        goals = ", ".join(f"{each['goal']}: {'met' if each['met'] else 'missed'}" for each in row["goals"])
        lines.append("| " + " | ".join((_cell(row["name"]), shares, *figures, _cell(goals))) + " |")
    note = table["note"]
    return "\n".join(lines) + (f"\n\n{note[0].upper()}{note[1:].rstrip('.')}." if note else "")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def own_figures(tables: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Return of the tables of `machine.py` what other plots have lines of: in µs, and in events/s."""
    rows = {row["name"]: row["median"] for table in tables for row in table["rows"]}
    return {
        plots.FDATASYNC: rows[f"{machine.FDATASYNC}, p50"],
        plots.LOOPBACK: rows[f"{machine.LOOPBACK}, p50"],
        plots.BARE: rows[machine.BARE],
    }
