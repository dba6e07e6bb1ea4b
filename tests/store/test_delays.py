"""The due-log: the same over every store that has one, and what a file promises besides."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from solarwind.batch import Batch, seal
from solarwind.core.log import Stored
from solarwind.core.state import Change
from solarwind.errors import BadArgument, StoreError
from solarwind.store.base import DelayingStore
from solarwind.store.check import backup, check
from solarwind.store.delays import Delayed
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore

from .faultyvfs import Disk, Platter, faulty_disk
from .test_faults import small_scale
from .test_sqlite import nothing, on_store, sql

Test = Callable[[DelayingStore], Awaitable[None]]


def events(topic: str, *numbers: int, producer: int = 1, first: int | None = None, **more: list[str | None]) -> Batch:
    return seal(
        topic,
        [b"%d" % number for number in numbers],
        [1] * len(numbers),
        producer=producer,
        first=numbers[0] if first is None else first,
        machine="box",
        process="app",
        **more,
    )


async def delay(store: DelayingStore, due: int, batch: Batch) -> None:
    await store.commit([], [], [], 1, [Delayed(due, batch)])


async def in_topic(store: DelayingStore, topic: str = "T") -> list[int]:
    """What is in its history, in order; and that positions follow each other."""
    found: list[Stored] = []
    while page := await store.read(topic, found[-1].stop if found else 0, 1 << 30):
        found += page
    assert [each.start for each in found[1:]] == [each.stop for each in found[:-1]]
    return [int(each.batch.payload(index)) for each in found for index in range(len(each.batch))]


async def listed(store: DelayingStore) -> list[tuple[int, int]]:
    """What is delayed: when it is due, and its payload."""
    found: list[tuple[int, int]] = []
    after = (-1, -1)
    while page := await store.delays.page(after, max_bytes=100):
        after = page[-1].place
        found += [(each.due, int(each.batch.payload(index))) for each in page for index in range(len(each.batch))]
    assert await store.delays.count() == len(found)
    assert await store.delays.next_due() == (found[0][0] if found else None)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


@pytest.fixture(params=["memory", "sqlite"])
def run(request: pytest.FixtureRequest, path: Path) -> Callable[[Test], None]:
    """Runs a test on an open store."""

    def run(test: Test) -> None:
        async def work() -> None:
            store: DelayingStore = MemoryStore() if request.param == "memory" else SqliteStore(str(path))
            await store.open(1)
            await test(store)
            await store.close()

        asyncio.run(work())

    return run


def test_what_is_due_enters_its_topic_in_the_order_of_the_times_then_of_acceptance(
    run: Callable[[Test], None],
) -> None:
    async def test(store: DelayingStore) -> None:
        for due, batch in ((30, events("T", 3)), (10, events("T", 1, 2)), (30, events("U", 5)), (30, events("T", 4))):
            await delay(store, due, batch)
        await store.commit([events("T", 0)], [], [], 1)
        assert await listed(store) == [(10, 1), (10, 2), (30, 3), (30, 5), (30, 4)]
        assert await store.delays.release(9) == []
        assert await in_topic(store) == [0]
        (released,) = await store.delays.release(29)
        assert (released.start, released.batch.data) == (1, events("T", 1, 2).data)
        assert [each.batch.topic for each in await store.delays.release(30)] == ["T", "U", "T"]
        assert (await in_topic(store), await in_topic(store, "U"), await listed(store)) == ([0, 1, 2, 3, 4], [5], [])
        assert (await store.delays.release(1 << 62), await store.delays.next_due()) == ([], None)

    run(test)


def test_what_was_released_is_found_by_its_id(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        batch = events("T", 1, 2, ids=["one", None])
        await delay(store, 10, batch)
        assert [await store.find(batch.id(index)) for index in (0, 1)] == [None, None]
        await store.delays.release(10)
        assert [await store.find(batch.id(index)) for index in (0, 1)] == [("T", 0), ("T", 1)]

    run(test)


def test_an_id_that_is_delayed_or_in_the_history_is_not_delayed_again(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        made, given = events("T", 1, 2), events("T", 3, 4, 5, ids=["a", "b", "a"])
        await store.commit([events("T", 0, ids=["known"])], [], [], 1)
        for _ in range(2):
            await store.commit([], [], [], 1, [Delayed(20, made), Delayed(20, given)])
            await delay(store, 10, events("T", 6, 7, ids=["known", "b"]))
        await delay(store, 10, events("T", 8, first=90, ids=[made.id(0)]))
        await delay(store, 30, events("U", 9, ids=["a"]))  # of another topic
        assert await listed(store) == [(20, 1), (20, 2), (20, 3), (20, 4), (30, 9)]
        await store.delays.release(20)
        for batch in (made, given):
            await delay(store, 40, batch)
        assert (await in_topic(store), await listed(store)) == ([0, 1, 2, 3, 4], [(30, 9)])

    run(test)


def test_what_came_into_the_history_meanwhile_is_not_there_twice_once_it_is_due(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        await delay(store, 10, events("T", 1, 2, ids=["a", "b"]))
        await delay(store, 20, events("T", 3, ids=["c"]))
        await store.commit([events("T", 7, 8, ids=["b", "c"])], [], [], 1)
        (released,) = await store.delays.release(10)
        assert (released.start, await store.delays.release(20)) == (2, [])
        assert (await in_topic(store), await listed(store)) == ([7, 8, 1], [])

    run(test)


def test_events_that_follow_a_delayed_one_are_no_reason_to_take_it_for_known(run: Callable[[Test], None]) -> None:
    """The numbers of a producer go on while it waits."""

    async def test(store: DelayingStore) -> None:
        await delay(store, 10, events("T", 1))
        await store.commit([events("T", 2, 3)], [], [], 1)
        await store.delays.release(10)
        assert await in_topic(store) == [2, 3, 1]
        await store.commit([events("T", 1, 2, 3, 4)], [], [], 1)
        assert await in_topic(store) == [2, 3, 1, 4]

    run(test)


def test_one_event_of_a_batch_is_cancelled_and_the_others_keep_their_ids(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        batch = events("T", 1, 2, 3)
        await delay(store, 10, batch)
        assert await store.delays.cancel("T", batch.id(1))
        assert not await store.delays.cancel("T", batch.id(1))
        assert not await store.delays.cancel("U", batch.id(0))
        assert await listed(store) == [(10, 1), (10, 3)]
        await store.delays.release(10)
        assert not await store.delays.cancel("T", batch.id(0))
        assert [await store.find(batch.id(index)) for index in range(3)] == [("T", 0), None, ("T", 1)]
        await delay(store, 20, batch)  # what was cancelled may be fired again
        assert await listed(store) == [(20, 2)]
        assert await store.delays.cancel("T", batch.id(1))
        assert await listed(store) == []

    run(test)


def test_one_event_of_a_batch_is_moved_to_another_time(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        batch = events("T", 1, 2, 3)
        await delay(store, 10, batch)
        assert await store.delays.move("T", batch.id(0), 30)
        assert await store.delays.move("T", batch.id(2), 5)
        assert not await store.delays.move("T", "other", 5)
        assert await listed(store) == [(5, 3), (10, 2), (30, 1)]
        for now in (5, 10, 30):
            await store.delays.release(now)
        assert await in_topic(store) == [3, 2, 1]
        assert [await store.find(batch.id(index)) for index in range(3)] == [("T", 2), ("T", 1), ("T", 0)]
        with pytest.raises(BadArgument, match="expected a time between 1970 and 2116, got -1"):
            await store.delays.move("T", batch.id(0), -1)

    run(test)


def test_a_wall_clock_that_is_set_back_makes_it_late_and_never_early(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        await delay(store, 100, events("T", 1))
        for now in (99, 5, 0):
            assert await store.delays.release(now) == []
        await delay(store, 3, events("T", 2))
        await store.delays.release(5)
        await store.delays.release(100)
        assert await in_topic(store) == [2, 1]

    run(test)


def test_very_many_that_are_due_at_once_enter_in_pieces(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        await store.commit([], [], [], 1, [Delayed(10, events("T", number)) for number in range(1200)])
        pieces = []
        while released := await store.delays.release(10):
            pieces.append(len(released))
        assert (max(pieces) <= 500, await in_topic(store)) == (True, list(range(1200)))

    run(test)


# --- a file -------------------------------------------------------------------------------------------------


async def furnish(store: SqliteStore) -> None:
    await delay(store, 10, events("T", 1, 2))
    await delay(store, 20, events("T", 3, ids=["three"]))


def test_delayed_events_outlive_a_restart_and_are_in_a_backup(path: Path, tmp_path: Path) -> None:
    async def look(store: SqliteStore) -> None:
        assert await listed(store) == [(10, 1), (10, 2), (20, 3)]
        await store.delays.release(10)
        assert (await in_topic(store), await listed(store)) == ([1, 2], [(20, 3)])

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


def test_a_time_that_is_none_is_refused_and_the_store_goes_on(run: Callable[[Test], None]) -> None:
    async def test(store: DelayingStore) -> None:
        with pytest.raises(BadArgument, match="expected a time between 1970 and 2116, got -1"):
            await delay(store, -1, events("T", 1))
        await delay(store, 10, events("T", 2))
        assert await listed(store) == [(10, 2)]

    run(test)


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
        assert await listed(store) == (left or [(10, 1), (10, 2), (20, 3)])
        assert await store.delays.cancel("T", "three")

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
        await delay(store, now + chance.randrange(5), events("T", *few))
        disk.acknowledged(number)
        await store.delays.release(now)
    await store.close()


def where_events_are(path: Path) -> list[int]:
    """All there are, delayed or in their topic; each as often as it is there."""
    found: list[int] = []

    async def look(store: SqliteStore) -> None:
        found.extend(await in_topic(store))
        found.extend(number for _, number in await listed(store))

    on_store(path, look)
    return found


def test_an_error_at_any_call_while_events_become_due_leaves_each_of_them_once(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each statement of a release fails in turn: nothing is moved, or all of the piece."""
    on_store(path, furnish)

    async def failing(store: SqliteStore, step: int) -> bool:
        """Whether the release came to that statement."""
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
