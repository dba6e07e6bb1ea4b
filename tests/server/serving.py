"""Processes that tests of faults start and do things to: a server, those who fire and handle there, and the way
between them."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Coroutine, Mapping
from pathlib import Path
from typing import IO, Any

from notes import Notes
from ports import Port
from solarwind.testing.contract import until

from .place import PATIENT

LIVES = Path(__file__).with_name("lives.py")


class Serving:
    """A `solarwind serve` on a file, which may be started again and again on one port."""

    def __init__(
        self, folder: Path, *options: object, scheme: str = "ws", environment: Mapping[str, str] | None = None
    ) -> None:
        """`environment` is what it gets of it besides that of the test."""
        self._environment = environment or {}
        self.store = folder / "wind.db"
        self._port = Port()
        self.port = self._port.number
        patient = [f"--{name.replace('_', '-')}={value}" for name, value in PATIENT.items()]
        self._options = [*patient, *map(str, options)]
        self._scheme = scheme
        self._errors = folder / "server.errors"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"{self._scheme}://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    async def start(self) -> None:
        """Start it, and wait until it accepts connections."""
        self._launch()
        await until(self._accepts, "the server to accept connections")

    def _launch(self) -> None:
        data = [] if "--engine" in self._options else ["--data", str(self.store)]
        command = ["serve", "--json", *data, "--port", str(self.port), *self._options]
        with self._errors.open("ab") as errors:
            environment = os.environ | self._environment
            self._process = subprocess.Popen(
                [sys.executable, "-m", "solarwind", *command], stderr=errors, env=environment
            )

    async def _accepts(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self._errors.read_text()
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.port)
        except OSError:
            return False
        writer.close()
        return True

    def send(self, number: signal.Signals) -> None:
        os.kill(self.pid, number)

    async def end(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Return its exit code."""
        assert self._process is not None
        process, self._process = self._process, None
        process.send_signal(signal.SIGCONT)
        process.send_signal(number)
        await until(lambda: process.poll() is not None, "the server to end")
        return process.returncode

    def log(self) -> str:
        """Return all that it logged."""
        return self._errors.read_text()

    def complaints(self) -> str:
        """Return what it logged as an error."""
        lines = self.log().splitlines()
        return "\n".join(line for line in lines if '"level":"error"' in line or '"level":"critical"' in line)

    def kill(self) -> None:
        """Kill it, however the test ended."""
        self._port.close()
        if self._process is not None:
            self._process.kill()
            self._process.wait()


class Life:
    """A process of `lives.py`. What it notes, line by line, is in its file."""

    def __init__(self, mode: str, url: str, folder: Path, name: str, *arguments: object) -> None:
        self.name = name
        path = folder / f"{name}.notes"
        self._errors = folder / f"{name}.errors"
        path.touch()
        self._notes = Notes(path)
        command = [sys.executable, str(LIVES), mode, url, str(path), name, *map(str, arguments)]
        with self._errors.open("wb") as errors:
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=errors)

    @property
    def lines(self) -> list[str]:
        """All whole lines so far."""
        return self._notes.lines

    async def notes(self, line: str) -> None:
        """Wait until it has noted this."""
        await until(lambda: line in self.lines, f"{self.name} to note {line!r}; it said: {self.errors}")

    @property
    def errors(self) -> str:
        return self._errors.read_text()

    @property
    def alive(self) -> bool:
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        self._process.send_signal(number)

    def tell(self, line: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(f"{line}\n".encode())
        self._process.stdin.flush()

    async def end(self) -> None:
        """End it by a signal, as services end."""
        self.send(signal.SIGTERM)
        await until(lambda: self._process.poll() is not None, f"{self.name} to end")
        assert self._process.returncode == 0, self.errors

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        stdin: IO[Any] | None = self._process.stdin
        if stdin is not None:
            stdin.close()


class Way:
    """Between a client and a server: bytes go to and fro until it is cut, one way or both, without a word to either."""

    def __init__(self, port: int) -> None:
        self._server = port
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._there = asyncio.Event()
        self._back = asyncio.Event()
        self.connections = 0
        self.hung_up = 0  # of them, those that the server has ended
        self.port = 0
        # What whoever connects is told instead of being brought to the server, if anything; then it is hung up on.
        self.answer: bytes | None = None

    async def __aenter__(self) -> Way:
        self.mend()
        self._listening = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._listening.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._listening.close()
        self.drop()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    @property
    def url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    def cut(self, *, back_only: bool = False) -> None:
        """Cut all connections that exist; later ones are not affected."""
        if not back_only:
            self._there.clear()
        self._back.clear()
        self._there, self._back = asyncio.Event(), asyncio.Event()
        self.mend()

    def mend(self) -> None:
        self._there.set()
        self._back.set()

    def shut(self, answer: bytes = b"") -> None:
        """End the connections that there are, and let nobody through until it is opened."""
        self.answer = answer
        self.drop()

    def reopen(self) -> None:
        self.answer = None

    def drop(self) -> None:
        for task in self._tasks:
            task.cancel()
        for writer in self._writers:
            writer.transport.abort()
        self._writers.clear()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.answer is not None:
            writer.write(self.answer)
            writer.close()
            return
        self._writers.add(writer)
        try:
            onward, return_writer = await asyncio.open_connection("127.0.0.1", self._server)
        except OSError:
            writer.transport.abort()
            return
        self._writers.add(return_writer)
        self._begin(self._carry(reader, return_writer, self._there))
        self._begin(self._carry(onward, writer, self._back, from_server=True))

    def _begin(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, open_: asyncio.Event, from_server: bool = False
    ) -> None:
        passed: list[bytes] = []
        try:
            while data := await source.read(1 << 16):
                passed.append(data)
                if open_.is_set():
                    sink.write(b"".join(passed))
                    passed.clear()
                    await sink.drain()
        except OSError:
            pass
        self.hung_up += from_server
        await open_.wait()
        sink.writelines(passed)
        sink.close()
