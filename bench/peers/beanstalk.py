"""beanstalkd by hand, with greenstalk. Run it, and it is a worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import suppress

import greenstalk

from peers import job


def client() -> greenstalk.Client:
    host, _, port = os.environ["BENCH_URL"].removeprefix("beanstalk://").rpartition(":")
    return greenstalk.Client((host, int(port)))


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "peers.beanstalk"]] * workers


_producer: list[greenstalk.Client] = []


async def connect() -> None:
    _producer.append(client())


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        _producer[0].put(str(number))


async def close() -> None:
    _producer.pop().close()


def work() -> None:
    with client() as consumer:
        while True:
            reserved = consumer.reserve()
            job.done(int(reserved.body))
            consumer.delete(reserved)


if __name__ == "__main__":
    with suppress(KeyboardInterrupt):
        work()
