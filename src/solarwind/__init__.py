"""Solar Wind: an event dispatcher. Producers fire events on a topic; handlers state the purpose they handle them
for."""

import typing as _typing
from importlib import import_module as _import_module

if _typing.TYPE_CHECKING:
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
    from .records import Dead
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
    "Dead",
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

# The modules in which the names are, the cheapest first.
_MODULES = (
    "errors",
    "limits",
    "shares",
    "failure",
    "event",
    "depends",
    "records",
    "service.middleware",
    "handlers",
    "wind",
)


def __getattr__(name: str) -> _typing.Any:
    """Import a name when it is first used: who needs an error or the command line need not wait for all."""
    for module in _MODULES if name in __all__ else ():
        found = getattr(_import_module(f"{__name__}.{module}"), name, None)
        if found is not None:
            globals()[name] = found
            return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the public names, imported or not."""
    return sorted({*globals(), *__all__})
