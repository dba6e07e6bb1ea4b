"""The versions of a purpose side by side, and what shadows made of events, as records."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from ..records import Difference, FiredSample, Result, RolloutInfo, VersionInfo
from ..timing import time_of
from .outcomes import histogram

if TYPE_CHECKING:
    from ..core import shadows
    from ..core.purpose import Purpose


def rollout_info(purpose: Purpose, end: int) -> RolloutInfo:
    """Return the versions of a purpose, where `end` is that of its topic."""
    shares, current = purpose.shares, purpose.active.version
    rest = 1.0 - sum(share for version, share in shares.items() if version != current)
    pending, in_flight, instances = Counter[int](), Counter[int](), Counter[int]()
    for track in purpose.all_tracks:
        pending[track.statement.version] += track.pending(end)
    for instance in purpose.instances.values():
        in_flight[instance.version] += instance.in_flight
        instances[instance.version] += 1
    versions = tuple(
        VersionInfo(
            version,
            state,
            max(0.0, round(rest, 9)) if version == current else shares.get(version, 0.0),
            purpose.statements[version].exchange,
            instances[version],
            pending[version],
            in_flight[version],
            *(*_compared(purpose, version), *_times(purpose, version)),
            delay=purpose.statements[version].delay_ns / 1e9,
            rate=purpose.statements[version].rate,
            at_most=purpose.statements[version].at_most,
        )
        for version, state in states(purpose).items()
    )
    *before, intended = purpose.line
    return RolloutInfo(purpose.topic, purpose.name, current, versions, intended, before[-1] if before else None)


def _compared(purpose: Purpose, version: int) -> tuple[int, int, int]:
    shadow = purpose.shadows.get(version)
    return (shadow.compared, shadow.differed, shadow.missed) if shadow is not None else (0, 0, 0)


def _times(purpose: Purpose, version: int) -> tuple[float | None, float | None, int, int]:
    times = purpose.times.get(version)
    if times is None:
        return None, None, 0, 0
    handler = histogram(times.handler)
    return handler.mean(), handler.quantile(0.95), sum(times.handler.counts), sum(times.settle.counts)


def differences(purpose: Purpose, limit: int) -> list[Difference]:
    """Return what shadows made of events where it differs, the latest first, at most `limit`."""
    found = list(purpose.differences or ())[: -limit - 1 : -1]
    return [
        Difference(each.id, each.version, time_of(each.time), _result(each.current), _result(each.shadow))
        for each in found
    ]


def _result(found: shadows.Result) -> Result:
    fired = [FiredSample(each.topic, each.key, each.payload.decode(errors="replace")) for each in found.fired]
    return Result(found.verdict, found.error or None, found.count, tuple(fired))


def states(purpose: Purpose) -> dict[int, str]:
    """Return the state of each version in words."""
    if len(purpose.statements) == 1:
        return dict.fromkeys(purpose.statements, "current")
    current, rollout = purpose.active.version, purpose.main.state.rollout
    wanted = dict(rollout.wanted)
    at_work = {instance.version for instance in purpose.instances.values() if instance.in_flight}
    found = {}
    for version in sorted(purpose.statements):
        share = wanted.get(version)
        if version == current:
            found[version] = "current"
        elif version in rollout.shadows:
            found[version] = "shadow"
        elif share:
            found[version] = f"ramping {share * 100:.6g} %"
        else:
            found[version] = "draining" if version in at_work else "drained" if share is None else "held"
    return found
