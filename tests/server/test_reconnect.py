"""A server that goes and comes back, again and again, while producers fire and services handle: nothing accepted is
lost or stored twice, every service is at work again soon, and the order of a key holds.

`make restarts` does it many times.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import NamedTuple

import pytest

from solarwind import Event, SolarWind
from solarwind.testing.contract import until

from .lives import KEYS
from .serving import Life, Serving

RESTARTS = int(os.environ.get("RESTARTS", "10"))
# From when the server accepts connections until every service handles; make restarts is for a quiet machine.
BACK_S = 2.0 if "RESTARTS" in os.environ else 30.0
PRODUCERS = ("one", "two")
SERVICES = ("left", "right")
PURPOSES = ("direct", "keyed", "fanout")

Number = tuple[str, int]  # of an event: its producer's name, and which of its events


class Handled(NamedTuple):
    time: float
    purpose: str
    number: Number
    service: str


class Restart(NamedTuple):
    told: float  # when it was told to go
    back: float  # when it accepted connections again


class Story:
    """What happened, from the notes of all."""

    def __init__(self, folder: Path) -> None:
        self.server = Serving(folder, "--grace", 5)
        self.folder = folder
        self.lives: list[Life] = []
        self.restarts: list[Restart] = []

    def begin(self) -> None:
        self.services = [Life("handle", self.server.url, self.folder, name) for name in SERVICES]
        self.lives += self.services
        self.producers = [Life("produce", self.server.url, self.folder, name) for name in PRODUCERS]
        self.lives += self.producers

    def handled(self) -> list[Handled]:
        found = []
        for life in self.services:
            for line in life.lines:
                purpose, producer, number, time = line.split()
                found.append(Handled(float(time), purpose, (producer, int(number)), life.name))
        return sorted(found)

    def accepted(self) -> dict[str, int]:
        return {life.name: int(life.lines[-1].split()[1]) if life.lines else 0 for life in self.producers}

    async def fire(self, count: int) -> None:
        """Wait until so many more events are accepted."""
        wanted = sum(self.accepted().values()) + count
        await until(lambda: sum(self.accepted().values()) >= wanted)

    async def are_at_work(self, since: float) -> None:
        """Wait until each service has handled for each purpose, and each producer's events are accepted."""
        missing = {(life.name, purpose) for life in self.services for purpose in PURPOSES}
        missing |= {(life.name, "accepted") for life in self.producers}
        seen = dict.fromkeys(self.lives, 0)

        def look() -> bool:
            for life in self.lives:
                for line in life.lines[seen[life] :]:
                    if float(line.rsplit(" ", 1)[1]) > since:
                        missing.discard((life.name, line.split(" ", 1)[0]))
                seen[life] = len(life.lines)
            return not missing

        try:
            await until(look)
        except AssertionError:
            said = "\n".join(f"{life.name} said: {life.errors}" for life in self.lives)
            raise AssertionError(f"{missing} did nothing since the server is back; {said}") from None

    async def restart(self, number: signal.Signals) -> float:
        """Return after how many seconds all were at work again."""
        told = monotonic()
        await self.server.end(number)
        await self.server.start()
        self.restarts.append(Restart(told, monotonic()))
        await self.are_at_work(self.restarts[-1].back)
        return monotonic() - self.restarts[-1].back

    def was_between(self, earlier: float, later: float) -> bool:
        """Return whether the server was away at some time between."""
        return any(each.told <= later and each.back >= earlier for each in self.restarts)


@pytest.fixture
def story(tmp_path: Path) -> Iterator[Story]:
    story = Story(tmp_path)
    yield story
    for life in story.lives:
        life.kill()
    story.server.kill()


@pytest.mark.long
@pytest.mark.parametrize("times", [RESTARTS])
def test_a_server_restarted_under_load_loses_no_event_and_repeats_none_that_was_confirmed(
    story: Story, capsys: pytest.CaptureFixture[str], times: int
) -> None:
    took = asyncio.run(restart_many_times(story, random.Random(times), times))
    assert max(took) <= BACK_S, took
    counts = asyncio.run(check_what_is_stored(story))
    handled = story.handled()
    check_that_all_are_handled(handled, counts)
    check_that_nothing_comes_again(story, handled)
    check_the_order_of_keys(story, handled)
    with capsys.disabled():
        if "RESTARTS" in os.environ:
            slow = sorted(took)[-3:]
            print(f"\n{times} restarts, {sum(counts.values()):,} events, back after {slow} s at most")


async def restart_many_times(story: Story, chance: random.Random, times: int) -> list[float]:
    await story.server.start()
    story.begin()
    await story.are_at_work(0.0)
    took = []
    for number in range(times):
        await story.fire(chance.randint(0, 400))
        took.append(await story.restart(signal.SIGTERM if number % 2 else signal.SIGKILL))
    for life in story.producers:
        await life.end()
    async with SolarWind(story.server.url) as wind:

        async def is_settled() -> bool:
            found = await wind.statistics()
            return all(each.pending + each.in_flight == 0 for each in found.purposes.values())

        await until(is_settled, "all events to be settled")
    for life in story.services:
        await life.end()
    assert await story.server.end() == 0
    return took


async def check_what_is_stored(story: Story) -> dict[str, int]:
    """Check that each accepted event is stored once, and no other. Return how many each producer fired."""
    counts = story.accepted()
    wind = SolarWind(f"sqlite:///{story.server.store}")
    stored: list[Number] = []

    @wind.on("T", purpose="all", since="beginning")
    async def collect(events: list[Event]) -> None:
        stored.extend((event.payload[0], event.payload[1]) for event in events)

    async with wind:
        await wind.settled(60)
        found = await wind.statistics()
    expected = [(name, number) for name, count in counts.items() for number in range(count)]
    assert sorted(stored) == sorted(expected)
    for purpose in ("direct", "keyed"):
        of = found.purposes["T", purpose]
        assert (of.settled, of.dead, of.pending) == (len(expected), 0, 0), purpose
    return counts


def check_that_all_are_handled(handled: list[Handled], counts: dict[str, int]) -> None:
    for purpose in ("direct", "keyed"):
        numbers = {each.number for each in handled if each.purpose == purpose}
        assert len(numbers) == sum(counts.values()), purpose


def check_that_nothing_comes_again(story: Story, handled: list[Handled]) -> None:
    """Check that only events come again that were in hand when the server ended."""
    last: dict[tuple[str, Number], Handled] = {}
    for each in handled:
        if each.purpose == "fanout":
            continue
        before = last.get((each.purpose, each.number))
        assert before is None or story.was_between(before.time, each.time), (before, each)
        last[each.purpose, each.number] = each


def check_the_order_of_keys(story: Story, handled: list[Handled]) -> None:
    """Check that no event overtakes another of its key: after a restart, a key at most begins anew a little way
    back."""
    reached: dict[tuple[str, int], int] = {}
    last: dict[tuple[str, int], Handled] = {}
    for each in handled:
        if each.purpose != "keyed":
            continue
        name, number = each.number
        key = name, number % KEYS
        next_one = reached.get(key, number % KEYS - KEYS) + KEYS
        assert number <= next_one, f"{each} came before {next_one}"
        before = last.get(key)
        if before is not None and number <= before.number[1]:
            assert story.was_between(before.time, each.time), (before, each)
        reached[key] = max(next_one - KEYS, number)
        last[key] = each
