"""topics, purposes, replay, retire, trace: what they print, for people and as JSON."""

from __future__ import annotations

import asyncio
import json
import re
import signal
from collections.abc import Callable
from datetime import datetime

import pytest
import typer

from solarwind import Reject, SolarWind
from solarwind.cli import app, options, show, tracing
from solarwind.origin import MACHINE
from solarwind.testing.contract import until

from .conftest import Process, Serving, call, done, eventually


def test_topics_are_a_table_with_numbers_to_the_right(furnished: str) -> None:
    lines = done("topics", "--url", furnished).lines
    heads = "TOPIC FIRED PURPOSES DELAYED NEXT DUE KEPT BYTES KEEP KEEP BYTES"
    assert lines[0].split() == heads.split()
    assert lines[1].split()[:4] == ["video.encoded", "3", "1", "0"]
    assert lines[2].split()[:6] == ["video.uploaded", "3", "2", "0", "-", "3"]
    assert lines[0].index("FIRED") + len("FIRED") == lines[1].index(" 3 ") + 2


def test_topics_as_json_are_one_document(furnished: str) -> None:
    found = {each["topic"]: each for each in done("topics", "--url", furnished, "--json").json}
    uploaded = found["video.uploaded"]
    assert uploaded.pop("kept_bytes") > 0
    assert uploaded == {
        "topic": "video.uploaded",
        "fired": 3,
        "purposes": ["Encode [video] to MP4", "Refuse"],
        "kept": 3,
        "keep": 7 * 86400.0,
        "keep_bytes": None,
        "delayed": 0,
        "next_due": None,
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["topics"], "No topics."),
        (["purposes"], "No purposes."),
        (["purposes", "t"], "No purposes on t."),
        (["instances", "t"], "No instances on t."),
        (["top", "--count", "1"], "No topics."),
    ],
)
def test_an_empty_list_says_so(empty: str, command: list[str], words: str) -> None:
    if "t" in command:
        done("topics", "set", "t", "--keep", "1h", "--create", "--url", empty)
    assert words in done(*command, "--url", empty).out


@pytest.mark.parametrize("command", [["topics"], ["purposes"]])
def test_an_empty_list_as_json_is_one_too(empty: str, command: list[str]) -> None:
    assert done(*command, "--url", empty, "--json").json == []


def test_topics_set_says_what_holds_now_and_it_lasts(furnished: str) -> None:
    said = done("topics", "set", "video.encoded", "--keep", "12h", "--keep-bytes", "5000", "--url", furnished).out
    assert said == "video.encoded keeps events for 12h, and 5,000 bytes at most\n"
    found = done("topics", "set", "video.encoded", "--keep", "0", "--url", furnished, "--json").json
    assert (found["keep"], found["keep_bytes"]) == (0.0, 5000)
    found = done("topics", "set", "video.encoded", "--keep", "default", "--url", furnished, "--json").json
    assert (found["keep"], found["keep_bytes"]) == (7 * 86400.0, 5000)
    found = done("topics", "set", "video.encoded", "--keep-bytes", "none", "--url", furnished, "--json").json
    assert (found["keep"], found["keep_bytes"]) == (7 * 86400.0, None)
    done("topics", "set", "video.encoded", "--keep-bytes", "5000", "--url", furnished)
    listed = done("topics", "--url", furnished, "--json").json
    assert next(each for each in listed if each["topic"] == "video.encoded")["keep_bytes"] == 5000


def test_topics_set_with_nothing_to_set_is_a_usage_error(furnished: str) -> None:
    assert call("topics", "set", "video.encoded", "--url", furnished).code == 2


def test_an_option_before_set_is_refused_rather_than_forgotten(furnished: str) -> None:
    answer = call("topics", "--url", furnished, "set", "video.encoded", "--keep", "0")
    assert answer.code == 2
    assert "--url belongs after 'set'" in answer.err


def test_purposes_are_a_table_and_names_are_no_markup(furnished: str) -> None:
    lines = done("purposes", "--url", furnished).lines
    assert "Encode [video] to MP4" in lines[2]
    assert lines[2].split()[-9:] == ["0", "-", "-", "0", "3", "0", "0", "0", "0"]


def test_purposes_with_a_topic_and_json_shows_that_topics_alone(furnished: str) -> None:
    encode, refuse = done("purposes", "video.uploaded", "--url", furnished, "--json").json
    assert refuse["purpose"] == "Refuse"
    assert encode.pop("rates") == {"fired": 0.0, "settled": 0.0, "retried": 0.0, "dead": 0.0, "recent": []}
    assert encode == {
        "topic": "video.uploaded",
        "purpose": "Encode [video] to MP4",
        "exchange": "direct",
        "versions": [1],
        "instances": 0,
        "pending": 0,
        "in_flight": 0,
        "settled": 3,
        "retried": 0,
        "dead": 0,
        "dropped": 0,
        "expired": 0,
        "key_missing": 0,
        "state": "running",
        "oldest": None,
        "version_states": ["current"],
        "times": [],
        "delay": 0.0,
        "rate": None,
        "at_most": None,
        "limited": False,
        "delayed": 0,
        "delayed_until": None,
        "version_joined": encode["version_joined"],
    }


def test_rates_are_a_course_of_each_number_for_five_minutes_an_hour_and_a_day(furnished: str) -> None:
    where = ("video.uploaded", "Refuse", "--url", furnished)
    heading, *lines = done("rates", *where).lines
    assert heading.split() == ["LAST", "EVENTS", "NUMBER", "MAX/S", "COURSE"]
    assert [line.split()[:2] for line in lines] == [
        [last, name] for last in ("5m", "1h", "1d") for name in ("fired", "settled", "retried", "dead")
    ]
    assert {len(line.split()[4]) for line in lines} == {60}
    found = done("rates", *where, "--json").json
    assert [len(found[name]["settled"]) for name in ("seconds", "ten_seconds", "minutes")] == [300, 360, 1440]


def test_instances_are_a_table_of_where_they_run(
    serving: Callable[..., Serving], start: Callable[..., Process]
) -> None:
    server = serving("--engine", "memory://")
    assert done("instances", "--url", server.url).out == "No instances.\n"
    listening = start("listen", "video.uploaded", "--purpose", "Look", "--url", server.url)
    eventually(lambda: done("instances", "--url", server.url, "--json").json)
    heading, line = done("instances", "video.uploaded", "--url", server.url).lines
    names = ["TOPIC", "PURPOSE", "VERSION", "MACHINE", "PROCESS"]
    assert re.split(" {2,}", heading)[:5] == names
    where = ["1", MACHINE, f"solarwind:{listening.popen.pid}"]
    assert re.split(" {2,}", line)[:5] == ["video.uploaded", "Look", *where]
    (found,) = done("instances", "--url", server.url, "--json").json
    assert datetime.fromisoformat(found["since"]) <= datetime.fromisoformat(found["heard"])


def test_replay_makes_history_pend_again(furnished: str) -> None:
    where = ("video.uploaded", "Encode [video] to MP4", "--url", furnished)
    assert done("replay", *where, "--dry-run").out == "3 events would be handed out again\n"
    assert done("replay", *where, "--since", "beginning").out == "3 events to be handed out again\n"
    assert "0 events: there are none of that time" in done("replay", *where).out
    assert done("replay", *where, "--since", "0", "--json").json == {"replayed": 0}
    assert done("replay", *where, "--since", "2h", "--until", "1h", "--json").json == {"replayed": 0}
    assert "since to lie before until, got since 1:00:00 ago" in call("replay", *where, "--since=1h", "--until=2h").err
    assert done("purposes", "video.uploaded", "--url", furnished, "--json").json[0]["pending"] == 3


def test_retire_is_refused_while_something_is_left_unless_forced(furnished: str) -> None:
    where = ("video.uploaded", "Refuse", "--url", furnished)
    assert call("retire", *where).code == 1
    assert done("retire", *where, "--force").out == "Refuse on video.uploaded is retired\n"
    answer = done("retire", "video.uploaded", "Encode [video] to MP4", "--url", furnished, "--json")
    assert answer.json["retired"] is True
    assert [each["purpose"] for each in done("purposes", "--url", furnished, "--json").json] == ["Live page"]


def test_events_shows_a_topic_s_history_in_pages(furnished: str) -> None:
    where = ("events", "video.uploaded", "--url", furnished)
    answer = done(*where, "--limit", "2")
    header, *lines = answer.lines
    assert header.split() == ["ID", "TIME", "KEY", "PAYLOAD"]
    assert [line.split()[0] for line in lines] == ["video-0", "video-1"]
    assert lines[1].endswith('{"id":1}')
    assert answer.err == "There are more: --after 1\n"
    page = done(*where, "--after", "1", "--json").json
    assert ([event["id"] for event in page["events"]], page["next"]) == (["video-2"], None)
    assert done(*where, "--since", "now").out == "No such events on video.uploaded.\n"
    assert "'nothing'" in call("events", "nothing", "--url", furnished).err


def test_trace_is_a_tree_with_whole_ids(furnished: str) -> None:
    first, encode, refuse, second, page = done("trace", "video-1", "--url", furnished).lines
    assert first.startswith("video.uploaded  video-1  ")
    assert second.startswith("└── video.encoded  ")
    assert second.endswith("by Encode [video] to MP4 (version 1)")
    assert encode.startswith("  Encode [video] to MP4: settled, version 1, 1 attempt, ")
    assert refuse.startswith("  Refuse: dead, version 1, 1 attempt, ")
    assert page == "      Live page: copied"


def test_show_says_of_an_event_what_became_of_it_for_each_purpose(furnished: str) -> None:
    answer = done("show", "video.uploaded", "video-1", "--url", furnished)
    assert answer.lines[0].split() == ["id", "video-1"]
    encode, refuse = answer.lines[-2:]
    assert encode.startswith("Encode [video] to MP4  settled  ")
    assert refuse.startswith("Refuse                 dead     ")
    found = done("show", "video.uploaded", "video-1", "--url", furnished, "--json").json
    assert (found["event"]["id"], [each["state"] for each in found["outcomes"]]) == ("video-1", ["settled", "dead"])
    assert "which no event there" in call("show", "video.uploaded", "nothing", "--url", furnished).err


def test_a_trace_that_is_cut_says_how_to_go_on(furnished: str) -> None:
    lines = done("trace", "video-1", "--limit", "1", "--url", furnished).lines
    assert lines[-1] == "└── and more: solarwind trace video-1"


def test_a_trace_that_is_followed_says_what_changes_and_ends_when_all_is_over(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(tracing, "LOOK_S", 0.001)

    async def main() -> None:
        wind, go_on, said = SolarWind("memory://"), asyncio.Event(), ""
        for topic in ("T", "U"):
            wind.topic(topic, keep=3600)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            await go_on.wait()
            wind.fire("U", number)

        @wind.on("U", purpose="q")
        async def refuse(number: int) -> None:
            raise Reject("no room\n  at all")

        async def says(text: str) -> bool:
            nonlocal said
            said += capsys.readouterr().out
            return text in said

        async with wind:
            id = await wind.fire("T", 1)
            following = asyncio.ensure_future(tracing.follow(wind, {"id": id}, False))
            await until(lambda: says("p: in hand, version 1, 1 attempt\n"))
            assert not following.done()
            go_on.set()
            await asyncio.wait_for(following, 60)
            assert await says("p: settled, version 1, 1 attempt, ")
            assert re.search(r"^  \d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3}Z  p: settled, ", said, re.MULTILINE), (
                "since when"
            )
            assert await says("q: dead, version 1, 1 attempt, ")
            assert await says(", no room at all\n")
            assert said.count("p: settled") == said.count("q: dead") == 1, "each is said once"

    asyncio.run(main())


def test_a_trace_that_is_followed_is_a_line_of_json_for_each_change(
    furnished: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tracing, "LOOK_S", 0.001)
    root, child = map(json.loads, done("trace", "video-1", "--follow", "--json", "--url", furnished).lines)
    assert (root["event"]["id"], [each["state"] for each in root["outcomes"]]) == ("video-1", ["settled", "dead"])
    assert (child["event"]["root"], child["more"]) == ("video-1", False)
    cut = done("trace", "video-1", "--follow", "--limit", "1", "--url", furnished)
    assert cut.err == "and more: solarwind trace video-1\n"
    nowhere = call("trace", "nothing", "--follow", "--url", furnished)
    assert (nowhere.code, nowhere.err.count("\n")) == (1, 1)


def test_a_trace_that_is_followed_ends_quietly_when_it_is_told(furnished: str, start: Callable[..., Process]) -> None:
    done("replay", "video.uploaded", "Encode [video] to MP4", "--url", furnished)
    process = start("trace", "video-1", "--follow", "--url", furnished)
    process.read("MP4: pending")
    process.signal(signal.SIGINT)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")


def test_trace_as_json_is_nested(furnished: str) -> None:
    root = done("trace", "video-1", "--url", furnished, "--json").json
    (child,) = root["caused"]
    assert child["event"]["payload"] == {"of": 1}
    assert child["event"]["root"] == "video-1"
    assert child["event"]["cause"] == {
        "kind": "event",
        "id": "video-1",
        "purpose": "Encode [video] to MP4",
        "version": 1,
    }
    assert child["caused"] == []
    assert datetime.fromisoformat(child["event"]["time"]).tzinfo is not None


# --- what all have in common ----------------------------------------------------------------------------------


def test_a_topic_is_made_by_its_settings_only_if_that_is_said(furnished: str) -> None:
    assert call("topics", "set", "video.viewed", "--keep", "1h", "--url", furnished).code == 1
    assert len(done("topics", "--json", "--url", furnished).json) == 2
    done("topics", "set", "video.viewed", "--keep", "1h", "--create", "--url", furnished)
    assert len(done("topics", "--json", "--url", furnished).json) == 3


def test_every_option_is_also_an_environment_variable_of_its_name() -> None:
    def check(command: object, path: str) -> int:
        seen = 0
        for parameter in command.params:  # type: ignore[attr-defined]
            name = max(parameter.opts, key=len)
            if parameter.param_type_name != "option" or name in ("--help", "--install-completion", "--show-completion"):
                continue
            if (path, name) == ("solarwind", "--version"):  # asks for something, and sets nothing
                continue
            if parameter.is_flag and parameter.envvar is None:  # consent: see test_cli_escape.py
                continue
            assert parameter.envvar == "SOLARWIND_" + name[2:].upper().replace("-", "_"), (path, name)
            seen += 1
        for name, inner in getattr(command, "commands", {}).items():
            seen += check(inner, f"{path} {name}")
        return seen

    assert check(typer.main.get_command(app), "solarwind") > 40


def test_an_option_may_come_from_its_environment_variable(furnished: str) -> None:
    answer = call("topics", env={"SOLARWIND_URL": furnished, "SOLARWIND_JSON": "1"})
    assert len(answer.json) == 2


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("5m", 300), ("12h", 43200), ("7d", 604800), ("0", 0), ("1.5h", 5400)]
)
def test_a_duration_is_read_with_each_of_its_units(text: str, seconds: float) -> None:
    assert options.duration(text, "--keep").total_seconds() == seconds


@pytest.mark.parametrize("text", ["", "5", "-5s", "5 s", "s", "7 days", "1e3s", "99999999d", "nan"])
def test_what_is_no_duration_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.duration(text, "--keep")


@pytest.mark.parametrize("text", ["beginning", "now", "2h", "2026-01-31", "2026-01-31T12:00:00", "2026-01-31T12:00Z"])
def test_a_moment_is_read_in_each_of_its_forms(text: str) -> None:
    found = options.moment(text, "--since")
    assert not isinstance(found, datetime) or found.tzinfo is not None


@pytest.mark.parametrize("text", ["", "yesterday", "0001-01-01", "9999-12-31", "2026-13-01"])
def test_what_is_no_moment_is_a_usage_error(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        options.moment(text, "--since")


@pytest.mark.parametrize(("seconds", "text"), [(0, "0"), (90, "90s"), (120, "2m"), (604800, "7d"), (0.5, "0.5s")])
def test_spans_are_shown_as_options_take_them(seconds: float, text: str) -> None:
    assert show.span(seconds) == text


def test_a_terminals_control_codes_are_written_out() -> None:
    assert show.plain("a\x1b[31m\nb\x9bü") == "a\\x1b[31m\\nb\\x9bü"


def test_a_trace_longer_than_json_can_nest_is_refused(furnished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(value: object) -> None:
        raise RecursionError

    monkeypatch.setattr(show, "document", too_deep)
    answer = call("trace", "video-1", "--json", "--url", furnished)
    assert (answer.code, answer.err.count("\n")) == (1, 1)


def test_the_owner_of_a_dispatcher_that_has_all_topics_is_its_process(furnished: str) -> None:
    (owner,) = done("owners", "--url", furnished, "--json").json
    assert owner["partition"] == 0
    assert owner["owner"]
    assert set(owner["topics"]) == {each["topic"] for each in done("topics", "--url", furnished, "--json").json}
