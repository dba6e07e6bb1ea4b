"""Celery on Redis, with its default pool of processes. No result is kept."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from celery import Celery

from peers import job

app = Celery("bench", broker=os.environ["BENCH_URL"])
app.conf.task_ignore_result = True
app.conf.broker_connection_retry_on_startup = True


@app.task
def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    worker = ["worker", "--concurrency", str(workers), "--loglevel", "WARNING"]
    return [[sys.executable, "-m", "celery", "-A", "peers.celery_redis", *worker]]


async def connect() -> None:
    pass


async def enqueue(numbers: Sequence[int]) -> None:
    for number in numbers:
        do.delay(number)


async def close() -> None:
    app.close()
