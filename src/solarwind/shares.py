"""What a version does when it is first seen beside others, and the share of a purpose's events that it may have."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .errors import BadArgument
from .names import shown
from .option_structs import OptionsMeta

NEWEST, HOLD, SHADOW = "newest", "hold", "shadow"
ROLLOUTS = NEWEST, HOLD, SHADOW  # what a version may state by name
_PERCENT = re.compile(r"([0-9]+(?:\.[0-9]+)?) ?%", re.ASCII)


class Share(msgspec.Struct, frozen=True, metaclass=OptionsMeta):
    """The share of a purpose's events that a version has, a number from 0 to 1: `Share(0.1)` is a tenth."""

    share: float

    def __post_init__(self) -> None:
        check_share(self.share, "a Share")


def check_share(share: Any, what: str = "share") -> float:
    """Return a share as a float. Raise `BadArgument` unless it is a number from 0 to 1."""
    if not isinstance(share, int | float) or isinstance(share, bool) or not 0 <= share <= 1:
        raise BadArgument(f"expected {what} from 0 to 1, such as 0.1 for a tenth, got {shown(share)}")
    return float(share)


def check_rollout(rollout: Any) -> str | float:
    """Return what a version does when it is first seen as it travels: a share as a number. Raise `BadArgument`."""
    if rollout is None:
        return NEWEST
    if isinstance(rollout, Share):
        return float(rollout.share)
    if isinstance(rollout, int | float) and not isinstance(rollout, bool):
        return check_share(rollout, "a rollout with a share")
    if not isinstance(rollout, str) or rollout not in ROLLOUTS:
        names = ", ".join(map(repr, ROLLOUTS))
        raise BadArgument(f"expected rollout {names} or a share from 0 to 1, such as 0.1, got {shown(rollout)}")
    return rollout


def read_rollout(text: str | float) -> str | float:
    """Return what somebody wrote, a number that was written as a text as a number: `0.1`, or `10%`."""
    percent = _PERCENT.fullmatch(text) if isinstance(text, str) else None
    try:
        return float(f"{percent[1]}e-2" if percent else text)  # 33.3 / 100 is not 0.333
    except ValueError:
        return text
