"""A payload that says it is JSON and is none, or that has line ends, forges nothing at any door."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind import wire
from solarwind.payload import BYTES, JSON, as_json
from solarwind.testing.contract import on_loop

from .peers import ask, batch, talker
from .place import Host

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
def port() -> Iterator[int]:
    host = Host()
    port = host.start("memory://")
    yield port
    host.stop(port)
    host.end()


def sound(event: dict[str, object], payload: bytes) -> bool:
    """The event says what was fired, and is nobody else's."""
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
        await made.call("topic", name="T", keep_ns=10**12)
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
