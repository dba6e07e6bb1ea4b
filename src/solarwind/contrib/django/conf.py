"""The settings: one dict, `SOLARWIND`, read whole, with what is wrong with it as sentences."""

from __future__ import annotations

from keyword import iskeyword
from typing import Any

import msgspec
from django.conf import settings
from django.utils.module_loading import import_string

from ...calls import hint
from ...errors import SolarWindError
from ...limits import Limits
from ...names import shown
from ...wind import SolarWind
from .databases import check_database

NAME = "SOLARWIND"
_EXAMPLE = 'SOLARWIND = {"URL": "ws://127.0.0.1:7400"}'
_TASKS = f"{__package__}.tasks"
_OTHERS = ("django.", "django_tasks.")  # backends that are not ours


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What `SOLARWIND` says. What is wrong is left out, and `problems` has a sentence for it."""

    url: str | None = None
    token: str | None = None
    grace: float = 30.0
    limits: Limits | None = None
    events: str = "events"  # the module of each app that is imported at the start
    handle: bool | None = None  # in processes that serve requests; None: where nobody else could
    relay: tuple[str, ...] = ()  # names of databases, whose outbox is fired by processes that run handlers
    problems: tuple[str, ...] = ()


KEYS = tuple(name.upper() for name in Settings.__struct_fields__ if name != "problems")


def read() -> Settings:
    """Return the project's settings. Raise only what Django does where it has none."""
    given = getattr(settings, NAME, {})
    if not isinstance(given, dict):
        return Settings(problems=(f"expected a dict, such as {_EXAMPLE}, got {NAME} = {shown(given)}",))
    found: dict[str, Any] = {}
    problems: list[str] = []
    for key, value in given.items():
        if key not in KEYS:
            problems.append(
                f"expected keys of {NAME} among {', '.join(KEYS)}, got {shown(key)}{hint(str(key).upper(), KEYS)}"
            )
            continue
        try:
            found[key.lower()] = _CHECKS[key](value)
        except SolarWindError as error:
            problems.append(f"{NAME}[{key!r}]: {error}")
        except _Wrong as wrong:
            problems.append(f"expected {wrong} as {NAME}[{key!r}], got {shown(value)}")
    if found.get("url") is None:
        try:
            SolarWind()
        except SolarWindError as error:  # of the environment
            problems.append(f"$SOLARWIND_URL or $SOLARWIND_TOKEN: {error}")
            found["url"] = "memory://"
    return Settings(**found, problems=tuple(problems))


def backends() -> dict[str, Any]:
    """Return the class of each backend of the setting `TASKS` that is that of Solar Wind or derived from it, by alias:
    others need not have what it imports."""
    return {alias: kind for alias, kind in _backends()[0].items() if _is_own(kind)}


def task_problems() -> list[str]:
    """Return what keeps a backend of the setting `TASKS` from being imported, as sentences."""
    return _backends()[1]


def _is_own(kind: Any) -> bool:
    return any(each.__module__ == _TASKS for each in getattr(kind, "__mro__", ()))


def _backends() -> tuple[dict[str, Any], list[str]]:
    stated, found, problems = getattr(settings, "TASKS", {}), {}, []
    if not isinstance(stated, dict):
        return {}, [f"expected a dict of backends as TASKS, got {shown(stated)}"]
    for alias, params in stated.items():
        path = params.get("BACKEND") if isinstance(params, dict) else None
        if isinstance(path, str) and path.startswith(_OTHERS):  # need not have what they import
            continue
        try:
            if not isinstance(path, str):
                raise ImportError
            found[alias] = import_string(path)
        except ImportError as error:
            why = f": {error}" if str(error) else ""
            problems.append(f"expected the path of a backend as TASKS[{alias!r}]['BACKEND'], got {shown(path)}{why}")
    return found, problems


class _Wrong(ValueError):
    """What was expected instead."""


def _url(value: Any) -> str | None:
    if value is not None and not isinstance(value, str):
        raise _Wrong('text such as "ws://127.0.0.1:7400" or f"sqlite:///{BASE_DIR}/wind.db"')
    if value is not None:
        SolarWind(value)
    return value


def _token(value: Any) -> str | None:
    SolarWind("memory://", token=value)
    return None if value is None else str(value)


def _grace(value: Any) -> float:
    return SolarWind("memory://", grace=value).grace


def _limits(value: Any) -> Limits | None:
    if value is None or isinstance(value, Limits):
        return value
    if not isinstance(value, dict) or not all(isinstance(name, str) for name in value):
        raise _Wrong('a dict such as {"payload_bytes": 4 << 20}')
    return Limits(**value)


def _events(value: Any) -> str:
    if not isinstance(value, str) or not value.isidentifier() or iskeyword(value):
        raise _Wrong('the name of a module of each app, such as "events"')
    return value


def _handle(value: Any) -> bool | None:
    if value is not None and not isinstance(value, bool):
        raise _Wrong("True, False or None")
    return value


def _relay(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple) or not all(isinstance(alias, str) for alias in value):
        raise _Wrong('a list of names of databases, such as ["default"]')
    for alias in value:
        check_database(alias)
    return tuple(dict.fromkeys(value))


_CHECKS = {
    "URL": _url,
    "TOKEN": _token,
    "GRACE": _grace,
    "LIMITS": _limits,
    "EVENTS": _events,
    "HANDLE": _handle,
    "RELAY": _relay,
}
