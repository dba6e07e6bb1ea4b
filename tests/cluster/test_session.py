"""The connection to NATS goes to a server that is of use."""

from __future__ import annotations

import pytest

from solarwind.cluster import session as sessions
from solarwind.cluster.address import read_address
from solarwind.cluster.session import Session
from solarwind.testing.contract import on_loop, until

from .servers import NatsCluster


@on_loop
async def test_a_server_that_knows_a_leader_by_now_is_not_left(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One was elected between the two questions."""
    session = Session(read_address(cluster.url("any")))
    await session.open()
    asked: list[Session] = []

    async def has_leader(self: Session, stream: str) -> bool:
        asked.append(self)
        return len(asked) > 1

    monkeypatch.setattr(Session, "_has_leader", has_leader)
    monkeypatch.setattr(sessions, "DOUBT_S", 0.01)
    session.vital = ("stream",)
    try:
        session.doubt()
        await until(lambda: session._doubted is None)
        assert [each is session for each in asked] == [True, False, True]
        assert session.connections == 1
    finally:
        await session.close()


@on_loop
async def test_a_server_that_lost_its_cluster_is_left_once_another_has_a_leader(
    cluster: NatsCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By one request without an answer, though the leader had to be elected first."""
    session = Session(read_address(cluster.url("any")))
    await session.open()
    asked = 0

    async def has_leader(self: Session, stream: str) -> bool:
        nonlocal asked
        asked += self is not session
        return asked > 3 if self is not session or session.connections > 1 else False

    monkeypatch.setattr(Session, "_has_leader", has_leader)
    monkeypatch.setattr(sessions, "DOUBT_S", 0.01)
    session.vital = ("stream",)
    try:
        session.doubt()
        await until(lambda: session.connections > 1 and session.is_up)
        assert asked > 3
    finally:
        await session.close()
