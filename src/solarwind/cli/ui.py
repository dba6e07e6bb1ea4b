"""`ui`: the console of a server that runs, or on an engine, which a server of this process's own then serves."""

from __future__ import annotations

import inspect
import os
import sys
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated
from urllib.parse import quote

import typer

from ..errors import NotFound, Unavailable
from ..text import redact
from .options import DEFAULT_URL, JsonOption, UrlOption, option, variable
from .serve import MAX_PORT, Service, given_at, needs_server, serve

if TYPE_CHECKING:
    from ..engine.base import Engine
    from ..limits import Limits
    from ..wind import SolarWind

_ANSWERS_S = 10.0  # how long a server has to send its page


def ui(
    context: typer.Context,
    url: UrlOption = DEFAULT_URL,
    port: Annotated[
        int, option("port", "Where it listens on loopback. With 0, any that is free.", min=0, max=MAX_PORT, metavar="N")
    ] = 0,
    json: JsonOption = False,
) -> None:
    """Print the address of the console, to open in a browser.

    It is that of a server which runs. A store, nats:// or a Unix socket is served by this process, until SIGTERM or
    SIGINT.
    """
    from ..lifecycle import run_loop
    from .log import log_to_stderr
    from .reach import is_server, operate, scheme_of
    from .workers import new_token

    needs_server()
    url = url.strip()
    if scheme_of(url) in ("http", "https"):
        url = f"ws{url[len('http') :]}"
    if is_server(url) and scheme_of(url) != "unix":  # to which browsers cannot connect
        if given_at(context, "port") == "COMMANDLINE":
            raise typer.BadParameter("expected no --port, as a server has its own: leave it out")
        operate(url, _connect)
        address = f"http{url[len('ws') :].rstrip('/')}/console/"
        _check_console(address)
        say_address(address, os.environ.get(variable("token"), ""), json)
        return
    log_to_stderr(json)
    with ExitStack() as files:
        file, token = new_token(files, "ui")
        run_loop(_Ui(url, port, f"/dev/fd/{file}", token, json).run())


class _Ui(Service):
    """A server for one person, on an engine that is there already. Looking must not make it deliver webhooks, for which
    it has no options."""

    delivers = False

    def __init__(self, url: str, port: int, tokens: str, token: str, json: bool) -> None:
        self._token = token
        usual = {name: each.default for name, each in inspect.signature(serve).parameters.items()}
        super().__init__(usual | {"engine": url, "port": port, "tokens": tokens, "json": json})

    def engine(self, limits: Limits) -> Engine:
        from .reach import reach

        return reach(self._given["engine"], create=False).engine

    def say(self, port: int) -> None:
        say_address(f"http://127.0.0.1:{port}/console/", self._token, self._given["json"])


async def _connect(wind: SolarWind) -> None:
    """Do nothing more: by now the server is there, and has accepted the token."""


def _check_console(address: str) -> None:
    """Raise `NotFound` where a server has no console, and `Unavailable` where it cannot be asked."""
    from urllib.error import HTTPError
    from urllib.request import ProxyHandler, build_opener

    shown = redact(address)
    try:
        build_opener(ProxyHandler({})).open(address, timeout=_ANSWERS_S).close()
    except HTTPError as error:
        error.close()
        raise NotFound(
            f"expected a console at {shown}, got status {error.code}: start the server without --no-console, or mount "
            "it with console=True"
        ) from None
    except OSError as error:
        raise Unavailable(f"expected a console at {shown}, got no answer ({error}): try again") from None


def say_address(address: str, token: str, json: bool) -> None:
    """Print where a console is, with the token for it if there is one."""
    from . import show

    address += f"#token={quote(token, safe='')}" if token else ""
    if json:
        show.put(show.line({"console": address}))
    else:
        show.say(address)
        sys.stdout.flush()
