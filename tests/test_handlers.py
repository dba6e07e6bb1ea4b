"""How a handler is called: which parameter gets what, decoded to what, and what is refused when it is registered."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import attrs
import msgspec
import pydantic
import pytest

from solarwind import BadArgument, BadPayload, Event, Retry, SolarWind
from solarwind.testing.contract import on_loop


@dataclasses.dataclass
class DataVideo:
    name: str
    length: int = 1


class StructVideo(msgspec.Struct):
    name: str
    length: int = 1


@attrs.define
class AttrsVideo:
    name: str
    length: int = 1


class PydanticVideo(pydantic.BaseModel):
    name: str
    length: int = pydantic.Field(default=1, ge=0)


class PydanticTags(pydantic.BaseModel):
    tags: list[str]
    when: datetime


VIDEOS = [DataVideo, StructVideo, AttrsVideo, PydanticVideo]
Calls = list[Any]


async def outcome(handler: Any, *payloads: Any, calls: Calls | None = None) -> tuple[Calls, list[str]]:
    """Return what the handler was called with, as it noted in its attribute, and the errors of the dead letters."""
    wind = SolarWind("memory://")
    wind.on("T", purpose="p")(handler)
    async with wind:
        await wind.fire_many("T", payloads)
        await wind.settled(60)
        return calls if calls is not None else [], [letter.error for letter in await wind.dead("T", "p")]


@pytest.mark.parametrize("type_", VIDEOS, ids=lambda type_: type_.__name__)
@on_loop
async def test_decoded_to_the_annotation(type_: Any) -> None:
    """From a dict, or from an object of that very type."""
    calls: Calls = []

    async def handle(video: Any) -> None:
        calls.append(video)

    handle.__annotations__["video"] = type_
    await outcome(handle, {"name": "a", "length": 2}, type_(name="b"))
    assert calls == [type_(name="a", length=2), type_(name="b", length=1)]
    assert all(type(video) is type_ for video in calls)


@pytest.mark.parametrize("type_", VIDEOS, ids=lambda type_: type_.__name__)
@pytest.mark.parametrize(
    ("payload", "error"),
    [
        ({"name": "a", "length": "long"}, ("int", "at $.length")),
        ({"length": 1}, ("name", "at $")),
        (["a"], ("object", "array", "at $")),
        (b"a", ("JSON", "application/octet-stream", "at $")),
    ],
)
@on_loop
async def test_a_payload_that_does_not_fit_its_annotation_is_rejected(
    type_: Any, payload: Any, error: tuple[str, ...]
) -> None:
    """`expected …, got … at $.path`, whatever library the type is from."""

    async def handle(video: Any) -> None:
        raise AssertionError("it does not fit")

    handle.__annotations__["video"] = type_
    _, errors = await outcome(handle, payload)
    assert len(errors) == 1
    assert errors[0].startswith("expected ")
    assert ", got " in errors[0]
    assert "\n" not in errors[0]
    if not (type_ is PydanticVideo and payload == ["a"]):  # it has words of its own for that
        for word in error:
            assert word in errors[0]


@on_loop
async def test_the_rules_of_a_pydantic_model_are_checked() -> None:
    async def handle(video: PydanticVideo) -> None: ...

    _, errors = await outcome(handle, {"name": "a", "length": -1})
    assert errors[0].startswith("expected ")
    assert "got -1 at $.length" in errors[0]


@on_loop
async def test_nested_types_and_lists_of_pydantic_models() -> None:
    calls: Calls = []

    async def handle(tags: PydanticTags, event: Event) -> None:
        calls.append(tags)
        assert event.decode(PydanticTags) == tags

    given = PydanticTags(tags=["x"], when=datetime(2026, 1, 2, tzinfo=UTC))
    _, errors = await outcome(handle, given)
    assert (calls, errors) == ([given], [])


@on_loop
async def test_types_that_json_supports_arrive_as_annotated() -> None:
    """Times, decimals, tuples, sets: encoded as JSON, decoded to the annotation."""
    calls: Calls = []

    async def handle(payload: tuple[datetime, Decimal, set[int]]) -> None:
        calls.append(payload)

    when = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
    await outcome(handle, (when, Decimal("1.50"), {1}))
    assert calls == [(when, Decimal("1.50"), {1})]


@pytest.mark.parametrize(
    "payload",
    [None, True, 0, 2**70, -1.5, "", "ü\u2028\x00", [], {}, {"": {"a.b": [None]}}, b"", b"\x00\xff", "[" * 500],
)
@on_loop
async def test_plain_values_come_as_they_were_fired(payload: Any) -> None:
    calls: Calls = []

    async def handle(value: Any, event: Event) -> None:
        calls.append((value, event.payload))

    await outcome(handle, payload)
    assert calls == [(payload, payload)]
    assert type(calls[0][0]) is type(payload)


@dataclasses.dataclass
class Measured:
    value: float


@pytest.mark.parametrize("number", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize(
    "payload",
    [
        lambda number: number,
        lambda number: {"a": [None, number]},
        lambda number: (1.5, number),
        Measured,
        lambda number: [Measured(number), {"null": None}],
        lambda number: {"a": {number}},
    ],
)
def test_a_number_that_json_has_not_is_refused_when_it_is_fired(payload: Callable[[float], Any], number: float) -> None:
    with SolarWind("memory://") as wind:
        with pytest.raises(BadPayload, match=rf"{number} is not a number that JSON has: fire None, or text"):
            wind.fire("T", payload(number))
        wind.fire("T", {"null": ["null", None, 1.5, Measured(1.0)]}).wait(60)


def forms() -> dict[str, tuple[Callable[[Calls], Any], Any]]:
    """Return ways to write a handler, and what it notes for the payload {"n": 1} (its event is noted as "event")."""

    def note(calls: Calls, *values: Any) -> None:
        calls.append(tuple("event" if isinstance(value, Event) else value for value in values))

    def nothing(calls: Calls) -> Any:
        async def handle() -> None:
            note(calls)

        return handle

    def unannotated(calls: Calls) -> Any:
        async def handle(payload) -> None:  # type: ignore[no-untyped-def]
            note(calls, payload)

        return handle

    def event(calls: Calls) -> Any:
        async def handle(e: Event) -> None:
            note(calls, e)

        return handle

    def both(calls: Calls) -> Any:
        async def handle(e: Event, payload: dict[str, int]) -> None:
            note(calls, e, payload)

        return handle

    def keyword_only(calls: Calls) -> Any:
        async def handle(*, payload: dict[str, int], e: Event) -> None:
            note(calls, payload, e)

        return handle

    def raw(calls: Calls) -> Any:
        async def handle(data: bytes) -> None:
            note(calls, data)

        return handle

    def raw_keyword(calls: Calls) -> Any:
        async def handle(*, data: bytes) -> None:
            note(calls, data)

        return handle

    def defaults(calls: Calls) -> Any:
        async def handle(payload: dict[str, int], factor: int = 3, *rest: int, **more: int) -> None:
            note(calls, payload, factor, rest, more)

        return handle

    def plain_def(calls: Calls) -> Any:
        def handle(payload: dict[str, int], e: Event) -> None:
            note(calls, payload, e)

        return handle

    def method(calls: Calls) -> Any:
        class Service:
            async def handle(self, payload: dict[str, int]) -> None:
                note(calls, payload)

        return Service().handle

    def instance(calls: Calls) -> Any:
        class Service:
            async def __call__(self, payload: dict[str, int], e: Event) -> None:
                note(calls, payload, e)

        return Service()

    payload = {"n": 1}
    return {
        "nothing": (nothing, ()),
        "unannotated": (unannotated, (payload,)),
        "event": (event, ("event",)),
        "both": (both, ("event", payload)),
        "keyword_only": (keyword_only, (payload, "event")),
        "raw": (raw, (b'{"n":1}',)),
        "raw_keyword": (raw_keyword, (b'{"n":1}',)),
        "defaults": (defaults, (payload, 3, (), {})),
        "plain_def": (plain_def, (payload, "event")),
        "method": (method, (payload,)),
        "instance": (instance, (payload, "event")),
    }


@pytest.mark.parametrize("name", list(forms()))
@on_loop
async def test_each_form_of_a_handler_is_called(name: str) -> None:
    make, expected = forms()[name]
    calls: Calls = []
    _, errors = await outcome(make(calls), {"n": 1})
    assert errors == []
    assert calls == [expected]


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
@on_loop
async def test_each_form_of_a_batch_handler_is_called(is_async: bool) -> None:
    """Lists of payloads, of events, or both, in step; by keyword too."""
    calls: Calls = []

    def note(videos: list[StructVideo] | None, events: list[Event] | None) -> None:
        calls.extend(video.name for video in videos or [])
        calls.extend(event.payload["name"] for event in events or [])
        if videos is not None and events is not None:
            assert [video.name for video in videos] == [event.payload["name"] for event in events]

    if is_async:

        async def payloads(videos: list[StructVideo]) -> None:
            note(videos, None)

        async def events(events: list[Event]) -> None:
            note(None, events)

        async def both(*, events: list[Event], videos: list[StructVideo]) -> None:
            note(videos, events)
    else:

        def payloads(videos: list[StructVideo]) -> None:  # type: ignore[misc]
            note(videos, None)

        def events(events: list[Event]) -> None:  # type: ignore[misc]
            note(None, events)

        def both(*, events: list[Event], videos: list[StructVideo]) -> None:  # type: ignore[misc]
            note(videos, events)

    for handler, times in ((payloads, 1), (events, 1), (both, 2)):
        calls.clear()
        _, errors = await outcome(handler, *({"name": str(number)} for number in range(3)))
        assert errors == []
        assert calls == ["0", "1", "2"] * times


@on_loop
async def test_a_batch_without_the_one_that_does_not_fit() -> None:
    """That one is dead, the others are handled, in order."""
    calls: Calls = []

    async def handle(numbers: list[int]) -> None:
        calls.extend(numbers)

    _, errors = await outcome(handle, 1, "two", 3, None, 5)
    assert calls == [1, 3, 5]
    assert errors == ["expected int, got str at $", "expected int, got null at $"]


@on_loop
async def test_one_function_may_handle_several_purposes() -> None:
    seen: list[tuple[str, str]] = []
    wind = SolarWind("memory://")

    @wind.on("a")
    @wind.on("b", purpose="Other")
    async def handle(event: Event) -> None:
        seen.append((event.topic, event.purpose))

    async with wind:
        await wind.fire("a")
        await wind.fire("b")
        await wind.settled(60)
    assert sorted(seen) == [("a", "handle"), ("b", "Other")]


def _takes_two(a: int, b: int) -> None: ...


def _takes_two_events(a: Event, b: Event) -> None: ...


def _mixes(a: list[int], b: Event) -> None: ...


def _unresolved(a: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


def _undecodable(a: logging.Logger) -> None: ...


def _yields(a: int) -> Any:
    yield a


async def _async_yields(a: int) -> Any:
    yield a


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (_takes_two, ("a payload, an Event, or both", "(a, b)")),
        (_takes_two_events, ("a payload, an Event, or both", "(a, b)")),
        (_mixes, ("lists",)),
        (_unresolved, ("Missing",)),
        (_undecodable, ("Logger",)),
        (_yields, ("yield",)),
        (_async_yields, ("yield",)),
        (3, ("function", "3")),
        (None, ("function", "None")),
    ],
)
def test_a_wrong_handler_is_refused_when_it_is_registered(function: Any, words: tuple[str, ...]) -> None:
    wind = SolarWind("memory://")
    with pytest.raises(BadArgument) as caught:
        wind.on("T", purpose="p")(function)
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    for word in words:
        assert word in text


async def _inner() -> None: ...


async def _stream() -> AsyncIterator[int]:
    yield 1


class _Promise:
    def __await__(self) -> Iterator[None]:
        yield


UNRUN: dict[str, Callable[[], Any]] = {
    "coroutine": _inner,
    "generator": lambda: (each for each in range(3)),
    "async generator": _stream,
    "another awaitable": lambda: _Promise(),
}


@pytest.mark.parametrize("kind", ["async def", "def", "async batch", "def batch"])
@pytest.mark.parametrize("unrun", UNRUN)
@on_loop
async def test_what_a_handler_returns_that_nobody_runs_is_a_failed_attempt(unrun: str, kind: str) -> None:
    """The event is not settled as if it had been handled."""
    make = UNRUN[unrun]

    async def handle() -> Any:
        return make()

    async def handle_batch(numbers: list[int]) -> Any:
        return make()

    handlers: dict[str, Callable[..., Any]] = {
        "async def": handle,
        "def": lambda: make(),
        "async batch": handle_batch,
        "def batch": lambda numbers: make(),
    }
    handlers["def batch"].__annotations__ = {"numbers": list[int]}
    wind = SolarWind("memory://")
    wind.on("T", purpose="p", retry=Retry(attempts=1))(handlers[kind])
    async with wind:
        await wind.fire("T", 1)
        await wind.settled(60)
        counts = (await wind.statistics()).purposes["T", "p"]
        (letter,) = await wind.dead("T", "p")
    assert (counts.settled, counts.dead) == (0, 1)
    assert "which nobody runs: await it" in letter.error
