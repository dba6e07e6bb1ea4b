"""What is fired and not yet accepted is bounded as a whole, keys, ids and the events themselves included."""

from __future__ import annotations

import subprocess
import sys

import pytest

from sampling import some

LIMIT = 8 << 20
PROGRAM = """
import asyncio, os, resource, sys
from solarwind import Busy, Limits, SolarWind
from solarwind.engine.local import LocalEngine
from solarwind.store.memory import MemoryStore

LIMIT, case = int(sys.argv[1]), sys.argv[2]
PAGE = resource.getpagesize()
topics = [f"topic-{number}" for number in range(5_950)]
kept = []


def used():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * PAGE


def fill(wind):
    number = 0
    while True:
        number += 1
        if case.startswith("nothing"):
            wind.fire("T")
        elif case.startswith("empty"):
            wind.fire("T", b"")
        elif case.startswith("small"):
            wind.fire("T", number)
        elif case.startswith("large"):
            wind.fire("T", b"x" * 100_000)
        elif case.startswith("keys"):
            wind.fire("T", key=f"{number:0>256}")
        elif case.startswith("ids"):
            wind.fire("T", id=f"{number:0>200}")
        elif case.startswith("half a megabyte"):
            wind.fire(topics[number % 5_950], b"x" * 500_000)
        elif case.startswith("topics"):
            wind.fire(topics[number % 5_950], number)
        elif case.startswith("many"):
            wind.fire_many("T", range(1_000))
        yield number


class Away(LocalEngine):
    # A dispatcher that does not answer.

    def submit(self, batch):
        future = asyncio.get_running_loop().create_future()
        kept.append((batch, future))
        return future


async def main():
    engine = (Away if "away" in case else LocalEngine)(MemoryStore())
    wind = SolarWind(engine=engine, limits=Limits(unaccepted_bytes=LIMIT))
    done = asyncio.Event()

    def until_busy(steps):
        before = used()
        try:
            for number in steps:
                pass
        except Busy:
            print(number, used() - before)
            done.set()

    @wind.on("start", purpose="p")
    async def handle():
        until_busy(fill(wind))

    async with wind:
        wind.fire("T")
        if "handler" in case:
            await wind.fire("start")
            await done.wait()
        elif "away" in case:
            before = used()
            try:
                for number in fill(wind):
                    if number % 7 == 0:
                        await asyncio.sleep(0)
            except Busy:
                print(number, used() - before)
        else:
            until_busy(fill(wind))
        sys.stdout.flush()
        os._exit(0)


asyncio.run(main())
"""
CASES = [
    *("nothing", "empty", "small", "large", "keys", "ids", "half a megabyte", "topics", "many"),
    *("nothing away", "ids away", "topics away", "nothing in a handler", "keys in a handler"),
]


@pytest.mark.parametrize("case", some(["small", "many", "ids away", "keys in a handler"], CASES))
def test_what_is_fired_takes_no_more_than_twice_what_is_allowed_before_it_is_busy(case: str) -> None:
    command = [sys.executable, "-c", PROGRAM, str(LIMIT), case]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    _, grown = map(int, done.stdout.split())
    assert grown < 2 * LIMIT + (4 << 20)
    assert grown > LIMIT // 8, "refused long before it takes what it may"
