"""The contract over a server in another process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from solarwind.testing.contract import EngineContract, Place

from .place import Host, ServerPlace


@pytest.fixture(scope="module")
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.end()


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
