"""What is fired on `solarwind.dead`, and reserved topics."""

from __future__ import annotations

from typing import Any

import pytest

from ...errors import BadArgument, BadName, NotFound
from ...event import Event
from ...failure import Reject, Retry
from ...handlers import Handlers
from ...names import DEAD
from ...records import Dead
from ...wind import SolarWind
from .place import Place, on_loop, until

ONCE = Retry(attempts=1)


def hearing(wind: SolarWind, purpose: str = "Tell operators") -> list[tuple[Dead, Event]]:
    """Register a purpose on `solarwind.dead`, and return what it gets, as it comes."""
    heard: list[tuple[Dead, Event]] = []

    @wind.on(DEAD, purpose=purpose)
    async def hear(dead: Dead, event: Event) -> None:
        heard.append((dead, event))

    return heard


def dying(wind: SolarWind, topic: str = "T", purpose: str = "p", **options: Any) -> None:
    """Register a purpose whose events die, except those that are 0."""

    @wind.on(topic, purpose=purpose, **{"retry": ONCE, **options})
    async def die(number: int) -> None:
        if number:
            raise Reject(f"never {number}")


class DeathRules:
    """The rules of what is fired when an event dies."""

    @on_loop
    async def test_an_event_is_fired_for_each_that_dies_with_what_is_known_of_it(self, place: Place) -> None:
        wind = place.open()
        heard = hearing(wind)
        for topic in ("T", DEAD):
            wind.topic(topic, keep=3600)  # else what a slow test asks of is trimmed by then

        @wind.on("T", purpose="p", version=3, retry=Retry(attempts=2, wait=0))
        async def fail(event: Event) -> None:
            raise ValueError("no codec")

        async with wind:
            await wind.joined()
            await wind.fire("T", 1, key="cat", id="upload 1")
            await wind.settled(60)
            [letter] = await wind.dead("T", "p")
            [(dead, event)] = heard
            assert dead == Dead(
                topic="T",
                id="upload 1",
                purpose="p",
                version=3,
                error="ValueError: no codec",
                attempts=2,
                time=letter.time,
                key="cat",
                fired=letter.event.time,
            )
            assert event.topic == DEAD
            assert (event.cause.kind, event.cause.id, event.cause.topic) == ("event", "upload 1", "T")
            assert (event.cause.purpose, event.cause.version, event.root) == ("p", 3, "upload 1")
            tree = await wind.trace("upload 1")
            assert [node.event.topic for node in tree.caused] == [DEAD]

    @on_loop
    async def test_whatever_it_dies_of_is_told_once(self, place: Place) -> None:
        wind = place.open()
        heard = hearing(wind)
        dying(wind)
        wind.on("T", purpose="keyed", exchange="keyed", key_missing="reject")(lambda number: None)

        @wind.on("T", purpose="unfit")
        async def unfit(text: str) -> None: ...

        async with wind:
            await wind.joined()
            await wind.fire_many("T", range(20))
            await wind.settled(60)
            counts: dict[str, int] = {}
            for dead, _ in heard:
                counts[dead.purpose] = counts.get(dead.purpose, 0) + 1
            assert counts == {"p": 19, "keyed": 20, "unfit": 20}
            assert {dead.error for dead, _ in heard if dead.purpose == "p"} == {f"never {n}" for n in range(1, 20)}

    @on_loop
    async def test_the_death_of_a_purpose_that_hears_of_deaths_is_not_told(self, place: Place) -> None:
        wind = place.open()
        heard = hearing(wind)
        dying(wind)

        @wind.on(DEAD, purpose="fails", retry=ONCE)
        async def fail(dead: Dead) -> None:
            wind.fire("U", 1)
            raise ValueError("cannot tell anybody")

        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
            assert [dead.purpose for dead, _ in heard] == ["p"]
            [letter] = await wind.dead(DEAD, "fails")
            assert letter.event.payload["purpose"] == "p"

    @on_loop
    async def test_nothing_is_fired_while_no_purpose_hears_of_deaths(self, place: Place) -> None:
        wind = place.open()
        dying(wind)
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
            with pytest.raises(NotFound):
                await wind.events(DEAD)
            heard = hearing(wind)
            await wind.joined()
            await wind.fire("T", 2)
            await until(lambda: [dead.error for dead, _ in heard] == ["never 2"])
            await wind.retire(DEAD, "Tell operators", force=True)
            await wind.fire("T", 3)
            await wind.settled(60)
            fired = (await wind.statistics()).topics[DEAD].fired
            assert (fired, len(heard)) == (1, 1)

    @on_loop
    async def test_deaths_are_told_after_a_restart_to_whom_hears_of_them(self, place: Place) -> None:
        wind = place.open()
        hearing(wind)
        async with wind:
            await wind.joined()
        wind = place.restart()
        dying(wind)
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await until(lambda: wind.dead("T", "p"), "a dead letter")
        wind = place.restart()
        heard = hearing(wind)
        async with wind:
            await wind.settled(60)
            assert [dead.error for dead, _ in heard] == ["never 1"]

    @pytest.mark.parametrize("kind", ["async", "def"])
    @on_loop
    async def test_on_dead_is_called_for_each_death_of_its_purpose_and_no_other(self, place: Place, kind: str) -> None:
        wind, told = place.open(), list[tuple[str, str, str]]()

        async def tell(dead: Dead, event: Event) -> None:
            told.append((dead.purpose, dead.error, event.topic))

        def tell_on_a_thread(dead: Dead, event: Event) -> None:
            told.append((dead.purpose, dead.error, event.topic))

        dying(wind, on_dead=tell if kind == "async" else tell_on_a_thread)
        dying(wind, purpose="other")
        dying(wind, topic="U")
        async with wind:
            await wind.joined()
            for topic in ("T", "U"):
                await wind.fire_many(topic, [0, 1, 2])
            await wind.settled(60)
            assert sorted(told) == [("p", "never 1", DEAD), ("p", "never 2", DEAD)]
            [info] = await wind.purposes(DEAD)
            assert info.purpose == "Dead letters of p on T"
            assert {each.topic for each in wind.handlers} == {"T", "U", DEAD}

    @on_loop
    async def test_on_dead_that_fails_is_tried_again_and_one_instance_is_told(self, place: Place) -> None:
        clock = place.clock()
        wind, calls = place.open(), list[int]()

        async def tell(dead: Dead, event: Event) -> None:
            calls.append(event.attempt)
            if event.attempt < 3:
                raise ValueError("nobody answers")

        for _ in range(3):
            dying(wind, on_dead=tell)
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            for count in (1, 2):

                async def waits(count: int = count) -> bool:
                    """Return whether the dispatcher has heard of the attempt, from which on the retry is due."""
                    found = await wind.retries(DEAD, "Dead letters of p on T")
                    return [each.attempts for each in found] == [count]

                await until(waits)
                await clock.advance(10)
            await wind.settled(60)
            assert calls == [1, 2, 3]

    @on_loop
    async def test_on_dead_goes_with_its_handler_and_with_its_group(self, place: Place) -> None:
        wind, told = place.open(), list[tuple[str, str]]()
        group = Handlers()

        async def tell(dead: Dead) -> None:
            told.append((dead.topic, dead.error))

        @group.on("T", purpose="p", retry=ONCE, on_dead=tell)
        async def die(number: int) -> None:
            raise Reject(f"never {number}")

        wind.include(group, prefix="shop")
        wind.include(group)
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await wind.fire("shop.T", 2)
            await wind.settled(60)
            assert sorted(told) == [("T", "never 1"), ("shop.T", "never 2")]
            await wind.off(die)
            assert await wind.instances() == []

    @on_loop
    async def test_a_shadow_does_not_hear_of_the_deaths_of_its_purpose(self, place: Place) -> None:
        wind, told = place.open(), list[int]()

        async def tell(dead: Dead) -> None:
            told.append(1)

        async def tell_too(dead: Dead) -> None:
            told.append(2)

        dying(wind, on_dead=tell)
        async with wind:
            await wind.joined()
            dying(wind, version=2, rollout="shadow", on_dead=tell_too)
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
            assert told == [1]

    @on_loop
    async def test_what_cannot_hear_of_deaths_is_refused(self, place: Place) -> None:
        wind = place.open()

        async def lists(dead: list[Dead]) -> None: ...

        async def tell(dead: Dead) -> None: ...

        for bad in (3, "tell", [tell]):
            with pytest.raises(BadArgument, match=r"^expected on_dead as a function that takes a Dead, got "):
                wind.on("T", on_dead=bad)  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match=r"^expected on_dead to take one Dead at a time, got "):
            wind.on("T", on_dead=lists)
        with pytest.raises(BadArgument, match=r"^expected no on_dead with exchange 'fanout', "):
            wind.on("T", exchange="fanout", on_dead=tell)

    @on_loop
    async def test_the_purpose_of_a_long_name_hears_of_its_deaths_too(self, place: Place) -> None:
        wind, told = place.open(), list[str]()

        async def tell(dead: Dead) -> None:
            told.append(dead.purpose[-1])

        for purpose in ("x" * 199 + "1", "x" * 199 + "2"):
            dying(wind, purpose=purpose, on_dead=tell)
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
            assert sorted(told) == ["1", "2"]

    @on_loop
    async def test_on_dead_gets_a_dead_also_where_it_states_no_type(self, place: Place) -> None:
        wind, told = place.open(), list[str]()
        dying(wind, on_dead=lambda dead: told.append(dead.error))
        async with wind:
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
            assert told == ["never 1"]

    @on_loop
    async def test_nobody_else_fires_on_a_reserved_topic(self, place: Place) -> None:
        wind = place.open()
        words = ("expected a topic that does not begin with 'solarwind.', got 'solarwind.", "choose another name")
        async with wind:
            for topic in (DEAD, "solarwind.x", "solarwind.x.y"):
                for fire in (wind.fire, lambda topic: wind.fire_many(topic, [1])):
                    with pytest.raises(BadName) as caught:
                        fire(topic)
                    assert all(word in str(caught.value) for word in words)
                with pytest.raises(BadName):
                    wind.fire(topic, after=60)
                with pytest.raises(BadName, match=r"^expected a topic that does not begin with 'solarwind\.', got "):
                    wind.every("5m", topic)
            await wind.fire("solarwind", 1)
            await wind.fire("solarwinds.x", 1)

    @on_loop
    async def test_nobody_listens_on_a_reserved_topic_that_there_is_not(self, place: Place) -> None:
        wind = place.open()
        for listen in (lambda: wind.on("solarwind.ded"), lambda: wind.listen("solarwind.death", "p")):
            with pytest.raises(BadName, match=r"^expected a topic that .*, or 'solarwind.dead', got 'solarwind\.de"):
                listen()
