"""What a file promises of definitions besides the contract: they are under sums, in backups, and gone once removed."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from solarwind.errors import Busy, StoreError
from solarwind.store import definitions
from solarwind.store.check import backup, check
from solarwind.store.sqlite import SqliteStore

from .test_sqlite import batch, kill, nothing, on_store, put, sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


async def define(store: SqliteStore) -> None:
    await store.definitions.put("webhook", "one", b"whsec_one")
    await store.definitions.put("webhook", "two", b"whsec_two")


def values(path: Path) -> list[bytes | None]:
    found = []

    async def read(store: SqliteStore) -> None:
        found.extend([each.value for each in await store.definitions.list()])

    on_store(path, read)
    return found


@pytest.mark.parametrize("column", ["value = x'00'", "number = 9", "name = 'three'", "kind = 'schedule'"])
def test_a_definition_that_was_changed_is_named_and_can_be_given_up(path: Path, column: str) -> None:
    on_store(path, define)
    sql(path, f"UPDATE definitions SET {column} WHERE name = 'one'")
    with pytest.raises(StoreError, match=r"is damaged: .* is not what was defined"):
        on_store(path, nothing)
    (text,) = check(str(path), accept_loss=True)
    assert "is not what was defined" in text
    assert values(path) == [b"whsec_two"]


def test_a_lost_change_of_a_definition_is_noticed_as_a_lost_commit(path: Path, tmp_path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await put(batch("a"))(store)
        await define(store)

    kill(path, work, tmp_path / "killed")
    log = tmp_path / "killed/wind.db-wal"
    os.truncate(log, log.stat().st_size - 100)
    with pytest.raises(StoreError, match="has lost its last 1 commits"):
        on_store(tmp_path / "killed/wind.db", nothing)


def test_definitions_are_in_a_backup_and_survive_a_kill(path: Path, tmp_path: Path) -> None:
    kill(path, define, tmp_path / "killed")
    backup(str(path), str(tmp_path / "copy.db"))
    assert values(tmp_path / "copy.db") == values(tmp_path / "killed/wind.db") == [b"whsec_one", b"whsec_two"]


def test_what_was_removed_or_replaced_is_in_the_file_no_more(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        await define(store)
        await store.definitions.put("webhook", "one", b"x" * 20_000 + b"whsec_long")
        await store.definitions.remove("webhook", "two")
        await store.definitions.put("webhook", "one", b"new")

    on_store(path, work)
    assert not [each for each in (b"whsec_one", b"whsec_two", b"whsec_long") if each in path.read_bytes()]
    assert check(str(path)) == []


def test_there_are_no_more_definitions_than_allowed(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(definitions, "MAX_DEFINITIONS", 2)

    async def work(store: SqliteStore) -> None:
        await define(store)
        await store.definitions.put("webhook", "two", b"changed")
        with pytest.raises(Busy, match="no more than 2 definitions"):
            await store.definitions.put("schedule", "three", b"")

    on_store(path, work)
    assert values(path) == [b"whsec_one", b"changed"]
