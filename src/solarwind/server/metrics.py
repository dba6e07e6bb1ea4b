"""The metrics for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

from prometheus_client import CollectorRegistry, PlatformCollector, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import choose_encoder

from ..records import Statistics
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


def writing(host: ServerHost, statistics: Statistics, accept: str) -> tuple[Callable[[], bytes], str]:
    """Return a function that writes the metrics of this moment in a form that the client accepts, and its content
    type."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    PlatformCollector(registry=registry)
    registry.register(_Collector(host, statistics))
    encode, content = choose_encoder(accept)
    return partial(encode, registry), content


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
