"""What a handler can report of an event besides returning, and how a purpose retries."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import msgspec

from .calls import explains_calls
from .errors import BadArgument
from .option_structs import OptionsMeta

MAX_SECONDS = 1_000_000_000  # 31 years, which fits well into ns since 1970


class Retry(msgspec.Struct, frozen=True, metaclass=OptionsMeta):
    """How often and when an event is retried after its handler raised.

    `attempts` counts the first one too. Before attempt n + 1 the dispatcher waits a random time (full jitter) of up to
    `wait * factor ** (n - 1)` seconds, `ceiling` at most. The defaults add up to a quarter of an hour on average, so
    that a database has time to restart. `wait` and `ceiling` may be given as a timedelta.
    """

    attempts: int = 12
    wait: float = 1.0
    factor: float = 2.0
    ceiling: float = 600.0

    if TYPE_CHECKING:

        def __init__(
            self,
            attempts: int = 12,
            wait: float | timedelta = 1.0,
            factor: float = 2.0,
            ceiling: float | timedelta = 600.0,
        ) -> None: ...

    def __post_init__(self) -> None:
        for name in ("wait", "ceiling"):
            if isinstance(getattr(self, name), timedelta):
                msgspec.structs.force_setattr(self, name, in_seconds(getattr(self, name)))
        attempts = self.attempts
        if not isinstance(attempts, int) or isinstance(attempts, bool) or not 1 <= attempts < MAX_SECONDS:
            raise BadArgument(
                f"expected Retry attempts to be an integer from 1 to {MAX_SECONDS - 1:,}, got {attempts!r}"
            )
        for name, value, minimum in (("wait", self.wait, 0), ("factor", self.factor, 1), ("ceiling", self.ceiling, 0)):
            if not _is_number(value, minimum):
                raise BadArgument(f"expected Retry {name} of {minimum} or more, below {MAX_SECONDS:,}, got {value!r}")
        if self.ceiling < self.wait:
            raise BadArgument(
                f"expected a Retry ceiling of at least its wait, got wait={self.wait!r} and ceiling={self.ceiling!r}: "
                f"state ceiling={self.wait!r} or more"
            )

    def delay_ns(self, tried: int, random: Callable[[], float]) -> int:
        """Return the wait after `tried` attempts, in ns; `random` returns a number from 0 up to 1."""
        return int(random() * self.longest_ns(tried))

    def longest_ns(self, tried: int) -> int:
        """Return the longest wait after `tried` attempts, in ns."""
        # The exponent is bounded so that a long series of attempts does not overflow.
        return int(min(self.ceiling, self.wait * self.factor ** min(tried - 1, 32)) * 1e9)


@explains_calls
class Later(Exception):
    """Raise it in a handler to get this event again in `seconds` (or a timedelta), without counting the attempt."""

    def __init__(self, seconds: float | timedelta) -> None:
        number = in_seconds(seconds)
        if not _is_number(number, 0):
            raise BadArgument(f"expected Later seconds of 0 or more, below {MAX_SECONDS:,}, got {seconds!r}")
        super().__init__(f"again in {number} s")
        self.seconds: float = number


@explains_calls
class Reject(Exception):
    """Raise it in a handler to make this event a dead letter at once, because no attempt can succeed."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def said_by(error: BaseException) -> BaseException:
    """Return the exception that decides. For a group, as a `TaskGroup` raises: a `Reject` in it, since no retry can
    help; where all are `Later`, the longest; otherwise the group itself, as an ordinary failure."""
    if not isinstance(error, BaseExceptionGroup):
        return error
    leaves = list(_leaves(error))
    for each in leaves:
        if isinstance(each, Reject):
            return each
    laters = [each for each in leaves if isinstance(each, Later)]
    return max(laters, key=lambda each: each.seconds) if len(laters) == len(leaves) else error


def _leaves(error: BaseException) -> Iterator[BaseException]:
    """Yield the exceptions in a group, without recursion: groups may be nested to any depth."""
    groups = [error]
    while groups:
        each = groups.pop()
        if isinstance(each, BaseExceptionGroup):
            groups += reversed(each.exceptions)
        else:
            yield each


def in_seconds(value: Any) -> Any:
    """Return a timedelta as a number of seconds, and anything else as it is."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def _is_number(value: object, minimum: int) -> bool:
    """Return whether it is a number from `minimum` on and below `MAX_SECONDS`; a bool, NaN or infinity is not."""
    return isinstance(value, int | float) and not isinstance(value, bool) and minimum <= value < MAX_SECONDS
