"""The contract over a server in another process, by itself and mounted in somebody's app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from solarwind.testing.contract import EngineContract, Place

from .place import Host, MountedPlace, ServerPlace


@pytest.mark.long
class TestServerOnMemory(EngineContract):
    @pytest.fixture
    def place(self, host: Host) -> Iterator[Place]:
        place = ServerPlace(host, "memory://")
        yield place
        place.close()


class TestServerOnSqlite(EngineContract):
    @pytest.fixture
    def place(self, host: Host, tmp_path: Path) -> Iterator[Place]:
        place = ServerPlace(host, f"sqlite:///{tmp_path}/wind.db")
        yield place
        place.close()


@pytest.mark.long
class TestServerInFastApi(EngineContract):
    @pytest.fixture
    def place(self, host: Host, tmp_path: Path) -> Iterator[Place]:
        place = MountedPlace(host, "fastapi", f"sqlite:///{tmp_path}/wind.db")
        yield place
        place.close()


@pytest.mark.long
class TestServerInStarlette(EngineContract):
    @pytest.fixture
    def place(self, host: Host) -> Iterator[Place]:
        place = MountedPlace(host, "starlette", "memory://")
        yield place
        place.close()
