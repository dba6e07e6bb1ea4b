"""CloudEvents, with the SDK for JavaScript as the other side: what it writes is accepted, and what is sent it reads."""

from __future__ import annotations

import base64
import json
from typing import Any
from urllib.parse import unquote

import pytest

from solarwind.server.cloudevents import BATCHED, STRUCTURED
from solarwind.testing.contract import on_loop

from .doors import at
from .npm import Judge, needs_npm
from .place import Host
from .test_feed import Reader
from .webhooks.place import TOPIC as HOOKED
from .webhooks.place import put, receiving, sending, settled

pytestmark = needs_npm

TYPE, SOURCE = "orders.placed", "https://shop.example/cart?id=1"
COMMON = {"type": TYPE, "source": SOURCE, "time": "2026-01-31T12:00:00.123Z", "partitionkey": "cart 7", "subject": "s"}
EVENTS: list[dict[str, Any]] = [
    {**COMMON, "id": "1", "datacontenttype": "application/json", "data": {"größe": [1, None, "\n"]}},
    {**COMMON, "id": "2", "datacontenttype": "text/plain", "data": "grüße"},
    {**COMMON, "id": "3", "datacontenttype": "application/octet-stream", "data_base64": "AP/+"},
    {**COMMON, "id": "4", "datacontenttype": "application/json", "data": [{"a": 1}], "more": "x"},
]


NAMES = {name for each in EVENTS for name in each}


def known(event: dict[str, Any]) -> dict[str, Any]:
    """Return what the one who fired the event knows of it. Data that is no JSON is in base64, text too."""
    found = {name: value for name, value in event.items() if name in NAMES}
    if isinstance(found.get("data"), str):
        found["data_base64"] = base64.b64encode(found.pop("data").encode()).decode()
    return found


@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
@on_loop
async def test_what_the_sdk_writes_is_accepted_and_it_reads_it_back_as_it_was(
    host: Host, judge: Judge, mode: str
) -> None:
    port = host.start("memory://")
    async with at(port) as doors:
        doors.topic = TYPE
        await doors.take()
        for headers, body in judge.write(mode, EVENTS):
            answer = await doors.http.post(doors.events, headers=headers, content=body)
            assert answer.status_code == 202, answer.text
        taken = await doors.take(max=10, wait=20)
    host.drop(port)
    each = [judge.read({"content-type": STRUCTURED}, json.dumps(event).encode())[0] for event in taken]
    together = judge.read({"content-type": BATCHED}, json.dumps(taken).encode())
    for found in (each, together):
        assert [known(event) for event in found] == [known(event) for event in EVENTS]


@pytest.mark.parametrize("mode", ["binary", "structured"])
@on_loop
async def test_the_sdk_reads_what_a_webhook_gets(judge: Judge, mode: str) -> None:
    payloads: list[Any] = [{"größe": [1.5, None]}, b"\x00\xff"]
    async with receiving() as receiver, sending() as server:
        await put(server, receiver.url, mode=mode, concurrency=1)
        ids = [
            await server.wind.fire(HOOKED, each, key="k ü", extensions={"subject": "ü", "traceparent": "00-1"})
            for each in payloads
        ]
        await settled(server, 2)
    found = [judge.read(post.headers, post.body)[0] for post in receiver.posts]
    assert [each["id"] for each in found] == ids
    assert found[0]["data"] == payloads[0]
    assert base64.b64decode(found[1]["data_base64"]) == payloads[1]
    for each in found:
        # As the specification has it, headers are percent-encoded; this SDK leaves them so.
        read = unquote if mode == "binary" else str
        assert (read(each["partitionkey"]), read(each["subject"]), each["traceparent"]) == ("k ü", "ü", "00-1")
        assert (each["type"], each["specversion"], each["correlationid"]) == (HOOKED, "1.0", each["id"])


@on_loop
async def test_the_sdk_reads_what_a_feed_streams(host: Host, judge: Judge) -> None:
    port = host.start("memory://")
    async with at(port) as doors:
        feed = f"/v1/topics/{doors.topic}/feed"
        async with doors.http.stream("GET", feed, params={"purpose": "Live page"}) as answer:
            reader = Reader(answer)
            await reader.block()
            (id,) = await doors.fire(b'{"a": [1, "\xc3\xbc"]}')
            event = await reader.event()
    host.drop(port)
    (found,) = judge.read({"content-type": STRUCTURED}, json.dumps(event).encode())
    assert (found["id"], found["type"], found["data"]) == (id, doors.topic, {"a": [1, "ü"]})
