"""FastStream on NATS core, whose queue group gives each message to one worker."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from faststream import FastStream
from faststream.nats import NatsBroker

from peers import job

TOPIC = "bench.job"

broker = NatsBroker(os.environ["BENCH_URL"], logger=None)
app = FastStream(broker, logger=None)


@broker.subscriber(TOPIC, queue="workers")
async def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    return [[sys.executable, "-m", "faststream", "run", "peers.faststream_nats:app", "--workers", str(workers)]]


async def connect() -> None:
    await broker.connect()


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        await broker.publish(number, TOPIC)


async def close() -> None:
    await broker.stop()
