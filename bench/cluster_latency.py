"""How long does `await fire()` of one event take on a NATS JetStream cluster, beside nats-py's `js.publish` of the same
bytes? And how soon does the event come to a handler?

Until it is accepted: one process and one loop does both in turns, one event after the other; nobody reads. The message
that Solar Wind stores is read back, and nats-py publishes its bytes through the same node to the same stream (another
one may have its leader elsewhere): once as they are, and once with the header by which JetStream drops duplicates.
To the handler: producer, owner and service are processes. nats-py uses `js.publish` and a push consumer. The next event
is fired a moment after the last was handled."""

from __future__ import annotations

import asyncio
from functools import partial
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from time import perf_counter
from typing import Any

import harness
from cluster import NAMESPACE, REPLICAS, TOPIC, Say, addresses, check_owner, owners, owns, serve, wind_url
from harness import PAYLOAD, Crew, Options, Row, Table
from latency_processes import Turns

FIRST = 100  # that do not count
GOAL = 1.2
BY_HAND, WITH_ID, WIND = "js.publish", "js.publish with Nats-Msg-Id", "await fire()"
PUSHED, HANDLED, WHILE_HANDLED = "js.publish to a push consumer", "fire to handler", "await fire(), handled meanwhile"
Series = dict[str, list[float]]  # microseconds


# Until it is accepted -------------------------------------------------------------------------------------------


def accepted(folder: str, replicas: int, events: int) -> Series:
    with serve(replicas, folder) as server:
        return harness.in_child(fire_in_turns, addresses(server.url)[0], replicas, events)


def fire_in_turns(node: str, replicas: int, events: int) -> Series:
    return harness.run_loop(_fire_in_turns(node, replicas, events))


async def _fire_in_turns(node: str, replicas: int, events: int) -> Series:
    import nats

    from solarwind import SolarWind

    client = await nats.connect(node)
    jetstream = client.jetstream()
    async with SolarWind(f"{node}/{NAMESPACE}?replicas={replicas}") as wind:
        await wind.fire(TOPIC, PAYLOAD)
        same = await _stored(jetstream)
        plain, named = (same.subject.removesuffix(TOPIC) + f"by-hand.{name}" for name in ("plain", "named"))
        series: Series = {BY_HAND: [], WITH_ID: [], WIND: []}
        for number in range(FIRST + events):
            begun = perf_counter()
            await jetstream.publish(plain, same.data)
            first = perf_counter()
            await jetstream.publish(named, same.data, headers={"Nats-Msg-Id": str(number)})
            second = perf_counter()
            await wind.fire(TOPIC, PAYLOAD)
            series[BY_HAND].append((first - begun) * 1e6)
            series[WITH_ID].append((second - first) * 1e6)
            series[WIND].append((perf_counter() - second) * 1e6)
    await client.close()
    return {name: found[FIRST:] for name, found in series.items()}


async def _stored(jetstream: Any) -> Any:
    """Return the message that Solar Wind stored for one event."""
    subject = f"solarwind.{NAMESPACE}.*.*.*.*.*.{TOPIC}"
    message = await jetstream.get_last_msg(await jetstream.find_stream_name_by_subject(subject), subject)
    assert PAYLOAD in message.data
    return message


# To the handler -------------------------------------------------------------------------------------------------


def wind_handled(folder: str, replicas: int, events: int) -> Series:
    handled, fired = Pipe(duplex=False)
    with serve(replicas, folder) as server, Crew() as crew:
        url = wind_url(server, replicas)
        expected = crew.start(owns, url, (TOPIC,)).said()
        service = crew.start(wind_consumes, url, FIRST + events, fired)
        check_owner(expected, service.said())
        waited = crew.start(wind_produces, url, FIRST + events, handled).result()
        found, last = service.result()
        check_owner(expected, last)
        return {HANDLED: found[FIRST:], WHILE_HANDLED: waited[FIRST:]}


def wind_consumes(say: Say, url: str, events: int, fired: Connection) -> tuple[list[float], set[str]]:
    return harness.run_loop(_wind_consume(say, url, events, fired))


async def _wind_consume(say: Say, url: str, events: int, fired: Connection) -> tuple[list[float], set[str]]:
    from solarwind import SolarWind

    wind = SolarWind(url)
    found: list[float] = []
    done = asyncio.Event()

    @wind.on(TOPIC, purpose="Count")
    async def note(payload: bytes) -> None:
        found.append(harness.age(payload))
        fired.send_bytes(b".")
        if len(found) == events:
            done.set()

    async with wind:
        say(await owners(wind.engine))
        await done.wait()
        return found, await owners(wind.engine)


def wind_produces(say: Say, url: str, events: int, handled: Connection) -> list[float]:
    return harness.run_loop(_wind_produce(url, events, handled))


async def _wind_produce(url: str, events: int, handled: Connection) -> list[float]:
    from solarwind import SolarWind

    async with SolarWind(url) as wind:
        turns, waited = Turns(handled), []
        for _ in range(events):
            begun = perf_counter()
            await wind.fire(TOPIC, harness.stamped())
            waited.append((perf_counter() - begun) * 1e6)
            await turns.next()
        return waited


def hand_handled(folder: str, replicas: int, events: int) -> Series:
    handled, fired = Pipe(duplex=False)
    with serve(replicas, folder) as server, Crew() as crew:
        service = crew.start(hand_consumes, server.url, replicas, FIRST + events, fired)
        service.said()
        crew.start(hand_produces, server.url, FIRST + events, handled).result()
        return {PUSHED: service.result()[FIRST:]}


def hand_consumes(say: Say, url: str, replicas: int, events: int, fired: Connection) -> list[float]:
    return harness.run_loop(_hand_consume(say, url, replicas, events, fired))


async def _hand_consume(say: Say, url: str, replicas: int, events: int, fired: Connection) -> list[float]:
    import nats

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream()
    await jetstream.add_stream(name="BENCH", subjects=[TOPIC], num_replicas=replicas)
    found: list[float] = []
    done = asyncio.Event()

    async def note(message: Any) -> None:
        found.append(harness.age(message.data))
        fired.send_bytes(b".")
        await message.ack()
        if len(found) == events:
            done.set()

    await jetstream.subscribe(TOPIC, durable="count", cb=note, manual_ack=True)
    say("ready")
    await done.wait()
    await client.close()
    return found


def hand_produces(say: Say, url: str, events: int, handled: Connection) -> None:
    harness.run_loop(_hand_produce(url, events, handled))


async def _hand_produce(url: str, events: int, handled: Connection) -> None:
    import nats

    client = await nats.connect(addresses(url))
    jetstream = client.jetstream()
    turns = Turns(handled)
    for _ in range(events):
        await jetstream.publish(TOPIC, harness.stamped())
        await turns.next()
    await client.close()


# ----------------------------------------------------------------------------------------------------------------


def run(options: Options) -> list[Table]:
    chosen = [each for each in REPLICAS if options.replicas in (None, each)]
    return [table for replicas in chosen for table in compare(replicas, options)]


def compare(replicas: int, options: Options) -> list[Table]:
    folder, events = options.folder, options.events or 1_000
    measures = {
        each.__name__: partial(each, folder, replicas, events) for each in (accepted, hand_handled, wind_handled)
    }
    series: dict[str, list[list[float]]] = {}
    for rounds in harness.take_turns(measures, options.rounds or 3).values():
        for each in rounds:
            for name, found in each.items():
                series.setdefault(name, []).append(found)
    where = "one node" if replicas == 1 else f"{replicas} nodes and replicas"
    return [
        Table(f"Until one event is accepted, {where}, {events:,} events", rows(series, BY_HAND, WITH_ID, WIND)),
        Table(
            f"To the handler in another process, one at a time, {where}, {events:,} events",
            rows(series, PUSHED, HANDLED, WHILE_HANDLED),
        ),
    ]


def rows(series: dict[str, list[list[float]]], *names: str) -> list[Row]:
    made = []
    for word, of in (
        ("mean", lambda found: sum(found) / len(found)),
        ("p50", lambda found: harness.percentile(found, 50)),
        ("p99", lambda found: harness.percentile(found, 99)),
    ):
        some = [Row(f"{name}, {word}", "µs", [of(found) for found in series[name]]) for name in names]
        for row in some[1:]:
            if row.name.startswith(f"{WIND}, ") and word != "p99" and WIND in names:
                row.ratio_at_most = GOAL
        made += harness.to_first(some)
    return made


if __name__ == "__main__":
    harness.main(run, __doc__)
