"""How these tests run commands: in this process where that shows the same, else in one of their own."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import json
import os
import shutil
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main
from typer.testing import CliRunner

from solarwind import Reject, SolarWind
from solarwind.cli import app
from solarwind.testing.contract import until

PATIENCE_S = 180.0  # for all that a test does with a process, on a machine under load
SERVES_S = 240.0  # a server lives as long as its test, which may be of many commands on a machine under load
SOLARWIND: Any = typer.main.get_command(app)  # `CliRunner.invoke` makes it anew each time, which takes longer than most


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No option comes from outside, and files are made in a folder of the test's own."""
    for name in list(os.environ):
        if name.startswith("SOLARWIND_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


class Answer:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def lines(self) -> list[str]:
        return self.out.splitlines()

    def __repr__(self) -> str:
        return f"Answer({self.code}, {self.out!r}, {self.err!r})"


def call(*arguments: str, input: str | bytes | None = None, env: dict[str, str] | None = None) -> Answer:
    """Run a command in this process."""
    with CliRunner().isolation(input=input, env=env) as (out, err, _):
        try:
            SOLARWIND.main(args=arguments, prog_name="solarwind")
            code = 0
        except SystemExit as end:
            code = int(end.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
        return Answer(code, out.getvalue().decode(errors="replace"), err.getvalue().decode(errors="replace"))


def done(*arguments: str, input: str | bytes | None = None) -> Answer:
    """Run a command in this process that has to succeed."""
    answer = call(*arguments, input=input)
    assert answer.code == 0, answer
    return answer


def eventually(condition: Callable[[], object], what: str = "") -> None:
    """Wait until it holds."""
    asyncio.run(until(lambda: asyncio.to_thread(condition), what))


class Process:
    """A command in a process of its own. It does not outlive the test, nor its patience."""

    def __init__(self, *arguments: str, module: str = "solarwind", patience_s: float = PATIENCE_S, **how: Any) -> None:
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        command = [sys.executable, "-m", module, *arguments]
        self.popen = subprocess.Popen(command, text=True, **(streams | how))
        self._end = threading.Timer(patience_s, self.popen.kill)
        self._end.start()

    def read(self, text: str) -> str:
        """Wait for a line on stdout that has `text` in it."""
        return self._read(self.popen.stdout, text)

    def read_err(self, text: str) -> str:
        return self._read(self.popen.stderr, text)

    def _read(self, stream: Any, text: str) -> str:
        for line in stream:
            if text in line:
                return str(line)
        pytest.fail(f"it ended without {text!r}; {self.popen.communicate()}")

    def send(self, text: str) -> None:
        assert self.popen.stdin is not None
        self.popen.stdin.write(text)
        self.popen.stdin.flush()

    def signal(self, number: int) -> None:
        self.popen.send_signal(number)

    def end(self) -> Answer:
        """Wait for its end."""
        out, err = self.popen.communicate()
        return Answer(self.popen.returncode, out or "", err or "")

    def close(self) -> None:
        self._end.cancel()
        if self.popen.poll() is None:
            self.popen.kill()
        self.popen.wait()
        for stream in (self.popen.stdin, self.popen.stdout, self.popen.stderr):
            if stream is not None:
                stream.close()


@pytest.fixture
def start() -> Iterator[Callable[..., Process]]:
    running: list[Process] = []

    def start(*arguments: str, **how: Any) -> Process:
        running.append(Process(*arguments, **how))
        return running[-1]

    yield start
    for process in running:
        process.close()


class Serving:
    """A `solarwind serve`. `http` and `url` say where, and `unix` at which socket."""

    def __init__(self, process: Process) -> None:
        self.process = process
        said = json.loads(process.read_err('"serves"'))
        self.what, self.unix = said["serves"], said.get("unix", "")
        self.url, self.http = said.get("ws", self.unix), said.get("http", "")
        self.port = int(self.http.rpartition(":")[2]) if self.http else 0

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Over HTTP. Gives the status, and what the answer's JSON says."""
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=PATIENCE_S)
        with contextlib.closing(connection):
            content = {"content-type": "application/json"} if body is not None else {}
            connection.request(method, path, None if body is None else json.dumps(body), content | headers)
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")


@pytest.fixture
def serving(start: Callable[..., Process]) -> Callable[..., Serving]:
    """Start a server on a free port, unless one is stated."""

    def serving(*options: str, **how: Any) -> Serving:
        port = [] if {"--port", "--fd", "--socket"} & {*options} else ["--port", "0"]
        return Serving(start("serve", "--json", *port, *options, patience_s=SERVES_S, **how))

    return serving


@pytest.fixture
def write(tmp_path: Path) -> Callable[[str, str], None]:
    """Write a file into the current folder."""

    def write(name: str, text: str) -> None:
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text))

    return write


@pytest.fixture
def url(tmp_path: Path) -> str:
    """Of a store that is not there yet."""
    return f"sqlite:///{tmp_path}/wind.db"


@pytest.fixture
def empty(url: str) -> str:
    """Of a store with nothing in it."""

    async def make() -> None:
        async with SolarWind(url):
            pass

    asyncio.run(make())
    return url


@pytest.fixture(scope="session")
def _furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("furnished")

    async def furnish() -> None:
        wind = SolarWind(f"sqlite:///{folder}/wind.db")

        @wind.on("video.uploaded", purpose="Encode [video] to MP4")
        async def encode(video: dict[str, int]) -> None:
            wind.fire("video.encoded", {"of": video["id"]}, key="k")

        @wind.on("video.uploaded", purpose="Refuse", exchange="keyed")
        def refuse(video: dict[str, int]) -> None:
            raise Reject(f"no\nroom for {video['id']}")

        @wind.on("video.encoded", purpose="Live page", exchange="fanout")
        def show(video: dict[str, int]) -> None:
            pass

        async with wind:
            for number in range(3):
                await wind.fire("video.uploaded", {"id": number}, id=f"video-{number}")
            await wind.settled(timeout=60)

    asyncio.run(furnish())
    return folder


@pytest.fixture
def furnished(_furnished: Path, tmp_path: Path) -> str:
    """Of a store with three videos, each of them encoded for one purpose and a dead letter of another."""
    for path in _furnished.iterdir():
        shutil.copy(path, tmp_path / path.name)
    return f"sqlite:///{tmp_path}/wind.db"


@pytest.fixture
def held(url: str, start: Callable[..., Process], write: Callable[[str, str], None]) -> Process:
    """A store with one event that another process has open."""
    write(
        "holding.py",
        """
        from solarwind import SolarWind
        wind = SolarWind()
        @wind.on("held", since="beginning")
        def hold(payload: int) -> None:
            print("holding", flush=True)
        """,
    )
    done("fire", "held", "1", "--url", url)
    process = start("run", "holding:wind", "--url", url)
    process.read("holding")
    return process
