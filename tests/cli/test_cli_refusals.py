"""What is refused: exit code 1, one line on stderr that says why, no traceback, and nothing made or changed."""

from __future__ import annotations

import socket
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import typer.main

from solarwind.cli import app

from .conftest import Process, call

ENCODE = ("video.uploaded", "Encode [video] to MP4")

REFUSED: dict[str, tuple[list[str], str]] = {
    "bad topic to fire on": (["fire", "bad topic"], "expected a topic"),
    "bad topic to listen to": (["listen", "a..b", "--purpose", "p"], "expected a topic"),
    "bad topic to list": (["purposes", "a..b"], "expected a topic"),
    "bad topic to set": (["topics", "set", "a b", "--keep", "0"], "expected a topic"),
    "bad purpose": (["listen", "t", "--purpose", " p"], "expected a purpose"),
    "bad exchange": (["listen", "t", "--purpose", "p", "--exchange", "pigeon"], "pigeon"),
    "bad key field": (["listen", "t", "--purpose", "p", "--exchange", "keyed", "--key-field", "x"], "$.video_id"),
    "bad JSON": (["fire", "t", '{"a":'], "expected JSON"),
    "JSON in other bytes": (["fire", "t", '"\udcff"'], "expected JSON"),
    "JSON nested without end": (["fire", "t", "[" * 100_000], "expected JSON"),
    "no JSON": (["fire", "t", ""], "expected JSON"),
    "bad key": (["fire", "t", "1", "--key", "k" * 300], "expected a key"),
    "bad id": (["fire", "t", "1", "--id", " "], "expected an event id"),
    "unknown topic": (["dead", "list", "nothing", "p"], "nothing"),
    "unknown topic to list purposes of": (["purposes", "video.uplaoded"], "'video.uplaoded', which does not exist"),
    "unknown topic to list instances of": (["instances", "video.uplaoded"], "'video.uplaoded', which does not exist"),
    "unknown topic to list events of": (["events", "video.uplaoded"], "'video.uplaoded', which does not exist"),
    "unknown purpose": (["dead", "list", "video.uploaded", "p"], "'p'"),
    "unknown purpose to redrive": (["dead", "redrive", "video.uploaded", "p", "--all"], "'p'"),
    "unknown purpose to replay": (["replay", "video.uploaded", "p"], "'p'"),
    "unknown purpose to retire": (["retire", "video.uploaded", "p"], "'p'"),
    "replay of a fan-out": (["replay", "video.encoded", "Live page"], "fanout"),
    "unknown event": (["trace", "video-9"], "'video-9'"),
    "another exchange": (["listen", *ENCODE[:1], "--purpose", ENCODE[1], "--exchange", "keyed"], "version"),
    "unknown topic to set": (["topics", "set", "video.uplaoded", "--keep", "0"], "did you mean 'video.uploaded'?"),
    "too little history": (["topics", "set", "t", "--keep-bytes", "1", "--url", "sqlite:///none.db"], "there is none"),
    "backup into nowhere": (["backup", "no/such/copy.db"], "does not exist"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line(furnished: str, case: str) -> None:
    command, words = REFUSED[case]
    answer = call(*command, env={"SOLARWIND_URL": furnished})
    assert answer.code == 1, answer
    assert answer.out == ""
    assert answer.err.startswith("solarwind: ")
    assert answer.err.count("\n") == 1
    assert words in answer.err


USAGE: dict[str, list[str]] = {
    "no command": [],
    "no such command": ["sail"],
    "no such option": ["topics", "--sail"],
    "no topic": ["fire"],
    "no purpose": ["listen", "t"],
    "bad duration": ["topics", "set", "t", "--keep", "a week"],
    "bad moment": ["replay", "t", "p", "--since", "yesterday"],
    "bad count": ["listen", "t", "--purpose", "p", "--count", "0"],
    "bad number": ["topics", "set", "t", "--keep-bytes", "many"],
    "a payload besides lines": ["fire", "t", "1", "--lines"],
}


CAME: dict[str, tuple[list[str], str]] = {
    "bad port": (["serve", "--port", "x"], "'x' is not a valid int"),
    "bad count": (["listen", "t", "--purpose", "p", "--count", "0"], "0 is not in the range x>=1"),
    "no seconds": (["top", "--interval", "nan"], "expected a number below 1,000,000,000, got nan"),
    "endless seconds": (["run", "app:wind", "--grace", "inf"], "expected a number below 1,000,000,000, got inf"),
    "bad seconds": (["top", "--interval", "soon"], "'soon' is not a valid float"),
    "nothing to keep": (["topics", "set", "t"], "expected at least one of --keep, --keep-bytes, got none"),
    "a time without its date": (
        ["events", "t", "--since", "14:00"],
        "a time with its date such as 2026-01-31T12:00, or 2026-01-31T12:00:00Z in UTC, or a duration ago such as 2h, "
        "got '14:00': for today write 2",
    ),
    "no share": (
        ["rollout", "share", "t", "p", "--version", "2", "--share", "half"],
        "or in per cent, such as 0.5 or 50%, got 'half'",
    ),
    "no dead letters named": (["dead", "redrive", "t", "p"], "or --all, got neither"),
    "all dead letters and one": (["dead", "redrive", "t", "p", "i", "--all"], "or --all, got both"),
    "no such option": (["topics", "--sail"], "--sail"),
    "one too many": (["trace", "i", "j"], "(j)"),
}


@pytest.mark.parametrize("case", CAME)
def test_wrong_usage_is_told_what_came(case: str) -> None:
    command, words = CAME[case]
    answer = call(*command, env={"COLUMNS": "200"})
    assert answer.code == 2, answer
    assert words in " ".join(answer.err.replace("│", " ").split()), answer


@pytest.mark.parametrize("command", ["check", "restore"])
def test_the_help_of_what_reads_a_file_names_no_server_as_its_default(command: str) -> None:
    assert "ws://" not in call(command, "--help").out


@pytest.mark.parametrize("case", USAGE)
def test_wrong_usage_is_another_exit_code(furnished: str, case: str) -> None:
    answer = call(*USAGE[case], env={"SOLARWIND_URL": furnished})
    assert answer.code == 2, answer
    assert "Traceback" not in answer.err


READING = [
    ["topics"], ["purposes"], ["instances"], ["attention"], ["stores"], ["audit"],
    ["topics", "set", "t", "--keep", "0"], ["dead", "list", "t", "p"], ["dead", "show", "t", "p", "i"],
    ["dead", "redrive", "t", "p", "--all"], ["dead", "discard", "t", "p", "--all"],
    ["retries", "t", "p"], ["retry", "t", "p"], ["types", "t"], ["schemas"],
    ["replay", "t", "p"], ["pause", "t", "p"], ["resume", "t", "p"], ["retire", "t", "p"],
    ["rollout", "show", "t", "p"], ["rollout", "share", "t", "p", "--version", "2", "--share", "0.1"],
    ["rollout", "shadow", "t", "p", "--version", "2"], ["rollout", "differences", "t", "p"],
    ["rollout", "promote", "t", "p", "--version", "2"], ["rollout", "rollback", "t", "p"],
    ["rates", "t", "p"], ["events", "t"], ["show", "t", "i"], ["trace", "i"], ["top", "--count", "1"],
    ["schedules", "list"], ["schedules", "show", "n"], ["schedules", "add", "t", "n", "--every", "5m"],
    ["schedules", "pause", "n"], ["schedules", "resume", "n"], ["schedules", "run", "n"], ["schedules", "remove", "n"],
    ["delayed", "list"], ["delayed", "show", "t", "i"], ["delayed", "cancel", "t", "i"],
    ["webhooks", "list"], ["webhooks", "answers", "t", "p", "n"],
    ["webhooks", "pause", "t", "p", "n"], ["webhooks", "resume", "t", "p", "n"],
    ["check"], ["backup", "b.db"], ["ui"],
]  # fmt: skip


@pytest.mark.parametrize("command", READING, ids=" ".join)
def test_a_store_that_is_not_there_is_refused_rather_than_made(url: str, tmp_path: Path, command: list[str]) -> None:
    answer = call(*command, "--url", url)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "there is none at" in answer.err
    assert list(tmp_path.iterdir()) == []


def test_a_store_that_is_not_there_is_not_made_however_its_url_is_written(tmp_path: Path) -> None:
    assert call("topics", "--url", "SQLITE:///wind.db").code == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def nobody() -> Iterator[str]:
    """The URL of a server that does not run, on a port that nobody else gets."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield f"ws://127.0.0.1:{bound.getsockname()[1]}"


@pytest.mark.parametrize("command", [*READING, ["fire", "t"], ["listen", "t", "--purpose", "p"]], ids=" ".join)
def test_where_there_is_no_server_the_way_out_is_said(nobody: str, tmp_path: Path, command: list[str]) -> None:
    answer = call(*command, "--url", nobody)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert ("--url sqlite:///wind.db" if command == ["check"] else "`solarwind serve`") in answer.err
    assert nobody in answer.err
    assert list(tmp_path.iterdir()) == []


OTHERS: dict[str, tuple[bytes | None, str]] = {
    "another service": (b"SSH-2.0-OpenSSH_9.2\r\n", "something else, which says 'SSH-2.0-OpenSSH_9.2'"),
    "an old web server": (b"HTTP/1.0 404 File not found\r\n\r\n", "'HTTP/1.0 404 File not found'"),
    "a web server": (
        b"HTTP/1.1 404 Not Found\r\nContent-Length: 11\r\n\r\n<html>\x1b[2J\n",
        "got HTTP 404: is it another web server",
    ),
    "one with TLS": (b"\x15\x03\x01\x00\x02\x02\x46", "got TLS: is it wss://?"),
    "one that hangs up": (b"", "but the server closed the connection: is it another service's port"),
    "a silent one": (None, "got no answer within 0.2 s: is it another service's port"),
}


@pytest.mark.parametrize("case", OTHERS)
def test_a_port_that_is_not_solar_winds_is_told_by_what_it_says(case: str, monkeypatch: pytest.MonkeyPatch) -> None:
    said, words = OTHERS[case]
    monkeypatch.setattr("solarwind.peer.link.CONNECT_S", 10.0 if said is not None else 0.2)
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(1 << 16)
                if said is None:
                    connection.recv(1)  # until the client gives up
                else:
                    connection.sendall(said)

        answering = threading.Thread(target=answer)
        answering.start()
        url = f"ws://127.0.0.1:{listening.getsockname()[1]}"
        refused = call("topics", "--url", url)
        answering.join()
    assert (refused.code, refused.err.count("\n")) == (1, 1)
    assert words in refused.err
    assert url in refused.err


def test_a_url_without_a_port_says_which_one_it_means() -> None:
    assert "(port 80, as the URL names none; 7400 is the usual one)" in call("topics", "--url", "ws://127.0.0.1").err


@pytest.mark.parametrize(
    ("options", "code", "words"),
    [
        (["--at", "12:00"], 2, "a time with its date"),
        (["--after", "soon"], 2, "a duration such as"),
        (["--expires", "soon"], 2, "or a duration such as 2h"),
        (["--at", "2030-01-31T12:00", "--after", "1h"], 1, "got both"),
        (["--after", "2h", "--expires", "1h"], 1, "expires after it is due"),
        (["--after", "9999d"], 1, "ten years"),
    ],
)
def test_times_that_cannot_be_are_refused_before_a_store_is_made(
    url: str, tmp_path: Path, options: list[str], code: int, words: str
) -> None:
    answer = call("fire", "t", *options, "--url", url)
    assert (answer.code, words in answer.err.replace("\n", " ")) == (code, True), answer
    assert list(tmp_path.iterdir()) == []


def test_without_a_url_every_command_goes_to_the_servers_usual_port() -> None:
    def defaults(command: Any, words: list[str]) -> Iterator[tuple[list[str], object]]:
        for name, inner in getattr(command, "commands", {}).items():
            yield from defaults(inner, [*words, name])
        yield from ((words, each.default) for each in command.params if each.name == "url" and words != ["run"])

    found = list(defaults(typer.main.get_command(app), []))
    assert {default for _, default in found} == {"ws://127.0.0.1:7400"}
    tried = [*READING, ["fire"], ["listen"], ["owners"], ["restore"], ["relay"], ["docs"], ["mcp"]]
    assert [words for words, _ in found if not any(each[: len(words)] == words for each in tried)] == []


def _text(path: Path) -> None:
    path.write_text("This is no database, however long one reads in it. " * 20)


def _other_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE mine(x)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize("make", [_text, _other_database, Path.mkdir])
@pytest.mark.parametrize("command", [["topics"], ["check"], ["backup", "b.db"], ["fire", "t"]], ids=" ".join)
def test_a_file_that_is_no_store_is_refused(
    url: str, tmp_path: Path, make: Callable[[Path], None], command: list[str]
) -> None:
    make(tmp_path / "wind.db")
    answer = call(*command, "--url", url)
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer
    assert "wind.db" in answer.err


@pytest.mark.parametrize(
    "bad", ["wind.db", "sqlite://wind.db", "sqlite:///", "memory://x", "http://x", "ws://x", "sqlite:///a?b=c"]
)
@pytest.mark.parametrize("command", [["topics"], ["check"], ["fire", "t"]], ids=" ".join)
def test_a_bad_url_is_refused(tmp_path: Path, bad: str, command: list[str]) -> None:
    answer = call(*command, "--url", bad)
    assert (answer.code, answer.err.count("\n")) == (1, 1), answer
    assert bad.replace("b=c", "b=...") in answer.err
    assert list(tmp_path.iterdir()) == []


def test_the_http_address_of_a_server_is_told_its_url() -> None:
    answer = call("topics", "--url", "https://me:secret@example.org:7400")
    assert answer.code == 1
    assert "the URL for --url of a server is wss://...@example.org:7400" in answer.err


def test_a_store_in_use_is_refused_naming_the_process(held: Process, url: str) -> None:
    for command in (["topics"], ["fire", "t"], ["listen", "t", "--purpose", "p"], ["top"]):
        answer = call(*command, "--url", url)
        assert (answer.code, answer.err.count("\n")) == (1, 1), command
        assert f"in use by process {held.popen.pid}" in answer.err
        assert "solarwind serve" in answer.err


@pytest.mark.parametrize(
    ("command", "code"),
    [
        (["fire", "bad topic", "--url", "sqlite:///wind.db"], 1),
        (["topics", "--url", "sqlite:///none.db"], 1),
        (["sail"], 2),
        (["--version"], 0),
    ],
)
def test_a_process_ends_with_the_exit_code(start: Callable[..., Process], command: list[str], code: int) -> None:
    answer = start(*command).end()
    assert answer.code == code
    assert "Traceback" not in answer.err
    if code == 1:
        assert answer.err.startswith("solarwind: ")
        assert answer.err.count("\n") == 1


def test_a_port_that_another_has_is_said_before_a_store_is_made(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        answer = call("serve", "--data", str(tmp_path / "wind.db"), "--port", str(port))
    assert answer.code == 1
    assert f"expected to listen on 127.0.0.1 port {port}" in answer.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("url", ["unix:///run/wind.sock", "ws://127.0.0.1:7400"])
def test_a_url_of_what_is_not_installed_is_told_how_to_install_it_and_nothing_else(url: str) -> None:
    code = "import sys; sys.modules['websockets'] = None; from solarwind.cli import main; main()"
    command = [sys.executable, "-c", code, "topics", "--url", url]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1), ended.stderr
    assert "but it is not installed: run " in ended.stderr
    assert "name a store" not in ended.stderr
