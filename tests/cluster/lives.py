"""A process on a cluster that tests do things to: `python -m cluster.lives MODE URL FILE NAME`, in the folder `tests`.

It appends what it does to FILE, line by line, each in one write; times are of the clock that all processes share.

    accepted TOPIC NUMBER TIME              all of its events on TOPIC up to NUMBER, without that one
    handled PURPOSE TOPIC FROM NUMBER TIME  a handler has event NUMBER on TOPIC of producer FROM
    confirmed PURPOSE TOPIC FROM NUMBER TIME

A service is an owner too, as every process is that has handlers.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import sys
from collections.abc import Coroutine
from time import monotonic
from typing import Any

import uvloop

from solarwind import Event, Retry, SolarWind
from solarwind.core.effects import Join, Offer, Report
from solarwind.core.spans import Spans
from solarwind.errors import SolarWindError
from solarwind.event import HandOut

TOPICS = ("orders", "bills")  # each is in another partition than the other, and than CHILDREN
CHILDREN = "clicks"
STREAMS = 3
KEYS = 10
AGAIN = Retry(attempts=1_000_000, wait=0.0)
TOGETHER = 5  # events fired on each topic
PAUSE_S = 0.04
WORK_S = 0.002  # that a handler takes: so there is always something in its hands


class Life:
    def __init__(self, url: str, file: str, name: str) -> None:
        self.wind = SolarWind(url)
        self.name = name
        self.asked = asyncio.Event()  # to stop
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, *words: object) -> None:
        os.write(self._file, f"\n{' '.join(map(str, (*words, monotonic())))} .\n".encode())

    async def produce(self) -> None:
        """Fire [name, number] with one of some keys on each topic, at a pace; note how many are accepted."""
        async with self.wind:
            await asyncio.gather(*map(self._fire, TOPICS))

    async def _fire(self, topic: str) -> None:
        number = 0
        while not self.asked.is_set():
            fired = [[self.name, each] for each in range(number, number + TOGETHER)]
            await self.wind.fire_many(topic, fired, key=lambda each: f"{each[0]}.{each[1] % KEYS}")
            number += TOGETHER
            self.note("accepted", topic, number)
            try:
                await asyncio.wait_for(self.asked.wait(), PAUSE_S)
            except TimeoutError:
                pass

    async def serve(self) -> None:
        """Handle for four purposes of each topic, and for one of what the handlers of `chain` fire."""
        wind = self.wind

        async def handle(event: Event) -> None:
            self.note("handled", event.purpose, event.topic, *event.payload)
            await asyncio.sleep(WORK_S)

        async def chain(event: Event) -> None:
            await handle(event)
            producer, number = event.payload
            wind.fire(CHILDREN, [f"{event.topic}/{producer}", number])

        options: dict[str, Any] = {"since": "beginning", "retry": AGAIN}
        for topic in TOPICS:
            wind.on(topic, purpose="direct", **options)(handle)
            wind.on(topic, purpose="keyed", exchange="keyed", **options)(handle)
            wind.on(topic, purpose="chain", **options)(chain)
        wind.on(CHILDREN, purpose="child", **options)(handle)
        async with wind:
            for topic in TOPICS:
                await wind.engine.join(Join(topic, "confirmed", retry=AGAIN), "beginning", Confirming(self))
            await self.asked.wait()


class Confirming:
    """A service that settles as the doors of a server do: it waits until its settles are durable. See `Receiver`."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._tasks: set[asyncio.Task[None]] = set()

    def told(self, text: str) -> None: ...

    def deliver(self, offer: Offer) -> None:
        self._spawn(self._handle(offer))

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _handle(self, offer: Offer) -> None:
        stored, life = offer.stored, self._life
        hand_out = HandOut(stored.batch, stored.start, "confirmed")
        events = [Event(hand_out, position - stored.start) for position in offer.picks]
        for event in events:
            life.note("handled", "confirmed", event.topic, *event.payload)
        await asyncio.sleep(WORK_S)
        done = Spans.of(offer.picks)
        report = Report(offer.instance, offer.lease, done, handled=len(events), busy_ns=int(WORK_S * 1e9))
        try:
            counts = await life.wind.engine.settle(report)
        except SolarWindError:
            return  # nobody knows: it may come again
        if counts:
            for event in events:
                life.note("confirmed", "confirmed", event.topic, *event.payload)

    def flush(self) -> None:
        """Do nothing: each offer is handled at once."""

    def lost(self, lease: int | None = None) -> None:
        """Do nothing: its settles will not count."""

    def close(self, reason: str) -> None:
        """Do nothing: no more offers come."""


async def live(mode: str, url: str, file: str, name: str) -> None:
    life = Life(url, file, name)
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, life.asked.set)
    await getattr(life, mode)()


def main() -> None:
    logging.basicConfig(level=os.environ.get("LOG", "WARNING"), format="%(asctime)s %(levelname)s %(message)s")
    uvloop.run(live(*sys.argv[1:]))


if __name__ == "__main__":
    main()
