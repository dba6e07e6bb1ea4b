"""nats-servers for tests: two kinds that all tests share, and as many of its own as a test wants to do things to."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest
from nats.aio.msg import Msg
from nats.errors import NotJSMessageError

from solarwind.cluster import session
from solarwind.cluster.channel import Channel
from solarwind.cluster.link import MemoryLink, _Back
from solarwind.cluster.tail import Tail

from .place import new_namespace
from .servers import NatsCluster, NatsServer, remove
from .wires import WiredCluster, missing

LATE_S, ON_ITS_WAY_S = 0.06, 0.02

T = TypeVar("T", NatsServer, NatsCluster, WiredCluster)


@pytest.fixture(autouse=True)
def _close_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a busy machine connections take their time to end; one that is not waited for would be left to later tests."""
    monkeypatch.setattr(session, "CLOSE_S", 10.0)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    """One node, which nobody may harm."""
    yield from _served(NatsServer(tmp_path_factory.mktemp("server")))


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsCluster]:
    """Three nodes, which nobody may harm."""
    yield from _served(NatsCluster(tmp_path_factory.mktemp("cluster")))


def _served(made: T) -> Iterator[T]:
    try:
        asyncio.run(made.start())
        yield made
    finally:
        asyncio.run(made.close())


@pytest.fixture
def namespace(request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new one. What the test leaves there on the servers it shares is removed."""
    name = new_namespace()
    yield name
    for each in ("server", "cluster"):
        if each in request.fixturenames:
            asyncio.run(remove(request.getfixturevalue(each).urls, name))


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is stored in a stream is read `LATE_S` after that, by whoever reads it on: what was accepted was not read by
    then, as on a busy machine."""
    message_came = Tail._message

    async def later(self: Tail, consumer: str, message: Msg) -> None:
        with suppress(NotJSMessageError):  # a heartbeat, or flow control
            await asyncio.sleep(message.metadata.timestamp.timestamp() + LATE_S - time.time())
        await message_came(self, consumer, message)

    monkeypatch.setattr(Tail, "_message", later)


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a process and the owner within it say to each other comes `ON_ITS_WAY_S` later, and so does what NATS
    answers: what was sent did not come by then."""

    class SlowLoop:
        def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
            self._loop = loop

        def call_soon(self, call: Callable[..., object], *args: object) -> object:
            return self._loop.call_later(ON_ITS_WAY_S, call, *args)

    for kind in (MemoryLink, _Back):
        make = kind.__init__

        def made(self: Any, *args: Any, make: Any = make) -> None:
            make(self, *args)
            self._loop = SlowLoop(asyncio.get_running_loop())

        monkeypatch.setattr(kind, "__init__", made)

    answer = Channel._answer
    monkeypatch.setattr(
        Channel,
        "_answer",
        lambda self, *args: asyncio.get_running_loop().call_later(ON_ITS_WAY_S, answer, self, *args),
    )


@pytest.fixture
def own(tmp_path: Path) -> Iterator[Callable[..., Any]]:
    """Makes servers, not yet started, that a test may do anything to: `own(NatsServer, max_payload=65536)`,
    `own(NatsCluster)`, `own(WiredCluster)`."""
    made: list[NatsServer | NatsCluster] = []

    def make(kind: type[T], **settings: Any) -> T:
        if issubclass(kind, WiredCluster) and missing():
            pytest.skip(missing())
        new = kind(tmp_path / f"nats-{len(made)}", **settings)
        made.append(new)
        return new

    yield make
    for each in made:
        asyncio.run(each.close())
