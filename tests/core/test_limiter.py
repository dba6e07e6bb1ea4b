"""The limits of a purpose in the core: its rate, and its maximum in flight."""

from __future__ import annotations

from typing import Any

import pytest

from solarwind.core.state import Change, State, Statement
from solarwind.errors import BadArgument
from solarwind.failure import Retry
from solarwind.rate import check_rate, read_rate

from .bench import SECOND, Bench


def handed(bench: Bench) -> list[int]:
    """Return what was handed out since the last call, in order."""
    return [position for offer in bench.take() for position in offer.picks]


def counts(bench: Bench, seconds: float, times: int) -> list[int]:
    """Return how many events were handed out and settled in each of so many steps of time."""
    found = []
    for _ in range(times):
        bench.pass_time(seconds)
        count = 0
        while offers := bench.take():
            for offer in offers:
                count += len(offer.picks)
                bench.report(offer, done=offer.picks)
        found.append(count)
    return found


@pytest.mark.parametrize(
    ("rate", "interval", "burst"),
    [("100/s", 10**7, 10), ("1000/s", 10**6, 100), ("5/s", 2 * 10**8, 1), ("10/s", 10**8, 1), ("30/m", 2 * 10**9, 1),
     ("1/h", 3600 * 10**9, 1), ("3/s", 333_333_334, 1), ("1000000/s", 1_000, 100_000), ("1/d", 86_400 * 10**9, 1)],
)  # fmt: skip
def test_a_rate_has_an_interval_and_a_burst_of_a_tenth_of_a_second(rate: str, interval: int, burst: int) -> None:
    found = read_rate(rate)
    assert (found.interval, 1 + found.slack // found.interval) == (interval, burst)


BAD_RATES: list[Any] = [
    "100",
    "0/s",
    "-1/s",
    "100/fortnight",
    "1.5/s",
    " 1/s",
    "1/S",
    "1000001/s",
    "01/s",
    "",
    100,
    True,
]


@pytest.mark.parametrize("rate", BAD_RATES)
def test_what_is_no_rate_is_refused(rate: Any) -> None:
    with pytest.raises(
        BadArgument, match=r"^expected a rate such as '100/s', a number from 1 to 1,000,000 for each s, "
    ):
        check_rate(rate)


def test_a_statement_says_its_limits() -> None:
    assert str(Statement(1, "direct", rate="5/s", at_most=3)) == "exchange 'direct' with rate='5/s' with at_most=3"


@pytest.mark.parametrize(("rate", "burst", "a_second"), [("100/s", 10, 100), ("5/s", 1, 5), ("1000/s", 100, 1000)])
def test_events_go_at_their_rate_and_a_few_at_once_after_nothing_was_to_do(
    rate: str, burst: int, a_second: int
) -> None:
    bench = Bench()
    bench.join(rate=rate, room=10_000)
    bench.fire(3 * a_second)
    assert counts(bench, 0, 1) == [burst]
    found = counts(bench, 0.05, 20)
    assert sum(found) == a_second
    assert max(found) <= max(1, a_second // 20)
    bench.pass_time(100)
    bench.fire(1)
    assert sum(counts(bench, 0, 1)) <= burst, "what was not used is not saved up"


def test_a_timer_is_set_for_when_the_next_event_may_go_and_none_without_any() -> None:
    bench = Bench()
    bench.join(rate="30/m", room=10)
    assert bench.dispatcher.wake_at is None
    bench.fire(2)
    [offer] = bench.take()
    assert offer.picks == range(1)
    assert bench.now + 2 * SECOND in [when for when, *_ in bench.dispatcher._timers]
    bench.pass_time(1.999)
    assert not bench.take()
    bench.pass_time(0.001)
    assert handed(bench) == [1]


def test_events_of_a_high_rate_go_together_every_ten_milliseconds() -> None:
    bench = Bench()
    bench.join(rate="1000/s", room=10_000)
    bench.fire(1000)
    assert len(handed(bench)) == 100
    looked = 0
    until = bench.now + SECOND // 2
    while (when := bench.dispatcher.wake_at) is not None and when <= until:
        bench.pass_time((when - bench.now) / SECOND)
        looked += 1
    assert looked <= 51
    assert len(handed(bench)) == pytest.approx(500, abs=11)


def test_a_retry_counts_as_a_hand_out() -> None:
    bench = Bench()
    bench.join(rate="1/s", room=10, retry=Retry(wait=0.0))
    bench.fire(2)
    [offer] = bench.take()
    bench.report(offer, failed=[0])
    bench.pass_time(0.9)
    assert handed(bench) == []
    bench.pass_time(0.1)
    bench.pass_time(0.5)
    assert len(handed(bench)) == 1


def test_no_more_are_in_flight_than_the_maximum_over_all_instances_and_one_that_ends_makes_room() -> None:
    bench = Bench()
    for _ in range(3):
        bench.join(at_most=4, room=10)
    bench.fire(20)
    offers = bench.take()
    assert sum(len(offer.picks) for offer in offers) == 4
    bench.fire(1)
    assert not bench.take()
    bench.report(offers[0], done=[offers[0].picks[0]])
    assert len(handed(bench)) == 1
    bench.report(offers[1], returned=[offers[1].picks[0]])
    assert len(handed(bench)) == 1
    bench.report(offers[2], failed=[offers[2].picks[0]], verdict="reject")
    assert len(handed(bench)) == 1
    assert bench.purpose().in_flight == 4


def test_the_place_of_an_instance_that_is_lost_is_free_again() -> None:
    bench = Bench()
    first = bench.join(at_most=1, room=1, process="x")
    bench.fire(2)
    assert bench.given() == {first: [0]}
    second = bench.join(at_most=1, room=1, process="y")
    assert not bench.take()
    bench.leave(first, died=True)
    assert bench.given() == {second: [0]}


def test_versions_keep_together_to_the_limits_of_the_current_one_and_take_turns() -> None:
    bench = Bench()
    bench.join(at_most=1, room=10)
    bench.join(version=2, rollout=0.5, room=10)
    bench.fire(400)
    got: dict[int, int] = {}
    offers = bench.take()
    assert sum(len(offer.picks) for offer in offers) == 1
    for _ in range(20):
        offer, *offers = offers
        version = bench.dispatcher.instances[offer.instance][0].version
        got[version] = got.get(version, 0) + len(offer.picks)
        bench.report(offer, done=offer.picks)
        offers += bench.take()
        assert bench.purpose().in_flight <= 1
    assert got.keys() == {1, 2}
    assert max(got.values()) - min(got.values()) <= 2, "neither waits for the other"


def test_a_track_whose_turn_it_is_and_that_has_nothing_more_lets_the_others_go_on() -> None:
    def shared() -> Bench:
        bench = Bench()
        bench.join(at_most=1, room=10)
        bench.join(version=2, rollout=0.5, room=10)
        return bench

    def first_in_turn(bench: Bench) -> int:
        limiter = bench.purpose().limiter
        assert limiter is not None
        return next(iter(limiter.waiting)).number

    scratch = shared()
    key = next(key for key in "abcdefgh" if scratch.purpose().main.own_positions(scratch.fire(keys=[key])))
    bench = shared()
    bench.fire(20, expires=[bench.now + 10 * SECOND] * 20)
    [offer] = bench.take()
    while first_in_turn(bench) != 2:
        bench.report(offer, done=offer.picks)
        [offer] = bench.take()
    bench.pass_time(11)
    bench.dispatcher.alive(offer.instance, bench.now)
    bench.fire(keys=[key])
    bench.report(offer, done=offer.picks)
    assert handed(bench) == [20]


def test_a_version_that_becomes_current_sets_the_limits() -> None:
    bench = Bench()
    bench.join(rate="1/h", room=10)
    bench.fire(5)
    assert handed(bench) == [0]
    bench.join(version=2, rate="1/s", room=10)
    bench.pass_time(1.0)
    assert handed(bench) == [1], "what waits does so by the new rate"
    bench.join(version=3, room=10)
    assert handed(bench) == [2, 3, 4]


def test_a_shadow_keeps_to_limits_of_its_own() -> None:
    bench = Bench()
    bench.join(at_most=2, room=10)
    bench.join(version=2, rollout="shadow", at_most=1, room=10)
    bench.fire(5)
    versions = [bench.dispatcher.instances[offer.instance][0].version for offer in bench.take() for _ in offer.picks]
    assert sorted(versions) == [1, 1, 2]


def test_a_shadow_that_ends_while_it_waits_for_its_rate_gets_nothing_more() -> None:
    bench = Bench()
    bench.join(room=10)
    shadow = bench.join(version=2, rollout="shadow", rate="1/s", room=10)
    bench.fire(5)
    for offer in bench.take():
        bench.report(offer, done=offer.picks)
    bench.dispatcher.versions.share("T", "p", 2, 0.0, bench.now)
    bench.carry_out()
    bench.pass_time(1)
    assert shadow not in bench.given()


def test_a_slow_rate_is_kept_over_a_restart() -> None:
    bench = Bench(durable=True)
    bench.join(rate="1/m", room=10)
    bench.fire(3)
    bench.commit()
    [offer] = bench.take()
    bench.report(offer, done=[0])
    bench.commit()
    bench.restart(clean=True)
    bench.join(rate="1/m", room=10)
    bench.pass_time(59)
    assert not bench.take()
    bench.pass_time(1)
    bench.commit()
    assert handed(bench) == [1]


def test_a_last_attempt_waits_for_the_limits_without_holding_up_its_process() -> None:
    bench = Bench(durable=True)
    bench.join(retry=Retry(attempts=1), at_most=1, room=10, process="x")
    bench.join("other", room=10, process="x")
    bench.fire(2)
    bench.commit()
    bench.take()
    bench.restart()
    bench.join(retry=Retry(attempts=1), at_most=1, room=10, process="x")
    bench.join("other", room=10, process="x")
    for _ in range(50):
        bench.commit()
        for offer in bench.take():
            assert bench.purpose().in_flight <= 1
            bench.report(offer, done=offer.picks)
    assert (bench.purpose().settled, bench.purpose("other").settled) == (2, 2)


def test_a_place_is_kept_for_a_last_attempt_while_its_process_is_made_ready() -> None:
    bench = Bench(durable=True)
    once: dict[str, Any] = {"retry": Retry(attempts=1), "at_most": 1, "room": 10}
    bench.join(process="x", **once)
    bench.fire(1)
    bench.commit()
    bench.take()
    bench.restart()
    for process in "xy":
        bench.join("other", room=2, process=process)
    bench.fire(10)
    bench.commit()
    busy = bench.take()
    assert {offer.instance for offer in busy} == {each.id for each in bench.purpose("other").instances.values()}
    for process in "xy":
        bench.join(process=process, **once)
    bench.commit()
    for offer in busy:
        bench.report(offer, done=offer.picks)
        bench.commit()
        assert bench.purpose().in_flight <= 1
    given = [offer for offer in bench.take() if bench.dispatcher.instances[offer.instance][1] is bench.purpose()]
    assert [list(offer.picks) for offer in given] == [[0]], "the last attempt"


def test_a_last_attempt_keeps_to_the_maximum_that_a_new_version_states_while_its_process_is_made_ready() -> None:
    bench = Bench(durable=True)
    once: dict[str, Any] = {"retry": Retry(attempts=1), "room": 10}
    bench.join(process="x", at_most=2, **once)
    bench.fire(1)
    bench.commit()
    bench.take()
    bench.restart()
    bench.join("other", room=1, process="x")
    bench.fire(2)
    bench.commit()
    [busy] = bench.take()
    for process in "xy":
        bench.join(process=process, at_most=2, **once)
    [first] = bench.take()
    assert bench.purpose().main.chosen is not None, "a process is made ready"
    bench.join(process="x", version=2, at_most=1, **once)
    bench.report(busy, done=busy.picks)
    bench.commit()
    other, given = bench.take(), list[int]()
    assert [bench.dispatcher.instances[offer.instance][1].name for offer in other] == ["other"], "not held up"
    bench.report(first, done=first.picks)
    bench.report(other[0], done=other[0].picks)
    for _ in range(5):
        bench.commit()
        for offer in bench.take():
            assert bench.purpose().in_flight <= 1
            given += offer.picks
            bench.report(offer, done=offer.picks)
    assert sorted(given) == [0, 2]


def test_what_a_slow_rate_hands_out_waits_until_it_is_durable_when_the_next_may_be() -> None:
    bench = Bench(durable=True)
    for number, rate in enumerate(["9/s", "1/d", "10/s", None]):
        bench.join(f"p{number}", rate=rate, room=10)
    bench.fire(1)
    bench.commit()
    assert [offer.after_commit for offer in bench.take()] == [True, True, False, False]


def test_a_timer_that_is_not_the_last_one_set_hands_out_nothing() -> None:
    bench = Bench()
    bench.join(rate="1/m", room=10)
    bench.fire(9)
    bench.join(version=2, rate="1/s", room=10)
    bench.take()
    for _ in range(2):
        bench.pass_time(1)
    assert handed(bench) == [1, 2]
    main, when = bench.purpose().main, bench.dispatcher.wake_at
    assert when is not None
    assert bench.dispatcher.limiters.due(main, when) == [main]
    assert bench.dispatcher.limiters.due(main, when + SECOND) == []


def test_a_slow_rate_follows_a_clock_that_was_set_back() -> None:
    state = State("T", "p")
    state.apply(Change("T", "p", limited_until=100 * SECOND))
    state.set_back(30 * SECOND, 60 * SECOND)
    assert state.limited_until == 70 * SECOND
    assert State.restore(state.snapshot()).limited_until == 70 * SECOND


def test_a_retired_purpose_leaves_no_timer_that_does_anything() -> None:
    bench = Bench()
    bench.join(rate="1/s", room=10)
    bench.fire(3)
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.take()
    bench.pass_time(5)
    assert not bench.take()


def test_a_track_has_its_turn_as_a_whole_also_where_it_asks_twice_and_others_wait() -> None:
    """It looks again where it has come further; two that lost their turn by that gave way to each other for ever."""
    bench = Bench()
    bench.join(version=1, room=9, rate="1/s")
    bench.join(version=2, room=9, rate="1/s", rollout=0.5)
    first, second = bench.purpose().tracks.values()
    limiter, limiters = first.limiter, bench.dispatcher.limiters
    assert limiter is not None
    for track in (first, second):
        limiters.wait(track, limiter, bench.now)
    for _ in range(2):
        assert limiters.room(first, limiter, 5, bench.now) == 1
        assert limiters.room(second, limiter, 5, bench.now) == 0
    while not bench.take():
        bench.fire()
    bench.pass_time(1)
    assert list(limiter.waiting) != [first, second], "who got something is behind the others"
