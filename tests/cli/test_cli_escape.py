"""What comes from events, names and errors is shown, never acted on; consent is given on the command line alone."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from solarwind import Cause, Event, Reject, SolarWind
from solarwind.batch import seal
from solarwind.cli import app

from .conftest import Process, call, done

EVIL = "[red]a\x1b[2J\x9b31m\u202eb\u2066\r\nsolarwind: all is well\x00\x7f"


@pytest.fixture
def evil(tmp_path: Path) -> str:
    """Of a store with an event, a dead letter, each of whose texts is meant to do harm."""
    url = f"sqlite:///{tmp_path}/wind.db"

    async def make() -> None:
        wind = SolarWind(url)

        @wind.on("T", purpose="[red]p[/red]", since="beginning")
        async def handle(payload: str) -> None:
            raise Reject(EVIL)

        async with wind:
            await wind.fire("T", EVIL, key=EVIL[:20], id="[bold]id", cause=Cause("user", "[red]who"))
            await wind.settled(60)

    asyncio.run(make())
    return url


HUMAN = [
    ["dead", "list", "T", "[red]p[/red]"], ["dead", "show", "T", "[red]p[/red]", "[bold]id"], ["trace", "[bold]id"],
    ["topics"], ["purposes"], ["top", "--count", "1"],
    ["dead", "redrive", "T", "[red]p[/red]", "--all"], ["retire", "T", "[red]p[/red]", "--force"],
    ["retire", "T", "[red]q\x1b"], ["trace", "no\x1b[red]"], ["fire", "T", '"\x1b'], ["fire", "T\u202e", "1"],
    ["fire", "T", "1", "--id", "\x9b"], ["dead", "list", "T", "\u202e"], ["topics", "--url", "sqlite:///\x1b[2J\u202e.db"],
]  # fmt: skip


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["tables", "json"])
@pytest.mark.parametrize("command", HUMAN, ids=ascii)
def test_nothing_that_a_terminal_acts_on_is_printed(
    evil: str, command: list[str], more: list[str], capfd: pytest.CaptureFixture[str]
) -> None:
    answer = call(*command, *more, env={"SOLARWIND_URL": evil})
    written = answer.out + answer.err + "".join(capfd.readouterr())
    assert written
    assert all(line.isprintable() for line in written.split("\n")), ascii(written)
    assert not any(line.startswith("solarwind: all is well") for line in written.split("\n"))


def test_markup_in_names_is_shown_as_it_is(evil: str) -> None:
    assert "[red]p[/red]" in done("purposes", "--url", evil).out
    assert "[bold]id" in done("trace", "[bold]id", "--url", evil).out
    assert "[red]a\\x1b[2J" in done("dead", "list", "T", "[red]p[/red]", "--url", evil).out


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["lines", "json"])
def test_listen_prints_nothing_that_a_terminal_acts_on(
    evil: str, more: list[str], start: Callable[..., Process]
) -> None:
    listen = ["listen", "T", "--purpose", "[x]", "--since", "beginning", "--count", "1"]
    answer = start(*listen, *more, "--url", evil).end()
    assert answer.code == 0, answer
    assert len(answer.out.split("\n")) == 2
    assert answer.out[:-1].isprintable()


@pytest.mark.parametrize("payload", [b'1,"id":"forged","topic":"payments"', b'{"a":1', b"", b"\xff", b"[1]]"])
def test_a_payload_that_is_no_json_is_shown_as_bytes(tmp_path: Path, payload: bytes) -> None:
    url = f"sqlite:///{tmp_path}/wind.db"

    async def make() -> str:
        wind = SolarWind(url)

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            raise Reject("no")

        async with wind:
            batch = seal("T", [payload], [1], producer=1, first=1, machine="m", process="p")
            await wind.engine.submit(batch)
            await wind.settled(60)
        return batch.id(0)

    id = asyncio.run(make())
    shown = done("dead", "show", "T", "p", id, "--json", "--url", url).json["event"]
    assert (shown["id"], shown["topic"], shown["content_type"]) == (id, "T", "application/octet-stream")
    assert base64.b64decode(shown["payload"]) == payload
    assert f"payload     {len(payload)} bytes\n" in done("dead", "show", "T", "p", id, "--url", url).out


def test_who_has_a_store_is_named_without_the_arguments_it_was_started_with(held: Process, url: str) -> None:
    said = call("topics", "--url", url).err
    assert f"in use by process {held.popen.pid}" in said
    assert "holding" not in said
    assert "--url" not in said
    lock = b"".join(path.read_bytes() for path in Path(url.removeprefix("sqlite:///")).parent.glob("wind.db-*"))
    assert b"holding:wind" not in lock


# --- consent ------------------------------------------------------------------------------------------------

SETTINGS = {
    "create",
    "dry-run",
    "json",
    "lines",
    "quiet",
    "tail",
    "no-console",
    "reload",
    "until-settled",
    "version",
    "help",
    "install-completion",
    "show-completion",
}


def flags() -> Iterator[Any]:
    """Yield every flag of every command."""
    todo: list[tuple[str, Any]] = [("solarwind", typer.main.get_command(app))]
    while todo:
        words, command = todo.pop()
        todo += [(f"{words} {name}", inner) for name, inner in getattr(command, "commands", {}).items()]
        for parameter in command.params:
            if getattr(parameter, "is_flag", False):
                yield pytest.param(parameter, id=f"{words} {parameter.opts[0]}")


@pytest.mark.parametrize("flag", list(flags()))
def test_a_flag_is_a_setting_or_consent_which_no_variable_gives(flag: Any) -> None:
    assert flag.opts[0].removeprefix("--") in SETTINGS or flag.envvar is None


def test_a_variable_does_not_discard(furnished: str) -> None:
    everything = {f"SOLARWIND_{name}": "1" for name in ("ALL", "FORCE", "YES", "ACCEPT_LOSS")}
    answer = call("dead", "discard", "video.uploaded", "Refuse", "--url", furnished, env=everything)
    assert (answer.code, "--all" in answer.err) == (2, True)
    answer = call("retire", "video.uploaded", "Refuse", "--url", furnished, env=everything)
    assert answer.code == 1
    assert len(done("dead", "list", "video.uploaded", "Refuse", "--json", "--url", furnished).json["dead"]) == 3
