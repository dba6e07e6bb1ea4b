"""Whoever does not keep up waits, and nobody else does: a slow consumer costs the server little, and a producer that is
too fast is slowed."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable
from contextlib import suppress

import pytest

from solarwind import Busy, Event, SolarWind, wire
from solarwind.limits import Limits
from solarwind.testing.contract import on_loop, until

from .peers import batch, talker
from .resident import least_growth
from .serving import Serving
from .test_time_slices import here

TOGETHER = 2_000
PAYLOAD = b"x" * 300
MAX_GROWTH = 6 << 20  # of the server while 40,000 are fired, whose payloads alone have 12 MB


@pytest.mark.long
@on_loop
async def test_consumers_that_do_not_keep_up_cost_the_server_and_the_others_nothing(
    serving: Callable[..., Serving],
) -> None:
    """One whose handler takes its time, and one that reads nothing at all, for two purposes: all is pending for them,
    the server hardly grows, and others get everything."""
    server = serving("--heartbeat-s", 60)
    await server.start()
    gate = asyncio.Event()
    handled = 0
    producer, slow, steady = (SolarWind(server.url) for _ in range(3))

    @slow.on("T", purpose="slow")
    async def dawdle(event: Event) -> None:
        await gate.wait()

    @steady.on("T", purpose="steady")
    async def count(event: Event) -> None:
        nonlocal handled
        handled += 1

    async with producer, slow, steady, talker(server.port, max_queue=1) as deaf:
        await deaf.hello()
        await deaf.join(1, "T", "deaf", room=10_000)
        await deaf.join(2, "T", "deaf too", exchange="fanout", room=10_000)
        fired = 0

        async def fire_more() -> None:
            nonlocal fired
            for _ in range(20):
                await producer.fire_many("T", [PAYLOAD] * TOGETHER)
                fired += TOGETHER
            await until(lambda: handled == fired)

        await fire_more()
        assert await least_growth(server.pid, fire_more, MAX_GROWTH) < MAX_GROWTH
        purposes = (await producer.statistics()).purposes
        left = {name: purposes["T", name].pending + purposes["T", name].in_flight for name in ("slow", "deaf")}
        assert left == {"slow": fired, "deaf": fired}
        assert purposes["T", "deaf too"].dropped > fired // 2
        gate.set()


@pytest.mark.long
@on_loop
async def test_a_producer_that_is_too_fast_is_refused_at_its_own_limit_and_loses_nothing(
    serving: Callable[..., Serving],
) -> None:
    """It is refused at its own limit and only there; all that it fired before is accepted. If it awaits, it is just as
    slow as the server is."""
    server = serving()
    await server.start()
    async with SolarWind(server.url, limits=Limits(unaccepted_bytes=4 << 20)) as wind:
        server.send(signal.SIGSTOP)
        fired = 0
        with suppress(Busy):
            while fired < 100_000:
                wind.fire("T", PAYLOAD)
                fired += 1
                if not fired % 1_000:
                    await asyncio.sleep(0)
        assert (4 << 20) // (len(PAYLOAD) + 160) < fired < (4 << 20) // len(PAYLOAD), "events are counted, too"
        server.send(signal.SIGCONT)
        await wind.settled(60)
        for _ in range(50):
            await wind.fire_many("T", [PAYLOAD] * TOGETHER)
        assert (await wind.statistics()).topics["T"].fired == fired + 50 * TOGETHER


@on_loop
async def test_what_is_offered_of_a_batch_travels_with_the_word_that_it_is_accepted() -> None:
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        await made.join(1, "t", "p", room=10)
        await made.say(wire.Submit(made.ref, batch("t").data))
        data = await made.socket.recv()
        assert isinstance(data, bytes)
        assert sorted(type(each).__name__ for each in wire.read_server(data)) == ["Accepted", "Offer"]
