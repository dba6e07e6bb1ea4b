"""Questions, and waiting, when what was accepted has not been read by its owner yet."""

from __future__ import annotations

import pytest

from solarwind import SolarWind
from solarwind.cluster import tail
from solarwind.testing.contract import on_loop

from .processes import one_of_each
from .servers import NatsServer

pytestmark = pytest.mark.usefixtures("late")


@on_loop
async def test_a_question_knows_what_any_process_had_accepted_before(server: NatsServer, namespace: str) -> None:
    """Also where the first event of a partition was just accepted."""
    url = server.url(namespace, streams=2)
    async with SolarWind(url) as firing, SolarWind(url) as asking:
        for topic in one_of_each(2):
            id = await firing.fire(topic, 1)
            assert (await asking.statistics()).topics[topic].fired == 1
            assert (await asking.event(topic, id)).event.payload == 1


@on_loop
async def test_settled_knows_what_was_accepted_after_a_change_of_owner(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tail, "HEARTBEAT_S", 0.2)  # after which a reader asks what is missing: nothing may be
    handled: list[int] = []

    async def handle(number: int) -> None:
        handled.append(number)

    for number in range(4):
        wind = SolarWind(server.url(namespace, streams=1))
        wind.on("T", purpose="p")(handle)
        async with wind:
            await wind.joined()
            await wind.fire("T", number)
            await wind.settled(60)
            assert handled == list(range(number + 1))
