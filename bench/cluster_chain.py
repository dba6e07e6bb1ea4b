"""How many events a second go through a handler that fires one on another topic for each, on a NATS JetStream cluster?

There are a producer, and a service in another process that has both handlers and owns both topics. Events that the
first handler fires are stored together with its settle, then copied to the stream of their topic, which may be the same
one or another. The clock runs from the first event fired to the last one that the second handler counted. With nats-py
used directly, the first consumer publishes each message that it pulled, waits until that is stored, and acknowledges
only then; nothing prevents duplicates."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from functools import partial
from time import perf_counter
from typing import Any
from zlib import crc32

import harness
from cluster import AHEAD, PULL, REPLICAS, UNSETTLED, Say, addresses, check_owner, owners, serve, wind_url
from harness import PAYLOAD, Crew, Options, Row, Table

STREAMS = 8  # over which a namespace spreads its topics
FIRST = "chain.first"
_NAMES = [f"chain.next{number}" for number in range(100)]
_BESIDE = [crc32(name.encode()) % STREAMS == crc32(FIRST.encode()) % STREAMS for name in _NAMES]
NEXT = {"the same stream": _NAMES[_BESIDE.index(True)], "another stream": _NAMES[_BESIDE.index(False)]}


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_passes(say: Say, then: str, batches: bool, url: str, events: int) -> tuple[float, set[str]]:
    """Say who owns the topics; return the time of the last event, and who owns them then."""
    return harness.run_loop(_wind_pass(say, then, batches, url, events))


async def _wind_pass(say: Say, then: str, batches: bool, url: str, events: int) -> tuple[float, set[str]]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    done, handled = harness.count_events(wind, then, events, batches=batches)

    async def pass_on(payload: bytes) -> None:
        wind.fire(then, payload)

    async def pass_all_on(payloads: list[bytes]) -> None:
        wind.fire_many(then, payloads)

    wind.on(FIRST, purpose="Pass on")(pass_all_on if batches else pass_on)
    async with wind:
        say(await owners(wind.engine))
        await done.wait()
        ended = perf_counter()
        await wind.settled()
        if handled() != events:
            raise RuntimeError(f"expected {events:,} events, handled {handled():,}")
        return ended, await owners(wind.engine)


def wind_produces(say: Say, many: bool, url: str, events: int) -> float:
    return harness.run_loop(_wind_produce(many, url, events))


async def _wind_produce(many: bool, url: str, events: int) -> float:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        begun = perf_counter()
        await harness.fire_all(wind, FIRST, events, many=many)
        return begun


# By hand --------------------------------------------------------------------------------------------------------


def hand_passes(say: Say, replicas: int, url: str, messages: int) -> float:
    return harness.run_loop(_hand_pass(say, replicas, url, messages))


async def _hand_pass(say: Say, replicas: int, url: str, messages: int) -> float:
    import nats
    from nats.js.api import ConsumerConfig

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream(publish_async_max_pending=AHEAD)
    await jetstream.add_stream(name="BENCH", subjects=["chain.*"], num_replicas=replicas)
    config = ConsumerConfig(max_ack_pending=UNSETTLED)
    first = await jetstream.pull_subscribe(FIRST, durable="pass", config=config)
    then = await jetstream.pull_subscribe("chain.next", durable="count", config=config)
    say("ready")

    async def pass_on(pulled: list[Any]) -> None:
        stored = [await jetstream.publish_async("chain.next", message.data) for message in pulled]
        await asyncio.gather(*stored)

    await asyncio.gather(pull(first, messages, pass_on), pull(then, messages, nothing))
    ended = perf_counter()
    await client.close()
    return ended


async def pull(subscription: Any, messages: int, handle: Any) -> None:
    """Handle messages until all have come."""
    from nats.js.errors import ServiceUnavailableError as NoLeaderYet

    came = 0
    while came < messages:
        try:
            pulled = await subscription.fetch(PULL, timeout=1)
        except (TimeoutError, NoLeaderYet):
            continue
        await handle(pulled)
        for message in pulled:
            await message.ack()
        came += len(pulled)


async def nothing(pulled: list[Any]) -> None:
    """Do nothing: they are counted anyway."""


def hand_produces(say: Say, packed: int, url: str, messages: int) -> float:
    return harness.run_loop(_hand_produce(packed, url, messages))


async def _hand_produce(packed: int, url: str, messages: int) -> float:
    import nats

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream(publish_async_max_pending=AHEAD)
    begun = perf_counter()
    for _ in range(messages):
        await jetstream.publish_async(FIRST, b"\n".join([PAYLOAD] * packed))
    await jetstream.publish_async_completed()
    await client.close()
    return begun


# ----------------------------------------------------------------------------------------------------------------


@dataclass
class Hand:
    packed: int
    share: int = 1  # of the events

    @property
    def name(self) -> str:
        return f"by hand, {self.packed} events a message" if self.packed > 1 else "by hand, one event a message"

    def measure(self, folder: str, replicas: int, events: int) -> float:
        messages = max(1, events // self.share // self.packed)
        with serve(replicas, folder) as server, Crew() as crew:
            service = crew.start(hand_passes, replicas, server.url, messages)
            service.said()
            begun = crew.start(hand_produces, self.packed, server.url, messages).result()
            return messages * self.packed / (service.result() - begun)


@dataclass
class Wind:
    to: str
    batches: bool

    @property
    def name(self) -> str:
        return f"nats://, {'fire_many, list[bytes]' if self.batches else 'fire, bytes'}, to {self.to}"

    def measure(self, folder: str, replicas: int, events: int) -> float:
        with serve(replicas, folder) as server, Crew() as crew:
            url = f"{wind_url(server, replicas)}&streams={STREAMS}"
            service = crew.start(wind_passes, NEXT[self.to], self.batches, url, events)
            first = service.said()
            check_owner({name for name in first if name.endswith(f":{service.process.pid}")}, first)
            begun = crew.start(wind_produces, self.batches, url, events).result()
            ended, last = service.result()
            check_owner(first, last)
            return events / (ended - begun)


def run(options: Options) -> list[Table]:
    chosen = [each for each in REPLICAS if options.replicas in (None, each)]
    return [compare(replicas, options) for replicas in chosen]


def compare(replicas: int, options: Options) -> Table:
    events = options.events or 400_000
    every = [Hand(1, share=20), Hand(64), *(Wind(to, batches) for to in NEXT for batches in (False, True))]
    measures = {each.name: partial(each.measure, options.folder, replicas, events) for each in every}
    found = harness.take_turns(measures, options.rounds or 3)
    where = "one node" if replicas == 1 else f"{replicas} nodes and replicas"
    rows = [Row(each.name, "events/s", found[each.name]) for each in every]
    return Table(
        f"Through a handler that fires another event for each, {where}, {events:,} events", harness.to_first(rows)
    )


if __name__ == "__main__":
    harness.main(run, __doc__)
