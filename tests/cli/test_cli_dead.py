"""dead list, show, redrive, discard."""

from __future__ import annotations

from datetime import datetime

import pytest

from .conftest import call, done

REFUSE = ("video.uploaded", "Refuse")


def test_dead_letters_are_a_table_of_one_line_each(furnished: str) -> None:
    header, *lines = done("dead", "list", *REFUSE, "--url", furnished).lines
    assert header.split() == ["ID", "DEAD", "SINCE", "VERSION", "ATTEMPTS", "ERROR"]
    assert [line.split()[0] for line in lines] == ["video-0", "video-1", "video-2"]
    assert lines[1].endswith("1  no\\nroom for 1")


def test_dead_letters_as_json_have_their_events(furnished: str) -> None:
    letters = done("dead", "list", *REFUSE, "--url", furnished, "--json").json["dead"]
    assert [each["event"]["payload"] for each in letters] == [{"id": 0}, {"id": 1}, {"id": 2}]
    assert letters[0]["error"] == "no\nroom for 0"
    assert (letters[0]["attempts"], letters[0]["version"]) == (1, 1)
    assert datetime.fromisoformat(letters[0]["time"]).tzinfo is not None


def test_dead_list_says_where_there_are_no_letters(furnished: str) -> None:
    answer = done("dead", "list", "video.uploaded", "Encode [video] to MP4", "--url", furnished)
    assert answer.out == "No dead letters of 'Encode [video] to MP4' on video.uploaded.\n"


def test_dead_show_prints_a_letter_with_its_payload(furnished: str) -> None:
    shown = dict(line.split("  ", 1) for line in done("dead", "show", *REFUSE, "video-2", "--url", furnished).lines)
    assert shown["payload"].strip() == '{"id":2}'
    assert shown["version"].strip() == "1"
    assert shown["error"].strip() == "no\\nroom for 2"
    assert done("dead", "show", *REFUSE, "video-2", "--url", furnished, "--json").json["event"]["id"] == "video-2"


def test_some_are_redriven_and_some_discarded(furnished: str) -> None:
    where = (*REFUSE, "--url", furnished)
    assert done("dead", "redrive", *REFUSE, "video-0", "--url", furnished).out == "1 event to be handed out again\n"
    assert done("dead", "discard", *REFUSE, "video-1", "--url", furnished, "--json").json == {"discarded": 1}
    assert [each["event"]["id"] for each in done("dead", "list", *where, "--json").json["dead"]] == ["video-2"]
    assert done("dead", "redrive", *where, "--all", "--json").json == {"redriven": 1}
    assert done("dead", "discard", *where, "--all").out == "0 events discarded\n"
    assert done("purposes", "video.uploaded", "--url", furnished, "--json").json[1]["pending"] == 2


@pytest.mark.parametrize("command", ["redrive", "discard"])
@pytest.mark.parametrize("which", [[], ["video-0", "--all"]])
def test_which_ones_has_to_be_said_and_said_once(furnished: str, command: str, which: list[str]) -> None:
    answer = call("dead", command, *REFUSE, *which, "--url", furnished)
    assert answer.code == 2
    assert "--all" in answer.err


@pytest.mark.parametrize("command", ["show", "redrive", "discard"])
def test_an_id_that_is_no_dead_letter_is_refused(furnished: str, command: str) -> None:
    answer = call("dead", command, *REFUSE, "video-9", "--url", furnished)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "'video-9'" in answer.err
