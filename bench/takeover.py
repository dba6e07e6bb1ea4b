"""How soon are events handled again after an owner was killed, with ten million events pending on one topic?

A producer fills the topic for a purpose without instances. A service joins and handles some of them; then the owner is
killed with SIGKILL. The service's own process is the one that takes over, since no other takes part. The clock runs
from the kill: to the takeover, which it logs, and to the first event that is handled after that."""

from __future__ import annotations

import asyncio
import logging
from functools import partial
from time import perf_counter

import harness
from cluster import REPLICAS, TOPIC, Say, check_owner, owners, owns, serve, wind_url
from harness import PAYLOAD, WINDOW, Crew, Options, Pace, Row, Table

TO_DISPATCH_S = 5.0  # from the kill
TO_GO_ON_S = 2.0  # from the claim
SOME = 50_000  # events that are handled before the kill
TELL = 100_000  # events after which a producer says that it lives


def fill(say: Say, url: str, events: int) -> float:
    """Leave so many events pending for a purpose that nobody is there for. Gives the seconds."""
    return harness.run_loop(_fill(say, url, events))


async def _fill(say: Say, url: str, events: int) -> float:
    from solarwind import SolarWind

    wind = SolarWind(url)

    @wind.on(TOPIC, purpose="Count")
    async def count(payload: bytes) -> None:
        raise AssertionError("nobody is to handle it yet")

    async with wind:
        await wind.joined()
        await wind.off(count)
        begun, pace = perf_counter(), Pace()
        for at in range(0, events, WINDOW):
            receipt = wind.fire_many(TOPIC, [PAYLOAD] * min(WINDOW, events - at))
            await pace.next(receipt)
            if at % TELL < WINDOW:
                say(at)
        await pace.end()
        return perf_counter() - begun


class Claims(logging.Handler):
    """When this process took a partition over."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.at: float | None = None

    def emit(self, record: logging.LogRecord) -> None:
        if "takes over partition" in record.getMessage() and self.at is None:
            self.at = perf_counter()


def goes_on(say: Say, url: str, many: int) -> tuple[float, float, float, float, set[str]]:
    """Say the owners as soon as it has handled some, and how many pend when it has taken over; return the times of its
    claim and of the first event after that, and when it has handled `many` more its events/s, its most MiB of memory,
    and who owns the topic."""
    return harness.run_loop(_go_on(say, url, many))


async def _go_on(say: Say, url: str, many: int) -> tuple[float, float, float, float, set[str]]:
    from solarwind import SolarWind

    claims = Claims()
    logging.getLogger("solarwind").addHandler(claims)
    wind = SolarWind(url, grace=0)
    handled = until = before = 0
    first = 0.0
    some, again, enough = asyncio.Event(), asyncio.Event(), asyncio.Event()

    @wind.on(TOPIC, purpose="Count")
    async def count(payload: bytes) -> None:
        nonlocal handled, until, before, first
        handled += 1
        if handled == SOME:
            some.set()
        elif claims.at is not None and not first:
            first, before = perf_counter(), handled
            until = handled + many
            again.set()
        elif handled == until:
            enough.set()

    async with wind:
        await some.wait()
        say(await owners(wind.engine))
        await again.wait()
        assert claims.at is not None
        pending = (await wind.statistics()).purposes[TOPIC, "Count"].pending
        until = min(until, handled + pending)  # of few events, most may be handled before the kill
        say(pending)
        if handled < until:
            await enough.wait()
        rate = (handled - before) / (perf_counter() - first)
        return claims.at, first, rate, harness.peak_memory(), await owners(wind.engine)


def measure(folder: str, replicas: int, events: int) -> tuple[float, ...]:
    """Return the events/s while it is filled; s from the kill to the claim, from there to the first event, and from the
    kill to that one; the most MiB of the owner before, and of the one after; events/s then; events that pend."""
    with serve(replicas, folder) as server, Crew() as crew:
        url = wind_url(server, replicas)
        owner = crew.start(owns, url, (TOPIC,))
        names = owner.said()
        filled = events / crew.start(fill, url, events).result()
        service = crew.start(goes_on, url, events // 4)
        check_owner(names, service.said())
        before = harness.peak_memory(owner.process.pid)
        killed = perf_counter()
        owner.process.kill()
        left = service.said()
        claimed, first, rate, after, last = service.result()
        if any(not name.endswith(f":{service.process.pid}") for name in last):
            raise RuntimeError(f"expected the service to be the owner, got {last}")
        return filled, claimed - killed, first - claimed, first - killed, before, after, rate, left


def run(options: Options) -> list[Table]:
    chosen = [each for each in REPLICAS if options.replicas in (None, each)]
    return [compare(replicas, options) for replicas in chosen]


def compare(replicas: int, options: Options) -> Table:
    events = options.events or 10_000_000
    one = partial(measure, options.folder, replicas, events)
    found = harness.take_turns({"": one}, options.rounds or 1)[""]
    filled, claim, resumed, silent, before, after, rate, left = (list(each) for each in zip(*found, strict=True))
    rows = [
        Row("the owner is killed, until another claims the topic", "s", claim),
        Row("from its claim to the first event handled", "s", resumed, at_most=TO_GO_ON_S),
        Row("from the kill to the first event handled", "s", silent, at_most=TO_DISPATCH_S),
        Row("the most memory of the owner that was killed", "MiB", before),
        Row("the most memory of the new one, which is the service too, a quarter handled", "MiB", after),
        Row("filled, nobody there", "events/s", filled),
        Row("handled by the service, which is the owner too", "events/s", rate),
    ]
    where = "one node" if replicas == 1 else f"{replicas} nodes and replicas"
    return Table(f"An owner killed with {min(left):,.0f} events pending, {where}", rows)


if __name__ == "__main__":
    harness.main(run, __doc__)
