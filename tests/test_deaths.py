"""An event that dies, and the one that is fired for it, in one commit."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from breaking import Unexpected
from solarwind import Dead, Event, SolarWind, StoreError
from solarwind.engine.cache import LogCache
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


@pytest.mark.parametrize("error", [StoreError("no disk"), Unexpected("no idea")], ids=["StoreError", "unexpected"])
@on_loop
async def test_where_what_died_cannot_be_read_there_is_neither_and_after_a_restart_both_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """The dispatcher ends, and says why: it promised both."""
    store = SqliteStore(tmp_path / "wind.db")
    engine = LocalEngine(store)
    wind = SolarWind(engine=engine)
    heard = failing(wind)
    async with wind:
        engine.limit_cache(0)
        await wind.joined()
        gate = asyncio.Event()

        @wind.on("U", purpose="p", retry=Retry(attempts=1))
        async def fail(event: Event) -> None:
            await gate.wait()
            raise ValueError("no")

        await wind.joined()
        await wind.fire("U", id="one")
        await wind.fire("other")  # which takes its place in memory

        def unreadable(*what: object) -> Any:
            raise error

        with monkeypatch.context() as broken:
            broken.setattr(store, "read", unreadable)
            gate.set()
            with pytest.raises(StoreError, match=str(error)):
                await engine.failed
        assert heard == []
    wind = SolarWind(f"sqlite:///{tmp_path / 'wind.db'}")
    heard = failing(wind)
    async with wind:
        assert await wind.dead("U", "p") == []
        wind.on("U", purpose="p", retry=Retry(attempts=1))(fail)
        await wind.joined()
        await wind.settled(60)
        assert heard == [("one", None)]


@on_loop
async def test_a_death_of_which_nothing_can_be_told_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    """For what died is not in the log of its topic any more: that is damaged."""
    store = MemoryStore()
    engine = LocalEngine(store)
    wind = SolarWind(engine=engine)
    heard = failing(wind)
    async with wind:
        await wind.joined()
        await wind.fire("T", id="one")
        engine._cache = engine._deaths._cache = LogCache(lambda topic, position: None)

        async def gone(*what: object) -> list[Any]:
            return []

        store.read = gone  # type: ignore[method-assign]
        await until(lambda: "nothing is fired on solarwind.dead for event 0 of 'T', dead for 'p'" in caplog.text)
        assert heard == []


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
