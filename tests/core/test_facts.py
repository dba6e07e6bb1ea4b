"""How long events took, counted once for each report."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

import pytest

from solarwind.core.effects import Join
from solarwind.core.facts import BOUNDS_NS, Times
from solarwind.core.instance import Instance, Lease
from solarwind.core.process import Process
from solarwind.core.rates import RecentRate
from solarwind.core.spans import Spans
from solarwind.core.track import Track

MS = 1_000_000


@pytest.fixture
def lease() -> Lease:
    """Of an instance with room for two, handed out at 100 ms of what was fired at 60 ms."""
    join = Join("T", "p", "direct", room=2)
    instance = Instance(1, join, join.room, 1 << 20, Process(), Times(), rate=RecentRate(0))
    return Lease(1, instance, Spans((0, 10)), handed_at=100 * MS, fired_at=60 * MS)


def counted(times: Times) -> tuple[dict[int, int], dict[int, int]]:
    """Return how many events took at most so long, in ms: in the handler, and from fired to settled."""

    def by_ms(of: Any) -> dict[int, int]:
        return {BOUNDS_NS[at] // MS: count for at, count in enumerate(of.counts) if count}

    return by_ms(times.handler), by_ms(times.settle)


def test_what_an_instance_was_busy_with_is_divided_among_those_it_has_room_for(lease: Lease) -> None:
    times = Times()
    assert times.add(lease, handled=4, busy_ns=8 * MS, settled=3, ended=4, now=110 * MS) == 4 * MS
    assert times.add(lease, handled=1, busy_ns=8 * MS, settled=0, ended=0, now=110 * MS) == 8 * MS
    assert counted(times) == ({10: 4}, {100: 3})
    assert (times.handler.sum_ns, times.settle.sum_ns) == (16 * MS, 150 * MS)


def test_each_event_of_a_lease_is_counted_once_in_however_many_reports(lease: Lease) -> None:
    times = Times()
    times.add(lease, handled=2, busy_ns=20 * MS, settled=2, ended=2, now=120 * MS)
    times.add(lease, handled=5, busy_ns=50 * MS, settled=3, ended=3, now=150 * MS)
    assert counted(times) == ({30: 5}, {100: 5})


def test_an_instance_that_does_not_say_how_long_it_was_busy_had_them_since_they_were_handed_out(lease: Lease) -> None:
    times = Times()
    assert times.add(lease, handled=0, busy_ns=0, settled=1, ended=2, now=125 * MS) == 25 * MS
    assert counted(times) == ({30: 2}, {100: 1})


def test_events_of_a_producer_whose_clock_is_ahead_took_no_time(lease: Lease) -> None:
    times, lease.fired_at = Times(), 500 * MS
    times.add(lease, handled=1, busy_ns=MS, settled=1, ended=1, now=110 * MS)
    assert (times.settle.counts[0], times.settle.sum_ns) == (1, 0)


def test_what_a_shadow_is_done_with_is_not_settled(lease: Lease) -> None:
    times, lease.track = Times(), cast(Track, SimpleNamespace(shadow=object()))
    times.add(lease, handled=1, busy_ns=MS, settled=1, ended=1, now=110 * MS)
    assert counted(times) == ({1: 1}, {})
