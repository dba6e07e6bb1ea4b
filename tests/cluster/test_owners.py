"""Who owns which topics: spread over the processes that take part, moved when one comes, goes, hangs or dies, and an
owner of yesterday writes nothing."""

from __future__ import annotations

import asyncio
import logging
import os
from collections import Counter
from collections.abc import Iterable
from math import inf
from time import monotonic, monotonic_ns
from typing import Any

import pytest

from solarwind import Event, Later, SolarWind, StoreError, Unavailable
from solarwind.cluster import owner as owner_module
from solarwind.cluster.engine import NatsEngine
from solarwind.cluster.owners import Owners
from solarwind.core.effects import Join, Offer
from solarwind.records import OwnerInfo
from solarwind.testing.contract import on_loop, until

from .processes import Handled, Process, one_of_each, process
from .servers import NatsServer, holds_within, remove

# How fast things are is asked where the machine does nothing else: make test-cluster.
QUIET = "PENDING" in os.environ
AGAIN_S = 5.0 if QUIET else 60.0  # after which events are dispatched again, whatever happens to an owner
AT_ONCE_S = 1.8 if QUIET else inf  # less than it takes to find out that a process is gone which did not say so
DELAY_S = 4.0  # longer than it takes until another is the owner
PENDING = int(os.environ.get("PENDING", "200000"))  # that an owner takes over


async def owners(wind: SolarWind) -> list[str]:
    """Return the process of each partition."""
    found: list[OwnerInfo] = await wind.owners()
    return [each.owner.rpartition(":")[2] for each in found]


def payloads(handled: Iterable[Handled], topic: str) -> list[str]:
    return [each.payload for each in handled if each.topic == topic]


async def fire_until(wind: SolarWind, topics: list[str], over: asyncio.Event, key: bool = False) -> int:
    """Fire one number after the other on each of the topics; return how many."""
    number = 0
    while not over.is_set():
        for topic in topics:
            await wind.fire(topic, number, key=f"k{number % 3}" if key else None)
        number += 1
        await asyncio.sleep(0.005)
    return number


@pytest.mark.long
@on_loop
async def test_partitions_are_spread_and_one_that_leaves_hands_over_what_it_has(
    server: NatsServer, namespace: str
) -> None:
    """Nothing is suspect then and nothing handled twice. Who only fires and asks owns nothing, while others do."""
    topics = one_of_each(4)
    url = server.url(namespace, streams=4)
    async with process(url, topics=topics) as first, SolarWind(url) as asking:
        over = asyncio.Event()
        firing = asyncio.create_task(fire_until(asking, topics, over))
        assert set(await owners(asking)) == {str(first.pid)}
        async with process(url, topics=topics) as second:
            both = {str(first.pid): 2, str(second.pid): 2}
            await until(lambda: _is(asking, both), "partitions to be spread evenly")
            await until(lambda: set(topics) <= {each.topic for each in second.handled()})
            begun = monotonic()
            await second.stop()
            await until(lambda: _is(asking, {str(first.pid): 4}), "partitions to be handed over")
            assert monotonic() - begun < AT_ONCE_S
            over.set()
            fired = [str(number) for number in range(await firing)]
            await until(lambda: len(first.handled()) + len(second.handled()) >= 4 * len(fired))
            handled = first.handled() + second.handled()
        for topic in topics:
            assert sorted(payloads(handled, topic), key=int) == fired
        found = (await asking.statistics()).purposes
        assert [(each.settled, each.retried) for each in found.values()] == [(len(fired), 0)] * 4


async def _is(wind: SolarWind, wanted: dict[str, int]) -> bool:
    return Counter(await owners(wind)) == wanted


@on_loop
async def test_an_owner_that_hangs_or_dies_is_replaced(server: NatsServer, namespace: str) -> None:
    """Within 5 s, in the order of their keys; one that wakes up again is a process like any other."""
    url = server.url(namespace, streams=1)
    life = {"topics": ["T"], "exchange": "keyed"}
    async with process(url, **life) as first, process(url, **life) as second, SolarWind(url) as firing:
        assert await owners(firing) == [str(first.pid)]
        over = asyncio.Event()
        fire = asyncio.create_task(fire_until(firing, ["T"], over, key=True))
        await until(lambda: first.handled() and second.handled())

        first.pause()
        await goes_on(second, "the owner hangs")
        assert await owners(firing) == [str(second.pid)]
        first.resume()
        woken = monotonic_ns()
        await until(lambda: first.handled()[-1].time > woken + 1e9, "a process that woke up to handle events again")

        await second.kill()
        await goes_on(first, "the owner was killed")
        assert await owners(firing) == [str(first.pid)]
        over.set()
        fired = await fire
        handled = sorted(first.handled() + second.handled())
        await until(lambda: {*map(str, range(fired))} <= {each.payload for each in first.handled() + second.handled()})
        handled = sorted(first.handled() + second.handled())
        for key in range(3):
            firsts = list(dict.fromkeys(each.payload for each in handled if int(each.payload) % 3 == key))
            assert firsts == [str(number) for number in range(key, fired, 3)]
        twice = Counter(each.payload for each in handled)
        assert sum(twice.values()) - len(twice) <= 20, "a crash repeats no more than what was in flight"


async def goes_on(process: Process, after: str) -> None:
    """Check that it handles what is fired from now on."""
    begun = monotonic_ns()
    fresh = begun + 500_000_000  # whatever was in its hand before was handled by then

    def handles() -> bool:
        return bool(process.handled()) and process.handled()[-1].time > fresh

    await holds_within(AGAIN_S, handles, lambda: f"events to be handled again after {after}")


@on_loop
async def test_a_delay_is_kept_by_the_next_owner(server: NatsServer, namespace: str) -> None:
    """To within a second, though the one before was killed meanwhile."""
    url = server.url(namespace, streams=1)
    wind = SolarWind(url)
    calls: list[float] = []

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        calls.append(monotonic())
        if len(calls) == 1:
            raise Later(DELAY_S)

    async with process(url, topics=["U"]) as owner, wind:
        assert await owners(wind) == [str(owner.pid)]
        await wind.fire("T", 1)
        await until(lambda: calls)
        await until(lambda: _is_put_off(wind))
        assert await wind.dead("T", "p") == [], "which is answered when all so far is written"
        await owner.kill()
        await until(lambda: len(calls) == 2)
        assert 0 <= calls[1] - calls[0] - DELAY_S < (1 if QUIET else inf)


async def _is_put_off(wind: SolarWind) -> bool:
    counts = (await wind.statistics()).purposes["T", "p"]
    return (counts.pending, counts.in_flight) == (1, 0)


@pytest.mark.long
@on_loop
async def test_an_owner_that_wakes_up_in_the_middle_of_a_settle_writes_nothing(
    server: NatsServer, namespace: str
) -> None:
    """Neither the settle nor what its handler fired, which comes once all the same; and then it goes on as a member."""
    urls = [server.url(name, streams=2) for name in (namespace, f"{namespace}-2")]
    try:
        await asyncio.gather(*map(settle_and_wake_up, urls, ("commit", "copy")))
    finally:
        await remove(server.urls, f"{namespace}-2")


async def settle_and_wake_up(url: str, where: str) -> None:
    parents, children = one_of_each(2)
    wind = SolarWind(url)
    handled: list[tuple[str, int]] = []

    async with process(url, topics=[parents], fires=children, stop_at=where) as stale:

        @wind.on(parents, purpose="p", since="beginning")
        async def parent(number: int) -> None:
            handled.append((parents, number))
            wind.fire(children, number)

        @wind.on(children, purpose="q", since="beginning")
        async def child(number: int) -> None:
            handled.append((children, number))

        async with SolarWind(url) as firing:
            await firing.fire(parents, 0)
            await stale.said(f"here {where}")
        async with wind:
            await until(lambda: (children, 0) in handled)
            if where == "commit":
                assert (parents, 0) in handled, "it was not settled, so it is handled again"
            stale.resume()
            await until(lambda: "partition 0" in stale.complaints, "the stale owner to notice")
            over = asyncio.Event()
            firing_on = asyncio.create_task(fire_until(wind, [parents], over))
            await until(lambda: len(stale.handled()) > 1, "the stale owner to go on as a member")
            over.set()
            count = await firing_on
            await wind.settled(60)
            numbers = Counter(number for topic, number in handled if topic == children)
            assert numbers == {0: 2} | dict.fromkeys(range(1, count), 1), "what a handler fired comes once"
            again = [number for topic, number in handled if topic == parents and number == 0]
            assert len(again) + payloads(stale.handled(), parents).count("0") == (3 if where == "commit" else 2)
            settled = (await wind.statistics()).purposes[parents, "p"]
            assert (settled.settled, settled.pending, settled.dead) == (count + 1, 0, 0)


@on_loop
async def test_a_burst_within_its_buffer_costs_a_fanout_instance_outside_the_owner_s_process_nothing(
    server: NatsServer, namespace: str
) -> None:
    url = server.url(namespace, streams=1)
    async with process(url, topics=["U"]) as owner, process(url, topics=["T"], exchange="fanout"):
        async with SolarWind(url) as firing:
            assert await owners(firing) == [str(owner.pid)]
            await firing.fire_many("T", range(3_000))
            await until(lambda: _settled(firing, 3_000))
            assert (await firing.statistics()).purposes["T", "p"].dropped == 0


async def _settled(wind: SolarWind, number: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].settled == number


@on_loop
async def test_firing_goes_on_without_an_owner_and_who_asks_helps_out(server: NatsServer, namespace: str) -> None:
    """Until somebody comes who takes part."""
    url = server.url(namespace, streams=1)
    async with SolarWind(url) as asking:
        async with process(url, topics=["T"]) as first:
            id = await asking.fire("T", 0)
            await until(lambda: _is_settled(asking, id))
            await first.kill()
        begun = monotonic()
        await asking.fire_many("T", range(1, 100))
        assert monotonic() - begun < AT_ONCE_S
        found = (await asking.statistics()).purposes["T", "p"]
        assert (found.pending, found.settled) == (99, 1)
        assert await owners(asking) == [""], "nobody who takes part"
        async with process(url, topics=["T"]) as second:
            await until(lambda: _is(asking, {str(second.pid): 1}), "the one that helped out to hand over")
            await until(lambda: len(second.handled()) == 99)
            await until(lambda: _pending(asking, 0))


async def _is_settled(wind: SolarWind, id: str) -> bool:
    """Return whether that is committed: counts are ahead of commits."""
    return [each.state for each in (await wind.event("T", id)).outcomes] == ["settled"]


async def _pending(wind: SolarWind, number: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].pending == number


def test_a_long_backlog_is_taken_over_at_once(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It takes 2 s at most from the claim to the first event handled: with PENDING=10000000 too."""
    asyncio.run(take_over(server, namespace, caplog))


async def take_over(server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture) -> None:
    url = server.url(namespace, streams=1)
    first_handled: list[float] = []
    wind = SolarWind(url)

    @wind.on("T", purpose="p", version=1)
    async def handle(number: int) -> None:
        first_handled.append(monotonic())
        await asyncio.Event().wait()

    async with process(url, topics=["T"], version=2, hang=True) as first:
        async with wind:
            for start in range(0, PENDING, 100_000):
                await wind.fire_many("T", range(start, min(start + 100_000, PENDING)))
            await holds_within(600, lambda: _counted(wind, PENDING), lambda: "all to be counted")
            assert not first_handled
            await first.kill()
            killed = monotonic()
            with caplog.at_level(logging.WARNING):
                await until(lambda: "takes over partition 0" in caplog.text)
                claimed = monotonic()
                await until(lambda: first_handled)
            taken = first_handled[0] - claimed
            print(f"{PENDING:,} pending: claimed {claimed - killed:.2f} s after the end, handled {taken:.2f} s later")
            assert taken < (2.0 if QUIET else inf)
            assert first_handled[0] - killed < AGAIN_S
            found = (await wind.statistics()).purposes["T", "p"]
            assert found.pending + found.in_flight == PENDING
            await wind.stop(0)


async def _counted(wind: SolarWind, number: int) -> bool:
    found = (await wind.statistics()).purposes["T", "p"]
    return found.pending + found.in_flight == number


@on_loop
async def test_attention_names_a_partition_without_an_owner(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with SolarWind(server.url(namespace, streams=2)) as wind:
        for topic in one_of_each(2):
            await wind.fire(topic, 1)
        assert await wind.attention() == []
        client_of = NatsEngine._client

        async def client(self: NatsEngine, partition: int) -> Any:
            if partition == 1:
                raise Unavailable("nobody owns it")
            return await client_of(self, partition)

        monkeypatch.setattr(NatsEngine, "_client", client)
        (found,) = await wind.attention()
        assert (found.kind, found.urgency, found.command) == ("no owner", "high", "solarwind owners")
        assert "Partition 1 " in found.text


@on_loop
async def test_a_store_that_was_let_go_of_writes_nothing(server: NatsServer, namespace: str) -> None:
    """Its word of how far the stream was read would have the next owner read all of it again."""
    async with SolarWind(server.url(namespace, streams=1)) as wind:
        await wind.fire("T", 1)
        await wind.statistics()
        owner = wind.engine._owners.mine[0]  # type: ignore[attr-defined]
        await owner.store.abandon()
        with pytest.raises(StoreError, match="was released"):
            await owner.store.commit([], [], [], 0)


@on_loop
async def test_an_owner_whose_partition_is_another_s_waits_for_nothing(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """What it wrote would be refused."""
    async with SolarWind(server.url(namespace, streams=1)) as wind:
        await wind.fire("T", 1)
        await wind.statistics()
        engine: NatsEngine = wind.engine  # type: ignore[assignment]
        owner = engine._owners.mine[0]
        monkeypatch.setattr(owner_module, "STOP_S", 3_600.0)

        async def never(*_: object) -> None:
            await asyncio.Event().wait()

        owner.store.commit = never
        client = await engine._client(0)
        joining = asyncio.create_task(client.join(Join("T", "p"), "beginning", Inert()))
        await until(lambda: owner.engine._committing)
        record = b'{"node": "another", "name": "another"}'
        await engine._session.publish(engine._layout.key("owner.0"), record)
        async with asyncio.timeout(60):
            await until(lambda: not owner.engine._running)
        joining.cancel()
        await asyncio.gather(joining, return_exceptions=True)
    assert "belongs to another now" in caplog.text


@on_loop
async def test_a_process_that_stood_still_takes_nobody_for_gone(
    server: NatsServer, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody could be heard of meanwhile; and who was silent for so long gets little time to answer."""
    url = server.url(namespace, streams=1)
    async with process(url, topics=["T"]) as other, SolarWind(url) as wind:
        assert await owners(wind) == [str(other.pid)]
        own: Owners = wind.engine._owners  # type: ignore[attr-defined]

        async def dead(self: Owners, node: str, member: object) -> bool:
            return False

        monkeypatch.setattr(Owners, "_lives", dead)
        own._awake_at -= 10.0
        for member in own.members.values():
            member.heard -= 10.0
        await own._turn()
        assert own.members


class Inert:
    """A receiver of nothing."""

    def told(self, text: str) -> None: ...

    def deliver(self, offer: Offer) -> None:
        """Do nothing: it gets nothing."""

    def flush(self) -> None:
        """See `deliver`."""

    def lost(self, lease: int | None = None) -> None:
        """See `deliver`."""

    def close(self, reason: str) -> None:
        """See `deliver`."""
