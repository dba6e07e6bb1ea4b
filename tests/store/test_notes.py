"""What is noted about events with their settles: kept as long as they are, checked, and copied."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import cast

import apsw
import pytest

from solarwind import SolarWind
from solarwind.batch import Batch, seal
from solarwind.copying import copy, open_end
from solarwind.core.facts import Note, divided
from solarwind.core.spans import Spans
from solarwind.engine.local import LocalEngine
from solarwind.store import commits
from solarwind.store.check import check
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import until


def a_note(edges: list[int], tried: Sequence[tuple[int, int]] = ()) -> Note:
    return Note("T", "p", "settled", edges, 1, "vm/x:1", 1, 2, 3, list(tried))


def test_a_note_of_events_in_several_parts_of_the_log_is_cut_so_that_each_part_has_its_own() -> None:
    found = divided([a_note([5, 8]), a_note([8, 12, 25, 31], [(9, 2), (26, 3)])], 10)
    assert found == {
        ("T", 0): [a_note([5, 8]), a_note([8, 10], [(9, 2)])],
        ("T", 1): [a_note([10, 12])],
        ("T", 2): [a_note([25, 30], [(26, 3)])],
        ("T", 3): [a_note([30, 31])],
    }


async def handled(store: SqliteStore | MemoryStore, count: int, keep: float) -> list[str]:
    """Have events handled, and return their ids."""
    wind = SolarWind(engine=LocalEngine(store))
    wind.topic("T", keep=keep)

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None: ...

    async with wind:
        ids = wind.fire_many("T", range(count)).ids
        await wind.settled(60)
        if not keep:
            await until(lambda: _is_trimmed(wind))
    return list(ids)


async def _is_trimmed(wind: SolarWind) -> bool:
    return not any(each.kept for each in await wind.topics())


def rows(path: Path) -> int:
    """Return how many rows of notes there are for the first 2,048 events."""
    connection = apsw.Connection(str(path))
    try:
        return cast(int, connection.execute("SELECT count(*) FROM notes WHERE part < 2").get)
    finally:
        connection.close()


@pytest.fixture
def sorted_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """With each commit the notes go from the commits to the parts of the log that they are about."""
    monkeypatch.setattr(commits, "_COMMITS_KEPT", 1)


def test_notes_are_trimmed_with_the_events_that_they_are_about(tmp_path: Path, sorted_at_once: None) -> None:
    asyncio.run(handled(SqliteStore(str(tmp_path / "kept.db")), 3_000, keep=3600))
    asyncio.run(handled(SqliteStore(str(tmp_path / "gone.db")), 3_000, keep=0))
    assert rows(tmp_path / "kept.db") >= 2
    assert rows(tmp_path / "gone.db") == 0


def test_in_memory_nothing_of_an_event_is_left_once_it_is_trimmed() -> None:
    async def main() -> None:
        store = MemoryStore()
        await handled(store, 3_000, keep=0)
        assert await store.notes("T", Spans((0, 3_000))) == []
        space = store.space()
        assert space.free == space.size

    asyncio.run(main())


def test_a_damaged_note_is_found_and_given_up(tmp_path: Path, sorted_at_once: None) -> None:
    path = tmp_path / "wind.db"
    asyncio.run(handled(SqliteStore(str(path)), 3, keep=3600))
    assert check(str(path)) == []
    connection = apsw.Connection(str(path))
    connection.execute("UPDATE notes SET data = x'90'")
    connection.close()
    (text,) = check(str(path))
    assert "noted about events of topic 1" in text
    check(str(path), accept_loss=True)
    assert check(str(path)) == []


@pytest.mark.parametrize("after", [1, 256])
def test_a_copy_has_what_became_of_the_events(tmp_path: Path, after: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever it is noted, before and after."""
    monkeypatch.setattr(commits, "_COMMITS_KEPT", after)
    path, target = tmp_path / "wind.db", tmp_path / "copy.db"
    ids = asyncio.run(handled(SqliteStore(str(path)), 3_000, keep=3600))

    async def main() -> None:
        await copy(open_end(f"sqlite:///{path}", writes=False), open_end(f"sqlite:///{target}", writes=True))
        async with SolarWind(f"sqlite:///{target}") as wind:
            for number in (0, 1_500, 2_999):
                (found,) = (await wind.event("T", ids[number])).outcomes
                assert (found.state, found.version, found.attempts) == ("settled", 1, 1)
                assert found.process

    asyncio.run(main())


def test_a_question_need_not_read_the_notes_of_many_large_commits(tmp_path: Path) -> None:
    """What is in the commits' rows is read for each question; of a large commit that is nothing."""
    path = tmp_path / "wind.db"

    async def main() -> None:
        store = SqliteStore(str(path))
        await store.open(1)
        for start in range(0, 5_000, 500):
            await store.commit([], [], [], 1, notes=[a_note([at, at + 1]) for at in range(start, start + 500)])
        assert await store.notes("T", Spans((4_567, 4_569))) == [a_note([4_567, 4_568]), a_note([4_568, 4_569])]
        await store.close()

    asyncio.run(main())
    connection = apsw.Connection(str(path))
    assert connection.execute("SELECT max(length(notes)) FROM commits").get == 0
    connection.close()
    assert check(str(path)) == []


def test_what_is_noted_of_events_after_they_were_trimmed_is_not_kept(tmp_path: Path) -> None:
    path = tmp_path / "wind.db"

    async def main() -> None:
        store = SqliteStore(str(path))
        await store.open(1)
        await store.commit([events(1_024, 0)], [], [], 1)
        assert await store.trim("T", Spans(), 1 << 62, None) == 1_024
        await store.commit([], [], [], 1, notes=[a_note([at, at + 1]) for at in range(1_000)])
        await store.close()

    asyncio.run(main())
    assert rows(path) == 0


def test_in_memory_notes_are_found_sorted_and_not_and_go_with_the_last_event_of_their_part() -> None:
    async def main() -> None:
        store = MemoryStore()
        for first in range(0, 2_560, 256):
            await store.commit([events(256, first)], [], [], 1)
        before = store.space()
        assert before is not None
        await store.commit([], [], [], 1, notes=[a_note([at, at + 1]) for at in range(2_047)])
        assert [await store.notes("T", Spans((at, at + 1))) for at in (3, 2_046)] == [
            [a_note([3, 4])],
            [a_note([2_046, 2_047])],
        ]
        await store.trim("T", Spans((0, 256, 300, 2_560)), 1 << 62, None)
        assert await store.notes("T", Spans((3, 4))) == [a_note([3, 4])]
        assert await store.notes("T", Spans((299, 301))) == [a_note([299, 300]), a_note([300, 301])]
        await store.trim("T", Spans((512, 2_560)), 1 << 62, None)
        assert await store.notes("T", Spans((0, 512))) == []
        await store.commit([], [], [], 1, notes=[a_note([at % 512, at % 512 + 1]) for at in range(1_025)])
        assert await store.notes("T", Spans((0, 512))) == [], "they came after their events were trimmed"
        await store.trim("T", Spans((2_304, 2_560)), 1 << 62, None)
        after = store.space()
        assert after is not None
        assert after.free > before.free, "what is noted of events that are gone takes no room"

    asyncio.run(main())


def events(count: int, first: int) -> Batch:
    return seal("T", [b"1"] * count, [1] * count, producer=1, first=first, machine="vm", process="x:1", author=b"a")
