"""Limits for everything that can grow, so that memory is bounded."""

from __future__ import annotations

import msgspec

from .errors import BadArgument
from .option_structs import OptionsMeta


class Limits(msgspec.Struct, frozen=True, kw_only=True, metaclass=OptionsMeta):
    """Limits for everything that can grow: pass them to `SolarWind(url, limits=Limits(...))`. All are 1 or more. Bytes
    are bytes of payload; for events that wait they are all the memory used: payloads, keys, ids, causes and the event
    objects."""

    payload_bytes: int = 1 << 20
    batch_bytes: int = 1 << 20
    batch_events: int = 4_096
    unaccepted_bytes: int = 64 << 20  # fired by this process, or by a handler, and not yet accepted: above it `Busy`
    in_hand_bytes: int = 16 << 20  # of one instance: with more it gets no further batch
    copies: int = 10_000  # events that a fan-out instance's buffer holds
    copy_bytes: int = 16 << 20
    names: int = 100_000  # topics, and purposes
    versions: int = 100  # of a purpose that are known: above it, the first that are over are forgotten
    depth: int = 100  # events of a chain before the last: a handler that would fire one more has a dead letter
    # Events of a purpose that wait behind others of their key: so far ahead a keyed purpose looks for keys that are
    # free. And events that wait for a retry: with more of them the purpose pauses.
    waiting: int = 100_000

    def __post_init__(self) -> None:
        for name in self.__struct_fields__:
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < 1:
                raise BadArgument(f"expected limit {name} to be an integer of 1 or more, got {value!r}")
