"""An event that dies, and the one that is fired for it, in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from solarwind import Dead, Event, SolarWind
from solarwind.engine.local import LocalEngine
from solarwind.failure import Retry
from solarwind.names import DEAD
from solarwind.store.base import Full, Store
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import on_loop, until


class Watched:
    """A store whose commits are looked at: how many events died in each, and how many tell of that."""

    def __init__(self, store: Store, full: int = 0) -> None:
        self.store = store
        self.commits: list[tuple[int, int]] = []
        self._full = full  # so many commits with deaths find no room
        self._genuine = store.commit
        store.commit = self._commit  # type: ignore[method-assign]

    async def _commit(self, batches: Sequence[Any], changes: Sequence[Any], *more: Any) -> Any:
        died = sum(len(change.dead) for change in changes if change.topic != DEAD)
        told = sum(len(batch) for batch in batches if batch.topic == DEAD)
        if died and self._full:
            self._full -= 1
            raise Full("no room")
        stored = await self._genuine(batches, changes, *more)
        self.commits.append((died, told))
        return stored


def failing(wind: SolarWind) -> list[Any]:
    heard: list[Any] = []

    @wind.on(DEAD, purpose="ops")
    async def hear(dead: Dead) -> None:
        heard.append((dead.id, dead.key))

    @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0))
    async def fail(event: Event) -> None:
        raise ValueError("no")

    return heard


@pytest.mark.parametrize("cache_bytes", [0, 1 << 20])
@pytest.mark.parametrize("kind", ["memory", "sqlite"])
@on_loop
async def test_the_commit_of_a_death_has_what_tells_of_it(tmp_path: Path, kind: str, cache_bytes: int) -> None:
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(tmp_path / "wind.db")
    watched, engine = Watched(store), LocalEngine(store)
    wind = SolarWind(engine=engine)
    heard = failing(wind)
    async with wind:
        engine.limit_cache(cache_bytes)
        await wind.joined()
        fired = wind.fire_many("T", range(2_000), keys=[f"k{number}" for number in range(2_000)])
        await fired
        await wind.settled(60)
        assert sorted(heard) == sorted((id, f"k{number}") for number, id in enumerate(fired.ids))
    assert all(died == told for died, told in watched.commits), "both or neither"
    assert sum(died for died, _ in watched.commits) == 2_000


@on_loop
async def test_where_there_is_no_room_for_both_there_is_neither_and_once_there_is_both_are_there() -> None:
    store = MemoryStore()
    watched = Watched(store, full=3)
    wind = SolarWind(engine=LocalEngine(store))
    heard = failing(wind)
    async with wind:
        await wind.joined()
        await wind.fire("T", 1, id="one")
        await until(lambda: heard)
        await wind.settled(60)
        assert heard == [("one", None)]
    assert [each for each in watched.commits if any(each)] == [(1, 1)]


@on_loop
async def test_a_dispatcher_for_which_nobody_hears_of_deaths_keeps_nothing_of_them() -> None:
    engine = LocalEngine(MemoryStore())
    wind = SolarWind(engine=engine)

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def fail(event: Event) -> None:
        raise ValueError("no")

    async with wind:
        await wind.fire_many("T", range(10))
        await wind.settled(60)
        assert engine._dispatcher.deaths.waiting == []
        assert DEAD not in engine._dispatcher.topics
