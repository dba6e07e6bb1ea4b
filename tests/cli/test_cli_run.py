"""run: from a module's name to a service that drains, and whose fault it is when it does not start."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from sampling import some

from .conftest import PATIENCE_S, Answer, Process, call, done

Start = Callable[..., Process]
Write = Callable[[str, str], None]

APP = """
    from solarwind import SolarWind
    wind = SolarWind()

    @wind.on("t", purpose="Double it [twice]", since="beginning")
    async def double(number: int) -> None:
        await wind.fire("doubled", number * 2)

    @wind.on("doubled", exchange="fanout", version=2)
    def show(number: int) -> None:
        print("got", number, flush=True)
"""

# Its handler begins, and ends when the test says so.
SLOW = """
    import sys
    from solarwind import SolarWind
    wind = SolarWind()

    @wind.on("t", purpose="slow", since="beginning")
    def slow(number: int) -> None:
        print("began", flush=True)
        print("ended", sys.stdin.readline(), flush=True)
"""


def state(url: str, purpose: str) -> tuple[int, int]:
    """Return how many events of a purpose are settled, and how many pend."""
    found = {each["purpose"]: each for each in done("purposes", "--url", url, "--json").json}[purpose]
    return found["settled"], found["pending"]


# --- running ------------------------------------------------------------------------------------------------


def test_it_runs_until_settled_and_says_what_it_runs(url: str, start: Start, write: Write) -> None:
    write("app.py", APP)
    done("fire", "t", "--lines", "--url", url, input="1\n2\n")
    answer = start("run", "app:wind", "--url", url, "--until-settled").end()
    assert answer.code == 0
    where, header, first, second = answer.err.splitlines()
    assert where == f"Runs on {url}."
    assert header.split() == ["TOPIC", "PURPOSE", "EXCHANGE", "VERSION", "HANDLER"]
    assert " ".join(first.split()) == "t Double it [twice] direct 1 app.double"
    assert second.split() == ["doubled", "show", "fanout", "2", "app.show"]
    assert state(url, "Double it [twice]") == (2, 0)


@pytest.mark.long
def test_the_url_may_come_from_the_environment(
    url: str, start: Start, write: Write, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("app.py", APP.replace("SolarWind()", "SolarWind('memory://')"))
    done("fire", "t", "1", "--url", url)
    monkeypatch.setenv("SOLARWIND_URL", url)
    monkeypatch.setenv("SOLARWIND_UNTIL_SETTLED", "1")
    answer = start("run", "app:wind").end()
    assert answer.code == 0
    assert f"Runs on {url}, by $SOLARWIND_URL." in answer.err
    assert state(url, "Double it [twice]") == (1, 0)


def test_run_without_a_url_uses_the_objects_own(start: Start, write: Write) -> None:
    write("app.py", APP.replace("SolarWind()", "SolarWind('sqlite:///own.db')"))
    answer = start("run", "app:wind", "--until-settled").end()
    assert answer.code == 0
    assert "/own.db." in answer.err.splitlines()[0]
    assert state("sqlite:///own.db", "show") == (0, 0)


def test_the_object_may_be_in_a_package_and_in_another_object(url: str, start: Start, write: Write) -> None:
    write("shop/__init__.py", "")
    write("shop/events.py", APP + "\n    class Here:\n        inside = wind\n")
    assert start("run", "shop.events:Here.inside", "--url", url, "--until-settled").end().code == 0


def test_run_warns_about_an_object_without_handlers(url: str, start: Start, write: Write) -> None:
    write("app.py", "from solarwind import SolarWind\nwind = SolarWind()\n")
    assert "No handlers" in start("run", "app:wind", "--url", url, "--until-settled").end().err


@pytest.mark.parametrize("number", some([signal.SIGTERM], [signal.SIGTERM, signal.SIGINT]))
def test_on_a_signal_it_lets_its_handlers_finish(url: str, start: Start, write: Write, number: int) -> None:
    write("app.py", SLOW)
    done("fire", "t", "--lines", "--url", url, input="1\n2\n")
    process = start("run", "app:wind", "--url", url, stdin=subprocess.PIPE)
    process.read("began")
    process.signal(number)
    process.send("now\n")
    answer = process.end()
    assert answer.code == 0
    assert "ended now" in answer.out
    settled, pending = state(url, "slow")
    assert settled >= 1
    assert settled + pending == 2


@pytest.mark.parametrize("how", some(["--grace"], ["a second signal", "--grace"]))
def test_a_handler_that_does_not_finish_is_not_waited_for(url: str, start: Start, write: Write, how: str) -> None:
    write("app.py", SLOW)
    done("fire", "t", "1", "--url", url)
    grace = ["--grace", "0.05"] if how == "--grace" else []
    process = start("run", "app:wind", "--url", url, *grace, stdin=subprocess.PIPE)
    process.read("began")
    process.signal(signal.SIGTERM)
    if not grace:
        process.signal(signal.SIGINT)
    process.read_err("handed out again")
    assert process.popen.wait(PATIENCE_S) == 0  # what is sent to it would let the handler finish
    assert state(url, "slow") == (0, 1)


def test_a_signal_while_it_is_imported_is_no_fault_of_the_module(url: str, start: Start, write: Write) -> None:
    write("app.py", "import sys\nprint('importing', flush=True)\nsys.stdin.readline()\n")
    process = start("run", "app:wind", "--url", url, stdin=subprocess.PIPE)
    process.read("importing")
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert (answer.code, answer.err) == (128 + signal.SIGTERM, "")


def test_what_goes_wrong_is_logged_on_stderr_one_line_a_message(url: str, start: Start, write: Write) -> None:
    write("app.py", APP)
    done("fire", "t", '"no number\\n\\u001b"', "--url", url)
    answer = start("run", "app:wind", "--url", url, "--until-settled").end()
    last = answer.err.splitlines()[-1]
    assert " WARNING solarwind: rejected: " in last
    assert last.endswith("expected int, got str at $")


def test_run_with_json_logs_only_json(url: str, start: Start, write: Write) -> None:
    write("app.py", APP)
    done("fire", "t", '"no number"', "--url", url)
    answer = start("run", "app:wind", "--url", url, "--until-settled", "--json").end()
    runs, warning = map(json.loads, answer.err.splitlines())
    assert runs["runs"][0] == {
        "topic": "t",
        "purpose": "Double it [twice]",
        "exchange": "direct",
        "version": 1,
        "handler": "app.double",
    }
    assert (warning["level"], warning["logger"]) == ("warning", "solarwind")


def test_a_statement_that_contradicts_an_earlier_one_is_refused(url: str, start: Start, write: Write) -> None:
    write("app.py", APP)
    assert start("run", "app:wind", "--url", url, "--until-settled").end().code == 0
    write("app.py", APP.replace('exchange="fanout"', 'exchange="keyed"'))
    answer = start("run", "app:wind", "--url", url).end()
    assert answer.code == 1
    assert answer.err.splitlines()[-1].startswith("solarwind: ")
    assert "Traceback" not in answer.err


@pytest.mark.long
def test_a_store_in_use_is_refused_naming_the_process(held: Process, url: str, start: Start) -> None:
    answer = start("run", "holding:wind", "--url", url).end()
    assert answer.code == 1
    assert f"in use by process {held.popen.pid}" in answer.err.splitlines()[-1]
    assert "Traceback" not in answer.err


# --- whose fault it is --------------------------------------------------------------------------------------


@pytest.fixture
def refused(write: Write, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """What `run` says about a target that cannot be run."""
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    before = set(sys.modules)

    def refused(target: str, **files: str) -> str:
        for name, text in files.items():
            write(f"{name}.py", text)
        try:
            answer: Answer = call("run", target)
        finally:
            for name in set(sys.modules) - before:
                if name in files:
                    del sys.modules[name]
        assert (answer.code, answer.err.count("\n")) == (1, 1), answer
        return answer.err

    return refused


GOOD = "from solarwind import SolarWind\nwind = SolarWind('memory://')\n"


@pytest.mark.parametrize("target", ["app", "app.py:wind", "app:", ":wind", "app:wind()", "a b:c", "app:wind:x"])
def test_a_target_that_is_not_module_colon_attribute_is_refused(refused: Callable[..., str], target: str) -> None:
    assert f"expected module:attribute, such as app:wind for `wind = SolarWind()` in app.py, got '{target}'" in (
        refused(target, app=GOOD)
    )


@pytest.mark.parametrize(
    ("target", "meant"),
    [
        ("first.py", "first:shop"),
        ("./first.py", "first:shop"),
        ("first", "first:shop"),
        ("first.py:other", "first:other"),
        ("first.py:", "first:shop"),
        ("absent.py", "absent:wind"),
        ("first.shop", "first:shop"),
        ("first/shop", "first:shop"),
        ("shop/events.py", "shop.events:wind"),
    ],
)
def test_the_name_of_a_file_is_not_taken_and_what_is_meant_is_said(
    refused: Callable[..., str], target: str, meant: str
) -> None:
    said = refused(target, first="import solarwind\n\nshop: object = solarwind.SolarWind()\n")
    assert said.endswith(f"got '{target}': did you mean {meant}?\n")


def test_nothing_is_meant_by_a_file_that_is_no_module(refused: Callable[..., str], write: Write) -> None:
    write("README.md", "# Read me")
    assert refused("README.md").endswith("got 'README.md'\n")


def test_what_cannot_start_is_refused_before_it_is_said_to_run(refused: Callable[..., str]) -> None:
    said = refused("app:wind", app=GOOD.replace("memory://", "sqlite:////nowhere/wind.db"))  # one line, as all of these
    assert "/nowhere" in said


@pytest.mark.parametrize("target", ["nothing_here:wind", "mod_a.sub:wind"])
def test_run_refuses_a_module_that_does_not_exist(refused: Callable[..., str], target: str) -> None:
    assert f"expected a module {target.partition(':')[0]!r}, found none in " in refused(target, mod_a=GOOD)


def test_run_refuses_an_attribute_that_does_not_exist(refused: Callable[..., str]) -> None:
    assert "expected 'sun' in mod_b.py, which has none: did you mean mod_b:wind?" in refused("mod_b:sun", mod_b=GOOD)


def test_an_attribute_that_is_something_else(refused: Callable[..., str]) -> None:
    assert "expected a SolarWind at mod_c:x, got 'int': make one with" in refused("mod_c:x", mod_c="x = 1\n")


FAULTS = {
    "an exception": ("x = 1\nx / 0\n", "mod_x.py:2: ZeroDivisionError: division by zero"),
    "a module that it misses": ("\nimport not_installed\n", "mod_x.py:2: ModuleNotFoundError: No module named"),
    "a name that it misses": ("from json import nothing\n", "mod_x.py:1: ImportError: cannot import name"),
    "its syntax": ("x = 1\ny = = 2\n", "mod_x.py:2: SyntaxError: invalid syntax"),
    "in another file of its own": ("import mod_y\n", "mod_y.py:2: ValueError: two lines"),
    "in a library that it calls": ("import json\n\njson.loads('')\n", "mod_x.py:3: JSONDecodeError: Expecting value"),
    "in Solar Wind, misused": (GOOD + "\nwind.on('a b')(print)\n", "mod_x.py:4: BadName: expected a topic"),
    "an exit": ("import sys\nsys.exit(3)\n", "mod_x.py:2: SystemExit: 3"),
}


@pytest.mark.parametrize("case", FAULTS)
def test_a_fault_in_the_users_module_is_shown_as_his_and_where(refused: Callable[..., str], case: str) -> None:
    text, words = FAULTS[case]
    said = refused("mod_x:wind", mod_x=text, mod_y="\nraise ValueError('two\\nlines')\n")
    assert said.startswith(f"solarwind: {words}"), said
    assert said.endswith("raised while 'mod_x' was imported\n")


def test_no_traceback_in_a_process_of_its_own_either(start: Start, write: Write) -> None:
    write("app.py", "1 / 0\n")
    answer = start("run", "app:wind").end()
    expected = "solarwind: app.py:1: ZeroDivisionError: division by zero, raised while 'app' was imported\n"
    assert (answer.code, answer.out, answer.err) == (1, "", expected)


def test_a_bad_url_says_the_way_out(refused: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLARWIND_URL", "redis://127.0.0.1:7400")
    assert "--url sqlite:///wind.db" in refused("mod_z:wind", mod_z=GOOD)


# --- reload -------------------------------------------------------------------------------------------------

VERSION = """
    from solarwind import SolarWind
    wind = SolarWind()
    @wind.on("t", purpose="p", since="beginning")
    def handle(number: int) -> None:
        print("VERSION got", number, flush=True)
"""


@pytest.mark.long
def test_reload_starts_anew_when_a_file_changes_and_drains(
    url: str, start: Start, write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write("app.py", VERSION.replace("VERSION", "first"))
    done("fire", "t", "1", "--url", url)
    monkeypatch.setenv("SOLARWIND_RELOAD", "1")  # the child must not take it for its own
    process = start("run", "app:wind", "--url", url, "--grace", "5")
    process.read("first got 1")
    write("app.py", "this is no Python\n")
    process.read_err("app.py changed, restarting")
    process.read_err("solarwind: app.py:1: SyntaxError")
    process.read_err("the service ended with exit code 1, waiting for a file to change")
    done("fire", "t", "2", "--url", url)  # nobody has the store: the first was stopped in order
    write("app.py", VERSION.replace("VERSION", "other"))
    process.read("other got 2")
    process.signal(signal.SIGTERM)
    assert process.end().code == 0
    assert state(url, "p") == (2, 0)


def test_reload_looks_at_python_files_that_are_the_users_own(write: Write) -> None:
    from solarwind.cli.reload import difference, times

    for name in ("a.py", "sub/b.py", "c.txt", ".venv/d.py", "lib/site-packages/e.py", "__pycache__/f.py"):
        write(name, "")
    before = times()
    assert sorted(before) == ["./a.py", "./sub/b.py"]
    assert difference(before, before) is None
    assert difference(before, before | {"./sub/b.py": 1}) == "sub/b.py"
    assert difference(before, {"./a.py": before["./a.py"]}) == "sub/b.py"
