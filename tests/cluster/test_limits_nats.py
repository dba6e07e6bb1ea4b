"""The limits of purposes on `nats://`, where two nodes own one partition each and have instances of both purposes."""

from __future__ import annotations

import asyncio
from typing import Any

from solarwind import Event, SolarWind
from solarwind.cluster.engine import NatsEngine
from solarwind.testing.contract import on_loop, until

from .processes import one_of_each
from .servers import NatsServer

COUNT = 16
TOPICS = one_of_each(2)


class Handlers:
    """Handlers of two purposes in one node, which are counted with the other's."""

    def __init__(self, wind: SolarWind, at_work: dict[str, int], highest: dict[str, int], handled: list[Any]) -> None:
        self._at_work, self._highest, self._handled = at_work, highest, handled
        for topic in TOPICS:
            wind.on(topic, purpose="p", at_most=2, rate="40/s", concurrency=10)(self.handle)

    async def handle(self, event: Event) -> None:
        topic = event.topic
        self._at_work[topic] = self._at_work.get(topic, 0) + 1
        self._highest[topic] = max(self._highest.get(topic, 0), self._at_work[topic])
        for _ in range(20):  # others would have their turn, if more might be in flight
            await asyncio.sleep(0.001)
        self._at_work[topic] -= 1
        self._handled.append((topic, event.payload, self))


@on_loop
async def test_the_limits_of_purposes_hold_over_instances_in_two_nodes_that_own_one_of_them_each(
    server: NatsServer, namespace: str
) -> None:
    url, loop = server.url(namespace, streams=2), asyncio.get_running_loop()
    at_work, highest, handled = dict[str, int](), dict[str, int](), list[Any]()
    engines = [NatsEngine(url) for _ in range(2)]
    one, other = (SolarWind(engine=engine) for engine in engines)
    for wind in (one, other):
        Handlers(wind, at_work, highest, handled)
    async with one, other:
        await until(lambda: all(len(engine._owners.mine) == 1 for engine in engines), "each node to own a partition")
        began = loop.time()
        for topic in TOPICS:
            await one.fire_many(topic, range(COUNT))
        await one.settled(60)
        took = loop.time() - began
    expected = [(topic, number) for topic in TOPICS for number in range(COUNT)]
    assert sorted((topic, number) for topic, number, _ in handled) == sorted(expected)
    assert highest == dict.fromkeys(TOPICS, 2)
    assert len({handlers for *_, handlers in handled}) == 2, "both nodes had some"
    assert took > (COUNT - 4) * 0.025 - 0.02
