"""The place of the contract's rules where the dispatcher is a server in another process."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from solarwind import SolarWind
from solarwind.testing.contract import Place


class Host:
    """A process that runs servers: see host.py."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("host.py"))],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def start(self, url: str, port: int = 0, **settings: Any) -> int:
        """Gives the port of a server on this store."""
        answer = self._ask("start", url, port, settings)
        assert isinstance(answer, int), answer
        return answer

    def stop(self, port: int) -> None:
        self._ask("stop", port)

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()

    def _ask(self, *command: object) -> object:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps(command), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


class ServerPlace(Place):
    """A server of its own for each test. Where it is on a file, what it accepted outlives it."""

    in_process = False

    def __init__(self, host: Host, store: str) -> None:
        self.durable = store != "memory://"
        self._host = host
        self._store = store
        self._port = host.start(store)

    def open(self) -> SolarWind:
        return SolarWind(f"ws://127.0.0.1:{self._port}", grace=10.0)

    def restart(self) -> SolarWind:
        wind = super().restart()
        self._host.stop(self._port)
        self._host.start(self._store, self._port)
        return wind

    def close(self) -> None:
        self._host.stop(self._port)
