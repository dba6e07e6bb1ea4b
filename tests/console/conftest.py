"""The console in a real browser, at a real server with real traffic: one of each for all tests of a process."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from server.browser import CHROMIUM

from .browsing import Browsing, World


@pytest.fixture(scope="session")
def browsing() -> Iterator[Browsing]:
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    found = Browsing()
    yield found
    found.end()


@pytest.fixture(scope="session")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    if CHROMIUM is None:
        pytest.skip("needs chromium")
    found = World(Path(tmp_path_factory.mktemp("world")))
    yield found
    found.end()
