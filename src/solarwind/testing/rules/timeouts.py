"""A handler's timeout: a call that takes longer is cancelled, and the attempt has failed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Annotated, Any

import pytest

from ...depends import Depends
from ...errors import BadArgument
from ...event import Event
from ...failure import Later, Retry
from .place import Place, on_loop, until

SOON_S = 0.05
LATE = "to return within 0.05 s, and it did not: its call was cancelled"
BAD: list[Any] = [0, -1, timedelta(0), float("nan"), True, "x", [1], 10**9]


async def for_ever() -> None:
    await asyncio.get_running_loop().create_future()


class TimeoutRules:
    """The rules of a handler's timeout."""

    @on_loop
    async def test_a_call_that_takes_longer_is_cancelled_and_is_a_failed_attempt(self, place: Place) -> None:
        wind, calls, fired = place.open(), list[str](), list[Any]()

        @wind.on("T", purpose="p", timeout=SOON_S, retry=Retry(attempts=2, wait=0))
        async def handle(event: Event) -> None:
            wind.fire("fired", event.attempt)
            calls.append(f"begins {event.attempt}")
            try:
                await for_ever()
            finally:
                calls.append(f"ends {event.attempt}")

        @wind.on("fired")
        async def hear(number: int) -> None:
            fired.append(number)

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            assert calls == ["begins 1", "ends 1", "begins 2", "ends 2"]
            assert fired == [], "what it fired counts only if it returns"
            [letter] = await wind.dead("T", "p")
            assert letter.attempts == 2
            assert letter.error.startswith("TimeoutError: expected handler ")
            assert letter.error.endswith(f"handle {LATE}")
            [instance] = [each for each in await wind.instances() if each.purpose == "p"]
            assert (instance.timeout, instance.error) == (SOON_S, letter.error)

    @on_loop
    async def test_a_timeout_is_for_one_call_and_the_next_has_its_own(self, place: Place) -> None:
        wind, handled = place.open(), list[int]()

        @wind.on("T", purpose="p", timeout=timedelta(seconds=SOON_S), concurrency=1, retry=Retry(attempts=1))
        async def handle(number: int) -> None:
            if number % 3 == 0:
                await for_ever()
            handled.append(number)

        async with wind:
            await wind.fire_many("T", range(10))
            await wind.settled(60)
            assert handled == [1, 2, 4, 5, 7, 8]
            assert len(await wind.dead("T", "p")) == 4

    @on_loop
    async def test_of_a_batch_that_takes_longer_only_those_have_failed_that_do_so_alone(self, place: Place) -> None:
        wind, handled = place.open(), list[int]()

        @wind.on("T", purpose="p", timeout=SOON_S, retry=Retry(attempts=1))
        async def handle(numbers: list[int]) -> None:
            if 5 in numbers:
                await for_ever()
            handled.extend(numbers)

        async with wind:
            await wind.fire_many("T", range(8))
            await wind.settled(60)
            assert sorted(handled) == [0, 1, 2, 3, 4, 6, 7]
            [letter] = await wind.dead("T", "p")
            assert (letter.event.payload, letter.error.endswith(LATE)) == (5, True)

    @on_loop
    async def test_a_handler_that_returns_though_it_was_cancelled_has_failed_and_later_counts(
        self, place: Place
    ) -> None:
        wind, attempts = place.open(), list[Any]()

        @wind.on("T", purpose="p", timeout=SOON_S, retry=Retry(attempts=2, wait=0))
        async def handle(what: str, event: Event) -> None:
            attempts.append((what, event.attempt))
            try:
                if len(attempts) < 3 or what == "return":
                    await for_ever()
            except asyncio.CancelledError:
                if what == "later":
                    raise Later(0) from None

        async with wind:
            await wind.fire("T", "later")
            await wind.settled(60)
            assert attempts == [("later", 1)] * 3
            await wind.fire("T", "return")
            await wind.settled(60)
            assert attempts[3:] == [("return", 1), ("return", 2)]
            [letter] = await wind.dead("T", "p")
            assert letter.error.endswith(LATE)

    @on_loop
    async def test_the_lease_goes_on_until_the_timeout_however_short_it_is(self, place: Place) -> None:
        wind, calls, others = place.open(), list[int](), list[Any]()

        @wind.on("T", purpose="p", lease=0.4, timeout=1.2, concurrency=1, retry=Retry(attempts=1))
        async def handle(event: Event) -> None:
            calls.append(event.attempt)
            await for_ever()

        async with wind:
            await wind.fire("T")
            await until(lambda: calls)
            async with wind.listen("T", "p") as events:

                async def read() -> None:
                    others.append(await anext(events))

                reading = asyncio.create_task(read())
                await until(lambda: wind.dead("T", "p"), "a dead letter")
                await wind.off(handle)
                reading.cancel()
            assert (calls, others) == ([1], [])
            [letter] = await wind.dead("T", "p")
            assert "within 1.2 s" in letter.error

    @on_loop
    async def test_it_is_for_all_that_is_around_the_handler_too_which_sees_the_cancellation(self, place: Place) -> None:
        wind, seen = place.open(), list[str]()

        async def session() -> AsyncIterator[int]:
            try:
                yield 1
            except asyncio.CancelledError:
                seen.append("rolled back")
                raise

        async def slow() -> int:
            await for_ever()
            return 1

        @wind.middleware
        async def watch(call_next: Any, handing: Any) -> None:
            try:
                await call_next(handing)
            except asyncio.CancelledError:
                seen.append(f"around {handing.purpose}")
                raise

        async def handle(event: Event, number: Any) -> None:
            await for_ever()

        async def wait(event: Event, number: Any) -> None:
            seen.append("never")

        handle.__annotations__["number"] = Annotated[int, Depends(session)]
        wait.__annotations__["number"] = Annotated[int, Depends(slow)]
        wind.on("T", purpose="p", timeout=SOON_S, retry=Retry(attempts=1))(handle)
        wind.on("U", purpose="q", timeout=SOON_S, retry=Retry(attempts=1))(wait)

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            assert seen == ["rolled back", "around p"]
            await wind.fire("U")
            await wind.settled(60)
            assert seen[2:] == ["around q"]
            for name in (("T", "p"), ("U", "q")):
                [letter] = await wind.dead(*name)
                assert letter.error.endswith(LATE)

    @on_loop
    async def test_a_stop_within_the_timeout_gives_the_event_back_and_no_attempt_failed(self, place: Place) -> None:
        wind, attempts = place.open(), list[int]()
        wind.topic("T", keep=3_600)

        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            if len(attempts) == 1:
                await for_ever()

        wind.on("T", purpose="p", timeout=600, retry=Retry(attempts=1))(handle)
        async with wind:
            await wind.fire("T")
            await until(lambda: attempts)
            await wind.stop(0)
        if place.durable:
            wind = place.restart()
            wind.on("T", purpose="p", timeout=600, retry=Retry(attempts=1))(handle)
            async with wind:
                await wind.settled(60)
                assert attempts == [1, 1]
                assert await wind.dead("T", "p") == []

    @on_loop
    async def test_what_is_no_timeout_is_refused_and_so_is_one_of_a_thread(self, place: Place) -> None:
        wind = place.open()
        for bad in BAD:
            with pytest.raises(BadArgument, match=r"^expected a timeout of more than 0 seconds .* got "):
                wind.on("T", timeout=bad)

        def on_a_thread(event: Event) -> None: ...

        def batch_on_a_thread(events: list[Event]) -> None: ...

        for handler in (on_a_thread, batch_on_a_thread):
            with pytest.raises(BadArgument, match=r"^expected a timeout only with an async def handler, got .*a def, "):
                wind.on("T", timeout=1)(handler)
