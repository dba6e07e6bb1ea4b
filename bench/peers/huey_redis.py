"""huey on Redis, with a process for each worker. No result is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from huey import RedisHuey

from peers import job

huey = RedisHuey("bench", url=os.environ["BENCH_URL"], results=False)


@huey.task()
def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    consumer = ["peers.huey_redis.huey", "--workers", str(workers), "--worker-type", "process", "--quiet"]
    return [[sys.executable, "-m", "huey.bin.huey_consumer", *consumer]]


async def connect() -> None:
    pass


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        do(number)


async def close() -> None:
    pass
