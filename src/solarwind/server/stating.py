"""What an instance that comes over HTTP states: the options of `on` that a take and a webhook have in common."""

from __future__ import annotations

from typing import Any

import msgspec

from ..core.effects import Join
from ..failure import Retry
from ..service.registration import stated
from .schemas import AtMost, DelayStated, Field, KeyMissing, RolloutStated, SinceText, VersionNumber
from .times import read_delay, read_since


class Attempts(Retry, frozen=True, forbid_unknown_fields=True):
    """A `Retry` as it comes over HTTP."""


class VersionOptions(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What is stated of a purpose and its version."""

    exchange: str = "direct"
    version: VersionNumber = 1
    key: Field | None = None
    key_missing: KeyMissing = "handle"
    since: SinceText = "now"
    rollout: RolloutStated = "newest"
    delay: DelayStated = 0.0
    at_most: AtMost | None = None
    retry: Attempts | None = None

    def stated(self, topic: str, purpose: str, **more: Any) -> Join:
        """Return the registration, with `more` options of the function `stated`. Raise `BadName` and `BadArgument`."""
        return stated(
            topic,
            purpose,
            exchange=self.exchange,
            version=self.version,
            key=self.key,
            key_missing=self.key_missing,
            since=read_since(self.since),
            retry=self.retry,
            delay=read_delay(self.delay),
            at_most=self.at_most,
            rollout=self.rollout,
            **more,
        )
