"""Traces on the command line: a tree, one JSON document, or what changes in it as it does."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Iterator
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from ..errors import NotFound, Unavailable
from ..records import Outcome, Trace
from ..text import plain
from . import show
from .tables import Line

if TYPE_CHECKING:
    from rich.tree import Tree

    from ..wind import SolarWind

LOOK_S = 0.5  # between two looks at a trace that is followed
_OPEN = "pending", "in hand", "waiting"


def tree(root: Trace) -> Tree:
    """Return a trace as rich prints it."""
    from rich.console import Group
    from rich.text import Text
    from rich.tree import Tree

    def label(of: Trace) -> Group:
        return Group(*_lines(of))

    top = Tree(label(root))
    todo = [(root, top)]
    while todo:
        found, made = todo.pop()
        todo += [(child, made.add(label(child))) for child in found.caused]
        if found.more:
            made.add(Text(plain(_more(found)), overflow="fold"))
    return top


def record(root: Trace) -> dict[str, Any]:
    """Return a trace for JSON, the events that an event caused in it."""
    top = _node(root) | {"caused": []}
    todo = [(root, top)]
    while todo:  # a chain of causes may be longer than calls can nest
        found, made = todo.pop()
        made["caused"] = [_node(child) | {"caused": []} for child in found.caused]
        todo += zip(found.caused, made["caused"], strict=True)
    return top


async def follow(wind: SolarWind, arguments: dict[str, Any], json: bool) -> None:
    """Print each event of a trace, and again when something else became of it, until nothing in the tree is open in two
    looks one after the other, or this is cancelled."""
    shown: dict[str, list[object]] = {}
    over, away = False, False
    while True:
        try:
            found = await wind.trace(**arguments)
        except NotFound:
            if not shown:
                raise
            show.note("The event is not kept any more.")
            return
        except Unavailable as error:
            if wind.failed.done():  # for good
                raise
            if not away:
                show.note(f"{error}: reconnecting")
            away = True
        else:
            away, before = False, over
            changed = [each for each in _nodes(found) if shown.get(each.event.id) != _said(each)]
            for each in changed:
                shown[each.event.id] = _said(each)
                _put(each, json)
            sys.stdout.flush()
            over = not any(outcome.state in _OPEN for each in _nodes(found) for outcome in each.outcomes)
            if over and before and not changed:
                for each in _nodes(found):
                    if each.more:
                        show.note(_more(each))
                return
        await asyncio.sleep(LOOK_S)


async def follow_until_told(wind: SolarWind, arguments: dict[str, Any], json: bool) -> None:
    """Do so, until SIGINT or SIGTERM at most."""
    from .reach import leave_on_signals

    leave_on_signals()
    with suppress(asyncio.CancelledError):
        await follow(wind, arguments, json)


def _put(node: Trace, json: bool) -> None:
    if json:
        show.put(show.line(_node(node)))
        return
    for line in _lines(node, times=True):
        show.render(line)


def _said(node: Trace) -> list[object]:
    """Return what is to be said again when it is another: not the place at which an event pends."""
    return [node.more, *((each.purpose, each.state, each.version, each.attempts) for each in node.outcomes)]


def _nodes(root: Trace) -> Iterator[Trace]:
    """Yield the nodes of a tree, each after its cause, without recursion."""
    todo = [root]
    while todo:
        each = todo.pop()
        yield each
        todo += reversed(each.caused)


def _node(of: Trace) -> dict[str, Any]:
    return {"event": show.event_record(of.event), "outcomes": of.outcomes, "more": of.more}


def _more(of: Trace) -> str:
    after = f" --after {of.caused[-1].event.id}" if of.caused else ""
    return f"and more: solarwind trace {of.event.id}{after}"


def _lines(of: Trace, times: bool = False) -> Iterator[Line]:
    """Yield an event and what became of it; with `times` since when that is so, as far as it is known."""
    event, cause = of.event, of.event.cause
    by = f"by {cause.purpose} (version {cause.version})" if cause.purpose else f"by {cause.kind} {cause.id}"
    yield Line([plain(event.topic), plain(event.id), show.cell(event.time), plain(by)], indent=4)
    for outcome in of.outcomes:
        if outcome.state != "not for it":
            since = outcome.ended or outcome.since
            pieces = _outcome_pieces(outcome)
            if times and since is not None:
                pieces[0] = f"{show.cell(since)}  {pieces[0]}"
            yield Line(pieces, ", ", start=2, indent=6)


def _outcome_pieces(outcome: Outcome) -> list[str]:
    """Return what became of an event in the pieces of a line."""
    parts = [f"{outcome.purpose}: {outcome.state}"]
    if outcome.version is not None:
        parts.append(f"version {outcome.version}")
    if outcome.attempts:
        parts.append(show.counted(outcome.attempts, "attempt"))
    if outcome.took_s is not None:
        parts.append(show.took(outcome.took_s))
    if error := show.error_line(outcome.error):
        parts.append(error)
    return [plain(each) for each in parts]
