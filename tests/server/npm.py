"""The packages of npm that tests meet a server with, as `make test` has them in `.venv/npm`."""

from __future__ import annotations

import base64
import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

NODE = shutil.which("node")
NPM = Path(__file__).parents[2] / ".venv" / "npm"
needs_npm = pytest.mark.skipif(
    NODE is None or not (NPM / "node_modules").is_dir(),
    reason="needs Node, and packages of npm as `make test` has them",
)


class Refused(Exception):
    """A package of npm refused what it was given."""


class Judge:
    """A process in which packages of npm read, write and verify messages: see judge.mjs."""

    def __init__(self) -> None:
        assert NODE is not None
        command = [NODE, str(Path(__file__).with_name("judge.mjs")), str(NPM)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def verify(self, secret: str, headers: dict[str, str], body: bytes) -> Any:
        """Return the body of a webhook's message, which is JSON. Raise `Refused` where it is not genuine."""
        return self._ask("verify", secret=secret, headers=headers, body=base64.b64encode(body).decode())

    def read(self, headers: dict[str, str], body: bytes) -> list[dict[str, Any]]:
        """Return the CloudEvents of a message, as they are in JSON."""
        found: list[dict[str, Any]] = self._ask("read", headers=headers, body=base64.b64encode(body).decode())
        return found

    def write(self, mode: str, events: list[dict[str, Any]]) -> list[tuple[dict[str, str], bytes]]:
        """Return messages with these CloudEvents, headers and body; `mode` is binary, structured or batched."""
        return [
            (each["headers"], base64.b64decode(each["body"])) for each in self._ask("write", mode=mode, events=events)
        ]

    def _ask(self, what: str, **more: Any) -> Any:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        print(json.dumps({"do": what, **more}), file=self._process.stdin, flush=True)
        answer = json.loads(self._process.stdout.readline())
        if "error" in answer:
            raise Refused(answer["error"])
        return answer.get("found")

    def end(self) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()
