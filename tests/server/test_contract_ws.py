"""The contract over a server in another process, by itself, at a Unix socket, and mounted in somebody's app."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from solarwind.testing.contract import EngineContract, Place
from solarwind.testing.rules.fanout import FanoutRules
from solarwind.testing.rules.lifecycle import LifecycleRules
from solarwind.testing.rules.outcomes import OutcomeRules

from .place import Host, MountedPlace, ServerPlace, UnixPlace


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


class AtAUnixSocket:
    @pytest.fixture
    def place(self, host: Host, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
        path = tmp_path_factory.mktemp("s") / "s"  # the names of tests may make a path too long
        place = UnixPlace(host, f"sqlite:///{tmp_path}/wind.db", path)
        yield place
        place.close()


@pytest.mark.long
class TestServerAtAUnixSocket(AtAUnixSocket, EngineContract):
    """All rules."""


class TestSomeRulesAtAUnixSocket(AtAUnixSocket, FanoutRules, OutcomeRules, LifecycleRules):
    """Those of one feature each way, of what becomes of events, and of starts, stops and restarts."""


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
