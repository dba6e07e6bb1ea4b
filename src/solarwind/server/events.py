"""`POST /v1/topics/{topic}/events`: events in, as JSON, as NDJSON of any length, as bytes, or as CloudEvents."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Iterator, Sequence
from itertools import groupby
from time import time_ns
from typing import NamedTuple

import msgspec
from starlette.exceptions import HTTPException
from starlette.responses import Response

from ..batch import Batch, seal
from ..errors import BadArgument, BadPayload, SolarWindError, TooLarge
from ..limits import Limits
from ..names import check_id, check_key
from ..payload import BYTES, JSON
from . import cloudevents
from .call import Call, answer, problem
from .cloudevents import Incoming
from .nesting import check_json

NDJSON = ("application/x-ndjson", "application/ndjson", "application/jsonl")
TYPES = (JSON, NDJSON[0], BYTES, cloudevents.STRUCTURED, cloudevents.BATCHED)
BLOCK_BYTES = 256 << 10  # of lines that are looked at together
MOST_UNACCEPTED = 8 << 20  # bytes of one request: then it is read no further for now

_decode_lines = msgspec.json.Decoder(msgspec.Raw).decode_lines
_decode_list = msgspec.json.Decoder(list[msgspec.Raw]).decode


class FireQuery(msgspec.Struct, forbid_unknown_fields=True):
    """What may be said of events whose format has no place for it: `key` of all of them; `id` of the one, or with
    NDJSON what ids begin with: line 3 of `id=import` is `import.3`."""

    key: str | None = None
    id: str | None = None


class Accepted(msgspec.Struct):
    """How many events, and, unless they are very many, their ids in order."""

    accepted: int
    ids: list[str] | msgspec.UnsetType = msgspec.UNSET


async def fire(call: Call) -> Response:
    """Accept events. Gives `202` once all are durable, with how many there are, and their ids unless they are very
    many. Raises what is wrong with them; then none was accepted, but for the lines before a bad one."""
    query = call.query(FireQuery)
    if query.key is not None:
        check_key(query.key)
    if query.id is not None:
        check_id(query.id)
    kind, headers = call.media_type, call.request.headers
    if kind in NDJSON:
        return await Lines(call, query).fire()
    settings, limits = call.server.settings, call.server.wind.limits
    if kind in (cloudevents.STRUCTURED, cloudevents.BATCHED) or "ce-specversion" in headers:
        if query != FireQuery():
            raise BadArgument("expected a CloudEvent to say its own id and partitionkey, got them as parameters too")
        if kind == cloudevents.BATCHED:
            events = _batched(call, await call.body(settings.body_bytes))
        elif kind == cloudevents.STRUCTURED:
            body = await call.body(settings.body_bytes)
            check_json(body, settings.nesting)
            events = [cloudevents.read_structured(body, call.topic, settings.nesting)]
        else:
            body = await call.body(limits.payload_bytes)
            events = [cloudevents.read_binary(headers, body, call.topic, settings.nesting)]
        return await _accept(call, list(_batches(call, events)))
    if kind not in (JSON, BYTES):
        raise HTTPException(415, f"expected a body of type {', '.join(TYPES)}, got {kind[:80] or 'none'!a}")
    body = await call.body(limits.payload_bytes)
    if kind == JSON:
        check_json(body, settings.nesting)
    return await _accept(call, [_seal(call, [body], kind, [query.key], [query.id])])


async def _accept(call: Call, batches: Sequence[Batch]) -> Response:
    await asyncio.gather(*[call.server.engine.submit(batch) for batch in batches])
    ids = [batch.id(index) for batch in batches for index in range(len(batch))]
    return answer(Accepted(len(ids), ids), 202)


def _seal(call: Call, payloads: list[bytes], content: str, keys: list[str | None], ids: list[str | None]) -> Batch:
    """Events that say nothing of where they are from: from whoever sends them."""
    producer, first = call.server.numbers.take(call.topic, len(payloads))
    assert call.grant is not None
    return seal(
        call.topic,
        payloads,
        [time_ns()] * len(payloads),
        producer=producer,
        first=first,
        machine=call.address,
        process=call.grant.name,
        content=content,
        keys=keys,
        ids=ids,
    )


# CloudEvents --------------------------------------------------------------------------------------------


def _batched(call: Call, body: bytes) -> list[Incoming]:
    settings = call.server.settings
    check_json(body, settings.nesting)
    try:
        found = _decode_list(body)
    except msgspec.ValidationError:
        raise BadPayload("expected an array of CloudEvents, got JSON that is none") from None
    if len(found) > settings.ids:
        raise TooLarge(f"expected at most {settings.ids:,} CloudEvents in a batch, got {len(found):,}: send several")
    events = []
    for number, each in enumerate(found, 1):
        try:
            events.append(cloudevents.read_structured(each, call.topic, settings.nesting))
        except SolarWindError as error:
            raise type(error)(f"CloudEvent {number} of {len(found)}: {error}") from None
    return events


def _batches(call: Call, events: Sequence[Incoming]) -> Iterator[Batch]:
    """In their order: a batch for each run of events from one source, as large as a batch may be."""
    now = time_ns()
    for (machine, process), run in groupby(events, lambda event: (event.machine, event.process)):
        for part in parts(list(run), call.server.wind.limits):
            producer, first = call.server.numbers.take(call.topic, len(part))
            yield seal(
                call.topic,
                [each.data for each in part],
                [now if each.time_ns is None else each.time_ns for each in part],
                producer=producer,
                first=first,
                machine=machine,
                process=process,
                content=[each.content for each in part],
                keys=[each.key for each in part],
                ids=[each.id for each in part],
                causes=[each.cause for each in part],
            )


def parts(events: Sequence[Incoming], limits: Limits) -> Iterator[list[Incoming]]:
    """Raises `TooLarge` for a payload above the limit."""
    part: list[Incoming] = []
    size = 0
    for each in events:
        _check_size(len(each.data), limits)
        size += len(each.data)
        if part and (size > limits.batch_bytes or len(part) == limits.batch_events):
            yield part
            part, size = [], len(each.data)
        part.append(each)
    if part:
        yield part


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
    """A request whose lines are events. It is read as it comes and never held as a whole, and no faster than it is
    accepted."""

    def __init__(self, call: Call, query: FireQuery) -> None:
        self._call = call
        self._query = query
        self._settings, self._limits = call.server.settings, call.server.wind.limits
        self._number = 0  # of the last line that was looked at
        self._sent: deque[_Sent] = deque()
        self._unaccepted = 0  # bytes
        self._accepted = 0
        self._ids: list[str] | None = []  # while they are not too many

    async def fire(self) -> Response:
        rest: list[bytes] = []
        size = 0
        try:
            async for chunk in self._call.chunks():
                rest.append(chunk)
                size += len(chunk)
                if size >= BLOCK_BYTES:
                    block, last = _cut(b"".join(rest))
                    rest, size = [last], len(last)
                    await self._send(block)
                    if size > self._limits.payload_bytes + BLOCK_BYTES:
                        raise BadLine(self._number + 1, _too_long(self._limits))
            await self._send(b"".join(rest))
            await self._settle(0)
        except BadLine as bad:
            return await self._refused(bad.error, line=bad.number)
        except SolarWindError as error:
            return await self._refused(error)
        return answer(Accepted(self._accepted, msgspec.UNSET if self._ids is None else self._ids), 202)

    async def _refused(self, error: SolarWindError, **members: int) -> Response:
        """What came before is accepted all the same, and counted; a client begins again after it."""
        try:
            await self._settle(0)
        except SolarWindError:
            pass
        where = f"line {members['line']:,}: " if members else ""
        return problem(type(error)(f"{where}{error}"), accepted=self._accepted, **members)

    async def _send(self, block: bytes) -> None:
        """Raises `BadLine`, once the lines before it are sent, and what sending raises."""
        bad: BadLine | None = None
        first = self._number
        try:
            payloads = self._read(block)
        except BadLine as error:
            bad, payloads = error, self._read(b"\n".join(block.split(b"\n")[: error.number - first - 1]))
        at = 0
        while at < len(payloads):
            stop, size = at, 0
            while stop < len(payloads) and stop - at < self._limits.batch_events:
                size += len(payloads[stop][1])
                if size > self._limits.batch_bytes and stop > at:
                    break
                stop += 1
            self._submit(payloads[at:stop])
            at = stop
            await self._settle(MOST_UNACCEPTED)
        if bad is not None:
            raise bad
        await asyncio.sleep(0)

    def _submit(self, numbered: list[tuple[int, bytes]]) -> None:
        prefix = self._query.id
        ids = [None if prefix is None else check_id(f"{prefix}.{number}") for number, _ in numbered]
        batch = _seal(self._call, [data for _, data in numbered], JSON, [self._query.key] * len(ids), ids)
        self._sent.append(_Sent(self._call.server.engine.submit(batch), batch))
        self._unaccepted += len(batch.data)

    async def _settle(self, most: int) -> None:
        """Wait until at most so many bytes are not accepted yet. Raises why some are not."""
        while self._sent and self._unaccepted > most:
            accepted, batch = self._sent.popleft()
            self._unaccepted -= len(batch.data)
            await accepted
            self._accepted += len(batch)
            if self._ids is not None and self._accepted <= self._settings.ids:
                self._ids += [batch.id(index) for index in range(len(batch))]
            else:
                self._ids = None

    def _read(self, block: bytes) -> list[tuple[int, bytes]]:
        """The payloads with the numbers of their lines; empty lines are passed over. Raises `BadLine`."""
        if b"\r" in block:
            block = block.replace(b"\r\n", b"\n")
        lines = block.split(b"\n")
        if lines[-1] == b"":
            lines.pop()
        before = self._number
        numbered = [(number, line) for number, line in enumerate(lines, before + 1) if line and not line.isspace()]
        try:
            block.decode()
            whole = len(_decode_lines(block)) == len(numbered)
        except (msgspec.DecodeError, ValueError, RecursionError):
            whole = False
        most, deep = self._limits.payload_bytes, self._settings.nesting
        for number, line in numbered:
            if not whole or len(line) > most or line.count(b"[") + line.count(b"{") > deep:
                self._check(number, line)
        self._number = before + len(lines)
        return numbered

    def _check(self, number: int, line: bytes) -> None:
        try:
            if len(line) > self._limits.payload_bytes:
                raise _too_long(self._limits)
            check_json(line, self._settings.nesting)
        except SolarWindError as error:
            raise BadLine(number, error) from None


def _cut(data: bytes) -> tuple[bytes, bytes]:
    """The whole lines, and the beginning of the next."""
    end = data.rfind(b"\n") + 1
    return data[:end], data[end:]


def _too_long(limits: Limits) -> TooLarge:
    return TooLarge(f"expected a line of at most {limits.payload_bytes:,} bytes, got a longer one")
