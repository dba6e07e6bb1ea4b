"""Every error Solar Wind raises, one class per decision a caller makes.

    SolarWindError
    ├── BadName         an invalid topic, purpose, key or id                (caller)
    ├── BadArgument     an invalid option, URL or handler signature         (caller)
    ├── BadPayload      a payload that cannot be encoded or does not fit     (caller)
    ├── TooLarge        more bytes or events than the limit                  (caller)
    ├── NotFound        nothing is known under that name or id               (caller)
    ├── ConflictError   it contradicts what was stated before               (caller)
    ├── NotAllowed      the exchange or the caller's rights forbid it       (caller)
    │   └── BadToken    no token, or an unknown, revoked or expired one     (caller)
    ├── Busy            a buffer is full; the same call may succeed later   (system)
    ├── Unavailable     not started, stopped, or out of reach                (system)
    ├── StoreError      the store cannot keep its promise                    (store)
    └── ProtocolError   the other side broke the wire format                 (peer)

Each carries a stable `code` and says whose `fault` it is; its text is one sentence that says what was
expected, what came, and what to do.
"""

from __future__ import annotations

from typing import ClassVar, Literal

Fault = Literal["caller", "system", "store", "peer"]


class SolarWindError(Exception):
    """The base of all errors that Solar Wind raises."""

    code: ClassVar[str] = "error"
    fault: ClassVar[Fault] = "system"


class BadName(SolarWindError, ValueError):
    """A topic, purpose or key outside its grammar."""

    code = "bad-name"
    fault = "caller"


class BadArgument(SolarWindError, ValueError):
    """An invalid option, URL or handler signature."""

    code = "bad-argument"
    fault = "caller"


class BadPayload(SolarWindError, ValueError):
    """A payload that cannot be encoded, or that does not fit the type it is decoded to."""

    code = "bad-payload"
    fault = "caller"


class TooLarge(SolarWindError, ValueError):
    """A payload or batch above the limit."""

    code = "too-large"
    fault = "caller"


class NotFound(SolarWindError, LookupError):
    """The topic, purpose, event or dead letter is not known."""

    code = "not-found"
    fault = "caller"


class ConflictError(SolarWindError):
    """The request contradicts what was stated before, or events that still pend."""

    code = "conflict"
    fault = "caller"


class NotAllowed(SolarWindError):
    """The exchange, the system or the caller's rights do not allow it."""

    code = "not-allowed"
    fault = "caller"


class BadToken(NotAllowed):
    """No token where one is needed, or one that is unknown, revoked or expired."""

    code = "bad-token"
    fault = "caller"


class Busy(SolarWindError):
    """A buffer is full. Wait for earlier events to be accepted, then try again."""

    code = "busy"
    fault = "system"


class Unavailable(SolarWindError):
    """The dispatcher is not started, already stopped, or out of reach."""

    code = "unavailable"
    fault = "system"


class StoreError(SolarWindError):
    """The store cannot be opened, read or written. No accepted event is dropped silently."""

    code = "store"
    fault = "store"


class ProtocolError(SolarWindError):
    """The bytes do not follow the format."""

    code = "protocol"
    fault = "peer"
