"""An event as a handler sees it, and what caused it."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import msgspec

from . import payload as codec
from .errors import BadArgument

if TYPE_CHECKING:
    from .batch import Batch

T = TypeVar("T")
CauseKind = Literal["event", "user", "schedule", "machine", "application"]
_KINDS = get_args(CauseKind)
_SUCH_AS = "such as Cause.user('alice')"
MAX_CAUSE = 1_000  # characters of whatever a cause names
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Cause(msgspec.Struct, frozen=True, array_like=True):
    """Why an event was fired.

    `kind` says what `id` names: an earlier event's id, a user, a schedule, a machine or an application.
    For an earlier event, `purpose` and `version` are those of the handler that fired this one, and
    `root` is the id of the event at the head of the chain.
    """

    kind: CauseKind
    id: str
    purpose: str | None = None
    version: int | None = None
    root: str | None = None

    def __post_init__(self) -> None:
        """Raises `BadArgument` for what is not of its type, also where Python's own call lets it pass."""
        for name, value, type_, optional in (
            ("kind", self.kind, str, False),
            ("id", self.id, str, False),
            ("purpose", self.purpose, str, True),
            ("version", self.version, int, True),
            ("root", self.root, str, True),
        ):
            if not (isinstance(value, type_) or (optional and value is None)):
                raise BadArgument(f"expected a cause's {name} as {type_.__name__}, got {value!a}: {_SUCH_AS}")
        if self.kind not in _KINDS:
            raise BadArgument(f"expected a cause's kind, one of {', '.join(_KINDS)}, got {self.kind!a}: {_SUCH_AS}")

    @classmethod
    def user(cls, name: str) -> Cause:
        return cls("user", name)

    @classmethod
    def schedule(cls, name: str) -> Cause:
        return cls("schedule", name)

    @classmethod
    def machine(cls, name: str) -> Cause:
        return cls("machine", name)

    @classmethod
    def application(cls, name: str) -> Cause:
        return cls("application", name)

    @classmethod
    def of(cls, cause: object) -> Cause | None:
        """What somebody gives as a cause: one, or the event that is it, or None. Else raises `BadArgument`."""
        if isinstance(cause, Event):
            return cls.event(cause)
        if cause is None:
            return None
        fault = ""
        if isinstance(cause, Cause):
            try:  # nothing says that its fields are what they are to be, or can be written down
                found = _read_cause(_write_cause(cause))
                found._check()
                return found
            except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
                fault = f", where {error}"
        raise BadArgument(f"expected a Cause or an Event as cause, got {cause!a}{fault}: {_SUCH_AS}")

    @property
    def _length(self) -> int:
        """Characters of all that it names."""
        return len(self.id) + len(self.purpose or "") + len(self.root or "")

    def _check(self) -> None:
        """Raises `BadArgument` where it says more than a cause may."""
        for name, text in (("id", self.id), ("purpose", self.purpose or ""), ("root", self.root or "")):
            if len(text) > MAX_CAUSE:
                raise BadArgument(
                    f"expected a cause whose {name} has at most {MAX_CAUSE:,} characters, got {len(text):,}"
                )

    @classmethod
    def event(cls, event: Event) -> Cause:
        """The cause of what is fired because of `event`."""
        if not isinstance(event, Event):
            raise BadArgument(f"expected the Event that is the cause, got {event!a}: {_SUCH_AS}")
        return cls("event", event.id, event.purpose or None, event.version or None, event.root)


_write_cause = msgspec.msgpack.Encoder().encode
_read_cause = msgspec.msgpack.Decoder(Cause).decode


class HandOut(msgspec.Struct, eq=False):
    """What the events that are handed out together have in common. `start` is the position of the batch's first;
    `home` the engine they come from; `tried` the attempts already made, by position."""

    batch: Batch
    start: int = 0
    purpose: str = ""
    version: int = 0
    home: Any = None
    tried: dict[int, int] = msgspec.field(default_factory=dict)


class Event(msgspec.Struct, eq=False, repr_omit_defaults=True):
    """A notice that something happened. Nobody else sees what you do to this object or its payload.

    It is a view on its batch: whatever you do not ask for is never taken apart.
    """

    _of: HandOut
    _index: int
    _decoded: Any = msgspec.UNSET
    # What the handler fired while it runs; None once it has returned, and outside of a handler.
    _fired: Any = msgspec.UNSET

    @property
    def id(self) -> str:
        """Unique; sorts by the time of firing: within a process as it was fired, and after the event that caused it."""
        return self._of.batch.id(self._index)

    @property
    def topic(self) -> str:
        return self._of.batch.topic

    @property
    def payload(self) -> Any:
        """The payload as plain Python values, decoded on first use; `bytes` as they were fired."""
        if self._decoded is msgspec.UNSET:
            self._decoded = codec.decode(self.data, self.content_type)
        return self._decoded

    @property
    def data(self) -> bytes:
        """The payload as it travels, undecoded."""
        return self._of.batch.payload(self._index)

    @property
    def content_type(self) -> str:
        """`application/json`, or `application/octet-stream` for bytes."""
        return self._of.batch.content(self._index)

    def decode(self, type_: type[T]) -> T:
        """The payload as a `type_`. Raises `BadPayload` where it does not fit."""
        value: T = codec.decoder(cast(Hashable, type_))(self.data, self.content_type)
        return value

    @property
    def time_ns(self) -> int:
        """When it was fired, in nanoseconds since 1970, UTC."""
        return self._of.batch.time(self._index)

    @property
    def time(self) -> datetime:
        """When it was fired, UTC; `time_ns` keeps the nanoseconds that a datetime cannot."""
        return _EPOCH + timedelta(microseconds=self.time_ns // 1000)

    @property
    def machine(self) -> str:
        return self._of.batch.header.machine

    @property
    def process(self) -> str:
        """The process that fired it: its program and process id."""
        return self._of.batch.header.process

    @property
    def cause(self) -> Cause:
        return self._of.batch.cause(self._index)

    @property
    def root(self) -> str:
        """The id of the event at the head of the chain: its own where no event caused it."""
        return self.cause.root or self.id

    @property
    def key(self) -> str | None:
        return self._of.batch.key(self._index)

    @property
    def extensions(self) -> dict[str, str]:
        """What else was fired with it, text by name, such as `traceparent`; another dict each time."""
        return self._of.batch.extensions(self._index)

    @property
    def attempt(self) -> int:
        """1 the first time this purpose hands the event out."""
        return self._of.tried.get(self._of.start + self._index, 0) + 1

    @property
    def purpose(self) -> str:
        """The purpose it is handed out for; empty outside of a handler."""
        return self._of.purpose

    @property
    def version(self) -> int:
        """The version of the purpose it is handed out to; 0 outside of a handler."""
        return self._of.version

    def __repr__(self) -> str:
        return f"<Event {self.id} on {self.topic!r}>"
