"""The contract over the engines that need no server."""

from __future__ import annotations

from pathlib import Path

import pytest

from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing.contract import EngineContract, LocalPlace, Place


class TestMemory(EngineContract):
    @pytest.fixture
    def place(self) -> Place:
        return LocalPlace(MemoryStore, durable=False)


class TestSqlite(EngineContract):
    @pytest.fixture
    def place(self, tmp_path: Path) -> Place:
        return LocalPlace(lambda: SqliteStore(str(tmp_path / "wind.db")), durable=True)
