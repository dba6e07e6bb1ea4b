"""Bits flipped anywhere in a store that was closed: nothing is read differently without a word."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from solarwind.core.spans import Spans
from solarwind.core.state import Change, Letter, State
from solarwind.errors import StoreError
from solarwind.store import database
from solarwind.store.check import check
from solarwind.store.sqlite import SqliteStore

from .test_sqlite import all_of, batch, on_store, sql


async def furnish(store: SqliteStore) -> None:
    for number in range(12):
        ids: list[str | None] | None = [f"id {number} {index}" for index in range(3)] if number % 2 else None
        given = batch("a", 3, first=3 * number, ids=ids, payload=b"%d" % number * 20)
        dead = [Letter(3 * number + 1, 2, number, f"ValueError: number {number}")]
        change = Change("a", "p", settled=Spans([3 * number, 3 * number + 1]), dead=dead)
        await store.commit([given, batch("b", first=number, producer=2)], [change], [], now=5)
    state = State("b", "q")
    state.apply(Change("b", "q", created=0))
    await store.commit([], [], [state.snapshot()], now=6)
    await store.topic("a", 10**15, None)
    await store.topic("b", None, 10**6)
    await store.trim("b", Spans([5, 1 << 60]), 1 << 62, None)


async def read_all(path: Path) -> Any:
    store = SqliteStore(str(path))
    recovered = await store.open(0)
    try:
        return (
            recovered,
            [(each.start, each.batch.data) for topic in ("a", "b") for each in await all_of(store, topic)],
            await store.dead("a", "p"),
            [await store.history(topic) for topic in ("a", "b")],
            [await store.seek("a", time) for time in (0, 10**15)],
        )
    finally:
        await store.close()


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(database, "PAGE_BYTES", 512)
    monkeypatch.setattr("solarwind.store.files.Reserve.SIZE", 4096)
    return tmp_path / "wind.db"


def is_found(path: Path) -> bool:
    try:
        return bool(check(str(path)))
    except StoreError:
        return True


def what_is_read(path: Path) -> Any:
    try:
        return asyncio.run(read_all(path))
    except StoreError as error:
        return error


@pytest.mark.parametrize("seed", range(3))
def test_a_bit_flipped_anywhere_is_read_as_it_was_or_is_one_store_error(path: Path, seed: int) -> None:
    on_store(path, furnish)
    whole = path.read_bytes()
    expected = asyncio.run(read_all(path))
    path.write_bytes(whole)
    chance = random.Random(seed)
    silent = []
    for at in chance.sample(range(100, len(whole)), 60):
        for name in os.listdir(path.parent):
            os.unlink(path.parent / name)
        damaged = bytearray(whole)
        damaged[at] ^= 1 << chance.randrange(8)
        path.write_bytes(damaged)
        found = what_is_read(path)
        if isinstance(found, StoreError):
            assert "\n" not in str(found)
        elif found != expected:
            silent.append(at)
        if found != expected:
            assert is_found(path), (at, found)
    assert silent == []


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            "UPDATE dead SET error = 'other' WHERE position = 4",
            "the dead letter at position 4 of purpose 'p' on topic 'a'",
        ),
        ("UPDATE dead SET tried = 77 WHERE position = 4", "the dead letter at position 4 of purpose 'p' on topic 'a'"),
        ("UPDATE dead SET error = CAST(x'ff' AS TEXT)", "the dead letter at position 1 of purpose 'p' on topic 'a'"),
        ("UPDATE topics SET keep_ns = 1 WHERE name = 'a'", "what is noted of topic 'a' is not what was written"),
        ("UPDATE topics SET trimmed = x'92' WHERE name = 'b'", "what is noted of topic 'b' is not what was written"),
        ("UPDATE commits SET time = 'late' WHERE number = 3", "commit 3 of an unreadable time is not what was written"),
        ("UPDATE batches SET last_time = 1 WHERE start = 3 AND topic = 1", "noted of the events 3 to 5 of topic 'a'"),
        (
            "UPDATE batches SET data = 'text' WHERE start = 3 AND topic = 1",
            "the events 3 to 5 of topic 'a' are not what",
        ),
    ],
)
def test_each_row_that_was_changed_is_named_and_can_be_given_up(path: Path, change: str, sentence: str) -> None:
    on_store(path, furnish)
    sql(path, change)
    assert any(sentence in finding for finding in check(str(path))), check(str(path))
    assert check(str(path), accept_loss=True)
    assert check(str(path)) == []
    asyncio.run(read_all(path))


def test_a_changed_dead_letter_is_an_error_when_it_is_read(path: Path) -> None:
    on_store(path, furnish)
    sql(path, "UPDATE dead SET error = 'other' WHERE position = 4")
    with pytest.raises(StoreError, match="the dead letter at position 4"):
        asyncio.run(read_all(path))
