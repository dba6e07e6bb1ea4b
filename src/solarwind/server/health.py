"""Monitoring: liveness, readiness, and metrics for Prometheus."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import msgspec
from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder
from starlette.responses import Response

from ..operations import Operator
from ..records import Statistics
from .call import Call, answer
from .host import ServerHost

# The fields of a purpose's statistics that are gauges, and those that are counters.
_GAUGES = {
    "instances": "Live service instances.",
    "pending": "Events that are in nobody's hands yet.",
    "in_flight": "Events that are with an instance.",
    "dead": "Dead letters.",
}
_COUNTERS = {
    "settled": "Events that the purpose is done with.",
    "retried": "Attempts that failed and were to be made again.",
    "dropped": "Copies that a fan-out did not hand out, or whose handler raised.",
    "key_missing": "Events that a keyed purpose found without a key.",
}


class Status(msgspec.Struct):
    status: str


async def healthz(call: Call) -> Response:
    """Answer that the process lives and its loop runs."""
    return answer(Status("alive"))


async def readyz(call: Call) -> Response:
    """Answer that it accepts events. Raise `Unavailable`, or the error after which the store can keep nothing any
    more."""
    call.host.check()
    return answer(Status("ready"))


async def metrics(call: Call) -> Response:
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Collector(call.host, await Operator.statistics(call.host.engine)))
    write, content = choose_encoder(call.request.headers.get("accept", ""))
    # On a thread: with many purposes the text is long, and takes time.
    return Response(await asyncio.to_thread(write, registry), media_type=content)


class _Collector:
    """A collector of metrics at one moment."""

    def __init__(self, host: ServerHost, statistics: Statistics) -> None:
        self._connections = host.connection_count
        self._requests = dict(host.requests)
        self._statistics = statistics

    def collect(self) -> Iterator[Metric]:
        fired = CounterMetricFamily("solarwind_events_fired", "Events accepted on a topic.", labels=["topic"])
        for topic, counts in self._statistics.topics.items():
            fired.add_metric([topic], counts.fired)
        yield fired
        for kind, names in ((GaugeMetricFamily, _GAUGES), (CounterMetricFamily, _COUNTERS)):
            for name, help in names.items():
                family = kind(f"solarwind_purpose_{name}", help, labels=["topic", "purpose"])
                for (topic, purpose), numbers in self._statistics.purposes.items():
                    family.add_metric([topic, purpose], getattr(numbers, name))
                yield family
        yield GaugeMetricFamily("solarwind_connections", "Open WebSocket connections.", value=self._connections)
        requests = CounterMetricFamily(
            "solarwind_http_requests", "HTTP requests answered.", labels=["method", "path", "status"]
        )
        for (method, path, status), count in self._requests.items():
            requests.add_metric([method, path, str(status)], count)
        yield requests
