"""run without an argument: how it finds the SolarWind object, and what it says where it does not."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable

import pytest

from .conftest import Answer, Process, call, done

Start = Callable[..., Process]
Write = Callable[[str, str], None]

WIND = "from solarwind import SolarWind\nwind = SolarWind('memory://')\n"
OTHER = "from solarwind import SolarWind\nother = SolarWind('memory://')\n"
MODULES = "app", "main", "elsewhere"


@pytest.fixture
def said(write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `run` without an argument says last, with these files."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)

    def said(code: int, pyproject: str | None = None, **files: str) -> str:
        if pyproject is not None:
            write("pyproject.toml", pyproject)
        for name, text in files.items():
            write(f"{name}.py", text)
        try:
            answer: Answer = call("run", "--until-settled")
        finally:
            for name in MODULES:
                sys.modules.pop(name, None)
        assert answer.code == code, answer
        return answer.err

    return said


def handles(name: str) -> str:
    """A module whose handler has the module's name in the list of what runs."""
    return f"""
        from solarwind import SolarWind
        wind = again = SolarWind()
        @wind.on("t", purpose="in {name}", since="beginning")
        def handle(number: int) -> None:
            print("{name} got", number, flush=True)
    """


PYPROJECT = '[tool.solarwind]\napp = "elsewhere:wind"\n'


@pytest.mark.parametrize(
    ("files", "found"),
    [
        ({"main": "x = 1\n", "app": handles("app"), "elsewhere": handles("elsewhere")}, "app"),
        ({"main": handles("main")}, "main"),
        ({"main": handles("main"), "app": "x = 1\n"}, "main"),
        ({"app": handles("app"), "elsewhere": handles("elsewhere"), "pyproject": PYPROJECT}, "elsewhere"),
        ({"app": handles("app"), "pyproject": '[project]\nname = "shop"\n'}, "app"),
    ],
)
def test_run_finds_the_app_in_the_order_that_is_documented(
    files: dict[str, str], found: str, said: Callable[..., str]
) -> None:
    assert f"in {found} " in said(0, **files)


def test_the_variable_comes_before_everything_but_the_argument(
    said: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLARWIND_APP", "elsewhere:wind")
    files = {"app": handles("app"), "elsewhere": handles("elsewhere")}
    assert "in elsewhere " in said(0, pyproject='[tool.solarwind]\napp = "nothing:wind"\n', **files)


REFUSALS = {
    "one that runs it": (
        {"app": f"{WIND}wind.run()\n"},
        "app.py:3: Unavailable: expected nothing to start while",
    ),
    "one that starts it": ({"app": f"{WIND}with wind: 1\n"}, 'put it below `if __name__ == "__main__":`'),
    "nothing here": ({}, "neither app.py nor main.py in "),
    "no SolarWind": ({"app": "x = 1\n", "main": "y = 1\n"}, "neither app.py nor main.py in "),
    "two": (
        {"app": WIND + OTHER},
        "expected one SolarWind in app.py, got wind, other: name the one to run, such as app:",
    ),
    "a fault in it": ({"app": "1 / 0\n"}, "app.py:1: ZeroDivisionError: division by zero, raised while 'app' was"),
    "another form": (
        {"pyproject": '[tool.solarwind]\napp = "app.py"\n'},
        "by app in [tool.solarwind] of pyproject.toml",
    ),
    "no such module": ({"pyproject": PYPROJECT}, "expected a module 'elsewhere', found none in "),
    "no text": ({"pyproject": "[tool.solarwind]\napp = 3\n"}, 'expected text such as "app:wind" as app in [tool.'),
    "no TOML": ({"pyproject": "app: x\n", "app": WIND}, "expected TOML in pyproject.toml, got something else: "),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_run_says_in_a_sentence_why_it_found_no_app(case: str, said: Callable[..., str]) -> None:
    files, words = REFUSALS[case]
    line = said(1, **files)
    assert line.count("\n") == 1, line
    assert words in line


@pytest.mark.long
def test_the_processes_of_a_service_find_the_app_too(url: str, start: Start, write: Write) -> None:
    write("main.py", handles("main"))
    done("fire", "t", "1", "--url", url)
    process = start("run", "--url", url, "--reload")
    process.read("main got 1")
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    done("fire", "t", "2", "--url", url)
    process = start("run", "--url", url, "--workers", "2", "--until-settled")
    process.read("main got 2")
    assert process.end().code == 0
