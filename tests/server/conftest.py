"""Processes for tests to do things to, ended however the test ends."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from .npm import Judge
from .place import Host
from .serving import Life, Serving


@pytest.fixture(autouse=True)
def servers_look_often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those on this loop, at who may still be there: so no test states short limits to be quick."""
    monkeypatch.setattr("solarwind.server.asgi.CHECK_S", 0.05)


@pytest.fixture
def own_host() -> Iterator[Host]:
    """One whose memory is measured, or that is killed."""
    host = Host()
    yield host
    host.end()


@pytest.fixture(scope="session")
def judge() -> Iterator[Judge]:
    """A process with packages of npm, for tests that need those."""
    judge = Judge()
    yield judge
    judge.end()


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Makes servers, not yet started."""
    made: list[Serving] = []

    def make(*options: object, scheme: str = "ws") -> Serving:
        made.append(Serving(tmp_path, *options, scheme=scheme))
        return made[-1]

    yield make
    for each in made:
        each.kill()


@pytest.fixture
def live(tmp_path: Path) -> Iterator[Callable[..., Life]]:
    """Begins lives."""
    made: list[Life] = []

    def begin(mode: str, url: str, name: str, *arguments: object) -> Life:
        made.append(Life(mode, url, tmp_path, name, *arguments))
        return made[-1]

    yield begin
    for each in made:
        each.kill()
