"""Somebody's services at a server, for the console to look at: `python world.py URL [friendly]`.

It has one of each: purposes of all exchanges and states, two versions and a shadow, failures, chains of causes, delayed
events, schedules, and names and payloads that would be harmful in a page that took them for markup. It says "ready"
once all of that is there, and goes on with traffic until its input ends. A friendly one has nothing harmful in it.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from solarwind import Event, Retry, SolarWind

HARMFUL = (
    "<img src=x onerror=alert(1)>",
    "<script>alert(1)</script>",
    "javascript:alert(1)",
    '"><svg onload=alert(1)>',
    "{{constructor.constructor('alert(1)')()}}",
    "__proto__",
    "&lt;b&gt;",
    "\u202egnp.exe\u202c",
    "שלום/with a slash?#%2F",
)
LONG_TOPIC = ".".join(["a" * 19] * 10)
LONG_PURPOSE = "לשלוח " * 20 + "W" * 80  # from right to left, and a word that is wider than a phone
BIG = 12345678901234567890123456789
TICK_S = 0.1


def declare(wind: SolarWind) -> None:
    """State all purposes."""

    @wind.on("video.uploaded", purpose="Encode video to MP4", concurrency=4)
    async def encode(video: dict[str, Any]) -> None:
        await asyncio.sleep(0.01)
        wind.fire("video.encoded", {"name": video["name"], "format": "mp4"})

    @wind.on("video.uploaded", purpose="Make thumbnail", retry=Retry(attempts=1))
    async def thumbnail(video: dict[str, Any]) -> None:
        if video["number"] % 9 == 0:
            raise ValueError(f"no frames in video {video['number']}")

    @wind.on("video.uploaded", purpose="Count per user", exchange="keyed")
    async def count(event: Event) -> None:
        await asyncio.sleep(0)

    @wind.on("video.encoded", purpose="Publish", version=1)
    async def publish(event: Event) -> None:
        wind.fire("video.published", event.payload)

    @wind.on("order.placed", purpose="Ask how it was", delay="7d")
    async def ask(event: Event) -> None:
        pass

    @wind.on("video.published", purpose="Live page", exchange="fanout")
    async def show(event: Event) -> None:
        pass


def declare_harmful(wind: SolarWind) -> None:
    """State purposes whose names and errors are harmful, or long."""

    @wind.on(LONG_TOPIC, purpose=LONG_PURPOSE, retry=Retry(attempts=1))
    async def refuse(event: Event) -> None:
        raise RuntimeError("E" * 300)

    @wind.on("hostile", purpose=HARMFUL[0], retry=Retry(attempts=1))
    async def fail(event: Event) -> None:
        raise RuntimeError(HARMFUL[1])


def declare_next(wind: SolarWind) -> None:
    """State a shadow of a purpose that is there."""

    @wind.on("video.encoded", purpose="Publish", version=2, rollout="shadow")
    async def publish(event: Event) -> None:
        if event.payload["name"].endswith("7.mov"):
            raise ValueError("cannot publish a 7\n    For further information see elsewhere")
        wind.fire("video.published", event.payload)

    @wind.on("report.due", purpose="Send report")
    async def send(event: Event) -> None:
        pass


async def prepare(wind: SolarWind, friendly: bool) -> None:
    """Fire what the pages are looked at with."""
    wind.every("30 2 * * *", "report.due", {"of": "day"}, name="nightly", zone="Europe/Berlin")
    for number, text in enumerate(() if friendly else HARMFUL):
        wind.fire("hostile", {text: text, "list": [text]}, key=text, id=f"harm-{number}")
    await wind.fire("shapes", {"exact": BIG, "small": 0.1, "nested": {"a": [1, {"b": None}]}}, id="exact")
    await wind.fire("shapes", b"\x00\x01\xff" * 200, id="binary")
    await wind.fire("shapes", {f"key {number}": number for number in range(10_000)}, id="many")
    await wind.fire("shapes", "x" * 1_000_000, id="large")
    if not friendly:
        await wind.fire(LONG_TOPIC, {"K" * 200: "V" * 500}, key="k" * 200, id="i" * 200)
    await wind.fire("waiting.room", {"number": 1}, id="waits")
    await wind.fire("order.placed", {"number": 1}, id="placed")
    await wind.fire("reminder.due", "call", id="later-1", after=3_600)
    await wind.fire("reminder.due", "write", id="later-2", after=7_200)
    await wind.fire("video.uploaded", {"name": "first.mov", "number": 1}, id="first", key="ann")


async def main(url: str, friendly: str = "") -> None:
    wind, later = SolarWind(url), SolarWind(url)
    declare(wind)
    if not friendly:
        declare_harmful(wind)
    declare_next(later)
    async with wind:
        await wind.joined()
        async with later:
            await later.joined()
            idle = SolarWind(url)
            idle.on("waiting.room", purpose="Seat guests")(lambda number: None)
            async with idle:
                await idle.joined()
            await prepare(wind, bool(friendly))
            print("ready", flush=True)
            over = asyncio.get_running_loop().run_in_executor(None, sys.stdin.read)
            number = 1
            while not over.done():
                number += 1
                wind.fire("video.uploaded", {"name": f"{number}.mov", "number": number}, key=f"user {number % 7}")
                await asyncio.wait([over], timeout=TICK_S)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
