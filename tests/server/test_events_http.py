"""Events by HTTP, at a real server in another process: every form in which they come, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.v1.event import CloudEvent

from solarwind import SolarWind
from solarwind.batch import Batch
from solarwind.core.log import Stored
from solarwind.core.state import Change, Snapshot
from solarwind.engine.local import LocalEngine
from solarwind.server import Server
from solarwind.store.base import Full
from solarwind.store.memory import MemoryStore
from solarwind.testing.contract import on_loop, until

from .doors import BATCHED, BYTES, JSON, NDJSON, STRUCTURED, at, curl, served
from .place import Host
from .resident import resident
from .serving import Serving

MAX = 1 << 20  # of a payload


@pytest.fixture(scope="module")
def port(host: Host, tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    port = host.start(f"sqlite:///{tmp_path_factory.mktemp('store')}/wind.db", ids=1_000)
    yield port
    host.stop(port)


# JSON ----------------------------------------------------------------------------------------------------

VALUES = [None, True, 0, -1.5, 10**30, "", "ü 🌞 \u2028 \x00", [], {}, {"a": [{"b": [None, {"": []}]}]}]


@on_loop
async def test_any_json_value_is_a_payload(port: int) -> None:
    async with at(port) as doors:
        for value in VALUES:
            assert len(await doors.fire(json.dumps(value).encode())) == 1
        assert len(await doors.fire(b' \t\n{ "spaced" :\r\n1 } ', f"{JSON}; charset=utf-8")) == 1
        events = await doors.stored()
        assert [event["data"] for event in events] == [*VALUES, {"spaced": 1}]
        assert {event["datacontenttype"] for event in events} == {JSON}
        assert {event["source"] for event in events} == {"//127.0.0.1/anybody"}


@on_loop
async def test_key_and_id_are_parameters_whatever_is_in_them(port: int) -> None:
    async with at(port) as doors:
        assert await doors.fire(b"1", key="schlüssel &=/+?", id="ord/7 ü") == ["ord/7 ü"]
        assert await doors.fire(b"2", key="null", id="null") == ["null"]
        await doors.fire(b"3", key="")
        events = await doors.stored()
        assert [event.get("partitionkey") for event in events] == ["schlüssel &=/+?", "null", ""]


@on_loop
async def test_extensions_are_a_parameter_and_said_of_each_event_of_the_request(port: int) -> None:
    async with at(port) as doors:
        for body, kind in ((b"1", JSON), (b"2", BYTES), (b"3\n4\n", NDJSON)):
            await doors.fire(body, kind, extensions='{"subject": "\\u00fc", "shop": "&"}')
        events = await doors.stored()
        assert [(event["subject"], event["shop"]) for event in events] == [("ü", "&")] * 4
        for text in ("", "[]", '{"a": 1}', '{"id": "x"}', '{"a": "b"', "a=b"):
            await doors.refused(doors.send(b"1", extensions=text), 400, "bad-argument", "expected extension")


@on_loop
async def test_the_same_event_twice_is_accepted_twice_and_stored_once(port: int) -> None:
    async with at(port) as doors:
        assert await doors.fire(b"1", id="once") == ["once"]
        assert await doors.fire(b"2", id="once") == ["once"]
        assert await doors.data() == [1]


BAD_JSON = [
    *(b"", b" ", b"nope", b'{"a":1', b"{'a':1}", b"[1,]", b"1 2", b"01", b"NaN", b'"\xff"', b"\xef\xbb\xbf1", b'"\n"'),
    *(b'"\\q"', b"1e999", b'{"a":1}\x00'),
]


@on_loop
async def test_what_is_no_json_is_refused(port: int) -> None:
    async with at(port) as doors:
        for body in BAD_JSON:
            await doors.refused(doors.send(body), 400, "bad-payload", "expected JSON")
        assert await doors.stored() == []


@on_loop
async def test_what_is_too_large_or_too_deep_is_refused_and_the_connection_goes_on(port: int) -> None:
    async with at(port) as doors:
        just = b'"' + b"x" * (MAX - 2) + b'"'
        assert len(await doors.fire(just)) == 1
        for kind in (JSON, BYTES):
            await doors.refused(doors.send(just + b" ", kind), 413, "too-large", "at most 1,048,576 bytes")
        await doors.refused(doors.send(chunks(just + b" ")), 413, "too-large", "at most 1,048,576 bytes")
        assert len(await doors.fire(b"[" * 64 + b"]" * 64)) == 1
        for deep in (b"[" * 65 + b"]" * 65, b'{"a":' * 65 + b"1" + b"}" * 65, b"[" * 500_000):
            await doors.refused(doors.send(deep), 413, "too-large", "at most 64 deep")
        assert len(await doors.fire(b'"' + b"[" * 1_000 + b'"')) == 1


async def chunks(*parts: bytes) -> AsyncIterator[bytes]:
    """Yield a body whose length is not said."""
    for part in parts:
        yield part


@pytest.mark.parametrize("kind", ["", "text/plain", "application/x-www-form-urlencoded", "multipart/form-data", "json"])
@on_loop
async def test_another_content_type_is_refused(port: int, kind: str) -> None:
    async with at(port) as doors:
        got = f"got '{kind}'" if kind else "got none"
        said = f"{got}: say which it is, as by the header content-type: {JSON}"
        await doors.refused(doors.send(b"1", kind), 415, "unsupported-media-type", NDJSON, STRUCTURED, said)


@on_loop
async def test_a_body_in_another_coding_is_refused_rather_than_taken_for_what_it_is_not(port: int) -> None:
    async with at(port) as doors:
        headers = {"content-type": BYTES, "content-encoding": "gzip"}
        work = doors.http.post(doors.events, content=b"\x1f\x8b", headers=headers)
        await doors.refused(work, 415, "unsupported-media-type", "gzip")
        headers["content-encoding"] = "identity"
        assert (await doors.http.post(doors.events, content=b"as it is", headers=headers)).status_code == 202


@on_loop
async def test_a_key_or_an_id_that_is_none_is_refused(port: int) -> None:
    async with at(port) as doors:
        for query in ({"key": "ü" * 129}, {"id": ""}, {"id": " x"}, {"id": "x" * 201}, {"id": "a\nb"}):
            await doors.refused(doors.send(b"1", **query), 400, "bad-name", "expected a")
            await doors.refused(doors.send(b"1", NDJSON, **query), 400, "bad-name", "expected a")
        assert await doors.stored() == []


@on_loop
async def test_nobody_fires_on_a_topic_that_is_the_dispatcher_s(port: int) -> None:
    async with at(port) as doors:
        for topic in ("solarwind.dead", "solarwind.x"):
            for kind in (JSON, NDJSON, BYTES):
                headers = {"content-type": kind}
                work = doors.http.post(f"/v1/topics/{topic}/events", content=b"1", headers=headers)
                await doors.refused(
                    work, 400, "bad-name", "expected a topic that does not begin with 'solarwind.', got"
                )


# Bytes ---------------------------------------------------------------------------------------------------


@on_loop
async def test_bytes_are_a_payload_as_they_are_none_too(port: int) -> None:
    async with at(port) as doors:
        for body in (bytes(range(256)), b"", b"{not json}"):
            assert len(await doors.fire(body, BYTES)) == 1
        events = await doors.stored()
        assert [event["data_base64"][:8] for event in events] == ["AAECAwQF", "", "e25vdCBq"]
        assert {event["datacontenttype"] for event in events} == {BYTES}


# NDJSON --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [NDJSON, "application/ndjson", "application/jsonl"])
@on_loop
async def test_each_line_is_an_event_whatever_ends_it(port: int, kind: str) -> None:
    async with at(port) as doors:
        body = b'{"a":1}\r\n\r\n  [2] \t\n\n"three"\r\n \n4\n{"last": "no line end"}'
        assert len(await doors.fire(body, kind, key="k")) == 5
        events = await doors.stored()
        assert [event["data"] for event in events] == [{"a": 1}, [2], "three", 4, {"last": "no line end"}]
        assert {event["partitionkey"] for event in events} == {"k"}


@pytest.mark.parametrize(
    ("body", "detail"),
    [
        (b"", "expected JSON, got nothing: it needs a value, such as null"),
        (b'{"n": 1', "expected JSON, got '{\"n\": 1': it ends too early"),
        (b"{n: 1}", "expected JSON, got '{n: 1}': expected '\"' at byte 2 of 6"),
    ],
)
@on_loop
async def test_a_body_that_is_no_json_is_refused_with_the_place_of_the_fault(
    port: int, body: bytes, detail: str
) -> None:
    async with at(port) as doors:
        await doors.refused(doors.send(body), 400, "bad-payload", detail)


@on_loop
async def test_no_line_at_all_is_no_event(port: int) -> None:
    async with at(port) as doors:
        for body in (b"", b"\n", b"\r\n \n\n"):
            assert await doors.fire(body, NDJSON) == []


@on_loop
async def test_lines_come_in_pieces_of_any_size(port: int) -> None:
    async with at(port) as doors:
        body = b'{"a":"\xc3\xbc"}\r\n[1]\r\n"x"'
        assert len(await doors.fire(chunks(*(body[at : at + 1] for at in range(len(body)))), NDJSON)) == 3
        assert await doors.data() == [{"a": "ü"}, [1], "x"]


NO_EVENTS = [
    *(b"nope", b"1 2", b"{}{}", b"1\r2", b'{"a":\n1}', b'"\xff"', b"1,2", b"\xef\xbb\xbf1", b'"a\rb"'),
    # So many values as lines, but not one on each.
    *(b"[\n]\n1 2", b"{}{}\n{\n}", b"1 2\n[3\n]", b"[1\n2]\n3 4"),
]


@pytest.mark.parametrize("bad", NO_EVENTS)
@on_loop
async def test_a_line_that_is_no_event_is_named_and_those_before_it_are_accepted(port: int, bad: bytes) -> None:
    async with at(port) as doors:
        work = doors.send(b'{"n":1}\n\n{"n":2}\n' + bad + b'\n{"n":3}\n', NDJSON)
        problem = await doors.refused(work, 400, "bad-payload", "line 4: expected JSON, got '")
        assert (problem["line"], problem["accepted"]) == (4, 2)
        assert await doors.data() == [{"n": 1}, {"n": 2}]


@on_loop
async def test_a_bad_line_far_into_a_file_is_named_too_and_the_file_goes_on_after_it(port: int) -> None:
    lines = [json.dumps({"n": n, "more": "x" * 50}).encode() for n in range(20_000)]
    lines[14_321] = b"{"
    async with at(port) as doors:
        problem = await doors.refused(doors.send(b"\n".join(lines), NDJSON), 400, "bad-payload", "line 14,322: ")
        assert (problem["line"], problem["accepted"]) == (14_322, 14_321)
        answer = await doors.send(b"\n".join(lines[problem["accepted"] + 1 :]), NDJSON)
        assert answer.json() == {"accepted": 5_678}  # so many ids are not said
        assert [each["n"] for each in await doors.data()] == [n for n in range(20_000) if n != 14_321]


@on_loop
async def test_an_upload_with_an_id_may_be_repeated(port: int) -> None:
    """Each line has an id by its number, so that what was accepted before is not there twice."""
    async with at(port) as doors:
        work = doors.send(b"1\n\n2\noops\n4", NDJSON, id="import")
        assert (await doors.refused(work, 400, "bad-payload"))["accepted"] == 2
        ids = ["import.1", "import.3", "import.4", "import.5"]
        assert await doors.fire(b"1\n\n2\n3\n4", NDJSON, id="import") == ids
        assert await doors.fire(b"1\n\n2\n3\n4", NDJSON, id="import") == ids
        assert await doors.data() == [1, 2, 3, 4]


@on_loop
async def test_a_line_that_is_too_long_or_too_deep_is_named(port: int) -> None:
    async with at(port) as doors:
        just = b'"' + b"x" * (MAX - 2) + b'"'
        assert len(await doors.fire(just + b"\r\n" + just, NDJSON)) == 2
        for body in (b"1\n" + just + b" 2", b"1\n" + just[:-1] + b'y"\n2', chunks(b"1\n", *[just[:-1]] * 3)):
            problem = await doors.refused(doors.send(body, NDJSON), 413, "too-large", "line 2: ", "1,048,576 bytes")
            assert (problem["line"], problem["accepted"]) == (2, 1)
        deep = b"[" * 65 + b"]" * 65
        problem = await doors.refused(doors.send(b'"%b"\n1\n%b' % (deep, deep), NDJSON), 413, "too-large", "64 deep")
        assert (problem["line"], problem["accepted"]) == (3, 2)


@on_loop
async def test_what_was_sent_before_the_client_was_gone_counts_and_the_upload_may_be_repeated(port: int) -> None:
    lines = [b'{"n":%d,"more":"%b"}' % (n, b"x" * 100) for n in range(20_000)]
    body = b"\n".join(lines)
    async with at(port) as doors:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        head = f"POST {doors.events}?id=i HTTP/1.1\r\nHost: localhost\r\nContent-Type: {NDJSON}\r\n"
        writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body[: len(body) // 2 + 7])

        async def fired() -> int:
            answer = await doors.http.get(f"/v1/topics/{doors.topic}")
            return answer.json()["fired"] if answer.status_code == 200 else 0

        async def many() -> bool:
            return await fired() > 5_000

        await until(many, "half of the upload")
        writer.transport.abort()
        assert 5_000 < await fired() < 10_100
        answer = await doors.send(body, NDJSON, id="i")
        assert answer.json()["accepted"] == 20_000
        assert [each["n"] for each in await doors.data()] == list(range(20_000))


@pytest.mark.long
@on_loop
async def test_a_file_of_any_size_is_never_held_as_a_whole(tmp_path: Path) -> None:
    """curl sends sixty megabytes, and then three times as much, made as they are sent: that costs hardly more."""
    serving = Serving(tmp_path, scheme="http")
    await serving.start()
    try:
        events = f"{serving.url}/v1/topics/T/events"
        typed = ("--header", f"Content-Type: {NDJSON}")
        line, most = json.dumps({"text": "x" * 2_000}), []
        for count in (30_000, 90_000):
            out, into = os.pipe()
            made = await asyncio.create_subprocess_shell(f"yes '{line}' | head -n {count}", stdout=into)
            os.close(into)
            sent = await curl("--request", "POST", "--upload-file", "-", *typed, events, stdin=out)
            os.close(out)
            await made.wait()
            assert sent == (202, {"accepted": count})
            most.append(resident(serving.pid, "VmHWM"))
        assert most[0] < 256 << 20
        assert most[1] - most[0] < 90 << 20, "they have 120 MB more"
    finally:
        await serving.end()


class Filling(MemoryStore):
    """A disk that is full from some commit of events on."""

    room = 2
    keep_ns = 1 << 62

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int, *more: Any
    ) -> list[Stored | None]:
        self.room -= bool(batches)
        if batches and self.room < 0:
            raise Full("expected room on the disk, got none: free some")
        return await super().commit(batches, changes, snapshots, now, *more)


@on_loop
async def test_where_the_disk_is_full_what_was_accepted_is_a_first_part_and_counted() -> None:
    store = Filling()
    async with SolarWind(engine=LocalEngine(store)) as wind, served(Server(wind)) as port, at(port) as doors:
        line = b'"%b"\n' % (b"x" * (512 << 10))
        problem = await doors.refused(doors.send(chunks(*[line] * 40), NDJSON, id="i"), 503, "store", "free some")
        assert 1 <= problem["accepted"] < 40
        store.room = 1_000
        assert (await doors.send(line * 40, NDJSON, id="i")).json()["accepted"] == 40
        assert len(await doors.stored()) == 40


# CloudEvents ---------------------------------------------------------------------------------------------


def cloudevent(topic: str, data: Any = None, **attributes: Any) -> CloudEvent:
    return CloudEvent({"type": topic, "source": "//shop/till 7", "id": "a 1", **attributes}, data)


@on_loop
async def test_what_the_sdk_makes_of_an_event_is_taken_in_each_form(port: int) -> None:
    for make in (sdk.to_binary_event, sdk.to_structured_event):
        for data, content in (({"n": [1, None]}, JSON), (b"\x00\xff", BYTES), ("text", "text/plain")):
            async with at(port) as doors:
                message = make(cloudevent(doors.topic, data, datacontenttype=content, partitionkey="k\u00e9y"))
                answer = await doors.http.post(doors.events, content=message.body, headers=message.headers)
                assert answer.json() == {"accepted": 1, "ids": ["a 1"]}
                (event,) = await doors.stored()
                assert (event["id"], event["partitionkey"], event["datacontenttype"]) == ("a 1", "k\u00e9y", content)
                assert event["source"] == "//shop/till 7"
                given = sdk.HTTPMessage({"content-type": STRUCTURED}, json.dumps(event).encode())
                found = sdk.from_structured_event(given).get_data()
                assert found == (data if content != "text/plain" else b"text")


@on_loop
async def test_curl_sends_a_cloudevent_in_binary_form(port: int) -> None:
    async with at(port) as doors:
        attributes = {"specversion": "1.0", "type": doors.topic, "source": "//shop/till", "id": "b1"}
        headers = [each for name, value in attributes.items() for each in ("--header", f"ce-{name}: {value}")]
        sent = await curl(*headers, "--json", '{"n": 1}', f"{doors.url}{doors.events}")
        assert sent == (202, {"accepted": 1, "ids": ["b1"]})
        assert await doors.data() == [{"n": 1}]


@on_loop
async def test_a_batch_is_accepted_in_order_whatever_its_sources(port: int) -> None:
    async with at(port) as doors:
        events = [
            {"specversion": "1.0", "type": doors.topic, "source": f"//m/{n % 3}", "id": f"i{n}", "data": n}
            for n in range(900)
        ]
        ids = await doors.fire(json.dumps(events), BATCHED)
        assert ids == [f"i{n}" for n in range(900)]
        found = await doors.stored()
        assert [(event["data"], event["source"]) for event in found] == [(n, f"//m/{n % 3}") for n in range(900)]
        assert await doors.fire(json.dumps(events), BATCHED) == ids
        assert await doors.stored() == []
        assert await doors.fire(b"[]", BATCHED) == []


@on_loop
async def test_one_bad_event_of_a_batch_is_named_and_none_is_accepted(port: int) -> None:
    async with at(port) as doors:
        good = {"specversion": "1.0", "type": doors.topic, "source": "s", "id": "i"}
        for bad, code, words in (
            ({**good, "type": "other"}, "bad-argument", "of type"),
            ({**good, "specversion": "0.3"}, "bad-argument", "specversion"),
            ({**good, "id": ""}, "bad-argument", "with id"),
            ({**good, "time": "yesterday"}, "bad-argument", "expected a time"),
            ([], "bad-payload", "a JSON object"),
            ({**good, "data": 1, "data_base64": "AA=="}, "bad-payload", "got both"),
        ):
            body = json.dumps([good, bad, good])
            await doors.refused(doors.send(body, BATCHED), 400, code, "CloudEvent 2 of 3: expected", words)
            if isinstance(bad, dict):
                await doors.refused(doors.send(json.dumps(bad), STRUCTURED), 400, code, words)
        large = json.dumps({**good, "data": "x" * MAX})
        await doors.refused(doors.send(f"[{json.dumps(good)},{large}]", BATCHED), 413, "too-large", "1,048,576")
        await doors.refused(doors.send(json.dumps([good] * 1_001), BATCHED), 413, "too-large", "at most 1,000")
        await doors.refused(doors.send(json.dumps(good), BATCHED), 400, "bad-payload", "an array of CloudEvents")
        await doors.refused(doors.send(json.dumps([good]), STRUCTURED), 400, "bad-payload", "a JSON object")
        assert await doors.stored() == []


@on_loop
async def test_headers_of_a_cloudevent_without_its_specversion_are_refused(port: int) -> None:
    async with at(port) as doors:
        headers = {"content-type": JSON, "ce-type": doors.topic, "ce-source": "s", "ce-id": "i"}
        sent = doors.http.post(doors.events, content=b"1", headers=headers)
        await doors.refused(sent, 400, "bad-argument", "expected specversion '1.0', got none")
        assert await doors.stored() == []


@on_loop
async def test_a_cloudevent_says_its_own_id_and_key(port: int) -> None:
    async with at(port) as doors:
        body = json.dumps({"specversion": "1.0", "type": doors.topic, "source": "s", "id": "i"})
        for query in ({"id": "other"}, {"key": "k"}, {"extensions": "{}"}):
            await doors.refused(doors.send(body, STRUCTURED, **query), 400, "bad-argument", "parameters too")
        assert await doors.stored() == []
