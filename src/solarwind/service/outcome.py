"""What becomes of an event whose handler raised an exception."""

from __future__ import annotations

from typing import Literal, NamedTuple

from ..failure import Later, Reject, said_by
from .signature import Unfit

_NAME = type.__dict__["__name__"].__get__  # a class may have a metaclass that raises, too


class Outcome(NamedTuple):
    """What becomes of an event: the verdict, and what the exception says. `after_ns` is for `later`; `text` can be
    encoded as UTF-8."""

    verdict: Literal["retry", "later", "reject"]
    text: str
    after_ns: int = 0


def outcome_of(error: BaseException) -> Outcome:
    """Return the outcome: that of `Later` and `Reject`, also within a task group; any other exception is a failure.
    This never raises."""
    try:
        return _read(error)
    except BaseException:  # it says nothing: it has not the fields of its class, or its class has no name to read
        return Outcome("retry", f"{_NAME(type(error))}: {_text(error)}")


def _read(error: BaseException) -> Outcome:
    error = said_by(error)
    if isinstance(error, Later):
        return Outcome("later", _text(error), int(error.seconds * 1e9))
    if isinstance(error, Reject | Unfit):
        return Outcome("reject", _text(error))
    return Outcome("retry", f"{type(error).__name__}: {_text(error)}")


def _text(error: BaseException) -> str:
    """Return what an exception says. The outcome is the same even if its text cannot be read."""
    try:
        # What is no Unicode, such as half of a pair, cannot be written down.
        return str(error).encode("utf-8", "backslashreplace").decode()
    except BaseException:
        return "(its text cannot be read)"
