"""What goes into the core and what comes out of it, as values. The engine carries the effects out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import msgspec

from ..failure import Retry
from .log import Stored
from .spans import Spans


class Join(msgspec.Struct, frozen=True, omit_defaults=True, forbid_unknown_fields=True):
    """A handler's registration: one service instance of (topic, purpose, version). It travels as a map of its fields.

    `room` is how many events it can begin at once: the fewest it is ever given. `origin` says which machine and
    process it is in, for exchanges; those with one `process` end together, and one without is on its own. `lease_ns` is
    how long it may be silent with events in hand. `key_missing` is what becomes of an event without a key where the
    exchange is keyed: "handle" as one with a key of its own, or "reject". `retry` is how the version retries from now
    on; None leaves it as stated before, which is `Retry()` for a new version. `rollout` is what becomes of a version
    that is first seen beside others: "newest", it is current; "hold", it gets nothing yet; "shadow", it gets
    copies of what the current one gets; or it has that share. `delay_ns` is how long after it was accepted, or was due,
    the version gets an event. While the version is current the purpose is handed out no more events than `rate` says,
    such as "100/s", and has no more than `at_most` in flight; None for no limit. `timeout_ns` is how long its handler
    may take for a call, which the instance sees to itself; 0 for as long as it likes. `schema` is what its handler
    reads, a JSON Schema, for the engine to keep.
    """

    topic: str
    purpose: str
    exchange: str = "direct"
    version: int = 1
    key: str | None = None
    retry: Retry | None = None
    lease_ns: int = 30_000_000_000
    room: int = 1
    origin: str = ""
    key_missing: str = "handle"
    process: str = ""
    rollout: str | float = "newest"
    delay_ns: int = 0
    schema: bytes = b""
    rate: str | None = None
    at_most: int | None = None
    timeout_ns: int = 0


class Failure(msgspec.Struct, frozen=True, array_like=True):
    """An event whose handler did not return: `retry` and `later` hand it out again, `reject` does not.

    `after_ns` is how long it waits until then. With `retry` the instance may draw it by its own `Retry`, so that it can
    say so where the handler raised; where it is 0, the dispatcher draws it.
    """

    position: int
    verdict: Literal["retry", "later", "reject"]
    error: str = ""
    after_ns: int = 0


class Report(msgspec.Struct, frozen=True, array_like=True):
    """What an instance made of (some of) the events of one lease.

    `handled` is how many events of the lease it has worked on so far, and `busy_ns` how long, at its concurrency.
    `refusal` is why what the handlers fired cannot be taken: then what is done is as if they had raised that.
    """

    instance: int
    lease: int
    done: Spans
    failed: Sequence[Failure] = ()
    returned: Spans = msgspec.field(default_factory=Spans)
    handled: int = 0
    busy_ns: int = 0
    refusal: str = ""


class Offer(msgspec.Struct, frozen=True):
    """The effect that hands events of one batch to an instance.

    `picks` are positions in order; `tried` has the attempts already made, of events that had any. With `after_commit`,
    they are handed out only when every change so far is committed. With `shadow` they are copies for a shadow: nothing
    that their handlers fire is accepted."""

    instance: int
    lease: int
    stored: Stored
    picks: Sequence[int]
    tried: dict[int, int]
    after_commit: bool = False
    shadow: bool = False


class Fetch(msgspec.Struct, frozen=True):
    """The effect that reads the topic's log from this position on; `Dispatcher.fetched` is called with the result."""

    topic: str
    position: int


class Closed(msgspec.Struct, frozen=True):
    """The effect that tells an instance that its purpose was retired."""

    instance: int
    reason: str


class Fault(msgspec.Struct, frozen=True):
    """The effect that logs a fault that is not the dispatcher's own, once for each `about`."""

    text: str
    about: tuple[str, ...]


Effect = Offer | Fetch | Closed | Fault
