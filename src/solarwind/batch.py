"""A batch: many events of one topic as one immutable byte string.

    4 bytes   the header's length, little-endian
    header    one msgpack array, the fields of `Header` in order
    body      the payloads, joined

The bytes that a producer seals are stored, sent and handed out unchanged; only a handler extracts single events.
Columns that no event uses are nil, so an event costs its payload and a few bytes. A reader ignores
fields that a later version appends to the header.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from itertools import accumulate
from typing import Any, NamedTuple

import msgspec

from .columns import COLUMN, COLUMNS, MAX_TIME, Extensions, Header, columns_of, read_extensions
from .errors import BadName, ProtocolError, TooLarge
from .event import Cause
from .limits import Limits
from .names import check_topic
from .payload import HIDDEN_JSON, JSON

FORMAT = 3
_SEQUENCE_BITS = 30
_PRODUCER_BITS = 32
MAX_PRODUCERS = 1 << _PRODUCER_BITS
MAX_NUMBERS = 1 << _SEQUENCE_BITS  # events of one producer
AUTHOR_BYTES = 12
MAX_ORIGIN = 1_000  # characters of a machine, and of a process
MAX_HEADER_BYTES = 4 << 20
_LONG_HEADER_BYTES = 64 << 10  # a longer one is checked before it is decoded
EVENT_BYTES = 128  # about what the decoded numbers of an event take in memory
SLOTS_A_MS = 4_096  # the resolution of the time in an id
SLOT_NS = 245  # at least the length of one of them


# A header of which only the number of events is decoded.
_Outline: type[Any] = msgspec.defstruct(
    "_Outline",
    [
        (field.name, kind) if field.required else (field.name, kind, msgspec.Raw(b"\xc0"))
        for field in msgspec.structs.fields(Header)
        for kind in (int if field.name == "count" else msgspec.Raw,)
    ],
    array_like=True,
)

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Header).decode
_decode_outline = msgspec.msgpack.Decoder(_Outline).decode


class AutoId(NamedTuple):
    """The parts of an id that Solar Wind made, from which the event can be found. `slot` is its time, in 4,096ths of a
    ms since 1970."""

    slot: int
    producer: int
    sequence: int

    @property
    def time_ns(self) -> int:
        """The beginning of the millisecond, in ns since 1970."""
        return self.slot // SLOTS_A_MS * 1_000_000


def author_of(secret: bytes) -> bytes:
    """Return the public name of a process that numbers events: a hash of a secret that only that process knows."""
    return sha256(secret).digest()[:AUTHOR_BYTES]


def slot_of(time_ns: int) -> int:
    """Return the time as an id holds it, in 4,096ths of a ms since 1970."""
    ms, ns = divmod(time_ns, 1_000_000)
    return ms * SLOTS_A_MS + ns * SLOTS_A_MS // 1_000_000


def make_id(time_ns: int, producer: int, sequence: int) -> str:
    """Return a UUIDv7: 48 bits of ms, 12 of its 4,096ths, 32 bits of producer and 30 of the number."""
    return _write_id(slot_of(time_ns), producer, sequence)


def _write_id(slot: int, producer: int, sequence: int) -> str:
    number = (
        (slot // SLOTS_A_MS & 0xFFFFFFFFFFFF) << 80
        | 0x7 << 76
        | slot % SLOTS_A_MS << 64
        | 0b10 << 62
        | producer << _SEQUENCE_BITS
        | sequence
    )
    text = f"{number:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def read_id(id: str) -> AutoId | None:
    """Return the parts of an id that `make_id` may have made, else None."""
    if len(id) != 36 or id != id.lower():
        return None
    try:
        number = int(id.replace("-", ""), 16)
    except ValueError:
        return None
    if (number >> 76) & 0xF != 0x7 or (number >> 62) & 0b11 != 0b10:
        return None
    found = AutoId(
        (number >> 80) * SLOTS_A_MS + ((number >> 64) & 0xFFF),
        (number >> _SEQUENCE_BITS) & (MAX_PRODUCERS - 1),
        number & (MAX_NUMBERS - 1),
    )
    return found if _write_id(*found) == id else None


class Batch:
    """A sealed batch. Events are counted from 0; an index outside raises `IndexError`."""

    __slots__ = ("_body", "_header", "_offsets", "count", "data", "topic")

    def __init__(self, header: Header, data: bytes, body: int) -> None:
        """`body` is where the first payload begins."""
        self._header: Header | None = header
        self.topic = header.topic
        self.count = header.count
        self.data = data
        self._body = body
        self._offsets: list[int] | None = None  # computed on first use: passing a batch on does not need it

    @property
    def header(self) -> Header:
        """The decoded header; decoded again after `fold`."""
        if self._header is None:
            self._header = _decode(memoryview(self.data)[4 : self._body])
        return self._header

    def fold(self) -> None:
        """Drop what was decoded, so that a batch that is only kept and passed on needs no more memory than its
        bytes."""
        self._header = self._offsets = None

    @property
    def _starts(self) -> list[int]:
        if self._offsets is None:
            self._offsets = list(accumulate(self.header.sizes, initial=self._body))
        return self._offsets

    @classmethod
    def read(cls, data: bytes, limits: Limits | None = None) -> Batch:
        """Return the batch that `data` holds. Raise `ProtocolError` unless it is whole and consistent. Pass `limits`
        for data that another process sent: then it also raises what `check` raises, before it builds anything that they
        do not allow."""
        body, size = 4 + int.from_bytes(data[:4], "little"), len(data)
        if size < 4 or body > size:
            raise ProtocolError(f"expected a batch, got {size} bytes that end within its header")
        try:
            if limits is not None and body > _LONG_HEADER_BYTES:
                _check_outline(memoryview(data)[4:body], limits)
            header = _decode(memoryview(data)[4:body])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ProtocolError(f"expected a batch, got an invalid header: {error}") from None
        if header.format != FORMAT:
            raise ProtocolError(f"expected a batch of format {FORMAT}, got format {header.format}: upgrade Solar Wind")
        try:
            check_topic(header.topic)
        except BadName as error:
            raise ProtocolError(f"expected a batch of a topic: {error}") from None
        fault = _fault(header, size - body)
        if fault:
            raise ProtocolError(f"expected a batch of {header.count} events, got {fault}")
        found = cls(header, data, body)
        if limits is not None:
            found.check(limits)
        return found

    def __len__(self) -> int:
        return self.count

    @property
    def layout(self) -> tuple[bytes, list[int]]:
        """All bytes, and the offset of each payload in them, with one offset more for the end of the last."""
        return self.data, self._starts

    @property
    def weight(self) -> int:
        """About how much memory it takes, in bytes; less after `fold`."""
        return len(self.data) + EVENT_BYTES * (self.count if self._header is not None else 1)

    def payload(self, index: int) -> bytes:
        starts = self._starts
        return self.data[starts[index] : starts[index + 1]]

    def payload_bytes(self, start: int, stop: int) -> int:
        """Return the bytes of payload of the events from `start` up to `stop`."""
        if stop - start == self.count:
            return len(self.data) - self._body
        starts = self._starts
        return starts[stop] - starts[start]

    def bytes_of(self, start: int, stop: int) -> int:
        """Return the bytes of the events from `start` up to `stop`, their part of the header included."""
        return self.payload_bytes(start, stop) + self._body // self.count * (stop - start)

    def time(self, index: int) -> int:
        return self.header.time + self.header.times[index]

    def content(self, index: int) -> str:
        content = self.header.content
        return content if isinstance(content, str) else content[index]

    def key(self, index: int) -> str | None:
        keys = self.header.keys
        return keys[index] if keys is not None else None

    def given_id(self, index: int) -> str | None:
        """Return the id that the producer gave, or None where Solar Wind makes it."""
        ids = self.header.ids
        return ids[index] if ids is not None else None

    def id(self, index: int) -> str:
        given = self.given_id(index)
        return given or make_id(self.time(index), self.header.producer, self.header.first + index)

    def cause(self, index: int) -> Cause:
        header = self.header
        if header.causes is not None and header.caused_by is not None and header.caused_by[index] >= 0:
            return header.causes[header.caused_by[index]]
        return Cause("application", header.process)

    def due(self, index: int) -> int | None:
        """Return when the event is due, in ns since 1970; None for at once."""
        due = self.header.due
        return due[index] if due is not None else None

    def expires(self, index: int) -> int | None:
        """Return when the event expires, in ns since 1970; None for never."""
        expires = self.header.expires
        return expires[index] if expires is not None else None

    def extensions(self, index: int) -> Extensions:
        """Return the event's extensions by name, as a new dict."""
        extensions = self.header.extensions
        if extensions is None or bytes(extensions[index]) == b"\xc0":
            return {}
        return read_extensions(extensions[index])

    def check(self, limits: Limits) -> None:
        """Check a batch that another process sent. Raise `TooLarge` above a limit, `BadName` for an invalid key, id or
        content type, and `BadArgument` for an invalid cause."""
        header = self.header
        size = len(self.data) - self._body
        if size > limits.payload_bytes and (largest := max(header.sizes)) > limits.payload_bytes:
            raise TooLarge(f"expected payloads of at most {limits.payload_bytes:,} bytes, got {largest:,}")
        _check_size(header.count, size, self._body, limits)
        if len(header.machine) > MAX_ORIGIN or len(header.process) > MAX_ORIGIN:
            raise TooLarge(
                f"expected a machine and a process of at most {MAX_ORIGIN:,} characters, got "
                f"{len(header.machine):,} and {len(header.process):,}"
            )
        for column in columns_of(header):
            column.check(header)

    def part(self, start: int, stop: int) -> Batch:
        """Return a batch of the events from `start` up to `stop`. They keep their ids."""
        header, starts = self.header, self._starts
        fields: dict[str, Any] = {}
        for column in columns_of(header):
            values = column.values(header)
            if values is not None:
                fields.update(column.pack(values[start:stop]))
        part = msgspec.structs.replace(
            header,
            first=header.first + start,
            count=stop - start,
            times=header.times[start:stop],
            sizes=header.sizes[start:stop],
            **fields,
        )
        head = _encode(part)
        body = self.data[starts[start] : starts[stop]]
        return Batch(part, b"".join((len(head).to_bytes(4, "little"), head, body)), 4 + len(head))

    def without_payload(self, index: int) -> Batch:
        """Return a batch of one event with its attributes, and the payload None, of a content type that says so."""
        none = b"null"
        header = msgspec.structs.replace(self.part(index, index + 1).header, sizes=[len(none)], content=HIDDEN_JSON)
        head = _encode(header)
        return Batch(header, b"".join((len(head).to_bytes(4, "little"), head, none)), 4 + len(head))

    def select(self, indices: Sequence[int]) -> Batch:
        """Return a batch of just these events, in this order. They keep their ids."""
        header = self.header
        if list(indices) == list(range(indices[0], indices[0] + len(indices))):
            return self.part(indices[0], indices[-1] + 1)
        columns: dict[str, Any] = {"content": header.content}
        for column in columns_of(header):
            values = column.values(header)
            if values is not None:
                columns[column.field] = [values[index] for index in indices]
        # Ids are made from consecutive numbers. These are not, so the ids are written out.
        columns["ids"] = [self.id(index) for index in indices]
        return seal(
            header.topic,
            [self.payload(index) for index in indices],
            [self.time(index) for index in indices],
            producer=header.producer,
            author=header.author,
            first=header.first + indices[0],
            machine=header.machine,
            process=header.process,
            **columns,
        )


def seal(
    topic: str,
    payloads: list[bytes],
    times: list[int],
    *,
    producer: int,
    first: int,
    machine: str,
    process: str,
    author: bytes = b"",
    content: str | Sequence[str] = JSON,
    **columns: Sequence[Any] | None,
) -> Batch:
    """Return one batch of events of one topic. All lists are as long as `payloads`, which holds at least one.

    `times` are ns since 1970. `columns` are those of `COLUMNS` by their fields, such as `keys`, with None for an event
    that has none. Names, payloads and attributes have been checked where they were fired.
    """
    time = times[0]
    header = Header(
        FORMAT,
        topic,
        producer,
        first,
        len(payloads),
        machine,
        process,
        author,
        time,
        [each - time for each in times],
        list(map(len, payloads)),
        content if isinstance(content, str) else JSON,
    )
    if columns or header.content is not content:
        header = _with_columns(header, {"content": content, **columns})
    head = _encode(header)
    return Batch(header, b"".join((len(head).to_bytes(4, "little"), head, *payloads)), 4 + len(head))


def _with_columns(header: Header, columns: Mapping[str, Any]) -> Header:
    fields: dict[str, Any] = {}
    for field, values in columns.items():
        if values is not None and not isinstance(values, str):
            fields.update(COLUMN[field].pack(values))
    return msgspec.structs.replace(header, **fields)


def join(batches: Sequence[Batch]) -> Batch:
    """Return one batch of the events of several, which have the same topic, author and producer and follow each
    other."""
    if len(batches) == 1:
        return batches[0]
    heads = [batch.header for batch in batches]
    first = heads[0]
    fields: dict[str, Any] = {}
    for column in COLUMNS:
        fields.update(column.join(heads))
    header = msgspec.structs.replace(
        first,
        count=sum(head.count for head in heads),
        times=[time + head.time - first.time for head in heads for time in head.times],
        sizes=[size for head in heads for size in head.sizes],
        **fields,
    )
    packed = _encode(header)
    bodies = [memoryview(batch.data)[batch._body :] for batch in batches]
    return Batch(header, b"".join((len(packed).to_bytes(4, "little"), packed, *bodies)), 4 + len(packed))


def _check_size(count: int, size: int, header_bytes: int, limits: Limits) -> None:
    """Raise `TooLarge` where a batch has more events or bytes than `limits` allow."""
    if count > limits.batch_events or (size > limits.batch_bytes and count > 1):
        raise TooLarge(
            f"expected a batch of at most {limits.batch_events:,} events and {limits.batch_bytes:,} bytes, "
            f"got {count:,} and {size:,}"
        )
    if header_bytes > MAX_HEADER_BYTES:
        raise TooLarge(
            f"expected a batch whose keys, ids and causes take at most {MAX_HEADER_BYTES:,} bytes, got "
            f"{header_bytes:,}: send fewer events together"
        )


def _check_outline(header: memoryview, limits: Limits) -> None:
    """Check a long header before it is decoded. Raise `TooLarge`, `ProtocolError`, and what decoding raises."""
    _check_size(0, 0, len(header), limits)
    of = _decode_outline(header)
    _check_size(of.count, 0, len(header), limits)
    longest = max(_length(getattr(of, name)) for name in of.__struct_fields__ if name != "count")
    if longest > of.count:
        raise ProtocolError(f"expected a batch of {of.count:,} events, got a column of {longest:,}")


def _length(column: msgspec.Raw) -> int:
    """Return the length of a msgpack array, or 0 for anything else."""
    head = bytes(memoryview(column)[:5])
    if head[0] == 0xDD:
        return int.from_bytes(head[1:], "big")
    return int.from_bytes(head[1:3], "big") if head[0] == 0xDC else 0  # few


def _fault(header: Header, body: int) -> str | None:
    """Return what is inconsistent in a header that another process wrote, or None."""
    count, times, sizes = header.count, header.times, header.sizes
    if count < 1:
        return "none"
    if len(times) != count or len(sizes) != count:
        return "a column of another length"
    for column in columns_of(header):
        fault = column.fault(header)
        if fault is not None:
            return fault
    if (sizes[0] if count == 1 else sum(sizes)) != body:
        return f"{body} bytes of payload where the header says {sum(sizes)}"
    if not 0 <= header.producer < MAX_PRODUCERS or not 0 <= header.first <= MAX_NUMBERS - count:
        return f"a producer {header.producer} or number {header.first} out of range"
    if len(header.author) not in (0, AUTHOR_BYTES):
        return f"an author of {len(header.author)} bytes where it has {AUTHOR_BYTES}"
    if header.time > MAX_TIME or header.time + (times[0] if count == 1 else min(times)) < 0:
        return "a time out of range"
    return None
