"""`dev`: an app while somebody works on it, with a dispatcher and the console."""

from __future__ import annotations

import os
from functools import partial
from typing import Annotated
from urllib.parse import quote

import typer

from .options import JsonOption, option
from .run import AppArgument, arguments_of, find
from .serve import MAX_PORT, needs_server


def dev(
    target: AppArgument = None,
    data: Annotated[str, option("data", "The store, for development alone.", metavar="FILE")] = "solarwind-dev.db",
    port: Annotated[
        int, option("port", "Where it listens on loopback. With 0, any that is free.", min=0, max=MAX_PORT, metavar="N")
    ] = 7400,
    quiet: Annotated[bool, option("quiet", "Say nothing of the events that are fired.")] = False,
    json: JsonOption = False,
) -> None:
    """Run an app while you work on it, until SIGTERM or SIGINT.

    It has a dispatcher on a file of its own, whatever the app states. It starts anew when a .py file below this folder
    changes. The address that is printed is that of the console. What is fired, and what becomes of it, is logged.
    """
    from .eventlog import log_events, printer
    from .log import log_to_stderr
    from .ui import say_address
    from .workers import supervise

    needs_server()
    wind = find(target)
    wind.use(f"sqlite:///{quote(os.path.abspath(data))}", None)
    log_to_stderr(json)

    async def served(http: str, token: str) -> None:
        say = partial(say_address, f"{http}/console/", token, json)
        if quiet:
            say()
        else:
            await log_events(f"ws{http[len('http') :]}", token, printer(json), say)

    service = arguments_of(target, until_settled=False, grace=None, json=json)
    raise typer.Exit(
        supervise(wind, service, None, workers=1, leaves=False, reloads=True, json=json, port=port, served=served)
    )
