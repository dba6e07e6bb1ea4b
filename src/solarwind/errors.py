"""Every error Solar Wind raises, one class per decision a caller makes.

    SolarWindError
    ├── BadName         a topic, purpose or key that is not one              (caller)
    ├── BadArgument     an option, URL or handler that cannot be meant       (caller)
    ├── BadPayload      a payload that cannot be encoded or does not fit     (caller)
    ├── TooLarge        more bytes or events than the limit                  (caller)
    ├── NotFound        nothing is known under that name or id               (caller)
    ├── ConflictError   it contradicts what stands already                   (caller)
    ├── NotAllowed      the exchange or the caller's rights rule it out      (caller)
    │   └── BadToken    no token, or one that is not known (any more)        (caller)
    ├── Busy            full for now; the same call may go through later     (system)
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
    """The root of the tree. Catch it to catch whatever Solar Wind refuses."""

    code: ClassVar[str] = "error"
    fault: ClassVar[Fault] = "system"


class BadName(SolarWindError, ValueError):
    """A topic, purpose or key outside its grammar."""

    code = "bad-name"
    fault = "caller"


class BadArgument(SolarWindError, ValueError):
    """An option, a URL or a handler's signature that cannot be meant."""

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
    """No such topic, purpose, event or dead letter."""

    code = "not-found"
    fault = "caller"


class ConflictError(SolarWindError):
    """It contradicts what was stated before, or what still pends."""

    code = "conflict"
    fault = "caller"


class NotAllowed(SolarWindError):
    """The exchange, or the caller's rights, do not allow it."""

    code = "not-allowed"
    fault = "caller"


class BadToken(NotAllowed):
    """No token where one is needed, or one that is unknown, revoked or expired."""

    code = "bad-token"
    fault = "caller"


class Busy(SolarWindError):
    """A buffer is full. Wait for what was fired before, then try again."""

    code = "busy"
    fault = "system"


class Unavailable(SolarWindError):
    """Not started, already stopped, or out of reach."""

    code = "unavailable"
    fault = "system"


class StoreError(SolarWindError):
    """The store cannot be opened, read or written. Nothing that was accepted is forgotten silently."""

    code = "store"
    fault = "store"


class ProtocolError(SolarWindError):
    """Bytes that are not what the format says."""

    code = "protocol"
    fault = "peer"
