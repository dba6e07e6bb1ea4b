"""docs/TUTORIAL.md, done by a reader who does exactly what it says: files are written, commands run in their terminals,
and each shows what the page shows."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.request import urlopen

import pytest

from ports import Port

PAGE = Path(__file__).parent.parent / "docs" / "TUTORIAL.md"
LIMIT_S = 60
SERVICES = ("solarwind serve", "solarwind run")  # what runs until Ctrl-C
# What differs from one run to the next.
VARYING = {
    r"\b[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}\b": "ID",
    r"\b\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)?": "TIME",
    r"\b\d+(\.\d+)? ?m?s\b": "AGE",
    r"\bsolarwind \d+\.\d+\.\d+": "VERSION",
    r"\S*/wind\.db\b": "wind.db",
    r"\b\d+(\.\d+)? (bytes|KiB|MiB)\b": "SIZE",
    r" +": " ",
}


class Step(NamedTuple):
    """A part of the page: a paragraph, or a fenced block with its language."""

    language: str  # "" for a paragraph
    text: str
    line: int


class Terminal:
    """One of the reader's terminals: a service that runs in it, or the output of the last command."""

    def __init__(self, folder: Path, number: str, port: int) -> None:
        self._folder = folder
        self._port = str(port)
        self._log = folder / f"terminal-{number}"
        self._service: subprocess.Popen[bytes] | None = None
        self._seen = 0  # how much of the log earlier blocks have shown
        self.output = ""

    def do(self, command: str) -> None:
        assert self._service is None, f"a service runs in the terminal in which {command} is to run"
        command = command.replace("7400", self._port)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("SOLARWIND_")}
        environment["SOLARWIND_URL"] = f"ws://127.0.0.1:{self._port}"  # where 7400 is the default
        environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"
        if not command.startswith(SERVICES):
            ended = subprocess.run(
                ["bash", "-c", command],
                cwd=self._folder,
                env=environment,
                capture_output=True,
                text=True,
                timeout=LIMIT_S,
                check=False,
            )
            assert ended.returncode == 0, f"{command}: {ended.stderr}"
            self.output += ended.stdout
            return
        words = shlex.split(command) + (["--port", self._port] if " serve" in command else [])
        with self._log.open("ab") as log:
            self._seen = log.tell()
            self._service = subprocess.Popen(
                words, cwd=self._folder, env=environment | {"PYTHONUNBUFFERED": "1"}, stdout=log, stderr=log
            )
        if " run " in command:
            self._wait_until_joined(words[2].partition(":")[0])

    def _wait_until_joined(self, module: str) -> None:
        """Wait until the handlers of a module are known to the server: a reader is slower than that."""
        handlers = (self._folder / f"{module}.py").read_text().count("@wind.on(")
        assert self._service is not None
        own, until = f":{self._service.pid}", time.monotonic() + LIMIT_S
        while True:
            with urlopen(f"http://127.0.0.1:{self._port}/v1/instances") as answer:
                instances = json.load(answer)["instances"]
            if sum(each["process"].endswith(own) for each in instances) == handlers:
                return
            assert time.monotonic() < until, f"{module} did not join: {self._log.read_text()}"
            time.sleep(0.02)

    def check_shows(self, text: str) -> None:
        """Check that it shows this: all that a command printed, or among other lines what a service did."""
        if self._service is None:
            assert plain(self.output, self._port) == plain(text, self._port)
            self.output = ""
            return
        expected, until = plain(text, self._port), time.monotonic() + LIMIT_S
        while True:
            shown = self._log.read_text()[self._seen :]
            lines = plain(shown, self._port)
            if all(lines.count(line) >= expected.count(line) for line in expected):
                self._seen += len(shown)
                return
            assert self._service.poll() is None, f"the service ended: {shown}"
            assert time.monotonic() < until, f"expected {text}\ngot {shown}"
            time.sleep(0.02)

    def press_ctrl_c(self) -> None:
        assert self._service is not None, "no service runs in that terminal"
        self._service.send_signal(signal.SIGINT)
        assert self._service.wait(LIMIT_S) == 0, self._log.read_text()
        self._service = None

    def close(self) -> None:
        if self._service is not None:
            self._service.kill()
            self._service.wait()


def plain(text: str, port: str) -> list[str]:
    """Return its lines without what differs from one run to the next."""
    text = text.replace(port, "7400")
    for pattern, instead in VARYING.items():
        text = re.sub(pattern, instead, text)
    return [line.strip() for line in text.splitlines() if line.strip()]


def steps() -> Iterator[Step]:
    text = PAGE.read_text()
    for found in re.finditer(r"^```(\w+)\n(.*?)^```$|^(?!```)\S.*?(?=\n\n|\Z)", text, re.MULTILINE | re.DOTALL):
        line = text.count("\n", 0, found.start()) + 1
        yield Step(found[1] or "", found[2] if found[1] else found[0], line)


@pytest.mark.long
def test_the_tutorial_does_what_it_says(tmp_path: Path) -> None:
    port = Port()
    terminals: dict[str, Terminal] = {}
    at, paragraph = "1", ""
    try:
        for step in steps():
            if step.language == "":
                paragraph = step.text
                if "Press Ctrl-C" in paragraph:
                    sentence = paragraph[paragraph.index("Press Ctrl-C") :].partition(".")[0]
                    for number in re.findall(r"terminal\s(\d)", sentence):
                        terminals[number].press_ctrl_c()
                named = re.findall(r"[Tt]erminal\s(\d)", paragraph)
                at = named[-1] if named else at
                continue
            terminal = terminals.setdefault(at, Terminal(tmp_path, at, port.number))
            try:
                if step.language == "python":
                    named = re.findall(r"`(\w+\.py)`", paragraph)
                    (tmp_path / named[-1]).write_text(step.text.replace("7400", str(port.number)))
                elif step.language == "sh":
                    for command in step.text.splitlines():
                        terminal.do(command)
                else:
                    terminal.check_shows(step.text)
            except AssertionError as error:
                pytest.fail(f"docs/TUTORIAL.md:{step.line}: {error}")
    finally:
        for terminal in terminals.values():
            terminal.close()
        port.close()
