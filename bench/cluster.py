"""How many events a second go from one process through a NATS JetStream cluster to another, beside nats-py used
directly?

Producer, owner and service are processes of their own (and owner and service one, in rows that say so); the server
stores in files, on one node and then on three that replicate. The payload stays undecoded and the service counts. The
clock runs from the first event fired: to the last one handled, and to the last one accepted. nats-py is used as NATS's
documentation advises: messages are published ahead, pulled in hundreds, and each is acknowledged; once with one event a
message, and once with as many as the benchmark packs into one."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from time import perf_counter, process_time
from typing import Any

import harness
import servers
from harness import PAYLOAD, Crew, Options, Row, Table
from servers import Server

TOPIC = "bench.fired"
NAMESPACE = "bench"
PULL = 500  # messages
AHEAD = 2_000  # messages that are published and not yet acknowledged
UNSETTLED = 10_000  # messages that are pulled and not yet acknowledged
GOAL = 500_000
RATIO = 10.0
REPLICAS = (1, 3)

Say = Callable[[object], None]


def serve(replicas: int, folder: str) -> AbstractContextManager[Server]:
    """Run one node, or as many as there are to be replicas."""
    return servers.nats(folder, jetstream=True) if replicas == 1 else servers.nats_cluster(folder, replicas)


def wind_url(server: Server, replicas: int) -> str:
    return f"{server.url}/{NAMESPACE}?replicas={replicas}"


def addresses(url: str) -> list[str]:
    """Return the addresses of all nodes, for nats-py."""
    return [f"nats://{host}" for host in url.removeprefix("nats://").split(",")]


# The owner ------------------------------------------------------------------------------------------------------


def owns(say: Say, url: str, topics: tuple[str, ...]) -> None:
    """Own the partitions of these topics, and say by which name, until it is killed."""
    harness.run_loop(_own(say, url, topics))


async def _own(say: Say, url: str, topics: tuple[str, ...]) -> None:
    from solarwind.cluster.engine import NatsEngine
    from solarwind.operations import Internal

    engine = NatsEngine(url, serves=True)
    await engine.start()
    for topic in topics:
        await Internal.keep(engine, topic)
    say(await owners(engine))
    await engine.failed


async def owners(engine: Any) -> set[str]:
    """Return the processes that own something."""
    from solarwind.operations import Operator

    return {each.owner for each in await Operator.owners(engine)}


def check_owner(expected: set[str], found: set[str]) -> None:
    if expected != found:
        raise RuntimeError(f"expected {expected} to be the owner all the time, got {found}: the figure says nothing")


# Solar Wind -----------------------------------------------------------------------------------------------------


def wind_consumes(say: Say, batches: bool, url: str, events: int) -> tuple[float, set[str]]:
    """Say who owns the topic, as soon as it has joined; return the time of the last event, and who owns it then."""
    return harness.run_loop(_wind_consume(say, batches, url, events))


async def _wind_consume(say: Say, batches: bool, url: str, events: int) -> tuple[float, set[str]]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    done, handled = harness.count_events(wind, TOPIC, events, batches=batches)
    async with wind:
        say(await owners(wind.engine))
        await done.wait()
        ended = perf_counter()
        await wind.settled()
        if handled() != events:
            raise RuntimeError(f"expected {events:,} events, handled {handled():,}")
        return ended, await owners(wind.engine)


def wind_produces(say: Say, many: bool, url: str, events: int) -> tuple[float, float, float]:
    """Return the time of the first event, the time when the last was accepted, and the seconds of processor time."""
    return harness.run_loop(_wind_produce(many, url, events))


async def _wind_produce(many: bool, url: str, events: int) -> tuple[float, float, float]:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        begun, spent = perf_counter(), process_time()
        await harness.fire_all(wind, TOPIC, events, many=many)
        return begun, perf_counter(), process_time() - spent


# By hand --------------------------------------------------------------------------------------------------------


def hand_consumes(say: Say, packed: int, replicas: int, url: str, events: int) -> float:
    return harness.run_loop(_hand_consume(say, packed, replicas, url, events))


async def _hand_consume(say: Say, packed: int, replicas: int, url: str, events: int) -> float:
    import nats
    from nats.js.api import ConsumerConfig
    from nats.js.errors import ServiceUnavailableError as NoLeaderYet

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream()
    await jetstream.add_stream(name="BENCH", subjects=[TOPIC], num_replicas=replicas)
    config = ConsumerConfig(max_ack_pending=UNSETTLED)
    subscription = await jetstream.pull_subscribe(TOPIC, durable="count", config=config)
    say("ready")
    handled = 0
    while handled < events:
        try:
            messages = await subscription.fetch(PULL, timeout=1)
        except (TimeoutError, NoLeaderYet):
            continue
        for message in messages:
            handled += 1 if packed == 1 else len(message.data.split(b"\n"))
            await message.ack()
    ended = perf_counter()
    await client.close()
    return ended


def hand_produces(say: Say, packed: int, url: str, events: int) -> tuple[float, float]:
    return harness.run_loop(_hand_produce(packed, url, events))


async def _hand_produce(packed: int, url: str, events: int) -> tuple[float, float]:
    import nats

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream(publish_async_max_pending=AHEAD)
    begun = perf_counter()
    for at in range(0, events, packed):
        count = min(packed, events - at)
        await jetstream.publish_async(TOPIC, PAYLOAD if packed == 1 else b"\n".join([PAYLOAD] * count))
    await jetstream.publish_async_completed()
    ended = perf_counter()
    await client.close()
    return begun, ended


# ----------------------------------------------------------------------------------------------------------------


@dataclass
class Figures:
    handled: float  # events/s to the last one
    accepted: float
    cpu: dict[str, float]  # µs an event, by role


@dataclass
class Hand:
    """nats-py, with so many events a message."""

    packed: int
    replicas: int
    share: int = 1  # of the events: slow ones get less to do

    @property
    def name(self) -> str:
        return f"by hand, {self.packed} events a message" if self.packed > 1 else "by hand, one event a message"

    def measure(self, folder: str, events: int) -> Figures:
        events = max(1, events // self.share)
        with serve(self.replicas, folder) as server, Crew() as crew:
            consumer = crew.start(hand_consumes, self.packed, self.replicas, server.url, events)
            consumer.said()
            begun, accepted = crew.start(hand_produces, self.packed, server.url, events).result()
            return Figures(events / (consumer.result() - begun), events / (accepted - begun), {})


@dataclass
class Wind:
    apart: bool  # owner and service
    many: bool
    batches: bool
    replicas: int

    @property
    def name(self) -> str:
        who = "" if self.apart else ", owner and service in one"
        fire, handle = "fire_many" if self.many else "fire", "list[bytes]" if self.batches else "bytes"
        return f"nats://, {fire}, {handle}{who}"

    def measure(self, folder: str, events: int) -> Figures:
        with serve(self.replicas, folder) as server, Crew() as crew:
            url = wind_url(server, self.replicas)
            owner = crew.start(owns, url, (TOPIC,)) if self.apart else None
            names = owner.said() if owner else set()
            service = crew.start(wind_consumes, self.batches, url, events)
            first = service.said()
            expected = names or {name for name in first if name.endswith(f":{service.process.pid}")}
            check_owner(expected, first)
            producer = crew.start(wind_produces, self.many, url, events)
            pids = {"service": (service.process.pid,), "nats-server": (server.pid, *server.others)}
            if owner:
                pids = {"owner": (owner.process.pid,)} | pids
            before = {role: harness.cpu_s(*each) for role, each in pids.items()}
            begun, accepted, spent = producer.result()
            ended, last = service.result()
            check_owner(expected, last)
            cpu = {"producer": spent} | {role: harness.cpu_s(*each) - before[role] for role, each in pids.items()}
            each_us = {role: seconds / events * 1e6 for role, seconds in cpu.items()}
            return Figures(events / (ended - begun), events / (accepted - begun), each_us)


def contestants(replicas: int) -> list[Hand | Wind]:
    hand = [Hand(1, replicas, share=20), Hand(64, replicas), Hand(256, replicas)]
    winds = [(True, many, batches) for many in (False, True) for batches in (False, True)]
    winds += [(False, False, False), (False, True, True)]
    return [*hand, *(Wind(*each, replicas) for each in winds)]


def run(options: Options) -> list[Table]:
    chosen = [each for each in REPLICAS if options.replicas in (None, each)]
    return [table for replicas in chosen for table in compare(replicas, options)]


def compare(replicas: int, options: Options) -> list[Table]:
    events, every = options.events or 1_000_000, contestants(replicas)
    measures = {each.name: partial(each.measure, options.folder, events) for each in every}
    found = harness.take_turns(measures, options.rounds or 3)
    where = "one node" if replicas == 1 else f"{replicas} nodes and replicas"
    tables = []
    for last in ("handled", "accepted"):
        rows = []
        for each in every:
            row = Row(each.name, "events/s", [getattr(figures, last) for figures in found[each.name]])
            if last == "handled" and isinstance(each, Wind) and each.apart:
                row.at_least, row.ratio_at_least = GOAL if replicas == 1 else None, RATIO
            rows.append(row)
        title = f"Three processes and {where} of JetStream, {events:,} events: to the last one {last}"
        tables.append(Table(title, harness.to_first(rows)))
    roles = ("producer", "owner", "service", "nats-server")
    rows = [
        Row(f"{each.name}: {role}", "µs", [figures.cpu[role] for figures in found[each.name]])
        for each in every
        if isinstance(each, Wind) and not each.many and not each.batches
        for role in roles
        if each.apart or role != "owner"
    ]
    tables.append(Table(f"The same, {where}: processor time an event", rows))
    return tables


if __name__ == "__main__":
    harness.main(run, __doc__)
