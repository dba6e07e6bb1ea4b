"""What counts as a death of whoever has an event in hand, and what does not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from math import inf
from time import monotonic

import pytest

from cli import conftest as cli
from cli.conftest import Serving
from solarwind import Event, Retry, SolarWind, Unavailable
from solarwind.testing.contract import on_loop, until

from .processes import process
from .servers import NatsServer

_bare_environment, start, serving = cli._bare_environment, cli.start, cli.serving
AGAIN = Retry(attempts=3, wait=0.0)


@pytest.mark.long
@on_loop
async def test_each_death_of_a_worker_that_is_not_the_owner_counts(server: NatsServer, namespace: str) -> None:
    url = server.url(namespace, streams=1)
    attempts = []
    async with process(url, topics=["U"]), SolarWind(url) as asking:
        await asking.fire("T", "deadly")
        await asking.fire("T", "good")
        while True:
            async with process(url, topics=["T"], attempts=2, deadly="deadly") as worker:
                await until(lambda: worker.ended or ("good" in [each.payload for each in worker.handled()]))
                has_died = worker.ended
            attempts += [line for line in worker.lines if line.startswith("deadly")]
            if not has_died:
                break
            assert len(attempts) < 4
        (letter,) = await asking.dead("T", "p")
        assert attempts == [f"deadly {number}" for number in (1, 2)]
        assert (letter.event.payload, letter.attempts) == ("deadly", 2)


def test_a_take_whose_lease_ends_three_times_is_dead(
    server: NatsServer, namespace: str, serving: Callable[..., Serving]
) -> None:
    door = serving("--engine", server.url(namespace))
    assert door.ask("POST", "/v1/topics/orders/events", 1)[0] == 202
    wanted = {"since": "beginning", "lease": 0.1, "wait": 30, "retry": {"attempts": 3, "wait": 0}}
    path = "/v1/topics/orders/purposes/ship"
    taken = [door.ask("POST", f"{path}/take", wanted)[1]["events"] for _ in range(3)]
    assert [[event["attempt"] for event in events] for events in taken] == [[1], [2], [3]]
    assert door.ask("POST", f"{path}/take", wanted | {"wait": 0.5})[1]["events"] == []
    cli.eventually(lambda: door.ask("GET", f"{path}/dead")[1]["dead"], "a dead letter")
    (letter,) = door.ask("GET", f"{path}/dead")[1]["dead"]
    assert letter["attempts"] == 3


@on_loop
async def test_nats_that_is_restarted_is_no_attempt_of_what_is_in_hand(own: Callable[..., NatsServer]) -> None:
    nats = own(NatsServer)
    await nats.start()
    url = nats.url("n", streams=1)
    async with process(url, topics=["U"]):
        attempts = await attempts_with(url, lambda _: nats.restart())
    assert attempts == [1, 1]


@pytest.mark.long
@on_loop
async def test_a_client_that_lost_nats_and_is_back_has_not_died(server: NatsServer, namespace: str) -> None:
    async def lose(wind: SolarWind) -> None:
        wind.engine._session._gone.set()  # type: ignore[attr-defined]

    url = server.url(namespace, streams=1)
    async with process(url, topics=["U"]):
        assert await attempts_with(url, lose) == [1, 1]


@on_loop
async def test_a_client_whose_owner_was_killed_has_not_died(server: NatsServer, namespace: str) -> None:
    url = server.url(namespace, streams=1)
    async with process(url, topics=["U"]) as owner:
        assert await attempts_with(url, lambda _: owner.kill()) == [1, 1]


@on_loop
async def test_a_client_is_told_when_its_owner_lost_nats_and_need_not_wait_for_heartbeats(
    server: NatsServer, namespace: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = server.url(namespace, streams=1)
    owner, client = SolarWind(url), SolarWind(url)
    handled: list[int] = []

    @client.on("T", purpose="p")
    async def handle(number: int) -> None:
        handled.append(number)

    @owner.on("U", purpose="p")
    async def pass_over(number: int) -> None:
        """Do nothing, so that it owns the partition, and keeps it."""

    async with owner:
        async with client:
            await client.fire("T", 1)
            await until(lambda: 1 in handled)
            owner.engine._session._gone.set()  # type: ignore[attr-defined]
            await until(lambda: "lost the process that owns" in caplog.text)
            await client.fire("T", 2)
            await until(lambda: 2 in handled)
    assert "did not answer" not in caplog.text


@on_loop
async def test_what_is_offered_to_a_worker_that_is_gone_already_is_no_attempt_and_waits_for_nothing(
    server: NatsServer, namespace: str
) -> None:
    url = server.url(namespace, streams=1)
    async with process(url, topics=["U"]), process(url, topics=["T"], exchange="keyed") as gone:
        wind = SolarWind(url)
        attempts: list[int] = []

        @wind.on("T", purpose="p", exchange="keyed")
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)

        async with wind:
            await wind.fire("T", 0)
            await wind.settled(60)
            await gone.kill()
            begun = monotonic()
            await wind.fire_many("T", range(100), key=lambda number: f"k{number % 9}")
            await until(lambda: len(attempts) + len(gone.handled()) == 101)
            known_s = 2 if "PENDING" in os.environ else inf  # 2 s is before it is known to be gone, on a quiet machine
            assert monotonic() - begun < known_s
    assert set(attempts) <= {1}


async def attempts_with(url: str, fault: Callable[[SolarWind], Awaitable[None]]) -> list[int]:
    """Return the attempts that a handler sees that has an event in hand when it happens. It ends once the loss of its
    owner is known, since nothing is begun that it still runs for."""
    wind = SolarWind(url)
    attempts: list[int] = []
    over = asyncio.Event()

    @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.0))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        await over.wait()

    async with wind:
        await wind.fire("T", 1)
        await until(lambda: attempts)
        client = wind.engine._started[0]  # type: ignore[attr-defined]
        link = client._link
        await fault(wind)
        await until(lambda: client._link is not link, "the loss of its owner to be known")
        over.set()
        await until(lambda: len(attempts) == 2)
    return attempts


@on_loop
async def test_an_event_that_could_not_go_to_nats_within_its_time_is_taken_back(own: Callable[..., NatsServer]) -> None:
    nats = own(NatsServer)
    await nats.start()
    async with SolarWind(nats.url("n", streams=1), grace=1.0) as wind:
        wind.topic("T", keep=60)
        await wind.fire("T", 1)
        nats.kill()
        await until(lambda: not wind.engine._session.is_up)  # type: ignore[attr-defined]
        with pytest.raises(Unavailable, match="taken back"):
            await wind.fire("T", 2, within=0.1)
        later = wind.fire("T", 3)
        with pytest.raises(Unavailable, match=r"taken back|same id"):
            await wind.fire("T", 4, within=0.1)
        await nats.restart()
        await later
        assert await wind.fire("T", 1, id=later.id, within=30.0) == later.id
        assert (await wind.statistics()).topics["T"].fired == 2
