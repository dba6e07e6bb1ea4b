"""Limits on what a peer may cost the server. Each is an option of `solarwind serve` too."""

from __future__ import annotations

from math import inf

import msgspec

from ..errors import BadArgument
from ..option_structs import OptionsMeta


class Settings(msgspec.Struct, frozen=True, kw_only=True, metaclass=OptionsMeta):
    """Limits on what a peer may cost: pass them to `app(..., settings=Settings(...))`."""

    frame_bytes: int = 8 << 20  # a WebSocket message
    body_bytes: int = 16 << 20  # an HTTP body that is read as a whole; NDJSON is not, and has no end
    bodies_bytes: int = 256 << 20  # all unfinished bodies, messages and held batches together
    body_rate: int = 500  # bytes a second, below which a body is given up
    header_bytes: int = 16 << 10  # of a request, all headers together; of 100 headers, each of 8,000 bytes, at most
    nesting: int = 64  # depth of arrays and objects in a JSON body
    ids: int = 10_000  # ids or tokens in one request, and events in one take
    connections: int = 1_000  # at a time from one address
    authenticate_s: float = 5.0  # to the end of TLS's handshake, from there to a whole request, and to `hello`
    idle_s: float = 60.0  # an HTTP connection without a request, in the middle of a body, or with an answer unread
    heartbeat_s: float = 15.0  # a peer that was silent for two of them is gone
    instances: int = 10_000  # of one connection; unsettled takes and feeds of all clients together
    viewers: int = 10_000  # of `/v1/watch`, all clients together
    unanswered: int = 1_000  # calls of one connection without an answer yet

    def __post_init__(self) -> None:
        for field in msgspec.structs.fields(self):
            value, whole = getattr(self, field.name), isinstance(field.default, int)
            known = isinstance(value, int if whole else int | float) and not isinstance(value, bool)
            if not known or not 0 < value < inf:
                what = "a whole number" if whole else "a number"
                raise BadArgument(f"expected a setting {field.name}, {what} above 0, got {value!r}")
