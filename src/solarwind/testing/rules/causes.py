"""What causes what: how deep a chain may be, and what one purpose caused handled again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from ...errors import BadArgument
from ...event import Cause, Event
from .place import Place, on_loop, refused, until


class CauseRules:
    """The rules of chains of causes."""

    @on_loop
    async def test_a_chain_that_causes_itself_ends_in_a_dead_letter_that_says_so(self, place: Place) -> None:
        wind = place.open()
        depths: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            depths.append(event.depth)
            wind.fire("other", event.depth)
            wind.fire("T")

        @wind.on("other", purpose="q")
        async def count(depth: int) -> None:
            reached.append(depth)

        reached: list[int] = []
        async with wind:
            await wind.fire("T", cause=Cause("event", "far away", depth=97))
            await until(lambda: len(depths) == 4)
            await wind.settled(60)
            (letter,) = await wind.dead("T", "p")
            assert (await wind.statistics()).purposes["T", "p"].settled == 3
            for now in (False, True):
                await refused(_fire(wind.fire, Cause("event", "x", depth=101), now), BadArgument, "at most 100 events")
        assert depths == [97, 98, 99, 100]
        assert sorted(reached) == [97, 98, 99], "what the last one fired is not fired either"
        assert (letter.event.depth, letter.attempts) == (100, 1)
        assert "expected at most 100 events that cause each other" in letter.error

    @on_loop
    async def test_what_one_version_of_a_purpose_caused_is_counted_first_and_then_handled_again(
        self, place: Place
    ) -> None:
        wind = place.open()
        for topic in ("a", "b", "c"):
            wind.topic(topic, keep=3600)
        seen: list[str] = []

        @wind.on("c", purpose="Store")
        async def store(what: str) -> None:
            seen.append(what)

        for topic in ("a", "b"):  # of the same name

            @wind.on(topic, purpose="Encode a/b@2", version=2)
            async def encode(event: Event) -> None:
                wind.fire("c", f"of {event.topic} {event.payload}")

        async with wind:
            await wind.fire("c", "of nobody")
            await wind.fire("b", 0)
            await wind.fire("a", 1)
            await wind.settled(60)
            between = datetime.now(UTC)
            await wind.fire("a", 2)
            await wind.settled(60)
            seen.clear()
            its = "a/Encode a/b@2@2"
            assert await wind.replay("c", "Store", caused_by=its, dry_run=True) == 2
            assert await wind.replay("c", "Store", dry_run=True) == 4
            await wind.settled(60)
            assert seen == [], "it was only counted"
            assert await wind.replay("c", "Store", since=between, caused_by=its) == 1
            await wind.settled(60)
            assert seen == ["of a 2"]
            assert await wind.replay("c", "Store", caused_by=its) == 2
            await wind.settled(60)
            assert sorted(seen[1:]) == ["of a 1", "of a 2"]
            for other in ("a/Encode a/b@2@1", "c/Encode a/b@2@2", "a/other@2"):
                assert await wind.replay("c", "Store", caused_by=other) == 0
            bad: Any
            for bad in ("Encode", "a/Encode", "a/Encode@0", "a b/Encode@1", "a/ p@1", 7):
                await refused(wind.replay("c", "Store", caused_by=bad), BadArgument, "as TOPIC/PURPOSE@VERSION")


async def _fire(fire: object, cause: Cause, now: bool) -> None:
    await fire("T", cause=cause, now=now)  # type: ignore[operator]
