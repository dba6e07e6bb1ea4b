"""`solarwind outbox` and `solarwind relay`."""

from __future__ import annotations

import signal
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import psycopg
import pytest

from cli.conftest import Process, call, done, eventually
from solarwind import SolarWind
from solarwind.outbox import database as tables
from solarwind.outbox.sql import CHUNK

from .conftest import new_file
from .drivers import path_of
from .postgres import Postgres
from .test_relay import commit, connect, pending


@pytest.fixture(params=["sqlite", "postgresql"])
def bare(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a new database without the tables."""
    url: str = new_file(folder) if request.param == "sqlite" else request.getfixturevalue("postgres").new()
    return url


@pytest.fixture(autouse=True)
def _bare_environment(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("SOLARWIND_URL", "SOLARWIND_DATABASE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)


def run_sql(url: str, script: str) -> None:
    with closing(connect(url)) as connection:
        if url.startswith("sqlite"):
            connection.executescript(script)
        else:
            connection.execute(script)
        connection.commit()


def test_the_tables_are_made_once_and_as_its_sql_makes_them(bare: str) -> None:
    printed = done("outbox", "init", "--database", bare, "--sql").out
    assert done("outbox", "init", "--database", bare, "--sql", "--json").json == {"sql": printed}
    assert call("outbox", "status", "--database", bare).code == 1, "it has only printed"
    run_sql(bare, printed)
    run_sql(bare, printed)
    assert done("outbox", "init", "--database", bare).out.startswith("solarwind_once and solarwind_outbox are in ")
    assert done("outbox", "init", "--database", bare, "--json").json == {
        "tables": ["solarwind_once", "solarwind_outbox"]
    }
    commit(bare, "t", [1])
    assert done("outbox", "status", "--database", bare, "--json").json["pending"] == 1


def test_what_was_seen_long_ago_is_pruned_in_parts(database: str) -> None:
    many = CHUNK + 5
    ago = "CAST(strftime('%s', 'now') AS INTEGER) - " if database.startswith("sqlite") else "now() - interval '1s' * "
    numbers = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) "
    insert = "INSERT INTO solarwind_once {} SELECT 't', 'p', '{}' || i, {} FROM n"
    for name, count, age in (("old", many, 86_400 * 31), ("new", 7, 86_400 * 29)):
        run_sql(database, insert.format(numbers.format(count), name, f"{ago}{age}"))
    assert done("outbox", "prune", "--database", database, "--older", "30d").out == f"{many:,} events forgotten\n"
    assert done("outbox", "prune", "--database", database, "--older", "28d", "--json").json == {"pruned": 7}
    assert call("outbox", "prune", "--database", database, "--older", "yesterday").code == 2


def test_the_status_shows_what_waits_and_what_was_refused(database: str) -> None:
    assert done("outbox", "status", "--database", database).lines == ["0 events pending"]
    commit(database, "t", [1, 2], ids=["a", "b"])
    assert done("outbox", "status", "--database", database).lines[0].startswith("2 events pending, the oldest for 0 s")
    run_sql(database, "UPDATE solarwind_outbox SET refused = 'because' WHERE id = 'a'")
    found = done("outbox", "status", "--database", database)
    assert found.lines[1:] == ["refused: a on t: because"]
    assert done("outbox", "redrive", "--database", database).out == "1 event pending again\n"
    assert done("outbox", "redrive", "--database", database, "--json").json == {"redriven": 0}


@pytest.mark.parametrize("command", [["prune", "--older", "30d"], ["status"], ["redrive"]], ids=lambda each: each[0])
def test_a_database_without_the_tables_is_refused_with_the_way_out(bare: str, command: list[str]) -> None:
    answer = call("outbox", *command, "--database", bare)
    assert answer.code == 1
    assert len(answer.err.splitlines()) == 1
    assert "`solarwind outbox init --database URL`" in answer.err


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("mysql://shop@db/shop", "expected the URL of a database, such as postgresql://"),
        ("sqlite:///nowhere.db", "but there is no such file"),
        (
            "postgresql://alice:hush@127.0.0.1:1/shop",
            "expected the database postgresql://...@127.0.0.1:1/shop to answer",
        ),
        ("postgresql://127.0.0.1:99999/shop", "expected the URL of a database"),
    ],
)
def test_a_database_that_is_not_there_is_refused_in_a_line(url: str, said: str) -> None:
    for command in (["init"], ["prune", "--older", "1d"], ["status"], ["redrive"]):
        answer = call("outbox", *command, "--database", url)
        assert (answer.code, len(answer.err.splitlines())) == (1, 1), answer
        assert said in answer.err
        assert "hush" not in answer.err


def test_a_file_that_is_no_database_is_refused_in_a_line(tmp_path: Path) -> None:
    (tmp_path / "shop.db").write_text("this is no database, but a text that is long enough to be read as one" * 20)
    answer = call("outbox", "init", "--database", "sqlite:///shop.db")
    assert (answer.code, len(answer.err.splitlines())) == (1, 1), answer


def test_a_relay_into_the_memory_of_its_own_process_is_refused(database: str) -> None:
    answer = call("relay", "--database", database, "--url", "memory://")
    assert answer.code == 1
    assert "expected a dispatcher that others reach" in answer.err


def test_a_relay_of_a_database_without_the_table_is_refused(bare: str, start: Callable[..., Process]) -> None:
    ended = start("relay", "--database", bare, "--url", "sqlite:///wind.db").end()
    assert ended.code == 1
    assert ended.err.splitlines()[-1].startswith("solarwind: expected the table solarwind_outbox in this database")


def test_a_relay_fires_until_it_is_told_to_stop(database: str, start: Callable[..., Process], tmp_path: Path) -> None:
    relay = start("relay", "--database", database, "--url", "sqlite:///wind.db")
    assert "solarwind relays " in relay.read_err("relays")
    ids = commit(database, "t", [1, 2])
    eventually(lambda: pending(database) == 0, "an empty outbox")
    relay.signal(signal.SIGTERM)
    assert relay.end().code == 0
    with SolarWind(f"sqlite:///{tmp_path}/wind.db") as wind:
        assert wind.wait(wind.event("t", ids[0])).event.payload == 1


def test_the_database_may_be_named_by_the_environment(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLARWIND_DATABASE", database)
    assert done("outbox", "status").out == "0 events pending\n"


def test_all_tables_are_made_or_none(postgres: Postgres) -> None:
    url = postgres.new()
    run_sql(url, "CREATE VIEW solarwind_outbox AS SELECT 1 AS place")
    answer = call("outbox", "init", "--database", url)
    assert (answer.code, len(answer.err.splitlines())) == (1, 1), answer
    with closing(connect(url)) as connection, pytest.raises(psycopg.errors.UndefinedTable):
        connection.execute("SELECT FROM solarwind_once")


def test_sqlite_keeps_the_time_at_which_an_event_was_seen(folder: Path) -> None:
    url = new_file(folder)
    tables.init(url)
    with closing(sqlite3.connect(path_of(url))) as connection:
        connection.execute("INSERT INTO solarwind_once (topic, purpose, event) VALUES ('t', 'p', 'e')")
        assert connection.execute("SELECT abs(at - strftime('%s', 'now')) < 600 FROM solarwind_once").fetchone() == (1,)
