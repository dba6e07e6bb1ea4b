"""fire and listen: events in from arguments and pipes, and out to them, each settled once it is printed."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from solarwind.cli import events

from .conftest import Process, call, done

Start = Callable[..., Process]


# --- fire ---------------------------------------------------------------------------------------------------


def payloads(url: str, topic: str, count: int, start: Start) -> list[object]:
    """Return what was fired on a topic."""
    arguments = ("--purpose", "test", "--since", "beginning", "--count", str(count), "--json", "--url", url)
    answer = start("listen", topic, *arguments).end()
    assert answer.code == 0, answer
    return [json.loads(line)["payload"] for line in answer.lines]


def test_fire_prints_the_id_once_it_is_accepted(url: str) -> None:
    id = done("fire", "t", '{"a": 1}', "--url", url).out
    assert done("trace", id.strip(), "--url", url, "--json").json["event"]["payload"] == {"a": 1}


def test_fire_with_json_prints_the_count_and_ids_as_json(url: str) -> None:
    assert done("fire", "t", "--id", "one", "--url", url, "--json").json == {"id": "one"}


def test_a_local_time_that_clocks_leave_out_is_due_after_they_went_forward(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As what falls into that hour is with schedules. A time that comes twice is the first."""
    monkeypatch.setenv("TZ", "Europe/Berlin")
    time.tzset()
    try:
        at = {"left-out": "2027-03-28T02:30", "twice": "2027-10-31T02:30", "summer": "2027-07-01T02:30"}
        for id, text in at.items():
            done("fire", "t", "--id", id, "--at", text, "--url", url)
        found = done("delayed", "list", "t", "--url", url, "--json").json["delayed"]
    finally:
        monkeypatch.undo()
        time.tzset()
    assert {each["event"]["id"]: each["due"] for each in found} == {
        "left-out": "2027-03-28T01:30:00Z",
        "twice": "2027-10-31T00:30:00Z",
        "summer": "2027-07-01T00:30:00Z",
    }


def test_fire_for_later_and_what_is_delayed_is_listed_shown_and_cancelled(url: str) -> None:
    due = datetime.now().astimezone() + timedelta(hours=1)
    done("fire", "t", "1", "--id", "one", "--at", due.isoformat(), "--url", url)
    done("fire", "t", "2", "--id", "two", "--after", "2h", "--expires", "1d", "--url", url)
    done("fire", "t", "--lines", "--id", "x", "--after", "3h", "--url", url, input="3\n4\n")
    found = done("delayed", "list", "t", "--url", url, "--json").json["delayed"]
    assert [(each["event"]["id"], each["event"]["payload"]) for each in found] == [
        ("one", 1), ("two", 2), ("x.1", 3), ("x.2", 4),
    ]  # fmt: skip
    assert datetime.fromisoformat(found[0]["due"]) == due
    assert "expires" in found[1]["event"]
    lines = done("delayed", "list", "--url", url, "--limit", "2").lines
    assert lines[0].split()[:3] == ["DUE", "TOPIC", "ID"]
    assert lines[2].split()[2:4] == ["t", "two"]
    assert "expires" in done("delayed", "show", "t", "two", "--url", url).out
    assert done("delayed", "cancel", "t", "two", "--url", url).out == "two on t is cancelled\n"
    assert "is not delayed (any more)" in done("delayed", "cancel", "t", "two", "--url", url).out
    assert done("delayed", "cancel", "t", "two", "--url", url, "--json").json == {"cancelled": False}
    assert call("delayed", "show", "t", "two", "--url", url).code == 1


@pytest.mark.parametrize(
    ("arguments", "input", "payload"),
    [
        ([], None, None),
        ([], "7", None),
        (["-"], "[1, 2]\n", [1, 2]),
        (['{"pretty":\n  true}'], None, {"pretty": True}),
        (["--", "-5"], None, -5),
        (['"ü\\u0000"'], None, "ü\0"),
    ],
)
def test_the_payload_is_an_argument_or_stdin_or_null(
    url: str, arguments: list[str], input: str | None, payload: object
) -> None:
    done("fire", "t", "--id", "x", "--url", url, *arguments, input=input)
    assert done("trace", "x", "--url", url, "--json").json["event"]["payload"] == payload


def test_key_and_id_are_the_events_own_and_an_id_counts_once(url: str) -> None:
    for _ in range(2):
        done("fire", "t", "1", "--id", "x", "--key", "k", "--url", url)
    assert done("trace", "x", "--url", url, "--json").json["event"]["key"] == "k"
    assert done("topics", "--url", url, "--json").json[0]["fired"] == 1


def test_extensions_are_said_of_each_event_that_is_fired(url: str, start: Start) -> None:
    said = ("--extension", "subject=a=b", "--extension", "shop=", "--url", url)
    done("fire", "t", "1", *said)
    done("fire", "t", "--lines", *said, input="2\n3\n")
    listen = ("listen", "t", "--purpose", "test", "--since", "beginning", "--count", "3", "--json", "--url", url)
    answer = start(*listen).end()
    assert [json.loads(line)["extensions"] for line in answer.lines] == [{"subject": "a=b", "shop": ""}] * 3


@pytest.mark.parametrize(
    ("given", "code", "words"),
    [
        (("subject",), 2, "NAME=VALUE"),
        (("a=1", "a=2"), 2, "extension a once"),
        (("A=1",), 1, "names of a-z and 0-9"),
        (("id=1",), 1, "which an event says otherwise"),
    ],
)
def test_an_extension_that_is_none_is_refused(url: str, given: tuple[str, ...], code: int, words: str) -> None:
    answer = call("fire", "t", *(part for each in given for part in ("--extension", each)), "--url", url)
    assert answer.code == code
    assert words in " ".join(answer.err.replace("│", " ").split())


def test_lines_are_an_event_each_and_empty_ones_none(url: str, start: Start) -> None:
    assert done("fire", "t", "--lines", "--url", url, input='{"a": 1}\n\n  2 \r\n"c"').out == "3 events fired\n"
    assert payloads(url, "t", 3, start) == [{"a": 1}, 2, "c"]


def test_lines_with_an_id_may_be_fired_again(url: str) -> None:
    for _ in range(2):
        done("fire", "t", "--lines", "--id", "monday", "--url", url, input="1\n\n3\n")
    assert done("trace", "monday.3", "--url", url, "--json").json["event"]["payload"] == 3
    assert done("topics", "--url", url, "--json").json[0]["fired"] == 2


def test_lines_as_json_are_a_count(url: str) -> None:
    assert done("fire", "t", "-", "--lines", "--url", url, "--json", input="1\n2\n").json == {"fired": 2}
    assert done("fire", "t", "--lines", "--url", url, "--json", input="").json == {"fired": 0}


def test_a_bad_line_is_refused_with_its_number_and_what_came_before_is_fired(url: str) -> None:
    answer = call("fire", "t", "--lines", "--url", url, input="1\n2\n{bad\n4\n")
    assert answer.code == 1
    assert answer.err.startswith("solarwind: line 3: expected JSON, got ")
    assert answer.err.endswith("; fired before it: 2 events\n")
    assert answer.err.count("\n") == 1
    assert done("topics", "--url", url, "--json").json[0]["fired"] == 2


@pytest.mark.parametrize("more", ["", "\n2\n"])
def test_a_line_without_end_is_refused_before_it_fills_memory(url: str, more: str) -> None:
    answer = call("fire", "t", "--lines", "--url", url, input="1\n" + '"' + "x" * (3 << 20) + '"' + more)
    assert answer.code == 1
    assert answer.err.startswith("solarwind: line 2: expected a payload of at most 1,048,576 bytes")
    assert answer.err.endswith("fired before it: 1 event\n")


def test_many_lines_are_read_part_by_part(url: str) -> None:
    lines = "".join(f'{{"number":{number},"text":"{"x" * 80}"}}\n' for number in range(30_000))
    assert done("fire", "t", "--lines", "--url", url, input=lines).out == "30,000 events fired\n"
    assert done("topics", "--url", url, "--json").json[0]["fired"] == 30_000


def test_parts_are_whole_lines_however_they_come_in() -> None:
    class Slow:
        def __init__(self) -> None:
            self.left = [b"1\n2", b"2\n", b"3", b"", b"never"]

        def read1(self, size: int) -> bytes:
            return self.left.pop(0)

    assert list(events._parts(Slow())) == [[b"1"], [b"22"], [b"3"]]  # type: ignore[arg-type]


def test_a_line_is_fired_when_it_comes_in_and_a_terminal_sees_how_many_were(url: str, start: Start) -> None:
    master, terminal = pty.openpty()
    process = start("fire", "t", "--lines", "--url", url, stdin=subprocess.PIPE, stderr=terminal)
    os.close(terminal)
    process.send("1\n")
    seen = ""
    while "1 events" not in seen:  # while it waits for the next line
        seen += os.read(master, 1 << 12).decode()
    assert "firing on t" in seen
    process.signal(signal.SIGTERM)
    answer = process.end()
    os.close(master)
    assert (answer.code, answer.out) == (128 + signal.SIGTERM, "")
    assert done("topics", "--url", url, "--json").json[0]["fired"] == 1


# --- listen -------------------------------------------------------------------------------------------------


def fire(url: str, *values: object, topic: str = "t") -> None:
    done(
        "fire", topic, "--lines", "--url", url, input="\n".join(json.dumps(each, ensure_ascii=False) for each in values)
    )


def pending(url: str, purpose: str = "p") -> int:
    found = done("purposes", "--url", url, "--json").json
    return next(each["pending"] for each in found if each["purpose"] == purpose)


def test_listen_prints_an_event_a_line_and_leaves_after_the_count(url: str, start: Start) -> None:
    fire(url, {"a": 1}, "two\x9b", 3)
    answer = start("listen", "t", "--purpose", "p", "--since", "beginning", "--count", "2", "--url", url).end()
    assert (answer.code, answer.err) == (0, "")
    first, second = answer.lines
    day, time, id, payload = first.split(" ")
    assert datetime.fromisoformat(f"{day} {time}").tzinfo is not None
    assert len(id) == 36
    assert payload == '{"a":1}'
    assert second.endswith('"two\\x9b"')
    assert pending(url) == 1


def test_listen_as_json_is_an_object_a_line(url: str, start: Start) -> None:
    done("fire", "t", '{"pretty":\n [1]}', "--key", "k", "--id", "x", "--url", url)
    command = ("listen", "t", "--purpose", "p", "--since", "1h", "--count", "1", "--json", "--url", url)
    answer = start(*command).end()
    (line,) = answer.lines
    event = json.loads(line)
    assert datetime.fromisoformat(event.pop("time")).tzinfo is not None
    assert event.pop("cause")["kind"] == "application"
    assert event.pop("machine")
    assert event.pop("process")
    assert event == {"id": "x", "topic": "t", "key": "k", "root": "x", "attempt": 1, "payload": {"pretty": [1]}}


def test_listen_keyed_by_a_field_of_the_payload(url: str, start: Start) -> None:
    fire(url, {"v": "a"}, {"v": "b"})
    options = ("--exchange", "keyed", "--key-field", "$.v", "--version", "2", "--since", "beginning", "--count", "2")
    assert len(start("listen", "t", "--purpose", "p", *options, "--url", url).end().lines) == 2
    (found,) = done("purposes", "--url", url, "--json").json
    assert (found["exchange"], found["versions"], found["settled"]) == ("keyed", [2], 2)


def test_listen_rejects_events_without_a_key_where_it_is_told_to(url: str, start: Start) -> None:
    fire(url, {"w": "a"}, {"v": "b"})
    options = ("--exchange", "keyed", "--key-field", "$.v", "--key-missing", "reject", "--since", "beginning")
    assert len(start("listen", "t", "--purpose", "p", *options, "--count", "1", "--url", url).end().lines) == 1
    (found,) = done("purposes", "--url", url, "--json").json
    assert (found["settled"], found["dead"]) == (1, 1)
    answer = start("listen", "t", "--purpose", "q", "--key-missing", "ignore", "--url", url).end()
    assert (answer.code, answer.out) == (1, "")
    assert "expected key_missing 'handle' or 'reject', got 'ignore'" in answer.err


def test_fire_on_a_topic_that_is_the_dispatcher_s_is_refused_before_a_store_is_made(tmp_path: Path) -> None:
    answer = call("fire", "solarwind.dead", "1", "--url", f"sqlite:///{tmp_path}/none.db")
    assert (answer.code, "'solarwind.dead', on which only the dispatcher fires" in answer.err) == (1, True)
    assert not (tmp_path / "none.db").exists()


def test_listen_states_the_limits_of_its_purpose(url: str, start: Start) -> None:
    options = ("--rate", "500/s", "--at-most", "1", "--since", "beginning", "--count", "2")
    fire(url, 1, 2)
    assert len(start("listen", "t", "--purpose", "p", *options, "--url", url).end().lines) == 2
    (found,) = done("purposes", "t", "--url", url, "--json").json
    assert (found["rate"], found["at_most"]) == ("500/s", 1)
    answer = start("listen", "t", "--purpose", "q", "--rate", "100", "--url", url).end()
    assert (answer.code, "expected a rate such as '100/s'" in answer.err) == (1, True)


def test_listen_states_the_delay_of_its_purpose(url: str, start: Start) -> None:
    fire(url, 1, 2)
    options = ("--delay", "2s", "--since", "beginning", "--count", "2")
    lines = start("listen", "t", "--purpose", "p", *options, "--url", url).end().lines
    assert [line.rsplit(" ", 1)[1] for line in lines] == ["1", "2"]
    (found,) = done("purposes", "--url", url, "--json").json
    assert (found["delay"], found["delayed"], found["settled"]) == (2.0, 0, 2)
    answer = start("listen", "t", "--purpose", "q", "--delay", "soon", "--url", url).end()
    assert (answer.code, answer.out) == (2, "")
    assert "expected a duration" in answer.err


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_listen_leaves_cleanly_on_a_signal(url: str, start: Start, number: int) -> None:
    fire(url, 1)
    process = start("listen", "t", "--purpose", "p", "--since", "beginning", "--url", url)
    process.read(" 1")
    process.signal(number)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")
    assert pending(url) == 0


def test_a_broken_pipe_is_no_fault_and_leaves_the_event_unsettled(url: str, start: Start) -> None:
    fire(url, 1, 2)
    read, write = os.pipe()
    os.close(read)
    process = start("listen", "t", "--purpose", "p", "--since", "beginning", "--url", url, stdout=write)
    os.close(write)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")
    assert pending(url) == 2


def test_a_reader_that_stopped_reading_does_not_keep_it_from_leaving(url: str, start: Start) -> None:
    fire(url, *["x" * 10_000] * 30)  # more than a pipe holds
    read, write = os.pipe()
    process = start("listen", "t", "--purpose", "p", "--since", "beginning", "--url", url, stdout=write)
    os.close(write)
    assert os.read(read, 10)
    process.signal(signal.SIGTERM)
    answer = process.end()
    os.close(read)
    assert (answer.code, answer.err) == (0, "")
    assert pending(url) > 0


# --- the program --------------------------------------------------------------------------------------------


def test_a_list_into_a_closed_pipe_is_no_traceback(furnished: str, start: Start) -> None:
    read, write = os.pipe()
    os.close(read)
    process = start("topics", "--url", furnished, stdout=write)
    os.close(write)
    assert process.end().err == ""


def test_the_version_is_the_packages(start: Start) -> None:
    from importlib.metadata import version

    said = f"solarwind {version('solarwind')}\n"
    assert done("--version").out == said
    assert done("version").out == said
    assert done("version", "--json").json == {"version": version("solarwind")}


def test_a_command_does_not_wait_for_what_only_tables_need() -> None:
    code = "import solarwind.cli, sys; sys.exit('rich.table' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
