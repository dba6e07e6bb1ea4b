"""What a start of Python does not wait for: modules that only others need, by name and not by time."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"apsw", "sqlite3", "nats", "pydantic", "uvloop", "websockets", "starlette", "h11", "httpcore", "anyio"}
RUNNING = {"solarwind.store.sqlite", "solarwind.core.dispatcher", "solarwind.core.state", "solarwind.core.track",
           "solarwind.engine.local", "solarwind.server", "solarwind.peer", "solarwind.cluster"}  # fmt: skip
SERVICE = {"solarwind.wind", "solarwind.service.runner", "solarwind.outbox", "solarwind.lifecycle"}
SHOWING = {"solarwind.cli.answers", "solarwind.cli.tables", "solarwind.cli.top_view", "solarwind.cli.supervisor"}
STARTS = {
    "import solarwind": (HEAVY | RUNNING | SERVICE, {"asyncio", "ssl", "msgspec", "typer", "rich", "socket"}),
    "from solarwind import BadName": (HEAVY | RUNNING | SERVICE, {"asyncio", "ssl", "msgspec", "typer", "rich"}),
    "from solarwind import SolarWind": (HEAVY | RUNNING, {"typer", "rich", "solarwind.cli"}),
    "from solarwind.cli import app; app(['--help'], standalone_mode=False)": (HEAVY | RUNNING | SERVICE, SHOWING),
    "from solarwind.cli import app; app(['serve', '--help'], standalone_mode=False)": (
        HEAVY | RUNNING | SERVICE,
        SHOWING,
    ),
}


@pytest.mark.parametrize("start", STARTS)
def test_a_start_imports_nothing_that_only_others_need(start: str) -> None:
    found = imported(start)
    unneeded = set().union(*STARTS[start])
    assert "solarwind" in found
    assert not found & unneeded


def imported(start: str) -> set[str]:
    """Return the modules that a new process has imported after these statements."""
    code = f"{start}\nimport sys\nprint('\\n', *sys.modules, sep='\\n')"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return {*said.rpartition("\n\n")[2].split()}


def test_such_an_import_is_seen() -> None:
    """The test above can fail."""
    assert imported("import solarwind\nsolarwind.SolarWind('sqlite:///nothing.db')") >= {
        *("solarwind.wind", "asyncio", "apsw", "solarwind.engine.local", "solarwind.core.dispatcher"),
    }


def test_every_public_name_is_there_without_being_imported_first() -> None:
    code = "import solarwind\nfor name in solarwind.__all__: assert name in dir(solarwind) and getattr(solarwind, name)"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "from solarwind import *\nassert SolarWind and Event and BadName"
    subprocess.run([sys.executable, "-c", code], check=True)
    code = "import solarwind\ntry: solarwind.nothing\nexcept AttributeError as error: print(error)"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said == "module 'solarwind' has no attribute 'nothing'\n"
