"""`POST /v1/topics/{topic}/events`: fires events sent as JSON, as NDJSON of any length, as bytes, or as CloudEvents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise
from time import time_ns
from typing import Any, NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..batch import MAX_HEADER_BYTES, Batch, seal
from ..columns import Attributes, Extensions, check_extensions, gathered, words
from ..errors import BadArgument, BadPayload, SolarWindError, TooLarge
from ..limits import Limits
from ..names import check_id, check_key
from ..payload import BYTES, JSON, check_values, is_json
from ..peer.time_slices import PIECE_BYTES
from . import cloudevents
from .call import Call, answer, problem
from .cloudevents import Incoming
from .json_check import Shape, check_json, check_long_json
from .schemas import Delay, DueTime, EndTime, EventKey, Id
from .times import read_timing

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
TYPES = (JSON, NDJSON[0], BYTES, cloudevents.STRUCTURED, cloudevents.BATCHED)
_NUMBER = 20  # characters of a line number
_LINE_BYTES = 64  # the cost of reading a line, in further bytes
BLOCK_BYTES = 256 << 10  # of lines that are read together
_ATTRIBUTES_BYTES = 64 << 10
_HEADER_BYTES = 64  # of an event in its batch's header, besides its words, at most
_MAX_HEADERS_BYTES = MAX_HEADER_BYTES - (16 << 10)  # of all events, besides what is there once
_SPACE, _OPENS, _CLOSES = b" \t\r\n", ord("["), ord("]")
MAX_UNACCEPTED = 8 << 20  # bytes of one request: then it is read no further for now
# Of a block: where lines open arrays and objects, so many on each.
_BRACKETS, _NO_BRACKETS = bytes.maketrans(b"{", b"["), bytes(set(range(256)) - set(b"[{\n"))

_decode_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines


class FireQuery(msgspec.Struct, forbid_unknown_fields=True):
    """Attributes of events whose format has no place for them: `key` of all of them; `id` of a single event, or with
    NDJSON the prefix of ids: line 3 of `id=import` is `import.3`; `extensions` of all, a JSON object of texts by
    name. They enter the topic `at` a time, or `after` a delay, and are not handed out any more once they `expires`."""

    key: EventKey | None = None
    id: Id | None = None
    extensions: str | None = None
    at: DueTime | None = None
    after: Delay | None = None
    expires: EndTime | None = None


class Accepted(msgspec.Struct):
    """The number of accepted events and, unless they are very many, their ids in order."""

    accepted: int
    ids: list[str] | msgspec.UnsetType = msgspec.UNSET


async def fire(call: Call) -> Response:
    """Accept events. Answer 202 once all are durable, with their number, and their ids unless they are very many. Raise
    what is wrong with them; then none was accepted, except NDJSON lines before a bad one. Where the store fails
    meanwhile, a part of many CloudEvents may have been accepted: sent again, none is stored twice."""
    query = call.query(FireQuery)
    if query.key is not None:
        check_key(query.key)
    if query.id is not None:
        check_id(query.id)
    stated: dict[str, Any] = {} if query.key is None else {"keys": query.key}
    if query.extensions is not None:
        stated["extensions"] = _extensions(query.extensions)
    stated |= read_timing(query.at, query.after, query.expires)
    kind, headers = call.media_type, call.request.headers
    if kind in NDJSON:
        return await Lines(call, stated, query.id).fire()
    settings, limits = call.host.settings, call.host.limits
    if kind in (cloudevents.STRUCTURED, cloudevents.BATCHED) or cloudevents.is_binary(headers):
        if query != FireQuery():
            raise BadArgument(
                "expected a CloudEvent to say all of itself, got parameters too: its times are duetime and expirytime"
            )
        if kind == cloudevents.BATCHED:
            events = await _batched(call, await call.body(settings.body_bytes))
        elif kind == cloudevents.STRUCTURED:
            body = await call.body(min(settings.body_bytes, _max_structured_bytes(limits)))
            await check_long_json(body, settings.nesting, call.host.slices)
            events = [await _checked(call, cloudevents.read_structured(body, call.topic))]
        else:
            body = await call.body(limits.payload_bytes)
            events = [await _checked(call, cloudevents.read_binary(headers, body, call.topic))]
        return await _accept(call, await _all_batches(call, events))
    if kind not in (JSON, BYTES):
        got = ascii(kind[:80]) if kind else "none"
        said = f"expected a body of type {', '.join(TYPES)}, got {got}"
        raise HTTPException(415, f"{said}: say which it is, as by the header content-type: {JSON}")
    body = await call.body(limits.payload_bytes)
    if kind == JSON:
        await check_long_json(body, settings.nesting, call.host.slices)
    return await _accept(call, [_seal(call, [body], kind, stated, None if query.id is None else [query.id])])


def _extensions(text: str) -> Extensions:
    try:
        return check_extensions(msgspec.json.decode(text))
    except (msgspec.DecodeError, RecursionError):
        raise BadArgument(f"expected extensions, a JSON object of texts by name, got {text[:80]!a}") from None


async def _accept(call: Call, batches: Sequence[Batch]) -> Response:
    await asyncio.gather(*[call.host.engine.submit(batch) for batch in batches])
    ids = [batch.id(index) for batch in batches for index in range(len(batch))]
    return answer(Accepted(len(ids), ids), 202)


def _seal(call: Call, payloads: list[bytes], content: str, stated: Attributes, ids: list[str | None] | None) -> Batch:
    """Return a batch of events with the same `stated` attributes and the client as their source."""
    producer, first = call.host.numbers.allocate(call.topic, len(payloads), later="due" in stated)
    assert call.grant is not None
    return seal(
        call.topic,
        payloads,
        [time_ns()] * len(payloads),
        producer=producer,
        author=call.host.numbers.author,
        first=first,
        machine=call.address,
        process=call.grant.name,
        content=content,
        ids=ids,
        **{field: [value] * len(payloads) for field, value in stated.items()},
    )


# CloudEvents --------------------------------------------------------------------------------------------


async def _batched(call: Call, body: bytes) -> list[Incoming]:
    """Split the body into its events, without decoding it as a whole."""
    settings, slices, max_bytes = call.host.settings, call.host.slices, _max_structured_bytes(call.host.limits)
    shape = await Shape(settings.nesting, max_items=settings.ids).read_slowly(body, slices)
    start, stop = len(body) - len(body.lstrip(_SPACE)), len(body.rstrip(_SPACE))
    if stop - start < 2 or body[start] != _OPENS or body[stop - 1] != _CLOSES:
        check_json(body[:PIECE_BYTES], settings.nesting)
        raise BadPayload(
            f"expected an array of CloudEvents, got other JSON: it begins with {body[start : start + 20]!r}"
        )
    edges = [start, *shape.cuts, stop - 1]
    if len(edges) == 2 and not body[start + 1 : stop - 1].strip(_SPACE):
        return []
    events = []
    for number, (before, end) in enumerate(pairwise(edges), 1):
        try:
            if end - before > max_bytes:
                raise TooLarge(f"expected a CloudEvent of at most {max_bytes:,} bytes, got {end - before:,}")
            await slices.next()
            with slices.piece():
                event = cloudevents.read_structured(body[before + 1 : end], call.topic)
            events.append(await _checked(call, event))
        except SolarWindError as error:
            raise type(error)(f"CloudEvent {number} of {len(edges) - 1}: {error}") from None
    return events


async def _checked(call: Call, event: Incoming) -> Incoming:
    """Return a checked event. Raise `BadPayload` and `TooLarge`."""
    if is_json(event.content):
        await check_long_json(event.data, call.host.settings.nesting, call.host.slices, "JSON as data")
    return event


def _max_structured_bytes(limits: Limits) -> int:
    """Return the maximum bytes of one event in structured form: its data may be escaped, or in base64."""
    return 2 * limits.payload_bytes + _ATTRIBUTES_BYTES


async def _all_batches(call: Call, events: Sequence[Incoming]) -> list[Batch]:
    found: list[Batch] = []
    batches, slices = _batches(call, events), call.host.slices
    more: Batch | None
    while True:
        await slices.next()
        with slices.piece():
            more = next(batches, None)
        if more is None:
            return found
        found.append(more)


def _batches(call: Call, events: Sequence[Incoming]) -> Iterator[Batch]:
    """Yield batches of the events in order, delayed ones apart: one for each run from the same source, within the
    limits of a batch."""
    now, limits = time_ns(), call.host.limits
    for each in events:
        _check_size(len(each.data), limits)
    for (machine, process, later), found in groupby(events, _together):
        run = list(found)
        for cut in batch_slices([each.data for each in run], limits, [_header_bytes(each) for each in run]):
            part = run[cut]
            producer, first = call.host.numbers.allocate(call.topic, len(part), later=later)
            yield seal(
                call.topic,
                [each.data for each in part],
                [now if each.time_ns is None else each.time_ns for each in part],
                producer=producer,
                author=call.host.numbers.author,
                first=first,
                machine=machine,
                process=process,
                **{"content": [each.content for each in part], **gathered(each.attributes for each in part)},
            )


def _together(event: Incoming) -> tuple[str, str, bool]:
    return event.machine, event.process, "due" in event.attributes


def _header_bytes(event: Incoming) -> int:
    """Return an upper bound of the bytes that an event needs in its batch's header."""
    return 4 * len(event.content) + _attribute_bytes(event.attributes)


def _attribute_bytes(attributes: Attributes) -> int:
    """Return the same bound for attributes: four bytes for each character."""
    return 4 * words(attributes) + 8 * len(attributes.get("extensions", ()))


def batch_slices(payloads: Sequence[bytes], limits: Limits, headers: Sequence[int] | None = None) -> Iterator[slice]:
    """Yield slices whose payloads fit into a batch. `headers` are the bytes that each needs in its header."""
    start = size = head = 0
    for at, payload in enumerate(payloads):
        more = _HEADER_BYTES + (headers[at] if headers is not None else 0)
        size += len(payload)
        head += more
        full = size > limits.batch_bytes or at - start == limits.batch_events or head > _MAX_HEADERS_BYTES
        if at > start and full:
            yield slice(start, at)
            start, size, head = at, len(payload), more
    if payloads:
        yield slice(start, len(payloads))


def _check_size(size: int, limits: Limits) -> None:
    if size > limits.payload_bytes:
        raise TooLarge(f"expected a payload of at most {limits.payload_bytes:,} bytes, got {size:,}")


# NDJSON -------------------------------------------------------------------------------------------------


class BadLine(Exception):
    """A line that is no event, and why."""

    def __init__(self, number: int, error: SolarWindError) -> None:
        super().__init__(str(error))
        self.number, self.error = number, error


class _Sent(NamedTuple):
    accepted: asyncio.Future[None]
    batch: Batch


class Lines:
    """A request whose lines are events. It is read as it arrives, never kept as a whole, and no faster than it is
    accepted."""

    def __init__(self, call: Call, stated: Attributes, id: str | None) -> None:
        """`stated` are attributes of all events; `id` is the prefix of their ids."""
        self._call = call
        self._stated, self._id = stated, id
        self._settings, self._limits = call.host.settings, call.host.limits
        self._number = 0  # of the last line that was looked at
        self._sent: deque[_Sent] = deque()
        self._unaccepted = 0  # bytes
        self._kept = 0  # bytes of lines that are not looked at yet
        self._accepted = 0
        self._ids: list[str] | None = []  # while they are not too many

    async def fire(self) -> Response:
        uploads = self._call.host.uploads
        uploads.add(self._call)
        try:
            return await self._fire()
        finally:
            uploads.discard(self._call)
            self._keep(-self._kept)

    async def _fire(self) -> Response:
        try:
            await self._read()
            await self._settle(0)
        except BadLine as bad:
            return await self._refused(bad.error, line=bad.number)
        except asyncio.CancelledError:
            error = self._call.refused()
            if not isinstance(error, SolarWindError):
                raise
            return await self._refused(error)
        except SolarWindError as error:
            return await self._refused(error)
        return answer(Accepted(self._accepted, msgspec.UNSET if self._ids is None else self._ids), 202)

    async def _refused(self, error: SolarWindError, **members: int) -> Response:
        """Answer with the error and the number of events accepted before it, so that a client can continue after
        them."""
        try:
            await self._settle(0)
        except SolarWindError as earlier:
            error, members = earlier, {}
        where = f"line {members['line']:,}: " if members else ""
        return problem(type(error)(f"{where}{error}"), accepted=self._accepted, **members)

    async def _read(self) -> None:
        """Send all lines. Raise `BadLine`, and what sending raises."""
        max_bytes = self._limits.payload_bytes
        rest: list[bytes] = []
        loop = asyncio.get_running_loop()
        began = loop.time()
        async for chunk in self._call.chunks():
            if b"\n" in chunk:
                began = loop.time()
            elif loop.time() - began > self._settings.idle_s and len(chunk) < self._settings.body_rate:
                error = BadPayload(f"expected a whole line within {self._settings.idle_s:g} s, got a part of one")
                raise BadLine(self._number + 1, error)
            self._keep(len(chunk))
            rest.append(chunk)
            # Joined only where a line ends, so that a body that arrives byte by byte is not joined again for each.
            if (self._kept >= BLOCK_BYTES and b"\n" in chunk) or self._kept > max_bytes + BLOCK_BYTES:
                block, last = _cut(b"".join(rest))
                rest = [last]
                await self._send(block)
                self._keep(-len(block))
                if self._kept > max_bytes:
                    raise BadLine(self._number + 1, _too_long(max_bytes))
        await self._send(b"".join(rest))

    def _keep(self, size: int) -> None:
        """Add to the bytes that are kept, or subtract from them. Raise `Busy` where all requests together keep too
        many."""
        self._call.host.hold(size)
        self._kept += size

    async def _send(self, block: bytes) -> None:
        """Send the lines of a block. Raise `BadLine` once the lines before it are sent, and what sending raises."""
        numbers, payloads, bad = await self._split(block)
        slices = self._call.host.slices
        header = _attribute_bytes(self._stated) + 4 * (len(self._id or "") + _NUMBER)
        for cut in batch_slices(payloads, self._limits, [header] * len(payloads)):
            await slices.next()
            with slices.piece():
                self._submit(numbers[cut], payloads[cut])
            await self._settle(MAX_UNACCEPTED)
        if bad is not None:
            raise bad

    def _submit(self, numbers: Sequence[int], payloads: list[bytes]) -> None:
        ids: list[str | None] | None = None
        if self._id is not None:
            ids = [check_id(f"{self._id}.{number}") for number in numbers]
        batch = _seal(self._call, payloads, JSON, self._stated, ids)
        self._sent.append(_Sent(self._call.host.engine.submit(batch), batch))
        self._unaccepted += batch.weight

    async def _settle(self, max_bytes: int) -> None:
        """Wait until at most `max_bytes` are not accepted yet. Raise the error of a batch that was refused: later ones
        are not counted, so that the counted events are the first ones."""
        while self._sent and self._unaccepted > max_bytes:
            accepted, batch = self._sent.popleft()
            self._unaccepted -= batch.weight
            try:
                await accepted
            except SolarWindError:
                self._sent.clear()
                raise
            self._accepted += len(batch)
            if self._ids is not None and self._accepted <= self._settings.ids:
                self._ids += [batch.id(index) for index in range(len(batch))]
            else:
                self._ids = None

    async def _split(self, block: bytes) -> tuple[Sequence[int], list[bytes], BadLine | None]:
        """Return the payloads and their line numbers, up to a line that is no event. Empty lines are skipped."""
        slices = self._call.host.slices
        await slices.next()
        with slices.piece():
            lines = block.replace(b"\r\n", b"\n").removesuffix(b"\n").split(b"\n")
            numbers = range(self._number + 1, self._number + 1 + len(lines))
            self._number += len(lines)
            if self._all_good(block, lines):
                return numbers, lines, None
        found: list[int] = []
        payloads: list[bytes] = []
        size = 0
        for number, line in zip(numbers, lines, strict=True):
            payload = line.strip(b" \t\r")
            size += len(line) + _LINE_BYTES
            if size > PIECE_BYTES:
                size = 0
                await slices.line()
            try:
                if len(payload) > self._limits.payload_bytes:
                    raise _too_long(self._limits.payload_bytes)
                if payload:
                    await check_long_json(payload, self._settings.nesting, slices)
            except SolarWindError as error:
                return found, payloads, BadLine(number, error)
            if payload:
                found.append(number)
                payloads.append(payload)
        return found, payloads, None

    def _all_good(self, block: bytes, lines: list[bytes]) -> bool:
        """Return whether each line is exactly one JSON value, checked at once; else they are checked one by one."""
        too_many = b"[" * (self._settings.nesting + 1)
        try:
            values = list(map(bytes, _decode_lines(block)))  # which accepts two on one line too, and one on two lines
            check_values(block)
        except (msgspec.DecodeError, ValueError, RecursionError):
            return False
        return (
            values == lines
            and max(map(len, lines)) <= self._limits.payload_bytes
            and too_many not in block.translate(_BRACKETS, _NO_BRACKETS)
        )


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """Return the complete lines, and the beginning of the next."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _too_long(max_bytes: int) -> TooLarge:
    return TooLarge(f"expected a line of at most {max_bytes:,} bytes, got a longer one")
