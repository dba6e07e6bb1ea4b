"""What handlers fire is copied from the commits of its owner into the streams of its topics."""

from __future__ import annotations

from typing import Any

import pytest

from solarwind import SolarWind
from solarwind.cluster.forward import _Copier
from solarwind.cluster.session import NoAnswer, Session
from solarwind.testing.contract import on_loop, until

from .servers import NatsServer

FIRED = 60


@pytest.mark.parametrize("lost", ["", "question", "answer"])
@on_loop
async def test_what_waits_to_be_copied_travels_together_each_once_and_in_order(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, lost: str
) -> None:
    """Also where a message to NATS or its answer is lost. An event with an id of its own is a message of its own."""
    copies: list[int] = []  # messages stored together, of each question
    lose = [lost]
    copy, publish_together = _Copier._copy, Session.publish_together

    async def copying_late(self: _Copier) -> None:
        if not copies:
            await until(lambda: sum(len(each.batch) for each in self.waiting) == FIRED)
        copies.append(0)
        await copy(self)

    async def losing(self: Session, messages: list[Any]) -> int:
        copies[-1] = len(messages)
        what = lose.pop() if lose else ""
        if what == "question":
            raise NoAnswer("it was lost")
        found = await publish_together(self, messages)
        if what == "answer":
            raise NoAnswer("it was lost")
        return found

    monkeypatch.setattr(_Copier, "_copy", copying_late)
    monkeypatch.setattr(Session, "publish_together", losing)
    wind = SolarWind(server.url(namespace, streams=1))
    handled: list[int] = []

    @wind.on("parents", purpose="p")
    async def parent(number: int) -> None:
        wind.fire("children", number, id=f"own-{number}" if number == FIRED // 2 else None)

    @wind.on("children", purpose="p", concurrency=1)
    async def child(number: int) -> None:
        handled.append(number)

    async with wind:
        for number in range(FIRED):
            await wind.fire("parents", number)
            await until(lambda number=number: _settled(wind, number + 1))
        await until(lambda: len(handled) >= FIRED)
        await wind.settled(60)
        assert handled == list(range(FIRED))
        assert (await wind.statistics()).topics["children"].fired == FIRED
    assert len(copies) < FIRED / 4
    assert max(copies) > FIRED / 4


async def _settled(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["parents", "p"].settled == count
