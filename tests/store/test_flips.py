"""Bits flipped anywhere in a store that was closed: nothing is read differently without a word."""

from __future__ import annotations

import asyncio
import os
import random
from pathlib import Path
from typing import Any

import pytest

from sampling import some
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Creation, Letter, State
from solarwind.errors import StoreError
from solarwind.event import Cause
from solarwind.store import database
from solarwind.store.check import check
from solarwind.store.delays import Delayed
from solarwind.store.sqlite import SqliteStore

from .test_sqlite import all_of, batch, on_store, sql


def given(number: int) -> list[str | None] | None:
    return [f"id {number} {index}" for index in range(3)] if number % 2 else None


async def furnish(store: SqliteStore) -> None:
    for number in range(12):
        one = batch("a", 3, first=3 * number, ids=given(number), payload=b"%d" % number * 20)
        dead = [Letter(3 * number + 1, 2, number, f"ValueError: number {number}", 1)]
        change = Change("a", "p", settled=Spans([3 * number, 3 * number + 1]), dead=dead)
        because: list[Cause | None] = [Cause("event", f"id {number} 1")]
        await store.commit([one, batch("b", first=number, producer=2, causes=because)], [change], [], now=5)
    state = State("b", "q")
    state.apply(Change("b", "q", created=Creation(0)))
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
            await store.dead("a", "p", 0, Spans((0, 1 << 60))),
            [await store.history(topic) for topic in ("a", "b")],
            [await store.seek("a", time) for time in (0, 10**15)],
            [(each.start, each.batch.data) for each in (await store.caused(["id 5 1"], None, 1 << 20))[0]],
            [await store.find(f"id {number} {index}") for number in (1, 5, 11) for index in range(3)],
            await store.definitions.list(),
            [(each.due, each.batch.data) for each in await store.delays.page()],
            await store.delays.cancel([("a", batch("a", 3, first=91).id(1))]),
            [each.batch.data for each in await store.delays.release(3)],
            await use(store),
        )
    finally:
        await store.close()


async def use(store: SqliteStore) -> Any:
    """Fire what was fired before, with ids that were given and made, and trim: on what is noted of batches."""
    again = [batch("a", 3, first=3 * number, ids=given(number), payload=b"again") for number in (0, 3, 6, 9, 11)]
    stored = await store.commit([*again, batch("b", first=6, producer=2)], [], [], now=7)
    trimmed = [await store.trim("a", Spans([0, 6, 30, 1 << 60]), 1 << 62, None)]
    trimmed.append(await store.trim("b", Spans(), None, 300))
    return stored, trimmed, [await store.history(topic) for topic in ("a", "b")]


async def furnish_more(store: SqliteStore) -> None:
    await store.definitions.put("webhook", "shop", b"secret" * 20)
    await store.commit([], [], [], 7, [Delayed(number, batch("a", 3, first=90 + number)) for number in range(5)])


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


@pytest.mark.parametrize("seed", some([0], range(3)))
def test_a_bit_flipped_anywhere_is_read_as_it_was_or_is_one_store_error(path: Path, seed: int) -> None:
    on_store(path, furnish)
    on_store(path, furnish_more)
    whole = path.read_bytes()
    expected = asyncio.run(read_all(path))
    path.write_bytes(whole)
    chance = random.Random(seed)
    silent = []
    for at in chance.sample(range(100, len(whole)), 40):
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
            path.write_bytes(damaged)
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
        ("UPDATE ids SET id = 'other' WHERE id = 'id 3 1'", "the ids noted of the events 9 to 11 of topic 'a' are not"),
        ("DELETE FROM ids WHERE id = 'id 3 1'", "the ids noted of the events 9 to 11 of topic 'a' are not theirs"),
        ("UPDATE ids SET position = 10 WHERE id = 'id 3 0'", "the ids noted of the events 9 to 11 of topic 'a'"),
        ("DELETE FROM effects", "it is not noted what caused the events 5 to 5 of topic 'b'"),
        ("UPDATE effects SET bucket = 'other'", "it is not noted what caused the events 5 to 5 of topic 'b'"),
        ("INSERT INTO effects VALUES ('x', 99)", "it is noted what caused events that are not there"),
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


def changed(path: Path, change: str) -> SqliteStore:
    on_store(path, furnish)
    sql(path, change)
    return SqliteStore(str(path))


def test_an_id_that_is_noted_of_another_event_is_one_error_when_it_is_found_and_when_it_is_fired_again(
    path: Path,
) -> None:
    store = changed(path, "UPDATE ids SET id = 'id 9 9' WHERE id = 'id 3 1'")

    async def work() -> None:
        await store.open(0)
        with pytest.raises(StoreError, match="the id 'id 9 9' is noted of event 10 of topic 'a', which has another"):
            await store.find("id 9 9")
        for _ in range(2):  # and nothing goes on from there
            with pytest.raises(
                StoreError, match="the id 'id 9 9' is noted of event 10 of topic 'a', which has another"
            ):
                await store.commit([batch("a", first=900, ids=["id 9 9"])], [], [], now=7)
        await store.close()

    asyncio.run(work())


def test_a_batch_whose_noted_time_was_changed_is_not_deleted_early(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.store.inspection.inspect_bodies", lambda *_, **__: ())  # as if it were long ago

    store = changed(path, "UPDATE batches SET accepted = -1 WHERE topic = 1 AND start = 3")

    async def work() -> None:
        await store.open(0)
        with pytest.raises(StoreError, match="what is noted of the events 3 to 5 of topic 'a' is not what was written"):
            await store.trim("a", Spans([0, 3]), 0, None)
        assert len(await all_of(store, "a")) == 12
        await store.close()

    asyncio.run(work())
