"""What is true while messages are on their way: nobody may count on what was sent having come."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from solarwind import SolarWind
from solarwind.cluster import tail
from solarwind.testing.contract import EngineContract, on_loop

from .place import NatsPlace
from .processes import one_of_each
from .servers import NatsServer


@pytest.mark.usefixtures("late")
@on_loop
async def test_a_question_knows_what_any_process_had_accepted_before(server: NatsServer, namespace: str) -> None:
    """Also where the first event of a partition was just accepted."""
    url = server.url(namespace, streams=2)
    async with SolarWind(url) as firing, SolarWind(url) as asking:
        for topic in one_of_each(2):
            id = await firing.fire(topic, 1)
            assert (await asking.statistics()).topics[topic].fired == 1
            assert (await asking.event(topic, id)).event.payload == 1


@pytest.mark.usefixtures("late")
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


@pytest.mark.usefixtures("slow")
class TestInstances:
    @pytest.fixture
    def place(self, server: NatsServer) -> Iterator[NatsPlace]:
        place = NatsPlace(server)
        yield place
        place.close()

    test_what_is_on_its_way_to_an_instance_that_leaves_is_given_back = (
        EngineContract.test_an_instance_that_leaves_gives_back_what_it_did_not_start
    )
