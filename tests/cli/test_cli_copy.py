"""copy: what it says, what it refuses, and that it goes on where it was cut off."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path

import apsw
import pytest

from sampling import some
from solarwind.batch import seal
from solarwind.store.sqlite import SqliteStore

from .conftest import Process, call, done, eventually

EVENTS = 6_000  # each a batch of its own, of 1 KiB: several pages of them


def test_a_copy_is_a_store_with_the_same_in_it(furnished: str) -> None:
    answer = done("copy", "--from", furnished, "--to", "sqlite:///copy.db")
    assert [line.split() for line in answer.lines] == [
        ["topics", "2"],
        ["events", "6"],
        ["of", "them", "before", "0"],
        ["delayed", "0"],
        ["purposes", "3"],
        ["dead", "letters", "3"],
    ]
    assert answer.err == ""
    for command in (["topics"], ["purposes"], ["dead", "list", "video.uploaded", "Refuse"]):
        copied = done(*command, "--url", "sqlite:///copy.db", "--json").json
        assert copied == done(*command, "--url", furnished, "--json").json
    [trace] = done("trace", "video-1", "--url", "sqlite:///copy.db", "--json").json["caused"]
    assert trace["event"]["topic"] == "video.encoded"
    assert done("check", "--url", "sqlite:///copy.db").code == 0


def test_a_second_copy_finds_it_done(furnished: str) -> None:
    for before in (0, 6):
        answer = done("copy", "--from", furnished, "--to", "sqlite:///copy.db", "--json")
        there = {"topics": 2, "events": 6, "delayed": 0, "purposes": 3, "dead_letters": 3}
        assert answer.json == there | {"before": before}


def test_a_copy_that_was_used_is_refused(furnished: str) -> None:
    done("copy", "--from", furnished, "--to", "sqlite:///copy.db")
    done("fire", "video.uploaded", "1", "--url", "sqlite:///copy.db")
    answer = call("copy", "--from", furnished, "--to", "sqlite:///copy.db")
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert "one of the two was in use since" in answer.err


@pytest.mark.parametrize(
    ("source", "target", "words"),
    [
        ("memory://", "sqlite:///copy.db", "name a store that lasts"),
        ("sqlite:///wind.db", "memory://", "name a store that lasts"),
        ("ws://127.0.0.1:7400", "sqlite:///copy.db", "got the server"),
        ("sqlite:///wind.db", "wss://wind.example.com", "got the server"),
        ("sqlite:///wind.db", "http://here", "http://here"),
        ("sqlite:///none.db", "sqlite:///copy.db", "there is none at none.db"),
        ("sqlite:///wind.db", "sqlite:///no/such/copy.db", "does not exist"),
        ("sqlite:///wind.db", "sqlite:///./wind.db", "expected two stores"),
    ],
)
def test_what_cannot_be_copied_is_refused(furnished: str, tmp_path: Path, source: str, target: str, words: str) -> None:
    answer = call("copy", "--from", source, "--to", target)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert answer.err.startswith("solarwind: ")
    assert words in answer.err
    assert not (tmp_path / "copy.db").exists()
    assert not (tmp_path / "none.db").exists()


@pytest.mark.parametrize("ends", [[], ["--from", "sqlite:///wind.db"], ["--to", "sqlite:///copy.db"]])
def test_copy_needs_both_ends(ends: list[str]) -> None:
    assert call("copy", *ends).code == 2


def test_a_store_in_use_is_refused_at_either_end(held: Process, url: str) -> None:
    for ends in ([url, "sqlite:///copy.db"], ["sqlite:///copy.db", url]):
        done("fire", "t", "1", "--url", "sqlite:///copy.db")
        answer = call("copy", "--from", ends[0], "--to", ends[1])
        assert (answer.code, answer.err.count("\n")) == (1, 1)
        assert f"in use by process {held.popen.pid}" in answer.err


# --- cut off ------------------------------------------------------------------------------------------------


@pytest.fixture
def large(furnished: str, tmp_path: Path) -> str:
    """A furnished store, in which one topic has so many events that copying them takes a while."""

    async def fill() -> None:
        store = SqliteStore(str(tmp_path / "wind.db"))
        await store.open(1)
        batches = [
            seal("many", [b"%1024d" % number], [number], producer=7, first=number, machine="box", process="app 7")
            for number in range(EVENTS)
        ]
        await store.commit(batches, [], [], 1)
        await store.close()

    asyncio.run(fill())
    return furnished


def rows(path: Path, query: str) -> list[object]:
    connection = apsw.Connection(str(path))
    try:
        return [row for (row,) in connection.execute(query)]
    finally:
        connection.close()


# Nothing tells from outside that a process is in the middle of a copy: so it stops itself there.
STOP = """
import os, signal
from solarwind.copying import _Copying
check, pages = _Copying._check, []
def stopping_check(self, topic, *others):
    check(self, topic, *others)
    pages.append(topic.name)
    if pages.count("many") == 1:
        os.kill(os.getpid(), signal.SIGSTOP)
_Copying._check = stopping_check
"""


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"


@pytest.mark.parametrize("number", some([signal.SIGKILL], [signal.SIGINT, signal.SIGTERM, signal.SIGKILL]))
def test_cut_off_by_a_signal_it_goes_on_when_it_is_repeated(
    large: str,
    tmp_path: Path,
    start: Callable[..., Process],
    monkeypatch: pytest.MonkeyPatch,
    number: signal.Signals,
) -> None:
    (tmp_path / "stop").mkdir()
    (tmp_path / "stop" / "sitecustomize.py").write_text(STOP)
    with monkeypatch.context() as context:
        context.setenv("PYTHONPATH", str(tmp_path / "stop"))
        process = start("copy", "--from", large, "--to", "sqlite:///copy.db")
    eventually(lambda: is_stopped(process.popen.pid), "it to be in the middle")
    process.signal(number)
    process.signal(signal.SIGCONT)
    answer = process.end()
    if number == signal.SIGKILL:
        assert answer.code == -signal.SIGKILL
    else:
        assert answer.code == 128 + number
        assert answer.err == "cut off: the same command again goes on where this one was\n"
    assert answer.out == ""
    assert rows(tmp_path / "wind.db", "SELECT value FROM meta WHERE name = 'clean'") == [1], "nothing is suspect"

    again = done("copy", "--from", large, "--to", "sqlite:///copy.db", "--json").json
    assert again["events"] == EVENTS + 6
    assert 0 < again["before"] < EVENTS

    done("copy", "--from", large, "--to", "sqlite:///whole.db")
    for query in (
        "SELECT name || ' ' || start || ' ' || hex(data) FROM batches JOIN topics ON topic = id ORDER BY 1",
        "SELECT topic || ' ' || purpose || ' ' || hex(state) FROM snapshots ORDER BY 1",
        "SELECT topic || ' ' || purpose || ' ' || position || ' ' || error FROM dead ORDER BY 1",
        "SELECT value FROM meta WHERE name = 'clean'",
    ):
        assert rows(tmp_path / "copy.db", query) == rows(tmp_path / "whole.db", query)
