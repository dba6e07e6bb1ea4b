"""`outbox` and `relay`: tables in the user's own database, and what fires what was committed there."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from ..errors import BadArgument
from ..text import redact
from .options import DEFAULT_URL, JsonOption, UrlOption, consent, duration, option
from .parent import tell

app = typer.Typer(no_args_is_help=True, help="Tables for effects once, in your own database.")

DatabaseOption = Annotated[
    str,
    option(
        "database",
        "Your database, such as postgresql://user@host/shop or sqlite:///shop.db.",
        metavar="URL",
        show_default=False,
    ),
]


@app.command()
def init(
    database: DatabaseOption,
    sql: Annotated[bool, consent("sql", "Print the SQL instead, for a migration.")] = False,
    json: JsonOption = False,
) -> None:
    """Make the tables, where they are not there yet."""
    from ..outbox import database as of
    from ..outbox.sql import ONCE, OUTBOX
    from . import show

    if sql:
        text = of.schema(database)
        if json:
            show.document({"sql": text})
        else:
            sys.stdout.write(text)
        return
    of.init(database)
    if json:
        show.document({"tables": [ONCE, OUTBOX]})
    else:
        show.say(f"{ONCE} and {OUTBOX} are in {redact(database)}")


@app.command()
def prune(
    database: DatabaseOption,
    older: Annotated[
        str, option("older", "Forget events that were seen so long ago, such as 30d.", show_default=False)
    ],
    json: JsonOption = False,
) -> None:
    """Forget which events were seen long ago.

    Take more than the time after which an event may still be handed out: it would have its effect again.
    """
    from ..outbox import database as of
    from . import show

    gone = of.prune(database, duration(older, "--older").total_seconds())
    if json:
        show.document({"pruned": gone})
    else:
        show.say(f"{show.counted(gone, 'event')} forgotten")


@app.command()
def status(database: DatabaseOption, json: JsonOption = False) -> None:
    """Show how many events wait for a relay, and which the dispatcher refused."""
    from ..outbox import database as of
    from . import show

    found = of.status(database)
    if json:
        show.document(found)
        return
    oldest = "" if found.oldest_s is None else f", the oldest for {found.oldest_s:,.0f} s"
    show.say(f"{show.counted(found.pending, 'event')} pending{oldest}")
    for each in found.refused:
        show.say(f"refused: {each.id} on {each.topic}: {each.error}")


@app.command()
def redrive(database: DatabaseOption, json: JsonOption = False) -> None:
    """Fire again what the dispatcher refused."""
    from ..outbox import database as of
    from . import show

    found = of.redrive(database)
    if json:
        show.document({"redriven": found})
    else:
        show.say(f"{show.counted(found, 'event')} pending again")


def relay(
    database: DatabaseOption,
    url: UrlOption = DEFAULT_URL,
    json: Annotated[bool, option("json", "Log as JSON, one object a line.")] = False,
) -> None:
    """Fire what was committed to an outbox, until SIGTERM or SIGINT.

    Several may run for one database."""
    from ..lifecycle import run_loop, serve
    from . import show
    from .log import log_to_stderr
    from .reach import reach, scheme_of

    if scheme_of(url) == "memory":
        raise BadArgument(
            "expected a dispatcher that others reach, got memory://, whose events end with this process: name a store "
            "or a server with --url, or call wind.relay in the program itself"
        )
    log_to_stderr(json)
    wind = reach(url, create=True)
    wind.relay(database)
    what = redact(database)

    def started() -> None:
        if json:
            show.put(show.line({"relays": what, "on": redact(url), "process": os.getpid()}), sys.stderr)
        else:
            show.note(f"solarwind relays {what} to {redact(url)}")
        tell("READY=1")

    run_loop(serve(wind, False, started=started, final=True))
