"""The place of the contract's rules where the dispatcher is a server in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from ports import Port
from solarwind import SolarWind
from solarwind.testing.contract import Place

ROOT = "/events"
# A test whose machine is busy is no peer that is gone. Those about these times state others.
PATIENT = {"authenticate_s": 600.0, "idle_s": 600.0, "heartbeat_s": 600.0, "body_rate": 1}


class Host:
    """A process that runs servers: see host.py."""

    def __init__(self) -> None:
        self._ports: dict[int, Port] = {}  # a server that is stopped keeps its port until it is dropped
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("host.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, url: str, port: int = 0, tokens: Path | None = None, **settings: Any) -> int:
        """Return the port of a server on this store."""
        answer = self._ask("start", url, port or self._port(), tokens and str(tokens), PATIENT | settings)
        assert isinstance(answer, int), answer
        return answer

    def start_at(self, path: Path, url: str, tokens: Path | None = None, **settings: Any) -> None:
        """Start a server on this store at a Unix socket."""
        answer = self._ask("start", url, str(path), tokens and str(tokens), PATIENT | settings)
        assert answer == str(path), answer

    def mount(self, framework: str, url: str, port: int = 0, **settings: Any) -> int:
        """Return the port of an app of FastAPI or Starlette that has a server mounted at `ROOT`."""
        answer = self._ask("mount", framework, url, port or self._port(), PATIENT | settings)
        assert isinstance(answer, int), answer
        return answer

    def _port(self) -> int:
        port = Port()
        self._ports[port.number] = port
        return port.number

    def stop(self, port: int | str) -> None:
        self._ask("stop", port)

    def drop(self, port: int | str) -> None:
        """Stop it for good, but do not wait."""
        self._ask("drop", port)
        if isinstance(port, int):
            self._ports.pop(port).close()

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
        self._give_up_ports()

    def kill(self) -> None:
        """Kill it, which to the process is like a power cut."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.kill()
        self._process.wait()
        self._process.stdin.close()
        self._process.stdout.close()
        self._give_up_ports()

    def _give_up_ports(self) -> None:
        for each in self._ports.values():
            each.close()

    @property
    def pid(self) -> int:
        return self._process.pid

    def _ask(self, *command: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


class ServerPlace(Place):
    """A server of its own for each test. Where it is on a file, what it accepted outlives it."""

    in_process = False
    path = ""

    def __init__(self, host: Host, store: str) -> None:
        self.durable = store != "memory://"
        self._host = host
        self._store = store
        self._port = self._start(0)

    def _start(self, port: int) -> int:
        return self._host.start(self._store, port)

    def open(self) -> SolarWind:
        return SolarWind(f"ws://127.0.0.1:{self._port}{self.path}", grace=10.0)

    def restart(self) -> SolarWind:
        wind = super().restart()
        self._host.stop(self._port)
        self._start(self._port)
        return wind

    def close(self) -> None:
        self._host.drop(self._port)


class UnixPlace(ServerPlace):
    """The same at a Unix socket."""

    def __init__(self, host: Host, store: str, path: Path) -> None:
        self._path = path
        super().__init__(host, store)

    def _start(self, port: int) -> int:
        self._host.start_at(self._path, self._store)
        return 0

    def open(self) -> SolarWind:
        return SolarWind(f"unix://{self._path}", grace=10.0)

    def restart(self) -> SolarWind:
        wind = self.open()
        self._host.stop(str(self._path))
        self._start(0)
        return wind

    def close(self) -> None:
        self._host.drop(str(self._path))


class MountedPlace(ServerPlace):
    """The same, mounted in somebody's app."""

    path = ROOT

    def __init__(self, host: Host, framework: str, store: str) -> None:
        self._framework = framework
        super().__init__(host, store)

    def _start(self, port: int) -> int:
        return self._host.mount(self._framework, self._store, port)
