"""What a handler can say of an event besides returning, and how a purpose tries again."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from .errors import BadArgument
from .stated import Options

MAX_SECONDS = 1e9  # 31 years, and far within what ns since 1970 can tell


class Retry(msgspec.Struct, frozen=True, metaclass=Options):
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
        attempts = self.attempts
        if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts < MAX_SECONDS:
            raise BadArgument(f"expected Retry attempts of 1 or more, below a thousand million, got {attempts!r}")
        for name, value, least in (("wait", self.wait, 0), ("factor", self.factor, 1), ("ceiling", self.ceiling, 0)):
            if not _is_number(value, least):
                raise BadArgument(
                    f"expected a Retry {name} of {least} or more, below a thousand million, got {value!r}"
                )
        if self.ceiling < self.wait:
            raise BadArgument(
                f"expected a Retry ceiling of at least its wait, got wait={self.wait!r} and ceiling={self.ceiling!r}: "
                f"state ceiling={self.wait!r} or more"
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
        if not _is_number(seconds, 0):
            raise BadArgument(f"expected Later seconds of 0 or more, below a thousand million, got {seconds!r}")
        super().__init__(f"again in {seconds} s")
        self.seconds = seconds


class Reject(Exception):
    """Raise it in a handler: no attempt at this event can succeed, make it a dead letter at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def said_by(error: BaseException) -> BaseException:
    """What a handler says by an exception. Of a group, such as a `TaskGroup` raises: one `Reject` in it is that, since
    no other attempt can help; where all are `Later` it is the longest; else it is the group, a failure as any other."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    for each in leaves:
        if isinstance(each, Reject):
            return each
    laters = [each for each in leaves if isinstance(each, Later)]
    return max(laters, key=lambda each: each.seconds) if len(laters) == len(leaves) else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Without recursion: groups may be nested as deep as anybody likes."""
    groups = [error]
    while groups:
        each = groups.pop()
        if isinstance(each, BaseExceptionGroup):
            groups += reversed(each.exceptions)
        else:
            yield each


def _is_number(value: object, least: int) -> bool:
    """A number from `least` on, below a thousand million; no bool, NaN or infinity."""
    return isinstance(value, int | float) and not isinstance(value, bool) and least <= value < MAX_SECONDS
