"""A payload that says it is JSON and is none, or that has line ends, forges nothing at any door."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

import httpx
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind import wire
from solarwind.payload import BYTES, JSON, as_json
from solarwind.server import Server
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop, until

from .peers import ask, batch, talker
from .place import Host
from .webhooks.place import receiving

Shown = Callable[[], Awaitable[list[dict[str, Any]]]]

FORGED = [
    b'1,"id":"forged","topic":"payments"',
    b'{"a":1',
    b'[\n{"id":"forged"}\n]',
    b'"x"\r\ndata: {"id":"forged"}\r\n\r\n',
    b'"\xff"',
    b"",
    b'{"a":1}\n\n',
]
POST = {"content-type": "application/json"}


@pytest.fixture(scope="module")
def port(host: Host) -> Iterator[int]:
    port = host.start("memory://")
    yield port
    host.stop(port)


def sound(event: dict[str, object], payload: bytes) -> bool:
    """Return whether the event is what was fired, and nobody else's."""
    assert event["type"] == "T"
    assert event["id"] != "forged"
    if "data_base64" in event:
        return base64.b64decode(str(event["data_base64"])) == payload
    return event["data"] == json.loads(payload)


@on_loop
async def test_no_door_shows_a_forged_event(port: int) -> None:
    purpose = "/v1/topics/T/purposes/p"
    async with talker(port) as made:
        await made.hello()
        await made.call("keep", topic="T", keep=1e3)
        ids = []
        for payload in FORGED:
            one = batch("T", payload)
            await made.say(wire.Submit(made.ref, one.data))
            await made.hear(wire.Accepted)
            ids.append(one.id(0))
        asked = b'{"max": 100, "wait": 1, "since": "beginning"}'
        taken = json.loads((await ask(port, "POST", f"{purpose}/take", POST, asked)).body)["events"]
        assert [event["id"] for event in taken] == ids
        assert all(map(sound, taken, FORGED))
        for id, payload in zip(ids, FORGED, strict=True):
            (found,) = json.loads((await ask(port, "GET", f"/v1/trace/{id}")).body)["events"]
            assert found["id"] == id
            assert sound(found, payload)
        tokens = msgspec.json.encode({"reject": [{"token": event["token"]} for event in taken]})
        assert (await ask(port, "POST", f"{purpose}/settle", POST, tokens)).status == 200
        dead = json.loads((await ask(port, "GET", f"{purpose}/dead")).body)["dead"]
        assert [letter["event"]["id"] for letter in dead] == ids
        assert all(sound(letter["event"], payload) for letter, payload in zip(dead, FORGED, strict=True))


@given(st.one_of(st.binary(max_size=20), st.text('[]{}",:1 \n\r\\u0', max_size=12).map(str.encode)))
def test_a_payload_is_one_line_of_sound_json_or_none(data: bytes) -> None:
    shown = as_json(data, JSON)
    assert as_json(data, BYTES) is None
    try:
        expected = json.loads(data)
    except (ValueError, RecursionError):
        assert shown is None
    else:
        if shown is not None:
            assert json.loads(bytes(shown)) == expected
            assert not {10, 13} & {*bytes(shown)}


@asynccontextmanager
async def by_feed(port: int) -> AsyncIterator[Shown]:
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=60) as http:
        async with http.stream("GET", "/v1/topics/T/feed", params={"purpose": "p"}) as answer:
            lines = answer.aiter_lines()
            assert await anext(lines) == "retry: 1000"

            async def shown() -> list[dict[str, Any]]:
                found = []
                while len(found) < len(FORGED):
                    name, _, value = (await anext(lines)).partition(": ")
                    if name:
                        assert name == "data"
                        found.append(json.loads(value))
                return found

            yield shown


@asynccontextmanager
async def by_webhook(port: int) -> AsyncIterator[Shown]:
    async with receiving() as receiver:
        wanted = json.dumps({"url": receiver.url, "mode": "structured"}).encode()
        answer = await ask(port, "PUT", "/v1/topics/T/purposes/p/webhooks/w", POST, wanted)
        assert answer.status == 201, answer.body

        async def shown() -> list[dict[str, Any]]:
            await until(lambda: len(receiver.posts) == len(FORGED), "all events to come")
            return [json.loads(request.body) for request in receiver.posts]

        yield shown


@asynccontextmanager
async def by_listen(port: int) -> AsyncIterator[Shown]:
    command = ["listen", "T", "--purpose", "p", "--json", "--count", str(len(FORGED)), "--since", "beginning"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "solarwind", *command, "--url", f"ws://127.0.0.1:{port}", stdout=subprocess.PIPE
    )

    async def shown() -> list[dict[str, Any]]:
        out, _ = await process.communicate()
        found = [json.loads(line) for line in out.splitlines()]
        form = {True: "data_base64", False: "data"}
        return [{**each, "type": each["topic"], form["content_type" in each]: each["payload"]} for each in found]

    yield shown


@pytest.mark.parametrize("shows", [by_feed, by_webhook, by_listen])
@on_loop
async def test_nothing_that_shows_events_shows_a_forged_one(
    shows: Callable[[int], AbstractAsyncContextManager[Shown]],
) -> None:
    server = Server("memory://", webhook_networks=["127.0.0.1"])
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        server.wind.topic("T", keep=1000)
        async with shows(listener.port) as shown, talker(listener.port) as made:
            await made.hello()
            batches = [batch("T", payload) for payload in FORGED]
            for each in batches:
                await made.say(wire.Submit(made.ref, each.data))
                await made.hear(wire.Accepted)
            found = {event["id"]: event for event in await shown()}
            assert set(found) == {each.id(0) for each in batches}
            for each, payload in zip(batches, FORGED, strict=True):
                assert sound(found[each.id(0)], payload)
    finally:
        listener.close()
        await server.stop()
        await listener.stop()
