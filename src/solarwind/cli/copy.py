"""`copy`: copies a store to another, of any kind."""

from __future__ import annotations

import asyncio
from typing import Annotated

from .options import JsonOption, option


def copy(
    source: Annotated[str, option("from", "The store to copy, such as sqlite:///wind.db.", show_default=False)],
    target: Annotated[
        str, option("to", "Where to: a store that is empty, or a part of this copy.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:
    """Copy a store to another, with all that is in it.

    History, purposes, what pends, dead letters. Neither may be in use meanwhile. If it is interrupted, repeat it: it
    goes on where it was."""
    from .. import copying
    from ..urls import sqlite_path
    from . import show
    from .reach import refuse_missing, scheme_of

    ends = copying.open_end(source, writes=False), copying.open_end(target, writes=True)
    if scheme_of(source) == "sqlite":
        refuse_missing(sqlite_path(source))
    places = [end.place for end in ends]
    try:
        with show.progress(f"copying {places[0]} to {places[1]}", "events") as report:
            copied = asyncio.run(copying.copy(*ends, report))
    except (KeyboardInterrupt, SystemExit):
        show.note("cut off: the same command again goes on where this one was")
        raise
    if json:
        show.document(copied)
        return
    show.fields(
        {
            "topics": copied.topics,
            "events": copied.events,
            "of them before": copied.before,
            "delayed": copied.delayed,
            "purposes": copied.purposes,
            "dead letters": copied.dead_letters,
        }
    )
