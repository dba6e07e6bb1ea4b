"""Solar Wind: `run --workers` on a server."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from harness import WINDOW, Pace
from peers import job
from solarwind import SolarWind

TOPIC = "bench.job"

wind = SolarWind(os.environ["BENCH_URL"])
_producer = SolarWind(os.environ["BENCH_URL"])


@wind.on(TOPIC, purpose="Do the job")
async def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "solarwind", "run", "peers.wind:wind", "--workers", str(workers)]]


async def prepare() -> None:
    async with wind:  # from then on the purpose exists, and its events pend
        await wind.joined()


async def connect() -> None:
    await _producer.start()


async def enqueue(numbers: Sequence[int]) -> None:
    pace = Pace()
    for at in range(0, len(numbers), WINDOW):
        for number in numbers[at : at + WINDOW]:
            receipt = _producer.fire(TOPIC, number)
        await pace.next(receipt)
    await pace.end()


async def close() -> None:
    await _producer.stop()
