"""A `SolarWind` of a Flask app: when it runs, in which context its handlers are, and which app it belongs to.

`docs/FLASK.md` has the ordinary case, and its programs are run by `test_docs.py`."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from flask import Flask, current_app

from solarwind import BadArgument, Depends, SolarWind, Unavailable
from solarwind.cli import app as cli
from solarwind.contrib.flask import FlaskSolarWind

A_WHILE_S = 60


@pytest.fixture
def wind() -> Iterator[FlaskSolarWind]:
    wind = FlaskSolarWind(grace=5)
    yield wind
    wind.close()


def make_app(wind: FlaskSolarWind, name: str = "shop", **config: Any) -> Flask:
    app = Flask(name)
    app.config.from_mapping(SOLARWIND_URL="memory://", **config)
    wind.init_app(app)

    @app.get("/fire")
    def fire() -> str:
        return wind.fire("T", 7).wait(A_WHILE_S)

    return app


def name_of_app() -> Iterator[str]:
    yield current_app.name
    assert current_app.name


def test_it_starts_with_the_first_request_and_again_after_it_was_closed(wind: FlaskSolarWind) -> None:
    app = make_app(wind)
    with pytest.raises(Unavailable, match=r"not started: say `wind\.init_app\(app\)`"):
        wind.fire("T")
    with pytest.raises(Unavailable, match=r"not started: say `wind\.init_app\(app\)`"):
        wind.wait(wind.settled(1))
    for _ in range(2):
        assert app.test_client().get("/fire").text
        assert app.test_client().get("/fire").text
        wind.close()
        with pytest.raises(Unavailable):
            wind.fire("T")
    wind.begin()
    wind.begin()
    wind.fire("T").wait(A_WHILE_S)


def test_handlers_and_their_dependencies_are_in_the_apps_context(wind: FlaskSolarWind) -> None:
    seen: list[str] = []
    torn_down: list[str] = []

    @wind.on("T", purpose="def")
    def in_thread(number: int, name: Annotated[str, Depends(name_of_app)]) -> None:
        seen.append(f"def {name} {current_app.name}")

    @wind.on("T", purpose="async")
    async def on_loop(number: int, name: Annotated[str, Depends(name_of_app)]) -> None:
        seen.append(f"async {name} {current_app.name}")

    app = make_app(wind)
    app.teardown_appcontext(lambda error: torn_down.append(str(error)))
    app.test_client().get("/fire")
    wind.wait(wind.settled(A_WHILE_S))
    assert sorted(seen) == ["async shop shop", "def shop shop"]
    assert torn_down == ["None"] * 3


def test_it_belongs_to_the_last_app_and_begins_there_with_nothing(wind: FlaskSolarWind) -> None:
    seen: list[str] = []

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        seen.append(current_app.name)

    for name in ("one", "two"):
        app = make_app(wind, name)
        assert app.extensions["solarwind"] is wind
        app.test_client().get("/fire")
        wind.wait(wind.settled(A_WHILE_S))
        assert wind.wait(wind.statistics()).topics["T"].fired == 1
    assert seen == ["one", "two"]


def test_the_configuration_is_checked(wind: FlaskSolarWind) -> None:
    make_app(wind, SOLARWIND_GRACE=0.5)
    assert wind.grace == 0.5
    with pytest.raises(BadArgument, match="expected grace"):
        make_app(wind, SOLARWIND_GRACE=-1)
    app = Flask("wrong")
    app.config["SOLARWIND_URL"] = "http://localhost"
    with pytest.raises(BadArgument, match="expected"):
        wind.init_app(app)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"SOLARWIND_URI": "memory://"}, "got SOLARWIND_URI: did you mean 'SOLARWIND_URL'?"),
        ({"SOLARWIND_TOKN": "sw_secret"}, "got SOLARWIND_TOKN: did you mean 'SOLARWIND_TOKEN'?"),
        ({"SOLARWIND_GRACE_S": 5}, "got SOLARWIND_GRACE_S: did you mean 'SOLARWIND_GRACE'?"),
        ({"SOLARWIND_LIMITS": 5}, "got SOLARWIND_LIMITS: say FlaskSolarWind(limits=Limits(...))"),
        ({"SOLARWIND_TOKEN": "sw_secret\n"}, "expected a token"),
    ],
)
def test_a_key_that_there_is_not_is_refused(wind: FlaskSolarWind, config: dict[str, Any], words: str) -> None:
    with pytest.raises(BadArgument) as caught:
        make_app(wind, **config)
    assert words in str(caught.value)
    assert "secret" not in str(caught.value)


def variables(command: Any) -> Iterator[str]:
    """Yield the environment variables of the options of a command, and of all commands below it."""
    yield from [each.envvar for each in command.params if each.envvar]
    for below in getattr(command, "commands", {}).values():
        yield from variables(below)


def test_what_other_parts_read_of_the_environment_is_no_misspelling(wind: FlaskSolarWind) -> None:
    """An app may load all of the environment: `$SOLARWIND_TOKENS` is an option of `solarwind serve`."""
    others = {*variables(typer.main.get_command(cli)), "SOLARWIND_NATS_CREDS"} - {"SOLARWIND_URL", "SOLARWIND_GRACE"}
    assert {"SOLARWIND_TOKENS", "SOLARWIND_RATE"} < others
    make_app(wind, **dict.fromkeys(others, "7"), SOLARWIND_OF_MY_OWN="7")


def test_all_of_the_environment_may_be_loaded(wind: FlaskSolarWind, monkeypatch: pytest.MonkeyPatch) -> None:
    """There each value is text, and one that is empty counts as none, as for every other part."""
    for name, value in {"URL": "", "TOKEN": "", "GRACE": "2.5", "TOKENS": "tokens.json"}.items():
        monkeypatch.setenv(f"SOLARWIND_{name}", value)
    app = Flask("shop")
    app.config.from_mapping(os.environ)
    wind.init_app(app)
    assert wind.grace == 2.5
    wind.begin()
    wind.fire("T").wait(A_WHILE_S)
    with pytest.raises(BadArgument, match=r"expected grace .*, got '5s'"):
        make_app(wind, SOLARWIND_GRACE="5s")


def test_a_handler_without_an_app_says_what_is_missing(wind: FlaskSolarWind, caplog: pytest.LogCaptureFixture) -> None:
    @wind.on("T", purpose="p")
    def handle(number: int) -> None: ...

    with wind:
        wind.fire("T", 1).wait(A_WHILE_S)
        with pytest.raises(TimeoutError):
            wind.wait(wind.settled(0.5))
    assert "call wind.init_app(app) first" in caplog.text


def test_what_was_fired_last_is_accepted_at_the_end_of_the_process(tmp_path: Path) -> None:
    program = """
from solarwind.contrib.flask import FlaskSolarWind
wind = FlaskSolarWind()
wind.use("sqlite:///shop.db")
wind.begin()
wind.fire("T", "first").wait(60)
wind.fire("T", "last")
"""
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, timeout=A_WHILE_S, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    with SolarWind(f"sqlite:///{tmp_path}/shop.db") as wind:
        assert [event.payload for event in wind.wait(wind.events("T"))] == ["first", "last"]


SERVICE = """
from flask import Flask
from solarwind.contrib.flask import FlaskSolarWind

wind = FlaskSolarWind()
app = Flask(__name__)
app.config["SOLARWIND_URL"] = "sqlite:///shop.db"
wind.init_app(app)

@wind.on("T", purpose="Print")
def handle(text: str) -> None:
    print("handled", text, flush=True)
"""


@pytest.mark.long
def test_the_command_runs_the_handlers_and_asks_with_the_apps_url(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(SERVICE)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLARWIND_")}

    def flask(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "flask", "--app", "shop", "solarwind", *words]
        return subprocess.run(
            command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=A_WHILE_S, check=False
        )

    assert flask("run", "--until-settled").returncode == 0
    assert flask("fire", "T", '"a text"').returncode == 0
    ran = flask("run", "--until-settled")
    assert (ran.returncode, ran.stdout) == (0, "handled a text\n"), ran.stderr
    asked = flask("purposes", "--json")
    assert '"settled": 1' in asked.stdout or '"settled":1' in asked.stdout, asked.stdout + asked.stderr
    wrong = flask("retire", "T", "Nobody")
    assert wrong.returncode == 1
    assert "Traceback" not in wrong.stderr
    assert flask("sail").returncode == 2
    with sqlite3.connect(tmp_path / "shop.db") as held:
        held.execute("BEGIN EXCLUSIVE")
        refused = flask("run", "--until-settled")
        assert refused.returncode == 1
        assert "database is locked" in refused.stderr
        assert "Traceback" not in refused.stderr
    held.close()


def test_a_token_counts_though_the_url_is_that_of_the_environment(
    wind: FlaskSolarWind, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOLARWIND_URL", "memory://")
    app = Flask("shop")
    app.config["SOLARWIND_TOKEN"] = 5
    with pytest.raises(BadArgument, match="token"):
        wind.init_app(app)


def test_requests_are_served_though_the_dispatcher_is_away(
    wind: FlaskSolarWind, caplog: pytest.LogCaptureFixture
) -> None:
    app = Flask("shop")
    app.config["SOLARWIND_URL"] = "ws://127.0.0.1:1"
    wind.init_app(app)
    app.get("/")(lambda: "served")
    for _ in range(2):
        assert app.test_client().get("/").text == "served"
    assert "Solar Wind did not start with a request: expected a server at ws://127.0.0.1:1" in caplog.text
    wind.use("memory://")
    app.test_client().get("/")
    wind.fire("T").wait(A_WHILE_S)


@pytest.mark.parametrize("app", ["shop", None, Flask])
def test_what_is_no_app_is_refused(wind: FlaskSolarWind, app: Any) -> None:
    with pytest.raises(BadArgument, match="expected a Flask app, got"):
        wind.init_app(app)


def test_an_app_that_has_served_a_request_is_refused_and_nothing_is_stopped(wind: FlaskSolarWind) -> None:
    make_app(wind).test_client().get("/fire")
    other = Flask("other")
    other.get("/")(lambda: "served")
    other.test_client().get("/")
    with pytest.raises(AssertionError, match="setup method"):
        wind.init_app(other)
    wind.fire("T").wait(A_WHILE_S)


def test_a_request_of_a_former_app_does_not_start_it_and_is_said(
    wind: FlaskSolarWind, caplog: pytest.LogCaptureFixture
) -> None:
    former = make_app(wind, "former")
    make_app(wind, "now")
    assert former.test_client().get("/fire").status_code == 500
    assert "a request of the Flask app 'former', to which its SolarWind does not belong any more" in caplog.text
