"""A purpose's own delay at a server: in requests of each kind, and over `kill -9`."""

from __future__ import annotations

import asyncio
import re
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from time import time_ns
from typing import Any

import httpx
import pytest

from solarwind import Event, SolarWind
from solarwind.testing.contract import on_loop, until

from .serving import Serving

DELAY_S = 3.0
EVENTS = 60


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Serving]:
    """One that is not started yet, and is killed in the end."""
    serving = Serving(tmp_path, "--webhook-network=127.0.0.0/8")
    yield serving
    serving.kill()


@pytest.mark.long
@on_loop
async def test_a_server_that_is_killed_while_events_wait_for_a_delay_makes_none_early_and_loses_none(
    server: Serving,
) -> None:
    await server.start()
    waited: dict[int, list[float]] = {}
    copied: Counter[int] = Counter()
    now: list[int] = []
    async with SolarWind(server.url) as wind:

        @wind.on("T", purpose="late", delay=DELAY_S, concurrency=1)
        async def late(event: Event) -> None:
            waited.setdefault(event.payload, []).append((time_ns() - event.time_ns) / 1e9)

        @wind.on("T", purpose="copies", exchange="fanout", delay=DELAY_S)
        async def copies(event: Event) -> None:
            copied[event.payload] += 1

        @wind.on("T", purpose="now")
        async def at_once(event: Event) -> None:
            now.append(event.payload)

        await wind.joined()
        for number in range(EVENTS):
            await wind.fire("T", number)
            if number in (20, 40):
                await server.end(signal.SIGKILL)
                await server.start()
            await asyncio.sleep(0)
        await until(lambda: len(waited) == EVENTS and set(now) == set(range(EVENTS)))
        await wind.settled(120)
    assert list(waited) == list(range(EVENTS)), "in the order accepted"
    assert min(first for first, *_ in waited.values()) >= DELAY_S
    assert set(copied) <= set(range(EVENTS))
    assert set(copied.values()) == {1}
    assert server.complaints() == ""


@on_loop
async def test_takers_feeds_and_webhooks_state_a_delay_and_contradict_none(server: Serving) -> None:
    await server.start()
    base = f"http://127.0.0.1:{server.port}/v1/topics/T/purposes"
    async with httpx.AsyncClient() as client, SolarWind(server.url) as wind:

        async def delay_of(purpose: str) -> float:
            return (await wind.statistics()).purposes["T", purpose].delay

        taken = await client.post(f"{base}/p/take", json={"delay": "1h"})
        assert (taken.status_code, taken.json()) == (200, {"events": []})
        assert await delay_of("p") == 3600.0
        refused = await client.post(f"{base}/p/take", json={"delay": 60})
        assert refused.status_code == 409
        assert "stated exchange 'direct' with delay=3600, this instance states" in refused.json()["detail"]
        hook = {"url": "http://127.0.0.1:9/", "delay": 90, "handshake": False}
        assert (await client.put(f"{base}/q/webhooks/hook", json=hook)).is_success
        assert await delay_of("q") == 90.0
        feed = f"http://127.0.0.1:{server.port}/v1/topics/T/feed"
        async with client.stream("GET", feed, params={"purpose": "r", "delay": "2m"}) as reading:
            assert reading.status_code == 200
            assert await delay_of("r") == 120.0
        bad: list[tuple[Any, str]] = [
            (-1, "got '?-1"),
            ("4000d", "from 0 to ten years, got "),
            ("soon", "expected delay as seconds, or as a duration such as 30s, 5m, 12h or 7d, .* got 'soon'"),
        ]
        for delay, words in bad:
            for answer in (
                await client.post(f"{base}/s/take", json={"delay": delay}),
                await client.put(f"{base}/s/webhooks/hook", json=hook | {"delay": delay}),
                await client.get(feed, params={"purpose": "s", "delay": delay}),
            ):
                assert answer.status_code == 400
                assert re.search(words, answer.json()["detail"])
        assert (await client.get(f"{base}/s")).status_code == 404
