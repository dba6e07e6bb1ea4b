"""The columns of a batch: the attributes that an event has besides its payload, defined once.

A batch holds each attribute of its events as a column, which is nil where no event has it. `COLUMNS` drives sealing,
cutting, joining, checking and reading: a new attribute is a field of `Header`, an entry in `COLUMNS`, and an accessor
in `Batch` and `Event`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from operator import attrgetter
from typing import Annotated, Any

import msgspec

from .errors import BadArgument, TooLarge
from .event import Cause
from .names import check_content, check_id, check_key, shown
from .payload import BYTES, JSON

MAX_TIME = (1 << 62) - 1  # ns since 1970, and from a batch's first event on
MAX_EXTENSIONS = 64  # for one event
MAX_EXTENSION_BYTES = 8 << 10  # of UTF-8, names and values of an event together
TIME_WORDS = 3  # characters that a time counts as: it needs 9 bytes
_NIL = msgspec.Raw(b"\xc0")
_OWN_CONTENT = (JSON, BYTES)  # which need no check
_EXTENSION = re.compile(r"[a-z0-9]{1,64}")
_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f]")

Time = Annotated[int, msgspec.Meta(ge=0, le=MAX_TIME)]
Extensions = dict[str, str]


class Header(msgspec.Struct, array_like=True, frozen=True):
    """Everything about a batch's events except their payloads.

    `producer` is a random number for one process's firings on one topic, and its events are numbered from `first`. An
    event's id is made from its time and these two when it is needed. `author` names who numbers them: it is a hash of a
    secret, so that no other process can number events in its name. `time` is the first event's, in ns since 1970;
    `times` are ns to add to it, one for each event.
    """

    format: int
    topic: str
    producer: int
    first: int
    count: int
    machine: str
    process: str
    author: bytes
    time: int
    times: list[Annotated[int, msgspec.Meta(le=MAX_TIME)]]
    sizes: list[Annotated[int, msgspec.Meta(ge=0)]]
    content: str | list[str] = JSON
    keys: list[str | None] | None = None
    ids: list[str | None] | None = None
    # The distinct causes, and for each event the index of its own; -1 is the application that fired it.
    causes: list[Cause] | None = None
    caused_by: list[int] | None = None
    due: list[Time | None] | None = None  # ns since 1970
    expires: list[Time | None] | None = None
    # Each is a map of text to text, or nil, and is decoded on demand.
    extensions: list[msgspec.Raw] | None = None


class Column:
    """One attribute of events: a list in the header with a value or nil for each event, or nil where none has one."""

    def __init__(self, field: str, check: Callable[[Any], object], size: Callable[[Any], int]) -> None:
        """`check` raises where another process's value is invalid; `size` returns how many characters a value needs."""
        self.field = field
        self._check = check
        self.size = size

    def values(self, header: Header) -> Sequence[Any] | None:
        """Return the value of each event, or None where all have the same: see `common`."""
        found: Sequence[Any] | None = getattr(header, self.field)
        return found

    def common(self, header: Header) -> Any:
        """Return what all events have where `values` is None."""
        return None

    def pack(self, values: Sequence[Any]) -> dict[str, Any]:
        """Return the header's fields for these values, one for each event."""
        return {self.field: None if values.count(None) == len(values) else list(values)}

    def join(self, headers: Sequence[Header]) -> dict[str, Any]:
        """Return the header's fields for all events of several batches."""
        each = [self.values(header) for header in headers]
        common = {self.common(header) for header, values in zip(headers, each, strict=True) if values is None}
        if len(common) == 1 and not any(values is not None for values in each):
            return {}  # as the first has them
        together: list[Any] = []
        for header, values in zip(headers, each, strict=True):
            together += [self.common(header)] * header.count if values is None else values
        return self.pack(together)

    def check(self, header: Header) -> None:
        """Check values that another process sent. Raise `SolarWindError`."""
        for value in self.values(header) or ():
            if value is not None:
                self._check(value)

    def fault(self, header: Header) -> str | None:
        """Return what is inconsistent in the column, or None."""
        values = self.values(header)
        return "a column of another length" if values is not None and len(values) != header.count else None


class _Content(Column):
    """The content type: one for all events, or a list."""

    def values(self, header: Header) -> Sequence[str] | None:
        return None if isinstance(header.content, str) else header.content

    def common(self, header: Header) -> Any:
        return header.content

    def pack(self, values: Sequence[str]) -> dict[str, Any]:
        return {"content": values[0] if values.count(values[0]) == len(values) else list(values)}

    def check(self, header: Header) -> None:
        for content in {header.content} if isinstance(header.content, str) else set(header.content):
            if content not in _OWN_CONTENT:
                self._check(content)


class _Causes(Column):
    """The distinct causes, and for each event the index of its own."""

    def values(self, header: Header) -> Sequence[Cause | None] | None:
        if header.causes is None or header.caused_by is None:
            return None
        return [header.causes[index] if index >= 0 else None for index in header.caused_by]

    def pack(self, values: Sequence[Cause | None]) -> dict[str, Any]:
        distinct: dict[Cause, int] = {}
        which = [-1 if cause is None else distinct.setdefault(cause, len(distinct)) for cause in values]
        return {"causes": list(distinct), "caused_by": which} if distinct else {"causes": None, "caused_by": None}

    def check(self, header: Header) -> None:
        causes = header.causes or ()
        if len(causes) > header.count:
            raise TooLarge(f"expected at most one cause an event, got {len(causes):,} for {header.count:,}")
        for cause in causes:
            self._check(cause)

    def fault(self, header: Header) -> str | None:
        if header.caused_by is None:
            return None
        if len(header.caused_by) != header.count:
            return "a column of another length"
        causes = len(header.causes or ())
        if min(header.caused_by) < -1 or max(header.caused_by) >= causes:
            return f"a cause that is not among the {causes} named"
        return None


class _Extensions(Column):
    """Maps of text to text. They stay encoded where a batch is only cut or joined."""

    def values(self, header: Header) -> Sequence[msgspec.Raw | None] | None:
        if header.extensions is None:
            return None
        return [None if bytes(each) == b"\xc0" else each for each in header.extensions]

    def pack(self, values: Sequence[msgspec.Raw | Mapping[str, str] | None]) -> dict[str, Any]:
        if values.count(None) == len(values):
            return {"extensions": None}
        return {"extensions": list(map(_packed, values))}

    def fault(self, header: Header) -> str | None:
        try:
            for value in self.values(header) or ():
                if value is not None:
                    read_extensions(value)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            return f"extensions that are not at most {MAX_EXTENSIONS} texts by name: {error}"
        return super().fault(header)


def _packed(value: msgspec.Raw | Mapping[str, str] | None) -> msgspec.Raw:
    if value is None:
        return _NIL
    # A copy: what is cut out of a batch must not keep the whole of it in memory.
    return value.copy() if isinstance(value, msgspec.Raw) else msgspec.Raw(_encode(value))


def _check_packed(value: msgspec.Raw) -> None:
    check_extensions(read_extensions(value))


def _any_time(value: int) -> None:
    """Accept it: what a `Time` may be is checked where it is decoded."""


_encode = msgspec.msgpack.Encoder().encode
read_extensions: Callable[[msgspec.Raw], Extensions] = msgspec.msgpack.Decoder(
    Annotated[Extensions, msgspec.Meta(max_length=MAX_EXTENSIONS)]
).decode

COLUMNS: tuple[Column, ...] = (
    _Content("content", check_content, len),
    Column("keys", check_key, len),
    Column("ids", check_id, len),
    _Causes("causes", Cause._check, lambda cause: cause._length),
    Column("due", _any_time, lambda time: TIME_WORDS),
    Column("expires", _any_time, lambda time: TIME_WORDS),
    _Extensions("extensions", _check_packed, lambda extensions: sum(map(len, (*extensions, *extensions.values())))),
)
COLUMN = {column.field: column for column in COLUMNS}
SIZE = {column.field: column.size for column in COLUMNS}  # characters of a value
_values = attrgetter(*COLUMN)
_PLAIN = (JSON,) + (None,) * (len(COLUMNS) - 1)
_PLAINS = [(content, *_PLAIN[1:]) for content in _OWN_CONTENT]  # the columns of most batches


def columns_of(header: Header) -> Sequence[Column]:
    """Return the columns that hold something which has to be looked at: none for most batches."""
    values = _values(header)
    if values in _PLAINS:
        return ()
    return [column for column, value, plain in zip(COLUMNS, values, _PLAIN, strict=True) if value != plain]


Attributes = Mapping[str, Any]  # what an event says besides its payload: a value by the field of its column


def words(attributes: Attributes) -> int:
    """Return how many characters these attributes need in a batch's header."""
    size = 0
    for field, value in attributes.items():
        size += SIZE[field](value)
    return size


def gathered(events: Iterable[Attributes]) -> dict[str, list[Any]]:
    """Return the columns for events in this order."""
    events = list(events)
    fields = {field for event in events for field in event}
    return {field: [event.get(field) for event in events] for field in fields}


def check_extensions(extensions: object) -> Extensions:
    """Return an event's extensions, text by name such as `traceparent`. Raise `BadArgument`."""
    expected = f"extensions, at most {MAX_EXTENSIONS} texts by names of a-z and 0-9, such as {{'traceparent': '00-…'}}"
    if not isinstance(extensions, Mapping) or len(extensions) > MAX_EXTENSIONS:
        got = f"{len(extensions)}" if isinstance(extensions, Mapping) else shown(extensions)
        raise BadArgument(f"expected {expected}, got {got}")
    size = 0
    for name, value in extensions.items():
        if not isinstance(name, str) or not _EXTENSION.fullmatch(name):
            raise BadArgument(f"expected {expected}, got one named {shown(name)}")
        if name in RESERVED:
            raise BadArgument(f"expected {expected}, got {name!r}, which an event says otherwise: leave it out")
        if not isinstance(value, str) or _CONTROL.search(value):
            raise BadArgument(f"expected extension {name} as text without control characters, got {shown(value)}")
        try:
            size += len(name) + len(value.encode())
        except UnicodeEncodeError:
            raise BadArgument(f"expected extension {name} as text, got a lone surrogate in {shown(value)}") from None
    if size > MAX_EXTENSION_BYTES:
        raise BadArgument(f"expected extensions of at most {MAX_EXTENSION_BYTES:,} bytes together, got {size:,}")
    return dict(extensions)


# The attributes of a CloudEvent that are fields of an event, or that say how it is handed out.
RESERVED = frozenset(
    (
        *("specversion", "id", "type", "source", "time", "datacontenttype", "data", "partitionkey"),
        *("causationid", "causationpurpose", "causationversion", "causekind", "causename", "correlationid"),
        *("purpose", "attempt", "token", "duetime", "expirytime"),
    )
)
