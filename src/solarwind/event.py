"""An event as a handler sees it, and what caused it."""

from __future__ import annotations

from collections.abc import Hashable
from datetime import datetime
from typing import TYPE_CHECKING, Any, Literal, TypeVar, cast, get_args

import msgspec

from . import payload as codec
from .errors import BadArgument
from .timing import time_of

if TYPE_CHECKING:
    from .batch import Batch

T = TypeVar("T")
CauseKind = Literal["event", "user", "schedule", "machine", "application"]
_KINDS = get_args(CauseKind)
_SUCH_AS = "such as Cause.user('alice')"
MAX_CAUSE = 1_000  # characters of an id, purpose or root


class Cause(msgspec.Struct, frozen=True, array_like=True):
    """Why an event was fired.

    `kind` says what `id` names: an earlier event's id, a user, a schedule, a machine or an application.
    For an earlier event, `purpose` and `version` are those of the handler that fired this one,
    `root` is the id of the event at the head of the chain, `depth` how many events of the chain come
    before this one, and `topic` that of the earlier event; None where that is not known.
    """

    kind: CauseKind
    id: str
    purpose: str | None = None
    version: int | None = None
    root: str | None = None
    depth: int | None = None
    topic: str | None = None

    def __post_init__(self) -> None:
        """Raise `BadArgument` for a field of another type, which a direct call would let pass."""
        # In one expression, because it is called for each cause that is read.
        if not (
            isinstance(self.id, str)
            and (self.purpose is None or isinstance(self.purpose, str))
            and (self.version is None or isinstance(self.version, int))
            and (self.root is None or isinstance(self.root, str))
            and (self.depth is None or isinstance(self.depth, int))
            and (self.topic is None or isinstance(self.topic, str))
            and self.kind in _KINDS
        ):
            self._refuse()

    def _refuse(self) -> None:
        for name, value, type_, optional in (
            ("kind", self.kind, str, False),
            ("id", self.id, str, False),
            ("purpose", self.purpose, str, True),
            ("version", self.version, int, True),
            ("root", self.root, str, True),
            ("depth", self.depth, int, True),
            ("topic", self.topic, str, True),
        ):
            if not (isinstance(value, type_) or (optional and value is None)):
                raise BadArgument(f"expected a cause's {name} as {type_.__name__}, got {value!a}: {_SUCH_AS}")
        raise BadArgument(f"expected a cause's kind, one of {', '.join(_KINDS)}, got {self.kind!a}: {_SUCH_AS}")

    @classmethod
    def user(cls, name: str) -> Cause:
        """Return the user of that name, as a cause."""
        return cls("user", name)

    @classmethod
    def schedule(cls, name: str) -> Cause:
        """Return the schedule of that name, as a cause."""
        return cls("schedule", name)

    @classmethod
    def machine(cls, name: str) -> Cause:
        """Return the machine of that name, as a cause."""
        return cls("machine", name)

    @classmethod
    def application(cls, name: str) -> Cause:
        """Return the application of that name, as a cause."""
        return cls("application", name)

    @classmethod
    def of(cls, cause: object) -> Cause | None:
        """Return the cause that an argument names: a `Cause`, the event that is the cause, or None. Raise `BadArgument`
        for anything else."""
        if isinstance(cause, Event):
            return cls.event(cause)
        if cause is None:
            return None
        fault = ""
        if isinstance(cause, Cause):
            try:  # nothing has checked that its fields have their types and can be encoded
                found = _read_cause(_write_cause(cause))
                found._check()
                return found
            except (msgspec.MsgspecError, TypeError, ValueError, OverflowError) as error:
                fault = f", where {error}"
        raise BadArgument(f"expected a Cause or an Event as cause, got {cause!a}{fault}: {_SUCH_AS}")

    @property
    def _length(self) -> int:
        """The characters of all its names."""
        return len(self.id) + len(self.purpose or "") + len(self.root or "") + len(self.topic or "")

    def _check(self) -> None:
        """Raise `BadArgument` where a field is too long, or the depth is none."""
        for name, text in (("id", self.id), ("purpose", self.purpose), ("root", self.root), ("topic", self.topic)):
            if text is not None and len(text) > MAX_CAUSE:
                raise BadArgument(
                    f"expected a cause whose {name} has at most {MAX_CAUSE:,} characters, got {len(text):,}"
                )
        if self.depth is not None and self.depth < 1:
            raise BadArgument(f"expected a cause whose depth is 1 or more, got {self.depth}")

    @classmethod
    def event(cls, event: Event) -> Cause:
        """Return the cause for an event that is fired because of `event`."""
        if not isinstance(event, Event):
            raise BadArgument(f"expected the Event that is the cause, got {event!a}: {_SUCH_AS}")
        id, cause = event.id, event.cause
        root, depth = (cause.root or id, cause.depth or 1) if cause.kind == "event" else (id, 0)
        return cls("event", id, event.purpose or None, event.version or None, root, depth + 1, event.topic)


_write_cause = msgspec.msgpack.Encoder().encode
_read_cause = msgspec.msgpack.Decoder(Cause).decode


class HandOut:
    """What the events that are handed out together share. `start` is the position of the batch's first event, `home`
    the engine they come from, and `tried` the attempts already made, by position. With `shadow` they are copies for a
    shadow. `handled` is the one whose handler is running, of several together the first."""

    __slots__ = ("batch", "handled", "home", "purpose", "shadow", "start", "tried", "version")

    def __init__(
        self,
        batch: Batch,
        start: int = 0,
        purpose: str = "",
        version: int = 0,
        home: object = None,
        tried: dict[int, int] | None = None,
        shadow: bool = False,
    ) -> None:
        self.batch = batch
        self.start = start
        self.purpose = purpose
        self.version = version
        self.home = home
        self.tried = {} if tried is None else tried
        self.shadow = shadow
        self.handled: Event | None = None


class Event(msgspec.Struct, eq=False, repr_omit_defaults=True):
    """A notice that something happened. Changes to this object or its payload are visible to its handler alone.

    It is a view on its batch: an attribute is decoded when it is first read.
    """

    _of: HandOut
    _index: int
    _decoded: Any = msgspec.UNSET
    _fired: Any = msgspec.UNSET  # what the handler has fired so far

    @property
    def _is_handled(self) -> bool:
        """Whether its handler is running."""
        return self._of.handled is self

    @property
    def id(self) -> str:
        """A unique id that sorts by the time of firing: in one process in the order fired, and after the event that
        caused it."""
        return self._of.batch.id(self._index)

    @property
    def topic(self) -> str:
        """The topic that it was fired on."""
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
        """Return the payload as a `type_`. Raise `BadPayload` where it does not fit."""
        value: T = codec.decoder(cast(Hashable, type_))(self.data, self.content_type)
        return value

    @property
    def time_ns(self) -> int:
        """When it was fired, in nanoseconds since 1970, UTC."""
        return self._of.batch.time(self._index)

    @property
    def time(self) -> datetime:
        """When it was fired, UTC; `time_ns` keeps the nanoseconds that a datetime does not hold."""
        return time_of(self.time_ns)

    @property
    def machine(self) -> str:
        """The machine that fired it, by its host name."""
        return self._of.batch.header.machine

    @property
    def process(self) -> str:
        """The process that fired it: its program and process id."""
        return self._of.batch.header.process

    @property
    def cause(self) -> Cause:
        """Why it was fired: an earlier event, a user, a schedule, a machine or an application."""
        return self._of.batch.cause(self._index)

    @property
    def root(self) -> str:
        """The id of the event at the head of the chain; its own id where no event caused it."""
        return self.cause.root or self.id

    @property
    def depth(self) -> int:
        """How many events of the chain that caused it come before it, as far as that is known; 0 where no event caused
        it."""
        cause = self.cause
        return cause.depth or 1 if cause.kind == "event" else 0

    @property
    def key(self) -> str | None:
        """What it is ordered by for keyed purposes, as fired; None without one."""
        return self._of.batch.key(self._index)

    @property
    def due(self) -> datetime | None:
        """When it was due, UTC, where it was fired for later; else None."""
        due = self._of.batch.due(self._index)
        return None if due is None else time_of(due)

    @property
    def expires(self) -> datetime | None:
        """From when on it is not handed out any more, UTC; None for never."""
        expires = self._of.batch.expires(self._index)
        return None if expires is None else time_of(expires)

    @property
    def extensions(self) -> dict[str, str]:
        """Further attributes that it was fired with, text by name such as `traceparent`, as a new dict."""
        return self._of.batch.extensions(self._index)

    @property
    def attempt(self) -> int:
        """The number of this attempt; 1 the first time this purpose hands the event out."""
        return self._of.tried.get(self._of.start + self._index, 0) + 1

    @property
    def purpose(self) -> str:
        """The purpose it is handed out for; empty outside a handler."""
        return self._of.purpose

    @property
    def version(self) -> int:
        """The version of the purpose it is handed out to; 0 outside a handler."""
        return self._of.version

    @property
    def shadow(self) -> bool:
        """Whether it is a copy for a shadow. Nothing is accepted of what its handler fires, but whatever else the
        handler does is done: it may want to leave that out."""
        return self._of.shadow

    def once(self, connection: Any) -> Any:
        """Return whether its purpose sees it for the first time, and note that in the open transaction of `connection`,
        one to the caller's own database. A handler that does its effect in the same transaction, if this is true, has
        that effect once, however often it is called. With an asynchronous connection return an awaitable.

        False for a shadow. Raise `NotAllowed` outside a transaction, `NotFound` where the table is missing,
        `BadArgument` for what is no connection, and what the driver raises. See `SolarWind.outbox` for which there are.
        """
        from .outbox.effects import once

        return once(self, connection)

    def __repr__(self) -> str:
        return f"<Event {self.id} on {self.topic!r}>"
