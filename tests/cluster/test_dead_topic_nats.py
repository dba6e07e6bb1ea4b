"""`solarwind.dead` on `nats://`, where its partition and those of other topics have different owners."""

from __future__ import annotations

import pytest

from solarwind import Dead, Event, NotFound, SolarWind
from solarwind.cluster.address import NamespaceSettings
from solarwind.cluster.engine import NatsEngine
from solarwind.cluster.layout import Layout
from solarwind.failure import Retry
from solarwind.names import DEAD
from solarwind.testing.contract import on_loop, until

from .processes import one_of_each
from .servers import NatsServer


@on_loop
async def test_deaths_in_every_partition_are_told_while_a_purpose_hears_of_them(
    server: NatsServer, namespace: str
) -> None:
    url, topics = server.url(namespace, streams=2), one_of_each(2)
    assert Layout("any", NamespaceSettings(streams=2)).partition(DEAD) in (0, 1)
    engines = [NatsEngine(url) for _ in range(2)]
    one, other = (SolarWind(engine=engine) for engine in engines)
    heard: list[tuple[str, str]] = []

    async def fail(event: Event) -> None:
        raise ValueError(str(event.payload))

    for topic in topics:
        for wind in (one, other):
            wind.on(topic, purpose="p", retry=Retry(attempts=1))(fail)

    async def hear(dead: Dead) -> None:
        heard.append((dead.topic, dead.error))

    async with one, other:
        await until(lambda: all(len(engine._owners.mine) == 1 for engine in engines), "each node to own a partition")
        for topic in topics:
            await one.fire(topic, "unheard")
        await one.settled(60)
        with pytest.raises(NotFound):
            await one.events(DEAD)
        other.on(DEAD, purpose="ops")(hear)
        await other.joined()
        owners = [owner for engine in engines for owner in engine._owners.mine.values()]
        dispatchers = [owner.engine._dispatcher for owner in owners]
        await until(lambda: all(each.deaths.heard_elsewhere for each in dispatchers), "all owners to know")
        for topic in topics:
            await one.fire(topic, "heard")
        expected = sorted((topic, "ValueError: heard") for topic in topics)
        await until(lambda: sorted(heard) == expected, "both deaths to be told")
        await other.off(hear)
        await other.retire(DEAD, "ops")
        await until(lambda: not any(each.deaths.heard_elsewhere for each in dispatchers), "all owners to know")
