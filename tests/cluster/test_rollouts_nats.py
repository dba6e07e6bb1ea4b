"""Versions side by side on `nats://` under load, while owners and instances die."""

from __future__ import annotations

import asyncio

import pytest

from solarwind import SolarWind
from solarwind.testing.contract import on_loop, until
from solarwind.testing.rules.rollouts import states

from .processes import Process, process
from .servers import NatsServer

KEYS = 40


async def fire_until(wind: SolarWind, over: asyncio.Event) -> int:
    """Fire one number after the other; return how many."""
    number = 0
    while not over.is_set():
        await wind.fire("T", number, key=f"k{number % KEYS}")
        number += 1
        await asyncio.sleep(0.002)
    return number


async def handle_on(*versions: Process) -> None:
    """Wait until each of these handles what is fired from now on."""
    counts = [len(version.handled()) for version in versions]

    def all_do() -> bool:
        return all(len(each.handled()) > count + KEYS for each, count in zip(versions, counts, strict=True))

    await until(all_do, "both versions to go on")


@pytest.mark.long
@on_loop
async def test_a_ramp_goes_on_when_its_owner_is_killed_and_the_older_version_when_all_of_the_newer_are(
    server: NatsServer, namespace: str
) -> None:
    """Under load, from a tenth to a half: no event counts twice, none is lost, and each key is in order."""
    url = server.url(namespace, streams=1)
    life = {"topics": ["T"], "exchange": "keyed", "fires": "Done", "lease": 3}
    async with process(url, topics=["U"]) as owner, process(url, **life) as old, SolarWind(url) as firing:
        async with process(url, version=2, rollout=0.1, **life) as new:
            firing.topic("Done", keep=3600)
            over = asyncio.Event()
            fire = asyncio.create_task(fire_until(firing, over))
            await handle_on(old, new)
            await firing.share("T", "p", 2, 0.5)
            await owner.kill()
            await handle_on(old, new)
            assert states(await firing.rollout("T", "p")) == {1: "current", 2: "ramping 50 %"}
            its = {int(each.payload) % KEYS for each in new.handled()}
            assert 0 < len(its) < KEYS
            await new.kill()
            first = max(int(each.payload) for each in new.handled()) + 1

            def has_taken_over() -> bool:
                fresh = [int(each.payload) for each in old.handled()]
                return its <= {number % KEYS for number in fresh if number >= first}

            await until(has_taken_over, "version 1 to handle the keys that version 2 had")
            over.set()
            fired = await fire

            async def settled() -> bool:
                found = await firing.statistics()
                counts = found.purposes["T", "p"]
                assert found.topics["Done"].fired <= fired, "what a handler fired counts twice"
                return (counts.settled, counts.pending, found.topics["Done"].fired) == (fired, 0, fired)

            await until(settled, "all to be settled, and what their handlers fired to be there")
            handled = sorted(old.handled() + new.handled())
    for key in range(KEYS):
        firsts = list(dict.fromkeys(int(each.payload) for each in handled if int(each.payload) % KEYS == key))
        assert firsts == list(range(key, fired, KEYS))
