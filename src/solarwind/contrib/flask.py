"""Flask: a `SolarWind` that belongs to an app, runs beside its requests, and has a command in `flask`."""

from __future__ import annotations

import os
import subprocess
import sys
from functools import partial
from typing import Any

import click
from flask import Flask

from ..calls import explains_calls, meant
from ..engine.base import Engine
from ..errors import BadArgument, SolarWindError, Unavailable
from ..limits import Limits
from ..logs import limited
from ..names import shown
from ..service.middleware import CallNext, Handing
from .beside import BesideRequests

_PREFIX = "SOLARWIND_"
_KEYS = ("SOLARWIND_URL", "SOLARWIND_TOKEN", "SOLARWIND_GRACE")
# Variables of the command line that look like one of those. They are here where an app loads all of the environment.
_OTHERS = ("SOLARWIND_TOKENS", "SOLARWIND_RATE")


@explains_calls
class FlaskSolarWind(BesideRequests):
    """A `SolarWind` for a Flask app: `wind = FlaskSolarWind()`, and in the app's factory `wind.init_app(app)`.

    It starts with the first request of a process, on a thread of its own, so that a server may fork before, and stops
    at the end of the process. Handlers run in the app's context."""

    _to_start = (
        "say `wind.init_app(app)`, and it starts with the first request of the app, or the log says why it could not; "
        "elsewhere use `with wind:`"
    )

    def __init__(
        self,
        app: Flask | None = None,
        *,
        grace: float = 30.0,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        """See `SolarWind`; the URL is in the app's configuration."""
        super().__init__(grace=grace, limits=limits, engine=engine)
        self._app: Flask | None = None
        self.middleware(self._in_app_context)
        if app is not None:
            self.init_app(app)

    def init_app(self, app: Flask) -> None:
        """Belong to this app from here on, and to no former one: a running one is stopped.

        The app's configuration may have `SOLARWIND_URL`, `SOLARWIND_TOKEN` and `SOLARWIND_GRACE`, also as text, as in
        the environment; without a URL it is `$SOLARWIND_URL`, or else `memory://`. The app gets
        `app.extensions["solarwind"]`, and the command `flask solarwind`. Raise `BadArgument` for invalid ones."""
        if not isinstance(app, Flask):
            raise BadArgument(f"expected a Flask app, got {shown(app)}")
        for key in app.config:
            _check_key(key)
        app.before_request(partial(self._begin_with_request, app))  # Flask refuses it once the app has served a request
        self.close()
        url, token, grace = (_stated(app, key) for key in _KEYS)
        if url is not None or token is not None:
            self.use(url, token)
        if grace is not None:
            self.grace = _number(grace)
        self._app = app
        app.extensions["solarwind"] = self
        app.cli.add_command(_command(self, app))

    def _begin_with_request(self, app: Flask) -> None:
        if app is self._app:
            self._begin_for_request()
        else:
            limited.error(
                ("former app", id(app)),
                "a request of the Flask app %r, to which its SolarWind does not belong any more: what it fires goes "
                "to the dispatcher of the app of the last init_app; make a FlaskSolarWind for each app",
                app.name,
            )

    async def _in_app_context(self, call_next: CallNext, handing: Handing) -> None:
        if handing.kind == "fire":
            await call_next(handing)
            return
        if self._app is None:
            raise Unavailable("expected an app for the context of handlers: call wind.init_app(app) first")
        with self._app.app_context():
            await call_next(handing)


def _check_key(key: str) -> None:
    """Raise `BadArgument` for a key of a configuration that is meant to be one of ours, and is none."""
    if not key.startswith(_PREFIX) or key in _KEYS or key in _OTHERS:
        return
    if key == "SOLARWIND_LIMITS":
        instead = ": say FlaskSolarWind(limits=Limits(...))"
    else:  # without what all of them have in common, by which each is like each other
        near = meant(key.removeprefix(_PREFIX), [each.removeprefix(_PREFIX) for each in _KEYS])
        instead = f": did you mean '{_PREFIX}{near}'?" if near is not None else ""
    if instead:
        raise BadArgument(f"expected {', '.join(_KEYS)} in the configuration of a Flask app, got {key}{instead}")


def _stated(app: Flask, key: str) -> Any:
    """Return what the configuration says. Empty text is nothing, as it is in the environment."""
    value = app.config.get(key)
    return None if value == "" else value


def _number(value: Any) -> Any:
    """Return the number that a text is, as those of the environment are, and any other value as it is."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


def _command(wind: FlaskSolarWind, app: Flask) -> click.Command:
    """Return `flask solarwind`: its `run` runs the handlers of this app; all else is the command `solarwind`."""

    @click.command(
        "solarwind",
        short_help="Run the app's handlers (`run`), or ask its dispatcher as `solarwind` does.",
        context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
    )
    @click.argument("words", nargs=-1, type=click.UNPROCESSED)
    def solarwind(words: tuple[str, ...]) -> None:
        if words[:1] == ("run",):
            _run(wind, list(words[1:]))
            return
        named = {key: _stated(app, key) for key in ("SOLARWIND_URL", "SOLARWIND_TOKEN")}
        environment = os.environ | {name: str(value) for name, value in named.items() if value is not None}
        ended: Any = subprocess.run([sys.executable, "-m", "solarwind", *words], env=environment, check=False)
        raise click.exceptions.Exit(ended.returncode)

    return solarwind


def _run(wind: FlaskSolarWind, words: list[str]) -> None:
    @click.command("run")
    @click.option("--until-settled", is_flag=True, help="Leave when nothing is left to do.")
    def run(until_settled: bool) -> None:
        """Run the app's handlers until SIGTERM or SIGINT, then let them finish what they began."""
        try:
            wind.run(until_settled=until_settled)
        except SolarWindError as error:
            raise click.ClickException(str(error)) from None

    run.main(words, prog_name="flask solarwind run", standalone_mode=False)
