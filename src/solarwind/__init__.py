"""Solar Wind: an event dispatcher. Producers fire events on a topic; handlers state the purpose they handle them
for."""

from .errors import (
    BadArgument,
    BadName,
    BadPayload,
    BadToken,
    Busy,
    ConflictError,
    NotAllowed,
    NotFound,
    ProtocolError,
    SolarWindError,
    StoreError,
    TooLarge,
    Unavailable,
)
from .event import Cause, Event
from .failure import Later, Reject, Retry
from .limits import Limits
from .shares import Share
from .wind import SolarWind

__all__ = [
    "BadArgument",
    "BadName",
    "BadPayload",
    "BadToken",
    "Busy",
    "Cause",
    "ConflictError",
    "Event",
    "Later",
    "Limits",
    "NotAllowed",
    "NotFound",
    "ProtocolError",
    "Reject",
    "Retry",
    "Share",
    "SolarWind",
    "SolarWindError",
    "StoreError",
    "TooLarge",
    "Unavailable",
]
