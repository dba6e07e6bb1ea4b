"""taskiq on a Redis stream, the broker that acknowledges. No result is kept."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Sequence

from taskiq_redis import RedisStreamBroker

from peers import job

TOGETHER = 100  # that are enqueued at a time

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
    for at in range(0, len(numbers), TOGETHER):
        await asyncio.gather(*(do.kiq(number) for number in numbers[at : at + TOGETHER]))


async def close() -> None:
    await broker.shutdown()
