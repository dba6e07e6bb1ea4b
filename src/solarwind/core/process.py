"""What ends together: the process that instances are in, and the last attempts that are alone in it.

An event may be handed out for the last time because something died while it was in hand, and nobody knows at which
event that was. If another event ended the process during that last attempt, it would be dead by that one's fault. So a
last attempt waits until its process has nothing else in hand, and nothing else of any purpose goes there before it is
durable how the attempt ended.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

import msgspec

from .state import Change

if TYPE_CHECKING:
    from .instance import Instance
    from .purpose import Purpose
    from .track import Track


class Process(msgspec.Struct, eq=False):
    """A process with instances, of any purposes. `home`: it is the dispatcher's own."""

    name: str = ""
    home: bool = False
    instances: dict[int, tuple[Instance, Purpose]] = msgspec.field(default_factory=dict)
    in_hand: int = 0  # events that pend
    lost_with: int = -1  # events in hand, when the first of its instances was lost; -1 since it got something again
    waiting: deque[Track] = msgspec.field(default_factory=deque)  # those with a last attempt for it: the first is next
    last_attempt: int = 0  # the lease of the first's last attempt, until how that ended is durable
    last_end: Change | None = None  # how it ended, until that is durable
    closed: bool = False  # nothing but last attempts goes there

    def lose(self) -> int:
        """Note that an instance was lost. Return how many events were in hand when the first one was."""
        if self.lost_with < 0:
            self.lost_with = sum([instance.in_flight for instance, _ in self.instances.values()])
        return self.lost_with
