"""What is around a handler, its dependencies and the middleware, belongs to its call: it is over before the settle."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from typing import Annotated, Any

import pytest

from ...depends import Depends
from ...event import Event
from ...failure import Retry
from ...service.middleware import Handing
from .handlers import EVENTS, POISON, escapes, only_the_poisons_are_dead
from .place import Place, on_loop

KINDS = ["async", "def", "batch", "def batch"]


def wants(kind: str, dependency: Callable[..., Any], handle: Callable[[list[int], Any], None]) -> Callable[..., Any]:
    """Return a handler of that kind with this dependency, which calls `handle` with its payloads."""
    given = Annotated[Any, Depends(dependency)]

    async def each(number: int, made: Any) -> None:
        handle([number], made)

    def each_in_thread(number: int, made: Any) -> None:
        handle([number], made)

    async def batch(numbers: list[int], made: Any) -> None:
        handle(numbers, made)

    def batch_in_thread(numbers: list[int], made: Any) -> None:
        handle(numbers, made)

    made: dict[str, Callable[..., Any]] = {
        "async": each,
        "def": each_in_thread,
        "batch": batch,
        "def batch": batch_in_thread,
    }
    function = made[kind]
    function.__annotations__["made"] = given
    return function


class AroundRules:
    """The rules of dependencies and middleware."""

    @pytest.mark.parametrize("kind", KINDS)
    @pytest.mark.parametrize("is_async", [True, False])
    @on_loop
    async def test_what_a_dependency_fires_when_it_closes_is_committed_with_the_settle_or_not_at_all(
        self, place: Place, kind: str, is_async: bool
    ) -> None:
        wind = place.open()
        seen: list[str] = []
        children: list[int] = []

        def told() -> Iterator[list[str]]:
            notes: list[str] = []
            try:
                yield notes
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
            finally:
                wind.fire("closed", len(notes))

        async def told_on_the_loop() -> AsyncIterator[list[str]]:
            notes: list[str] = []
            try:
                yield notes
            except BaseException as error:
                seen.append(type(error).__name__)
                raise
            finally:
                wind.fire("closed", len(notes))

        attempts = 0

        def handle(numbers: list[int], notes: list[str]) -> None:
            nonlocal attempts
            attempts += 1
            notes += ["handled"] * attempts
            if attempts < 3:
                raise RuntimeError("not yet")

        dependency = told_on_the_loop if is_async else told
        wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0))(wants(kind, dependency, handle))

        @wind.on("closed", purpose="q")
        async def closed(count: int) -> None:
            children.append(count)

        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert children == [3]
        assert seen == ["RuntimeError", "RuntimeError"]
        assert (counts.settled, counts.dead) == (1, 0)

    @pytest.mark.parametrize("kind", KINDS)
    @on_loop
    async def test_a_dependency_that_raises_or_fails_to_close_is_a_failed_attempt(
        self, place: Place, kind: str
    ) -> None:
        wind = place.open()
        handled = {"opens": Counter[int](), "closes": Counter[int]()}

        def opens(event: Event) -> Callable[[list[int]], None]:
            if event.payload == POISON:
                raise RuntimeError("cannot open")
            return handled["opens"].update

        def opens_all(events: list[Event]) -> Callable[[list[int]], None]:
            for event in events:
                opens(event)
            return handled["opens"].update

        def closes() -> Iterator[Callable[[list[int]], None]]:
            numbers: list[int] = []
            yield numbers.extend
            if POISON in numbers:
                raise RuntimeError("cannot close")
            handled["closes"].update(numbers)

        def handle(numbers: list[int], note: Callable[[list[int]], None]) -> None:
            note(numbers)

        retry = Retry(attempts=2, wait=0)
        wind.on("opens", purpose="p", retry=retry)(wants(kind, opens_all if "batch" in kind else opens, handle))
        wind.on("closes", purpose="p", retry=retry)(wants(kind, closes, handle))
        assert await only_the_poisons_are_dead(wind, handled) == [
            "RuntimeError: cannot open",
            "RuntimeError: cannot close",
        ]

    @pytest.mark.parametrize("kind", KINDS)
    @on_loop
    async def test_whatever_a_handler_raises_through_a_dependency_and_a_middleware_is_a_failed_attempt(
        self, place: Place, kind: str
    ) -> None:
        wind = place.open()
        raised = {name.replace(" ", "-"): make for name, make in escapes().items()}
        handled: dict[str, Counter[int]] = {}
        opened, closed = Counter[str](), Counter[str]()

        @wind.middleware
        async def around(call_next: Callable[[Handing], Awaitable[Any]], handing: Handing) -> None:
            opened[handing.kind] += 1
            try:
                await call_next(handing)
            finally:
                closed[handing.kind] += 1

        async def unit() -> AsyncIterator[int]:
            opened["unit"] += 1
            try:
                yield 1
            finally:
                closed["unit"] += 1

        def register(topic: str, make: Callable[[], BaseException]) -> None:
            its = handled[topic] = Counter()

            def handle(numbers: list[int], made: int) -> None:
                if POISON in numbers:
                    raise make()
                its.update(numbers)

            wind.on(topic, purpose="p", retry=Retry(attempts=1))(wants(kind, unit, handle))

        for topic, make in raised.items():
            register(topic, make)
        await only_the_poisons_are_dead(wind, handled)
        assert opened == closed
        assert opened["unit"] == opened["handle"] >= len(raised) * (2 if "batch" in kind else EVENTS)
