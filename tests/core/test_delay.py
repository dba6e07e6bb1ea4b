"""A purpose's own delay, in the core alone: what it costs, and what a fan-out copies."""

from __future__ import annotations

import pytest

from solarwind.core.delay import LOOK_NS
from solarwind.core.state import Statement

from .bench import SECOND, Bench

MINUTE = 60 * SECOND


def test_a_million_events_that_wait_cost_as_much_as_one() -> None:
    bench = Bench()
    bench.join(delay_ns=3600 * SECOND)
    for _ in range(250):
        bench.fire(4_000)
    track, end = bench.track(), bench.log[-1].stop
    assert (bench.purpose().pending(end), bench.purpose().delayed(end), bench.take()) == (end, end, [])
    assert end == 1_000_000
    assert not track.state.done
    assert track.backlog is not None
    assert not track.backlog._claimed
    assert len(bench.dispatcher._timers) == 1
    bench.pass_time(3600)
    assert bench.take()
    assert bench.purpose().delayed(end) == 0


def test_it_is_looked_at_every_minute_since_the_clock_may_be_set() -> None:
    bench = Bench()
    bench.join(delay_ns=3600 * SECOND)
    bench.fire()
    assert bench.dispatcher.wake_at == bench.now + LOOK_NS
    bench.dispatcher.wall = lambda now: now + 7200 * SECOND
    bench.pass_time(LOOK_NS / SECOND)
    assert bench.given() == {1: [0]}


def test_what_waits_is_read_where_it_is_not_in_memory() -> None:
    bench = Bench()
    bench.join(delay_ns=MINUTE)
    bench.at_hand = False
    stored = bench.fire()
    assert [fetch.position for fetch in bench.fetches] == [0]
    bench.at_hand = True
    bench.dispatcher.fetched("T", 0, stored, bench.now)
    bench.carry_out()
    assert bench.take() == []
    bench.pass_time(60)
    assert bench.given() == {1: [0]}


def test_copies_are_handed_out_once_it_is_durable_that_they_may_have_been() -> None:
    bench = Bench(durable=True)
    bench.join(exchange="fanout", room=100, delay_ns=MINUTE, process="other")
    bench.fire(3)
    bench.pass_time(60)
    assert bench.take() == []
    bench.restart()  # that was not committed: nothing was copied
    bench.commit()
    bench.join(exchange="fanout", room=100, delay_ns=MINUTE, process="other")
    bench.fire(2)
    bench.pass_time(60)
    assert bench.take() == []
    bench.commit()
    assert sorted(at for picks in bench.given().values() for at in picks) == [3, 4]
    bench.restart()
    bench.join(exchange="fanout", room=100, delay_ns=MINUTE, process="other")
    bench.pass_time(600)
    bench.commit()
    assert bench.take() == []


def test_copies_that_are_in_the_log_no_more_are_dropped() -> None:
    bench = Bench()
    bench.join(exchange="fanout", room=100, delay_ns=MINUTE)
    bench.fire(3)
    bench.at_hand = False
    bench.pass_time(60)
    assert [fetch.position for fetch in bench.fetches] == [0]
    bench.dispatcher.fetched("T", 0, None, bench.now)
    bench.at_hand = True
    bench.carry_out()
    assert (bench.take(), bench.purpose().dropped) == ([], 3)
    bench.fire()
    bench.pass_time(60)
    assert bench.given() == {1: [3]}


def test_what_waits_for_copying_pends_once_the_exchange_is_one_that_does() -> None:
    bench = Bench()
    first = bench.join(exchange="fanout", room=100, delay_ns=MINUTE)
    bench.fire()
    bench.pass_time(60)
    assert bench.given() == {first: [0]}
    bench.fire(2)
    second = bench.join(version=2, room=100, delay_ns=2 * MINUTE)
    bench.pass_time(119)
    assert bench.take() == []
    bench.pass_time(1)
    assert bench.given() == {second: [1, 2]}


def test_a_fan_out_whose_new_version_has_no_delay_copies_what_waits_and_then_as_it_comes() -> None:
    bench = Bench(durable=True)
    bench.join(exchange="fanout", room=100, delay_ns=MINUTE, process="other")
    bench.fire(2)
    second = bench.join(exchange="fanout", room=100, version=2, process="other")
    assert bench.given() == {second: [0, 1]}
    bench.fire()
    bench.commit()
    assert bench.given() == {second: [2]}
    assert bench.track().state.copied_to is None
    bench.fire()
    assert bench.given() == {second: [3]}, "at once, without a commit"


@pytest.mark.parametrize(("delay_ns", "said"), [(0, ""), (90 * SECOND, " with delay=90"), (1, " with delay=1e-09")])
def test_a_statement_says_its_delay(delay_ns: int, said: str) -> None:
    assert str(Statement(1, "direct", delay_ns=delay_ns)) == f"exchange 'direct'{said}"
