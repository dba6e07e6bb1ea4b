"""What is said of how much a topic would keep, by when its events were accepted."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from solarwind import SolarWind
from solarwind.engine.local import LocalEngine
from solarwind.operations import Internal
from solarwind.store.base import Store
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.clock import FakeClock


@pytest.mark.parametrize("kind", ["memory", "sqlite"])
def test_about_as_many_events_would_be_kept_as_were_accepted_since(kind: str, tmp_path: Path) -> None:
    clock = FakeClock()
    store: Store = MemoryStore() if kind == "memory" else SqliteStore(str(tmp_path / "wind.db"))

    async def main() -> None:
        async with SolarWind(engine=LocalEngine(store, clock=clock)) as wind:
            await Internal.keep(wind, "T", 86_400)
            for _ in range(3):
                for _ in range(10):
                    await wind.fire("T", "x" * 100)
                clock.advance(600)
            for keep, kept in ((60, 0), (700, 10), (1_300, 20), (1_900, 30), (0, 0)):
                said = await Internal.keep(wind, "T", keep, dry_run=True)
                assert (said.kept, said.keep) == (kept, keep)
            size = (await Internal.topic(wind, "T")).kept_bytes
            half = await Internal.keep(wind, "T", keep_bytes=size // 2, dry_run=True)
            assert (half.kept, half.keep_bytes) == (15, size // 2)
            assert (await Internal.topic(wind, "T")).kept == 30

    asyncio.run(main())
