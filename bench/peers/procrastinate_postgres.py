"""procrastinate on PostgreSQL. Each worker is a process of its own; jobs are enqueued by the batch."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence

from procrastinate import App, PsycopgConnector

from peers import job

TOGETHER = 500  # that are enqueued at a time

app = App(connector=PsycopgConnector(conninfo=os.environ["BENCH_URL"]))


@app.task(name="do")
async def do(number: int) -> None:
    job.done(number)


def commands(workers: int) -> list[list[str]]:
    worker = [sys.executable, "-m", "procrastinate", "--app", "peers.procrastinate_postgres.app", "worker"]
    return [worker] * workers


async def prepare() -> None:
    async with app.open_async():
        await app.schema_manager.apply_schema_async()


async def connect() -> None:
    await app.open_async()


async def enqueue(numbers: Sequence[int]) -> None:
    for at in range(0, len(numbers), TOGETHER):
        await do.batch_defer_async(*({"number": number} for number in numbers[at : at + TOGETHER]))


async def close() -> None:
    await app.close_async()
