"""A client says hello to the owner of a partition, which goes at that very moment: it is noticed without waiting for a
time to pass, and whoever owns the partition then is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from nats.aio.msg import Msg

from solarwind import SolarWind, Unavailable
from solarwind.cluster import engine, owners
from solarwind.cluster.engine import NatsEngine, PartitionClient
from solarwind.operations import Internal
from solarwind.peer.connection import Connection
from solarwind.testing.contract import on_loop, until

from .processes import process
from .servers import NatsServer

NEVER_S = 3_600.0  # what is noticed at once is noticed though nothing else would show it before
TURNS = 12  # of the loop: more than a hello takes


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients wait as long as need be for an answer to their hello."""
    monkeypatch.setattr(PartitionClient, "hello_s", NEVER_S)
    monkeypatch.setattr(engine, "OWNER_S", NEVER_S)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> list[Callable[[NatsEngine], None]]:
    """Each of these is called once, with the engine of an owner that has just answered a client who comes."""
    calls: list[Callable[[NatsEngine], None]] = []
    real = NatsEngine._open_transport

    async def answering(self: NatsEngine, message: Msg, *more: Any) -> None:
        await real(self, message, *more)
        if calls:
            calls.pop()(self)

    monkeypatch.setattr(NatsEngine, "_open_transport", answering)
    return calls


async def answers(wind: SolarWind) -> bool:
    try:
        await wind.statistics()
    except Unavailable:
        return False
    return True


def leave(engine: NatsEngine) -> None:
    """End the owner's connections, as when it stops."""
    for transport in list(engine._transports.values()):
        transport.connection.leave()


@on_loop
async def test_an_owner_that_goes_in_any_turn_of_a_hello_is_noticed_at_once(
    server: NatsServer, namespace: str, patient: None, opened: list[Callable[[NatsEngine], None]]
) -> None:
    url = server.url(namespace, streams=1)

    def after(turns: int, engine: NatsEngine) -> None:
        if turns:
            asyncio.get_running_loop().call_soon(after, turns - 1, engine)
        else:
            leave(engine)

    async with SolarWind(url) as owner:
        await owner.fire("T", 1)
        await owner.statistics()
        async with SolarWind(url) as asking:
            client_engine: NatsEngine = asking.engine  # type: ignore[assignment]
            for turns in range(TURNS):
                opened.append(partial(after, turns))
                client = await client_engine._client(0)
                await Internal.topics(client)
                assert not opened
                await client.stop()
                client_engine._clients.clear()


@on_loop
async def test_a_message_to_a_connection_that_the_owner_has_forgotten_is_answered(
    server: NatsServer, namespace: str, patient: None, opened: list[Callable[[NatsEngine], None]]
) -> None:
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as owner:
        await owner.fire("T", 1)
        await owner.statistics()
        opened.append(lambda engine: engine._transports.clear())
        async with SolarWind(url) as asking:
            await asking.statistics()
        assert not opened


@on_loop
async def test_a_hello_that_is_lost_is_said_again(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where NATS drops it, and nobody is told."""
    url = server.url(namespace, streams=1)
    monkeypatch.setattr(PartitionClient, "hello_s", 0.2)
    real = Connection._hello
    lost = []

    def losing(self: Connection, hello: Any) -> None:
        if lost or self._transport.local:
            real(self, hello)
        else:
            lost.append(hello)

    async with SolarWind(url) as owner:
        await owner.fire("T", 1)
        await owner.statistics()
        monkeypatch.setattr(Connection, "_hello", losing)
        async with SolarWind(url) as asking:
            await asking.statistics()
        assert lost


@on_loop
async def test_an_owner_that_dies_is_replaced_when_nats_finds_nobody_there(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whoever has something to say to it need not wait for heartbeats that do not come."""
    monkeypatch.setattr(owners, "DOUBT_S", NEVER_S)
    monkeypatch.setattr(owners, "SILENT_S", NEVER_S)
    url = server.url(namespace, streams=1)
    async with process(url, topics=["T"]) as owner, SolarWind(url) as wind:
        await wind.statistics()
        await owner.kill()
        await until(lambda: answers(wind), "another to own the partition")
