"""The metrics for Prometheus. `deploy/` has alert rules and a dashboard that use them."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import accumulate
from typing import Any, TypeVar, get_args

import msgspec
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from ..errors import NotFound, SolarWindError
from ..operations import Operator
from ..records import (
    HISTOGRAM_S,
    Attention,
    AttentionKind,
    Histogram,
    InstanceInfo,
    RolloutInfo,
    Statistics,
    StoreInfo,
)
from .host import ServerHost

T = TypeVar("T")

ANSWER_S = 8.0  # for each question: Prometheus waits for ten seconds, unless it is told otherwise
MAX_ROLLOUTS = 1_000  # purposes with several versions whose shares are shown
_MAX_POINTS = 10_000
_TOGETHER = 50  # rollouts that are asked for at a time

# The fields of a purpose's statistics that are gauges, and those that are counters.
_GAUGES = {
    "instances": "Live service instances.",
    "pending": "Events that are in nobody's hands yet.",
    "in_flight": "Events that are with an instance.",
    "delayed": "Events that wait for the purpose's own delay, of those that pend.",
    "dead": "Dead letters.",
    "limited": "1 while events wait for the purpose's rate, or for its maximum in flight.",
}
_COUNTERS = {
    "settled": "Events that the purpose is done with.",
    "retried": "Attempts that failed and were to be made again.",
    "dropped": "Copies that a fan-out did not hand out, or whose handler raised.",
    "expired": "Events that were not handed out because they had expired.",
    "key_missing": "Events that a keyed purpose found without a key.",
}
# The fields of a version.
_VERSION_GAUGES = {
    "share": "The part of the events that a version of a purpose gets, from 0 to 1; of purposes with several versions.",
    "instances": "Live service instances of a version; of purposes with several versions.",
    "pending": "Events that a version is to get; of purposes with several versions.",
    "in_flight": "Events that are with instances of a version; of purposes with several versions.",
}
# The histograms: the fields of a version's times, and what they are.
_TIMES = {
    "handler_seconds": ("handler", "How long the handler took for an event."),
    "settle_seconds": ("settled", "How long it took from when an event was fired, or due, until it was settled."),
}

# What is open of the server, by the fields of `OpenStreams`.
_STREAMS = {
    "websockets": ("connections", "Open WebSocket connections."),
    "viewers": ("viewers", "Open streams of GET /v1/watch."),
    "feeds": ("feeds", "Open streams of feeds."),
}
_STATES = "running", "paused", "nobody up", "failing"
_BOUNDS = [*(f"{bound:g}" for bound in HISTOGRAM_S), "+Inf"]


class Facts(msgspec.Struct, frozen=True):
    """What is known at a moment. A question that was not answered has nothing, and its name in `unanswered`."""

    statistics: Statistics
    instances: Sequence[InstanceInfo]
    stores: Sequence[StoreInfo]
    attention: Sequence[Attention]
    rollouts: Sequence[RolloutInfo]
    unanswered: set[str]


async def ask(host: ServerHost) -> Facts:
    """Return the facts. Raise the error for which there is no answer to any question."""
    points = Operator.attention.request({"limit": _MAX_POINTS})
    questions: dict[str, Awaitable[Any]] = {
        "statistics": _counted(host),
        "instances": Operator.instances(host.engine),
        "stores": Operator.stores(host.engine),
        "attention": host.wind.ask_here(points),
    }
    answers: list[Any] = await asyncio.gather(*map(_in_time, questions.values()), return_exceptions=True)
    errors = {name: each for name, each in zip(questions, answers, strict=True) if isinstance(each, BaseException)}
    for error in errors.values():
        if len(errors) == len(questions) or not isinstance(error, SolarWindError | TimeoutError):
            raise error
    found = {name: each for name, each in zip(questions, answers, strict=True) if name not in errors}
    statistics, rollouts = found.get("statistics", (Statistics({}, {}), ()))
    return Facts(
        statistics=statistics,
        instances=found.get("instances", ()),
        stores=found.get("stores", ()),
        attention=found.get("attention", ()),
        rollouts=rollouts,
        unanswered={*errors},
    )


async def _in_time(question: Awaitable[T]) -> T:
    return await asyncio.wait_for(question, ANSWER_S)


async def _counted(host: ServerHost) -> tuple[Statistics, list[RolloutInfo]]:
    """Return the statistics, and the rollouts of purposes with several versions."""
    statistics = await Operator.statistics(host.engine)
    several = [names for names, numbers in statistics.purposes.items() if len(numbers.versions) > 1][:MAX_ROLLOUTS]
    rollouts: list[RolloutInfo] = []
    for start in range(0, len(several), _TOGETHER):
        asked = (Operator.rollout(host.engine, *names) for names in several[start : start + _TOGETHER])
        for each in await asyncio.gather(*asked, return_exceptions=True):
            if isinstance(each, RolloutInfo):
                rollouts.append(each)
            elif not isinstance(each, NotFound):  # it was retired meanwhile
                raise each
    return statistics, rollouts


def writing(host: ServerHost, facts: Facts, accept: str) -> tuple[Callable[[], bytes], str]:
    """Return a function that writes the metrics of this moment in a form that the client accepts, and its content
    type."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Collector(host, facts))
    encode, content = choose_encoder(accept)
    return partial(encode, registry), content


class _Collector:
    """A collector of metrics at one moment."""

    def __init__(self, host: ServerHost, facts: Facts) -> None:
        self._streams = host.facts["server"]()["connections"].record
        self._requests = dict(host.requests)
        self._facts = facts
        self._purposes = facts.statistics.purposes

    def collect(self) -> Iterator[Metric]:
        yield from self._of_topics_and_purposes()
        yield from self._times()
        yield from self._of_versions()
        yield from self._of_instances()
        yield from self._of_stores()
        yield from self._of_attention()
        for field, (name, help) in _STREAMS.items():
            yield GaugeMetricFamily(f"solarwind_{name}", help, value=getattr(self._streams, field))
        requests = CounterMetricFamily(
            "solarwind_http_requests", "HTTP requests answered.", labels=["method", "path", "status"]
        )
        for (method, path, status), count in self._requests.items():
            requests.add_metric([method, path, str(status)], count)
        yield requests

    def _of_topics_and_purposes(self) -> Iterator[Metric]:
        fired = CounterMetricFamily("solarwind_events_fired", "Events accepted on a topic.", labels=["topic"])
        for topic, counts in self._facts.statistics.topics.items():
            fired.add_metric([topic], counts.fired)
        yield fired
        delayed = (((topic,), counts.delayed) for topic, counts in self._facts.statistics.topics.items())
        help = "Events that enter the topic when they are due."
        yield _family(GaugeMetricFamily, "solarwind_topic_delayed", help, ["topic"], delayed)
        now = datetime.now(UTC)
        due = (
            ((topic,), (counts.next_due - now) / timedelta(seconds=1))
            for topic, counts in self._facts.statistics.topics.items()
            if counts.next_due is not None
        )
        help = "When the next delayed event is due, in seconds from now; negative where it is late. None without any."
        yield _family(GaugeMetricFamily, "solarwind_topic_next_due_seconds", help, ["topic"], due)
        names = ["topic", "purpose"]
        for kind, fields in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, help in fields.items():
                rows = ((key, getattr(numbers, name)) for key, numbers in self._purposes.items())
                yield _family(kind, f"solarwind_purpose_{name}", help, names, rows)
        ages = (
            (key, max(0.0, (now - (numbers.oldest or now)) / timedelta(seconds=1) - numbers.delay))
            for key, numbers in self._purposes.items()
        )
        help = "The age of the oldest event that is not settled, without the purpose's own delay; 0 without one."
        yield _family(GaugeMetricFamily, "solarwind_purpose_oldest_pending_seconds", help, names, ages)
        states = (
            ((*key, state), state == numbers.state) for key, numbers in self._purposes.items() for state in _STATES
        )
        help = "1 for the state that a purpose is in."
        yield _family(GaugeMetricFamily, "solarwind_purpose_state", help, [*names, "state"], states)

    def _times(self) -> Iterator[Metric]:
        """Yield the histograms of times."""
        for name, (of, help) in _TIMES.items():
            family = HistogramMetricFamily(f"solarwind_purpose_{name}", help, labels=["topic", "purpose", "version"])
            for (topic, purpose), numbers in self._purposes.items():
                for times in numbers.times:
                    _add(family, [topic, purpose, str(times.version)], getattr(times, of))
            yield family

    def _of_versions(self) -> Iterator[Metric]:
        names = ["topic", "purpose", "version"]
        found = [
            ((of.topic, of.purpose, str(each.version)), each) for of in self._facts.rollouts for each in of.versions
        ]
        for name, help in _VERSION_GAUGES.items():
            rows = ((key, getattr(each, name)) for key, each in found)
            yield _family(GaugeMetricFamily, f"solarwind_version_{name}", help, names, rows)
        states = (((*key, each.state.partition(" ")[0]), 1) for key, each in found)
        help = "1 for the state that a version is in; of purposes with several versions."
        yield _family(GaugeMetricFamily, "solarwind_version_state", help, [*names, "state"], states)

    def _of_instances(self) -> Iterator[Metric]:
        """Yield sums by machine: there may be very many instances, and each is there for a while only."""
        counts, in_hand, rates = Counter[Any](), Counter[Any](), dict[Any, float]()
        for each in self._facts.instances:
            key = each.topic, each.purpose, str(each.version), each.machine
            counts[*key, each.state] += 1
            in_hand[key] += each.in_hand
            rates[key] = rates.get(key, 0.0) + each.rate
        names = ["topic", "purpose", "version", "machine"]
        gauge = GaugeMetricFamily
        yield _family(gauge, "solarwind_instances", "Live instances on a machine.", [*names, "state"], counts.items())
        help = "Events that instances on a machine have in hand."
        yield _family(gauge, "solarwind_instances_in_hand", help, names, in_hand.items())
        help = "Events that instances on a machine settle in a second, as a mean of about ten."
        yield _family(gauge, "solarwind_instances_settled_per_second", help, names, rates.items())

    def _of_stores(self) -> Iterator[Metric]:
        stores, names = self._facts.stores, ["store"]
        for of, help in (("free", "Bytes that are left for a store."), ("size", "Bytes that there are for a store.")):
            rows = (((each.store,), getattr(each, of)) for each in stores if getattr(each, of) is not None)
            yield _family(GaugeMetricFamily, f"solarwind_store_{of}_bytes", help, names, rows)
        full = (((each.store,), each.full) for each in stores)
        help = "1 while a store refuses new events, since it has no room for them."
        yield _family(GaugeMetricFamily, "solarwind_store_full", help, names, full)
        family = HistogramMetricFamily("solarwind_commit_seconds", "How long commits of a store took.", labels=names)
        for each in stores:
            _add(family, [each.store], each.commits)
        yield family

    def _of_attention(self) -> Iterator[Metric]:
        points = Counter((each.kind, each.topic, each.purpose) for each in self._facts.attention)
        there = {kind for kind, _, _ in points}
        points.update({(kind, "", ""): 0 for kind in get_args(AttentionKind) if kind not in there})
        help = "What needs a person: the number of points of a kind; 0 without a topic where there are none."
        names = ["kind", "topic", "purpose"]
        answered = "attention" not in self._facts.unanswered
        yield _family(GaugeMetricFamily, "solarwind_attention", help, names, points.items() if answered else ())
        rows = (
            ((name,), name in self._facts.unanswered) for name in ("statistics", "instances", "stores", "attention")
        )
        help = "1 for what is missing here, because not all dispatchers answered."
        yield _family(GaugeMetricFamily, "solarwind_unanswered", help, ["question"], rows)


def _family(
    kind: Any, name: str, help: str, labels: Sequence[str], rows: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    family = kind(name, help, labels=labels)
    for values, number in rows:
        family.add_metric(values, number)
    return family  # type: ignore[no-any-return]


def _add(family: HistogramMetricFamily, labels: Sequence[str], found: Histogram) -> None:
    family.add_metric(labels, list(zip(_BOUNDS, accumulate(found.counts), strict=True)), found.sum_s)
