"""Handlers that raise: retries, `Later`, `Reject`, and dead letters."""

from __future__ import annotations

import asyncio
import logging
import re
import threading
from datetime import UTC, datetime

import pytest

from ...errors import BadArgument, NotFound
from ...event import Event
from ...failure import Later, Reject, Retry
from ...wind import SolarWind
from .place import Place, a_while, on_loop, refused, until

AT_ONCE = Retry(attempts=3, wait=0)


class FailingRules:
    """The rules of failure."""

    @on_loop
    async def test_an_event_is_a_dead_letter_after_its_last_attempt(self, place: Place) -> None:
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=AT_ONCE)
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            raise KeyError("no such video")

        before = datetime.now(UTC)
        async with wind:
            id = await wind.fire("T", {"a": 1})
            await wind.settled(60)
            letters = await wind.dead("T", "p")
            counts = (await wind.statistics()).purposes["T", "p"]
        assert attempts == [1, 2, 3]
        assert len(letters) == 1
        assert letters[0].event.id == id
        assert letters[0].event.payload == {"a": 1}
        assert letters[0].attempts == 3
        assert letters[0].error == "KeyError: 'no such video'"
        assert letters[0].time >= before
        assert (counts.dead, counts.retried, counts.settled, counts.pending) == (1, 2, 0, 0)

    @on_loop
    async def test_a_version_retries_as_the_last_of_its_instances_stated(self, place: Place) -> None:
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=600.0, ceiling=600.0))
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            raise KeyError("no such video")

        async with wind:
            pass
        wind = place.restart()
        wind.on("T", purpose="p", retry=AT_ONCE)(handle)
        async with wind:
            async with wind.listen("T", "p"):  # which states nothing of it
                pass
            await wind.fire("T", 1)
            await wind.settled(60)
            (letter,) = await wind.dead("T", "p")
        assert attempts == [1, 2, 3]
        assert letter.attempts == 3

    @on_loop
    async def test_an_event_whose_retry_succeeds_is_settled(self, place: Place) -> None:
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=AT_ONCE)
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            if event.attempt < 3:
                raise RuntimeError("not yet")

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert attempts == [1, 2, 3]
        assert (counts.dead, counts.retried, counts.settled) == (0, 2, 1)

    @on_loop
    async def test_waits_before_retries_grow_by_the_factor_up_to_the_ceiling(self, place: Place) -> None:
        """The wait is up to wait * factor ** (n - 1), at most the ceiling: with the largest random number, just
        that."""
        clock = place.clock()
        place.chance(lambda: 1.0)
        await self._waits(place, clock.advance, [1.0, 2.0, 4.0, 5.0, 5.0])

    @on_loop
    async def test_the_wait_before_a_retry_has_full_jitter(self, place: Place) -> None:
        """The wait is a random part of the longest: half of it for a random number of one half."""
        clock = place.clock()
        place.chance(lambda: 0.5)
        await self._waits(place, clock.advance, [0.5, 1.0, 2.0, 2.5, 2.5])

    @staticmethod
    async def _waits(place: Place, advance: object, expected: list[float]) -> None:
        assert callable(advance)
        wind = place.open()
        tries = 0

        @wind.on("T", purpose="p", retry=Retry(attempts=6, wait=1.0, factor=2.0, ceiling=5.0))
        async def handle() -> None:
            nonlocal tries
            tries += 1
            raise RuntimeError("no")

        async with wind:
            await wind.fire("T")
            for number, seconds in enumerate(expected, start=1):
                await until(lambda number=number: tries == number)  # type: ignore[misc]
                await until(lambda: _counts(wind, retried=number, in_flight=0))  # noqa: B023
                advance(seconds - 0.01)
                await a_while()
                assert tries == number, "it came too soon"
                advance(0.02)
            await wind.settled(60)
            assert (await wind.dead("T", "p"))[0].attempts == 6

    @on_loop
    async def test_the_log_says_which_attempt_failed_and_what_comes_next(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.05, factor=1))
        async def handle() -> None:
            raise RuntimeError("no database")

        async with wind:
            id = await wind.fire("T")
            await wind.settled(60)
        texts = [record.getMessage() for record in caplog.records if ", attempt" in record.getMessage()]
        assert [re.sub(r"0\.\d s", "0.N s", text.partition(", attempt")[2]) for text in texts] == [
            " 1 of 2, again in 0.N s",
            " 2 of 2, now a dead letter",
        ]
        assert all(word in text for text in texts for word in (id, "'T'", "'p'"))

    def test_the_wait_before_a_retry_stays_within_its_bounds(self) -> None:
        """The wait is within its bounds for the defaults, however often the event was tried."""
        retry = Retry()
        assert (retry.attempts, retry.wait, retry.factor, retry.ceiling) == (12, 1.0, 2.0, 600.0)
        for tried in (1, 2, 5, 7, 100, 10_000):
            longest = min(600.0, 2.0 ** (tried - 1) if tried < 60 else 600.0) * 1e9
            assert retry.delay_ns(tried, lambda: 0.0) == 0
            assert retry.delay_ns(tried, lambda: 0.999) == pytest.approx(0.999 * longest)

    @on_loop
    async def test_nothing_else_waits_for_a_retry(self, place: Place) -> None:
        """Of 1,000 events one always fails: 999 are handled while no time passes, and one becomes a dead letter."""
        clock = place.clock()
        place.chance(lambda: 1.0)
        wind = place.open()
        seen: set[int] = set()
        tries = 0

        @wind.on("T", purpose="p", retry=Retry(attempts=3))
        async def handle(number: int) -> None:
            nonlocal tries
            if number == 500:
                tries += 1
                raise RuntimeError("poison")
            seen.add(number)

        async with wind:
            await wind.fire_many("T", range(1_000))
            await until(lambda: len(seen) == 999, "all the others")
            await until(lambda: _counts(wind, settled=999, pending=1, in_flight=0))
            await refused(wind.settled(0.01), TimeoutError, "1 pending (1 of them for a retry)", "'p' on 'T'")
            await until(lambda: tries == 3, "the poison to be tried", meanwhile=lambda: clock.advance(1))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [500]
        assert (counts.settled, counts.dead, counts.retried) == (999, 1, 2)

    @on_loop
    async def test_one_poison_among_a_thousand_on_threads(self, place: Place) -> None:
        """The same holds for handlers on threads."""
        wind = place.open()
        seen: list[int] = []
        guard = threading.Lock()

        @wind.on("T", purpose="p", retry=AT_ONCE, concurrency=3)
        def handle(number: int) -> None:
            if number == 500:
                raise RuntimeError("poison")
            with guard:
                seen.append(number)

        async with wind:
            await wind.fire_many("T", range(1_000))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert sorted(seen) == [number for number in range(1_000) if number != 500]
        assert (counts.settled, counts.dead) == (999, 1)

    @on_loop
    async def test_later_hands_the_event_out_again_without_counting_the_attempt(self, place: Place) -> None:
        clock = place.clock()
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            if len(attempts) < 4:
                raise Later(30)

        async with wind:
            await wind.fire("T")
            for number in (1, 2, 3):
                await until(lambda: len(attempts) == number)  # noqa: B023
                await until(lambda: _counts(wind, pending=1, in_flight=0))
                clock.advance(29.9)
                await a_while()
                assert len(attempts) == number
                clock.advance(0.2)
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert attempts == [1, 1, 1, 1]
        assert (counts.settled, counts.retried, counts.dead) == (1, 0, 0)

    @on_loop
    async def test_reject_is_dead_at_once(self, place: Place) -> None:
        wind = place.open()
        calls: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(event: Event) -> None:
            calls.append(event.attempt)
            raise Reject("the video is no video")

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            letter = (await wind.dead("T", "p"))[0]
        assert calls == [1]
        assert (letter.error, letter.attempts) == ("the video is no video", 1)

    @on_loop
    async def test_a_payload_that_does_not_fit_is_dead_at_once(self, place: Place) -> None:
        """The error says what was expected, what came, and where; the other events are handled."""
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(payload: dict[str, int]) -> None:
            seen.append(payload["n"])

        async with wind:
            await wind.fire_many("T", [{"n": 1}, {"n": "two"}, [3], b"four", {"n": 5}])
            await wind.settled(60)
            letters = await wind.dead("T", "p")
        assert seen == [1, 5]
        assert [letter.error for letter in letters] == [
            "expected int, got str at $[...]",
            "expected object, got array at $",
            "expected JSON for dict, got application/octet-stream at $",
        ]
        assert [letter.attempts for letter in letters] == [1, 1, 1]

    @on_loop
    async def test_a_cancellation_inside_a_handler_is_a_failed_attempt(self, place: Place) -> None:
        """A handler that cancels itself, or lets another's cancellation through, does not stop its instance."""
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p", retry=AT_ONCE, concurrency=1)
        async def handle(number: int) -> None:
            if number == 0:
                raise asyncio.CancelledError
            seen.append(number)

        async with wind:
            await wind.fire_many("T", range(5))
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert seen == [1, 2, 3, 4]
        assert (counts.dead, counts.settled, counts.in_flight) == (1, 4, 0)

    @on_loop
    async def test_a_base_exception_is_a_failed_attempt(self, place: Place) -> None:
        """A `BaseException` such as that of `pytest.fail()` does not cost the instance a worker."""

        class Mine(BaseException): ...

        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p", retry=AT_ONCE, concurrency=1)
        async def handle(number: int) -> None:
            if number == 0:
                raise Mine("no")
            seen.append(number)

        @wind.on("T", purpose="on a thread", retry=AT_ONCE)
        def handle_on_a_thread(number: int) -> None:
            if number == 0:
                raise Mine("no")

        async with wind:
            await wind.fire_many("T", range(5))
            await wind.settled(60)
            purposes = (await wind.statistics()).purposes
        assert seen == [1, 2, 3, 4]
        for purpose in ("p", "on a thread"):
            counts = purposes["T", purpose]
            assert (counts.dead, counts.settled, counts.in_flight) == (1, 4, 0)

    @on_loop
    async def test_the_log_says_once_which_event(self, place: Place, caplog: pytest.LogCaptureFixture) -> None:
        """A handler's exception is logged once for each attempt, with the event's id, topic, purpose and attempt."""
        wind = place.open()

        @wind.on("T", purpose="Encode it", retry=Retry(attempts=2, wait=0))
        async def handle() -> None:
            raise RuntimeError("no disk")

        with caplog.at_level(logging.WARNING, "solarwind"):
            async with wind:
                id = await wind.fire("T")
                await wind.settled(60)
        records = [record for record in caplog.records if id in record.getMessage()]
        assert len(records) == 2
        for attempt, record in enumerate(records, start=1):
            assert record.exc_info is not None
            for word in (id, "'T'", "'Encode it'", f"attempt {attempt}"):
                assert word in record.getMessage()

    @on_loop
    async def test_exceptions_of_different_classes_are_each_in_the_log(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle(number: int) -> None:
            raise (RuntimeError("no disk"), KeyError("customer"))[number]

        with caplog.at_level(logging.WARNING, "solarwind"):
            async with wind:
                ids = [await wind.fire("T", number) for number in (0, 1)]
                await wind.settled(60)
        raised = [record for record in caplog.records if record.exc_info is not None]
        assert [each for each in ids if any(each in record.getMessage() for record in raised)] == ids

    @on_loop
    async def test_many_rejected_events_are_one_line_and_at_the_end_their_number(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="Encode it")
        async def handle(number: int) -> None:
            raise Reject("an empty video")

        with caplog.at_level(logging.WARNING, "solarwind"):
            async with wind:
                await wind.fire_many("T", range(50))
                await wind.settled(60)
        lines = [record.getMessage() for record in caplog.records if "rejected" in record.getMessage()]
        assert len(lines) == 2
        assert "(the last of 49 more like it in " in lines[1]
        for line in lines:
            for word in ("'T'", "'Encode it'", "an empty video"):
                assert word in line

    @on_loop
    async def test_dead_letters_are_redriven_and_discarded(self, place: Place) -> None:
        """Both act on some or on all, and return how many. A redriven event starts with no attempts."""
        wind = place.open()
        broken = True
        seen: list[tuple[int, int]] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0))
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.attempt))
            if broken:
                raise RuntimeError("no")

        async with wind:
            ids = (await wind.fire_many("T", range(6))).ids
            await wind.settled(60)
            assert [letter.event.id for letter in await wind.dead("T", "p")] == ids
            first = await wind.dead("T", "p", limit=4)
            second = await wind.dead("T", "p", first.next, 4)
            pages = [[letter.event.id for letter in page] for page in (first, second)]
            assert (pages, second.next) == ([ids[:4], ids[4:]], None)
            await refused(wind.dead("T", "p", "x"), BadArgument, "after as the `next`", "'x'")
            await refused(wind.redrive("T", "p", [ids[0], "nobody"]), NotFound, "nobody", "'p'")
            await refused(wind.discard("T", "p", ["nobody"]), NotFound, "nobody")
            await refused(wind.dead("T", "q"), NotFound, "'q'")
            assert len(await wind.dead("T", "p")) == 6, "nothing was half-done"
            broken = False
            seen.clear()
            assert await wind.redrive("T", "p", [ids[4], ids[1]]) == 2
            await wind.settled(60)
            assert sorted(seen) == [(1, 1), (4, 1)]
            assert await wind.discard("T", "p", [ids[0]]) == 1
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [2, 3, 5]
            assert await wind.redrive("T", "p") == 3
            await wind.settled(60)
            assert await wind.redrive("T", "p") == 0
            counts = (await wind.statistics()).purposes["T", "p"]
            assert await wind.discard("T", "p", None) == 0
        assert (counts.dead, counts.settled) == (0, 5)

    @on_loop
    async def test_failures_outlive_a_restart(self, place: Place) -> None:
        """Attempts, waits and dead letters are as durable as the events."""
        clock = place.clock()
        place.chance(lambda: 1.0)
        attempts: list[int] = []

        def service() -> SolarWind:
            wind = place.restart()

            @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=100.0, factor=1.0, ceiling=100.0))
            async def handle(what: str, event: Event) -> None:
                if what == "reject":
                    raise Reject("no")
                attempts.append(event.attempt)
                raise RuntimeError("no")

            return wind

        async with service() as wind:
            await wind.fire_many("T", ["raise", "reject"])
            await until(lambda: _counts(wind, retried=1, dead=1, in_flight=0))
        async with service() as wind:
            await a_while()
            assert attempts == [1], "its wait is not over"
            clock.advance(101)
            await until(lambda: _counts(wind, retried=2, in_flight=0))
        async with service() as wind:
            clock.advance(101)
            await wind.settled(60)
        assert attempts == [1, 2, 3]
        async with place.restart() as wind:
            letters = await wind.dead("T", "p")
            assert [(letter.event.payload, letter.attempts, letter.error) for letter in letters] == [
                ("raise", 3, "RuntimeError: no"),
                ("reject", 1, "no"),
            ]
            assert await wind.discard("T", "p", [letters[0].event.id]) == 1
        async with place.restart() as wind:
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == ["reject"]


async def _counts(wind: SolarWind, **expected: int) -> bool:
    """Return whether the statistics of purpose p on T have these values."""
    counts = (await wind.statistics()).purposes["T", "p"]
    return all(getattr(counts, name) == value for name, value in expected.items())
