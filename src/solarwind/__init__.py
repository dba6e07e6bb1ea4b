"""Solar Wind: an event dispatcher. Producers fire events on a topic; handlers state the purpose they handle them
for."""

from .depends import Depends
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
from .handlers import Handlers
from .limits import Limits
from .service.middleware import Handing
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
    "Depends",
    "Event",
    "Handing",
    "Handlers",
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
