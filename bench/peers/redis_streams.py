"""Redis Streams by hand: a consumer group, pipelined by the producer. Run it, and it is a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import redis

from peers import job

STREAM, GROUP = "bench.job", "workers"
READ = 10  # entries that a worker has in hand
PIPELINE = 500

client = redis.Redis.from_url(os.environ["BENCH_URL"])


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "peers.redis_streams"]] * workers


async def prepare() -> None:
    client.xgroup_create(STREAM, GROUP, mkstream=True)


async def connect() -> None:
    client.ping()


async def enqueue(numbers: Sequence[int]) -> None:
    for at in range(0, len(numbers), PIPELINE):
        pipeline = client.pipeline(transaction=False)
        for number in numbers[at : at + PIPELINE]:
            pipeline.xadd(STREAM, {"number": number})
        pipeline.execute()


async def close() -> None:
    client.close()


def work() -> None:
    name = str(os.getpid())
    while True:
        for _, entries in client.xreadgroup(GROUP, name, {STREAM: ">"}, count=READ, block=1000):
            for _, fields in entries:
                job.done(int(fields[b"number"]))
            client.xack(STREAM, GROUP, *[id for id, _ in entries])


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        work()
