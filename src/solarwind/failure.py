"""What a handler can say of an event besides returning, and how a purpose tries again."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from .errors import BadArgument

MOST_SECONDS = 1e9  # 31 years, and far within what ns since 1970 can tell


class Retry(msgspec.Struct, frozen=True):
    """How often and when an event is tried again after its handler raised.

    `attempts` counts the first one too. Before attempt n + 1 it waits a random time (full jitter) of up to
    `wait * factor ** (n - 1)` seconds, `ceiling` at most. As it is by default that is a quarter of an hour in all, on
    average: as long as it may take until a database is back.
    """

    attempts: int = 12
    wait: float = 1.0
    factor: float = 2.0
    ceiling: float = 600.0

    def __post_init__(self) -> None:
        if not isinstance(self.attempts, int) or self.attempts < 1:
            raise BadArgument(f"expected Retry attempts of 1 or more, got {self.attempts!r}")
        for name, value, least in (("wait", self.wait, 0), ("factor", self.factor, 1), ("ceiling", self.ceiling, 0)):
            if not isinstance(value, int | float) or not least <= value < MOST_SECONDS:
                raise BadArgument(
                    f"expected a Retry {name} of {least} or more, below a thousand million, got {value!r}"
                )

    def delay_ns(self, tried: int, random: Callable[[], float]) -> int:
        """How long to wait after `tried` attempts; `random` gives a number from 0 up to 1."""
        return int(random() * self.longest_ns(tried))

    def longest_ns(self, tried: int) -> int:
        """How long to wait after `tried` attempts at most."""
        # The exponent is bounded so that a long series of attempts does not overflow.
        return int(min(self.ceiling, self.wait * self.factor ** min(tried - 1, 32)) * 1e9)


class Later(Exception):
    """Raise it in a handler: hand this event out again in `seconds`, and do not count the attempt."""

    def __init__(self, seconds: float) -> None:
        if not isinstance(seconds, int | float) or not 0 <= seconds < MOST_SECONDS:
            raise BadArgument(f"expected Later seconds of 0 or more, below a thousand million, got {seconds!r}")
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class Reject(Exception):
    """Raise it in a handler: no attempt at this event can succeed, make it a dead letter at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason
