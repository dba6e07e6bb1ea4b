"""The messages of `solarwind.v1`, between a client and a server: the schema is the code. See docs/PROTOCOL.md.

A WebSocket message is binary: one msgpack array of messages. Each of them is an array too, its name first and
then its fields in order; fields at the end that have a default may be left out, and a reader passes over further ones.
Batches travel inside as the very bytes that were sealed. `ref` is a number from 1 on that the client chose for what it
asks, and comes back in the answer.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Annotated, Any, TypeVar

import msgspec

from .core import effects
from .core.effects import Failure
from .core.spans import Spans
from .errors import BadArgument, ProtocolError, SolarWindError
from .timing import ns_of, time_of

SUBPROTOCOL = "solarwind.v1"
PATH = "/v1/connect"
MAX_TOGETHER = 1 << 20  # bytes of messages that are put into one WebSocket message
MAX_MESSAGES = 16_384  # in one
MAX_AUTHORS = 10_000  # further ones on a connection
MAX_LISTED = 1 << 17  # edges of spans, failures or ids, in one message
MAX_NAMED = 1 << 14  # purposes, likewise: more than a connection has instances

_MAX_AGO_US = 10**15
_MAX_NS = (1 << 63) - 1

T = TypeVar("T")
Ref = Annotated[int, msgspec.Meta(ge=1)]
Listed = Annotated[list[T], msgspec.Meta(max_length=MAX_LISTED)]
Named = Annotated[list[T], msgspec.Meta(max_length=MAX_NAMED)]


class Message(msgspec.Struct, array_like=True, tag=str.lower):
    """A message, whose name is that of its class in lower case."""


# From the client ------------------------------------------------------------------------------------------------


class Hello(Message):
    """The first message. `token` may be left out where the handshake had an Authorization header. `secret` is what only
    this client knows: its hash is the author of all batches that it sends, but for those of its clients."""

    client: str
    token: str | None = None
    secret: bytes = b""


class Author(Message):
    """Say, as a client that is a server itself, that a client with this `secret` fires through it, or is `gone`. It is
    said again on each connection, and not answered."""

    secret: bytes
    gone: bool = False


class Submit(Message):
    """Fire a batch: answered by `Accepted` or `Refused`. Sent again after a reconnect, it is stored once."""

    ref: Ref
    batch: bytes


class Hold(Message):
    """A batch that a handler fired: kept until the `Report` that it goes with."""

    batch: bytes


class Join(Message):
    """Register an instance, under a number that the client chose: answered by `Done` or `Refused`. `join` is a map of
    the fields of `core.effects.Join`; `since` is "now", "beginning", ns since 1970, or below 0 so many ns ago."""

    ref: Ref
    instance: int
    join: msgspec.Raw
    since: str | int = "now"


class Report(Message):
    """Say what became of events of a lease. `done` and `returned` are edges of spans of positions: start, stop, start,
    …

    `handled` events of the lease took `busy_ns` so far. It commits the last `fired` batches on hold with it. Answered
    by `Done` when durable if it has a `ref`; by `Stale` if the lease is not, or no longer, its own.
    """

    instance: int
    lease: int
    done: Listed[int]
    failed: Listed[Failure] = []
    returned: Listed[int] = []
    handled: int = 0
    busy_ns: int = 0
    fired: int = 0
    ref: int = 0


class Alive(Message):
    """Renew the leases of an instance that is at work."""

    instance: int


class Leaving(Message):
    """Ask for nothing more for an instance, which may still report."""

    instance: int


class Leave(Message):
    """Remove an instance; what it has in hand is handed out again, and was tried if it `died`. Answered by `Done`."""

    ref: Ref
    instance: int
    died: bool = False


class Call(Message):
    """Ask one of the operations (`operations.py`), with its arguments as a map: answered by `Done`, in one or more
    parts, or `Refused`. `by` is for whom, which is noted beside the name of the client's token."""

    ref: Ref
    name: str
    arguments: msgspec.Raw = msgspec.Raw(b"\x80")
    by: str = ""


class Ping(Message):
    """At least one message a heartbeat comes from either side: this one where there is no other."""


# From the server ------------------------------------------------------------------------------------------------


class Welcome(Message):
    """The answer to `Hello`: who is heard of at least every `heartbeat_s`, how large things may be, and which store
    remembers what is stated: where it is another, all is forgotten."""

    server: str
    heartbeat_s: float
    frame_bytes: int
    batch_bytes: int
    batch_events: int
    payload_bytes: int
    store: str = ""


class Accepted(Message):
    """Acknowledge that these batches are accepted."""

    refs: list[int]


class Done(Message):
    """Answer, or with `more` give a part of an answer."""

    ref: int
    items: list[Any] = []
    more: bool = False


class Refused(Message):
    """Refuse what was asked. With ref 0 it answers nothing, and the connection ends after it."""

    ref: int
    code: str
    text: str


class Share(msgspec.Struct, array_like=True, frozen=True):
    """An instance's part of a batch: `picks` are edges of positions, `tried` the attempts already made of those that
    had any. With `shadow` they are copies for a shadow."""

    instance: int
    lease: int
    picks: list[int]
    tried: dict[int, int] = {}
    shadow: bool = False


class Offer(Message):
    """Handle these events. `start` is the position of the first event of `batch`."""

    start: int
    batch: bytes
    shares: list[Share]


class Stale(Message):
    """Reject a report whose lease was taken away: what was done was or will be done again."""

    instance: int
    lease: int


class Lost(Message):
    """Take away what the instance has in hand, by this lease or at all: nothing of it may begin."""

    instance: int
    lease: int | None = None


class Closed(Message):
    """The instance is no more: its purpose was retired, or the dispatcher failed."""

    instance: int
    reason: str


class Pong(Message):
    """The answer to `Ping`."""


FromClient = Hello | Author | Submit | Hold | Join | Report | Alive | Leaving | Leave | Call | Ping
FromServer = Welcome | Accepted | Done | Refused | Offer | Stale | Lost | Closed | Pong

encode = msgspec.msgpack.Encoder().encode
_split = msgspec.msgpack.Decoder(list[msgspec.Raw])
_one_from_client: msgspec.msgpack.Decoder[FromClient] = msgspec.msgpack.Decoder(FromClient)
_from_client = msgspec.msgpack.Decoder(list[FromClient])
_from_server = msgspec.msgpack.Decoder(list[FromServer])


def read_client(data: bytes) -> list[FromClient]:
    """Return the messages that a client sent. Raise `ProtocolError`."""
    if data[:1] >= _MANY:
        _check_count(data)
    return _read(_from_client, data)


def split(data: bytes) -> list[msgspec.Raw]:
    """Return the same, each to be read by `read_one`, so that a long one is read in pieces. Raise `ProtocolError`."""
    _check_count(data)
    return _read(_split, data)


def read_one(message: msgspec.Raw) -> FromClient:
    """Read a message that `split` returned. Raise `ProtocolError`."""
    return _read(_one_from_client, message)


_MANY = b"\xdc"  # an array that does not say in its first byte alone how long it is; likewise the bytes above


def _check_count(data: bytes) -> None:
    if _count(data) > MAX_MESSAGES:
        raise ProtocolError(f"expected at most {MAX_MESSAGES:,} messages together, got {_count(data):,}")


def read_server(data: bytes) -> list[FromServer]:
    """Return the messages that a server sent. Raise `ProtocolError`."""
    return _read(_from_server, data)


def _read(decoder: msgspec.msgpack.Decoder[T], data: bytes | msgspec.Raw) -> T:
    try:
        return decoder.decode(data)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError(f"expected messages of {SUBPROTOCOL}, got {len(data)} other bytes: {error}") from None


def _count(data: bytes) -> int:
    """Return how many messages there are, as the first bytes say; 0 where those begin no array of many."""
    if data[:1] == b"\xdd":
        return int.from_bytes(data[1:5], "big")
    return int.from_bytes(data[1:3], "big") if data[:1] == b"\xdc" else 0  # few


def groups(messages: Sequence[Message], max_bytes: int = MAX_TOGETHER) -> Iterator[Sequence[Message]]:
    """Yield what goes into one WebSocket message each: none is much larger than `max_bytes` if it holds several."""
    start = size = 0
    for index, message in enumerate(messages):
        more = _size(message)
        size += more
        if (size > max_bytes and index > start) or index - start == MAX_MESSAGES:
            yield messages[start:index]
            start, size = index, more
    if start < len(messages):
        yield messages[start:] if start else messages


def frames(messages: Sequence[Message], max_bytes: int = MAX_TOGETHER) -> Iterable[bytes]:
    """Return the WebSocket messages that have these messages: see `groups`."""
    if len(messages) == 1:  # as most are
        return (encode(messages),)
    return map(encode, groups(messages, max_bytes))


def _size(message: Message) -> int:
    """Return the size of what may be large in it, in bytes."""
    if isinstance(message, Report):
        return sum(len(failure.error) for failure in message.failed)
    return len(getattr(message, "batch", b""))


# Items of answers -----------------------------------------------------------------------------------------------------


class DeadItem(msgspec.Struct, array_like=True, frozen=True):
    """A dead letter: its event as a batch of one."""

    batch: bytes
    error: str
    attempts: int
    time_ns: int
    version: int


class DelayedItem(msgspec.Struct, array_like=True, frozen=True):
    """A delayed event as a batch of one, when it is due, and the `after` of the page that begins behind it."""

    batch: bytes
    due_ns: int
    place: str


class EventItem(msgspec.Struct, array_like=True, frozen=True):
    """An event as a batch of one, its position in its topic's history, and what became of it for each purpose: a map of
    the fields of `records.Outcome` each."""

    batch: bytes
    position: int
    outcomes: list[Any]


class LocatedItem(msgspec.Struct, array_like=True, frozen=True):
    """An `EventItem`, and the position and time of the first event of its batch in the history."""

    batch: bytes
    position: int
    outcomes: list[Any]
    start: int
    time_ns: int


class TraceItem(msgspec.Struct, array_like=True, frozen=True):
    """An event of a trace as a batch of one; which item caused it, counted from 0, and -1 for the root; whether it
    caused more than is here; and what became of it, as in `EventItem`."""

    batch: bytes
    parent: int
    more: bool
    outcomes: list[Any]


class StatisticsItem(msgspec.Struct, array_like=True, frozen=True):
    """A topic, the number of events fired on it, how many a second, its purposes with their statistics, how
    many events are delayed, and when the next one is due; nil without any."""

    topic: str
    fired: int
    fired_per_s: float
    purposes: dict[str, Any]
    delayed: int = 0
    next_due_ns: int | None = None


# Times and errors -----------------------------------------------------------------------------------------------


def pack_since(since: str | datetime | timedelta) -> str | int:
    """Return it as what a message can carry, at most 292 years ago or after 1970: beyond all history."""
    if isinstance(since, datetime):
        try:
            return min(max(0, ns_of(since.astimezone(UTC))), _MAX_NS)
        except (OverflowError, ValueError):  # so far away that its time in UTC is none
            return _MAX_NS if since.year > 1970 else 0
    if isinstance(since, timedelta):
        return -min(max(1, since // timedelta(microseconds=1) * 1000), _MAX_NS)
    return since


def read_since(since: str | int) -> str | datetime | timedelta:
    """Return what `pack_since` was given. Raise `BadArgument`."""
    if isinstance(since, str):
        if since not in ("now", "beginning"):
            raise BadArgument(f"expected since 'now', 'beginning', ns since 1970, or below 0 ns ago, got {since!a}")
        return since
    if since < 0:
        return timedelta(microseconds=min(_MAX_AGO_US, -since // 1000))
    try:
        return time_of(since)
    except OverflowError:
        raise BadArgument(f"expected a time in ns since 1970, got {since}") from None


def read_spans(edges: list[int]) -> Spans:
    """Return the spans with these edges. Raise `ProtocolError`."""
    if not edges or (len(edges) == 2 and 0 <= edges[0] < edges[1]):  # as most are
        return Spans(edges)
    if len(edges) % 2 or any(one >= next for one, next in pairwise(edges)) or (edges and edges[0] < 0):
        raise ProtocolError("expected edges of spans of positions, each larger than the one before, got others")
    return Spans(edges)


def read_join(join: msgspec.Raw) -> effects.Join:
    """Return the registration that a `Join` has. Raise `BadArgument`, which refuses that one alone."""
    try:
        return _decode_join(join)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        if isinstance(error.__cause__, BadArgument):
            raise error.__cause__ from None
        raise BadArgument(f"expected a join with the fields of an instance, got others: {error}") from None


_decode_join = msgspec.msgpack.Decoder(effects.Join).decode


def _errors() -> dict[str, type[SolarWindError]]:
    found: list[type[SolarWindError]] = [SolarWindError]
    for each in found:
        found += each.__subclasses__()
    return {each.code: each for each in found}


def error_of(code: str, text: str) -> SolarWindError:
    """Return the error that the other side raised; one of a later version is a `SolarWindError`."""
    return _errors().get(code, SolarWindError)(text)
