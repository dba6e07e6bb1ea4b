"""Middleware: around each fire, which is over at once, and around each call of a handler."""

from __future__ import annotations

import asyncio
import functools
import sqlite3
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any

import pytest

from solarwind import (
    BadArgument,
    Depends,
    Event,
    Handing,
    NotAllowed,
    Reject,
    Retry,
    SolarWind,
    Unavailable,
)
from solarwind.outbox import database as tables
from solarwind.testing.contract import on_loop, until

Next = Callable[[Handing], Awaitable[Any]]
user: ContextVar[str] = ContextVar("user", default="nobody")


def opened() -> str:
    return user.get()


@pytest.mark.parametrize("kind", ["async", "def"])
@on_loop
async def test_the_first_is_the_outermost_around_a_fire_and_around_a_hand_out(kind: str) -> None:
    wind, notes = SolarWind("memory://"), list[Any]()

    def named(name: str) -> Any:
        async def middleware(call_next: Next, handing: Handing) -> None:
            notes.append((name, handing.kind, handing.topic, handing.purpose, handing.version, handing.attempt))
            await call_next(handing)
            notes.append(name)

        return middleware

    assert wind.middleware(first := named("first")) is first
    wind.middleware(named("second"))

    async def handle(number: int) -> None:
        notes.append(number)

    def in_thread(number: int) -> None:
        notes.append(number)

    wind.on("T", purpose="p", version=3)(handle if kind == "async" else in_thread)
    async with wind:
        await wind.fire("T", 7)
        await wind.settled(60)
    assert notes == [
        ("first", "fire", "T", "", 0, 0),
        ("second", "fire", "T", "", 0, 0),
        "second",
        "first",
        ("first", "handle", "T", "p", 3, 1),
        ("second", "handle", "T", "p", 3, 1),
        7,
        "second",
        "first",
    ]


@on_loop
async def test_a_batch_is_one_hand_out_and_fire_many_one_fire() -> None:
    wind, seen = SolarWind("memory://"), list[tuple[str, list[int], int]]()

    @wind.middleware
    async def note(call_next: Next, handing: Handing) -> None:
        seen.append((handing.kind, handing.payloads, len(handing.events)))
        await call_next(handing)

    @wind.on("T", purpose="p")
    async def handle(numbers: list[int]) -> None: ...

    async with wind:
        assert len(await wind.fire_many("T", [1, 2, 3])) == 3
        await wind.settled(60)
    assert seen == [("fire", [1, 2, 3], 0), ("handle", [1, 2, 3], 3)]


@pytest.mark.parametrize("kind", ["async", "def"])
@on_loop
async def test_what_it_sets_in_its_context_is_seen_by_the_handler_and_its_dependencies(kind: str) -> None:
    wind, seen = SolarWind("memory://"), list[tuple[str, str]]()

    @wind.middleware
    async def as_user(call_next: Next, handing: Handing) -> None:
        token = user.set("alice")
        try:
            await call_next(handing)
        finally:
            user.reset(token)

    async def handle(number: int, made: Annotated[str, Depends(opened)]) -> None:
        seen.append((user.get(), made))

    def in_thread(number: int, made: Annotated[str, Depends(opened)]) -> None:
        seen.append((user.get(), made))

    wind.on("T", purpose="p")(handle if kind == "async" else in_thread)
    async with wind:
        await wind.fire_many("T", [1, 2])
        await wind.settled(60)
    assert seen == [("alice", "alice")] * 2


@pytest.mark.parametrize("what", ["plain", "keyed", "many", "thread", "handler", "outbox", "outbox many"])
@on_loop
async def test_extensions_that_it_states_go_with_what_is_fired_however_it_is_fired(what: str, tmp_path: Path) -> None:
    wind, seen = SolarWind("memory://"), list[dict[str, str]]()
    database = tmp_path / "shop.db"
    database.touch()
    tables.init(f"sqlite:///{database}")

    @wind.middleware
    async def trace(call_next: Next, handing: Handing) -> None:
        if handing.kind == "fire":
            handing.extensions["traceparent"] = "00-1"
        else:
            assert handing.extensions in ({}, {"traceparent": "00-1"}, {"subject": "s", "traceparent": "00-1"})
        await call_next(handing)

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        assert event.key == ("k" if what == "keyed" else None)
        seen.append(event.extensions)

    @wind.on("first", purpose="q")
    async def first() -> None:
        wind.fire("T", extensions={"subject": "s"})

    wind.relay(f"sqlite:///{database}")
    async with wind:
        with sqlite3.connect(database) as connection:
            ways: dict[str, Callable[[], Any]] = {
                "plain": lambda: wind.fire("T"),
                "keyed": lambda: wind.fire("T", key="k", extensions={"subject": "s"}),
                "many": lambda: wind.fire_many("T", [1, 2], extensions={"subject": "s"}),
                "handler": lambda: wind.fire("first"),
                "outbox": lambda: wind.outbox(connection).fire("T"),
                "outbox many": lambda: wind.outbox(connection).fire_many("T", [1, 2]),
            }
            if what == "thread":
                await asyncio.to_thread(wind.fire, "T")
            else:
                ways[what]()
        expected = 2 if "many" in what else 1
        await until(lambda: len(seen) == expected, "all of them to be handled")
    assert [each["traceparent"] for each in seen] == ["00-1"] * expected
    assert all(("subject" in each) == (what in ("keyed", "many", "handler")) for each in seen)


# --- refusals ----------------------------------------------------------------------------------------------------


@on_loop
async def test_one_that_raises_around_a_fire_raises_out_of_it_and_nothing_is_fired() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def check(call_next: Next, handing: Handing) -> None:
        if handing.payloads == ["secret"]:
            raise PermissionError("not this one")
        await call_next(handing)

    async with wind:
        with pytest.raises(PermissionError, match="not this one"):
            wind.fire("T", "secret")
        await wind.fire("T", "plain")
        assert (await wind.statistics()).topics["T"].fired == 1


@on_loop
async def test_one_that_does_not_call_on_around_a_fire_is_an_error_for_whoever_fires() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def forgets(call_next: Next, handing: Handing) -> None:
        if handing.topic == "skip":
            handing.skip()

    async with wind:
        with pytest.raises(NotAllowed) as caught:
            wind.fire("T", 1)
        assert str(caught.value).endswith(
            "forgets to say `await call_next(handing)`, got one that returned without, and nothing was fired: call on, "
            "or raise what says why not"
        )
        with pytest.raises(NotAllowed, match=r"expected skip\(\) of a hand-out"):
            wind.fire("skip", 1)
        assert "T" not in (await wind.statistics()).topics


@on_loop
async def test_one_that_calls_on_twice_around_a_fire_is_refused_and_the_error_says_that_it_was_fired_once() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def twice(call_next: Next, handing: Handing) -> None:
        await call_next(handing)
        await call_next(handing)

    async with wind:
        with pytest.raises(NotAllowed, match="to call on once, got it twice: the first time has fired it"):
            wind.fire("T", 1)
        await wind.settled(60)
        assert (await wind.statistics()).topics["T"].fired == 1


@on_loop
async def test_one_that_waits_around_a_fire_is_refused_and_the_error_says_whether_it_was_fired() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def waits(call_next: Next, handing: Handing) -> None:
        if handing.topic == "before":
            await asyncio.sleep(0)
        await call_next(handing)
        await asyncio.sleep(0)

    async with wind:
        with pytest.raises(NotAllowed, match="not to wait, since fire returns at once, got one that does, and nothing"):
            wind.fire("before")
        with pytest.raises(NotAllowed, match="and the event was fired before: look at"):
            wind.fire("after")
        await wind.settled(60)
        assert set((await wind.statistics()).topics) == {"after"}


@on_loop
async def test_extensions_that_are_none_are_refused_out_of_the_fire() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def wrong(call_next: Next, handing: Handing) -> None:
        handing.extensions["Trace-Parent"] = "00-1"
        await call_next(handing)

    async with wind:
        with pytest.raises(BadArgument, match="got one named 'Trace-Parent'"):
            wind.fire("T")


@pytest.mark.parametrize("kind", ["async", "def"])
@on_loop
async def test_one_that_fails_around_a_hand_out_is_a_handler_that_raises(kind: str) -> None:
    """That does not call on, calls on twice, returns too soon, or raises."""
    wind, handled = SolarWind("memory://"), list[str]()
    tasks: list[asyncio.Task[Any]] = []

    @wind.middleware
    async def wrong(call_next: Next, handing: Handing) -> None:
        if handing.kind == "fire":
            await call_next(handing)
            return
        what = handing.payloads[0]
        if what == "raise":
            raise ValueError("no")
        if what == "reject":
            raise Reject("not that")
        if what == "twice":
            await call_next(handing)
            await call_next(handing)
        if what == "other":
            await call_next(Handing("handle", "T"))
        if what == "soon":
            tasks.append(asyncio.ensure_future(call_next(handing)))
            await asyncio.sleep(0)
        if what == "swallow":
            try:
                await call_next(handing)
            except ValueError:
                pass
        if what == "skip":
            handing.skip()

    async def handle(what: str) -> None:
        handled.append(what)
        await asyncio.sleep(0)
        if what == "swallow":
            raise ValueError("no")

    def in_thread(what: str) -> None:
        handled.append(what)
        if what == "swallow":
            raise ValueError("no")

    wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0))(handle if kind == "async" else in_thread)
    async with wind:
        names = ["raise", "reject", "forget", "twice", "other", "swallow", "skip"]
        for name in names if kind == "def" else [*names, "soon"]:
            await wind.fire("T", name)
        await wind.settled(60)
        letters = {letter.event.payload: letter for letter in await wind.dead("T", "p")}
        settled = (await wind.statistics()).purposes["T", "p"].settled
    errors = {what: letter.error for what, letter in letters.items()}
    assert settled == 2  # skip and swallow
    assert errors.pop("raise") == "ValueError: no"
    assert errors.pop("reject") == "not that"
    assert letters["reject"].attempts == 1
    assert letters["forget"].attempts == 2
    assert "and nothing was handled: call on, or say handing.skip() to settle it all the same" in errors["forget"]
    assert "to call on once, got it twice" in errors["twice"]
    assert "expected call_next(handing) in middleware" in errors["other"]
    assert kind == "def" or "while that still ran: await call_next(handing)" in errors["soon"]
    assert "skip" not in handled
    assert handled.count("twice") == 2
    await asyncio.gather(*tasks, return_exceptions=True)


@on_loop
async def test_a_middleware_is_added_before_the_start() -> None:
    wind = SolarWind("memory://")

    async def middleware(call_next: Next, handing: Handing) -> None:
        await call_next(handing)

    async with wind:
        with pytest.raises(Unavailable, match="expected a SolarWind that does not run"):
            wind.middleware(middleware)
    wind.middleware(middleware)


@pytest.mark.parametrize("function", [7, lambda call_next, handing: None, asyncio.sleep, Handing])
def test_what_is_no_middleware_is_refused(function: Any) -> None:
    wrong = function

    async def of_three(a: int, b: int, c: int) -> None: ...

    async def the_other_way_round(handing: Any, call_next: Any) -> None: ...

    for each in (wrong,) if function is not asyncio.sleep else (of_three, the_other_way_round):
        with pytest.raises(BadArgument, match=r"expected a middleware, async def m\(call_next, handing\), got"):
            SolarWind("memory://").middleware(each)


@on_loop
async def test_an_object_a_method_and_a_partial_may_be_a_middleware() -> None:
    notes: list[str] = []

    class Middleware:
        async def __call__(self, call_next: Next, handing: Handing) -> None:
            notes.append("called")
            await call_next(handing)

        async def method(self, call_next: Next, handing: Handing) -> None:
            notes.append("method")
            await call_next(handing)

    async def named(name: str, call_next: Next, handing: Handing) -> None:
        notes.append(name)
        await call_next(handing)

    wind = SolarWind("memory://")
    for each in (Middleware(), Middleware().method, functools.partial(named, "partial")):
        wind.middleware(each)
    async with wind:
        await wind.fire("T")
    assert notes == ["called", "method", "partial"]


@on_loop
async def test_what_it_sets_in_its_context_around_a_fire_is_not_seen_by_whoever_fires() -> None:
    wind = SolarWind("memory://")

    @wind.middleware
    async def as_user(call_next: Next, handing: Handing) -> None:
        user.set("alice")
        await call_next(handing)

    async with wind:
        await wind.fire("T")
    assert user.get() == "nobody"


def test_without_a_loop_it_runs_on_the_thread_that_fires() -> None:
    wind, handled = SolarWind("memory://"), list[dict[str, str]]()

    @wind.middleware
    async def trace(call_next: Next, handing: Handing) -> None:
        handing.extensions["traceparent"] = "00-1"
        await call_next(handing)

    @wind.on("T")
    def handle(event: Event) -> None:
        handled.append(event.extensions)

    with wind:
        wind.fire("T").wait(60)
        wind.wait(wind.settled(60))
    assert handled == [{"traceparent": "00-1"}]


# --- tasks, timeouts and threads -----------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["fire", "handle"])
@on_loop
async def test_one_that_calls_on_after_it_has_returned_fires_and_handles_nothing(kind: str) -> None:
    wind, handled, tasks = SolarWind("memory://"), list[int](), list[asyncio.Future[Any]]()

    @wind.middleware
    async def late(call_next: Next, handing: Handing) -> None:
        if handing.kind == kind:
            tasks.append(asyncio.ensure_future(call_next(handing)))
        else:
            await call_next(handing)

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def handle(number: int) -> None:
        handled.append(number)

    async with wind:
        if kind == "fire":
            with pytest.raises(NotAllowed, match="and nothing was fired"):
                wind.fire("T", 7)
        else:
            await wind.fire("T", 7)
        await until(lambda: tasks and tasks[0].done(), "the task to call on")
        await wind.settled(60)
        dead = len(await wind.dead("T", "p"))
    assert "to call on before it returns, got it afterwards" in str(tasks[0].exception())
    assert (handled, dead) == ([], int(kind == "handle"))


@on_loop
async def test_what_a_middleware_leaves_behind_is_over_before_the_next_attempt() -> None:
    wind, running, most = SolarWind("memory://"), 0, 0

    @wind.middleware
    async def leaves(call_next: Next, handing: Handing) -> None:
        if handing.kind == "fire" or handing.attempt == 3:
            await call_next(handing)
            return
        task = asyncio.ensure_future(call_next(handing))
        await asyncio.sleep(0)
        if handing.attempt == 1:
            async with asyncio.timeout(0):
                await asyncio.shield(task)

    @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0))
    async def handle(event: Event) -> None:
        nonlocal running, most
        running += 1
        most = max(most, running)
        try:
            if event.attempt < 3:
                await asyncio.Event().wait()
        finally:
            for _ in range(500):
                await asyncio.sleep(0)
            running -= 1

    async with wind:
        await wind.fire("T")
        await wind.settled(60)
        assert (await wind.statistics()).purposes["T", "p"].settled == 1
    assert (running, most) == (0, 1)


@on_loop
async def test_a_timeout_around_a_def_handler_closes_its_dependencies_once_it_has_ended() -> None:
    wind, notes, go = SolarWind("memory://"), list[str](), threading.Event()

    @wind.middleware
    async def limit(call_next: Next, handing: Handing) -> None:
        if handing.kind == "fire":
            await call_next(handing)
            return
        asyncio.get_running_loop().call_later(0.01, asyncio.get_running_loop().call_soon, go.set)
        async with asyncio.timeout(0.005):
            await call_next(handing)

    async def session() -> AsyncIterator[str]:
        try:
            yield "session"
        finally:
            notes.append("closed")

    def handle(number: int, made: str) -> None:
        go.wait(60)
        notes.append("handled")

    handle.__annotations__["made"] = Annotated[str, Depends(session)]
    wind.on("T", purpose="p", retry=Retry(attempts=1))(handle)
    async with wind:
        await wind.fire("T", 7)
        await wind.settled(60)
        (letter,) = await wind.dead("T", "p")
    assert notes == ["handled", "closed"]
    assert letter.error.startswith("TimeoutError")


def test_a_def_handler_that_never_ends_keeps_no_loop_from_ending() -> None:
    """Whatever is around it."""
    wind, begun, notes = SolarWind("memory://", grace=0.05), threading.Event(), list[str]()
    forever = threading.Event()

    @wind.middleware
    async def around(call_next: Next, handing: Handing) -> None:
        await call_next(handing)

    def session() -> Iterator[str]:
        yield "session"
        notes.append("closed")

    def handle(number: int, made: str) -> None:
        begun.set()
        forever.wait()

    handle.__annotations__["made"] = Annotated[str, Depends(session)]
    wind.on("T", purpose="p")(handle)

    async def main() -> None:
        async with wind:
            await wind.fire("T", 7)
            await until(begun.is_set, "the handler to begin")

    asyncio.run(main())
    forever.set()
    assert not notes


@on_loop
async def test_it_may_wait_around_a_def_handler_which_gets_what_it_gets_without_it() -> None:
    wind, handled = SolarWind("memory://"), list[object]()

    @wind.middleware
    async def waits(call_next: Next, handing: Handing) -> None:
        if handing.kind == "handle":
            await asyncio.sleep(0)
        await call_next(handing)

    @wind.on("T", purpose="bytes")
    def handle(data: bytes) -> None:
        handled.append(data)

    @wind.on("T", purpose="bytes, on the loop")
    async def handle_on_loop(data: bytes) -> None:
        handled.append(data)

    async with wind:
        await wind.fire("T", b"raw")
        await wind.settled(60)
    assert handled == [b"raw"] * 2
