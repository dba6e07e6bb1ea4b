"""How much a peer may cost the server. Each is an option of `solarwind serve` too."""

from __future__ import annotations

import msgspec

from ..errors import BadArgument


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Give `app(..., settings=Settings(...))` others than these."""

    frame_bytes: int = 8 << 20  # a WebSocket message
    body_bytes: int = 16 << 20  # an HTTP body that is read as a whole; NDJSON is not, and has no end
    header_bytes: int = 16 << 10  # of a request, all headers together
    nesting: int = 64  # arrays and objects within each other, in a JSON body
    ids: int = 10_000  # ids and tokens in one request, and events in one take
    connections: int = 1_000  # at a time from one address
    authenticate_s: float = 5.0  # from the connection to its first request, and from the handshake to `hello`
    idle_s: float = 60.0  # an HTTP connection without a request
    heartbeat_s: float = 15.0  # a peer that was silent for two of them is gone
    instances: int = 10_000  # of one connection
    unanswered: int = 1_000  # calls of one connection that are not answered yet

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int | float) or value <= 0:
                raise BadArgument(f"expected a setting {name} above 0, got {value!r}")
