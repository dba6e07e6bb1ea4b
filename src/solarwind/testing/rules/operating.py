"""What operators do to a purpose at work: pause and resume it, and the state that it is in."""

from __future__ import annotations

import asyncio
import logging

import pytest

from ...errors import BadName, ConflictError, NotFound
from ...event import Event
from ...failure import Later, Reject, Retry
from ...origin import user_name
from ...records import Attention
from ...wind import SolarWind
from .place import Place, a_while, on_loop, refused, until


async def _state(wind: SolarWind, topic: str = "T", purpose: str = "p") -> str:
    return (await wind.statistics()).purposes[topic, purpose].state


class OperatingRules:
    """The rules of pausing a purpose, and of its state."""

    @on_loop
    async def test_a_paused_purpose_hands_out_nothing_more_until_it_is_resumed(self, place: Place) -> None:
        """What is in a handler goes on; other purposes do too; an instance may join meanwhile, and gets nothing."""
        wind = place.open()
        gate, begun, others = asyncio.Event(), list[int](), list[int]()

        @wind.on("T", purpose="p", concurrency=1)
        async def handle(number: int) -> None:
            begun.append(number)
            if not number:
                await gate.wait()

        @wind.on("T", purpose="q")
        async def other(number: int) -> None:
            others.append(number)

        async with wind:
            await wind.fire("T", 0)
            await until(lambda: begun == [0], "the first to be in its handler")
            await wind.pause("T", "p")
            gate.set()
            await until(lambda: others == [0])
            await wind.fire_many("T", [1, 2, 3])

            @wind.on("T", purpose="p")
            async def later(number: int) -> None:
                begun.append(number)

            await wind.joined()
            await until(lambda: others == [0, 1, 2, 3], "the other purpose to go on")
            await a_while()
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.state, counts.settled, counts.pending, counts.in_flight) == ("paused", 1, 3, 0)
            assert begun == [0]
            await wind.resume("T", "p")
            await wind.settled(60)
            assert sorted(begun) == [0, 1, 2, 3]
            assert await _state(wind) == "running"

    @on_loop
    async def test_a_purpose_is_paused_until_it_is_resumed_also_after_a_restart(self, place: Place) -> None:
        wind, seen = place.open(), list[int]()

        def handle(number: int) -> None:
            seen.append(number)

        wind.on("T", purpose="p")(handle)
        async with wind:
            await wind.joined()
            await wind.pause("T", "p")
            await wind.fire("T", 1)
        wind = place.restart()
        wind.on("T", purpose="p")(handle)
        async with wind:
            await wind.fire("T", 2)
            await a_while()
            assert (seen, await _state(wind)) == ([], "paused")
            await wind.resume("T", "p")
            await wind.settled(60)
        assert seen == [1, 2]

    @on_loop
    async def test_copies_of_a_paused_fanout_wait_in_their_buffers_or_are_dropped(self, place: Place) -> None:
        """Those that an instance's buffer has already wait there; of what is fired meanwhile nobody gets a copy."""
        wind = place.open()
        gate, seen = asyncio.Event(), list[int]()

        @wind.on("T", purpose="p", exchange="fanout", concurrency=1)
        async def handle(number: int) -> None:
            seen.append(number)
            await gate.wait()

        async with wind:
            await wind.fire_many("T", range(3))
            await until(lambda: seen == [0])
            await wind.pause("T", "p")
            await wind.fire_many("T", range(3, 7))
            gate.set()
            in_hand = (await wind.statistics()).purposes["T", "p"].in_flight
            await until(lambda: len(seen) >= in_hand)
            await a_while()
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.state, counts.dropped, counts.settled + counts.pending + counts.in_flight) == (
                "paused",
                4,
                3,
            )
            await wind.resume("T", "p")
            await wind.settled(60)
            assert seen == [0, 1, 2]

    @on_loop
    async def test_pausing_twice_or_resuming_what_is_not_paused_changes_nothing(self, place: Place) -> None:
        wind, seen = place.open(), list[int]()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.resume("T", "p")
            for _ in range(2):
                await wind.pause("T", "p")
                assert await _state(wind) == "paused"
            await wind.fire("T", 1)
            for _ in range(2):
                await wind.resume("T", "p")
            await wind.settled(60)
            assert (seen, await _state(wind)) == ([1], "running")
            for work in (wind.pause, wind.resume):
                await refused(work("T", "q"), NotFound, "'q'", "'T'")
                await refused(work("T", ""), BadName)

    @on_loop
    async def test_a_paused_purpose_is_retired_only_by_force_and_a_new_one_of_its_name_is_not_paused(
        self, place: Place
    ) -> None:
        wind, seen = place.open(), list[int]()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        async with wind:
            await wind.joined()
            await wind.pause("T", "p")
            await wind.off(handle)
            await refused(wind.retire("T", "p"), ConflictError, "'p'", "'T'", "paused", "resume", "force")
            assert await _state(wind) == "paused"
            await wind.retire("T", "p", force=True)
            wind.on("T", purpose="p")(handle)
            await wind.joined()
            await wind.fire("T", 1)
            await wind.settled(60)
        assert seen == [1]

    @on_loop
    async def test_settled_says_that_it_waits_for_a_purpose_that_is_paused(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        """In its error, and where it waits for long in the log."""
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle() -> None: ...

        async with wind:
            await wind.joined()
            await wind.pause("T", "p")
            await wind.fire("T")
            await refused(wind.settled(0.01), TimeoutError, "1 pending", "'p' on 'T', which is paused: resume it")
            with caplog.at_level(logging.WARNING):
                waiting = asyncio.ensure_future(wind.settled())
                await until(lambda: "which is paused" in caplog.text, "the log to say so")
            assert not waiting.done()
            await wind.resume("T", "p")
            await waiting

    @on_loop
    async def test_a_purpose_with_events_and_no_instance_has_nobody_up(self, place: Place) -> None:
        """Not one with nothing to do, nor a fan-out, whose events do not pend."""
        wind = place.open()

        async def handle() -> None: ...

        async with wind:
            first = wind.on("T", purpose="p")(handle)
            copied = wind.on("T", purpose="q", exchange="fanout")(handle)
            await wind.joined()
            await wind.off(first)
            assert await _state(wind) == "running"
            await wind.fire("T")
            assert await _state(wind) == "nobody up"
            await wind.settled(60)
            await wind.off(copied)
            await wind.fire("T")
            assert await _state(wind, purpose="q") == "running"
            wind.on("T", purpose="p")(handle)
            await wind.joined()
            await wind.settled(60)
            assert await _state(wind) == "running"

    @on_loop
    async def test_an_instance_that_leaves_is_up_until_it_has_nothing_in_hand(self, place: Place) -> None:
        wind = place.open()
        gate, begun = asyncio.Event(), list[int]()

        @wind.on("T", purpose="p", concurrency=1)
        async def handle(number: int) -> None:
            begun.append(number)
            await gate.wait()

        async def left() -> bool:
            return all(each.state == "leaving" for each in await wind.instances())

        async def is_up() -> bool:
            counts = (await wind.statistics()).purposes["T", "p"]
            return (counts.state, counts.instances, counts.pending, counts.in_flight) == ("running", 1, 1, 1)

        async with wind:
            await wind.fire("T", 1)
            await until(lambda: begun == [1])
            leaving = asyncio.ensure_future(wind.off(handle))
            await until(left, "it to leave")
            await wind.fire("T", 2)
            await until(is_up)
            assert not await wind.attention()
            gate.set()
            await leaving
            assert (begun, await _state(wind)) == ([1], "nobody up")

    @on_loop
    async def test_a_process_that_ends_soon_says_for_which_purposes_nobody_was_up(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not of those that it had an instance of itself, which is gone with it."""
        clock, wind = place.clock(), place.open()

        async def handle() -> None: ...

        async def both_pend() -> bool:
            return (await wind.statistics()).purposes["T", "renamed"].pending == 2

        async with wind:
            for purpose in ("renamed", "here"):
                wind.on("T", purpose=purpose)(handle)
            await wind.joined()
            await wind.off(handle)
            await wind.fire("T")
        caplog.clear()
        wind = place.restart()
        async with wind:
            wind.on("T", purpose="here")(handle)
            await wind.joined()
            await wind.off(handle)
            await wind.fire("T")
            await until(both_pend)
            await clock.advance(1)
        (line,) = [each.getMessage() for each in caplog.records if "nobody" in each.getMessage()]
        assert "nobody was up for purpose 'renamed' on topic 'T': 2 events pend" in line

    @on_loop
    async def test_the_log_says_that_nobody_is_up_soon_and_once_an_hour_from_then_on(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        """Not of a purpose that is paused, has nothing to do or is back soon; and again by the next dispatcher."""
        clock, wind = place.clock(), place.open()

        async def handle() -> None: ...

        async def other() -> None: ...

        def said() -> list[str]:
            lines = [each.getMessage() for each in caplog.records if "nobody is up" in each.getMessage()]
            caplog.clear()
            return [line.split("'")[1] for line in lines]

        async with wind:
            for purpose in ("gone", "paused", "back"):
                wind.on("T", purpose=purpose)(handle)
            wind.on("T", purpose="idle")(other)
            await wind.joined()
            await wind.pause("T", "paused")
            await wind.off(handle)
            await clock.advance(3)
            await wind.fire("T")
            wind.on("T", purpose="back")(handle)
            await wind.joined()
            await wind.settled(60)
            await wind.off(handle)
            await wind.off(other)
            await wind.fire("T")
            await wind.statistics()  # whoever dispatches has read the event
            await clock.advance(9)
            assert said() == ["gone"]
            wind.on("T", purpose="back")(handle)
            wind.on("T", purpose="idle")(other)
            await wind.joined()
            await wind.settled(60)
            await clock.advance(3_500)
            assert not said()
            await clock.advance(200)
            assert said() == ["gone"]
            await wind.resume("T", "paused")
            await clock.advance(120)
            assert said() == ["paused"]
        wind = place.restart()
        async with wind:
            await wind.statistics()  # there is an owner
            await clock.advance(30)
            assert said() == ["gone", "paused"]

    @on_loop
    async def test_the_log_says_soon_that_nobody_is_up_where_several_leave_one_after_another(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, wind = place.clock(), place.open()

        async def first() -> None: ...

        async def second() -> None: ...

        async with wind:
            wind.on("T", purpose="first")(first)
            wind.on("T", purpose="second")(second)
            await wind.joined()
            await wind.off(first)
            await clock.advance(5)
            await wind.off(second)
            await wind.fire("T")
            await wind.statistics()  # whoever dispatches has read the event
            await clock.advance(25)
            lines = [each.getMessage() for each in caplog.records if "nobody is up" in each.getMessage()]
            assert [line.split("'")[1] for line in lines] == ["first", "second"]

    @on_loop
    async def test_a_purpose_fails_while_its_handlers_raise_and_nothing_is_settled(self, place: Place) -> None:
        wind = place.open()
        fails, gate = True, asyncio.Event()

        @wind.on("T", purpose="p", retry=Retry(attempts=1_000, wait=0.01, ceiling=0.01))
        async def handle(number: int) -> None:
            if number:
                await gate.wait()
            elif fails:
                raise ValueError("no")

        async def is_failing() -> bool:
            return await _state(wind) == "failing"

        async def has_settled() -> bool:
            return (await wind.statistics()).purposes["T", "p"].settled == 1

        async with wind:
            await wind.fire("T", 0)
            await until(is_failing)
            await wind.fire("T", 1)
            fails = False
            await until(has_settled)
            assert await _state(wind) == "running", "though an event is still in hand"
            gate.set()
            await wind.settled(60)
            assert await _state(wind) == "running"

    @on_loop
    async def test_a_purpose_that_has_only_dead_letters_left_fails_for_an_hour(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            raise Reject("it is of no use")

        async def kinds() -> list[tuple[str, str]]:
            return [(each.kind, each.urgency) for each in await wind.attention()]

        async def is_growing() -> bool:
            return ("dead letters", "medium") in await kinds()

        async with wind:
            for _ in range(2):
                await wind.fire("T")
                await until(is_growing)
                await clock.advance(3_500)
                assert await _state(wind) == "failing"
                assert await kinds() == [("failing", "high"), ("dead letters", "medium")]
                await clock.advance(200)
                assert await _state(wind) == "running"
                assert await kinds() == [("dead letters", "low")]

    @on_loop
    async def test_a_purpose_that_settles_others_does_not_fail_when_one_event_does(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()

        @wind.on("T", purpose="p", retry=Retry(attempts=1_000, wait=20, factor=1))
        async def handle(number: int) -> None:
            if number:
                raise ValueError("no")

        async def has_retried() -> bool:
            return (await wind.statistics()).purposes["T", "p"].retried > 0

        async def is_failing() -> bool:
            return await _state(wind) == "failing"

        async with wind:
            await wind.fire("T", 0)
            await wind.settled(60)
            await wind.fire("T", 1)
            await until(has_retried)
            assert await _state(wind) == "running"
            await clock.advance(45)
            await until(is_failing)  # since nothing else was settled meanwhile

    @on_loop
    async def test_attention_names_what_needs_a_person_the_most_urgent_first(self, place: Place) -> None:
        """With since when, a sentence and the command that helps; and no longer once it is done."""
        wind = place.open()

        async def ok() -> None: ...

        async def never() -> None:
            raise Reject("it is of no use")

        async def kinds() -> list[str]:
            return [each.kind for each in await wind.attention()]

        async with wind:
            for purpose, function in (("gone", ok), ("fine", ok), ("dead", never), ("paused", ok)):
                wind.on("T", purpose=purpose)(function)
            await wind.joined()
            assert await kinds() == []
            await wind.off(ok)
            wind.on("T", purpose="fine")(ok)
            wind.on("T", purpose="paused")(ok)
            await wind.joined()
            await wind.pause("T", "paused")
            await wind.fire("T")
            await until(lambda: self._has_dead(wind))
            found = await wind.attention()
            assert {each.topic for each in found} == {"T"}
            assert [each.urgency for each in found] == ["high", "high", "medium", "low"]
            assert {(each.kind, each.purpose) for each in found} == {
                ("failing", "dead"),
                ("nobody up", "gone"),
                ("dead letters", "dead"),
                ("paused", "paused"),
            }
            said = {each.kind: each for each in found}
            assert "1 event pends" in said["nobody up"].text
            assert "it is of no use" in str(said["failing"].error)
            assert said["dead letters"].command == "solarwind dead list T dead"
            assert said["paused"].command == "solarwind resume T paused"
            assert all(each.since is not None for each in found)
            assert [each.kind for each in await wind.attention(limit=1)] == [found[0].kind]
            wind.on("T", purpose="gone")(ok)
            await wind.joined()
            await wind.resume("T", "paused")
            await wind.discard("T", "dead", None)
            await wind.settled(60)
            assert await kinds() == []

    @on_loop
    async def test_attention_knows_after_a_restart_when_the_last_dead_letter_died(self, place: Place) -> None:
        if not place.durable:
            return
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            raise Reject("no")

        async def letters(wind: SolarWind) -> list[Attention]:
            return [each for each in await wind.attention() if each.kind == "dead letters"]

        async with wind:
            await wind.fire("T", 1)
            await until(lambda: letters(wind))
            before = await letters(wind)
        assert [(each.urgency, each.since is not None) for each in before] == [("medium", True)]
        async with place.restart() as again:
            assert await letters(again) == before

    @on_loop
    async def test_attention_names_events_that_a_fanout_leaves_pending_and_names_that_look_like_options(
        self, place: Place
    ) -> None:
        wind = place.open()

        async def handle() -> None:
            raise Later(3600)

        async with wind:
            wind.on("T", purpose="--all")(handle)
            await wind.joined()
            id = await wind.fire("T")
            await until(lambda: self._is_waiting(wind, id))
            assert not await wind.attention()
            wind.on("T", purpose="--all", version=2, exchange="fanout")(handle)
            await wind.joined()
            (found,) = await wind.attention()
            assert (found.kind, found.urgency, found.purpose) == ("held back", "medium", "--all")
            assert "1 event pends from before its exchange became 'fanout'" in found.text
            assert found.command == "solarwind rollout show -- T --all"
            await wind.promote("T", "--all", 1)
            assert not await wind.attention()

    async def _is_waiting(self, wind: SolarWind, id: str) -> bool:
        return (await wind.event("T", id)).outcomes[0].state == "waiting"

    async def _has_dead(self, wind: SolarWind) -> bool:
        return bool((await wind.statistics()).purposes["T", "dead"].dead)

    @on_loop
    async def test_attention_names_an_instance_that_is_silent_until_it_is_heard_of(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()
        gate, begun = asyncio.Event(), list[int]()

        @wind.on("T", purpose="p", lease=20, concurrency=1)
        async def handle() -> None:
            begun.append(1)
            await gate.wait()

        async def silent() -> list[str]:
            return [each.text for each in await wind.attention() if each.kind == "silent instance"]

        async with wind:
            await wind.fire("T")
            await until(lambda: begun)
            assert not await silent()
            await clock.advance(21)
            (text,) = await silent()
            assert "lease ended" in text
            gate.set()
            await wind.settled(60)
            assert not await silent()

    @on_loop
    async def test_the_audit_has_each_verb_of_an_operator_with_who_when_and_how_many(self, place: Place) -> None:
        """The latest first, in pages, and nothing that only asks, is refused, or that a service states again."""
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p")
        async def handle() -> None:
            raise Reject("it is of no use")

        async with wind:
            before = await wind.audit()  # the setting of the topic
            await wind.fire_many("T", range(3))
            await wind.settled(60)
            await wind.pause("T", "p")
            letters = await wind.dead("T", "p")
            assert await wind.redrive("T", "p", [letters[0].event.id]) == 1
            await refused(wind.pause("T", "q"), NotFound)
            await refused(wind.retire("T", "p"), ConflictError)
            await wind.replay("T", "p", since="beginning", dry_run=True)
            await wind.replay("T", "p", since="beginning")
            await wind.statistics()
            found = (await wind.audit())[: len(await wind.audit()) - len(before)]
            assert [(each.verb, each.topic, each.purpose, each.events) for each in found] == [
                ("replay", "T", "p", 2),
                ("redrive", "T", "p", 1),
                ("pause", "T", "p", None),
            ]
            assert letters[0].event.id in found[1].arguments
            assert all(user_name() in each.by for each in found)
            assert [each.number for each in found] == sorted((each.number for each in found), reverse=True)
            assert found[0].time >= found[-1].time >= letters[0].event.time
            first = await wind.audit(limit=1)
            assert [*first, *await wind.audit(after=first.next, limit=2)] == found
            everything = await wind.audit()
        wind = place.restart()
        wind.topic("T", keep=3600)
        async with wind:
            assert await wind.audit() == everything
            await wind.resume("T", "p")
            (latest,) = await wind.audit(limit=1)
            assert (latest.verb, latest.number) == ("resume", everything[0].number + 1)
