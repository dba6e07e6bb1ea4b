"""dramatiq on Redis, with a process for each worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

import dramatiq
from dramatiq.brokers.redis import RedisBroker

from peers import job

broker = RedisBroker(url=os.environ["BENCH_URL"])
dramatiq.set_broker(broker)


@dramatiq.actor
def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "dramatiq", "peers.dramatiq_redis", "--processes", str(workers), "--threads", "1"]]


async def connect() -> None:
    pass


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        do.send(number)


async def close() -> None:
    broker.close()
