"""Events for later and such that expire, by HTTP: each form in which they are fired, and how they are taken back."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from solarwind.testing.contract import on_loop, until

from .doors import BATCHED, BYTES, JSON, NDJSON, STRUCTURED, Doors, at
from .place import Host

IN_AN_HOUR = (datetime.now(UTC) + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%SZ")
PAST = "2020-01-31T12:00:00+02:00"


@pytest.fixture(scope="module")
def port(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = host.start(f"sqlite:///{tmp_path_factory.mktemp('store')}/wind.db")
    yield port
    host.stop(port)


async def delayed(doors: Doors, **more: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = (await doors.ask("GET", "/v1/delayed", topic=doors.topic, **more))["delayed"]
    return found


def cloudevent(doors: Doors, id: str, **attributes: str) -> dict[str, Any]:
    return {"specversion": "1.0", "type": doors.topic, "source": "//m/p", "id": id, "data": id, **attributes}


@on_loop
async def test_every_form_of_an_event_may_be_fired_for_later(port: int) -> None:
    async with at(port) as doors:
        ids = await doors.fire(b"1", JSON, at=IN_AN_HOUR, id="a", key="k", expires="2h")
        ids += await doors.fire(b"2", BYTES, after="1h")
        ids += await doors.fire(b"3\n4\n", NDJSON, after="3600.5")
        ids += await doors.fire(json.dumps(cloudevent(doors, "b", duetime=IN_AN_HOUR)), STRUCTURED)
        both = [cloudevent(doors, "c", duetime=IN_AN_HOUR, expirytime="2030-01-31T12:00:00Z"), cloudevent(doors, "now")]
        now = (await doors.fire(json.dumps(both), BATCHED))[1]
        binary = {"ce-specversion": "1.0", "ce-type": doors.topic, "ce-source": "//m/p", "ce-id": "d"}
        answer = await doors.http.post(doors.events, content=b"5", headers=binary | {"ce-duetime": IN_AN_HOUR})
        assert (answer.status_code, now) == (202, "now")
        found = {each["event"]["id"]: each for each in await delayed(doors)}
        assert found.keys() == {*ids, "c", "d"}
        assert [event["id"] for event in await doors.take(max=10, since="beginning")] == ["now"]
        assert found["a"]["event"]["partitionkey"] == "k"
        assert found["a"]["due"] == found["b"]["due"] == IN_AN_HOUR
        assert found["a"]["event"]["duetime"] == IN_AN_HOUR.replace("Z", ".000000000Z")
        assert found["c"]["event"]["expirytime"] == "2030-01-31T12:00:00.000000000Z"


@on_loop
async def test_what_is_due_is_taken_with_its_times_and_what_expired_is_not(port: int) -> None:
    async with at(port) as doors:
        await doors.fire(b'"due"', at=PAST, expires=IN_AN_HOUR)
        await doors.fire(b'"expired"', expires=PAST)
        await doors.fire(json.dumps(cloudevent(doors, "too late", expirytime=PAST)), STRUCTURED)
        await doors.fire(b'"soon"', after="0.1")

        async def both_are_in() -> bool:
            topics = (await doors.ask("GET", "/v1/statistics"))["topics"]
            return bool(topics[doors.topic]["fired"] == 4)

        await until(both_are_in)
        events = await doors.stored()
        assert [(event["data"], "expirytime" in event) for event in events] == [("due", True), ("soon", False)]
        assert events[0]["duetime"] == "2020-01-31T10:00:00.000000000Z"
        (counts,) = (await doors.ask("GET", "/v1/purposes", topic=doors.topic))["purposes"]
        assert (counts["expired"], counts["settled"], counts["dead"]) == (2, 2, 0)
        became = await doors.ask("GET", f"{doors.events}/too%20late")
        assert [each["state"] for each in became["outcomes"]] == ["expired"]
        text = (await doors.http.get("/metrics")).text
        labels = f'{{purpose="look",topic="{doors.topic}"}}'
        assert f"solarwind_purpose_expired_total{labels} 2.0" in text


BAD = [
    ({"at": "2030-01-31T12:00:00"}, "a time with its zone"),
    ({"at": "1h"}, "a time with its zone"),
    ({"at": "2099-01-31T12:00:00Z"}, "ten years"),
    ({"at": IN_AN_HOUR, "after": "1h"}, "got both"),
    ({"after": "-1"}, "expected after as seconds"),
    ({"after": "soon"}, "expected after as seconds"),
    ({"after": "9999d"}, "ten years"),
    ({"after": "9999999999"}, "up to ten years"),
    ({"expires": "0"}, "more than 0 seconds"),
    ({"expires": "never"}, "or a duration such as 5m"),
    ({"after": "1h", "expires": "30m"}, "expires after it is due"),
]


@pytest.mark.parametrize(("query", "words"), BAD, ids=[str(number) for number in range(len(BAD))])
@on_loop
async def test_times_that_cannot_be_are_refused_in_each_form(port: int, query: dict[str, str], words: str) -> None:
    async with at(port) as doors:
        for body, kind in ((b"1", JSON), (b"2", BYTES), (b"3\n4\n", NDJSON)):
            await doors.refused(doors.send(body, kind, **query), 400, "bad-argument", words)
        assert await delayed(doors) == []


@on_loop
async def test_a_cloudevent_says_its_times_itself(port: int) -> None:
    async with at(port) as doors:
        for attributes, words in (
            ({"duetime": "tomorrow"}, "duetime and expirytime: expected a time such as"),
            ({"duetime": "2099-01-31T12:00:00Z"}, "ten years"),
            ({"duetime": IN_AN_HOUR, "expirytime": PAST}, "expires after it is due"),
        ):
            body = json.dumps(cloudevent(doors, "x", **attributes))
            await doors.refused(doors.send(body, STRUCTURED), 400, "bad-argument", words)
        send = doors.send(json.dumps(cloudevent(doors, "x")), STRUCTURED, after="1h")
        await doors.refused(send, 400, "bad-argument", "its times are duetime and expirytime")


@on_loop
async def test_a_delayed_event_is_shown_and_taken_back_once(port: int) -> None:
    async with at(port) as doors:
        await doors.fire(b'"x"', id="a/b ü", after="1h")
        path = f"/v1/topics/{doors.topic}/delayed/a%2Fb%20%C3%BC"
        assert (await doors.ask("GET", path))["event"]["data"] == "x"
        assert await doors.ask("DELETE", path) == {"cancelled": True}
        assert await doors.ask("DELETE", path) == {"cancelled": False}
        problem = await doors.ask("GET", path, status=404)
        assert problem["code"] == "not-found"
        assert await delayed(doors) == []


@on_loop
async def test_delayed_events_come_in_pages(port: int) -> None:
    async with at(port) as doors:
        for number in range(5):
            await doors.fire(b"%d" % number, after=f"{9 - number}h")
        page = await doors.ask("GET", "/v1/delayed", topic=doors.topic, limit=2)
        assert [each["event"]["data"] for each in page["delayed"]] == [4, 3]
        rest = await delayed(doors, after=page["next"])
        assert [each["event"]["data"] for each in rest] == [2, 1, 0]
        topic = await doors.ask("GET", f"/v1/topics/{doors.topic}")
        assert (topic["delayed"], topic["next_due"]) == (5, page["delayed"][0]["due"])
        problem = await doors.ask("GET", "/v1/delayed", status=400, after="7")
        assert problem["code"] == "bad-argument"
