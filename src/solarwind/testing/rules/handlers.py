"""Whatever a handler does to the worker that calls it concerns its own event only."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import sys
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from ...event import Cause, Event
from ...failure import Later, Reject, Retry
from ...wind import SolarWind
from .place import Place, on_loop, until

POISON = 7
EVENTS = 200
something: contextvars.ContextVar[object] = contextvars.ContextVar("something")
current_user: contextvars.ContextVar[str] = contextvars.ContextVar("current_user", default="nobody")


class Unprintable(Exception):
    def __str__(self) -> str:
        raise ValueError("no text")

    __repr__ = __str__


class UnprintableReject(Reject):
    def __str__(self) -> str:
        raise ValueError("no text")


class UnprintableLater(Later):
    def __str__(self) -> str:
        raise ValueError("no text")


class Own(BaseException):
    """A `BaseException` that is no `Exception`."""


class Unreadable(Exception):
    """An exception whose attributes all raise."""

    def __getattribute__(self, name: str) -> Any:
        raise SystemExit(name)


class Uncomparable:
    """A value whose comparison raises, like that of arrays."""

    def __eq__(self, other: object) -> bool:
        raise ValueError("neither equal nor not")

    __hash__ = object.__hash__


def escapes() -> dict[str, Callable[[], Any]]:
    """Return what a handler may raise, by name."""
    return {
        "CancelledError": lambda: asyncio.CancelledError(),
        "SystemExit": lambda: SystemExit(3),
        "KeyboardInterrupt": lambda: KeyboardInterrupt(),
        "GeneratorExit": lambda: GeneratorExit(),
        "StopIteration": lambda: StopIteration(5),
        "StopAsyncIteration": lambda: StopAsyncIteration(),
        "a BaseException": lambda: Own("own"),
        "an exception that cannot be printed": lambda: Unprintable(),
        "an exception that cannot be asked": lambda: Unreadable(),
        "a group": lambda: BaseExceptionGroup("several", [SystemExit(), Unprintable()]),
    }


def register(
    wind: SolarWind, kind: str, poison: Callable[[], object], attempts: int = 2, topic: str = "T"
) -> Counter[int]:
    """Register a handler of this kind that does `poison` at one event. Return how often each event was handled."""
    handled: Counter[int] = Counter()

    def handle(numbers: list[int]) -> None:
        if POISON in numbers:
            poison()
        handled.update(numbers)

    on = wind.on(topic, purpose="p", retry=Retry(attempts=attempts, wait=0))
    if kind == "async":

        @on
        async def each(number: int) -> None:
            handle([number])

    elif kind == "def":

        @on
        def each_on_a_thread(number: int) -> None:
            handle([number])

    elif kind == "batch":

        @on
        async def batch(numbers: list[int]) -> None:
            handle(numbers)

    else:

        @on
        def batch_on_a_thread(numbers: list[int]) -> None:
            handle(numbers)

    return handled


async def only_the_poison_is_dead(wind: SolarWind, handled: Counter[int]) -> str:
    """Wait until only that event is a dead letter, and return its error."""
    (error,) = await only_the_poisons_are_dead(wind, {"T": handled})
    return error


async def only_the_poisons_are_dead(wind: SolarWind, handled: dict[str, Counter[int]]) -> list[str]:
    """Wait until only that event of each topic is a dead letter, and return their errors."""
    errors = []
    async with wind:
        for topic in handled:
            await wind.fire_many(topic, range(EVENTS))
        await wind.settled(60)
        for topic, its in handled.items():
            dead = await wind.dead(topic, "p")
            assert [letter.event.payload for letter in dead] == [POISON], topic
            assert sorted(its) == [number for number in range(EVENTS) if number != POISON], topic
            counts = (await wind.statistics()).purposes[topic, "p"]
            assert (counts.settled, counts.dead, counts.pending, counts.in_flight) == (EVENTS - 1, 1, 0, 0), topic
            errors.append(dead[0].error)
    return errors


class HandlerRules:
    """The rules of calling handlers."""

    @pytest.mark.parametrize("kind", ["async", "def", "batch", "def batch"])
    @on_loop
    async def test_whatever_a_handler_raises_is_a_failed_attempt(self, place: Place, kind: str) -> None:
        def poison(make: Callable[[], BaseException]) -> None:
            raise make()

        wind = place.open()
        raised = {name.replace(" ", "-"): make for name, make in escapes().items()}
        handled = {topic: register(wind, kind, partial(poison, make), topic=topic) for topic, make in raised.items()}
        for make, error in zip(raised.values(), await only_the_poisons_are_dead(wind, handled), strict=True):
            assert type(make()).__name__ in error or "RuntimeError: coroutine raised" in error

    @on_loop
    async def test_a_handler_that_cancels_its_own_task_is_a_failed_attempt(self, place: Place) -> None:
        wind = place.open()
        handled: list[int] = []
        cancelling: set[int] = set()

        @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0), concurrency=2)
        async def handle(number: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            cancelling.add(task.cancelling())
            if number == POISON:
                task.cancel()
                await asyncio.sleep(0)
            handled.append(number)

        async with wind:
            await wind.fire_many("T", range(20))
            await wind.settled(60)
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [POISON]
        assert sorted(handled) == [number for number in range(20) if number != POISON]
        assert cancelling == {0}

    @on_loop
    async def test_the_next_event_is_not_cancelled_by_one_that_returned_with_its_task_cancelled(
        self, place: Place
    ) -> None:
        wind = place.open()
        handled: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=1), concurrency=1)
        async def handle(number: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            if number % 2:
                await asyncio.sleep(0)
            else:
                task.cancel()
            handled.append(number)

        async with wind:
            await wind.fire_many("T", range(10))
            await wind.settled(60)
        assert handled == list(range(10))

    @on_loop
    async def test_a_handler_that_ends_the_program_in_a_def_on_a_thread_of_its_own_loop_fails(
        self, place: Place
    ) -> None:
        """A `def` handler calls `asyncio.run`, in which a task is cancelled."""

        async def cancelled() -> None:
            raise asyncio.CancelledError

        wind = place.open()
        await only_the_poison_is_dead(wind, register(wind, "def", lambda: asyncio.run(cancelled())))

    @pytest.mark.parametrize("kind", ["batch", "def batch"])
    @pytest.mark.parametrize("attempts", [1, 2])
    @on_loop
    async def test_one_poison_in_a_batch_takes_no_other_with_it(
        self, place: Place, caplog: pytest.LogCaptureFixture, kind: str, attempts: int
    ) -> None:
        """The batch is retried in halves at once, so that no attempt of the other events is counted."""
        calls = 0

        def poison() -> None:
            nonlocal calls
            calls += 1
            raise RuntimeError("poison")

        wind = place.open()
        with caplog.at_level(logging.ERROR, "solarwind"):
            error = await only_the_poison_is_dead(wind, register(wind, kind, poison, attempts))
        assert error == "RuntimeError: poison"
        assert calls <= 9 + attempts
        assert len([record for record in caplog.records if record.exc_info]) <= calls

    @on_loop
    async def test_events_that_all_fail_in_a_batch_are_tried_as_often_as_retry_says(self, place: Place) -> None:
        wind = place.open()
        alone: Counter[int] = Counter()

        @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0))
        async def handle(numbers: list[int]) -> None:
            if len(numbers) == 1:
                alone[numbers[0]] += 1
            raise RuntimeError("no database")

        async with wind:
            await wind.fire_many("T", range(9))
            await wind.settled(60)
            dead = await wind.dead("T", "p")
        assert [(letter.event.payload, letter.attempts) for letter in dead] == [(number, 3) for number in range(9)]
        assert alone == Counter(dict.fromkeys(range(9), 3))

    @pytest.mark.parametrize("verdict", ["later", "reject"])
    @on_loop
    async def test_later_and_reject_of_a_batch_handler_are_about_the_whole_batch(
        self, place: Place, verdict: str
    ) -> None:
        wind = place.open()
        calls: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle(numbers: list[int]) -> None:
            calls.append(len(numbers))
            if verdict == "reject":
                raise Reject("none of them")
            if len(calls) == 1:
                raise Later(0)

        async with wind:
            await wind.fire_many("T", range(20))
            await wind.settled(60)
            assert len(await wind.dead("T", "p")) == (20 if verdict == "reject" else 0)
        assert calls[0] == 20
        assert sum(calls[1:]) == (0 if verdict == "reject" else 20)

    @on_loop
    async def test_later_and_reject_count_also_out_of_a_task_group(self, place: Place) -> None:
        wind = place.open()
        calls: Counter[str] = Counter()

        async def step(name: str) -> None:
            if name == "reject":
                raise Reject("an empty video")
            if name == "later" and calls[name] == 1:
                raise Later(0)

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle(name: str) -> None:
            calls[name] += 1
            async with asyncio.TaskGroup() as group:
                group.create_task(step(name))

        async with wind:
            await wind.fire_many("T", ["later", "reject"])
            await wind.settled(60)
            [dead] = await wind.dead("T", "p")
        assert dead.error == "an empty video"
        assert calls == {"later": 2, "reject": 1}

    @on_loop
    async def test_a_rejection_whose_text_cannot_be_read_is_one_all_the_same(self, place: Place) -> None:
        wind = place.open()
        attempts: list[int] = []
        rejections: list[Exception] = [
            Reject(Unprintable()),  # type: ignore[arg-type]
            UnprintableReject("no"),
            ExceptionGroup("several", [Unprintable(), UnprintableReject("no")]),
        ]

        @wind.on("T", purpose="p", retry=Retry(attempts=9, wait=0))
        async def handle(which: int, event: Event) -> None:
            attempts.append(event.attempt)
            raise rejections[which]

        async with wind:
            await wind.fire_many("T", range(len(rejections)))
            await wind.settled(60)
            assert attempts == [1, 1, 1]
            assert {letter.error for letter in await wind.dead("T", "p")} == {"(its text cannot be read)"}

    @on_loop
    async def test_a_later_whose_text_cannot_be_read_does_not_count_as_an_attempt(self, place: Place) -> None:
        wind = place.open()
        attempts: list[int] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=9, wait=0))
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            if len(attempts) == 1:
                raise UnprintableLater(0)

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            assert attempts == [1, 1]

    @pytest.mark.parametrize("kind", ["async", "def", "batch", "def batch"])
    @on_loop
    async def test_what_a_handler_sets_in_its_context_is_not_seen_by_the_next_event(
        self, place: Place, kind: str
    ) -> None:
        wind = place.open()
        seen: list[str] = []

        def handle(users: list[str]) -> None:
            seen.append(current_user.get())
            current_user.set(users[0])
            if users[0] == "eve":
                raise RuntimeError("eve")

        on = wind.on("T", purpose="p", retry=Retry(attempts=1), concurrency=1)
        if kind == "async":

            @on
            async def each(user: str) -> None:
                handle([user])

        elif kind == "def":

            @on
            def each_on_a_thread(user: str) -> None:
                handle([user])

        elif kind == "batch":

            @on
            async def batch(users: list[str]) -> None:
                handle(users)

        else:

            @on
            def batch_on_a_thread(users: list[str]) -> None:
                handle(users)

        current_user.set("whoever starts it")
        async with wind:
            for user in ("alice", "eve", "bob"):
                current_user.set(f"whoever fires for {user}")
                await wind.fire("T", user)
                await wind.settled(60)
            await wind.fire_many("T", ["carol", "dave"])
            await wind.settled(60)
        assert set(seen) == {"whoever starts it"}
        assert len(seen) == (4 if "batch" in kind else 5)

    @pytest.mark.parametrize("kind", ["async", "batch"])
    @on_loop
    async def test_what_a_handler_sets_in_its_context_may_be_anything(
        self, place: Place, kind: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()
        calls: list[int] = []
        on = wind.on("T", purpose="p", concurrency=1, batch=1 if kind == "batch" else None)

        def handle(number: int) -> None:
            calls.append(number)
            something.set(Uncomparable())

        if kind == "async":

            @on
            async def each(number: int) -> None:
                handle(number)

        else:

            @on
            async def batch(numbers: list[int]) -> None:
                handle(*numbers)

        something.set(Uncomparable())
        async with wind:
            await wind.fire_many("T", range(5))
            await wind.settled(60)
        assert calls == [0, 1, 2, 3, 4]
        assert not [
            record for record in caplog.records if record.name == "solarwind" and record.levelno >= logging.ERROR
        ]

    @on_loop
    async def test_a_handler_that_is_waiting_keeps_what_it_set_in_its_context(self, place: Place) -> None:
        wind = place.open()
        seen: dict[str, str] = {}
        gate = asyncio.Event()

        @wind.on("T", purpose="p", concurrency=5)
        async def handle(user: str) -> None:
            current_user.set(user)
            if len(seen) == 0:
                await gate.wait()
            seen[user] = current_user.get()

        async with wind:
            await wind.fire_many("T", [f"user {number}" for number in range(5)])
            await asyncio.sleep(0)
            gate.set()
            await wind.settled(60)
        assert seen == {f"user {number}": f"user {number}" for number in range(5)}

    @on_loop
    async def test_a_batch_that_fails_by_a_timeout_is_tried_in_parts_though_others_found_nothing_left(
        self, place: Place
    ) -> None:
        wind = place.open()
        handled: list[int] = []
        looked = asyncio.Event()

        @wind.on("T", purpose="p", retry=Retry(attempts=1), concurrency=3, batch=4)
        async def handle(numbers: list[int]) -> None:
            if 0 not in numbers:
                handled.extend(numbers)
                looked.set()
                return
            await looked.wait()
            await asyncio.sleep(0)
            async with asyncio.timeout(0):
                await asyncio.Event().wait()

        async with wind:
            await wind.fire_many("T", range(5))
            await wind.settled(60)
            assert [letter.event.payload for letter in await wind.dead("T", "p")] == [0]
        assert sorted(handled) == [1, 2, 3, 4]

    @on_loop
    async def test_a_log_that_raises_takes_no_attempt_with_it(self, place: Place) -> None:
        class Broken(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                sys.exit("no room for logs")

        def poison() -> None:
            raise RuntimeError("poison")

        wind = place.open()
        broken = Broken()
        logging.getLogger("solarwind").addHandler(broken)
        try:
            await only_the_poison_is_dead(wind, register(wind, "async", poison))
        finally:
            logging.getLogger("solarwind").removeHandler(broken)

    @on_loop
    async def test_a_worker_that_somebody_cancels_is_replaced(self, place: Place) -> None:
        """It is cancelled by its task, to which a library may keep a reference."""
        wind = place.open()
        tasks: set[asyncio.Task[Any]] = set()
        handled: list[int] = []

        @wind.on("T", purpose="p", concurrency=2)
        async def handle(number: int) -> None:
            task = asyncio.current_task()
            assert task is not None
            tasks.add(task)
            handled.append(number)
            await asyncio.sleep(0)

        async with wind:
            for number in range(3):
                await wind.fire_many("T", [number] * 4)
                await wind.settled(60)
                for task in tasks:
                    task.cancel()
                await until(lambda: all(task.done() for task in tasks))
        assert sorted(handled) == [0] * 4 + [1] * 4 + [2] * 4

    @on_loop
    async def test_extensions_come_as_they_were_fired(self, place: Place) -> None:
        """They come beside events without any, from a handler too, and as a new dict each time."""
        wind = place.open()
        seen: list[tuple[int, dict[str, str], str | None]] = []
        said = {"traceparent": "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "subject": "ü"}

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.extensions, event.key))
            event.extensions["more"] = "x"
            assert "more" not in event.extensions
            if number == 1:
                wind.fire("T", 3, extensions={"tracestate": ""})

        async with wind:
            wind.fire("T", 0)
            wind.fire("T", 1, key="k", extensions=said)
            await wind.fire("T", 2, key="l")
            await wind.settled(60)
        assert sorted(seen) == [(0, {}, None), (1, said, "k"), (2, {}, "l"), (3, {"tracestate": ""}, None)]

    @on_loop
    async def test_attributes_given_to_fire_many_are_those_of_each_event(self, place: Place) -> None:
        """From outside and from a handler, held and at once."""
        wind = place.open()
        seen: list[tuple[int, dict[str, str], str, str]] = []
        said, cause = {"subject": "ü"}, Cause.user("ann")

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.extensions, event.cause.kind, event.cause.id))
            if number == 1:
                wind.fire_many("T", [2, 3], extensions=said, cause=cause)
                await wind.fire_many("T", [4, 5], extensions=said, now=True)

        async with wind:
            ids = (await wind.fire_many("T", [0, 1], extensions=said, cause=cause)).ids
            await wind.settled(60)
        by_hand = [(number, said, "user", "ann") for number in range(4)]
        assert sorted(seen) == [*by_hand, *[(number, said, "event", ids[1]) for number in (4, 5)]]
