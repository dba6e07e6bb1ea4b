"""The command line: `solarwind`, or `python -m solarwind`.

    run, dev, new                             a service, one that somebody works on, and one to start from
    docs                                      the AsyncAPI document of an app, or of a dispatcher
    serve, token                              a dispatcher for many processes, and who may use it
    ui, mcp                                   the console, and the same questions for an assistant, on any dispatcher
    fire, listen                              events in and out
    topics, purposes, attention, audit,       what an operator does: most are made from the table of operations
    pause, replay, retire, trace, top, dead, owners
    check, backup, restore                    a store's file
    copy                                      from one store to another
    outbox, relay                             effects once, in the user's own database

Exit codes: 0 done, 1 refused, with one line on stderr that says why, 2 usage. Every command is one function; it
imports what it needs when it is called, so that none waits for what only others need.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from ..errors import SolarWindError
from ..systems import posix_needed
from . import copy, dev, docs, events, examples, mcp, new, operations, outbox, store, token, top, ui
from . import run as service
from . import serve as server
from .options import JsonOption
from .parent import WORKER, EarlySigterm, follow

_STUCK_S = 1.0


class _Refusing(TyperGroup):
    """Turns every refusal into one line on stderr and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        try:
            return super().invoke(ctx)
        except BrokenPipeError:  # for typer, which then leaves quietly
            raise
        except (SolarWindError, ModuleNotFoundError, OSError) as found:
            error = posix_needed(found, "this command") if isinstance(found, ModuleNotFoundError) else found
            if isinstance(error, ModuleNotFoundError):
                raise
            from .show import refuse

            sys.stdout.flush()
            refuse(error)
            raise typer.Exit(1) from None


app = typer.Typer(cls=_Refusing, no_args_is_help=True, pretty_exceptions_enable=False)
_RUNS, _EVENTS, _HOW, _OPERATOR, _STORE = (
    "A service, and a dispatcher for many",
    "Events in and out",
    "How it stands",
    "What an operator does",
    "A store",
)
_GROUPS = {
    "dead": typer.Typer(no_args_is_help=True, help="Dead letters: events that a purpose gave up."),
    "delayed": typer.Typer(no_args_is_help=True, help="Delayed events: they enter their topic when they are due."),
    "topics": typer.Typer(),
    "schedules": typer.Typer(no_args_is_help=True, help="What is fired at its time, again and again."),
    "webhooks": typer.Typer(no_args_is_help=True, help="Webhooks: where a server POSTs the events of purposes to."),
    "rollout": typer.Typer(no_args_is_help=True, help="Versions of a purpose side by side, and their shares."),
}
app.command(rich_help_panel=_RUNS)(service.run)
app.command(rich_help_panel=_RUNS)(dev.dev)
app.command(rich_help_panel=_RUNS)(new.new)
app.command(rich_help_panel=_RUNS)(docs.docs)
app.command(rich_help_panel=_RUNS)(server.serve)
app.add_typer(token.app, name="token", rich_help_panel=_RUNS)
app.command(rich_help_panel=_EVENTS)(events.fire)
app.command(rich_help_panel=_EVENTS)(events.listen)
app.command(rich_help_panel=_EVENTS)(outbox.relay)
app.add_typer(outbox.app, name="outbox", rich_help_panel=_EVENTS)
app.add_typer(_GROUPS["topics"], name="topics", rich_help_panel=_HOW)
operations.register(app, _GROUPS, _HOW, questions=True)
app.command(rich_help_panel=_HOW)(top.top)
app.command(rich_help_panel=_HOW)(ui.ui)
app.command(rich_help_panel=_HOW)(mcp.mcp)
app.add_typer(_GROUPS["dead"], name="dead", rich_help_panel=_OPERATOR)
app.add_typer(_GROUPS["delayed"], name="delayed", rich_help_panel=_OPERATOR)
app.add_typer(_GROUPS["schedules"], name="schedules", rich_help_panel=_OPERATOR)
app.add_typer(_GROUPS["rollout"], name="rollout", rich_help_panel=_OPERATOR)
app.add_typer(_GROUPS["webhooks"], name="webhooks", rich_help_panel=_OPERATOR)
operations.register(app, _GROUPS, _OPERATOR, questions=False)
app.command(rich_help_panel=_STORE)(store.check)
app.command(rich_help_panel=_STORE)(store.backup)
app.command(rich_help_panel=_STORE)(store.restore)
app.command(rich_help_panel=_STORE)(copy.copy)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"solarwind {_version()}")
        raise typer.Exit


@app.callback()
def _start(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version.", is_eager=True, callback=_print_version)
    ] = False,
) -> None:
    """Fire events and forget them; purposes decide how they are handed out."""
    # The refusal says what went wrong, so the library does not log it too. `run` logs everything.
    logging.getLogger("solarwind").addHandler(logging.NullHandler())


@app.command()
def version(json: JsonOption = False) -> None:
    """Print the version."""
    if json:
        from .show import document

        document({"version": _version()})
    else:
        typer.echo(f"solarwind {_version()}")


examples.explain(app)


def _version() -> str:
    from importlib.metadata import version

    return version("solarwind")


def main() -> None:
    follow()
    signal.signal(signal.SIGTERM, _leave)
    if hasattr(sys.stdout, "reconfigure"):  # a name that the terminal cannot show must not raise
        sys.stdout.reconfigure(errors="backslashreplace")
    if WORKER in os.environ:
        _write_whole_lines()
    try:
        app(prog_name="solarwind")
    except SystemExit as over:
        _leave_stuck_threads(over.code)
        raise


def _write_whole_lines() -> None:
    """Write what is printed a line at a time: several workers share an output, and with PYTHONUNBUFFERED `print` would
    write each of its arguments by itself."""
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(line_buffering=True, write_through=False)


def _leave(number: int, frame: object) -> None:
    raise EarlySigterm(128 + number)


def _leave_stuck_threads(code: object) -> None:
    """End the process where a handler left a thread or a task that Python would wait for."""
    number = code if isinstance(code, int) else int(code is not None)
    if life := sys.modules.get("solarwind.lifecycle"):
        life.leave_stuck(number)
    if any(thread is not threading.main_thread() and not thread.daemon for thread in threading.enumerate()):
        end = threading.Timer(_STUCK_S, os._exit, [number])
        end.daemon = True
        end.start()
