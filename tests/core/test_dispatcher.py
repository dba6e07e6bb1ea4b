"""The dispatcher, rule by rule: each test is a short story on the bench, and its name is the rule."""

from __future__ import annotations

from collections import Counter

import pytest

from solarwind.core.dispatcher import MAX_BEHIND, PURPOSES_A_TURN, Dispatcher
from solarwind.core.effects import Join, Offer, Report
from solarwind.core.log import Stored
from solarwind.core.purpose import Purpose
from solarwind.core.spans import Spans
from solarwind.core.state import encode
from solarwind.errors import Busy, ConflictError, NotAllowed, NotFound
from solarwind.failure import Retry
from solarwind.limits import Limits

from .bench import SECOND, Bench, batch

AT_ONCE = Retry(attempts=3, wait=0.0)


# Joining ----------------------------------------------------------------------------------------------


def test_a_contradicting_statement_is_refused_with_both_and_the_way_out() -> None:
    bench = Bench()
    first = bench.join(exchange="keyed", key="$.a")
    with pytest.raises(ConflictError) as refused:
        bench.join(exchange="direct")
    for words in ("'keyed' with key $.a", "'direct'", "version=2"):
        assert words in str(refused.value)
    bench.fire()
    assert bench.given() == {first: [0]}, "everybody else goes on undisturbed"
    bench.join(exchange="direct", version=2)


def test_events_pend_with_no_instance_up_and_from_where_the_purpose_listens() -> None:
    bench = Bench()
    bench.fire(3)
    bench.leave(bench.join(since=1))
    bench.take()
    bench.fire()
    second = bench.join(since=0, room=9)
    assert bench.given() == {second: [1, 2, 3]}, "since counts only when the purpose is created"


def test_the_highest_version_with_a_live_instance_gets_the_events() -> None:
    bench = Bench()
    one, two = bench.join(version=1, room=9), bench.join(version=2, room=9)
    bench.fire()
    assert bench.given() == {two: [0]}
    bench.leave(two)
    assert bench.given() == {one: [0]}
    bench.leave(one)
    bench.fire()
    three = bench.join(version=1, room=9)
    assert bench.given() == {three: [0, 1]}, "a version without an instance holds up nothing"


def test_another_exchange_begins_when_what_the_last_handed_out_is_back() -> None:
    bench = Bench()
    bench.join(version=1, room=9)
    bench.fire(2, keys=["a", "a"])
    (offer,) = bench.take()
    bench.join(version=2, exchange="keyed", room=9)
    bench.fire(keys=["a"])
    assert not bench.given()
    bench.report(offer, done=[0], failed=[1], verdict="later")
    assert not bench.given(), "the later one of its key waits with it"
    bench.pass_time(0)
    assert list(bench.given().values()) == [[1]]


def test_a_hung_fanout_instance_does_not_hold_up_another_exchange() -> None:
    bench = Bench()
    bench.join(version=1, exchange="fanout")
    bench.fire()
    assert bench.given()
    second = bench.join(version=2, exchange="keyed", room=9)
    bench.fire()
    assert bench.given() == {second: [1]}


# Retiring ---------------------------------------------------------------------------------------------


def test_a_purpose_with_anything_left_is_retired_only_by_force() -> None:
    bench = Bench()
    bench.join()
    bench.fire(2)
    with pytest.raises(ConflictError, match="2 pending events and 1 live instance"):
        bench.dispatcher.retire("T", "p", bench.now, force=False)
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.carry_out()
    assert [closed.instance for closed in bench.closed] == [1]
    with pytest.raises(NotFound, match="expected a purpose of topic 'T'"):
        bench.purpose()
    assert not bench.report(bench.take()[0], done=[0])


def test_a_retired_purpose_changes_no_more_though_a_retry_of_it_was_waiting() -> None:
    bench = Bench()
    bench.join(version=1)
    bench.fire()
    (offer,) = bench.take()
    bench.join(version=2, exchange="fanout")
    bench.report(offer, failed=[0], verdict="later")
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.dispatcher.pop_changes()
    bench.pass_time(1)
    assert not bench.dispatcher.changes


def test_a_retired_purpose_makes_room_for_another() -> None:
    bench = Bench(limits=Limits(names=1))
    bench.join("p")
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.join("q")
    with pytest.raises(Busy, match="expected no more than 1 purposes"):
        bench.join("r")


def test_what_a_retired_purpose_noted_says_nothing_of_a_new_one_of_its_name() -> None:
    bench = Bench(durable=True)
    bench.join(room=9)
    bench.fire(1_500)
    bench.settle_all()
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    noted = bench.dispatcher.pop_changes()
    assert any(change.reach for change in noted)
    bench.join_without_commit(since=0)
    bench.take()
    bench.dispatcher.committed(noted, bench.now)
    bench.carry_out()
    assert not bench.given(), "the new one is not durable yet"
    bench.commit()
    assert bench.given()


# Leases -----------------------------------------------------------------------------------------------


def test_a_report_on_a_lease_that_ended_or_is_anothers_counts_for_nothing() -> None:
    bench = Bench()
    first, second = bench.join(lease_ns=10**9), bench.join(lease_ns=10**9)
    bench.fire(2)
    mine, yours = bench.take()
    assert not bench.report(yours, done=yours.picks, instance=first)
    bench.dispatcher.alive(second, bench.now + 10**9)
    bench.pass_time(1)
    assert not bench.report(mine, done=mine.picks), "it was silent for its lease"
    assert bench.report(yours, done=yours.picks)
    assert not bench.report(yours, done=yours.picks), "it was reported before"
    assert bench.track().state.settled == 1


def test_a_report_that_comes_twice_counts_once_also_while_its_lease_goes_on() -> None:
    bench = Bench()
    bench.join(room=9)
    bench.fire(2)
    (offer,) = bench.take()
    assert bench.report(offer, done=[0])
    assert not bench.report(offer, done=[0]), "else what it fired would be stored twice"
    assert bench.report(offer, failed=[1, 1])
    assert bench.purpose().in_flight == 0


def test_being_offered_more_events_does_not_renew_a_lease() -> None:
    bench = Bench()
    hung = bench.join(lease_ns=10 * 10**9, room=9)
    bench.fire()
    bench.pass_time(9)
    bench.fire()
    assert bench.given() == {hung: [0, 1]}
    bench.pass_time(1)
    assert bench.given() == {}
    other = bench.join(room=9)
    assert bench.given()[other][0] == 0


def test_what_one_lost_is_not_given_to_another_whose_lease_ends_at_that_moment() -> None:
    bench = Bench()
    for _ in range(3):
        bench.join(lease_ns=10**9, retry=AT_ONCE)
    bench.fire(3)
    assert len(bench.given()) == 3
    bench.pass_time(60)
    assert not bench.take()
    assert bench.track().state.tried == {0: 1, 1: 1, 2: 1}, "each was lost once"


def test_an_instance_that_leaves_gives_back_at_once_and_uncounted() -> None:
    bench = Bench()
    first = bench.join(retry=Retry(attempts=1))
    bench.fire()
    bench.leave(first)
    bench.join(retry=Retry(attempts=1))
    assert [dict(offer.tried) for offer in bench.take()] == [{}, {}]


def test_what_an_instance_had_in_hand_when_it_died_was_tried_and_nothing_is_dead_by_anothers_fault() -> None:
    bench = Bench()
    retry = Retry(attempts=2)
    bench.fire(3)
    bench.leave(bench.join(since=0, room=9, retry=retry), died=True)
    assert bench.track().state.tried == {0: 1, 1: 1, 2: 1}
    bench.take()
    second = bench.join(room=9, retry=retry)
    assert bench.given() == {second: [0]}, "on its last attempt it goes alone"
    bench.leave(second, died=True)
    third = bench.join(room=9, retry=retry)
    assert list(bench.track().state.dead.positions()) == [0]
    assert bench.given() == {third: [1]}


def test_the_last_instance_that_states_how_to_retry_does_so_for_all_of_its_version() -> None:
    bench = Bench()
    first = bench.join(room=9, retry=Retry(attempts=5))
    bench.fire(2)
    (offer,) = bench.take()
    bench.join(room=9, retry=Retry(attempts=1))
    bench.join(room=9)
    bench.report(offer, failed=[0])
    assert list(bench.track().state.dead.positions()) == [0]
    bench.leave(first, died=True)
    assert list(bench.track().state.dead.positions()) == [0, 1], "it was alone in its process"


def test_how_a_version_retries_outlives_a_restart_and_each_version_has_its_own() -> None:
    bench = Bench(durable=True)
    bench.join(retry=Retry(attempts=3))
    bench.join(retry=Retry(attempts=2), version=2)
    bench.restart()
    bench.join()
    bench.join(version=2)
    stated = {version: each.retry.attempts for version, each in bench.purpose().statements.items()}
    assert stated == {1: 3, 2: 2}
    assert bench.join(version=3), "a new one has the default"
    assert bench.purpose().statements[3].retry == Retry()


def test_an_event_on_its_last_attempt_is_not_dead_by_the_death_of_an_instance_that_had_another_in_hand_too() -> None:
    bench = Bench()
    retry = Retry(attempts=2, wait=1)
    first = bench.join(room=9, retry=retry)
    bench.fire()
    bench.report(*bench.take(), failed=[0])
    bench.pass_time(10)
    bench.fire()
    assert bench.given() == {first: [0, 1]}
    bench.leave(first, died=True)
    second = bench.join(room=9, retry=retry)
    assert not bench.track().state.dead
    assert bench.given() == {second: [0]}


@pytest.mark.parametrize("attempts", [2, 3, 5, 12])
def test_an_event_that_kills_its_worker_is_handed_out_so_often_as_it_may_be_and_no_other_is_dead(attempts: int) -> None:
    bench = Bench()
    retry = Retry(attempts=attempts)
    bench.fire(40)
    seen, killer = [], 7
    bench.join(since=0, room=20, retry=retry)
    while offers := bench.take():
        for offer in offers:
            if killer in offer.picks:
                seen.append(offer.tried.get(killer, 0) + 1)
                bench.take()
                bench.leave(offer.instance, died=True)
                bench.join(room=20, retry=retry)
                break
            bench.report(offer, done=offer.picks)
    assert seen == list(range(1, attempts + 1))
    assert list(bench.track().state.dead.positions()) == [killer]
    assert bench.track().state.settled == 39


# Room -------------------------------------------------------------------------------------------------


def test_one_lucky_measurement_gives_room_for_sixteen_times_as_much_at_most() -> None:
    bench = Bench()
    bench.join(room=1)
    bench.fire(100)
    (offer,) = bench.take()
    bench.report(offer, done=[0], handled=1, busy_ns=1)
    assert sum(map(len, bench.given().values())) == 16


def test_an_instance_with_enough_bytes_in_hand_gets_no_more() -> None:
    bench = Bench(limits=Limits(in_hand_bytes=10))
    bench.join(room=9)
    bench.fire(payload=b'"12345678"')
    (offer,) = bench.take()
    bench.fire(payload=b'"12345678"')
    assert not bench.take()
    bench.report(offer, done=[0])
    assert list(bench.given().values()) == [[1]]


def test_the_next_events_of_many_keys_do_not_wait_for_more_to_go_with_them() -> None:
    bench = Bench()
    bench.join(exchange="keyed", room=1)
    bench.fire()
    bench.report(bench.take()[0], done=[0], handled=1, busy_ns=1)
    bench.fire(20, keys=[str(number % 10) for number in range(20)])
    (offer,) = bench.take()
    assert len(offer.picks) == 10
    bench.report(offer, done=offer.picks[:5])
    assert list(bench.given().values()) == [[11, 12, 13, 14, 15]]


# Whose turn it is -------------------------------------------------------------------------------------


def test_an_instance_that_was_never_used_is_the_least_recently_used() -> None:
    bench = Bench()
    bench.join(room=9)
    bench.fire()
    bench.settle_all()
    new = bench.join(room=9)
    bench.fire()
    assert bench.given() == {new: [1]}


# Retries ----------------------------------------------------------------------------------------------


def test_an_event_is_tried_so_often_and_is_dead_then_and_nothing_else_waits_for_it() -> None:
    bench = Bench()
    bench.join(retry=AT_ONCE)
    bench.fire(2)
    attempts = []
    for _ in range(20):
        bench.pass_time(0)
        for offer in bench.take():
            if 0 in offer.picks:
                attempts.append(offer.tried.get(0, 0) + 1)
                bench.report(offer, failed=[0])
            else:
                bench.report(offer, done=[1])
    assert attempts == [1, 2, 3]
    state = bench.track().state
    assert (list(state.dead.positions()), state.settled, state.retried, state.tried) == ([0], 1, 2, {})


def test_an_event_whose_handler_fired_what_cannot_be_taken_is_tried_again_and_not_settled() -> None:
    bench = Bench()
    bench.join(retry=Retry(attempts=3))
    bench.fire()
    (offer,) = bench.take()
    refused = Report(offer.instance, offer.lease, Spans.of([0]), refusal="a topic too many")
    assert bench.dispatcher.post_send(refused, bench.now)
    state = bench.track().state
    assert (state.settled, list(state.due), state.tried) == (0, [0], {0: 1})


def test_later_is_not_counted_and_reject_is_final() -> None:
    bench = Bench()
    bench.join(retry=Retry(attempts=1))
    bench.fire()
    for _ in range(4):
        (offer,) = bench.take()
        assert offer.tried == {}
        bench.report(offer, failed=[0], verdict="later")
        bench.pass_time(0)
    bench.report(bench.take()[0], failed=[0], verdict="reject")
    assert list(bench.track().state.dead.positions()) == [0]


def test_dead_letters_are_redriven_as_if_never_tried_or_discarded() -> None:
    bench = Bench()
    bench.join(room=9, retry=Retry(attempts=1))
    bench.fire(4)
    bench.report(bench.take()[0], failed=[0, 1, 2], done=[3])
    dead = bench.track().state.dead
    assert bench.dispatcher.redrive("T", "p", Spans((0, 2, 3, 9)), bench.now) == 2, "only dead letters are"
    bench.carry_out()
    (offer,) = bench.take()
    assert (list(offer.picks), offer.tried) == ([0, 1], {})
    assert bench.dispatcher.discard("T", "p", dead.copy()) == 1
    assert bench.dispatcher.redrive("T", "p", dead.copy(), bench.now) == 0


def test_a_replay_makes_what_is_done_pend_again_and_nothing_twice() -> None:
    bench = Bench()
    bench.join(room=2)
    bench.fire(4)
    first = bench.take()[0]
    bench.report(first, done=[0, 1])
    assert bench.dispatcher.replay("T", "p", 0, 99, bench.now) == 2
    bench.carry_out()
    bench.settle_all()
    assert bench.track().state.settled == 6
    assert bench.purpose().pending(4) == 0


def test_what_is_settled_while_a_replay_waits_for_room_is_not_handed_out_again() -> None:
    bench = Bench()
    bench.join(room=3, retry=Retry(attempts=1))
    bench.fire(4)
    (offer,) = bench.take()
    bench.report(offer, failed=[2], verdict="reject")
    (last,) = bench.take()
    assert list(last.picks) == [3]
    bench.dispatcher.redrive("T", "p", bench.track().state.dead.copy(), bench.now)
    bench.report(offer, done=[0, 1])
    assert list(bench.given().values()) == [[2]]


def test_a_fanout_has_nothing_to_replay() -> None:
    bench = Bench()
    bench.join(exchange="fanout")
    with pytest.raises(NotAllowed, match="expected a purpose whose events pend"):
        bench.dispatcher.replay("T", "p", 0, 1, bench.now)


# Keys -------------------------------------------------------------------------------------------------


def test_an_event_whose_retry_waits_behind_a_replayed_one_of_its_key_keeps_its_turn() -> None:
    bench = Bench()
    bench.join(exchange="keyed", room=9)
    bench.fire(2, keys=["a", "a"])
    bench.report(bench.take()[0], done=[0])
    bench.report(bench.take()[0], failed=[1], verdict="later")
    bench.dispatcher.replay("T", "p", 0, 1, bench.now)
    bench.carry_out()
    (replayed,) = bench.take()
    assert list(replayed.picks) == [0]
    bench.pass_time(1)
    assert not bench.take(), "its wait is over, but not the one before it"
    bench.report(replayed, done=[0])
    assert list(bench.given().values()) == [[1]]


def test_an_event_that_fails_while_the_log_before_it_is_fetched_is_not_forgotten() -> None:
    bench = Bench()
    bench.join(exchange="keyed", room=9)
    bench.fire(keys=["b"])
    bench.report(bench.take()[0], done=[0])
    bench.fire(keys=["a"])
    (offer,) = bench.take()
    bench.at_hand = False
    bench.dispatcher.replay("T", "p", 0, 1, bench.now)
    bench.carry_out()
    bench.report(offer, failed=[1], verdict="later")
    bench.pass_time(1)
    bench.at_hand = True
    bench.dispatcher.fetched("T", 0, bench.log[0], bench.now)
    bench.carry_out()
    assert sorted(position for offer in bench.take() for position in offer.picks) == [0, 1]


def test_the_next_of_a_key_does_not_go_before_its_own_wait_is_over() -> None:
    bench = Bench()
    bench.join(exchange="keyed", room=9)
    bench.fire(3, keys=["a", "a", "b"])
    (offer,) = bench.take()
    assert list(offer.picks) == [0, 2]
    bench.report(offer, done=[0])
    (second,) = bench.take()
    bench.report(second, failed=[1], verdict="later")
    bench.dispatcher.replay("T", "p", 0, 1, bench.now)
    bench.carry_out()
    (replayed,) = bench.take()
    bench.report(replayed, done=[0])
    assert not bench.take(), "it is its turn, but it waits for a retry"
    bench.pass_time(1)
    assert list(bench.given().values()) == [[1]]


def test_keys_wait_in_bounded_lanes() -> None:
    bench = Bench(limits=Limits(waiting=3))
    bench.join(exchange="keyed", room=9)
    bench.fire(20, keys=["a"] * 10 + ["b"] * 10)
    backlog = bench.track().backlog
    assert backlog is not None
    assert backlog.cursor == 4, "three wait behind the first, and nothing further ahead is looked at"
    bench.settle_all()
    assert bench.track().state.settled == 20


# Fan-out ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", ["direct", "keyed"])
def test_what_pends_waits_or_is_in_hand_when_a_fanout_takes_over_goes_to_the_next_that_pends(before: str) -> None:
    bench = Bench(durable=True)
    first = bench.join(exchange=before, room=2)
    bench.fire(5, keys=["a", "b", "a", "c", "d"])
    bench.commit()
    (offer,) = bench.take()
    bench.report(offer, failed=[0], verdict="later")
    bench.take()
    page = bench.join(version=2, exchange="fanout", room=9)
    bench.fire(2)
    assert bench.given() == {page: [5, 6]}, "copies of what is fired from then on"
    assert "5 earlier events stay pending" in bench.said[-1]
    bench.pass_time(1)
    bench.leave(first)
    assert bench.purpose().pending(7) == 5
    assert bench.dispatcher.needed("T").edges == [0, 5], "the log keeps them"
    bench.commit()
    bench.restart(clean=True)
    bench.fire(2)
    bench.join(version=2, exchange="fanout", room=9)
    bench.pass_time(0)
    assert (bench.purpose().pending(9), bench.purpose().dropped) == (5, 2)
    third = bench.join(version=3, exchange="direct", room=20)
    bench.fire()
    assert bench.given() == {third: [0, 1, 2, 3, 4, 9]}


def test_what_was_replayed_is_not_copied_again_when_a_fanout_takes_over() -> None:
    bench = Bench()
    page = bench.join(exchange="fanout", room=9)
    bench.fire(3)
    bench.settle_all()
    worker = bench.join(version=2, exchange="keyed", room=1)
    bench.dispatcher.replay("T", "p", 0, 3, bench.now)
    bench.carry_out()
    assert list(bench.given()) == [worker]
    bench.leave(worker)
    bench.join(exchange="fanout", room=9)
    bench.leave(bench.join(version=2, exchange="keyed", room=1))
    assert page not in bench.given()
    assert bench.purpose().pending(3) == 3


def test_what_was_handed_out_as_copies_does_not_pend_after_a_crash() -> None:
    bench = Bench(durable=True)
    bench.join(exchange="direct", room=9)
    bench.join(version=2, exchange="fanout", room=9)
    bench.fire(3)
    bench.restart()
    bench.take()
    bench.join(version=3, exchange="direct", room=9)
    bench.fire()
    assert list(bench.given().values()) == [[3]]


def test_a_fanout_that_comes_and_goes_a_million_events_later_costs_the_next_exchange_nothing() -> None:
    bench = Bench(durable=True)
    bench.join(exchange="keyed", room=1)
    bench.fire(2, keys=["a", "b"])
    bench.commit()
    (offer,) = bench.take()
    page = bench.join(version=2, exchange="fanout")
    bench.dispatcher.topics["T"].end = 10**12
    bench.leave(page)
    bench.commit()
    bench.report(offer, done=[0])
    assert list(bench.given().values()) == [[1]]
    assert bench.purpose().pending(10**12) == 0


def test_every_instance_has_its_own_copies_and_who_comes_later_has_none_of_before() -> None:
    bench = Bench()
    first, second = bench.join(exchange="fanout", room=9), bench.join(exchange="fanout", room=9)
    bench.fire(2)
    third = bench.join(exchange="fanout", room=9)
    bench.fire()
    assert bench.given() == {first: [0, 1, 2], second: [0, 1, 2], third: [2]}


def test_with_nobody_there_events_are_dropped_and_counted_and_are_not_handed_out_later() -> None:
    bench = Bench()
    bench.leave(bench.join(exchange="fanout", room=9))
    bench.fire(2)
    instance = bench.join(exchange="fanout", room=9)
    bench.fire()
    assert bench.given() == {instance: [2]}
    assert bench.purpose().dropped == 2


@pytest.mark.parametrize("limits", [Limits(copies=3), Limits(copy_bytes=3 * batch().bytes_of(0, 1))])
def test_a_slow_instance_s_buffer_drops_the_oldest_counted_and_nobody_else_waits(limits: Limits) -> None:
    bench = Bench(limits=limits)
    slow, quick = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    seen: dict[int, list[int]] = {slow: [], quick: []}
    for _ in range(8):
        bench.fire()
        bench.pass_time(1)
        for offer in bench.take():
            seen[offer.instance] += offer.picks
            if offer.instance == quick:
                bench.report(offer, done=offer.picks)
            else:
                stuck = offer
    assert seen == {slow: [0], quick: list(range(8))}
    assert bench.purpose().dropped == 4
    bench.report(stuck, done=stuck.picks)
    while offers := bench.take():
        for offer in offers:
            seen[offer.instance] += offer.picks
            bench.report(offer, done=offer.picks)
    assert seen[slow] == [0, 5, 6, 7]


def settle_copies(bench: Bench, *instances: int, pace: int = 0) -> dict[int, list[int]]:
    """Handle what these instances get until nothing comes any more; with `pace` events in 100 ms."""
    seen: dict[int, list[int]] = {instance: [] for instance in instances}
    while offers := [offer for offer in bench.offers if offer.instance in instances]:
        bench.offers = [offer for offer in bench.offers if offer.instance not in instances]
        for offer in offers:
            seen[offer.instance] += offer.picks
            bench.report(offer, done=offer.picks, handled=pace, busy_ns=SECOND // 10)
    return seen


def test_a_burst_beyond_the_buffer_costs_a_fanout_instance_that_keeps_up_nothing() -> None:
    bench = Bench(limits=Limits(copies=3))
    one, other = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    bench.fire(5)
    bench.fire(5)
    assert bench.purpose().pending(10) == 18
    assert settle_copies(bench, one, other) == {one: list(range(10)), other: list(range(10))}
    assert (bench.purpose().dropped, bench.purpose().pending(10)) == (0, 0)


def test_nobody_waits_longer_than_half_a_second_for_a_fanout_instance_that_stalls() -> None:
    bench = Bench(limits=Limits(copies=3))
    stalled, quick = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    bench.fire(9)
    (stuck,) = (offer for offer in bench.offers if offer.instance == stalled)
    bench.offers.remove(stuck)
    assert settle_copies(bench, quick) == {quick: [0, 1, 2, 3]}
    bench.pass_time(0.51)
    assert settle_copies(bench, quick) == {quick: [4, 5, 6, 7, 8]}
    assert bench.purpose().dropped == 5
    bench.report(stuck, done=[0])
    assert settle_copies(bench, stalled) == {stalled: [6, 7, 8]}


def test_nobody_waits_for_a_fanout_instance_that_was_seen_to_be_slow() -> None:
    bench = Bench(limits=Limits(copies=100))
    slow, quick = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    bench.fire()
    settle_copies(bench, slow, pace=9)
    settle_copies(bench, quick, pace=999)
    bench.fire(150)
    assert settle_copies(bench, quick) == {quick: list(range(1, 151))}
    assert bench.purpose().dropped == 41, "the slow one has 9 in hand and 100 in its buffer"


def test_copies_are_held_back_for_a_second_at_most_and_cost_only_who_was_waited_for() -> None:
    bench = Bench(limits=Limits(copies=3))
    _, quick = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    bench.fire(9)
    bench.fire(11)
    seen = []
    for _ in range(4):
        seen += settle_copies(bench, quick)[quick]
        assert len(seen) < 10
        offers, bench.offers = bench.offers, []
        for offer in offers:
            bench.report(offer, done=offer.picks)
        bench.pass_time(0.3)
    seen += settle_copies(bench, quick)[quick]
    assert seen == list(range(20))
    assert bench.purpose().dropped > 0


def test_who_joins_while_copies_are_held_back_gets_none_of_them_and_who_leaves_loses_his_counted() -> None:
    bench = Bench(limits=Limits(copies=3))
    first, second = bench.join(exchange="fanout"), bench.join(exchange="fanout")
    bench.fire(9)
    late = bench.join(exchange="fanout")
    bench.leave(second)
    bench.fire()
    assert settle_copies(bench, first, late) == {first: list(range(10)), late: [9]}
    assert bench.purpose().dropped == 9


def test_copies_that_are_left_when_another_version_takes_over_are_still_copies() -> None:
    bench = Bench()
    first = bench.join(exchange="fanout")
    bench.fire(2)
    (offer,) = bench.take()
    second = bench.join(exchange="direct", version=2, room=9)
    bench.report(offer, done=[0])
    (copy,) = bench.take()
    assert (copy.instance, list(copy.picks)) == (first, [1])
    bench.leave(first)
    bench.fire()
    assert bench.given() == {second: [2]}


def test_an_event_in_hand_is_not_dropped_when_a_fanout_takes_over() -> None:
    bench = Bench()
    first = bench.join()
    bench.fire()
    (offer,) = bench.take()
    bench.leave(bench.join(version=2, exchange="fanout"))
    bench.dispatcher.leaving([first], bench.now)
    bench.fire()
    assert bench.purpose().dropped == 1
    assert bench.report(offer, done=[0])
    assert bench.track().state.settled == 1


# The log ----------------------------------------------------------------------------------------------


def test_what_is_not_at_hand_is_fetched_and_what_was_trimmed_is_passed_over() -> None:
    bench = Bench()
    bench.fire(2)
    bench.fire(2)
    bench.at_hand = False
    instance = bench.join(since=0, room=9)
    assert [(fetch.topic, fetch.position) for fetch in bench.fetches] == [("T", 0)]
    bench.at_hand = True
    bench.dispatcher.fetched("T", 0, bench.log[1], bench.now)
    bench.carry_out()
    assert bench.given() == {instance: [2, 3]}
    assert bench.purpose().dropped == 2
    assert encode(bench.dispatcher.pop_changes()), "a store can write it down"


def test_what_waited_for_a_retry_and_is_trimmed_waits_no_more() -> None:
    bench = Bench(limits=Limits(waiting=1))
    bench.join(room=9)
    bench.fire()
    bench.report(bench.take()[0], failed=[0], verdict="later")
    bench.fire()
    assert not bench.take(), "as many wait as may"
    bench.dispatcher.fetched("T", 0, bench.log[1], bench.now)
    bench.fire()
    assert list(bench.given().values()) == [[1, 2]]
    bench.pass_time(1)
    assert not bench.take()


def test_what_is_trimmed_while_it_is_in_hand_is_settled_all_the_same() -> None:
    bench = Bench()
    bench.join(room=1)
    bench.fire()
    (offer,) = bench.take()
    bench.fire()
    bench.dispatcher.fetched("T", 0, bench.log[1], bench.now)
    bench.report(offer, done=[0])
    assert (bench.track().state.settled, bench.purpose().dropped) == (1, 0)


def test_what_is_trimmed_when_it_was_its_turn_in_its_key_is_not_handed_out() -> None:
    bench = Bench()
    first = bench.join(exchange="keyed")
    bench.fire(keys=["a"])
    bench.fire(keys=["b"])
    bench.leave(first)
    bench.take()
    bench.dispatcher.fetched("T", 0, bench.log[1], bench.now)
    bench.join(exchange="keyed", room=9)
    assert list(bench.given().values()) == [[1]]


def test_the_log_keeps_dead_letters() -> None:
    bench = Bench()
    bench.join(room=9)
    bench.fire(3)
    bench.report(bench.take()[0], done=[0, 2], failed=[1], verdict="reject")
    assert bench.dispatcher.needed("T") == Spans((1, 2))


def test_what_is_accepted_while_nothing_is_found_is_not_lost() -> None:
    bench = Bench()
    bench.fire()
    bench.at_hand = False
    instance = bench.join(since=0, room=9)
    bench.fire()
    bench.at_hand = True
    bench.dispatcher.fetched("T", 0, None, bench.now)
    bench.carry_out()
    assert bench.given() == {instance: [1]}


# Crashes ----------------------------------------------------------------------------------------------


def test_after_a_crash_what_may_have_been_in_a_handler_is_counted_before_it_begins_again() -> None:
    bench = Bench(durable=True)
    bench.join(room=9)
    bench.fire(3)
    assert [offer.after_commit for offer in bench.take()] == [False]
    bench.commit()
    bench.restart()
    bench.join(room=9)
    (offer,) = bench.take()
    assert (list(offer.picks), offer.after_commit) == ([0, 1, 2], True)
    assert bench.track().state.tried == {0: 1, 1: 1, 2: 1}
    bench.report(offer, done=[0, 1, 2])
    bench.fire()
    assert [offer.after_commit for offer in bench.take()] == [False]


def test_after_an_orderly_stop_nothing_is_suspect_but_what_had_no_end_before() -> None:
    bench = Bench(durable=True)
    bench.fire(2)
    bench.leave(bench.join(since=0, room=1, retry=Retry(attempts=1)), died=True)
    bench.commit()
    bench.restart(clean=True)
    bench.take()
    bench.join(room=9, retry=Retry(attempts=1))
    assert list(bench.given().values()) == [[1]]
    assert list(bench.track().state.dead.positions()) == [0]


def test_how_the_last_attempt_of_a_suspect_ended_is_durable_before_anything_else_goes_out() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=1)
    bench.join(room=9, retry=retry)
    bench.fire(2)
    bench.commit()
    bench.restart()
    bench.join(room=9, retry=retry)
    (alone,) = bench.take()
    assert list(alone.picks) == [0]
    bench.report(alone, done=[0])
    bench.fire()
    assert not bench.take(), "what goes out now may end the process, and 0 would be dead by its fault"
    bench.commit()
    assert list(bench.given().values()) == [[1]]


def test_a_purpose_that_is_retired_before_how_a_last_attempt_ended_is_durable_hands_out_nothing_more() -> None:
    bench = Bench(durable=True)
    bench.join(room=9)
    bench.fire(2)
    bench.commit()
    bench.restart()
    bench.join(room=9, retry=Retry(attempts=1))
    (alone,) = bench.take()
    bench.report(alone, done=[0])
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.commit()
    assert not bench.take()


def test_a_dead_letter_that_killed_is_no_suspect_any_more_when_it_is_redriven() -> None:
    bench = Bench()
    retry = Retry(attempts=1)
    bench.join(retry=retry)
    bench.fire()
    bench.leave(bench.take()[0].instance, died=True)
    bench.join(retry=retry)
    assert list(bench.track().state.dead.positions()) == [0]
    bench.dispatcher.redrive("T", "p", Spans((0, 1)), bench.now)
    bench.carry_out()
    assert [(offer.after_commit, offer.tried) for offer in bench.take()] == [(False, {})]


def test_a_suspect_goes_apart_from_what_is_before_it() -> None:
    bench = Bench()
    first, second = bench.join(room=1), bench.join(room=1)
    bench.fire(2)
    bench.leave(first)
    bench.leave(second, died=True)
    bench.take()
    bench.join(room=9)
    assert [(list(offer.picks), offer.after_commit) for offer in bench.take()] == [([0], False), ([1], True)]


def test_suspects_go_in_ever_smaller_groups_and_from_the_second_try_on_one_group_at_a_time() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=9)
    bench.join(room=2_000, retry=retry)
    bench.fire(1_500)
    bench.commit()
    groups = []
    for _ in range(4):
        bench.restart()
        bench.take()
        bench.join(room=2_000, retry=retry)
        groups.append([len(offer.picks) for offer in bench.take()])
        bench.commit()
    assert groups[0] == [1_000, 500], "never tried, as far as is known"
    assert groups[1] == [100] * 15
    assert groups[2:] == [[10], [1]], "and the others wait"


def test_a_suspect_that_is_trimmed_meanwhile_holds_up_nobody() -> None:
    bench = Bench(durable=True)
    bench.join(room=9)
    bench.fire()
    bench.fire()
    bench.commit()
    bench.restart()
    bench.at_hand = False
    bench.join(room=9, retry=Retry(attempts=1))
    bench.at_hand = True
    bench.dispatcher.fetched("T", 0, bench.log[1], bench.now)
    bench.carry_out()
    assert bench.track().suspects == Spans()
    assert list(bench.given().values()) == [[1]]


def test_on_its_last_attempt_a_suspect_goes_when_nothing_else_is_out_and_nothing_goes_meanwhile() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=2)
    bench.join(room=1, retry=retry)
    bench.fire(3)
    bench.commit()
    (first,) = bench.take()
    bench.join(room=9, retry=retry)
    (second,) = bench.take()
    bench.leave(first.instance, died=True)
    assert not bench.take(), "1 is out"
    bench.report(second, done=[1])
    assert list(bench.given().values()) == [[0]]
    bench.fire()
    assert not bench.take()


@pytest.mark.parametrize("attempts", [1, 3])
def test_an_event_that_kills_its_process_takes_none_of_another_purpose_of_that_process_with_it(attempts: int) -> None:
    """Each of both purposes has an event that does, and many that do not."""
    bench = Bench(durable=True)
    retry = Retry(attempts=attempts, wait=0.0)

    def begin() -> None:
        for purpose in ("p", "q"):
            bench.join(purpose, since=0, room=3, retry=retry)

    begin()
    killers = {"p": 2, "q": 5}
    bench.fire(8)
    crashes = Counter[str]()
    while any(bench.purpose(name).pending(8) for name in "pq") or bench.offers:
        bench.commit()
        offers = bench.take()
        assert offers, "it stands still"
        for offer in offers:
            name = bench.dispatcher.instances[offer.instance][1].key[1]
            if killers[name] in offer.picks:
                crashes[name] += 1
                bench.restart()
                begin()
                break
            bench.report(offer, done=offer.picks)
    assert {name: list(bench.track(name).state.dead.positions()) for name in "pq"} == {"p": [2], "q": [5]}
    assert max(crashes.values()) <= attempts + 1, "and neither is handed out more often than it may be"


@pytest.mark.parametrize("rate", [None, "100/s"])
def test_a_last_attempt_of_what_has_expired_makes_way_for_the_next(rate: str | None) -> None:
    bench = Bench(durable=True)
    stated = {"room": 9, "retry": Retry(attempts=2), "rate": rate, "lease_ns": 1_000 * SECOND}
    first = bench.join(**stated)
    bench.fire(4, expires=[None, bench.now + 60 * SECOND, bench.now + 60 * SECOND, None])
    bench.commit()
    bench.pass_time(1)
    bench.commit()
    assert sum(len(offer.picks) for offer in bench.take()) == 4
    bench.leave(first, died=True)
    second = bench.join(**stated)
    for position in (0, 3):
        bench.pass_time(61)
        bench.commit()
        (offer,) = bench.take()
        assert (offer.instance, list(offer.picks)) == (second, [position])
        assert bench.report(offer, done=offer.picks)
        bench.commit()
    assert bench.track().is_over(4)


def test_a_last_attempt_waits_for_all_that_its_process_has_in_hand_and_other_processes_go_on() -> None:
    bench = Bench(durable=True)
    once, often = Retry(attempts=1), Retry()
    bench.join(retry=once)
    bench.join("q", retry=often)
    bench.fire()
    bench.commit()
    bench.restart()
    bench.join("q", room=1, retry=often)
    (busy,) = bench.take()
    bench.fire()
    alone = bench.join(retry=once)
    bench.join("q", room=9, retry=often)
    assert not bench.take(), "its process has something of q in hand"
    elsewhere = bench.join("q", room=9, process="elsewhere", retry=often)
    assert bench.given() == {elsewhere: [1]}
    bench.report(busy, done=[0])
    (last,) = bench.take()
    assert (last.instance, list(last.picks), last.after_commit) == (alone, [0], True)
    bench.fire()
    assert bench.given() == {elsewhere: [2]}
    bench.report(last, done=[0])
    assert not bench.take(), "how it ended is not durable yet"
    bench.commit()
    assert bench.given() == {alone: [1]}


def test_of_a_purpose_in_several_processes_only_the_one_with_the_last_attempt_waits() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=1)
    bench.join(retry=retry)
    bench.fire()
    bench.commit()
    bench.restart()
    one, two = bench.join(room=9, process="one", retry=retry), bench.join(room=9, process="two", retry=retry)
    (last,) = bench.take()
    assert (last.instance, list(last.picks), last.after_commit) == (one, [0], False), "its end is noted elsewhere"
    bench.fire(3)
    assert bench.given() == {two: [1, 2, 3]}
    bench.report(last, done=[0])
    bench.fire(2)
    assert set(bench.given()) == {one, two}


def test_the_end_of_the_dispatcher_s_process_is_no_last_attempt_of_what_another_process_has() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=1)
    bench.join(retry=retry)
    bench.fire()
    bench.commit()
    for _ in range(3):
        bench.restart()
        bench.join(process="elsewhere", retry=retry)
        bench.commit()
        (last,) = bench.take()
    bench.leave(last.instance, died=True)
    bench.join(process="elsewhere", retry=retry)
    assert not bench.take()
    assert list(bench.track().state.dead.positions()) == [0]


def test_an_event_alone_in_its_instance_is_not_dead_by_what_its_process_had_in_hand_for_another() -> None:
    bench = Bench()
    retry = Retry(attempts=1)
    both = [bench.join(name, process="elsewhere", retry=retry) for name in ("p", "q")]
    bench.fire()
    bench.dispatcher.leaving(both, bench.now)
    for instance in both:
        bench.leave(instance, died=True)
    assert [bench.track(name).state.tried for name in ("p", "q")] == [{}, {}]


def test_a_purpose_that_is_retired_while_it_waits_for_its_turn_lets_the_others_go_on() -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=1)
    bench.join(retry=retry)
    bench.fire()
    bench.commit()
    bench.restart()
    q = bench.join("q", since=1, room=1, retry=retry)
    bench.fire()
    (busy,) = bench.take()
    bench.join(retry=retry)
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.carry_out()
    bench.report(busy, done=[1])
    bench.fire()
    assert bench.given() == {q: [2]}


@pytest.mark.parametrize("attempts", [1, 2, 3, 5])
def test_an_event_that_kills_its_process_is_dead_in_the_end_and_those_next_to_it_are_handled(attempts: int) -> None:
    bench = Bench(durable=True)
    retry = Retry(attempts=attempts)
    bench.join(room=4, retry=retry)
    bench.join(room=4, retry=retry)
    bench.fire(8)
    crashes, killer = 0, 2
    while bench.purpose().pending(8) or bench.offers:
        bench.commit()
        offers = bench.take()
        if any(killer in offer.picks for offer in offers):
            crashes += 1
            bench.restart()
            bench.join(room=4, retry=retry)
            bench.join(room=4, retry=retry)
            continue
        for offer in offers:
            bench.report(offer, done=offer.picks)
    assert crashes == attempts + 1
    assert list(bench.track().state.dead.positions()) == [killer]
    (said,) = bench.said
    assert all(word in said for word in (bench.log[0].batch.id(killer), "'T'", "'p'", "now a dead letter"))


@pytest.mark.parametrize(("drawn_s", "waits_s"), [(3.0, 3.0), (4.5, 4.0), (1e9, 4.0)])
def test_an_instance_may_draw_the_wait_for_a_retry_up_to_its_longest(drawn_s: float, waits_s: float) -> None:
    bench = Bench()
    bench.join(retry=Retry(wait=4.0))
    bench.fire()
    (offer,) = bench.take()
    bench.report(offer, failed=[0], after_ns=int(drawn_s * SECOND))
    bench.pass_time(waits_s - 0.001)
    assert not bench.take()
    bench.pass_time(0.002)
    assert bench.take()


def test_what_was_counted_and_given_back_unhandled_was_not_tried() -> None:
    bench = Bench(durable=True)
    bench.join(room=9, retry=AT_ONCE)
    bench.fire(2)
    bench.commit()
    bench.restart()
    bench.take()
    first = bench.join(room=9, retry=AT_ONCE)
    (offer,) = bench.take()
    bench.report(offer, returned=[1])
    bench.leave(first)
    bench.take()
    assert bench.track().state.tried == {}
    bench.join(room=9, retry=AT_ONCE)
    assert list(bench.given().values()) == [[0, 1]], "though still with care"


def test_nothing_is_handed_out_beyond_what_a_crash_would_suspect() -> None:
    bench = Bench(durable=True)
    bench.fire()
    bench.join_without_commit(since=0, room=9)
    assert not bench.take()
    bench.commit()
    assert bench.take()


@pytest.mark.parametrize("exchanges", [("fanout", "direct"), ("fanout", "keyed"), ("direct", "fanout")])
def test_a_recovered_dispatcher_has_the_same_state(exchanges: tuple[str, str]) -> None:
    bench = Bench(durable=True)
    first = bench.join(exchange=exchanges[0], room=9)
    bench.fire(3)
    bench.settle_all()
    bench.join(exchange=exchanges[1], version=2, room=9)
    bench.leave(first)
    bench.fire(2)
    bench.settle_all()
    bench.commit()
    live = encode(bench.dispatcher.snapshot("T", "p", 0))
    bench.restart()
    assert encode(bench.dispatcher.snapshot("T", "p", 0)) == live
    bench.join(exchange=exchanges[1], version=2, room=9)
    assert not bench.take(), "what was done is done"


# In pieces --------------------------------------------------------------------------------------------


def test_many_purposes_of_a_topic_get_a_batch_in_pieces_and_each_its_batches_in_order() -> None:
    bench = Bench()
    for number in range(2 * PURPOSES_A_TURN + 1):
        bench.join(f"p{number}", exchange="fanout" if number % 2 else "direct", room=9)
    for start in (0, 1):
        bench.log.append(Stored(start, batch()))
        bench.dispatcher.accepted(bench.log[-1], bench.now)
    bench.dispatcher.retire("T", "p8", bench.now, force=True)
    pieces: list[list[Offer]] = []
    while bench.dispatcher.behind:
        assert bench.dispatcher.has_work("T", "p7"), "its copies are not made yet"
        bench.dispatcher.go_on(bench.now)
        pieces.append([effect for effect in bench.dispatcher.pop_effects() if isinstance(effect, Offer)])
    assert len(pieces) > 2
    assert max(len({offer.instance for offer in piece}) for piece in pieces) <= PURPOSES_A_TURN
    given: dict[int, list[int]] = {}
    for offer in [offer for piece in pieces for offer in piece]:
        given.setdefault(offer.instance, []).extend(offer.picks)
    assert len(given) == 2 * PURPOSES_A_TURN
    assert set(map(tuple, given.values())) == {(0, 1)}


def test_what_is_put_off_does_not_pile_up() -> None:
    bench = Bench()
    for number in range(PURPOSES_A_TURN + 1):
        bench.join(f"p{number}", room=999)
    for start in range(10 * MAX_BEHIND):
        bench.log.append(Stored(start, batch()))
        bench.dispatcher.accepted(bench.log[-1], bench.now)
        assert bench.dispatcher.topic("T").behind <= MAX_BEHIND


def test_a_keyed_purpose_looks_at_so_many_waiting_events_in_one_turn_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.core.backlog.LOOK_AHEAD", 10)
    bench = Bench()
    one = bench.join(exchange="keyed")
    bench.fire(keys=["a"])
    bench.take()
    for start in range(1, 61, 5):
        bench.log.append(Stored(start, batch(5, keys=["b" if start == 56 else "a"] * 5)))
        bench.dispatcher.topic("T").end = start + 5
    bench.join(exchange="keyed", room=9)
    backlog = bench.track().backlog
    assert backlog is not None
    seen = []
    bench.dispatcher.exchange(bench.track(), bench.now)
    while bench.dispatcher.behind:
        before = backlog.cursor
        bench.dispatcher.go_on(bench.now)
        seen.append(backlog.cursor - before)
    bench.carry_out()
    assert max(seen, default=0) <= 15
    assert [list(offer.picks) for offer in bench.take() if offer.instance != one] == [[56]]


def test_instances_that_are_lost_together_have_their_purposes_handed_out_once(monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench()
    lost = [bench.join(name) for name in "pq" for _ in range(50)]
    calls = Counter[str]()
    genuine = Dispatcher.exchange

    def exchange(self: Dispatcher, purpose: Purpose, now: int) -> None:
        calls[purpose.key[1]] += 1
        genuine(self, purpose, now)

    monkeypatch.setattr(Dispatcher, "exchange", exchange)
    bench.dispatcher.leaving(lost, bench.now)
    assert calls == {"p": 1, "q": 1}
    stays = bench.join()
    bench.fire()
    assert bench.given() == {stays: [0]}


def test_no_part_of_a_burst_is_kept_for_an_instance_that_leaves() -> None:
    bench = Bench()
    first, second = bench.join(room=9), bench.join(room=9)
    bench.dispatcher.leaving([first], bench.now)
    bench.fire(3)
    assert bench.given() == {second: [0, 1, 2]}


def test_a_batch_that_was_put_off_is_not_copied_where_it_pends_already() -> None:
    bench = Bench()
    for number in range(PURPOSES_A_TURN + 1):
        bench.join(f"p{number}")
    last = f"p{PURPOSES_A_TURN}"
    bench.log.append(Stored(0, batch()))
    bench.dispatcher.accepted(bench.log[-1], bench.now)
    bench.dispatcher.join(Join("T", last, "fanout", 2), 1, bench.now)
    bench.carry_out()
    assert bench.purpose(last).pending(1) == 1
    assert bench.purpose(last).copies == bench.purpose(last).in_flight == 0
