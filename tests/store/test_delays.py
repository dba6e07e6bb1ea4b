"""The due-log: the rules of all stores over memory and a file, and what a file promises besides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from due_log import DelayingPlace, DueLogRules, Run, events
from solarwind.core.state import Change
from solarwind.errors import StoreError
from solarwind.store.base import Store
from solarwind.store.check import backup, check
from solarwind.store.delays import Delayed
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore

from .faultyvfs import Disk, Platter, faulty_disk
from .test_faults import small_scale
from .test_sqlite import nothing, on_store, sql


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


class FileDelays(DelayingPlace):
    async def reopen(self) -> None:
        await self.store.close()
        await self.store.open(1)


@pytest.fixture(params=["memory", "sqlite"])
def run(request: pytest.FixtureRequest, path: Path) -> Run:
    def run(test: Callable[[DelayingPlace], Awaitable[None]]) -> None:
        async def work() -> None:
            store: Store = MemoryStore() if request.param == "memory" else SqliteStore(str(path))
            await store.open(1)
            await test(DelayingPlace(store) if request.param == "memory" else FileDelays(store))
            await store.close()

        asyncio.run(work())

    return run


class TestRules(DueLogRules):
    """Over memory and a file."""


async def furnish(store: SqliteStore) -> None:
    await DelayingPlace(store).delay(10, events("T", 1, 2))
    await DelayingPlace(store).delay(20, events("T", 3, ids=["three"]))


def test_delayed_events_outlive_a_restart_and_are_in_a_backup(path: Path, tmp_path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        assert await DelayingPlace(store).listed() == [(10, 1), (10, 2), (20, 3)]
        await store.delays.release(10)
        assert (await DelayingPlace(store).in_topic(), await DelayingPlace(store).listed()) == ([1, 2], [(20, 3)])

    on_store(path, furnish)
    backup(str(path), str(tmp_path / "copy.db"))
    for each in (path, tmp_path / "copy.db"):
        on_store(each, look)
        assert check(str(each)) == []


def test_what_is_delayed_is_committed_with_changes_or_not_at_all(path: Path) -> None:
    async def work(store: SqliteStore) -> None:
        bad = Change("T", "p", retried=1 << 80)  # cannot be written
        with pytest.raises(StoreError):
            await store.commit([events("T", 9)], [bad], [], 1, [Delayed(10, events("T", 1))])

    on_store(path, work)
    assert where_events_are(path) == []


@pytest.mark.parametrize(
    ("change", "sentence", "left"),
    [
        ("UPDATE delayed SET due = 1 WHERE count = 2", "delayed events of topic 'T' are not what", [(20, 3)]),
        ("UPDATE delayed SET data = x'00' WHERE count = 2", "are not what was written", [(20, 3)]),
        ("UPDATE delayed_ids SET id = 'x' WHERE id = 'three'", "the ids noted of delayed events of topic 'T'", None),
        ("DELETE FROM delayed_ids WHERE id = 'three'", "the ids noted of delayed events of topic 'T'", None),
    ],
)
def test_a_delayed_event_that_was_changed_is_named_and_can_be_given_up(
    path: Path, change: str, sentence: str, left: list[tuple[int, int]] | None
) -> None:
    on_store(path, furnish)
    sql(path, change)
    with pytest.raises(StoreError, match=sentence):
        on_store(path, nothing)
    (text,) = check(str(path), accept_loss=True)
    assert sentence in text
    assert check(str(path)) == []

    async def look(store: SqliteStore) -> None:
        assert await DelayingPlace(store).listed() == (left or [(10, 1), (10, 2), (20, 3)])
        assert await store.delays.cancel([("T", "three")]) == [True]

    on_store(path, look)


def test_delayed_events_that_were_lost_are_noticed_by_a_check(path: Path) -> None:
    on_store(path, furnish)
    sql(path, "DELETE FROM delayed WHERE count = 2")
    (text,) = check(str(path), accept_loss=True)
    assert "has lost 2 delayed events" in text
    assert check(str(path)) == []


@pytest.mark.usefixtures(small_scale.__name__)
def test_no_power_cut_while_events_become_due_loses_one_or_has_one_twice(path: Path, tmp_path: Path) -> None:
    """Cut at any moment, with any part left of what was not synced."""
    chance = random.Random(7)
    with faulty_disk() as disk:
        asyncio.run(become_due(disk, path, chance))
        cuts = set(chance.sample(range(len(disk.done)), 15))
        platter = Platter()
        for index, done in enumerate(disk.done):
            platter.do(index, done)
            if index in cuts:
                folder = tmp_path / f"cut-{index}"
                folder.mkdir()
                platter.cut(folder, chance)
                there = where_events_are(folder / "wind.db")
                assert sorted(there) == list(range(len(there))), f"cut after {index} of {len(disk.done)}"
                assert len(there) >= platter.acknowledged
                assert check(str(folder / "wind.db")) == []


async def become_due(disk: Disk, path: Path, chance: random.Random) -> None:
    store = SqliteStore(str(path), vfs=disk.name)
    await store.open(0)
    number = 0
    for now in range(12):
        few = [number + index for index in range(chance.choice((1, 3)))]
        number += len(few)
        await DelayingPlace(store).delay(now + chance.randrange(5), events("T", *few))
        disk.acknowledged(number)
        await store.delays.release(now)
    await store.close()


def where_events_are(path: Path) -> list[int]:
    """Return all there are, delayed or in their topic; each as often as it is there."""
    found: list[int] = []

    async def look(store: SqliteStore) -> None:
        found.extend(await DelayingPlace(store).in_topic())
        found.extend(number for _, number in await DelayingPlace(store).listed())

    on_store(path, look)
    return found


def test_an_error_at_any_call_while_events_become_due_leaves_each_of_them_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of a release fails in turn: nothing is moved, or all of the piece."""
    on_store(path, furnish)

    async def failing(store: SqliteStore, step: int) -> bool:
        """Return whether the release came to that statement."""
        left = step

        def authorize(*_: object) -> bool:
            nonlocal left
            left -= 1
            if left == 0:
                raise RuntimeError("no more")
            return True

        store._writer.exec_trace = authorize
        try:
            await store.delays.release(20)
        except (RuntimeError, StoreError):
            return True
        finally:
            store._writer.exec_trace = None
        return False

    step = 1
    while True:
        seen: list[bool] = []

        async def work(store: SqliteStore, step: int = step, seen: list[bool] = seen) -> None:
            seen.append(await failing(store, step))

        on_store(path, work)
        assert sorted(where_events_are(path)) == [1, 2, 3]
        if not seen[0]:
            break
        step += 1
    assert step > 5
