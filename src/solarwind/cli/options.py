"""What all commands' options share: environment variables, and how times are written.

An option `--key-field` is also `$SOLARWIND_KEY_FIELD` for every command; flags that are consent have no variable. An
option's value that is not understood is a usage error (exit code 2); what Solar Wind itself refuses is not (exit code
1).
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any

import typer

DEFAULT_URL = "ws://127.0.0.1:7400"

_CLOCK = re.compile(r"T?(\d\d?:\d\d(?::\d\d)?)(Z?)", re.ASCII)
_DURATION = re.compile(r"(\d+(?:\.\d+)?)([smhd])")
_UNIT_S = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_MAX_S = 1e9
_YEARS = range(1970, 2262)  # what fits into nanoseconds since 1970


def option(name: str, help: str, **how: Any) -> Any:
    """Return an option with its environment variable, which the help names once. All commands define their options this
    way."""
    if "min" in how:
        how["callback"] = _bounded
    return typer.Option(f"--{name}", envvar=variable(name), show_envvar=False, help=help, **how)


def _bounded(value: Any) -> Any:
    """Check what a minimum does not exclude: NaN, and times that no clock reaches."""
    if isinstance(value, float) and not value < _MAX_S:
        raise typer.BadParameter(f"expected a number below {_MAX_S:,.0f}, got {value:g}")
    return value


def consent(name: str, help: str, **how: Any) -> Any:
    """Return a flag that allows what is otherwise refused, or cannot be undone. It has no environment variable: one
    that was set for another command must not give consent."""
    return typer.Option(f"--{name}", help=help, **how)


def variable(name: str) -> str:
    return "SOLARWIND_" + name.upper().replace("-", "_")


UrlOption = Annotated[str, option("url", "Where the dispatcher is, such as sqlite:///wind.db.", metavar="URL")]
FileUrlOption = Annotated[
    str, option("url", "The store, such as sqlite:///wind.db.", metavar="URL", show_default=False)
]
JsonOption = Annotated[bool, option("json", "Print JSON.")]
TopicArgument = Annotated[str, typer.Argument(metavar="TOPIC", show_default=False)]
PurposeArgument = Annotated[str, typer.Argument(metavar="PURPOSE", show_default=False)]


def duration(text: str, name: str) -> timedelta:
    """Return a duration such as `30s`, `5m`, `12h`, `7d` or `0`. `name` is the option's, for the message."""
    found = _DURATION.fullmatch(text)
    if found is None and text != "0":
        raise typer.BadParameter(f"expected a duration such as 30s, 5m, 12h, 7d or 0, got {text!a}", param_hint=name)
    seconds = float(found[1]) * _UNIT_S[found[2]] if found else 0.0
    if seconds > _MAX_S:
        raise typer.BadParameter(f"expected a duration of at most {_MAX_S / 86400:.0f}d, got {text}", param_hint=name)
    return timedelta(seconds=seconds)


def moment(text: str, name: str) -> str | datetime | timedelta:
    """Return a place in history: `beginning`, `now`, an ISO 8601 time (local without an offset), or a duration ago."""
    if text in ("beginning", "now"):
        return text
    if text == "0" or _DURATION.fullmatch(text):
        return duration(text, name)
    return _read_time(text, name, "beginning, now, ", ", or a duration ago such as 2h")


def time(text: str, name: str) -> datetime:
    """Return an ISO 8601 time, which is local without an offset, as those of `moment` are."""
    return _read_time(text, name)


def time_or_duration(text: str, name: str) -> datetime | timedelta:
    """Return a time, or a duration from now on."""
    if _DURATION.fullmatch(text):
        return duration(text, name)
    return _read_time(text, name, also=", or a duration such as 2h")


def _read_time(text: str, name: str, before: str = "", also: str = "") -> datetime:
    try:
        found = datetime.fromisoformat(text)
        if found.year in _YEARS:
            # A time that clocks leave out, when they go forward, is the one that many minutes after they did; what
            # `astimezone` makes of it is before.
            return found if found.tzinfo is not None else datetime.fromtimestamp(found.timestamp(), UTC)
    except ValueError:
        pass
    clock = _CLOCK.fullmatch(text)
    today = f": for today write {datetime.now():%Y-%m-%d}T{clock[1]:0>5}{clock[2]}" if clock else ""
    raise typer.BadParameter(
        f"expected {before}a time with its date such as 2026-01-31T12:00, or 2026-01-31T12:00:00Z in UTC{also}, "
        f"got {text!a}{today}",
        param_hint=name,
    )


def several_or_all(ids: list[str] | None, all: bool) -> list[str] | None:
    """Return the ids that a command acts on, None for `--all`. Giving neither, or both, is a usage error."""
    if bool(ids) == all:
        got = "both" if all else "neither"
        raise typer.BadParameter(f"expected the ids of dead letters, or --all, got {got}", param_hint="ID")
    return ids or None
