"""deploy/: the unit and the image say only what there is, and what they run runs."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import typer.main

from solarwind.cli import app
from test_docs import parse

from .conftest import Serving

DEPLOY = Path(__file__).parent.parent.parent / "deploy"
UNIT, IMAGE = DEPLOY / "solarwind.service", DEPLOY / "Dockerfile"
RELAY = DEPLOY / "solarwind-relay.service"


def command_lines() -> list[list[str]]:
    """Return what is run, and what the comments say to run, each from after `solarwind`."""
    unit, image = UNIT.read_text() + RELAY.read_text(), IMAGE.read_text()
    lines = re.findall(r"(?:ExecStart=|sudo -u solarwind )\S*/solarwind (.*)", unit)
    lines = [line + " --database sqlite:///shop.db" * (line == "relay") for line in lines]  # by its variable
    lines += re.findall(r"docker run .* solarwind (.+)", image)
    return [*(shlex.split(line) for line in lines), json.loads(instruction("CMD"))]


def instruction(name: str) -> str:
    found = re.findall(rf"^{name} (.*)$", IMAGE.read_text(), re.MULTILINE)
    assert len(found) == 1
    return str(found[0])


def test_what_is_run_has_only_commands_and_options_that_exist() -> None:
    found = command_lines()
    assert [words[0] for words in found] == ["token", "serve", "outbox", "outbox", "relay", "token", "serve", "serve"]
    for words in found:
        parse(words)


@pytest.mark.parametrize(
    ("path", "command"),
    [(UNIT, "serve"), (IMAGE, "serve"), (RELAY, "relay")],
    ids=lambda each: getattr(each, "name", ""),
)
def test_every_variable_is_that_of_an_option_of_its_command(path: Path, command: str) -> None:
    params = typer.main.get_command(app).commands[command].params  # type: ignore[attr-defined]
    known = {parameter.envvar for parameter in params} | {"SOLARWIND_TOKEN"}
    found = set(re.findall(r"SOLARWIND_[A-Z_]+", path.read_text()))
    assert len(found) >= 2
    assert found <= known


def test_the_unit_and_the_image_serve_the_same_store_with_no_further_rights() -> None:
    unit, image = UNIT.read_text(), IMAGE.read_text()
    assert "--data /var/lib/solarwind/wind.db" in unit
    assert "ENV SOLARWIND_DATA=/var/lib/solarwind/wind.db\n" in image
    assert instruction("VOLUME") == "/var/lib/solarwind"
    assert instruction("USER") == "solarwind"
    assert instruction("EXPOSE") == "7400"
    for line in ("Type=notify", "User=solarwind", "UMask=0077", "NoNewPrivileges=yes", "ProtectSystem=strict"):
        assert f"\n{line}\n" in unit


def test_what_the_image_is_built_from_is_here() -> None:
    root = DEPLOY.parent
    copied = re.findall(r"^COPY (.*) /build/\S*$", IMAGE.read_text(), re.MULTILINE)
    assert all((root / name).exists() for line in copied for name in line.split())
    metadata = (root / "pyproject.toml").read_text()
    for name in re.findall(r'(?:readme = |license-files = \[)"(\S+?)"', metadata):
        assert name in " ".join(copied), "the wheel needs it"


@pytest.mark.parametrize("path", [UNIT, RELAY], ids=lambda path: path.name)
def test_a_unit_has_no_more_rights_than_the_servers(path: Path) -> None:
    text = "[Service]" + path.read_text().partition("# It needs its own folder")[2]
    assert text == "[Service]" + UNIT.read_text().partition("# It needs its own folder")[2]
    assert "\nUser=solarwind\n" in path.read_text()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
@pytest.mark.parametrize("path", [UNIT, RELAY], ids=lambda path: path.name)
def test_systemd_understands_the_unit(path: Path, tmp_path: Path) -> None:
    """All but the program's own path, which is where a user installs it."""
    unit = tmp_path / path.name
    unit.write_text(path.read_text().replace("/opt/solarwind/bin/solarwind ", f"{sys.executable} "))
    answer = subprocess.run(["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False)
    assert (answer.returncode, answer.stderr) == (0, "")


def test_the_image_asks_the_server_how_it_is(serving: Callable[..., Serving]) -> None:
    options, command = instruction("HEALTHCHECK").split(" CMD ")
    assert "--timeout=5s" in options
    python, flag, code = json.loads(command)
    assert (python, flag) == ("python", "-c")
    server = serving("--engine", "memory://", "--allow-host", "wind.example")
    for port, hosts, healthy in (
        (server.port, "wind.example other", True),
        (server.port, "other", False),
        (1, "", False),
    ):
        environment = {**os.environ, **({"SOLARWIND_ALLOW_HOST": hosts} if hosts else {})}
        asked = [sys.executable, flag, code.replace(":7400/", f":{port}/")]
        assert (subprocess.run(asked, env=environment, capture_output=True, check=False).returncode == 0) is healthy
