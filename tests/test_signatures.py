"""Ways to write a handler that are wrapped, bound, decorated or annotated in special ways: each works, or is refused
with a sentence when it is registered."""

from __future__ import annotations

import asyncio
import dataclasses
import functools
import importlib
import re
import sys
from collections.abc import Callable, Coroutine
from pathlib import Path
from types import ModuleType
from typing import Annotated, Any, NewType, Optional, TypeVar

import msgspec
import pytest

from solarwind import BadArgument, Event, Later, Reject, Retry, SolarWind
from solarwind.failure import said_by
from solarwind.testing.contract import on_loop

Positive = Annotated[int, msgspec.Meta(gt=0)]
Blob = NewType("Blob", bytes)


class Video(msgspec.Struct):
    name: str
    seconds: Positive = 1


async def got_by(make: Callable[[list[Any]], Any], *payloads: Any) -> tuple[list[Any], list[str]]:
    """Return what a handler notes in the list it is made with, and the errors of the dead letters."""
    got: list[Any] = []
    wind = SolarWind("memory://")
    wind.on("T", purpose="p", retry=Retry(attempts=1))(make(got))
    async with wind:
        for payload in payloads:
            await wind.fire("T", payload)
        await wind.settled(60)
        return got, [letter.error for letter in await wind.dead("T", "p")]


def named(value: Any) -> str:
    """Return a test's name without an address in it: processes that share the tests compare their names."""
    return re.sub(r" at 0x[0-9a-f]+", "", str(value))


def annotated(type_: Any) -> Callable[[list[Any]], Any]:
    def make(got: list[Any]) -> Any:
        async def handle(payload: Any) -> None:
            got.append(payload)

        handle.__annotations__["payload"] = type_
        return handle

    return make


@pytest.mark.parametrize(
    ("type_", "good", "bad"),
    [
        (Positive, 5, -5),
        (dict[str, Positive], {"a": 5}, {"a": -5}),
        (Positive | None, None, -5),
        (Annotated[str, msgspec.Meta(max_length=2)], "ab", "abc"),
        (Annotated[bytes, msgspec.Meta(max_length=2)], b"ab", b"abc"),
        (tuple[Annotated[list[Positive], msgspec.Meta(max_length=1)], ...], ([1],), ([1, 2],)),
    ],
    ids=named,
)
@on_loop
async def test_a_constraint_in_an_annotation_holds(type_: Any, good: Any, bad: Any) -> None:
    got, errors = await got_by(annotated(type_), good, bad)
    assert got == [good]
    assert len(errors) == 1
    assert errors[0].startswith("expected ")


@on_loop
async def test_a_constraint_holds_for_each_event_of_a_batch_handler() -> None:
    got, errors = await got_by(annotated(list[Positive]), 5, -5, 6)
    assert [each for batch in got for each in batch] == [5, 6]
    assert len(errors) == 1


@pytest.mark.parametrize(
    ("type_", "fired", "expected"),
    [
        (bytes | None, b"\x00a", b"\x00a"),
        (bytes | None, None, None),
        (Optional[bytes], b"a", b"a"),  # noqa: UP045
        (bytearray, b"a", bytearray(b"a")),
        (memoryview, b"a", b"a"),
        (bytearray | None, None, None),
        (Blob, b"a", b"a"),
        (bytes | dict[str, int], b"a", b"a"),
        (bytes | dict[str, int], {"a": 1}, {"a": 1}),
        (bytes | str, "a", "a"),
        (bytes, {"a": 1}, b'{"a":1}'),
    ],
    ids=named,
)
@on_loop
async def test_bytes_come_in_whatever_form_is_asked_for(type_: Any, fired: Any, expected: Any) -> None:
    got, errors = await got_by(annotated(type_), fired)
    assert errors == []
    assert got == [expected]


def wrapped(function: Any) -> Any:
    @functools.wraps(function)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        return function(*args, **kwargs)

    return wrapper


def wrapped_by_async(function: Any) -> Any:
    @functools.wraps(function)
    async def wrapper(*args: Any, **kwargs: Any) -> None:
        await function(*args, **kwargs)

    return wrapper


async def noting(got: list[Any], video: Video, event: Event) -> None:
    await asyncio.sleep(0)
    got.append((video, event.topic))


def noting_plainly(got: list[Any], video: Video, *, event: Event) -> None:
    got.append((video, event.topic))


class Service:
    def __init__(self, got: list[Any]) -> None:
        self.got = got

    async def handle(self, video: Video, event: Event) -> None:
        self.got.append((video, event.topic))

    async def __call__(self, video: Video, event: Event) -> None:
        self.got.append((video, event.topic))

    @wrapped
    async def decorated(self, video: Video, event: Event) -> None:
        self.got.append((video, event.topic))


def of_class(got: list[Any]) -> Any:
    class Noting:
        @classmethod
        async def handle(cls, video: Video, event: Event) -> None:
            got.append((video, event.topic))

    return Noting.handle


def static(got: list[Any]) -> Any:
    class Noting:
        @staticmethod
        async def handle(video: Video, event: Event) -> None:
            got.append((video, event.topic))

    return vars(Noting)["handle"]


def says_coroutine(got: list[Any]) -> Any:
    def handle(video: Video, event: Event) -> Coroutine[Any, Any, None]:
        return noting(got, video, event)

    return handle


def in_optional(got: list[Any]) -> Any:
    async def handle(video: Video | None, event: Event | None) -> None:
        assert event is not None
        got.append((video, event.topic))

    return handle


def in_annotated(got: list[Any]) -> Any:
    async def handle(video: Annotated[Video, "it"], event: Annotated[Event, "why"]) -> None:
        got.append((video, event.topic))

    return handle


def return_unresolved(got: list[Any]) -> Any:
    async def handle(video: Video, event: Event, more: Missing = None) -> Missing:  # type: ignore[name-defined]  # noqa: F821
        got.append((video, event.topic))

    return handle


WAYS: dict[str, Callable[[list[Any]], Any]] = {
    "partial": lambda got: functools.partial(noting, got),
    "partial of a def": lambda got: functools.partial(noting_plainly, got),
    "partial by keyword": lambda got: functools.partial(noting, got=got),
    "partial of a partial": lambda got: functools.partial(functools.partial(noting), got),
    "partial of a method": lambda got: functools.partial(Service(got).handle),
    "partial of an object": lambda got: functools.partial(Service(got)),
    "wrapped by a def": lambda got: wrapped(Service(got).handle),
    "wrapped twice": lambda got: wrapped(wrapped_by_async(Service(got).handle)),
    "wrapped partial": lambda got: wrapped(functools.partial(noting, got)),
    "method that is wrapped": lambda got: Service(got).decorated,
    "method": lambda got: Service(got).handle,
    "object": Service,
    "classmethod": of_class,
    "staticmethod": static,
    "says that it returns a coroutine": says_coroutine,
    "optional": in_optional,
    "annotated": in_annotated,
    "what is not needed cannot be resolved": return_unresolved,
}


@pytest.mark.parametrize("way", WAYS)
@on_loop
async def test_a_handler_keeps_its_types_and_its_event_however_it_is_wrapped(way: str) -> None:
    make = WAYS[way]
    if way == "partial by keyword":  # what is bound by keyword makes what follows keyword-only

        def make(got: list[Any]) -> Any:
            return functools.partial(noting, got=got)

    got, errors = await got_by(make, {"name": "a", "seconds": 2})
    assert errors == []
    assert got == [(Video("a", 2), "T")]
    _, errors = await got_by(make, {"name": "a", "seconds": -2})
    assert len(errors) == 1


def takes_anything(*args: Any, **kwargs: Any) -> None: ...


def takes_keywords(**kwargs: Any) -> None: ...


def takes_self(self: Any, payload: Video) -> None: ...


def takes_only_self(self: Any) -> None: ...


def takes_event_or_video(it: Event | Video) -> None: ...


def takes_events_by_name(events: dict[str, Event]) -> None: ...


def takes_a_constrained_list(videos: Annotated[list[Video], msgspec.Meta(max_length=3)]) -> None: ...


class Moment(Event):
    """What nobody makes an object of."""


Momentary = TypeVar("Momentary", bound=Event)


def takes_a_derived_event(it: Moment) -> None: ...


def takes_derived_events(it: list[Moment]) -> None: ...


def takes_a_derived_event_or_none(it: Moment | None) -> None: ...


def takes_any_event(it: Momentary) -> None: ...


@dataclasses.dataclass
class Box:
    it: Moment


def takes_a_box_of_one(box: Box) -> None: ...


@dataclasses.dataclass
class Broken:
    it: missing.Type  # type: ignore[name-defined]  # noqa: F821


def takes_what_cannot_be_resolved_within(it: Broken) -> None: ...


def unresolved(video: Missing) -> None: ...  # type: ignore[name-defined]  # noqa: F821


class Odd:
    """Its methods call their object by another name."""

    def takes_this(this) -> None: ...

    def takes_this_and_event(this, event: Event) -> None: ...

    @staticmethod
    def takes_a_payload(it) -> None: ...  # type: ignore[no-untyped-def]


class Method:
    @classmethod
    def of_class(cls, video: Video) -> None: ...


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (takes_anything, ("takes_anything", "functools.wraps")),
        (takes_keywords, ("takes_keywords", "name")),
        (functools.partial(takes_anything, 1), ("takes_anything",)),
        (takes_self, ("takes self", "object.method")),
        (takes_only_self, ("takes self",)),
        (Service.handle, ("takes self",)),
        (vars(Method)["of_class"], ("classmethod",)),
        (Video, ("class Video",)),
        (takes_event_or_video, ("it", "Event")),
        (takes_events_by_name, ("events", "Event")),
        (takes_a_constrained_list, ("videos", "constraint")),
        (unresolved, ("Missing",)),
        (takes_a_derived_event, ("it", "an Event itself", "Moment")),
        (takes_derived_events, ("it", "an Event itself", "Moment")),
        (takes_a_derived_event_or_none, ("it", "an Event itself", "Moment")),
        (takes_any_event, ("it", "an Event itself")),
        (takes_a_box_of_one, ("Box",)),
        (takes_what_cannot_be_resolved_within, ("Broken", "missing")),
        (Odd.takes_this, ("takes this", "object.method", "annotate this")),
        (Odd.takes_this_and_event, ("takes this",)),
    ],
    ids=named,
)
def test_what_cannot_be_called_right_is_refused_when_it_is_registered(function: Any, words: tuple[str, ...]) -> None:
    wind = SolarWind("memory://")
    with pytest.raises(BadArgument) as caught:
        wind.on("T", purpose="p")(function)
    text = str(caught.value)
    assert text.startswith("expected ")
    assert "\n" not in text
    for word in words:
        assert word in text
    assert wind.handlers == ()


def test_a_method_decorated_in_its_class_is_refused() -> None:
    wind = SolarWind("memory://")
    with pytest.raises(BadArgument, match=r"takes self.*object\.method"):

        class Handling:
            @wind.on("T")
            async def handle(self, video: Video) -> None: ...

    assert wind.handlers == ()


def test_a_method_decorated_in_its_class_is_refused_whatever_its_first_parameter_is_called() -> None:
    wind = SolarWind("memory://")
    with pytest.raises(BadArgument, match=r"takes this.*object\.method"):

        class Handling:
            @wind.on("T")
            async def handle(this, event: Event) -> None: ...

    assert wind.handlers == ()


def test_a_static_method_is_registered_in_its_class_and_from_it() -> None:
    wind = SolarWind("memory://")

    class Handling:
        @wind.on("T")
        @staticmethod
        def below(payload) -> None: ...  # type: ignore[no-untyped-def]

        @staticmethod
        @wind.on("T")
        def above(payload: dict[str, int]) -> None: ...

        by_lambda = wind.on("U")(lambda payload: None)

    wind.on("T", purpose="p")(Odd.takes_a_payload)
    wind.on("T", purpose="p")(Odd().takes_this)
    assert len(wind.handlers) == 5


@pytest.mark.parametrize("what", [takes_anything, Service([]), Service([]).handle, Service, staticmethod(len)])
def test_on_without_parentheses_is_refused_at_once(what: Any) -> None:
    with pytest.raises(BadArgument) as caught:
        SolarWind("memory://").on(what)
    assert "@wind.on('video.uploaded')" in str(caught.value)


@on_loop
async def test_off_takes_a_bound_method_out() -> None:
    got: list[Any] = []
    service, other = Service(got), Service([])
    async with SolarWind("memory://") as wind:
        wind.on("T", purpose="p")(service.handle)
        await wind.joined()
        await wind.off(other.handle)
        assert len(wind.handlers) == 1, "another object's method is another"
        await wind.off(service.handle)
        assert wind.handlers == ()
        assert (await wind.statistics()).purposes["T", "p"].instances == 0


# One name, several functions -----------------------------------------------------------------------------------------


def handle() -> None: ...


def another() -> Any:
    def handle() -> None: ...

    return handle


@pytest.mark.parametrize(
    ("one", "two"),
    [
        (handle, another()),
        (another(), another()),
        (lambda: None, lambda: None),
        (functools.partial(handle), functools.partial(handle)),
        (Service([]), Service([])),
        (Service([]).handle, Service([]).handle),
        (Service([]).handle, handle),
    ],
    ids=["functions", "closures", "lambdas", "partials", "objects", "methods", "method and function"],
)
def test_two_functions_of_one_name_do_not_share_a_purpose_silently(one: Any, two: Any) -> None:
    wind = SolarWind("memory://")
    wind.on("T")(one)
    with pytest.raises(BadArgument) as caught:
        wind.on("T")(two)
    assert "purpose=" in str(caught.value)
    assert len(wind.handlers) == 1
    wind.on("U")(two)  # of another topic it is another purpose
    wind.on("T", version=2)(two)  # another version says itself what it is
    wind.on("T", purpose="p")(two)
    wind.on("T", purpose="p")(one)
    assert len(wind.handlers) == 5


@pytest.mark.parametrize("function", [handle, Service([]), functools.partial(handle)], ids=named)
def test_the_same_function_may_have_several_instances(function: Any) -> None:
    wind = SolarWind("memory://")
    wind.on("T")(function)
    wind.on("T")(function)
    assert len(wind.handlers) == 2


MODULE = """
from functools import partial, wraps
from {shared} import wind

def decorated(function):
    @wraps(function)
    def wrapper(*args, **kwargs):
        return function(*args, **kwargs)
    return wrapper

@wind.on("T")
def handle(payload): {body}

@wind.on("U")
@decorated
def wrapped(payload): {body}

wind.on("V")(partial(handle))
wind.on("W")(lambda payload: None)
"""


@pytest.mark.parametrize("again", ["reloaded", "imported anew"])
def test_a_module_may_be_executed_again(again: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shared, name = ModuleType("sw_shared"), "sw_handlers_" + again.split()[0]
    shared.wind = wind = SolarWind("memory://")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "sw_shared", shared)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    path = tmp_path / f"{name}.py"
    path.write_text(MODULE.format(shared="sw_shared", body="return 1"))
    module = importlib.import_module(name)
    path.write_text("\n" + MODULE.format(shared="sw_shared", body="return 12345"))
    if again == "reloaded":
        importlib.reload(module)
    else:
        del sys.modules[name]
        importlib.import_module(name)
    monkeypatch.delitem(sys.modules, name)
    assert len(wind.handlers) == 8


# What a handler says by a group ---------------------------------------------------------------------------------------


async def counts_of(error: Callable[[], BaseException]) -> tuple[int, list[str]]:
    """Return how often a handler that raises this at its first attempt was called, and the errors of the dead
    letters."""
    attempts: list[int] = []
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p", retry=Retry(attempts=3, wait=0))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        if len(attempts) == 1:
            raise error()

    async with wind:
        await wind.fire("T")
        await wind.settled(60)
        return attempts[-1], [letter.error for letter in await wind.dead("T", "p")]


@on_loop
async def test_a_reject_in_a_group_is_a_dead_letter_at_once() -> None:
    group = lambda: ExceptionGroup("g", [OSError("x"), ExceptionGroup("h", [Reject("no use"), Later(1)])])  # noqa: E731
    assert await counts_of(group) == (1, ["no use"])


@on_loop
async def test_a_group_of_later_alone_is_not_counted_and_the_longest_wait_counts() -> None:
    group = lambda: ExceptionGroup("g", [Later(0), ExceptionGroup("h", [Later(0.01)])])  # noqa: E731
    assert await counts_of(group) == (1, [])
    longest = said_by(ExceptionGroup("g", [Later(1), Later(30), Later(2)]))
    assert isinstance(longest, Later)
    assert longest.seconds == 30


@on_loop
async def test_a_group_with_another_failure_beside_later_is_a_failed_attempt() -> None:
    assert await counts_of(lambda: ExceptionGroup("g", [Later(0), OSError("x")])) == (2, [])


# Batches --------------------------------------------------------------------------------------------------------------


@on_loop
async def test_a_batch_handler_gets_no_more_than_it_states() -> None:
    sizes: list[int] = []
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p", batch=7)
    async def handle(numbers: list[int]) -> None:
        sizes.append(len(numbers))

    async with wind:
        await wind.fire_many("T", range(100))
        await wind.settled(60)
    assert sum(sizes) == 100
    assert max(sizes) == 7


@pytest.mark.parametrize("batch", [0, -1, 501, True, 1.5, "7"])
def test_a_batch_of_another_size_is_refused(batch: Any) -> None:
    with pytest.raises(BadArgument, match="batch to be an integer from 1 to 500"):
        SolarWind("memory://").on("T", batch=batch)


def test_a_batch_size_is_refused_where_events_come_one_by_one() -> None:
    with pytest.raises(BadArgument, match=r"batch=10 .*list\[\.\.\.\]"):
        SolarWind("memory://").on("T", batch=10)(handle)
