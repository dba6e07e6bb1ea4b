"""How long do 20,000 jobs take with 10 workers? It is what people quote of queues of jobs for Python. The job is as
good as nothing: what is measured is the queue.

Workers are processes, ten of each queue, or threads where its name says so, started by the command that its documents
show; one more process enqueues. The clock starts once each worker has done a job. It runs from the first job enqueued
to the last one enqueued, and to the last one done: each marks its number in memory that all share. No queue keeps
results. What a queue promises by accepting a job stands in its name. Ten processes are more than two cores have use
for, for all queues alike.

With fewer than 1,000 jobs there is a worker for each 100."""

from __future__ import annotations

import asyncio
import importlib
import mmap
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from time import monotonic, perf_counter
from typing import Any

import harness
import servers
from harness import Options, Row, Table
from peers.job import WARM
from servers import Server

JOBS = 20_000
WORKERS = 10
QUICK = 1_000  # jobs that end the warming up
PATIENCE_S = 180.0
LOST_S = 1.0
STOP_S = 10.0


@dataclass
class Queue:
    name: str
    module: str
    serve: Callable[[str], AbstractContextManager[Server]]
    program: str | None = None  # without which it is left out

    def measure(self, folder: str, jobs: int, workers: int) -> tuple[float, float]:
        """Return the seconds until all are done, and the jobs/s while they are enqueued."""
        with self.serve(folder) as server:
            return harness.in_child(play, self.module, server.url, folder, jobs, workers)


def queues() -> list[Queue]:
    """Return the contestants; the first is what the others are compared with."""
    redis, always = servers.redis, partial(servers.redis, sync="always")
    program = "redis-server"
    return [
        Queue("Solar Wind on sqlite://: fsynced", "wind", partial(servers.wind, "sqlite")),
        Queue("Solar Wind on memory://: not stored", "wind", partial(servers.wind, "memory")),
        Queue("Redis Streams by hand: fsynced always", "redis_streams", always, program),
        Queue("Redis Streams by hand: fsynced each second", "redis_streams", redis, program),
        Queue("taskiq on Redis: fsynced each second", "taskiq_redis_stream", redis, program),
        Queue("dramatiq on Redis: fsynced each second", "dramatiq_redis", redis, program),
        Queue("huey on Redis: fsynced each second", "huey_redis", redis, program),
        Queue("Celery on Redis, processes: fsynced each second", "celery_redis", redis, program),
        Queue("Celery on Redis, threads: fsynced each second", "celery_redis_threads", redis, program),
        Queue("procrastinate on PostgreSQL: fsynced", "procrastinate_postgres", servers.postgres),
        Queue("FastStream on NATS core: not stored", "faststream_nats", servers.nats),
        Queue("beanstalkd by hand: fsynced each 50 ms", "beanstalk", servers.beanstalkd, "beanstalkd"),
        Queue("RabbitMQ by hand: persistent, not confirmed", "rabbitmq", servers.rabbitmq, servers.RABBITMQ),
    ]


def play(module: str, url: str, folder: str, jobs: int, workers: int) -> tuple[float, float]:
    """Start the workers, warm them up, enqueue, and wait until all is done."""
    with tempfile.TemporaryDirectory(prefix="solarwind-bench-", dir=folder) as path:
        marks = Path(path, "marks")
        marks.write_bytes(bytes(WARM + QUICK + jobs))
        seen = Path(path, "workers")
        seen.mkdir()
        here = os.path.dirname(os.path.abspath(__file__))
        os.environ |= {"BENCH_URL": url, "BENCH_MARKS": str(marks), "BENCH_WORKERS": str(seen), "PYTHONPATH": here}
        with marks.open("r+b") as file, mmap.mmap(file.fileno(), 0) as marked:
            game = _Game(importlib.import_module(f"peers.{module}"), marked, seen, Path(path, "log"))
            return harness.run_loop(game.play(jobs, workers))


@dataclass
class _Game:
    module: Any
    marks: mmap.mmap
    seen: Path  # a folder with a file for each worker that has done a job
    log: Path

    async def play(self, jobs: int, workers: int) -> tuple[float, float]:
        if hasattr(self.module, "prepare"):
            await self.module.prepare()
        with _running(self.module.commands(workers), self.log):
            await self.module.connect()
            await self._warm_up(workers)
            numbers = range(WARM + QUICK, WARM + QUICK + jobs)
            begun = perf_counter()
            await self.module.enqueue(numbers)
            enqueued = perf_counter()
            await self._all_done(numbers)
            ended = perf_counter()
            await self.module.close()
        return ended - begun, jobs / (enqueued - begun)

    async def _warm_up(self, workers: int) -> None:
        """Enqueue until each worker has done a job, and then some that are as quick as those that count."""
        together = 5 * workers
        for at in range(0, WARM - together, together):
            numbers = range(at, at + together)
            await self.module.enqueue(numbers)
            with suppress(TimeoutError):  # a queue that does not store them has lost those that came before its workers
                await asyncio.wait_for(self._all_done(numbers), LOST_S)
            if len(os.listdir(self.seen)) >= workers:
                break
        else:
            said, found = self.log.read_text(errors="replace")[-4000:], len(os.listdir(self.seen))
            name = self.module.__name__
            raise RuntimeError(f"expected {workers} workers of {name}, {found} have done a job; it said:\n{said}")
        quick = range(WARM, WARM + QUICK)
        await self.module.enqueue(quick)
        await self._all_done(quick)

    async def _all_done(self, numbers: range) -> None:
        """Wait until these are done."""
        most, until = -1, monotonic() + PATIENCE_S
        while True:
            done = self.marks[numbers.start : numbers.stop].count(1)
            if done == len(numbers):
                return
            if done > most:
                most, until = done, monotonic() + PATIENCE_S
            elif monotonic() > until:
                said = self.log.read_text(errors="replace")[-4000:]
                name = self.module.__name__
                raise RuntimeError(f"expected {len(numbers)} jobs of {name} to be done, got {done}; it said:\n{said}")
            await asyncio.sleep(0.002)


@contextmanager
def _running(commands: Sequence[Sequence[str]], log: Path) -> Iterator[None]:
    """Run workers, and end them with the processes that they started."""
    with log.open("wb") as file:
        started = [
            subprocess.Popen(
                each, stdin=subprocess.DEVNULL, stdout=file, stderr=subprocess.STDOUT, start_new_session=True
            )
            for each in commands
        ]
    try:
        yield
    finally:
        for process in started:
            process.terminate()
        until = monotonic() + STOP_S
        for process in started:
            with suppress(subprocess.TimeoutExpired):
                process.wait(max(0.0, until - monotonic()))
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def run(options: Options) -> list[Table]:
    jobs = options.events or JOBS
    workers = min(WORKERS, max(1, jobs // 100))
    every = queues()
    missing = sorted({each.program for each in every if each.program and servers.program(each.program) is None})
    there = [each for each in every if each.program not in missing]
    note = "left out, since it is not here: what needs " + ", ".join(map(os.path.basename, missing)) if missing else ""
    measures = {each.name: partial(each.measure, options.folder, jobs, workers) for each in there}
    found = harness.take_turns(measures, options.rounds or 3)
    took = [Row(name, "s", [seconds for seconds, _ in rounds]) for name, rounds in found.items()]
    rates = [Row(name, "jobs/s", [rate for _, rate in rounds]) for name, rounds in found.items()]
    return [
        Table(f"{jobs:,} jobs with {workers} workers: until all are done", harness.to_first(took), note),
        Table(f"{jobs:,} jobs with {workers} workers: while they are enqueued", harness.to_first(rates), note),
    ]


if __name__ == "__main__":
    harness.main(run, __doc__)
