"""topics, purposes, replay, retire, trace, top: what they print, for people and as JSON."""

from __future__ import annotations

import io
import json
import signal
from collections.abc import Callable
from datetime import datetime

import pytest
import typer
from rich.console import Console

from solarwind.cli import app, options, show, top
from solarwind.records import PurposeStatistics, Statistics, TopicStatistics

from .conftest import Process, call, done


def test_topics_are_a_table_with_numbers_to_the_right(furnished: str) -> None:
    lines = done("topics", "--url", furnished).lines
    assert lines[0].split() == ["TOPIC", "FIRED", "PURPOSES", "KEPT", "BYTES", "KEEP", "KEEP", "BYTES"]
    assert lines[1].split()[:4] == ["video.encoded", "3", "1", "3"]
    assert lines[2].split()[:4] == ["video.uploaded", "3", "2", "3"]
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
    }


@pytest.mark.parametrize(
    ("command", "words"),
    [
        (["topics"], "No topics."),
        (["purposes"], "No purposes."),
        (["purposes", "t"], "No purposes on t."),
        (["top", "--count", "1"], "No topics."),
    ],
)
def test_an_empty_list_says_so(empty: str, command: list[str], words: str) -> None:
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
    assert lines[2].split()[-7:] == ["0", "0", "0", "3", "0", "0", "0"]


def test_purposes_with_a_topic_and_json_shows_that_topics_alone(furnished: str) -> None:
    encode, refuse = done("purposes", "video.uploaded", "--url", furnished, "--json").json
    assert refuse["purpose"] == "Refuse"
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
        "key_missing": 0,
    }


def test_replay_makes_history_pend_again(furnished: str) -> None:
    where = ("video.uploaded", "Encode [video] to MP4", "--url", furnished)
    assert done("replay", *where, "--since", "beginning").out == "3 events to be handed out again\n"
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


def test_trace_is_a_tree_with_whole_ids(furnished: str) -> None:
    first, second = done("trace", "video-1", "--url", furnished).lines
    assert first.startswith("video.uploaded  video-1  ")
    assert second.startswith("└── video.encoded  ")
    assert second.endswith("by Encode [video] to MP4 (version 1)")


def test_a_trace_that_is_cut_says_how_to_go_on(furnished: str) -> None:
    assert done("trace", "video-1", "--limit", "1", "--url", furnished).lines[1:] == [
        "└── and more: solarwind trace video-1"
    ]


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


def test_top_prints_a_table_each_time_where_there_is_no_terminal(furnished: str) -> None:
    lines = done("top", "--count", "2", "--interval", "0.05", "--url", furnished).lines
    assert sum(line.startswith("TOPIC ") for line in lines) == 2
    assert sum(line.startswith("video.uploaded") for line in lines) == 4


def test_top_as_json_is_a_line_each_time(furnished: str) -> None:
    first, second = done("top", "--count", "2", "--interval", "0.05", "--json", "--url", furnished).lines
    assert json.loads(first)["topics"][0] == {"topic": "video.encoded", "fired": 3, "fired_per_s": 0.0}
    assert json.loads(second)["purposes"][1]["settled_per_s"] == 0.0


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_top_leaves_on_a_signal(furnished: str, start: Callable[..., Process], number: int) -> None:
    process = start("top", "--json", "--url", furnished)
    process.read("video.uploaded")
    process.signal(number)
    answer = process.end()
    assert (answer.code, answer.err) == (0, "")


def test_top_gives_what_changed_between_two_looks_a_second() -> None:
    from solarwind.cli import top

    def look(time: float, fired: int, settled: int) -> top.Sample:
        counts = PurposeStatistics("direct", (1,), 1, 0, 0, settled, 0, 0, 0)
        return top.Sample(time, Statistics({"t": TopicStatistics(fired)}, {("t", "p"): counts}))

    (row,) = top._rows(look(12.0, 30, 9), look(10.0, 10, 4))
    assert row[:5] == ("t", 30, 10.0, "p", "direct")
    assert row[9] == 2.5
    (row,) = top._rows(look(12.0, 30, 1), look(10.0, 10, 4))
    assert row[9] == 0.0  # retired and begun anew


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


def on_terminal(width: int, columns: list[str], rows: list[list[object]]) -> str:
    text = io.StringIO()
    Console(file=text, width=width, color_system=None, force_terminal=True, highlight=False).print(
        show.Fitting(columns, rows)
    )
    return text.getvalue()


PURPOSES = ["TOPIC", "PURPOSE", "EXCHANGE", "VERSIONS", "INSTANCES", "PENDING", "IN FLIGHT", "SETTLED", "RETRIED"]
ENCODE: list[object] = ["video.uploaded", "Encode video to MP4", "direct", "1", 4, 12_345, 0, 2, None]


def test_a_terminal_too_narrow_for_a_table_shows_each_row_whole_on_lines_of_its_own() -> None:
    assert on_terminal(80, PURPOSES, [ENCODE, ["t", None, "fanout", "1", 0, 0, 0, 0, 0]]) == (
        "video.uploaded  Encode video to MP4\n"
        "  exchange direct  versions 1  instances 4  pending 12,345  in flight 0\n"
        "  settled 2\n"
        "t  -\n"
        "  exchange fanout  versions 1  instances 0  pending 0  in flight 0  settled 0\n"
        "  retried 0\n"
    )


def test_a_terminal_with_room_for_a_table_shows_one() -> None:
    lines = on_terminal(120, PURPOSES, [ENCODE]).splitlines()
    assert lines[0].split() == " ".join(PURPOSES).split()
    assert len(lines) == 2


@pytest.mark.parametrize("width", [20, 40, 60, 80, 100, 120])
def test_top_leaves_out_no_number_and_breaks_no_heading_however_narrow_the_terminal(width: int) -> None:
    row: list[object] = ["t", 1, 2.0, "p", "direct", 3, 4, 5, 6, 7.0, 8, 9, 10]
    text = on_terminal(width, list(top._COLUMNS), [row])
    assert max(map(len, text.splitlines())) <= width
    for heading in ("IN FLIGHT", "SETTLED/S", "DROPPED"):
        assert heading in text.upper()


def test_a_terminals_control_codes_are_written_out() -> None:
    assert show.plain("a\x1b[31m\nb\x9bü") == "a\\x1b[31m\\nb\\x9bü"


def test_a_trace_longer_than_json_can_nest_is_refused(furnished: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_deep(value: object) -> None:
        raise RecursionError

    monkeypatch.setattr(show, "document", too_deep)
    answer = call("trace", "video-1", "--json", "--url", furnished)
    assert (answer.code, answer.err.count("\n")) == (1, 1)


def test_owners_of_a_dispatcher_that_has_all_topics_are_refused_in_a_sentence(furnished: str) -> None:
    answer = call("owners", "--url", furnished)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "expected a dispatcher on nats://" in answer.err
