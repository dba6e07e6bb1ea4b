"""A process with a store of its own, which delays events as it is told: `python delaying.py STORE FILE`.

A line on stdin is a number and when it is due, in ns since 1970: once it is durable that is noted in FILE, a line each,
and what is handled with the time.
"""

from __future__ import annotations

import asyncio
import os
import sys
import time

from solarwind import Event, SolarWind
from solarwind.batch import seal


async def main(store: str, file: str) -> None:
    notes, loop = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644), asyncio.get_running_loop()
    wind = SolarWind(f"sqlite:///{store}")

    def note(*words: object) -> None:
        os.write(notes, (" ".join(map(str, words)) + "\n").encode())

    @wind.on("T", purpose="p", concurrency=20)
    async def handle(event: Event) -> None:
        note("handled", event.payload, time.time_ns())

    async with wind:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            number, due = map(int, line.split())
            made = {"producer": 1, "first": number, "machine": "m", "process": "p", "due": [due]}
            await wind._engine.submit(seal("T", [b"%d" % number], [time.time_ns()], **made))
            note("delayed", number)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
