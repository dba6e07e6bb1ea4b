"""A service in a process of its own, instrumented: `python otel_service.py URL`. At its end, when its input ends, it
prints its spans, one a line as JSON."""

from __future__ import annotations

import asyncio
import json
import sys

from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from solarwind import Event, Retry, SolarWind
from solarwind.contrib.otel import instrument

exporter, provider = InMemorySpanExporter(), TracerProvider()
provider.add_span_processor(SimpleSpanProcessor(exporter))
trace.set_tracer_provider(provider)  # which is the one that counts where none is stated
wind = SolarWind(sys.argv[1])
instrument(wind)


@wind.on("order", purpose="Ship", retry=Retry(attempts=3, wait=0.01))
async def ship(order: dict[str, int], event: Event) -> None:
    if order["number"] == 2 and event.attempt == 1:
        raise ValueError("not yet")
    wind.fire("shipped", order)


async def main() -> None:
    async with wind:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)
    for span in exporter.get_finished_spans():
        print(
            json.dumps(
                {
                    "name": span.name,
                    "trace": span.context.trace_id if span.context else 0,
                    "span": span.context.span_id if span.context else 0,
                    "parent": span.parent.span_id if span.parent else None,
                    "attributes": dict(span.attributes or {}),
                    "links": [(each.context.trace_id, each.context.span_id) for each in span.links],
                    "error": not span.status.is_ok,
                }
            )
        )


asyncio.run(main())
