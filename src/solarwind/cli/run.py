"""`run`: runs a service, from the name of its SolarWind object to its end."""

from __future__ import annotations

import importlib
import os
import re
import sys
import traceback
from typing import TYPE_CHECKING, Annotated

import typer

from ..errors import BadArgument
from .options import option, variable
from .parent import WORKER, WORKER_TOKEN, WORKER_URL, EarlySigterm, tell

if TYPE_CHECKING:
    from types import ModuleType

    from ..wind import SolarWind

MAX_WORKERS = 500

_PYPROJECT = "pyproject.toml"
_USUAL = "app", "main"
_MADE = re.compile(r"^(\w+)\b.*=\s*[\w.]*SolarWind\(", re.MULTILINE)

_OURS = os.path.dirname(os.path.dirname(__file__)) + os.sep

AppArgument = Annotated[
    str | None,
    typer.Argument(
        metavar="MODULE:ATTRIBUTE",
        envvar=variable("app"),
        show_envvar=False,
        help="Where the SolarWind object is. Without it, what pyproject.toml names, or that of app.py or main.py.",
        show_default=False,
    ),
]


def run(
    target: AppArgument = None,
    workers: Annotated[
        int | None,
        option("workers", "In so many processes, on one dispatcher.", min=1, max=MAX_WORKERS, show_default=False),
    ] = None,
    url: Annotated[str | None, option("url", "Instead of the object's own.", show_default=False)] = None,
    until_settled: Annotated[bool, option("until-settled", "Leave when nothing is left to do.")] = False,
    reload: Annotated[bool, option("reload", "Start anew when a .py file below this folder changes.")] = False,
    grace: Annotated[
        float | None, option("grace", "Seconds that handlers have to finish at the end.", min=0, show_default=False)
    ] = None,
    json: Annotated[bool, option("json", "Log as JSON, one object a line.")] = False,
) -> None:
    """Run the handlers of a SolarWind object.

    Until SIGTERM or SIGINT; then it lets them finish what they began.
    """
    from .log import log_to_stderr

    url = os.environ.pop(WORKER_URL, None) or url
    service = arguments_of(target, until_settled, grace, json)
    if workers is None and reload:
        from .workers import reload as run_anew

        log_to_stderr(json)
        raise typer.Exit(run_anew(service, url))
    wind = find(target)
    if url:
        from .reach import way_out

        with way_out(url):
            wind.use(url, os.environ.pop(WORKER_TOKEN, None))
    if grace is not None:
        wind.grace = grace
    log_to_stderr(json)
    if workers is None:
        _run(wind, until_settled, json, _where(wind, url))
        return
    from .workers import supervise

    raise typer.Exit(supervise(wind, service, url, workers=workers, leaves=until_settled, reloads=reload, json=json))


def _run(wind: SolarWind, until_settled: bool, json: bool, where: str) -> None:
    from ..lifecycle import run_loop, serve

    def started() -> None:
        if os.environ.get(WORKER, "1") == "1":  # one worker logs it for all
            _say_what_runs(wind, json, where)
        tell("READY=1")

    run_loop(serve(wind, until_settled, started=started, final=True))


def arguments_of(target: str | None, until_settled: bool, grace: float | None, json: bool) -> list[str]:
    """Return the same command for a child, without `--workers` and `--reload`, and without `--url`, which it gets by a
    variable."""
    arguments = ["run"] if target is None else ["run", target]
    if grace is not None:
        arguments += ["--grace", str(grace)]
    if until_settled:
        arguments.append("--until-settled")
    if json:
        arguments.append("--json")
    return arguments


# --- finding it ---------------------------------------------------------------------------------------------


def find(target: str | None) -> SolarWind:
    """Return the SolarWind object at `module:attribute`, or else that of the current folder. Raise `BadArgument`."""
    return found_here() if target is None else load(target)


def load(target: str) -> SolarWind:
    """Return the SolarWind object at `module:attribute`. Raise `BadArgument`, which says whether the user's module
    failed."""
    from ..wind import SolarWind

    name, colon, attribute = target.partition(":")
    parts = [*name.split("."), *attribute.split(".")]
    if not colon or name.endswith(".py") or not all(part.isidentifier() for part in parts):
        raise BadArgument(
            "expected module:attribute, such as app:wind for `wind = SolarWind()` in app.py, got "
            f"{target!a}{_with_attribute(target)}"
        )
    module = _import(name)
    found: object = module
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise BadArgument(f"expected {attribute!r} in {_place(module)}, which has none{_instead(module)}")
        found = getattr(found, part)
    if not isinstance(found, SolarWind):
        raise BadArgument(f"expected a SolarWind at {target}, got {type(found).__name__!r}{_instead(module)}")
    return found


def found_here() -> SolarWind:
    """Return the SolarWind object that pyproject.toml in the current folder names, or else the only one of app.py or
    main.py. Raise `BadArgument`."""
    if (stated := _stated()) is not None:
        try:
            return load(stated)
        except BadArgument as error:
            raise BadArgument(f"{error}, by app in [tool.solarwind] of {_PYPROJECT}") from None
    for name in _USUAL:
        if not os.path.isfile(f"{name}.py"):
            continue
        winds = _winds(module := _import(name))
        if len({id(wind) for wind in winds.values()}) > 1:
            raise BadArgument(
                f"expected one SolarWind in {_place(module)}, got {', '.join(winds)}: name the one to run, such as "
                f"{name}:{next(iter(winds))}"
            )
        if winds:
            return next(iter(winds.values()))
    raise BadArgument(
        "expected module:attribute, such as app:wind, got none, and neither app.py nor main.py in "
        f"{os.getcwd()} has a SolarWind: name it here, in ${variable('app')}, or as app in [tool.solarwind] of "
        f"{_PYPROJECT}"
    )


def _with_attribute(target: str) -> str:
    """Return what was meant by the name of a file, or by a module without the attribute, for the end of a message."""
    path, _, attribute = target.partition(":")
    if not path or (os.path.isfile(path) and not path.endswith(".py")):
        return ""
    name = os.path.relpath(path.removesuffix(".py")).replace(".", "/")
    folder, _, last = name.rpartition("/")
    if not attribute and not os.path.isfile(f"{name}.py") and os.path.isfile(f"{folder}.py"):
        name, attribute = folder, last  # app.wind, or app/wind
    try:
        with open(f"{name}.py", encoding="utf-8") as file:
            made = _MADE.search(file.read())
    except (OSError, UnicodeError):
        made = None
    attribute = attribute or (made[1] if made else "wind")
    if not all(part.isidentifier() for part in [*name.split("/"), *attribute.split(".")]):
        return ""
    return f": did you mean {name.replace('/', '.')}:{attribute}?"


def _stated() -> str | None:
    """Return `app` in `[tool.solarwind]` of pyproject.toml, or None. Raise `BadArgument`."""
    import tomllib

    try:
        with open(_PYPROJECT, "rb") as file:
            found: object = tomllib.load(file)
    except FileNotFoundError:
        return None
    except ValueError as error:  # no TOML, or no UTF-8
        raise BadArgument(f"expected TOML in {_PYPROJECT}, got something else: {error}") from None
    for key in ("tool", "solarwind", "app"):
        found = found.get(key) if isinstance(found, dict) else None
    if found is None or isinstance(found, str):
        return found
    raise BadArgument(
        f'expected text such as "app:wind" as app in [tool.solarwind] of {_PYPROJECT}, got {type(found).__name__!r}'
    )


def _winds(module: ModuleType) -> dict[str, SolarWind]:
    from ..wind import SolarWind

    return {name: value for name, value in vars(module).items() if isinstance(value, SolarWind)}


def _import(name: str) -> ModuleType:
    from ..lifecycle import only_defines

    folder = os.getcwd()
    if folder not in sys.path:
        sys.path.insert(0, folder)
    try:
        with only_defines(name):
            return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise BadArgument(f"expected a module {name!r}, found none in {folder} or where Python looks") from None
        raise _fault(name, error) from error
    except EarlySigterm:
        raise
    except (Exception, SystemExit) as error:
        raise _fault(name, error) from error


def _fault(name: str, error: BaseException) -> BadArgument:
    """Return the error for a failing user module, with the line in it."""

    what = f"{type(error).__name__}: {error.msg if isinstance(error, SyntaxError) else error}".rstrip(": ")
    return BadArgument(f"{_line_at_fault(error)}: {what}, raised while {name!r} was imported")


def _line_at_fault(error: BaseException) -> str:
    """Return the last line of the user's own code in the traceback, or else in that of its cause, not one of a
    library."""

    if isinstance(error, SyntaxError) and error.filename:
        return f"{_short(error.filename)}:{error.lineno}"
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if not frame.filename.startswith(("<frozen ", _OURS))
        and os.path.basename(os.path.dirname(frame.filename)) != "importlib"
    ]
    here = os.getcwd() + os.sep
    own = [frame for frame in frames if frame.filename.startswith(here) and "site-packages" not in frame.filename]
    if not own and error.__cause__ is not None:
        return _line_at_fault(error.__cause__)
    if not own and not frames:
        return "in an unknown line"
    last = (own or frames)[-1]
    return f"{_short(last.filename)}:{last.lineno}"


def _short(path: str) -> str:
    """Return the path relative to the current folder, if it is below."""

    here = os.getcwd() + os.sep
    return path.removeprefix(here)


def _place(module: ModuleType) -> str:
    return _short(getattr(module, "__file__", None) or module.__name__)


def _instead(module: ModuleType) -> str:
    """Return the SolarWind objects that the module has, for the end of a message."""
    name = next(iter(_winds(module)), None)
    return f": did you mean {module.__name__}:{name}?" if name else ": make one with wind = SolarWind(...)"


# --- logging it ---------------------------------------------------------------------------------------------


def _where(wind: SolarWind, url: str | None) -> str:
    """Return the dispatcher's address without secrets, and where it was stated."""
    from ..text import redact

    if url:
        by_environment = os.environ.get(variable("url")) == url
        return redact(url) + (f", by ${variable('url')}" if by_environment else "")
    engine: object = wind.engine
    path = getattr(getattr(engine, "store", None), "path", None)
    return redact(getattr(engine, "url", f"sqlite:///{path}" if path else "memory://"))


def _say_what_runs(wind: SolarWind, json: bool, where: str) -> None:
    import msgspec

    from . import show, tables

    records = [msgspec.structs.asdict(each) for each in wind.handlers]
    if json:
        show.put(show.line({"runs": records, "on": where}), sys.stderr)
        return
    show.note(f"Runs on {where}.")
    if records:
        columns = tables.Columns(tuple(name.upper() for name in records[0]))
        show.render(tables.Table(columns, [list(record.values()) for record in records]), sys.stderr)
    else:
        show.note("No handlers: nothing was registered with @wind.on when the module was imported.")
