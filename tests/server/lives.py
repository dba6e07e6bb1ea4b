"""A process at a server that tests do things to: `python lives.py MODE URL FILE NAME [ARGUMENT...]`.

It appends what it does to FILE, line by line, each in one write; times are of the clock that all processes share.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from time import monotonic
from typing import Any

import uvloop

from solarwind import Event, Retry, Share, SolarWind

AGAIN = Retry(attempts=1_000_000, wait=0.0)
KEYS = 20
TOGETHER = 20  # events fired
PAUSE_S = 0.005


class Life:
    def __init__(self, url: str, file: str, name: str, arguments: list[str]) -> None:
        self.wind = SolarWind(url)
        self.name = name
        self.arguments = arguments
        self._file = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    def note(self, *words: object) -> None:
        os.write(self._file, f"\n{' '.join(map(str, words))} .\n".encode())

    async def produce(self) -> None:
        """Fire [name, number] with one of some keys, at a pace, until told to stop; note how many are accepted."""
        asked = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, asked.set)
        number = 0
        async with self.wind as wind:
            while not asked.is_set():
                fired = [[self.name, number + each] for each in range(TOGETHER)]
                await wind.fire_many("T", fired, key=lambda each: f"{self.name}.{each[1] % KEYS}")
                number += TOGETHER
                self.note("accepted", number, monotonic())
                try:
                    await asyncio.wait_for(asked.wait(), PAUSE_S)
                except TimeoutError:
                    pass

    def handle(self) -> None:
        """Run a service of three purposes, each with another exchange."""
        wind = self.wind

        def note(event: Event) -> None:
            producer, number = event.payload
            self.note(event.purpose, producer, number, monotonic())

        wind.on("T", purpose="direct", since="beginning", retry=AGAIN)(note)
        wind.on("T", purpose="keyed", exchange="keyed", since="beginning", retry=AGAIN)(note)
        wind.on("T", purpose="fanout", exchange="fanout")(note)
        wind.run()

    def dawdle(self) -> None:
        """Handle one event at a time, each until a line is read from stdin; what it fires then is its own doing."""
        wind = self.wind
        lease = float(self.arguments[0])

        @wind.on("T", purpose="p", lease=lease, concurrency=1, retry=AGAIN)
        async def handle(number: int) -> None:
            self.note("begun", number)
            await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
            wind.fire("child", [self.name, number])
            self.note("ended", number)

        wind.run()

    def steady(self) -> None:
        """Handle one event at a time, 5 ms each."""
        wind = self.wind

        @wind.on("T", purpose="p", lease=float(self.arguments[0]), concurrency=1, retry=AGAIN)
        async def handle(event: Event) -> None:
            self.note(event.payload)
            await asyncio.sleep(0.005)

        wind.run()

    def keyed(self) -> None:
        """Handle events key by key with two instances, and note where two of a key are handled at a time."""
        wind = self.wind
        running: set[str] = set()

        async def handle(event: Event) -> None:
            key = event.key or ""
            self.note("overlap" if key in running else "begun", event.payload)
            running.add(key)
            await asyncio.sleep(0.02)
            running.discard(key)
            self.note("ended", event.payload)

        for _ in range(2):
            wind.on("T", purpose="p", exchange="keyed", since="beginning", retry=AGAIN)(handle)
        wind.run()

    def limited(self) -> None:
        """Handle what the limits of the first version allow; the other has a share, and states more."""
        wind, version = self.wind, int(self.arguments[0])
        states: dict[str, Any] = (
            {"rate": "40/s", "at_most": 2} if version == 1 else {"rollout": Share(0.3), "at_most": 9}
        )

        @wind.on("T", purpose="p", version=version, since="beginning", retry=AGAIN, **states)
        async def handle(event: Event) -> None:
            self.note("begun", event.payload, monotonic())
            await asyncio.sleep(0.06)
            self.note("ended", event.payload, monotonic())

        wind.run()

    def die(self) -> None:
        """Handle ten events at once, and be killed by one of them."""
        wind = self.wind

        @wind.on("T", purpose="p", since="beginning", retry=Retry(attempts=3, wait=0.0))
        async def handle(event: Event) -> None:
            self.note(event.payload, event.attempt)
            if event.payload == "poison":
                os.kill(os.getpid(), signal.SIGKILL)

        wind.run()


def main() -> None:
    mode, url, file, name, *arguments = sys.argv[1:]
    work = getattr(Life(url, file, name, arguments), mode)()
    if work is not None:
        uvloop.run(work)


if __name__ == "__main__":
    main()
