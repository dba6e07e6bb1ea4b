"""CloudEvents 1.0, with the official SDK as the other side: what it writes is read here, and what is written here it
reads."""

from __future__ import annotations

import asyncio
import base64
import json
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from cloudevents.core.bindings import http as sdk
from cloudevents.core.v1.event import CloudEvent
from hypothesis import given, settings
from hypothesis import strategies as st

from solarwind import BadArgument, BadName, BadPayload, SolarWindError, TooLarge
from solarwind.batch import MAX_TIME, seal
from solarwind.columns import RESERVED, gathered
from solarwind.event import Cause, Event, HandOut
from solarwind.keys import field
from solarwind.payload import is_json
from solarwind.server import cloudevents
from solarwind.server.cloudevents import Incoming
from solarwind.server.json_check import check_json
from solarwind.testing.contract import on_loop

from .place import Host

TOPIC = "orders.placed"
STRUCTURED, BATCHED = "application/cloudevents+json", "application/cloudevents-batch+json"
NESTING = 64


# Both ways, any event ------------------------------------------------------------------------------------

printable = st.characters(exclude_categories=("C", "Z"))
ids = st.text(printable, min_size=1, max_size=60)
purposes = ids
names = st.text(st.characters(exclude_categories=("Cs",)), max_size=30)
keys = st.text(st.characters(exclude_categories=("Cs",)), max_size=60)
times = st.integers(0, MAX_TIME)
causes = st.one_of(
    st.none(),
    st.builds(Cause, st.sampled_from(["user", "schedule", "machine", "application"]), ids),
    st.builds(Cause, st.just("event"), ids, st.none() | purposes, st.none() | st.integers(1, 10**9 - 1), ids),
)
extensions = st.dictionaries(
    st.text("abcdefghijklmnopqrstuvwxyz0123456789", min_size=1, max_size=20).filter(lambda name: name not in RESERVED),
    st.text(st.characters(exclude_categories=("Cs", "Cc")), max_size=30),
    min_size=1,
    max_size=4,
)
json_data = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False) | names,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(names, json_data, max_size=4)  # the SDK writes nothing else as JSON by binary mode
types = st.sampled_from(["application/octet-stream", "text/plain", "text/plain; charset=utf-8", "image/x.y+z"])


@st.composite
def events(draw: st.DrawFn) -> Event:
    is_json = draw(st.booleans())
    batch = seal(
        TOPIC,
        [json.dumps(draw(objects)).encode() if is_json else draw(st.binary(max_size=60))],
        [draw(times)],
        producer=7,
        first=3,
        machine=draw(names),
        process=draw(names),
        content="application/json" if is_json else draw(types),
        keys=[draw(st.none() | keys)],
        ids=[draw(st.none() | ids)],
        causes=[draw(causes)],
        extensions=[draw(st.none() | extensions)],
    )
    return Event(HandOut(batch), 0)


def fired_again(incoming: Incoming) -> Event:
    """Return the event that comes of it at a server."""
    batch = seal(
        TOPIC,
        [incoming.data],
        [incoming.time_ns or 0],
        producer=1,
        first=1,
        machine=incoming.machine,
        process=incoming.process,
        content=incoming.content,
        **gathered([incoming.attributes]),
    )
    return Event(HandOut(batch), 0)


def checked(event: Incoming) -> Incoming:
    """Return it as the acceptor checks it."""
    if is_json(event.content):
        check_json(event.data, NESTING, "JSON as data")
    return event


def read_binary(headers: dict[str, str], body: bytes) -> Event:
    return fired_again(checked(cloudevents.read_binary(headers, body, TOPIC)))


def read_structured(body: bytes) -> Event:
    return fired_again(checked(cloudevents.read_structured(body, TOPIC)))


def same(one: Event, other: Event) -> None:
    assert cloudevents.attributes(one) == cloudevents.attributes(other)
    assert one.data == other.data
    assert one.time_ns == other.time_ns
    assert (one.id, one.root, one.key, one.content_type) == (other.id, other.root, other.key, other.content_type)
    assert one.extensions == other.extensions


@settings(deadline=None)
@given(events())
def test_whatever_is_written_is_read_as_the_same_event(event: Event) -> None:
    headers = cloudevents.to_headers(event)
    assert all(value.isascii() and value.isprintable() for value in headers.values())
    same(read_binary(headers, event.data), event)
    same(read_structured(cloudevents.encode(cloudevents.to_cloudevent(event))), event)


@settings(deadline=None)
@given(events(), st.booleans())
def test_the_sdk_reads_it_and_what_it_writes_is_the_same_event_to_the_microsecond(event: Event, binary: bool) -> None:
    if binary:
        read = sdk.from_binary_event(sdk.HTTPMessage(cloudevents.to_headers(event), event.data))
    else:
        body = cloudevents.encode(cloudevents.to_cloudevent(event))
        read = sdk.from_structured_event(sdk.HTTPMessage({"content-type": STRUCTURED}, body))
    assert (read.get_id(), read.get_type(), read.get_extension("partitionkey")) == (event.id, TOPIC, event.key)
    assert read.get_extension("correlationid") == event.root
    assert read.get_time() == event.time
    for write in (sdk.to_binary_event, sdk.to_structured_event):
        message = write(read)
        again = (
            read_binary(message.headers, message.body)
            if write is sdk.to_binary_event
            else read_structured(message.body)
        )
        expected = cloudevents.attributes(event)
        expected["time"] = cloudevents.write_time(event.time_ns // 1000 * 1000)
        assert cloudevents.attributes(again) == expected
        if event.content_type == "application/json":
            assert json.loads(again.data) == json.loads(event.data)
        else:
            assert again.data == event.data


@settings(deadline=None)
@given(names, names)
def test_a_source_is_read_as_what_was_written(machine: str, process: str) -> None:
    source = cloudevents.write_source(machine, process)
    assert cloudevents.write_source(*cloudevents.read_source(source)) == source
    if machine:
        assert cloudevents.read_source(source) == (machine, process)


@settings(deadline=None)
@given(st.text(printable, min_size=1, max_size=60))
def test_a_foreign_source_comes_out_again_as_it_was(source: str) -> None:
    assert cloudevents.write_source(*cloudevents.read_source(source)) == source


@settings(deadline=None)
@given(times)
def test_a_time_keeps_its_nanoseconds(time_ns: int) -> None:
    assert cloudevents.read_time(cloudevents.write_time(time_ns)) == time_ns


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31t12:00:00z", "2026-01-31T12:00:00.000000000Z"),
        ("2026-01-31T12:00:00.5+02:00", "2026-01-31T10:00:00.500000000Z"),
        ("2026-01-31T23:59:59.123456789999-01:30", "2026-02-01T01:29:59.123456789Z"),
        ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00.000000000Z"),
    ],
)
def test_a_time_is_read_as_rfc_3339_says(text: str, expected: str) -> None:
    assert cloudevents.write_time(cloudevents.read_time(text)) == expected


def test_an_event_that_is_handed_out_says_for_what_and_how_often() -> None:
    batch = seal(TOPIC, [b"1"], [0], producer=1, first=1, machine="m", process="p")
    event = Event(HandOut(batch, 5, "Größe prüfen", 2, None, {5: 2}), 0)
    headers = cloudevents.to_headers(event)
    assert (headers["ce-purpose"], headers["ce-attempt"]) == ("Gr%C3%B6%C3%9Fe%20pr%C3%BCfen", "3")
    body = cloudevents.to_cloudevent(event)
    assert (body["purpose"], body["attempt"]) == ("Größe prüfen", 3)


def test_a_payload_that_is_not_the_json_it_says_spoils_no_document() -> None:
    batch = seal(TOPIC, [b'{"a":'], [0], producer=1, first=1, machine="m", process="p")
    body = json.loads(cloudevents.encode(cloudevents.to_cloudevent(Event(HandOut(batch), 0))))
    assert (body["datacontenttype"], base64.b64decode(body["data_base64"])) == ("application/json", b'{"a":')


# Through a server ----------------------------------------------------------------------------------------


def written(**more: Any) -> list[CloudEvent]:
    """Return CloudEvents as the SDK, which knows nothing of Solar Wind, writes them."""
    common = {"type": TOPIC, "source": "https://shop.example/cart?ä=1", "time": datetime(2026, 1, 31, 12, tzinfo=UTC)}
    return [
        CloudEvent({**common, "id": "1", "partitionkey": 'käse "blau" 100%', **more}, {"größe": [1, None, "\n"]}),
        CloudEvent({**common, "id": "2", "datacontenttype": "text/plain", **more}, "grüße"),
        CloudEvent({**common, "id": "3", "datacontenttype": "image/png", **more}, b"\x00\xff"),
        CloudEvent({**common, "id": "4", "correlationid": "chain", "causationid": "0", **more}, None),
        CloudEvent({**common, "id": "5", "datacontenttype": "application/vnd.a+json", **more}, {"a": 1}),
    ]


def as_known(event: Any) -> tuple[Any, ...]:
    data = event.get_data()
    return (
        *(event.get_id(), event.get_source(), event.get_type(), event.get_time()),
        *(event.get_extension(name) for name in ("partitionkey", "correlationid", "causationid")),
        data.encode() if isinstance(data, str) else data,
    )


@on_loop
@pytest.mark.parametrize("mode", ["binary", "structured", "batched"])
async def test_what_the_sdk_sends_it_gets_back_as_it_was(host: Host, mode: str) -> None:
    port = host.start("memory://")
    url = f"http://127.0.0.1:{port}/v1/topics/{TOPIC}"
    sent = written(traceparent="00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", subject="s", more="x")
    async with httpx.AsyncClient(timeout=60) as http:
        assert (await http.post(f"{url}/purposes/look/take", json={})).json() == {"events": []}
        write = sdk.to_binary_event if mode == "binary" else sdk.to_structured_event
        messages = [write(each) for each in sent]
        if mode == "batched":
            body = b"[" + b",".join(message.body for message in messages) + b"]"
            messages = [sdk.HTTPMessage({"content-type": BATCHED}, body)]
        for message in messages:
            answer = await http.post(f"{url}/events", headers=message.headers, content=message.body)
            assert answer.status_code == 202, answer.text
        taken = (await http.post(f"{url}/purposes/look/take", json={"max": 10, "wait": 20})).json()["events"]
    await asyncio.to_thread(host.stop, port)
    found = [sdk.from_structured_event(sdk.HTTPMessage({}, json.dumps(each).encode())) for each in taken]
    expected = [as_known(each) for each in sent]
    for number, each in enumerate(expected):
        id, *others, _, causation, data = each
        root = "chain" if causation else id  # that of one that nothing caused is its own
        expected[number] = (id, *others, root, causation, data)
    assert [as_known(each) for each in found] == expected
    assert [each.get_datacontenttype() for each in found] == [
        *("application/json", "text/plain", "image/png", "application/json", "application/vnd.a+json"),
    ]
    for each, before in zip(found, sent, strict=True):
        assert {each.get_extension("traceparent"), each.get_subject(), each.get_extension("more")} == {
            before.get_extension("traceparent"),
            "s",
            "x",
        }


# What is read with care ----------------------------------------------------------------------------------

GOOD = {"specversion": "1.0", "id": "1", "source": "//m/p", "type": TOPIC}
HEADERS = {f"ce-{name}": value for name, value in GOOD.items()}


def structured(**more: Any) -> Event:
    return read_structured(json.dumps({**GOOD, **more}).encode())


def test_a_null_attribute_of_a_cloudevent_is_missing() -> None:
    event = structured(time=None, partitionkey=None, datacontenttype=None, data_base64=None, data={"a": 1})
    assert (event.key, event.data, event.content_type) == (None, b'{"a": 1}', "application/json")


def test_a_cloudevent_without_data_is_null_or_empty_by_its_type() -> None:
    for event in (structured(), structured(data=None), read_binary(HEADERS, b"")):
        assert (event.data, event.payload, event.content_type) == (b"null", None, "application/json")
    for event in (
        structured(datacontenttype="text/plain"),
        read_binary({**HEADERS, "content-type": "text/plain"}, b""),
    ):
        assert (event.data, event.content_type) == (b"", "text/plain")


def test_numbers_and_truth_may_stand_for_text() -> None:
    event = structured(causationid=17, causationversion=2, partitionkey=True)
    assert (event.cause.id, event.cause.version, event.key) == ("17", 2, "true")


def test_data_is_json_text_or_bytes_by_its_type() -> None:
    assert structured(data="text").data == b'"text"'
    assert structured(data="grüße", datacontenttype="text/plain").data == "grüße".encode()
    assert structured(data_base64="AP8=").content_type == "application/octet-stream"
    for kind in ("text/json; charset=utf-8", "application/json; charset=utf-8"):
        event = structured(data_base64="eyJhIjogMX0=", datacontenttype=kind)
        assert (event.payload, event.content_type) == ({"a": 1}, kind)


@pytest.mark.parametrize(
    "kind", ["application/json; hidden=true", "Application/JSON;HIDDEN=true", "a/b+json;hidden=true"]
)
def test_no_producer_says_that_a_payload_is_hidden(kind: str) -> None:
    """As a server says it of a null in the place of one that the reader may not see."""
    assert structured(data=None, datacontenttype=kind).content_type == "application/json"


def test_a_kind_of_json_keeps_its_type_and_is_json_everywhere() -> None:
    kind = "application/geo+json; v=1"
    for event in (
        structured(data={"a": 1}, datacontenttype=kind),
        structured(data_base64="eyJhIjogMX0=", datacontenttype=kind),
        read_binary({**HEADERS, "content-type": kind}, b'{"a":1}'),
    ):
        assert (event.payload, event.decode(dict[str, int]), event.content_type) == ({"a": 1}, {"a": 1}, kind)
        assert field("$.a")(event.data, kind) == field("$.a")(b'{"a":1}', "application/json") is not None
        written = cloudevents.to_cloudevent(event)
        assert (bytes(written["data"]).replace(b" ", b""), written["datacontenttype"]) == (b'{"a":1}', kind)
        assert cloudevents.to_headers(event)["content-type"] == kind
    with pytest.raises(BadPayload, match="expected JSON as data"):
        read_binary({**HEADERS, "content-type": kind}, b"{")


@pytest.mark.parametrize("name", ["data", "data_base64", "datacontenttype"])
def test_what_binary_mode_has_elsewhere_is_refused_as_a_header(name: str) -> None:
    with pytest.raises(BadArgument, match=f"got header ce-{name}: leave it out"):
        read_binary({**HEADERS, f"ce-{name}": "application/json"}, b"1")


def test_a_header_in_quotes_is_what_is_between_them() -> None:
    headers = {**HEADERS, "ce-partitionkey": '"a \\"b\\" %C3%BC"'}
    assert read_binary(headers, b"1").key == 'a "b" ü'


BAD: list[tuple[type[SolarWindError], str, dict[str, Any]]] = [
    (BadArgument, "expected specversion '1.0', got none", {"specversion": None}),
    (BadArgument, "expected specversion '1.0', got '0.3'", {"specversion": "0.3"}),
    (BadArgument, "with id, got none", {"id": None}),
    (BadArgument, "with id, got none", {"id": ""}),
    (BadArgument, "with source, got none", {"source": None}),
    (BadArgument, "with type, got none", {"type": ""}),
    (BadArgument, "expected events of type 'orders.placed', the topic, got 'orders'", {"type": "orders"}),
    (BadArgument, "expected a source of at most", {"source": "a\nb"}),
    (BadArgument, "expected a source of at most", {"source": "a" * 1_001}),
    (BadName, "expected an event id", {"id": " 1"}),
    (BadName, "expected an event id", {"id": "1" * 201}),
    (BadName, "expected an event id", {"correlationid": "a\nb"}),
    (BadName, "expected an event id", {"causationid": ""}),
    (BadArgument, "expected causename with causekind, got none", {"causekind": "user"}),
    (BadArgument, "expected causekind with causename, got none", {"causename": "alice"}),
    (BadArgument, "expected causationid with causationpurpose, got none", {"causationpurpose": "p"}),
    (BadArgument, "expected causationid with causationversion, got none", {"causationversion": "1"}),
    (BadArgument, "expected causekind with causename", {"causename": "alice", "causationid": "1"}),
    (BadArgument, "expected one cause, .* got both", {"causename": "a", "causekind": "user", "causationid": "1"}),
    (BadName, "expected a purpose", {"causationid": "1", "causationpurpose": "p" * 201}),
    (BadName, "expected a key", {"partitionkey": "k" * 257}),
    (BadArgument, "expected a causationversion", {"causationid": "1", "causationversion": "0"}),
    (BadArgument, "expected a causekind, one of user", {"causekind": "weather", "causename": "rain"}),
    (BadArgument, "expected a time", {"time": "yesterday"}),
    (BadArgument, "expected a time", {"time": "2026-01-31T12:00:00"}),
    (BadArgument, "expected a time", {"time": "2026-02-30T12:00:00Z"}),
    (BadArgument, "expected a time", {"time": "1969-12-31T23:59:59Z"}),
    (BadArgument, "expected a time", {"time": "2263-01-01T00:00:00Z"}),
    (BadArgument, "expected a time", {"time": "٢٠٢٦-01-31T12:00:00Z"}),
    (BadArgument, "names of a-z and 0-9, such as .*, got one named 'my_own'", {"my_own": "x"}),
    (BadArgument, "extension more as text without control characters", {"more": "a\x07"}),
    (BadArgument, "extensions of at most 8,192 bytes together, got 8,196", {"more": "x" * 8_192}),
    (BadArgument, "at most 64 texts by names .*, got 65", {f"a{number}": "x" for number in range(65)}),
]


@pytest.mark.parametrize(("error", "words", "given"), BAD)
def test_attributes_that_are_none_are_refused_in_every_mode(
    error: type[SolarWindError], words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        structured(**given)
    headers = {f"ce-{name}": quote(value) for name, value in {**GOOD, **given}.items() if value is not None}
    with pytest.raises(error, match=words):
        read_binary(headers, b"")


@pytest.mark.parametrize(
    ("error", "words", "given"),
    [
        (BadPayload, "expected data or data_base64, got both", {"data": 1, "data_base64": "AA=="}),
        (BadPayload, "expected data_base64 in base64", {"data_base64": "A"}),
        (BadPayload, "expected data_base64 in base64", {"data_base64": 1}),
        (BadPayload, "expected text as data of type 'text/plain'", {"data": {}, "datacontenttype": "text/plain"}),
        (BadPayload, "expected JSON as data", {"data_base64": "AA==", "datacontenttype": "application/json"}),
        (BadArgument, "expected a datacontenttype", {"data_base64": "AA==", "datacontenttype": "png"}),
        (BadArgument, "expected a datacontenttype", {"data_base64": "AA==", "datacontenttype": "a/b\r\nx: y"}),
        (BadArgument, "attribute time as text, .* types that CloudEvents has .*, got '1.5': send", {"time": 1.5}),
        (BadArgument, "expected attribute rate as text, .*, got '12345678901': send", {"rate": 12345678901}),
        (BadArgument, "expected attribute tags as text, .*, got an array or object: send", {"tags": {"a": 1}}),
        (BadArgument, "expected attribute id as text", {"id": ["1"]}),
    ],
)
def test_documents_that_contradict_themselves_are_refused(
    error: type[SolarWindError], words: str, given: dict[str, Any]
) -> None:
    with pytest.raises(error, match=words):
        structured(**given)


@pytest.mark.parametrize("body", [b"", b"1", b"[]", b'"text"', b"{", b"\xff", b"[" * 5_000, b'{"id": "\xff"}'])
def test_what_is_no_document_is_refused(body: bytes) -> None:
    with pytest.raises(SolarWindError) as refusal:
        read_structured(body)
    assert isinstance(refusal.value, BadPayload | BadArgument)


def test_a_hundred_thousand_attributes_are_refused_before_any_is_looked_at() -> None:
    """Each would take fifty times its bytes in memory; the data of one may be that long."""
    with pytest.raises(TooLarge, match="at most 65,536 bytes besides its data, got"):
        structured(**{f"a{number}": "" for number in range(100_000)})
    assert structured(data="x" * 100_000, subject="s").extensions == {"subject": "s"}


def test_attributes_of_a_hand_out_are_ignored_in_an_incoming_cloudevent() -> None:
    assert structured(purpose="p", attempt=2, token="t", subject="s").extensions == {"subject": "s"}


def test_headers_that_cannot_be_read_are_refused() -> None:
    with pytest.raises(BadArgument, match="expected header ce-id in percent-encoded UTF-8"):
        read_binary({**HEADERS, "ce-id": "%ff"}, b"")
    with pytest.raises(BadPayload, match="expected JSON as data"):
        read_binary({**HEADERS, "content-type": "application/json"}, b"{")
    twice = httpx.Headers([*HEADERS.items(), ("ce-id", "2")]).multi_items()

    class Both(dict[str, str]):
        def items(self) -> Any:
            return twice

    with pytest.raises(BadArgument, match="expected header ce-id once"):
        read_binary(Both(HEADERS), b"")


def test_data_is_nested_no_deeper_than_allowed() -> None:
    deep = "[" * 65 + "]" * 65
    with pytest.raises(TooLarge, match="nested at most 64 deep"):
        read_binary({**HEADERS, "content-type": "application/json"}, deep.encode())
    with pytest.raises(TooLarge, match="nested at most 64 deep"):
        structured(data=json.loads(deep))
