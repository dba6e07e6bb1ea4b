"""taskiq on a Redis stream, the broker that acknowledges. No result is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from taskiq_redis import RedisStreamBroker

from peers import job

broker = RedisStreamBroker(url=os.environ["BENCH_URL"])


@broker.task
async def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    worker = ["peers.taskiq_redis_stream:broker", "--workers", str(workers), "--log-level", "WARNING"]
    return [[sys.executable, "-m", "taskiq", "worker", *worker]]


async def connect() -> None:
    await broker.startup()


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:  # a hundred at a time, each with a connection of its own, came out three times slower
        await do.kiq(number)


async def close() -> None:
    await broker.shutdown()
