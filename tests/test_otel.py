"""OpenTelemetry: the spans and metrics of fires, hand-outs and reports, as an exporter in memory gets them."""

from __future__ import annotations

import asyncio
import json
import logging
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON, Sampler
from opentelemetry.trace import SpanKind, TraceState

from server.serving import Serving
from solarwind import BadArgument, Event, Later, Reject, Retry, SolarWind, Unavailable
from solarwind.contrib.otel import MAX_LINKS, SCHEMA_URL, instrument
from solarwind.outbox import database as tables
from solarwind.service.middleware import CallNext, Handing
from solarwind.testing.contract import on_loop, until

HERE = Path(__file__).parent


class Telemetry:
    """A tracer and a meter whose exporters keep everything in memory."""

    def __init__(self) -> None:
        self.exporter, self.tracers = InMemorySpanExporter(), TracerProvider()
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.reader = InMemoryMetricReader()
        self.meters = MeterProvider([self.reader])
        self.tracer = self.tracers.get_tracer("test")

    def instrument(self, wind: SolarWind, **how: Any) -> SolarWind:
        instrument(wind, tracer_provider=self.tracers, meter_provider=self.meters, **how)
        return wind

    def named(self, name: str) -> list[ReadableSpan]:
        return [each for each in self.exporter.get_finished_spans() if each.name == name]

    def points(self, metric: str) -> Iterator[tuple[dict[str, Any], Any]]:
        found = self.reader.get_metrics_data()
        for resource in found.resource_metrics if found is not None else ():
            for scope in resource.scope_metrics:
                assert scope.schema_url == SCHEMA_URL
                for each in scope.metrics:
                    if each.name == metric:
                        for point in each.data.data_points:
                            count = getattr(point, "value", None) or getattr(point, "count", 0)
                            yield dict(point.attributes or {}), count


@pytest.fixture
def telemetry() -> Telemetry:
    return Telemetry()


def id_of(span: ReadableSpan) -> tuple[int, int]:
    assert span.context is not None
    return span.context.trace_id, span.context.span_id


def links(span: ReadableSpan) -> list[tuple[int, int]]:
    return [(each.context.trace_id, each.context.span_id) for each in span.links]


def said(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})


@pytest.mark.parametrize("kind", ["async", "def"])
@on_loop
async def test_a_fire_its_hand_out_and_what_that_fires_are_spans_with_the_attributes_of_the_conventions(
    kind: str, telemetry: Telemetry
) -> None:
    wind, current = telemetry.instrument(SolarWind("memory://")), list[int]()

    async def handle(number: int) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)
        wind.fire("U", number)

    def in_thread(number: int) -> None:
        current.append(trace.get_current_span().get_span_context().span_id)
        wind.fire("U", number)

    wind.on("T", purpose="Count", version=3)(handle if kind == "async" else in_thread)
    async with wind:
        with telemetry.tracer.start_as_current_span("request"):
            id = await wind.fire("T", 1)
        await wind.settled(60)
    (request,), (fired,), (sent,) = map(telemetry.named, ("request", "fire T", "send T"))
    (process,), (settle,), (further,) = map(telemetry.named, ("process T", "settle T", "fire U"))
    assert [each.kind for each in (fired, sent, process, settle)] == [
        SpanKind.PRODUCER,
        SpanKind.CLIENT,
        SpanKind.CONSUMER,
        SpanKind.CLIENT,
    ]
    common = {"messaging.system": "solarwind", "messaging.destination.name": "T"}
    common["messaging.client.id"] = said(fired)["messaging.client.id"]
    subscription = common | {"messaging.destination.subscription.name": "Count"}

    def operation(name: str, type_: str) -> dict[str, Any]:
        return {"messaging.operation.name": name, "messaging.operation.type": type_}

    assert said(fired) == common | operation("fire", "create") | {"messaging.message.id": id}
    assert said(sent) == common | operation("send", "send") | {"messaging.batch.message_count": 1}
    assert said(process) == subscription | operation("process", "process") | {
        "messaging.message.id": id,
        "messaging.message.conversation_id": id,
        "solarwind.purpose.version": 3,
        "solarwind.attempt": 1,
        "solarwind.outcome": "done",
    }
    assert said(settle) == subscription | operation("settle", "settle") | {
        "messaging.batch.message_count": 1,
        "solarwind.purpose.version": 3,
        "solarwind.settled": 1,
    }
    assert fired.parent is not None
    assert (fired.parent.trace_id, fired.parent.span_id) == id_of(request)
    assert links(sent) == links(process) == links(settle) == [id_of(fired)]
    assert process.parent is sent.parent is settle.parent is None
    assert current == [id_of(process)[1]]
    assert further.parent is not None
    assert (further.parent.trace_id, further.parent.span_id) == id_of(process)
    assert process.instrumentation_scope is not None
    assert process.instrumentation_scope.schema_url == SCHEMA_URL


@on_loop
async def test_a_hand_out_goes_on_with_the_trace_of_its_fire_if_that_is_asked_for(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"), parent=True)

    @wind.on("T", purpose="one")
    async def one(number: int) -> None: ...

    @wind.on("T", purpose="many")
    async def many(numbers: list[int]) -> None: ...

    async with wind:
        await wind.fire_many("T", [1, 2])
        await wind.settled(60)
    (fired,) = telemetry.named("fire T")
    for process in telemetry.named("process T"):
        if said(process)["messaging.destination.subscription.name"] == "one":
            assert process.parent is not None
            assert (process.parent.trace_id, process.parent.span_id, links(process)) == (*id_of(fired), [])
        else:
            assert (process.parent, links(process)) == (None, [id_of(fired)] * 2)


@on_loop
async def test_a_batch_has_a_link_to_the_fire_of_each_of_its_events_up_to_a_number(telemetry: Telemetry) -> None:
    wind, more = telemetry.instrument(SolarWind("memory://")), MAX_LINKS + 50

    @wind.on("T", purpose="p", batch=500)
    async def handle(numbers: list[int]) -> None: ...

    async with wind:
        await wind.pause("T", "p")
        ids = [(await wind.fire("T", 1)), (await wind.fire("T", 2))]
        await wind.fire_many("T", range(more))
        await wind.resume("T", "p")
        await wind.settled(60)
    first, second, many = telemetry.named("fire T")
    assert said(many)["messaging.batch.message_count"] == more
    assert "messaging.message.id" not in said(many)
    spans = telemetry.named("process T")
    assert sum(said(each).get("messaging.batch.message_count", 1) for each in spans) == more + 2
    assert all(len(each.links) <= MAX_LINKS for each in spans)
    linked = {each.attributes["messaging.message.id"]: each.context for span in spans for each in span.links}
    for id, fired in zip(ids, (first, second), strict=True):
        assert (linked[id].trace_id, linked[id].span_id) == id_of(fired)


@on_loop
async def test_each_attempt_is_a_span_and_says_why_it_failed(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"))

    @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.001))
    async def handle(number: int, event: Event) -> None:
        if number == 1 and event.attempt == 1:
            raise ValueError("not yet")
        if number == 2 and not event.attempt > 1:
            raise Reject("never")
        if number == 3 and not seen:
            seen.append(3)
            raise Later(0.001)

    seen: list[int] = []
    async with wind:
        for payload in (1, 2, 3, "no number"):
            await wind.fire("T", payload)
        await until(lambda: len(telemetry.named("process T")) == 6)
        await wind.settled(60)
    found = sorted(
        (said(each)["solarwind.outcome"], said(each)["solarwind.attempt"], said(each).get("error.type", ""))
        for each in telemetry.named("process T")
    )
    assert found == [
        ("done", 1, ""),
        ("done", 2, ""),
        ("failed", 1, "ValueError"),
        ("failed", 1, "solarwind.errors.BadPayload"),
        ("later", 1, ""),
        ("rejected", 1, "solarwind.failure.Reject"),
    ]
    (failed,) = (each for each in telemetry.named("process T") if said(each).get("error.type") == "ValueError")
    assert (failed.status.is_ok, failed.status.description) == (False, "ValueError: not yet")
    assert [each.name for each in failed.events] == ["exception"]
    assert sum(said(each)["solarwind.settled"] for each in telemetry.named("settle T")) == 2


@pytest.mark.parametrize(
    ("ends", "found"),
    [
        ("cancelled", ("failed", "TimeoutError")),
        ("raises", ("failed", "TimeoutError")),
        ("returns", ("failed", "TimeoutError")),
        ("later", ("later", "")),
        ("rejects", ("rejected", "solarwind.failure.Reject")),
    ],
)
@pytest.mark.parametrize("around", [False, True], ids=["at once", "in a task of other middleware"])
@on_loop
async def test_a_call_that_took_too_long_is_what_the_log_and_the_dead_letter_say_it_is(
    ends: str, found: tuple[str, str], around: bool, telemetry: Telemetry
) -> None:
    """Whatever the handler made of its cancellation."""
    wind, begun = SolarWind("memory://"), list[int]()
    if around:

        @wind.middleware
        async def in_a_task(call_next: CallNext, handing: Handing) -> Any:
            return await (asyncio.create_task(call_next(handing)) if handing.kind == "handle" else call_next(handing))

    telemetry.instrument(wind)

    @wind.on("T", purpose="p", retry=Retry(attempts=1), timeout=0.05)
    async def hang(number: int) -> None:
        begun.append(number)
        try:
            if len(begun) == 1:
                await asyncio.get_running_loop().create_future()
        except asyncio.CancelledError:
            if ends == "raises":
                raise RuntimeError("no") from None
            if ends == "later":
                raise Later(0.01) from None
            if ends == "rejects":
                raise Reject("no") from None
            if ends == "cancelled":
                raise

    async with wind:
        await wind.fire("T", 1)
        await until(lambda: telemetry.named("process T"))
        span = telemetry.named("process T")[0]
        assert (said(span)["solarwind.outcome"], said(span).get("error.type", "")) == found
        if found[1] == "TimeoutError":
            await wind.settled(60)
            [letter] = await wind.dead("T", "p")
            assert span.status.description == letter.error
            assert letter.error.startswith("TimeoutError: expected handler ")
            assert [each.get("error.type") for each, _ in telemetry.points("messaging.process.duration")] == [found[1]]


@on_loop
async def test_metrics_count_what_is_sent_and_handled_and_time_it(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"), spans=())

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def handle(number: int) -> None:
        if number == 0:
            raise ValueError(number)
        wind.fire("U", number)

    async with wind:
        await wind.fire_many("T", range(5))
        await wind.settled(60)
    assert not telemetry.exporter.get_finished_spans()
    of_t = {"messaging.system": "solarwind", "messaging.destination.name": "T"}
    send = {"messaging.operation.name": "send", "messaging.operation.type": "send"}
    sent = {
        each["messaging.destination.name"]: count for each, count in telemetry.points("messaging.client.sent.messages")
    }
    assert sent == {"T": 5, "U": 4}
    process = of_t | {"messaging.operation.name": "process", "messaging.operation.type": "process"}
    process["messaging.destination.subscription.name"] = "p"
    assert list(telemetry.points("messaging.client.consumed.messages")) == [(process, 5)]
    took = list(telemetry.points("messaging.process.duration"))
    assert sorted(took, key=len) == took
    assert sum(count for _, count in took) == 5
    assert [each.get("error.type") for each, _ in took if "error.type" in each] == ["ValueError"]
    operations = [each for each, _ in telemetry.points("messaging.client.operation.duration")]
    assert of_t | send in operations


@on_loop
async def test_the_context_of_a_fire_stays_with_its_event_through_a_delay_a_fan_out_and_an_outbox(
    telemetry: Telemetry, tmp_path: Path
) -> None:
    wind, shop = telemetry.instrument(SolarWind("memory://")), tmp_path / "shop.db"
    sqlite3.connect(shop).close()
    tables.init(f"sqlite:///{shop}")
    wind.relay(f"sqlite:///{shop}")

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None: ...

    for purpose in ("one", "two"):

        @wind.on("T", purpose=purpose, exchange="fanout")
        def look(number: int) -> None: ...

    async with wind:
        await wind.fire("T", 1, after=0.05)
        connection = sqlite3.connect(shop)
        with connection:
            id = wind.outbox(connection).fire("T", 2)
        await until(lambda: len(telemetry.named("process T")) == 6)
        await wind.settled(60)
    delayed, written = telemetry.named("fire T")
    sent = [link for each in telemetry.named("send T") for link in links(each)]
    assert sorted(sent) == sorted([id_of(delayed), id_of(written)])
    assert said(written)["messaging.message.id"] == id
    for fired in (delayed, written):
        spans = [each for each in telemetry.named("process T") if links(each) == [id_of(fired)]]
        assert {said(each)["messaging.destination.subscription.name"] for each in spans} == {"p", "one", "two"}
        assert {said(each)["messaging.message.id"] for each in spans} == {said(fired)["messaging.message.id"]}


def started(url: str) -> subprocess.Popen[str]:
    """Start the instrumented service, which is stopped by the end of its input."""
    command = [sys.executable, HERE / "otel_service.py", url]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


@on_loop
async def test_a_trace_goes_from_one_process_to_another_through_a_server(telemetry: Telemetry, tmp_path: Path) -> None:
    serving = Serving(tmp_path)
    await serving.start()
    service = started(serving.url)
    try:
        assert service.stdout is not None
        assert service.stdout.readline() == "ready\n"
        wind, seen = telemetry.instrument(SolarWind(serving.url)), list[int]()

        @wind.on("shipped", purpose="Thank")
        async def thank(order: dict[str, int]) -> None:
            seen.append(order["number"])

        async with wind:
            for number in (1, 2):
                await wind.fire("order", {"number": number})
            await until(lambda: sorted(seen) == [1, 2])
            await wind.settled(60)
        out, _ = service.communicate(timeout=120)
    finally:
        service.kill()
        await serving.end()
    there = [json.loads(line) for line in out.splitlines()]
    for fired in telemetry.named("fire order"):
        process = [
            each for each in there if each["name"] == "process order" and tuple(each["links"][0]) == id_of(fired)
        ]
        assert all(each["attributes"]["messaging.destination.subscription.name"] == "Ship" for each in process)
        last = process[-1]
        (further,) = [each for each in there if each["name"] == "fire shipped" and each["parent"] == last["span"]]
        (thanked,) = [
            each for each in telemetry.named("process shipped") if links(each) == [(further["trace"], further["span"])]
        ]
        assert said(thanked)["messaging.message.conversation_id"] == said(fired)["messaging.message.id"]
        assert thanked.parent is None
    assert sorted(each["error"] for each in there if each["name"] == "process order") == [False, False, True]


@on_loop
async def test_a_stream_that_is_read_has_spans_of_what_it_receives_and_settles(telemetry: Telemetry) -> None:
    wind, read = telemetry.instrument(SolarWind("memory://")), list[Event]()
    async with wind:
        async with wind.listen("T", "p", version=2) as events:
            for number in range(3):
                await wind.fire("T", number)
            for _ in range(3):
                read.append(await anext(events))
    assert not telemetry.named("process T")
    received = telemetry.named("receive T")
    assert [each.kind for each in received] == [SpanKind.CLIENT] * 3
    assert [each.parent for each in received] == [None] * 3
    assert [links(each) for each in received] == [[id_of(each)] for each in telemetry.named("fire T")]
    assert said(received[0]) == {
        "messaging.system": "solarwind",
        "messaging.operation.name": "receive",
        "messaging.operation.type": "receive",
        "messaging.destination.name": "T",
        "messaging.destination.subscription.name": "p",
        "messaging.client.id": said(received[0])["messaging.client.id"],
        "messaging.message.id": read[0].id,
        "messaging.message.conversation_id": read[0].id,
        "solarwind.purpose.version": 2,
        "solarwind.attempt": 1,
    }
    assert [count for _, count in telemetry.points("messaging.client.consumed.messages")] == [3]
    spans = telemetry.named("settle T")
    assert sum(said(each)["solarwind.settled"] for each in spans) >= 2
    assert {link for each in spans for link in links(each)} <= set(map(id_of, telemetry.named("fire T")))


@on_loop
async def test_what_is_refused_is_an_error_of_its_span(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"))
    with pytest.raises(Unavailable):
        wind.fire("T", 1)
    (fired,) = telemetry.named("fire T")
    assert said(fired)["error.type"] == "solarwind.errors.Unavailable"
    assert not fired.status.is_ok


@on_loop
async def test_a_context_that_somebody_states_is_kept_and_one_that_is_none_breaks_nothing(
    telemetry: Telemetry,
) -> None:
    wind, seen = telemetry.instrument(SolarWind("memory://")), list[str]()

    @wind.on("T", purpose="p")
    async def handle(number: int, event: Event) -> None:
        seen.append(event.extensions.get("traceparent", ""))

    stated = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
    async with wind:
        for text in (stated, "no traceparent"):
            await wind.fire("T", 1, extensions={"traceparent": text, "tracestate": "=,=" if text != stated else "a=b"})
        await wind.settled(60)
    assert seen == [stated, "no traceparent"]
    first, second = telemetry.named("process T")
    assert links(first) == [(0x0AF7651916CD43DD8448EB211C80319C, 0xB7AD6B7169203331)]
    assert links(second) == []


class Unwilling(SpanProcessor, Sampler):
    """A part of an SDK that raises at one of the things that it is asked for."""

    def __init__(self, at: str) -> None:
        self.at = at

    def _raise_at(self, at: str) -> None:
        if at == self.at:
            raise RuntimeError(f"no {at}")

    def on_start(self, *given: Any, **how: Any) -> None:
        self._raise_at("start")

    def on_end(self, *given: Any) -> None:
        self._raise_at("end")

    def should_sample(self, *given: Any, **how: Any) -> Any:
        self._raise_at("sampling")
        return ALWAYS_ON.should_sample(*given, **how)

    def get_description(self) -> str:
        return self.at


@pytest.mark.parametrize("at", ["start", "end", "sampling"])
@on_loop
async def test_a_span_that_cannot_be_made_does_not_keep_an_event(at: str, caplog: pytest.LogCaptureFixture) -> None:
    provider, seen = TracerProvider(sampler=Unwilling(at)), list[Any]()
    provider.add_span_processor(Unwilling(at))
    wind = SolarWind("memory://")
    instrument(wind, tracer_provider=provider)

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        seen.append(number)

    @wind.on("T", purpose="q")
    async def handle_all(numbers: list[int]) -> None:
        seen.append(numbers)

    with caplog.at_level(logging.ERROR):
        async with wind, wind.listen("T", "r", exchange="fanout") as events:
            await wind.fire("T", 1)
            seen.append((await anext(events)).payload)
            events.settle()
            await wind.settled(60)
    assert sorted(map(str, seen)) == ["1", "1", "[1]"]
    assert f"a span could not be made: no {at}" in caplog.text


@on_loop
async def test_an_error_that_cannot_be_shown_is_the_error_of_its_span(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"))

    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def handle(number: int) -> None:
        raise Mute

    async with wind:
        await wind.fire("T", 1)
        await wind.settled(60)
    (process,) = telemetry.named("process T")
    assert said(process)["error.type"].endswith("Mute")
    assert not process.status.is_ok


@on_loop
async def test_a_context_for_which_an_event_has_no_room_is_left_out(telemetry: Telemetry) -> None:
    wind, seen = telemetry.instrument(SolarWind("memory://")), dict[str, dict[str, str]]()
    short, long = TraceState([("a", "b")]), TraceState([(f"k{number}", "v" * 250) for number in range(32)])

    @wind.on("T", purpose="p")
    async def handle(name: str, event: Event) -> None:
        seen[name] = event.extensions

    async with wind:
        for name, state, extensions in (
            ("both", short, {}),
            ("a long state", long, {}),
            ("a long state and one", long, {"one": "1"}),
            ("no room for a state", short, {f"x{number}": "" for number in range(63)}),
            ("no room", short, {f"x{number}": "" for number in range(64)}),
            ("no bytes", short, {"x": "v" * 8_150}),
        ):
            context = trace.SpanContext(1, 2, True, trace.TraceFlags(1), state)
            with trace.use_span(trace.NonRecordingSpan(context)):
                await wind.fire("T", name, extensions=extensions)
        await wind.settled(60)
    carried = {name: [each for each in ("traceparent", "tracestate") if each in seen[name]] for name in seen}
    assert carried == {
        "both": ["traceparent", "tracestate"],
        "a long state": ["traceparent"],
        "a long state and one": ["traceparent"],
        "no room for a state": ["traceparent"],
        "no room": [],
        "no bytes": [],
    }


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ({"spans": ("fire", "eat")}, "some of fire, send, receive, process, settle, got 'eat'"),
        ({"spans": "fire"}, "expected spans= to be a list of some of .*, got 'fire'"),
        ({"spans": None}, "expected spans= to be a list of some of .*, got None"),
        ({"spans": 5}, "expected spans= to be a list of some of .*, got 5"),
        ({"spans": [["fire"]]}, r"expected spans= to be a list of some of .*, got \['fire'\]"),
        ({"spans": {"fire": True}}, "expected spans= to be a list of some of .*, got {'fire': True}"),
        ({"parent": "yes"}, "expected parent= to be True or False, got 'yes'"),
        ({"parent": None}, "expected parent= to be True or False, got None"),
        ({"tracer_provider": "otlp"}, "expected tracer_provider= to be a TracerProvider of .*, got 'otlp'"),
        ({"tracer_provider": TracerProvider}, "expected tracer_provider= to be a TracerProvider of .*, got <class"),
        ({"tracer_provider": MeterProvider([])}, "expected tracer_provider= to be a TracerProvider of "),
        ({"meter_provider": 5}, "expected meter_provider= to be a MeterProvider of .*, got 5"),
    ],
    ids=lambda each: f"{each:.40}" if isinstance(each, str) else next(iter(each)),
)
def test_what_cannot_be_meant_is_refused(how: dict[str, Any], words: str, telemetry: Telemetry) -> None:
    with pytest.raises(BadArgument, match=words) as refused:
        instrument(SolarWind("memory://"), **how)
    assert "\n" not in str(refused.value)
    with pytest.raises(BadArgument, match="expected a SolarWind to instrument"):
        instrument("memory://")  # type: ignore[arg-type]
    wind = telemetry.instrument(SolarWind("memory://"))
    with pytest.raises(BadArgument, match="not instrumented yet"):
        telemetry.instrument(wind)


@on_loop
async def test_spans_may_be_stated_once_only_as_of_a_generator(telemetry: Telemetry) -> None:
    wind = telemetry.instrument(SolarWind("memory://"), spans=(name for name in ("fire",)))
    async with wind:
        await wind.fire("T", 1)
    assert [each.name for each in telemetry.exporter.get_finished_spans()] == ["fire T"]


def test_nothing_of_it_is_imported_where_nobody_asks_for_it() -> None:
    program = "import solarwind, solarwind.wind, sys; print('opentelemetry' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert done.stdout == "False\n"
