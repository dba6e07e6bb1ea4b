"""Requests as the HTTP binding of CloudEvents has them, byte by byte, and the event that each is.

They are after the feature files of cloudevents/conformance: a request, and what its event is known to be.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from solarwind.server.cloudevents import BATCHED, STRUCTURED
from solarwind.testing.contract import on_loop

from .doors import Doors, at
from .peers import peer
from .place import Host

TOPIC = "parcel.weighed"
REQUIRED = {"specversion": "1.0", "type": TOPIC, "id": "parcel-31", "source": "/depot/scale-2"}
TIMED = REQUIRED | {"time": "2026-02-03T04:05:06Z"}
WEIGHT = {"grams": 412, "of": "Büro"}
WEIGHT_TEXT = json.dumps(WEIGHT, ensure_ascii=False, indent=2).encode()


class Scenario(NamedTuple):
    """A request's headers and body, and the events that it is: their attributes and data."""

    headers: dict[str, str]
    body: bytes
    events: list[dict[str, Any]]


def binary(event: dict[str, Any], body: bytes, content: str | None, prefix: str = "ce-", **as_sent: str) -> Scenario:
    """Return a scenario in binary mode. `as_sent` are headers that are written otherwise than they are meant."""
    headers = {f"{prefix}{name}": as_sent.get(name, value) for name, value in event.items()}
    data: dict[str, Any] = {"data": json.loads(body)} if body else {}
    if content is not None:
        headers["Content-Type"] = content
        data["datacontenttype"] = content
    return Scenario(headers, body, [event | data])


def structured(content: str, document: dict[str, Any]) -> Scenario:
    return Scenario({"Content-Type": content}, json.dumps(document).encode(), [document])


def scenarios() -> Iterator[tuple[str, Scenario]]:
    """Yield all, by what they are about."""
    for content in ("application/json", "application/json; charset=utf-8", "text/json", "application/geo+json; v=1"):
        yield f"binary, {content}", binary(TIMED, WEIGHT_TEXT, content)
    for prefix in ("Ce-", "CE-", "cE-"):
        yield f"binary, names of headers as {prefix}", binary(TIMED, b"1", "application/json", prefix)
    yield "binary, without optional attributes", binary(REQUIRED, WEIGHT_TEXT, "application/json")
    yield "binary, without a type of the data", binary(REQUIRED, WEIGHT_TEXT, None)
    yield (
        "binary, a header in percent-encoding",
        binary(TIMED | {"subject": "Größe €"}, b"1", "application/json", subject="Gr%C3%B6%C3%9Fe%20%E2%82%AC"),
    )
    yield (
        "binary, an extension attribute",
        binary(TIMED | {"sampledrate": "3", "dataschema": "https://example.com/s"}, b"[]", "application/json"),
    )
    weighed = TIMED | {"datacontenttype": "application/json", "data": WEIGHT}
    for content in (STRUCTURED, f"{STRUCTURED}; charset=utf-8", f"{STRUCTURED.title()};charset=UTF-8"):
        yield f"structured, {content}", structured(content, weighed)
    yield (
        "structured, a type of the data with a parameter",
        structured(STRUCTURED, weighed | {"datacontenttype": "application/json; charset=utf-8"}),
    )
    yield "structured, without a type of the data", structured(STRUCTURED, REQUIRED | {"data": [WEIGHT]})
    yield (
        "structured, bytes",
        structured(STRUCTURED, TIMED | {"datacontenttype": "image/png", "data_base64": "iVBORw0KGgo="}),
    )
    documents = [TIMED | {"id": f"parcel-{number}", "data": number} for number in range(3)]
    for content in (BATCHED, f"{BATCHED}; charset=utf-8"):
        yield f"batched, {content}", Scenario({"Content-Type": content}, json.dumps(documents).encode(), documents)
    yield "batched, no events", Scenario({"Content-Type": BATCHED}, b"[]", [])


def as_meant(event: dict[str, Any]) -> dict[str, Any]:
    """Return an event with what it does not state but means: JSON as the type, and times with all digits."""
    meant = {"datacontenttype": "application/json"} | event
    if "time" in meant:
        meant["time"] = meant["time"].replace("Z", ".000000000Z") if "." not in meant["time"] else meant["time"]
    return meant


def request(doors: Doors, headers: dict[str, str], body: bytes) -> bytes:
    """Return the bytes of a request, whose headers are written as they are stated."""
    said = {"Host": f"127.0.0.1:{doors.port}", **headers, "Content-Length": str(len(body))}
    lines = [f"POST {doors.events} HTTP/1.1", *(f"{name}: {value}" for name, value in said.items()), "", ""]
    return "\r\n".join(lines).encode() + body


SCENARIOS = dict(scenarios())


@pytest.mark.parametrize("name", SCENARIOS)
@on_loop
async def test_a_request_is_the_event_that_the_binding_says(host: Host, name: str) -> None:
    headers, body, wanted = SCENARIOS[name]
    port = host.start("memory://")
    async with at(port) as doors, peer(port) as client:
        doors.topic = TOPIC
        await doors.take(since="beginning")
        await client.send(request(doors, headers, body))
        answer = await client.answer("POST")
        assert answer.status == 202, answer.body
        assert json.loads(answer.body)["ids"] == [each["id"] for each in wanted]
        taken = await doors.take(max=10, wait=20 if wanted else 0)
    host.drop(port)
    for event, meant in zip(taken, map(as_meant, wanted), strict=True):
        if "time" not in meant:
            del event["time"]  # when it was accepted
        assert {key: value for key, value in event.items() if key in meant} == meant
        assert event.keys() - meant.keys() <= {"token", "purpose", "attempt", "correlationid"} | {"causationid"}


HEADERS = {f"ce-{name}": value for name, value in REQUIRED.items()}
REFUSED: dict[str, tuple[dict[str, str], Any]] = {
    "binary, no version": (HEADERS | {"ce-specversion": ""}, 1),
    "binary, a version that there is not": (HEADERS | {"ce-specversion": "1.7"}, 1),
    "binary, no source": ({name: value for name, value in HEADERS.items() if name != "ce-source"}, 1),
    "structured, no id": ({"Content-Type": STRUCTURED}, {**REQUIRED, "id": ""}),
    "structured, no object": ({"Content-Type": STRUCTURED}, []),
    "structured, data twice": ({"Content-Type": STRUCTURED}, {**REQUIRED, "data": 1, "data_base64": "AA=="}),
    "batched, no array": ({"Content-Type": BATCHED}, REQUIRED),
    "another format": ({"Content-Type": "application/cloudevents+avro"}, 1),
}


@pytest.mark.parametrize("name", REFUSED)
@on_loop
async def test_a_request_that_is_no_event_is_refused_and_nothing_is_accepted(host: Host, name: str) -> None:
    headers, body = REFUSED[name]
    port = host.start("memory://")
    async with at(port) as doors, peer(port) as client:
        doors.topic = TOPIC
        await doors.take()
        stated = {"Content-Type": "application/json"} | headers
        await client.send(request(doors, stated, json.dumps(body).encode()))
        answer = await client.answer("POST")
        assert answer.status in (400, 415), answer.body
        assert "expected" in answer.problem["detail"]
        assert await doors.take(wait=0) == []
    host.drop(port)
