"""Dependencies of handlers: what is made when, in which order it closes, and what is refused when it is registered."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextvars import ContextVar
from pathlib import Path
from typing import Annotated, Any
from unittest import mock

import fastapi
import pytest

from solarwind import BadArgument, Depends, Event, Later, Retry, SolarWind
from solarwind.testing.contract import on_loop, until

Notes = list[Any]


def settings() -> dict[str, int]:
    return {"made": 1}


class Repository:
    def __init__(self, settings: Annotated[dict[str, int], Depends(settings)], table: str = "videos") -> None:
        self.settings, self.table = settings, table


async def said_by(register: Callable[[SolarWind, Notes], Any], *payloads: Any) -> tuple[Notes, list[str]]:
    """Return what was noted while the payloads were handled, one after the other, and the errors of dead letters."""
    wind, notes = SolarWind("memory://"), list[Any]()
    wind.on("T", purpose="p", retry=Retry(attempts=1))(register(wind, notes))
    async with wind:
        for payload in payloads:
            await wind.fire("T", payload)
            await wind.settled(60)
        return notes, [letter.error for letter in await wind.dead("T", "p")]


def wanting(function: Callable[..., Any], **wanted: Any) -> Callable[..., Any]:
    """Return the function with these annotations, which no text could name."""
    function.__annotations__.update(wanted)
    return function


def refused(function: Callable[..., Any], **wanted: Any) -> str:
    with pytest.raises(BadArgument) as caught:
        SolarWind("memory://").on("T", purpose="p")(wanting(function, **wanted))
    return str(caught.value)


# --- what is made ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_what_depends_on_another_closes_before_it_and_all_before_the_settle(is_async: bool) -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def session() -> Iterator[str]:
            notes.append("session")
            yield "session"
            notes.append("session closes")

        async def unit(session: Annotated[str, Depends(session)]) -> AsyncIterator[str]:
            notes.append("unit")
            yield f"unit of {session}"
            notes.append("unit closes")

        unit.__annotations__["session"] = Annotated[str, Depends(session)]

        async def handle(payload: int, unit: str) -> None:
            notes.append(unit)

        def in_thread(payload: int, unit: str) -> None:
            notes.append(unit)

        return wanting(handle if is_async else in_thread, unit=Annotated[str, Depends(unit)])

    notes, errors = await said_by(register, 1)
    assert notes == ["session", "unit", "unit of session", "unit closes", "session closes"]
    assert not errors


@on_loop
async def test_a_dependency_is_made_once_a_call_unless_it_says_otherwise() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def made() -> object:
            notes.append("made")
            return object()

        def other(made: object) -> object:
            return made

        wanting(other, made=Annotated[object, Depends(made)])

        async def handle(one: object, two: object, own: object, others: object) -> None:
            notes.append((one is two, one is own, one is others))

        once, own = Annotated[object, Depends(made)], Annotated[object, Depends(made, use_cache=False)]
        return wanting(handle, one=once, two=once, own=own, others=Annotated[object, Depends(other)])

    notes, errors = await said_by(register, 1, 2)
    assert notes == ["made", "made", (True, False, True)] * 2
    assert not errors


@on_loop
async def test_a_batch_handler_has_its_dependencies_once_a_batch() -> None:
    wind, made, batches = SolarWind("memory://"), list[int](), list[int]()

    def counted(events: list[Event]) -> str:
        made.append(len(events))
        return events[0].purpose

    async def handle(numbers: list[int], purpose: str) -> None:
        assert purpose == "p"
        batches.append(len(numbers))

    wind.on("T", purpose="p")(wanting(handle, purpose=Annotated[str, Depends(counted)]))
    async with wind:
        await wind.fire_many("T", range(1_000))
        await wind.settled(60)
    assert made == batches
    assert sum(batches) == 1_000
    assert len(batches) < 100


@on_loop
async def test_a_dependency_may_be_a_class_a_method_a_partial_or_the_default_of_the_parameter() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        class Shop:
            def name(self, event: Event) -> str:
                return f"{event.topic} {event.attempt}"

            def __call__(self) -> str:
                return "called"

        shop = Shop()

        def added(one: int, two: int, event: Event, /) -> int:
            return one + two + event.payload

        async def handle(repo: Any, class_: Any, name: Any, called: Any, /, number: int, *, total: Any = None) -> None:
            notes.append((repo.settings, class_.table, name, called, number, total))

        return wanting(
            handle,
            repo=Annotated[Repository, Depends()],
            class_=Annotated[Any, Depends(Repository)],
            name=Annotated[str, Depends(shop.name)],
            called=Annotated[str, Depends(shop)],
            total=Annotated[int, Depends(functools.partial(added, 1, 2))],
        )

    notes, errors = await said_by(register, 7)
    assert notes == [({"made": 1}, "videos", "T 1", "called", 7, 10)]
    assert not errors


@on_loop
async def test_a_dependency_may_be_stated_as_the_default() -> None:
    notes: Notes = []
    wind = SolarWind("memory://")

    @wind.on("T")
    async def handle(number: int, made: dict[str, int] = Depends(settings)) -> None:  # noqa: B008  # type: ignore[assignment]
        notes.append((number, made))

    async with wind:
        await wind.fire("T", 7)
        await wind.settled(60)
    assert notes == [(7, {"made": 1})]


@on_loop
async def test_what_is_def_runs_on_the_thread_of_a_def_handler_and_what_is_async_on_the_loop() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        loop_thread = threading.get_ident()

        def in_thread() -> Iterator[int]:
            yield threading.get_ident()
            notes.append(threading.get_ident() == loop_thread)

        async def on_the_loop() -> AsyncIterator[int]:
            yield threading.get_ident()
            notes.append(threading.get_ident() == loop_thread)

        def handle(number: int, thread: int, loop: int) -> None:
            notes.append((thread == threading.get_ident(), loop == loop_thread))

        return wanting(handle, thread=Annotated[int, Depends(in_thread)], loop=Annotated[int, Depends(on_the_loop)])

    notes, errors = await said_by(register, 1)
    assert notes == [(True, True), True, False]
    assert not errors


# --- failures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_each_open_dependency_sees_the_handlers_exception_and_none_can_hide_it(is_async: bool) -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def outer() -> Iterator[int]:
            try:
                yield 1
            except ValueError:
                notes.append("outer saw it")

        def inner(outer: int) -> Iterator[int]:
            try:
                yield 1
            except ValueError:
                notes.append("inner hides it")

        wanting(inner, outer=Annotated[int, Depends(outer)])

        async def handle(number: int, inner: int) -> None:
            raise ValueError("wrong")

        def in_thread(number: int, inner: int) -> None:
            raise ValueError("wrong")

        return wanting(handle if is_async else in_thread, inner=Annotated[int, Depends(inner)])

    notes, errors = await said_by(register, 1)
    assert notes == ["inner hides it", "outer saw it"]
    assert errors == ["ValueError: wrong"]


@on_loop
async def test_a_dependency_may_turn_an_exception_into_later() -> None:
    wind, attempts = SolarWind("memory://"), list[int]()

    async def patient() -> AsyncIterator[int]:
        try:
            yield 1
        except ConnectionError:
            raise Later(0) from None

    async def handle(event: Event, patient: int) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            raise ConnectionError("away")

    wind.on("T", purpose="p")(wanting(handle, patient=Annotated[int, Depends(patient)]))
    async with wind:
        await wind.fire("T")
        await wind.settled(60)
    assert attempts == [1, 1]


@on_loop
async def test_what_was_opened_closes_where_a_later_dependency_raises() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def opened() -> Iterator[int]:
            try:
                yield 1
            finally:
                notes.append("closed")

        def broken() -> int:
            raise RuntimeError("no database")

        async def handle(number: int, opened: int, broken: int) -> None:
            notes.append("handled")

        return wanting(handle, opened=Annotated[int, Depends(opened)], broken=Annotated[int, Depends(broken)])

    notes, errors = await said_by(register, 1)
    assert notes == ["closed"]
    assert errors == ["RuntimeError: no database"]


@on_loop
async def test_a_payload_that_does_not_fit_opens_nothing() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def opened() -> int:
            notes.append("opened")
            return 1

        async def handle(number: int, opened: int) -> None:
            notes.append(number)

        return wanting(handle, opened=Annotated[int, Depends(opened)])

    notes, errors = await said_by(register, "text", 1)
    assert notes == ["opened", 1]
    assert len(errors) == 1
    assert "expected int, got str at $" in errors[0]


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_a_dependency_that_never_ends_is_named_when_the_grace_is_over_and_its_event_comes_again(
    is_async: bool, caplog: pytest.LogCaptureFixture, tmp_path: Path
) -> None:
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db", grace=0.1)
    begun, ended, handled = list[int](), list[int](), list[int]()

    async def endless(event: Event) -> None:
        begun.append(event.attempt)
        if len(begun) == 1:
            try:
                await asyncio.Event().wait()
            finally:
                ended.append(1)

    async def handle(number: int, made: None) -> None:
        handled.append(number)

    def in_thread(number: int, made: None) -> None:
        handled.append(number)

    wind.on("T", purpose="p")(wanting(handle if is_async else in_thread, made=Annotated[None, Depends(endless)]))
    async with wind:
        await wind.fire("T", 7)
        await until(lambda: begun, "the dependency to begin")
    name = "test_a_dependency_that_never_ends_is_named_when_the_grace_is_over_and_its_event_comes_again.<locals>"
    assert f"in its dependency {name}.endless did not finish within 0.1 s" in caplog.text
    await until(lambda: ended, "the dependency to be cancelled")
    assert not handled
    async with wind:
        await wind.settled(60)
    assert handled == [7]
    assert not [record for record in caplog.records if record.levelno > logging.WARNING]


# --- what is refused ---------------------------------------------------------------------------------------------


def test_what_can_never_be_made_is_refused_when_the_handler_is_registered() -> None:
    def unknown(token: str) -> None: ...

    def one(two: Any) -> None: ...

    def two(one: Any) -> None: ...

    def single(event: Event) -> None: ...

    def several(events: list[Event]) -> None: ...

    wanting(one, two=Annotated[None, Depends(two)])
    wanting(two, one=Annotated[None, Depends(one)])

    async def handle(number: int, made: Any) -> None: ...

    async def batch(numbers: list[int], made: Any) -> None: ...

    of = "test_what_can_never_be_made_is_refused_when_the_handler_is_registered.<locals>"
    assert refused(handle, made=Annotated[None, Depends(unknown)]) == (
        f"expected dependency {of}.unknown to take what other dependencies make, and an Event, got parameter token: "
        "give it a default, annotate it with Event, or say Depends(...) in its annotation"
    )
    deep = unknown
    for _ in range(2_000):
        deep = wanting(lambda made: made, made=Annotated[None, Depends(deep)])
    assert "expected dependencies of handler" in refused(handle, made=Annotated[None, Depends(deep)])
    assert "call it in a def of your own" in refused(handle, made=Annotated[float, Depends(time.time)])
    assert refused(handle, made=Annotated[None, Depends(one)]) == (
        f"expected dependencies without a cycle, got {of}.one -> {of}.two -> {of}.one: one must do without the next"
    )
    assert "expected list[Event] for parameter event" in refused(batch, made=Annotated[None, Depends(single)])
    assert "expected Event for parameter events" in refused(handle, made=Annotated[None, Depends(several)])
    assert "expected one Depends(...)" in refused(handle, made=Annotated[None, Depends(one), Depends(two)])
    assert "expected Depends(function), or an annotation that is a class" in refused(
        handle, made=Annotated[int | None, Depends()]
    )


def test_what_is_no_function_is_refused() -> None:
    with pytest.raises(BadArgument, match=r"expected a function in Depends\(...\), got \{'made': 1\}: name the func"):
        Depends(settings())  # type: ignore[arg-type]
    with pytest.raises(BadArgument, match="use_cache to be True or False, got 'no'"):
        Depends(settings, use_cache="no")  # type: ignore[arg-type]


# --- FastAPI's -----------------------------------------------------------------------------------------------------


@on_loop
async def test_a_dependency_of_fastapi_is_one_here_too() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def session() -> Iterator[str]:
            yield "session"
            notes.append("closed")

        async def handle(number: int, session: str, class_: Any) -> None:
            notes.append((session, class_.table))

        return wanting(
            handle,
            session=Annotated[str, fastapi.Depends(session)],
            class_=Annotated[Repository, fastapi.Depends()],
        )

    notes, errors = await said_by(register, 1)
    assert notes == [("session", "videos"), "closed"]
    assert not errors


def test_what_fastapi_takes_from_a_request_is_refused() -> None:
    def paged(limit: int = fastapi.Query(10)) -> int:
        return limit

    def header(token: str) -> str:
        return token

    wanting(header, token=Annotated[str, fastapi.Header()])

    async def handle(number: int, made: Any) -> None: ...

    assert "to do without a request, got parameter limit" in refused(handle, made=Annotated[int, Depends(paged)])
    assert "got parameter token" in refused(handle, made=Annotated[str, fastapi.Depends(header)])
    assert "got FastAPI's Security" in refused(handle, made=Annotated[str, fastapi.Security(settings)])


# --- tests of a program ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_another_function_stands_in_for_a_dependency_while_it_is_in_the_overrides(is_async: bool) -> None:
    wind, notes = SolarWind("memory://"), list[Any]()

    async def fake(event: Event) -> AsyncIterator[dict[str, int]]:
        yield {"fake": event.payload}
        notes.append("closed")

    async def handle(number: int, repo: Any) -> None:
        notes.append(repo.settings)

    def in_thread(number: int, repo: Any) -> None:
        notes.append(repo.settings)

    handler = wanting(handle if is_async else in_thread, repo=Annotated[Repository, Depends()])
    wind.on("T", purpose="p", retry=Retry(attempts=2))(handler)
    async with wind:
        for overrides in ({settings: fake}, {}, {settings: lambda: {"other": 1}}):
            wind.dependency_overrides = overrides
            await wind.fire("T", 7)
            await wind.settled(60)
        assert notes == [{"fake": 7}, "closed", {"made": 1}, {"other": 1}]
        wind.dependency_overrides[settings] = lambda token: {}
        await wind.fire("T", 7)
        await wind.settled(60)
        (letter,) = await wind.dead("T", "p")
        assert letter.error.startswith("expected dependency")
        assert letter.attempts == 1
        wind.dependency_overrides.clear()
        await wind.redrive("T", "p")
        await wind.settled(60)
    assert notes[-1] == {"made": 1}


# --- functions that are not what they look like --------------------------------------------------------------------


def plainly(function: Any) -> Any:
    """Decorate with a `def`, as most decorators do."""

    @functools.wraps(function)
    def decorated(*args: Any, **keywords: Any) -> Any:
        return function(*args, **keywords)

    return decorated


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_a_decorated_function_that_yields_is_opened_and_closed(is_async: bool) -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def yields(event: Event) -> Iterator[int]:
            try:
                yield event.payload
            except ValueError:
                notes.append("saw it")
                raise
            notes.append("closed")

        async def yields_async(event: Event) -> AsyncIterator[int]:
            try:
                yield event.payload
            except ValueError:
                notes.append("saw it, async")
                raise
            notes.append("closed async")

        functions = [
            plainly(yields),
            plainly(yields_async),
            contextlib.contextmanager(yields),
            contextlib.asynccontextmanager(yields_async),
        ]

        def handle(number: int, one: int, two: int, three: int, four: int) -> None:
            notes.append([one, two, three, four])
            if number == 2:
                raise ValueError("no")

        async def handle_on_loop(number: int, one: int, two: int, three: int, four: int) -> None:
            handle(number, one, two, three, four)

        names = ["one", "two", "three", "four"]
        wanted = {name: Annotated[int, Depends(each)] for name, each in zip(names, functions, strict=True)}
        return wanting(handle_on_loop if is_async else handle, **wanted)

    notes, errors = await said_by(register, 1, 2)
    assert notes == [[1] * 4, *["closed async", "closed"] * 2, [2] * 4, *["saw it, async", "saw it"] * 2]
    assert errors == ["ValueError: no"]


def never() -> Iterator[int]:
    yield from ()


async def never_async() -> AsyncIterator[int]:
    for number in never():
        yield number


def twice() -> Iterator[int]:
    yield 1
    yield 2


async def twice_async() -> AsyncIterator[int]:
    yield 1
    yield 2


def again_when_it_fails() -> Iterator[int]:
    try:
        yield 1
    except ValueError:
        yield 2


@pytest.mark.parametrize(
    "function",
    [never, never_async, twice, twice_async, again_when_it_fails, plainly(twice), contextlib.contextmanager(twice)],
)
@on_loop
async def test_a_dependency_that_does_not_yield_once_is_named(function: Any) -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        async def handle(number: int, session: int) -> None:
            if function is again_when_it_fails:
                raise ValueError("no")

        return wanting(handle, session=Annotated[int, Depends(function)])

    _, errors = await said_by(register, 1)
    assert f"expected dependency {function.__name__} to yield once" in errors[0]


@on_loop
async def test_a_dependency_may_return_a_generator() -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def rows() -> Iterator[int]:
            return (number for number in range(3))

        async def handle(rows: Any) -> None:
            notes.extend(rows)

        return wanting(handle, rows=Annotated[Any, Depends(rows)])

    assert await said_by(register, None) == ([0, 1, 2], [])


@pytest.mark.parametrize("is_async", [True, False])
@on_loop
async def test_a_mock_stands_in_for_a_dependency(is_async: bool) -> None:
    def real() -> int:
        raise RuntimeError("expected that another stands in")

    def register(wind: SolarWind, notes: Notes) -> Any:
        wind.dependency_overrides[real] = mock.AsyncMock(return_value=7) if is_async else mock.Mock(return_value=7)

        async def handle(made: int) -> None:
            notes.append(made)

        return wanting(handle, made=Annotated[int, Depends(real)])

    assert await said_by(register, None) == ([7], [])


@pytest.mark.parametrize("named", [False, True], ids=["no function", "for no function, but its name"])
@on_loop
async def test_what_stands_in_and_is_no_function_is_never_the_real_one(named: bool) -> None:
    def register(wind: SolarWind, notes: Notes) -> Any:
        def real() -> None:
            notes.append("the real one")

        if named:
            wind.dependency_overrides["real"] = lambda: None  # type: ignore[index]
        else:
            wind.dependency_overrides[real] = None  # type: ignore[assignment]

        async def handle(made: None) -> None: ...

        return wanting(handle, made=Annotated[None, Depends(real)])

    notes, (error,) = await said_by(register, None)
    assert not notes
    if named:
        assert error.startswith("expected a function as a key of dependency_overrides, got 'real': name the function")
    else:
        assert error.startswith("expected a function in dependency_overrides for made of handler")


@pytest.mark.parametrize("middleware", [True, False])
@pytest.mark.parametrize("other_is_async", [True, False])
@on_loop
async def test_what_a_dependency_sets_in_the_context_is_seen_by_the_handler_and_can_be_reset(
    other_is_async: bool, middleware: bool
) -> None:
    first, second, around = (ContextVar[str](name, default="nobody") for name in ("first", "second", "around"))

    def register(wind: SolarWind, notes: Notes) -> Any:
        if middleware:

            @wind.middleware
            async def limited(call_next: Any, handing: Any) -> None:
                if handing.kind == "handle":
                    around.set("alice")
                    await asyncio.wait_for(call_next(handing), 60)
                else:
                    await call_next(handing)

        def sets() -> Iterator[None]:
            token = first.set("alice")
            yield
            first.reset(token)
            notes.append(first.get())

        def sets_other() -> Iterator[None]:
            token = second.set("bob")
            yield
            second.reset(token)
            notes.append(second.get())

        async def sets_on_loop() -> AsyncIterator[None]:
            token = second.set("bob")
            yield
            second.reset(token)
            notes.append(second.get())

        def handle(one: None, two: None) -> None:
            notes.append((first.get(), second.get(), around.get()))

        other = sets_on_loop if other_is_async else sets_other
        return wanting(handle, one=Annotated[None, Depends(sets)], two=Annotated[None, Depends(other)])

    notes, errors = await said_by(register, None)
    assert not errors
    assert notes == [("alice", "bob", "alice" if middleware else "nobody"), "nobody", "nobody"]
