"""A server in front of another: whoever fires through it fires as if it were the one behind."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from time import time_ns
from urllib.parse import quote

import pytest

from solarwind import Event, SolarWind, Unavailable, wire
from solarwind.batch import author_of, seal
from solarwind.server import Server
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop, until

from .peers import SECRET, Refusal, ask, batch, talker
from .place import Host

POST = ("POST", "/v1/topics/T/events", {"content-type": "application/json"})
OTHER = b"the secret of somebody else"


@asynccontextmanager
async def front_of(port: int) -> AsyncIterator[tuple[int, SolarWind]]:
    """Yield a server in this process, around a SolarWind of its app's, in front of the one at `port`."""
    async with SolarWind(f"ws://127.0.0.1:{port}") as wind:
        server = Server(wind)
        listener = Listener(server, port=0, grace=1.0)
        await server.start()
        await listener.start()
        try:
            yield listener.port, wind
        finally:
            listener.close()
            await server.stop()
            await listener.stop()


@on_loop
async def test_clients_fire_and_handle_through_a_server_in_front_of_another(host: Host) -> None:
    """By WebSocket, HTTP and in the front's own process; and what a handler fires; and through two of them."""
    behind = host.start("memory://")
    second = host.start(f"ws://127.0.0.1:{behind}")
    came: list[object] = []
    async with front_of(second) as (front, wind), SolarWind(f"ws://127.0.0.1:{front}") as client:

        @client.on("T", purpose="p")
        async def handle(event: Event) -> None:
            client.fire("U", event.payload)

        @wind.on("U", purpose="p")
        async def collect(event: Event) -> None:
            came.append(event.payload)

        await client.joined()
        await wind.joined()
        await client.fire("T", "by WebSocket")
        assert (await ask(front, *POST, b'"by HTTP"')).status == 202
        await wind.fire("T", "by the front")
        await until(lambda: sorted(map(str, came)) == ["by HTTP", "by WebSocket", "by the front"])
    host.stop(second)
    host.stop(behind)


@on_loop
async def test_what_was_fired_through_a_front_whose_link_was_lost_is_sent_again_and_stored_once(
    host: Host, tmp_path: Path
) -> None:
    store = f"sqlite:///{tmp_path}/wind.db"
    behind = host.start(store)
    async with front_of(behind) as (front, wind), talker(front) as made:
        await made.hello()
        first, second = batch("T"), batch("T")
        await made.say(wire.Submit(made.ref, first.data))
        await made.hear(wire.Accepted)
        host.stop(behind)
        await until(lambda: is_away(wind), "the front to have lost the server behind")
        await made.say(wire.Submit(made.ref, second.data), wire.Submit(made.ref, first.data))
        host.start(store, behind)
        accepted: list[int] = []
        while len(accepted) < 2:
            accepted += (await made.hear(wire.Accepted)).refs
        assert (await wind.statistics()).topics["T"].fired == 2
    host.stop(behind)


def is_away(wind: SolarWind) -> bool:
    try:
        wind.engine.check()
    except Unavailable:
        return True
    return False


@on_loop
async def test_a_foreign_author_is_refused_in_front_and_behind(host: Host) -> None:
    behind = host.start("memory://")
    foreign = seal("T", [b"1"], [time_ns()], producer=1, first=1, machine="m", process="p", author=author_of(OTHER))
    async with front_of(behind) as (front, _), talker(front) as there, talker(behind) as direct:
        for each in (there, direct):
            await each.hello()
            await each.submit("T")
            await each.say(wire.Submit(each.ref, foreign.data))
            assert (await each.hear(wire.Refused)).code == "protocol"
    host.stop(behind)


@on_loop
async def test_an_author_that_is_said_to_be_gone_may_fire_no_more(host: Host) -> None:
    behind = host.start("memory://")
    other = seal("T", [b"1"], [time_ns()], producer=1, first=1, machine="m", process="p", author=author_of(OTHER))
    async with talker(behind) as made:
        await made.hello()
        await made.say(wire.Author(OTHER), wire.Submit(made.ref, other.data))
        await made.hear(wire.Accepted)
        await made.say(wire.Author(OTHER, gone=True), wire.Author(SECRET, gone=True), wire.Submit(made.ref, other.data))
        assert (await made.hear(wire.Refused)).code == "protocol"
        await made.submit("T")  # its own is its own for good
    host.stop(behind)


@on_loop
async def test_a_client_that_left_the_front_is_forgotten_behind(host: Host) -> None:
    behind = host.start("memory://")
    async with front_of(behind) as (front, wind):
        known = wind.engine._client_secrets._secrets  # type: ignore[attr-defined]
        async with talker(front) as one, talker(front) as again:
            for each in (one, again):
                await each.hello()
                await each.submit("T")
            assert list(known) == [SECRET]
            await one.socket.close()
            await until(lambda: known[SECRET] == 1)
            await again.submit("T")
        await until(lambda: not known)
    host.stop(behind)


@on_loop
async def test_the_authors_of_a_connection_have_a_bound(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    behind = host.start("memory://")
    async with talker(behind) as made:
        await made.hello()
        await made.say(*(wire.Author(b"secret of client %10d" % number) for number in range(wire.MAX_AUTHORS)))
        await made.submit("T")
        await made.say(wire.Author(b"one client too many"))
        assert "at most 10,000 further authors" in (await made.hear(wire.Refused)).text
    monkeypatch.setattr(wire, "MAX_AUTHORS", 0)
    async with front_of(behind) as (front, wind), talker(front) as made:
        await made.hello()
        with pytest.raises(Refusal, match="busy"):
            await made.submit("T")
        await wind.fire("T", 1)
    host.stop(behind)


@pytest.mark.parametrize("form", ["CloudEvents", "NDJSON"])
@on_loop
async def test_what_a_front_seals_of_long_ids_and_keys_is_taken_behind(host: Host, form: str) -> None:
    """Its batches have the same bounds as all others: also that of the header."""
    behind = host.start("memory://")
    wide = chr(0x1F300)
    if form == "CloudEvents":
        common = {"specversion": "1.0", "source": "//m/p", "type": "T", "partitionkey": "k" * 256}
        common |= {"causationpurpose": wide * 200, "correlationid": wide * 200}
        ids = [f"{number:04}{wide * 196}" for number in range(1_300)]
        events = [common | {"id": id, "causationid": id} for id in ids]
        kind, query, body = "application/cloudevents-batch+json", "", json.dumps(events, ensure_ascii=False).encode()
    else:
        kind, query, events = "application/x-ndjson", f"?id={quote(wide * 190)}&key={'k' * 256}", [1] * 5_000
        body = b"1\n" * len(events)
    async with front_of(behind) as (front, wind):
        answer = await ask(front, "POST", f"/v1/topics/T/events{query}", {"content-type": kind}, body)
        assert answer.status == 202, answer.body
        assert (await wind.statistics()).topics["T"].fired == len(events)
    host.stop(behind)
