"""A batch: what is sealed is what is read, ids are unique and in order, and bytes that are no batch do no harm."""

from __future__ import annotations

import sys
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind import Limits
from solarwind.batch import (
    AUTHOR_BYTES,
    MAX_HEADER_BYTES,
    MAX_NUMBERS,
    MAX_ORIGIN,
    MAX_PRODUCERS,
    SLOT_NS,
    Batch,
    author_of,
    join,
    make_id,
    read_id,
    seal,
    slot_of,
)
from solarwind.columns import COLUMNS, MAX_TIME
from solarwind.errors import BadArgument, BadName, ProtocolError, SolarWindError, TooLarge
from solarwind.event import MAX_CAUSE, Cause

CAUSES = [None, Cause.user("u"), Cause("event", "e", "p", 2, "r"), Cause.schedule("s")]
events = st.lists(
    st.tuples(
        st.binary(max_size=20),
        st.integers(0, 10**9),
        st.one_of(st.none(), st.text(max_size=5)),
        st.one_of(st.none(), st.text("abc", min_size=1, max_size=5)),
        st.sampled_from(CAUSES),
        st.sampled_from(["application/json", "application/octet-stream"]),
        st.one_of(st.none(), st.integers(0, MAX_TIME)),
        st.one_of(st.none(), st.dictionaries(st.text("az09", min_size=1, max_size=3), st.text(max_size=5), max_size=3)),
    ),
    min_size=1,
    max_size=20,
)
producers = st.integers(0, MAX_PRODUCERS - 1)
numbers = st.integers(0, MAX_NUMBERS - 100)
times = st.integers(0, MAX_TIME)
authors = st.sampled_from([b"", b"a" * AUTHOR_BYTES])


@st.composite
def batches(draw: st.DrawFn) -> Batch:
    rows = draw(events)
    one_content = draw(st.booleans())
    start = draw(st.integers(0, MAX_TIME - 10**9))
    return seal(
        "T",
        [row[0] for row in rows],
        [start + row[1] for row in rows],
        producer=draw(producers),
        author=draw(authors),
        first=draw(numbers),
        machine="m",
        process="p",
        content=rows[0][5] if one_content else [row[5] for row in rows],
        keys=[row[2] for row in rows],
        ids=[row[3] for row in rows],
        causes=[row[4] for row in rows],
        due=[row[6] for row in rows],
        expires=[row[6] and row[6] // 2 for row in rows],
        extensions=[row[7] for row in rows],
    )


def event(batch: Batch, index: int) -> tuple[object, ...]:
    return (
        batch.id(index),
        batch.payload(index),
        batch.time(index),
        batch.key(index),
        batch.cause(index),
        batch.content(index),
        batch.due(index),
        batch.expires(index),
        batch.extensions(index),
    )


@given(events, producers, numbers)
def test_what_is_sealed_is_read(rows: list[tuple[Any, ...]], producer: int, first: int) -> None:
    batch = seal(
        "a.b",
        [row[0] for row in rows],
        [row[1] for row in rows],
        producer=producer,
        first=first,
        machine="m",
        process="p",
        content=[row[5] for row in rows],
        keys=[row[2] for row in rows],
        ids=[row[3] for row in rows],
        causes=[row[4] for row in rows],
        due=[row[6] for row in rows],
        expires=[row[6] and row[6] // 2 for row in rows],
        extensions=[row[7] for row in rows],
    )
    read = Batch.read(batch.data)
    assert read.data == batch.data
    assert len(read) == len(rows)
    assert (read.header.topic, read.header.machine, read.header.process) == ("a.b", "m", "p")
    for index, (payload, time, key, id, cause, content, due, extensions) in enumerate(rows):
        made = make_id(time, producer, first + index)
        half = None if due is None else due // 2
        caused = cause or Cause("application", "p")
        expected = (id or made, payload, time, key, caused, content, due, half, extensions or {})
        assert event(read, index) == expected
        assert read.given_id(index) == id
    assert read.payload_bytes(0, len(rows)) == sum(len(row[0]) for row in rows)


@given(batches(), st.data())
def test_what_is_taken_out_keeps_its_ids_and_everything_else(batch: Batch, data: st.DataObject) -> None:
    indices = data.draw(st.lists(st.integers(0, len(batch) - 1), min_size=1, unique=True).map(sorted))
    part = Batch.read(batch.select(indices).data)
    assert [event(part, at) for at in range(len(part))] == [event(batch, index) for index in indices]


@given(st.lists(batches(), min_size=1, max_size=4))
def test_what_is_joined_keeps_everything_of_each_event_but_the_ids_that_are_made(several: list[Batch]) -> None:
    joined = Batch.read(join(several).data)
    assert [event(joined, at)[1:] for at in range(len(joined))] == [
        event(batch, index)[1:] for batch in several for index in range(len(batch))
    ]
    assert [joined.given_id(at) for at in range(len(joined))] == [
        batch.given_id(index) for batch in several for index in range(len(batch))
    ]


def test_a_part_that_is_cut_out_does_not_keep_the_whole_in_memory() -> None:
    said: list[Any] = [{"a": "b"}, None]
    sealed = seal("T", [b"1", b"2"], [1, 1], producer=1, first=1, machine="m", process="p", extensions=said)
    whole = Batch.read(bytes(bytearray(sealed.data)))
    assert whole.extensions(0) == {"a": "b"}
    before = sys.getrefcount(whole.data)
    part = whole.part(0, 1)
    after = sys.getrefcount(whole.data)
    assert part.extensions(0) == {"a": "b"}
    assert after == before


def test_a_column_of_no_event_is_nil() -> None:
    empty: Any = {column.field: [None] for column in COLUMNS[1:]}
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p", **empty)
    assert batch.data == seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p").data


@pytest.mark.parametrize(
    ("extensions", "words"),
    [
        ({f"a{number}": "" for number in range(65)}, "64"),
        ({"a": "x" * 8_192}, "8,192 bytes"),
        ({"Name": "x"}, "'Name'"),
        ({"a-b": "x"}, "'a-b'"),
        ({"id": "x"}, "'id'"),
        ({"a": "x\n"}, "control"),
        ({"a": 5}, "extensions"),
        (5, "extensions"),
    ],
    ids=str,
)
def test_extensions_of_somebody_else_are_looked_at(extensions: Any, words: str) -> None:
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p", extensions=[extensions])
    with pytest.raises((BadArgument, ProtocolError)) as caught:
        Batch.read(batch.data, Limits())
    assert words in str(caught.value)


@given(times, producers, st.integers(0, MAX_NUMBERS - 1))
def test_an_id_says_where_its_event_is(time: int, producer: int, sequence: int) -> None:
    id = make_id(time, producer, sequence)
    assert len(id) == 36
    assert read_id(id) == (slot_of(time), producer, sequence)
    found = read_id(id)
    assert found is not None
    assert 0 <= time - found.time_ns < 1_000_000
    assert read_id(id.upper()) is None or id.upper() == id


@given(st.one_of(st.text(max_size=40), st.text("0123456789abcdef-", min_size=36, max_size=36)))
def test_an_id_that_somebody_else_made_is_not_mistaken(text: str) -> None:
    found = read_id(text)
    if found is not None:
        time_ns = next(ns for ns in range(found.time_ns, found.time_ns + 10**6) if slot_of(ns) == found.slot)
        assert make_id(time_ns, found.producer, found.sequence) == text


def in_order(parts: tuple[int, int, int]) -> tuple[int, int, int]:
    time, producer, sequence = parts
    return slot_of(time), producer, sequence


@given(st.sets(st.tuples(times, producers, st.integers(0, MAX_NUMBERS - 1))))
def test_ids_are_unique_and_sort_by_time_then_producer_then_number(parts: set[tuple[int, int, int]]) -> None:
    ids = {make_id(*each): in_order(each) for each in parts}
    assert len(ids) == len(set(map(in_order, parts)))
    assert [ids[id] for id in sorted(ids)] == sorted(set(map(in_order, parts)))


def read_or_refuse(data: bytes) -> None:
    try:
        batch = Batch.read(data)
    except ProtocolError:
        return
    for index in range(len(batch)):
        event(batch, index)


@given(st.binary(max_size=200))
def test_bytes_that_are_no_batch_are_refused(data: bytes) -> None:
    read_or_refuse(data)
    read_or_refuse(len(data).to_bytes(4, "little") + data)


@given(batches(), st.data())
def test_damaged_bytes_are_refused_or_at_least_whole(batch: Batch, data: st.DataObject) -> None:
    damaged = bytearray(batch.data)
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    read_or_refuse(bytes(damaged))


@given(batches(), st.data())
def test_a_batch_cut_short_or_with_more_behind_it_is_refused(batch: Batch, data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(batch.data) - 1))
    for wrong in (batch.data[:cut], batch.data + b"x"):
        with pytest.raises(ProtocolError):
            Batch.read(wrong)


@pytest.mark.parametrize("opening", [b"\x91", b"\x81\xa1a", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff"])
def test_a_header_nested_without_end_or_of_a_huge_length_is_refused(opening: bytes) -> None:
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p")
    head = bytearray(batch.data[4:-1])
    assert head[:3] == b"\xdc\x00\x13"
    longer = b"\xdc\x00\x14" + bytes(head[3:]) + opening * 100_000  # one field more than there are
    data = len(longer).to_bytes(4, "little") + longer + b"1"
    with pytest.raises(ProtocolError):
        Batch.read(data)


def test_a_later_version_may_append_fields_to_the_header() -> None:
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p")
    longer = b"\xdc\x00\x14" + batch.data[7:-1] + b"\x01"
    read = Batch.read(len(longer).to_bytes(4, "little") + longer + b"1")
    assert event(read, 0) == event(batch, 0)


@given(times)
def test_a_slot_later_is_another_slot(time: int) -> None:
    assert slot_of(time + SLOT_NS) > slot_of(time)


def test_an_author_is_of_twelve_bytes_or_none_and_says_nothing_of_the_secret() -> None:
    assert len(author_of(b"secret")) == AUTHOR_BYTES
    assert author_of(b"secret") != author_of(b"Secret")
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p", author=b"x" * 13)
    with pytest.raises(ProtocolError, match="an author of 13 bytes"):
        Batch.read(batch.data)


LONG = Cause("event", "e", None, None, "r" * (MAX_CAUSE + 1))


@pytest.mark.parametrize(
    ("columns", "error"),
    [
        ({"machine": "m" * (MAX_ORIGIN + 1)}, TooLarge),
        ({"process": "p" * (MAX_ORIGIN + 1)}, TooLarge),
        ({"causes": [Cause.user("u" * (MAX_CAUSE + 1)), None]}, BadArgument),
        ({"causes": [None, LONG]}, BadArgument),
        ({"keys": ["k" * 257, None]}, BadName),
        ({"ids": [None, "i" * 201]}, BadName),
        ({"content": "a/" + "b" * 200}, BadName),
        ({}, None),
    ],
    ids=str,
)
def test_a_batch_of_somebody_else_says_no_more_than_it_may(
    columns: dict[str, Any], error: type[SolarWindError] | None
) -> None:
    of = {"producer": 1, "first": 1, "machine": "m", "process": "p"} | columns
    batch = Batch.read(seal("T", [b"1", b"2"], [1, 2], **of).data)
    if error is None:
        batch.check(Limits())
    else:
        with pytest.raises(error, match=r"^expected"):
            batch.check(Limits())


def test_a_batch_of_somebody_else_has_no_more_causes_than_events_and_a_header_of_a_bounded_size() -> None:
    batch = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p", causes=[Cause.user("a")])
    many = msgspec.structs.replace(batch.header, causes=[Cause.user(str(number)) for number in range(100)])
    head = msgspec.msgpack.encode(many)
    with pytest.raises(TooLarge, match="one cause an event, got 100 for 1"):
        Batch.read(len(head).to_bytes(4, "little") + head + b"1").check(Limits())
    ids: list[str | None] = [f"{number:x>200}" for number in range(25_000)]
    wide = seal("T", [b"1"] * 25_000, [1] * 25_000, producer=1, first=1, machine="m", process="p", ids=ids)
    with pytest.raises(TooLarge, match=f"at most {MAX_HEADER_BYTES:,} bytes"):
        wide.check(Limits(batch_events=100_000))


@given(batches(), st.data())
def test_what_events_have_of_a_batch_adds_up(batch: Batch, data: st.DataObject) -> None:
    """Whoever adds and takes away part by part comes back to 0, and all together is no less than the payloads."""
    cut = data.draw(st.integers(0, len(batch)))
    whole = batch.bytes_of(0, len(batch))
    assert whole == batch.bytes_of(0, cut) + batch.bytes_of(cut, len(batch))
    assert batch.payload_bytes(0, len(batch)) <= whole <= len(batch.data)
