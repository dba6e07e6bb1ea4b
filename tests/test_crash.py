"""Whatever is killed, an accepted event is not lost, and one whose settle was confirmed is not handled again."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from solarwind import Event, SolarWind
from solarwind.testing.contract import on_loop, until

LIFE = Path(__file__).parent / "kill" / "life.py"


class Lives:
    """Lives on one store, one after another, and what became of their events."""

    def __init__(self, folder: Path) -> None:
        self.store = folder / "wind.db"
        self.handled_file = folder / "handled"
        self.errors = folder / "errors"
        self.number = 0

    def begin(self, mode: str) -> subprocess.Popen[str]:
        self.number += 1
        arguments = [sys.executable, str(LIFE), mode, str(self.store), str(self.handled_file), str(self.number)]
        with self.errors.open("a") as errors:
            return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=errors, text=True)

    def handled(self) -> list[tuple[int, str, int]]:
        """Return (life, id, attempt) of each call of a handler, in order."""
        if not self.handled_file.exists():
            return []
        whole = (line[:-2] for line in self.handled_file.read_text().splitlines() if line.endswith(" ."))
        lines = (line.rsplit(" ", 1) for line in whole)
        return [(int(head.split(" ", 1)[0]), head.split(" ", 1)[1], int(attempt)) for head, attempt in lines]

    def complaints(self) -> str:
        return self.errors.read_text()


def ids_of(words: str) -> list[str]:
    """Return the ids in a line; those that are `child of ID` have spaces in them."""
    return words.replace("child of ", "child_of_").split() if words else []


def live_and_be_killed(life: subprocess.Popen[str], chance: random.Random) -> list[str]:
    """Kill it after some lines, and a moment; give all the whole lines that it said."""
    assert life.stdout is not None
    lines = []
    for _ in range(chance.randint(1, 25)):
        line = life.stdout.readline()
        if not line:
            break
        lines.append(line)
    try:
        life.wait(chance.random() * 0.03)
    except subprocess.TimeoutExpired:
        pass
    life.kill()
    with life.stdout:
        lines += life.stdout.readlines()
    assert life.wait(300) == -signal.SIGKILL, "it ended by itself"
    return [line.rstrip("\n") for line in lines if line.endswith("\n")]


@pytest.mark.parametrize("times", [5, pytest.param(50, marks=pytest.mark.long)])
def test_kill_9_loses_no_accepted_event_and_repeats_none_that_was_settled(tmp_path: Path, times: int) -> None:
    """At any moment, while it fires, handles, and fires in its handlers."""
    lives = Lives(tmp_path)
    chance = random.Random(times)
    accepted: set[str] = set()
    confirmed: dict[str, int] = {}
    for number in range(1, times + 1):
        lines = live_and_be_killed(lives.begin("fire_and_handle"), chance)
        assert lines, f"life {number} could not start: {lives.complaints()}"
        for line in lines:
            verb, _, words = line.partition(" ")
            if verb == "accepted":
                accepted.update(ids_of(words))
            elif verb == "confirmed":
                confirmed.update((id, number) for id in ids_of(words))
    last = lives.begin("handle_what_is_left")
    out, _ = last.communicate(timeout=300)
    assert last.returncode == 0, lives.complaints()
    assert out == "dead\n", "nothing died by being killed"

    handled = [(life, id.replace("child of ", "child_of_"), attempt) for life, id, attempt in lives.handled()]
    ids = {id for _, id, _ in handled}
    parents = {id for id in ids if not id.startswith("child_of_")}
    assert len(accepted) > 10 * times, "they did too little to show anything"
    assert len(confirmed) > 10 * times
    assert accepted <= ids, "an accepted event was lost"
    assert {f"child_of_{id}" for id in parents} == ids - parents, "what a handler fired comes with its settle"
    again = [(id, life, confirmed[id]) for life, id, _ in handled if life > confirmed.get(id, life)]
    assert again == [], "it was handled again after its settle was confirmed"
    in_one_life = Counter((life, id) for life, id, _ in handled)
    assert max(in_one_life.values()) == 1


@pytest.mark.long
def test_kill_9_leaves_each_death_with_the_event_that_tells_of_it_and_none_without(tmp_path: Path) -> None:
    """At any moment, while events die and what tells of that is handled."""
    lives, times = Lives(tmp_path), 12
    chance = random.Random(times)
    for number in range(1, times + 1):
        assert live_and_be_killed(lives.begin("let_die"), chance), f"life {number}: {lives.complaints()}"
    died: list[str] = []
    told: dict[str, str] = {}
    heard = [id for _, id, _ in lives.handled()]

    @on_loop
    async def look() -> None:
        async with SolarWind(f"sqlite:///{lives.store}") as wind:
            # Before anything else can die: what is there is what the last life left.
            letters = await all_of(lambda after: wind.dead("T", "p", after=after))
            died.extend(letter.event.id for letter in letters)
            events = await all_of(lambda after: wind.events("solarwind.dead", after=after))
            told.update((event.id, event.payload["id"]) for event in events)

            @wind.on("solarwind.dead", purpose="hears")
            async def hear(event: Event) -> None:
                heard.append(event.id)

            await wind.joined()
            await wind.settled(60)

    look()
    assert len(died) > 10 * times, "too few died to show anything"
    assert sorted(told.values()) == sorted(died)
    assert set(heard) == set(told)


async def all_of(page: Callable[[Any], Any]) -> list[Any]:
    """Return what is on all pages of an answer."""
    found, after = list[Any](), None
    while True:
        more = await page(after)
        found += more
        after = more.next
        if after is None:
            return found


@pytest.mark.long
@pytest.mark.parametrize("times", [4, pytest.param(40, marks=pytest.mark.long)])
def test_kill_9_loses_no_delayed_event_and_each_enters_its_topic_once_unless_it_was_taken_back(
    tmp_path: Path, times: int
) -> None:
    """At any moment, while events are fired for later, become due, are taken back, and have handlers fire others."""
    lives = Lives(tmp_path)
    chance = random.Random(times)
    said: dict[str, set[str]] = {what: set() for what in ("ready", "accepted", "cancelling", "cancelled")}
    for _ in range(times):
        for line in live_and_be_killed(lives.begin("fire_later"), chance):
            what, _, ids = line.partition(" ")
            said[what].update(ids.split())
    entered, children, left = _after_all(lives.store)
    assert len(entered) == len(set(entered))
    assert len(children) == len(set(children))
    assert said["accepted"] - said["cancelling"] <= {*entered, *left}
    assert not said["cancelled"] & {*entered, *left}
    assert {*children} == {f"child of {id}" for id in entered}, "each was settled once, with what its handler fired"
    assert entered
    assert lives.complaints() == ""


def _after_all(store: Path) -> tuple[list[str], list[str], list[str]]:
    """Handle what is left, and return what entered the two topics, and what is due later."""
    found: list[list[str]] = []

    @on_loop
    async def look() -> None:
        async with SolarWind(f"sqlite:///{store}") as wind:

            @wind.on("T", purpose="p")
            async def handle(event: Event) -> None:
                wind.fire("child", event.id, id=f"child of {event.id}", after=0.01)

            @wind.on("child", purpose="q")
            async def child(event: Event) -> None: ...

            async def all_in() -> bool:
                await wind.settled(60)
                return all(each.due > soon for each in await wind.delayed())

            soon = datetime.now(UTC) + timedelta(minutes=1)
            await until(all_in)
            for topic in ("T", "child"):
                events = await all_of(lambda after, topic=topic: wind.events(topic, after=after))
                found.append([event.id for event in events])
            found.append([each.event.id for each in await wind.delayed(limit=10_000)])

    look()
    return found[0], found[1], found[2]


def test_poison_that_kills_its_process_is_dead_after_its_attempts_and_the_rest_is_handled(tmp_path: Path) -> None:
    """It is dead after a few restarts, and takes nobody with it: attempts count before the handler starts."""
    lives = Lives(tmp_path)
    innocents = _fire(lives.store, [f"good {n}" for n in range(30)] + ["poison"] + [f"good {n}" for n in range(30, 60)])
    codes = []
    while not codes or codes[-1] != 0:
        life = lives.begin("meet_poison")
        life.communicate(timeout=300)
        codes.append(life.returncode)
        assert codes[-1] in (0, 9), lives.complaints()
        assert len(codes) <= 6, "it goes on and on"
    dead, settled = _dead_and_settled(lives.store)
    assert dead == [("poison", 3)]
    assert settled == 60
    assert {id for _, id, _ in lives.handled()} == set(innocents)


def test_an_event_of_a_slow_rate_that_kills_its_process_at_once_is_not_handed_out_earlier_for_that(
    tmp_path: Path,
) -> None:
    lives, seen = Lives(tmp_path), list[object]()
    _fire(lives.store, ["poison"])
    life = lives.begin("meet_poison_at_a_slow_rate")
    life.communicate(timeout=300)
    assert life.returncode == 9, lives.complaints()

    @on_loop
    async def look() -> None:
        wind = SolarWind(f"sqlite:///{lives.store}")

        @wind.on("T", purpose="slow", rate="1/h")
        async def handle(event: Event) -> None:
            seen.append(event.payload)

        async def limited() -> bool:
            return (await wind.statistics()).purposes["T", "slow"].limited

        async with wind:
            await wind.joined()
            await until(lambda: seen or limited())

    look()
    assert seen == []


@pytest.mark.long
def test_poison_takes_no_event_of_another_purpose_or_topic_of_its_process_with_it(tmp_path: Path) -> None:
    """Two purposes have an event that ends the process each time; all else of all four is handled."""
    lives = Lives(tmp_path)
    purposes = [("T", "p"), ("T", "q"), ("U", "r"), ("U", "s")]
    payloads = [f"good {n}" for n in range(20)] + ["poison"] + [f"good {n}" for n in range(20, 40)]
    _fire(lives.store, payloads, purposes)
    codes = []
    while not codes or codes[-1] != 0:
        life = lives.begin("meet_poison_of_several")
        life.communicate(timeout=300)
        codes.append(life.returncode)
        assert codes[-1] in (0, 9), lives.complaints()
        assert len(codes) <= 9, "it goes on and on"
    found = {of: _dead_and_settled(lives.store, *of) for of in purposes}
    poison = [("poison", 3)]
    assert found == {
        ("T", "p"): (poison, 40),
        ("T", "q"): ([], 41),
        ("U", "r"): ([], 41),
        ("U", "s"): (poison, 40),
    }


def test_sigterm_lets_running_handlers_finish(tmp_path: Path) -> None:
    """It lets the handlers finish, with what they fire, gives back the rest as if never tried, and ends with 0."""
    lives = Lives(tmp_path)
    _fire(lives.store, list(range(10)))
    life = lives.begin("serve")
    assert life.stdout is not None
    begun = [life.stdout.readline(), life.stdout.readline()]
    assert begun == ["begun 0\n", "begun 1\n"]
    life.send_signal(signal.SIGTERM)
    out, _ = life.communicate(timeout=300)
    assert life.returncode == 0, lives.complaints()
    assert sorted(out.splitlines()) == ["drained", "ended 0", "ended 1"]
    assert "Traceback" not in lives.complaints()
    assert _left(lives.store) == ([(number, 1) for number in range(2, 10)], 2)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_second_signal_stops_the_draining(number: signal.Signals, tmp_path: Path) -> None:
    """Nothing is lost by it: what was not finished is handed out again."""
    lives = Lives(tmp_path)
    _fire(lives.store, list(range(4)))
    life = lives.begin("serve")
    assert life.stdout is not None
    assert life.stdout.readline() == "begun 0\n"
    life.send_signal(number)
    try:
        life.wait(0.05)
    except subprocess.TimeoutExpired:
        life.send_signal(number)
    out, _ = life.communicate(timeout=300)
    assert life.returncode == 0, lives.complaints()
    assert "Traceback" not in lives.complaints()
    ended = {int(line.split()[1]) for line in out.splitlines() if line.startswith("ended")}
    left = {payload for payload, _ in _left(lives.store)[0]}
    assert left | ended == set(range(4))


def _fire(store: Path, payloads: list[object], purposes: Sequence[tuple[str, str]] = (("T", "p"),)) -> list[str]:
    """Fire them for these purposes, on each of their topics, while nobody is there to handle them. Return the ids of
    all but the poison."""
    ids: list[str] = []

    @on_loop
    async def fire() -> None:
        wind = SolarWind(f"sqlite:///{store}")

        async def handle() -> None: ...

        for topic, purpose in purposes:
            wind.on(topic, purpose=purpose, exchange="keyed" if purpose == "q" else "direct")(handle)
        async with wind:
            await wind.off(handle)
            for topic in dict(purposes):
                found = (await wind.fire_many(topic, payloads)).ids
                ids.extend(id for id, payload in zip(found, payloads, strict=True) if payload != "poison")

    fire()
    return ids


def _dead_and_settled(store: Path, topic: str = "T", purpose: str = "p") -> tuple[list[tuple[object, int]], int]:
    found: list[tuple[list[tuple[object, int]], int]] = []

    @on_loop
    async def ask() -> None:
        async with SolarWind(f"sqlite:///{store}") as wind:
            dead = [(letter.event.payload, letter.attempts) for letter in await wind.dead(topic, purpose)]
            found.append((dead, (await wind.statistics()).purposes[topic, purpose].settled))

    ask()
    return found[0]


def _left(store: Path) -> tuple[list[tuple[object, int]], int]:
    """Return the payload and attempt of what p on T still has to do, and how many events were fired on `child`."""
    left: list[tuple[object, int]] = []
    children: list[int] = []

    @on_loop
    async def ask() -> None:
        wind = SolarWind(f"sqlite:///{store}")

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            left.append((event.payload, event.attempt))

        async with wind:
            await wind.settled(60)
            topics = (await wind.statistics()).topics
            children.append(topics["child"].fired if "child" in topics else 0)

    ask()
    return sorted(left, key=str), children[0]
