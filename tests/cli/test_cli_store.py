"""check and backup, of a store that is sound, damaged, or in use; and long histories."""

from __future__ import annotations

from pathlib import Path

import apsw
import pytest

from solarwind import SolarWind

from .conftest import Process, call, done


@pytest.fixture
def damaged(furnished: str, tmp_path: Path) -> str:
    """A store in which one batch is not what was written."""
    connection = apsw.Connection(str(tmp_path / "wind.db"))
    connection.execute("UPDATE batches SET data = zeroblob(length(data)) WHERE row = 2")
    connection.close()
    return furnished


def test_a_sound_store_is_said_to_be(furnished: str) -> None:
    assert done("check", "--url", furnished).out.endswith("wind.db is sound\n")
    assert done("check", "--url", furnished, "--json").json == {"sound": True, "findings": [], "accepted": False}


def test_findings_are_a_line_each_and_a_refusal(damaged: str) -> None:
    answer = call("check", "--url", damaged)
    assert answer.code == 1
    assert len(answer.lines) >= 1
    assert answer.err.startswith("solarwind: 1 finding in ")
    assert answer.err.count("\n") == 1
    as_json = call("check", "--url", damaged, "--json")
    assert as_json.code == 1
    assert as_json.json["findings"] == answer.lines


def test_a_loss_that_is_accepted_is_over(damaged: str) -> None:
    answer = call("check", "--accept-loss", "--url", damaged)
    assert answer.code == 0
    assert len(answer.lines) >= 1
    assert "goes on without" in answer.err
    assert call("check", "--url", damaged).code == 0


def test_a_backup_is_a_store_of_its_own(furnished: str, tmp_path: Path) -> None:
    assert done("backup", "copy.db", "--url", furnished).out.startswith("copy.db: ")
    copied = done("topics", "--url", "sqlite:///copy.db", "--json").json
    assert copied == done("topics", "--url", furnished, "--json").json
    assert done("backup", "other.db", "--url", furnished, "--json").json == {
        "target": "other.db",
        "bytes": (tmp_path / "other.db").stat().st_size,
    }


def test_a_backup_overwrites_nothing(furnished: str, tmp_path: Path) -> None:
    (tmp_path / "copy.db").write_text("mine")
    answer = call("backup", "copy.db", "--url", furnished)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert (tmp_path / "copy.db").read_text() == "mine"


def test_a_store_that_another_process_uses_is_checked_and_copied(held: Process, url: str) -> None:
    assert done("check", "--url", url, "--json").json["sound"] is True
    done("backup", "copy.db", "--url", url)
    assert done("topics", "--url", "sqlite:///copy.db", "--json").json[0]["fired"] == 1


def test_a_loss_is_not_accepted_under_the_hands_of_another_process(held: Process, url: str) -> None:
    answer = call("check", "--accept-loss", "--url", url)
    assert answer.code == 1
    assert f"in use by process {held.popen.pid}" in answer.err


@pytest.mark.parametrize("command", [["check"], ["backup", "copy.db"]])
def test_commands_on_a_file_refuse_a_store_in_memory(command: list[str]) -> None:
    answer = call(*command, "--url", "memory://")
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert "store in a file" in answer.err


def test_a_backup_is_restored_and_what_was_there_is_kept(furnished: str, tmp_path: Path) -> None:
    before = done("topics", "--url", furnished, "--json").json
    done("backup", "copy.db", "--url", furnished)
    done("fire", "more", "--url", furnished)
    kept = done("restore", "copy.db", "--url", furnished, "--json").json["kept"]
    assert done("topics", "--url", furnished, "--json").json == before
    assert len(done("topics", "--url", f"sqlite:///{kept}", "--json").json) == len(before) + 1


def test_a_backup_that_is_not_there_is_said_to_be_a_backup(furnished: str) -> None:
    answer = call("restore", "none.db", "--url", furnished)
    assert answer.code == 1
    assert answer.err == (
        "solarwind: expected a backup, but there is none at none.db: name the file that `solarwind backup` wrote\n"
    )


def test_a_backup_is_not_restored_under_the_hands_of_another_process(held: Process, url: str) -> None:
    done("backup", "copy.db", "--url", url)
    answer = call("restore", "copy.db", "--force", "--url", url)
    assert (answer.code, answer.err.count("\n")) == (1, 1)
    assert f"in use by process {held.popen.pid}" in answer.err


def test_a_page_of_events_without_any_does_not_say_that_there_are_none_where_it_goes_on() -> None:
    with SolarWind("sqlite:///large.db") as wind:
        for _ in range(4):
            wind.fire("T", "x" * 900_000, key="some").wait(600)
    answer = done("events", "T", "--key", "none", "--url", "sqlite:///large.db")
    assert answer.out == ""
    assert answer.err.startswith("None so far: look on with --after ")
