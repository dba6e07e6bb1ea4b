"""Whose numbers they are: nobody can number for another's producer, and make its events pass for known."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from time import time_ns

import pytest

from solarwind import Event, SolarWind, wire
from solarwind.batch import Batch, author_of, read_id, seal
from solarwind.testing.contract import on_loop, until

from .peers import SECRET, Talker, ask, batch, talker
from .place import Host

FIRED = 4
POST = ("POST", "/v1/topics/orders/events", {"content-type": "application/json"})


@pytest.fixture(params=["memory", "sqlite"])
def port(request: pytest.FixtureRequest, host: Host, tmp_path: Path) -> Iterator[int]:
    port = host.start("memory://" if request.param == "memory" else f"sqlite:///{tmp_path}/wind.db")
    yield port
    host.stop(port)


async def refused(attacker: Talker, forged: Batch) -> str:
    await attacker.say(wire.Submit(attacker.ref, forged.data))
    return (await attacker.hear(wire.Refused)).code


async def nobody_numbers_for_another(port: int) -> None:
    """Check that a client that saw a whole event cannot use up its producer's next numbers, whatever batch it sends."""
    url = f"ws://127.0.0.1:{port}"
    seen: list[Event] = []
    async with SolarWind(url) as victim, talker(port) as attacker:

        @victim.on("orders", purpose="p", exchange="fanout", since="now")
        async def see(event: Event) -> None:
            seen.append(event)

        await victim.joined()
        await attacker.hello()
        web = json.loads((await ask(port, *POST, b'{"n": 0}')).body)["ids"][0]
        await victim.fire("orders", 0)
        await until(lambda: len(seen) == 2)
        header = next(event for event in seen if event.id != web)._of.batch.header
        for id, author in [(event.id, event._of.batch.header.author) for event in seen]:
            made = read_id(id)
            assert made is not None
            for first in (made.sequence + 1, 2**30 - 8):
                forged = {"producer": made.producer, "machine": "m", "process": "p", "first": first}
                for named in (author, b"", author_of(author)):
                    all_of_it = seal("orders", [b'"x"'] * 8, [time_ns()] * 8, **forged, author=named)  # type: ignore[arg-type]
                    assert await refused(attacker, all_of_it) == "protocol"
                own = seal("orders", [b'"x"'], [time_ns()], **forged, author=author_of(SECRET))  # type: ignore[arg-type]
                await attacker.say(wire.Submit(attacker.ref, own.data))
                await attacker.hear(wire.Accepted)
        assert header.author not in (b"", author_of(b""))
        for number in range(FIRED):
            await victim.fire("orders", {"of": "victim", "n": number})
            assert (await ask(port, *POST, b'{"of": "web"}')).status == 202
        await until(lambda: len([event for event in seen if isinstance(event.payload, dict)]) == 2 * FIRED + 1)


@on_loop
async def test_nobody_numbers_for_anothers_producer(port: int) -> None:
    await nobody_numbers_for_another(port)


@on_loop
async def test_what_is_on_hold_is_numbered_by_its_own_author_too(port: int) -> None:
    async with talker(port) as made:
        await made.hello()
        await made.join(1, "T", "p", retry={"attempts": 1, "wait": 0.0})
        await made.say(wire.Submit(made.ref, batch("T").data))
        (share,) = (await made.hear(wire.Offer)).shares
        forged = seal("U", [b"1"], [time_ns()], producer=1, first=1, machine="m", process="p", author=b"x" * 12)
        await made.say(wire.Hold(forged.data), wire.Report(1, share.lease, share.picks, fired=1, ref=made.ref))
        await made.hear(wire.Done)
        _, letter = await made.call("dead", topic="T", purpose="p")
        assert "expected a batch whose author" in letter[1]


@pytest.mark.parametrize("secret", [b"", b"x" * 15, b"x" * 65])
@on_loop
async def test_a_client_without_a_sound_secret_cannot_fire(secret: bytes, port: int) -> None:
    async with talker(port) as made:
        await made.say(wire.Hello("test", None, secret))
        if secret:
            assert (await made.hear(wire.Refused)).code == "protocol"
            return
        await made.hear(wire.Welcome)
        foreign = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p")
        assert await refused(made, foreign) == "protocol"


@on_loop
async def test_a_number_that_comes_with_another_time_is_not_taken_for_known(port: int) -> None:
    """Ids are compared as a whole: what is acknowledged is there, each with its own id."""
    async with talker(port) as made, SolarWind(f"ws://127.0.0.1:{port}") as wind:
        await made.hello()
        await made.join(1, "T", "p")
        author = author_of(SECRET)
        one, other = (
            seal("T", [b"1"], [time], producer=7, first=7, machine="m", process="p", author=author)
            for time in (10**18, 10**18 + 1_000)
        )
        for each in (one, other, one, other):
            await made.say(wire.Submit(made.ref, each.data))
            await made.hear(wire.Accepted)
        assert (await wind.statistics()).topics["T"].fired == 2
