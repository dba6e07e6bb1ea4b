"""What waits for a retry is handed out at once when somebody says so; and what is said before history is trimmed."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from ...errors import NotFound
from ...event import Event
from ...failure import Later, Reject, Retry
from ...operations import Internal
from ...records import FieldTypes, RetryInfo
from ...wind import SolarWind
from .place import Place, on_loop, refused, until

HOURS = Retry(attempts=9, wait=36_000.0, factor=2.0, ceiling=360_000.0)  # longer than any test


class ResendingRules:
    """The rules of retries that somebody does not wait for, of the types of payloads, and of what a trim would take."""

    @on_loop
    async def test_what_waits_for_a_retry_is_listed_the_next_one_first_with_its_attempts_and_its_last_error(
        self, place: Place
    ) -> None:
        place.chance(lambda: 0.5)
        wind, before = place.open(), datetime.now(UTC)
        _failing(wind, lambda number: ValueError(f"no {number} " + "x" * 1_000))
        async with wind:
            assert await wind.retries("T", "p") == []
            ids = [await _failed(wind, number) for number in range(3)]
            found = await wind.retries("T", "p")
            assert sorted(each.id for each in found) == sorted(ids)
            assert [each.due for each in found] == sorted(each.due for each in found)
            assert {each.key for each in found} == {"key 0", "key 1", "key 2"}
            for each in found:
                assert (each.attempts, each.version) == (1, 1)
                assert each.error is not None
                assert each.error.startswith("ValueError: no ")
                assert len(each.error) == 300
                assert each.due > before + timedelta(hours=3)
            assert found.next is None
            first = await wind.retries("T", "p", limit=2)
            rest = await wind.retries("T", "p", first.next, limit=2)
            assert [*first, *rest] == [*found]
            assert (len(first), rest.next) == (2, None)
            (shown,) = (await wind.event("T", ids[0])).outcomes
            assert shown.state == "waiting"
            assert shown.error is not None
            assert shown.error.startswith("ValueError: no 0")

    @on_loop
    async def test_what_waits_for_a_retry_is_handed_out_now_and_counted_first(self, place: Place) -> None:
        wind, fails = place.open(), [True]
        tries = _failing(wind, lambda number: RuntimeError("not yet") if fails[0] else None)
        async with wind:
            ids = [await _failed(wind, number) for number in range(3)]
            assert await wind.retry("T", "p", dry_run=True) == 3
            assert len(tries) == 3
            assert await wind.retry("T", "p") == 3
            await until(lambda: len(tries) == 6, "each to be tried once more")
            await until(lambda: _waits(wind, 3), "they wait again")
            assert {each.attempts for each in await wind.retries("T", "p")} == {2}
            fails[0] = False
            assert await wind.retry("T", "p") == 3
            await wind.settled(60)
            assert sorted(tries[6:]) == [0, 1, 2]
            assert await wind.retry("T", "p") == 0
            assert await wind.retries("T", "p") == []
            assert len(ids) == 3

    @on_loop
    async def test_dead_letters_are_handed_out_with_what_waits_if_that_is_said(self, place: Place) -> None:
        wind, fault = place.open(), [True]
        tries = _failing(
            wind, lambda number: (Reject("dead") if number == 1 else ValueError("waits")) if fault[0] else None
        )
        async with wind:
            await _failed(wind, 0)
            await wind.fire("T", 1)
            await until(lambda: _has_dead(wind, 1), "a dead letter")
            assert await wind.retry("T", "p", dry_run=True) == 1
            assert await wind.retry("T", "p", dead=True, dry_run=True) == 2
            assert await _has_dead(wind, 1)
            fault[0] = False
            assert await wind.retry("T", "p", dead=True) == 2
            await wind.settled(60)
            assert sorted(tries) == [0, 0, 1, 1]
            assert await _has_dead(wind, 0)

    @on_loop
    async def test_the_order_of_a_key_holds_where_its_first_event_is_not_waited_for(self, place: Place) -> None:
        wind, fails = place.open(), [True]
        seen: list[int] = []

        @wind.on("T", purpose="p", exchange="keyed", retry=HOURS)
        async def handle(number: int) -> None:
            seen.append(number)
            if number == 0 and fails[0]:
                raise ValueError("not yet")

        async with wind:
            for number in range(4):
                await wind.fire("T", number, key="k")
            await until(lambda: _waits(wind, 1), "the first to wait")
            assert seen == [0]
            fails[0] = False
            assert await wind.retry("T", "p") == 1
            await wind.settled(60)
            assert seen == [0, 0, 1, 2, 3]

    @on_loop
    async def test_what_its_handler_wants_later_is_handed_out_now_too_and_has_no_error(self, place: Place) -> None:
        wind, asks = place.open(), [True]
        tries = _failing(wind, lambda number: Later(36_000) if asks[0] else None)
        async with wind:
            await _failed(wind, 0)
            (found,) = await wind.retries("T", "p")
            assert (found.attempts, found.error) == (0, None)
            asks[0] = False
            assert await wind.retry("T", "p") == 1
            await wind.settled(60)
            assert tries == [0, 0]

    @on_loop
    async def test_a_paused_purpose_hands_out_what_is_not_waited_for_once_it_is_resumed(self, place: Place) -> None:
        wind, fails = place.open(), [True]
        tries = _failing(wind, lambda number: ValueError("not yet") if fails[0] else None)
        async with wind:
            await _failed(wind, 0)
            await wind.pause("T", "p")
            fails[0] = False
            assert await wind.retry("T", "p") == 1
            assert await wind.retries("T", "p") == []
            assert tries == [0]
            await wind.resume("T", "p")
            await wind.settled(60)
            assert tries == [0, 0]

    @on_loop
    async def test_retries_of_a_purpose_that_is_not_there_are_refused(self, place: Place) -> None:
        wind = place.open()
        _failing(wind, lambda number: None)
        async with wind:
            await wind.fire("T", 0)
            await wind.settled(60)
            await refused(wind.retries("T", "other"), NotFound, "'other'")
            await refused(wind.retry("T", "other"), NotFound, "'other'")
            await refused(wind.retry("U", "p"), NotFound)

    # Types of payloads --------------------------------------------------------------------------------

    @on_loop
    async def test_the_types_of_payloads_are_those_of_the_newest_events_with_the_fields_of_objects(
        self, place: Place
    ) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            before = await wind.fire("T", "the oldest, which is looked at no more")
            payloads: list[Any] = [{"id": 1, "user": {"name": "ann", "deep": {"er": {"est": 1}}}}, {"id": "x"}]
            for each in (*payloads, [1], 2, 2.5, True, None, b"\x00"):
                await wind.fire("T", each)
            found = await wind.types("T", limit=8)
            assert (found.topic, found.events, found.more) == ("T", 8, False)
            assert found.since is not None
            assert found.until is not None
            assert found.since <= found.until
            assert found.types == {
                "object": 2,
                "array": 1,
                "number": 2,
                "boolean": 1,
                "null": 1,
                "application/octet-stream": 1,
            }
            assert found.fields == (
                FieldTypes("id", 2, ("number", "string")),
                FieldTypes("user", 1, ("object",)),
                FieldTypes("user.name", 1, ("string",)),
                FieldTypes("user.deep", 1, ("object",)),
                FieldTypes("user.deep.er", 1, ("object",)),
            )
            assert (await wind.types("T")).types["string"] == 1
            assert before
            await refused(wind.types("other"), NotFound, "'other'")

    @on_loop
    async def test_of_payloads_with_very_many_fields_only_some_are_said(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", keep=3600)
        async with wind:
            await wind.fire("T", {f"field {number}": number for number in range(1_000)})
            await wind.fire("T", {"n" * 1_000: 1})
            found = await wind.types("T")
            assert (len(found.fields), found.more) == (200, True)
            assert all(len(each.field) <= 100 for each in found.fields)

    # What a trim would take ---------------------------------------------------------------------------

    @on_loop
    async def test_what_a_topic_would_keep_is_said_before_it_is_set_and_nothing_is_trimmed_by_that(
        self, place: Place
    ) -> None:
        clock = place.clock()
        wind = place.open()
        wind.topic("T", keep=3600)

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            if number == 1:
                raise Reject("needed by a dead letter")

        async with wind:
            for number in range(8):
                await wind.fire("T", number)
                await wind.settled(60)
            clock.advance(600)
            said = await Internal.keep(wind, "T", 60, dry_run=True)
            assert (said.kept, said.keep, said.fired) == (1, 60, 8)
            assert 0 < said.kept_bytes < (await Internal.topic(wind, "T")).kept_bytes
            assert (await Internal.keep(wind, "T", 0, dry_run=True)).kept == 1
            assert (await Internal.keep(wind, "T", 7200, dry_run=True)).kept == 8
            assert (await Internal.keep(wind, "T", keep_bytes=1, dry_run=True)).kept == 1
            info = await Internal.topic(wind, "T")
            assert (info.kept, info.keep, info.keep_bytes) == (8, 3600, None)
            await refused(Internal.keep(wind, "other", 60, dry_run=True), NotFound, "'other'")
            assert [each.topic for each in await wind.topics()] == ["T"]
            await Internal.keep(wind, "T", 60)

            async def trimmed() -> bool:
                return (await Internal.topic(wind, "T")).kept == said.kept

            await until(trimmed, "as much to be kept as was said", meanwhile=lambda: clock.advance(1))

    @on_loop
    async def test_a_rollback_is_to_the_version_that_was_current_before_and_to_none_where_there_was_none(
        self, place: Place
    ) -> None:
        wind = place.open()
        for version in (1, 2):
            wind.on("T", purpose="p", version=version, rollout="hold" if version == 2 else "newest")(_ok)
        async with wind:
            await wind.joined()
            assert (await wind.rollout("T", "p")).before is None
            assert (await wind.promote("T", "p", 2)).before == 1
            assert (await wind.rollback("T", "p")).before is None

    @on_loop
    async def test_each_topic_has_one_owner(self, place: Place) -> None:
        wind = place.open()
        for topic in "TUV":
            wind.on(topic, purpose="p")(_ok)
        async with wind:
            for topic in "TUV":
                await wind.fire(topic)

            async def owned() -> bool:
                owners = await wind.owners()
                assert all(each.stream for each in owners)
                assert sorted(topic for each in owners for topic in each.topics or ()) == ["T", "U", "V"]
                return all(each.owner for each in owners)

            await until(owned, "each to have an owner")


async def _ok(event: Event) -> None: ...


def _failing(wind: SolarWind, fault: Callable[[int], Exception | None]) -> list[int]:
    """Have a handler raise what `fault` returns for a number. Return the numbers as they are tried."""
    tries: list[int] = []

    @wind.on("T", purpose="p", retry=HOURS, concurrency=1)
    async def handle(number: int) -> None:
        tries.append(number)
        error = fault(number)
        if error is not None:
            raise error

    return tries


async def _failed(wind: SolarWind, number: int) -> str:
    """Fire an event, wait until it waits, and return its id."""
    id = await wind.fire("T", number, key=f"key {number}")

    async def waits() -> bool:
        return id in {each.id for each in await _waiting(wind)}

    await until(waits, "it waits for its retry")
    return id


async def _waiting(wind: SolarWind) -> list[RetryInfo]:
    return await wind.retries("T", "p")


async def _waits(wind: SolarWind, number: int) -> bool:
    return len(await _waiting(wind)) == number


async def _has_dead(wind: SolarWind, number: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].dead == number
