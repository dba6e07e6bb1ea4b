"""dev: one command with the app, its dispatcher and the console, which starts the app anew when a file changes."""

from __future__ import annotations

import json
import os
import signal
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

import pytest

from ports import Port

from .conftest import Answer, Process, call, done
from .test_cli_ui import ask

Start = Callable[..., Process]
Write = Callable[[str, str], None]

APP = """
    from solarwind import SolarWind
    wind = SolarWind("nats://192.0.2.1/production")

    @wind.on("t", purpose="p", since="beginning")
    def handle(number: int) -> None:
        print("VERSION got", number, flush=True)
"""


def fired(address: str, payload: object) -> None:
    assert ask(address, "/v1/topics/t/events", "POST", payload)[0] == 202


def test_dev_runs_the_app_on_a_file_of_its_own_with_the_console_and_starts_it_anew(start: Start, write: Write) -> None:
    write("app.py", APP.replace("VERSION", "first"))
    process = start("dev", "--port", "0", env={**os.environ, "SOLARWIND_URL": "nats://192.0.2.1/other"})
    address = process.read("http://").strip()
    assert ask(address, "/console/", token=False) == (200, None)
    assert ask(address, "/v1/topics", token=False)[0] == 401
    fired(address, 1)
    process.read("first got 1")
    write("app.py", APP.replace("VERSION", "other one"))
    process.read_err("app.py changed, restarting")
    process.read_err("app.handle")  # among the handlers of the one that is new: what drains may take an event
    fired(address, 2)
    process.read("other one got 2")
    write("app.py", "this is no Python\n")
    process.read_err("app.py:1: SyntaxError")
    process.read_err("waiting for a file to change")
    fired(address, 3)  # the dispatcher and the console stay
    write("app.py", APP.replace("VERSION", "last"))
    process.read("last got 3")
    process.signal(signal.SIGINT)
    assert process.end().code == 0
    (found,) = done("purposes", "--url", "sqlite:///solarwind-dev.db", "--json").json
    assert (found["settled"], found["pending"]) == (3, 0)


def test_dev_prints_one_address_and_takes_the_file_and_port_that_are_stated(start: Start, write: Write) -> None:
    write("other.py", APP)
    port = Port()
    process = start("dev", "other:wind", "--data", "shop.db", "--port", str(port.number), "--json")
    assert urlsplit(json.loads(process.read("console"))["console"]).port == port.number
    process.signal(signal.SIGTERM)
    answer = process.end()
    assert (answer.code, answer.out) == (0, "")
    assert os.path.exists("shop.db")
    assert not os.path.exists("solarwind-dev.db")


def test_the_console_of_dev_says_who_operated_with_it(start: Start, write: Write) -> None:
    write("app.py", APP)
    address = start("dev", "--port", "0").read("http://").strip()
    assert ask(address, "/v1/token")[1]["name"] == "dev"


@pytest.fixture
def refused(start: Start) -> Callable[..., str]:
    """The last line of a `dev` that does not start."""

    def refused(*options: str) -> str:
        answer: Answer = start("dev", *options).end()
        assert (answer.code, answer.out) == (1, ""), answer
        assert "Traceback" not in answer.err
        return answer.err

    return refused


def test_dev_refuses_to_start_without_an_app(refused: Callable[..., str]) -> None:
    assert "neither app.py nor main.py in " in refused()
    assert "expected a module 'nothing', found none in " in refused("nothing:wind")
    assert os.listdir() == []


def test_dev_refuses_a_port_that_is_taken(refused: Callable[..., str], write: Write) -> None:
    write("app.py", APP)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        assert refused("--port", str(port)) == (
            f"solarwind: expected to listen on 127.0.0.1 port {port}, which cannot be (Address already in use): name "
            "another with --port, or 0 for any that is free\n"
        )


def test_dev_refuses_a_file_that_another_process_has_open(
    refused: Callable[..., str], held: Process, write: Write
) -> None:
    write("app.py", APP)
    said = refused("--port", "0", "--data", "wind.db")
    assert f"in use by process {held.popen.pid}" in said


def test_dev_refuses_a_file_in_no_folder(refused: Callable[..., str], write: Write) -> None:
    write("app.py", APP)
    assert "nowhere/wind.db" in refused("--port", "0", "--data", "nowhere/wind.db")


def test_a_port_of_dev_that_is_none_is_wrong_usage() -> None:
    assert call("dev", "--port", "65536").code == 2
