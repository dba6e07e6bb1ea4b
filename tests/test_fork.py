"""A child that was forked from a process with a SolarWind: what is its parent's is left alone, and says so."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from sampling import some
from server.place import Host

BEGIN = """
import asyncio, multiprocessing, os, sys, threading
from concurrent.futures import ProcessPoolExecutor
from solarwind import SolarWind, Unavailable

URL = sys.argv[1]
wind = SolarWind(URL)
"""
FORK = """
async def every_way(early):
    async def listened():
        async for event in wind.listen("T", "other"):
            return

    ways = {
        "fire": lambda: wind.fire("T"),
        "with a key": lambda: wind.fire("T", key="k"),
        "open topic": lambda: wind.fire("open"),
        "fire_many": lambda: wind.fire_many("T", [1, 2]),
        "from a thread": lambda: in_thread(lambda: wind.fire("T")),
        "on": lambda: wind.on("T", purpose="p")(every_way),
        "wait": lambda: early.wait(1),
        "await": lambda: early,
        "settled": lambda: wind.settled(1),
        "statistics": lambda: wind.statistics(),
        "listen": listened,
        "start": lambda: wind.start(),
    }
    for name, way in ways.items():
        try:
            found = way()
            if hasattr(found, "__await__"):
                await asyncio.wait_for(found, 60)
            print("worked:", name)
        except Unavailable as error:
            if "forked" not in str(error):
                print("said of", name, error)
        except BaseException as error:
            print("raised by", name, repr(error))
    await wind.stop()


def in_thread(work):
    found = []
    def run():
        try:
            found.append(work())
        except BaseException as error:
            found.append(error)
    thread = threading.Thread(target=run)
    thread.start()
    thread.join()
    if isinstance(found[0], BaseException):
        raise found[0]


async def own():
    async with SolarWind("memory://") as mine:
        got = []
        @mine.on("T")
        async def handle(n: int): got.append(n)
        await mine.joined()
        await mine.fire("T", 1)
        await mine.settled(60)
    if got != [1]:
        print("its own does not work", got)


async def main():
    handled = []

    @wind.on("T", purpose="p")
    async def handle(n: int):
        handled.append(n)

    async with wind:
        await wind.fire("T", 1)
        early = wind.fire("open", 0)
        pid = os.fork()
        if not pid:
            try:
                asyncio.run(every_way(early))
                asyncio.run(own())
            except BaseException as error:
                print("child:", repr(error))
            sys.stdout.flush()
            os._exit(0)
        while os.waitpid(pid, os.WNOHANG) == (0, 0):
            await asyncio.sleep(0.01)
        await early
        await wind.fire("T", 2)
        await wind.settled(60)
        topics = (await wind.statistics()).topics
    print("handled", handled, topics["T"].fired)

asyncio.run(main())
"""
POOL = """
def refused():
    try:
        wind.fire("T")
        return "worked"
    except Unavailable as error:
        return "forked" in str(error)


def target(pipe):
    pipe.send(refused())


fork = multiprocessing.get_context("fork")


@wind.on("T", purpose="p")
def handle(n: int):
    with ProcessPoolExecutor(1, mp_context=fork) as pool:
        print("pool", pool.submit(refused).result())
    ours, theirs = fork.Pipe()
    process = fork.Process(target=target, args=(theirs,))
    process.start()
    print("process", ours.recv())
    process.join()


with wind:
    wind.fire("T", 1).wait(60)
    wind.wait(wind.settled(60))
    pid = os.fork()
    if not pid:
        sys.exit(0)
    os.waitpid(pid, 0)
    wind.fire("T", 2).wait(60)
    wind.wait(wind.settled(60))
    print("fired", wind.wait(wind.statistics()).topics["T"].fired)
"""


@pytest.fixture(params=["memory", "sqlite", "ws"])
def url(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[str]:
    if request.param == "ws":
        port = host.start("memory://")
        yield f"ws://127.0.0.1:{port}"
        host.stop(port)
    else:
        yield "memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/wind.db"


def said(program: str, url: str) -> list[str]:
    environment = {**os.environ, "PYTHONWARNINGS": "ignore"}
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + program, url], capture_output=True, text=True, timeout=300, env=environment
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_forked_child_is_told_that_the_solarwind_is_its_parents_and_may_start_its_own(url: str) -> None:
    assert said(FORK, url) == ["handled [1, 2] 2"]


def test_children_of_handlers_and_those_that_just_exit_leave_the_parents_alone(url: str) -> None:
    assert said(POOL, url) == ["pool True", "process True", "pool True", "process True", "fired 2"]


COMES_BACK = """
def fork_and_come_back(n):
    pid = os.fork()
    if pid:
        print(n, "child", os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), flush=True)
    elif n == 1:
        raise ValueError("in the child")
    elif n == 2:
        sys.exit(0)
    return pid


if sys.argv[2] == "def":
    @wind.on("T", purpose="p")
    def handle(n: int):
        fork_and_come_back(n)
elif sys.argv[2] == "batch":
    @wind.on("T", purpose="p", batch=1)
    def handle(numbers: list[int]):
        fork_and_come_back(*numbers)
else:
    @wind.on("T", purpose="p", concurrency=1)
    async def handle(n: int):
        if not fork_and_come_back(n):
            await asyncio.sleep(0)


async def main():
    async with wind:
        await wind.fire_many("T", [0, 1, 2, 3])
        await wind.settled(60)
        purpose = (await wind.statistics()).purposes["T", "p"]
    print("settled", purpose.settled, "retried", purpose.retried)

asyncio.run(main())
"""


@pytest.mark.parametrize("kind", some(["async"], ["def", "batch", "async"]))
def test_a_child_that_comes_back_out_of_a_handler_ends_and_is_no_second_worker(url: str, kind: str) -> None:
    """The handler waits for its child: one that lived on would hold it up for ever."""
    done = subprocess.run(
        [sys.executable, "-c", BEGIN + COMES_BACK, url, kind],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONWARNINGS": "ignore"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [*(f"{n} child 1" for n in range(4)), "settled 4 retried 0"]
    assert done.stderr.count("came back out of the handler: it ends here") == 4
