"""OpenTelemetry: spans and metrics of what a `SolarWind` fires and handles, by the semantic conventions for messaging.

    from solarwind.contrib.otel import instrument

    instrument(wind)

The context of a fire goes along with its events as `traceparent` and `tracestate`, their extensions, wherever they go:
through a server, a cluster, an outbox, a delay and every retry.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import lru_cache, wraps
from importlib.metadata import version
from time import monotonic, time_ns
from typing import Any, ParamSpec, TypeVar

from ..batch import Batch
from ..columns import check_extensions
from ..core.effects import Join, Offer, Report
from ..errors import BadArgument, BadPayload
from ..event import Event
from ..extras import install
from ..failure import Later, Reject
from ..logs import limited
from ..names import shown
from ..origin import MACHINE, process_name
from ..service.middleware import CallNext, Handing
from ..service.signature import Unfit
from ..service.timed import failed_in_time
from ..wind import SolarWind

try:
    from opentelemetry import metrics, trace
    from opentelemetry.context import Context
    from opentelemetry.metrics import MeterProvider
    from opentelemetry.trace import Link, Span, SpanContext, SpanKind, Status, StatusCode, TracerProvider
    from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
except ImportError as error:
    raise ImportError(f"{error}: run {install('otel')}") from None

SCHEMA_URL = "https://opentelemetry.io/schemas/1.44.0"
SPANS = ("fire", "send", "receive", "process", "settle")
MAX_LINKS = 128  # of a span, which is also what the SDK keeps
MAX_TRACESTATE = 512  # characters: what W3C says everybody has to carry
# The boundaries that the conventions recommend for durations, in seconds.
_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10]
_TYPES = {"fire": "create", "send": "send", "receive": "receive", "process": "process", "settle": "settle"}
_NO_PARENT = Context()
_W3C = TraceContextTextMapPropagator()

P = ParamSpec("P")
R = TypeVar("R")
Attributes = dict[str, Any]


def instrument(
    wind: SolarWind,
    *,
    tracer_provider: TracerProvider | None = None,
    meter_provider: MeterProvider | None = None,
    parent: bool = False,
    spans: Collection[str] = SPANS,
) -> None:
    """Make spans and metrics of what `wind` fires and handles. Call it before it starts, and before other middleware is
    added, whose work is in the spans then.

    The providers are the global ones if not given. A hand-out begins a trace of its own that has links to the fires of
    its events; with `parent`, one of a single event goes on with the trace of its fire. `spans` are those to make, some
    of "fire", "send", "receive", "process" and "settle"; metrics are made in any case. Raise `BadArgument`,
    `Unavailable` while `wind` runs."""
    if not isinstance(wind, SolarWind):
        raise BadArgument(f"expected a SolarWind to instrument, got {shown(wind)}")
    for name, provider, kind in (
        ("tracer_provider", tracer_provider, TracerProvider),
        ("meter_provider", meter_provider, MeterProvider),
    ):
        if provider is not None and not isinstance(provider, kind):
            raise BadArgument(
                f"expected {name}= to be a {kind.__name__} of OpenTelemetry, or None for the global one, got "
                f"{shown(provider)}"
            )
    if not isinstance(parent, bool):
        raise BadArgument(f"expected parent= to be True or False, got {shown(parent)}")
    wanted = _wanted(spans)
    if wind._around.observer is not None:
        raise BadArgument("expected a SolarWind that is not instrumented yet, got one that is: leave it out")
    made = _Instrumentation(tracer_provider, meter_provider, parent, wanted)
    wind.middleware(made.around)
    wind._around.observer = made


def _wanted(spans: object) -> frozenset[str]:
    """Return the names of the spans to make. Raise `BadArgument`."""
    if isinstance(spans, Iterable) and not isinstance(spans, str | bytes | Mapping):
        names = tuple(spans)
        wrong = [each for each in names if each not in SPANS]  # of any type
        if not wrong:
            return frozenset(names)
        spans = wrong[0]
    raise BadArgument(f"expected spans= to be a list of some of {', '.join(SPANS)}, got {shown(spans)}")


def _quietly(function: Callable[P, R]) -> Callable[P, R | None]:
    """Log what a function raises, and return None then: events go on without their spans."""

    @wraps(function)
    def run(*args: P.args, **kwargs: P.kwargs) -> R | None:
        try:
            return function(*args, **kwargs)
        except Exception as error:
            limited.error(("otel", function.__name__), "a span could not be made: %s", _text(error), exc_info=error)
            return None

    return run


class _Instrumentation:
    """The middleware around fires and hand-outs, and the observer of what is sent and reported."""

    def __init__(
        self,
        tracer_provider: TracerProvider | None,
        meter_provider: MeterProvider | None,
        parent: bool,
        spans: frozenset[str],
    ) -> None:
        release = version("solarwind")
        self._tracer = trace.get_tracer("solarwind", release, tracer_provider, SCHEMA_URL)
        self._spans = spans
        self._parent = parent
        meter = metrics.get_meter("solarwind", release, meter_provider, SCHEMA_URL)
        self._sent = meter.create_counter(
            "messaging.client.sent.messages",
            "{message}",
            "Number of messages producer attempted to send to the broker.",
        )
        self._consumed = meter.create_counter(
            "messaging.client.consumed.messages",
            "{message}",
            "Number of messages that were delivered to the application.",
        )
        self._took = meter.create_histogram(
            "messaging.client.operation.duration",
            "s",
            "Duration of messaging operation initiated by a producer or consumer client.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )
        self._processed = meter.create_histogram(
            "messaging.process.duration",
            "s",
            "Duration of processing operation.",
            explicit_bucket_boundaries_advisory=_SECONDS,
        )

    @_quietly
    def _begin(self, name: str, topic: str, kind: SpanKind, attributes: Attributes, **how: Any) -> Span | None:
        """Begin a span, unless those of this name are off."""
        if name not in self._spans:
            return None
        return self._tracer.start_span(f"{name} {topic}", kind=kind, attributes=attributes, **how)

    # Fires and hand-outs ------------------------------------------------------------------------------

    async def around(self, call_next: CallNext, handing: Handing) -> Any:
        """Be the middleware."""
        return await (self._fire if handing.kind == "fire" else self._process)(call_next, handing)

    async def _fire(self, call_next: CallNext, handing: Handing) -> Any:
        attributes = _of("fire", handing.topic) | {"messaging.client.id": _client()}
        if handing.count != 1:
            attributes["messaging.batch.message_count"] = handing.count
        span = self._begin("fire", handing.topic, SpanKind.PRODUCER, attributes)
        with _current(span):
            _inject(handing.extensions)
            try:
                result = await call_next(handing)
            except BaseException as error:
                _note_error(span, error)
                raise
            if span is not None and span.is_recording() and handing.count == 1 and (id := _id_of(result)):
                span.set_attribute("messaging.message.id", id)
            return result

    async def _process(self, call_next: CallNext, handing: Handing) -> Any:
        common = _of("process", handing.topic) | {"messaging.destination.subscription.name": handing.purpose}
        span = self._begin_process(handing, common)
        began, failed = monotonic(), ""
        try:
            with _current(span):
                try:
                    result = await call_next(handing)
                except BaseException as error:
                    failed = _note_outcome(span, failed_in_time(error) or error)
                    raise
                if (late := failed_in_time(None)) is not None:  # it was cancelled, and returned nevertheless
                    failed = _note_outcome(span, late)
                elif span is not None:
                    span.set_attribute("solarwind.outcome", "done")
                return result
        finally:
            self._handled(handing, monotonic() - began, common, failed)

    @_quietly
    def _begin_process(self, handing: Handing, common: Attributes) -> Span | None:
        # It belongs to nothing of what its worker was started in.
        if self._parent and handing.count == 1:
            whose: Attributes = {"context": _context_of(handing.events[0])}
        else:
            whose = {"context": _NO_PARENT, "links": _links((each.id, each.extensions) for each in handing.events)}
        attributes = common | _of_events(handing.version, handing.events)
        return self._begin("process", handing.topic, SpanKind.CONSUMER, attributes, **whose)

    @_quietly
    def _handled(self, handing: Handing, seconds: float, common: Attributes, failed: str) -> None:
        self._processed.record(seconds, common | {"error.type": failed} if failed else common)
        self._consumed.add(handing.count, common)

    # What travels -------------------------------------------------------------------------------------

    @_quietly
    def sent(self, batch: Batch, accepted: asyncio.Future[None]) -> None:
        """See `Observer`."""
        attributes = _of("send", batch.topic)
        links = _links_of(batch, range(len(batch)))
        counted = attributes | {"messaging.batch.message_count": len(batch), "messaging.client.id": _client()}
        span = self._begin("send", batch.topic, SpanKind.CLIENT, counted, context=_NO_PARENT, links=links)
        began = monotonic()

        @_quietly
        def ended(accepted: asyncio.Future[None]) -> None:
            error = asyncio.CancelledError() if accepted.cancelled() else accepted.exception()
            said = attributes if error is None else attributes | {"error.type": _type_of(error)}
            if error is not None:
                _note_error(span, error)
            _end(span)
            self._took.record(monotonic() - began, said)
            self._sent.add(len(batch), said)

        accepted.add_done_callback(ended)

    @_quietly
    def received(self, event: Event, began_ns: int) -> None:
        """See `Observer`."""
        common = _of("receive", event.topic) | {"messaging.destination.subscription.name": event.purpose}
        now = time_ns()
        if "receive" in self._spans:
            attributes, links = common | _of_events(event.version, (event,)), _links(((event.id, event.extensions),))
            how: Attributes = {"context": _NO_PARENT, "links": links, "start_time": began_ns}
            _end(self._begin("receive", event.topic, SpanKind.CLIENT, attributes, **how), now)
        self._took.record(max(0, now - began_ns) / 1e9, common)
        self._consumed.add(1, common)

    @_quietly
    def _reported(
        self, join: Join, offer: Offer, report: Report, fired: Collection[Batch], began_ns: int, counts: bool
    ) -> None:
        attributes = _of("settle", join.topic) | {"messaging.destination.subscription.name": join.purpose}
        failed = [each.position for each in report.failed]
        if not report.done and not failed:
            return  # it only gives back what was not begun
        said = attributes if counts else attributes | {"error.type": "stale"}
        now = time_ns()
        if "settle" in self._spans:
            stored = offer.stored
            positions = [*report.done.positions(), *failed]
            links = _links_of(stored.batch, [each - stored.start for each in positions[:MAX_LINKS]])
            more = {
                "messaging.batch.message_count": len(positions),
                "messaging.client.id": _client(),
                "solarwind.purpose.version": join.version,
                "solarwind.settled": len(report.done),
            }
            span = self._begin(
                "settle", join.topic, SpanKind.CLIENT, said | more, context=_NO_PARENT, links=links, start_time=began_ns
            )
            if span is not None and not counts:
                span.set_status(Status(StatusCode.ERROR, "the lease of these events had ended"))
            _end(span, now)
        self._took.record(max(0, now - began_ns) / 1e9, said)
        for batch in fired if counts else ():  # what handlers fired goes with it
            self._sent.add(len(batch), _of("send", batch.topic))

    def reported(
        self, join: Join, offer: Offer, report: Report, fired: Collection[Batch], began_ns: int, counts: bool
    ) -> None:
        """See `Observer`."""
        self._reported(join, offer, report, fired, began_ns, counts)


# Attributes -----------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=4096)  # it is never changed
def _of(name: str, topic: str) -> Attributes:
    return {
        "messaging.system": "solarwind",
        "messaging.operation.name": name,
        "messaging.operation.type": _TYPES[name],
        "messaging.destination.name": topic,
    }


def _of_events(version: int, events: Sequence[Event]) -> Attributes:
    attributes: Attributes = {
        "messaging.client.id": _client(),
        "solarwind.purpose.version": version,
        "solarwind.attempt": max(each.attempt for each in events),
    }
    if len(events) == 1:
        first = events[0]
        attributes["messaging.message.id"] = first.id
        attributes["messaging.message.conversation_id"] = first.root
        if first.shadow:
            attributes["solarwind.shadow"] = True
    else:
        attributes["messaging.batch.message_count"] = len(events)
    return attributes


def _client() -> str:
    return f"{MACHINE}/{process_name()}"


def _id_of(result: Any) -> str:
    """Return the id of the event that a fire has made, also in an outbox."""
    if isinstance(result, tuple) and result and hasattr(result[0], "attributes"):
        return str(result[0].attributes.get("ids", ""))
    id = getattr(result, "id", "")
    return id if isinstance(id, str) else ""


def _type_of(error: BaseException) -> str:
    kind = BadPayload if isinstance(error, Unfit) else type(error)
    return kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"


def _text(error: BaseException) -> str:
    """Return what an exception says, which may raise another."""
    try:
        return str(error)
    except Exception:
        return "it cannot be shown"


@_quietly
def _note_error(span: Span | None, error: BaseException) -> None:
    if span is not None and span.is_recording():
        span.set_attribute("error.type", _type_of(error))
        span.set_status(Status(StatusCode.ERROR, f"{type(error).__name__}: {_text(error)}"[:1_000]))
        span.record_exception(error)


def _note_outcome(span: Span | None, error: BaseException) -> str:
    """Note what a handler raised. Return its type, "" where that is no failure: it asked for the event later."""
    outcome = "later" if isinstance(error, Later) else "rejected" if isinstance(error, Reject) else "failed"
    if span is not None:
        span.set_attribute("solarwind.outcome", outcome)
    if outcome == "later":
        return ""
    _note_error(span, error)
    return _type_of(error)


@contextmanager
def _current(span: Span | None) -> Iterator[None]:
    """Make a span the current one, if there is one, and end it. What failed is noted by itself."""
    if span is None:
        yield
        return
    with trace.use_span(span, record_exception=False, set_status_on_exception=False):
        try:
            yield
        finally:
            _end(span)


@_quietly
def _end(span: Span | None, at: int | None = None) -> None:
    if span is not None:
        span.end(at)


# Contexts -------------------------------------------------------------------------------------------------------------


@_quietly
def _inject(extensions: dict[str, str]) -> None:
    """Have what is fired carry the current context, unless somebody stated whose it is, as far as there is room for it:
    tracestate may come from anywhere, and no event is refused because of it."""
    if "traceparent" in extensions:
        return
    carried: dict[str, str] = {}
    _W3C.inject(carried)
    if extensions or len(carried.get("tracestate", "")) > MAX_TRACESTATE:
        for name, value in sorted(carried.items()):  # the parent first, without which its state means nothing
            if not _fits(extensions | {name: value}):
                break
            extensions[name] = value
    else:
        extensions.update(carried)


def _fits(extensions: dict[str, str]) -> bool:
    if len(extensions.get("tracestate", "")) > MAX_TRACESTATE:
        return False
    try:
        check_extensions(extensions)
    except BadArgument:
        return False
    return True


@lru_cache(maxsize=1024)
def _span_context(traceparent: str, tracestate: str) -> SpanContext | None:
    """Return the context of a fire; None where the text is none."""
    found = _W3C.extract({"traceparent": traceparent, "tracestate": tracestate}, _NO_PARENT)
    context = trace.get_current_span(found).get_span_context()
    return context if context.is_valid else None


def _from(extensions: dict[str, str]) -> SpanContext | None:
    traceparent = extensions.get("traceparent", "")
    return _span_context(traceparent, extensions.get("tracestate", "")) if traceparent else None


def _context_of(event: Event) -> Context:
    found = _from(event.extensions)
    return _NO_PARENT if found is None else trace.set_span_in_context(trace.NonRecordingSpan(found), _NO_PARENT)


def _links(events: Iterable[tuple[str, dict[str, str]]]) -> Sequence[Link]:
    """Return links to the fires of events, each with the id of its event."""
    links: list[Link] = []
    for id, extensions in events:
        if (context := _from(extensions)) is not None:
            links.append(Link(context, {"messaging.message.id": id}))
            if len(links) == MAX_LINKS:
                break
    return links


def _links_of(batch: Batch, indexes: Iterable[int]) -> Sequence[Link]:
    if batch.header.extensions is None:
        return ()
    return _links((batch.id(index), batch.extensions(index)) for index in indexes)
