"""Versions with shares of their own: tracks side by side, over one log."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType

import pytest

from solarwind.batch import Batch, seal
from solarwind.core.exchange import header_key
from solarwind.core.log import Stored
from solarwind.core.rollout import bucket
from solarwind.core.spans import Spans
from solarwind.core.state import encode
from solarwind.limits import Limits

from .bench import SECOND, Bench, batch

SIZE = 2_000  # events of a batch


def keyed(first: int, count: int, *, keys: bool) -> Batch:
    names = [f"k{number % 997}" for number in range(first, first + count)] if keys else None
    return seal("T", [b"1"] * count, [1] * count, producer=1, first=first, machine="m", process="p", keys=names)


def halves(events: int, *, keys: bool) -> Bench:
    """Version 2 has half of the events, and all of it is settled; nothing of version 1's is handed out."""
    bench = Bench(limits=Limits(waiting=1 << 30))
    bench.join(version=1, room=1)
    bench.fire()
    bench.settle_all()
    second = bench.join(version=2, room=100_000, exchange="keyed" if keys else "direct")
    bench.dispatcher.share_out("T", "p", 2, 0.5, bench.now)
    for first in range(1, events, SIZE):
        stored = Stored(first, keyed(first, SIZE, keys=keys))
        bench.log = [stored]
        bench.dispatcher.accepted(stored, bench.now)
        bench.carry_out()
        while offers := [offer for offer in bench.take() if offer.instance == second]:
            for offer in offers:
                bench.report(offer, done=offer.picks)
    return bench


def calls(what: object) -> int:
    """How many functions are called, by name or built in, to do this."""
    counted = 0

    def count(frame: FrameType, event: str, arg: object) -> None:
        nonlocal counted
        counted += event in ("call", "c_call")

    sys.setprofile(count)
    try:
        what()  # type: ignore[operator]
    finally:
        sys.setprofile(None)
    return counted


@pytest.mark.parametrize("keys", [False, True], ids=["by id", "by key"])
@pytest.mark.parametrize("events", [20_000, pytest.param(1_000_000, marks=pytest.mark.long)])
def test_with_one_of_two_halves_done_neither_state_has_an_edge_per_event(events: int, keys: bool) -> None:
    bench = halves(events, keys=keys)
    tracks = bench.purpose().tracks
    end = bench.dispatcher.topics["T"].end
    settled = tracks[2].state.settled
    assert abs(settled / events - 0.5) < 0.03
    assert tracks[2].pending(end) == 0
    assert abs(tracks[0].pending(end) - (end - settled)) < 0.03 * events
    for track in tracks.values():
        assert len(track.state.done.edges) < 1_000
        assert len(encode(track.state.snapshot())) < 10_000
        assert calls(lambda track=track: track.pending(end)) < 60


def rollout(share: float = 0.5, **second: object) -> tuple[Bench, int, int]:
    """Version 2 has a share of what comes, beside version 1."""
    bench = Bench()
    first = bench.join(version=1, room=1_000)
    other = bench.join(version=2, room=1_000, **second)
    bench.dispatcher.share_out("T", "p", 2, share, bench.now)
    return bench, first, other


def handle_all(bench: Bench) -> dict[int, list[int]]:
    """Which events each instance gets."""
    given: dict[int, list[int]] = {}
    while offers := bench.take():
        for offer in offers:
            given.setdefault(offer.instance, []).extend(offer.picks)
            bench.report(offer, done=offer.picks)
    return given


def test_each_event_goes_to_one_version_and_a_tenth_is_a_tenth() -> None:
    bench, first, second = rollout(0.1)
    bench.log = [Stored(0, keyed(0, 10_000, keys=False))]
    bench.dispatcher.accepted(bench.log[0], bench.now)
    bench.carry_out()
    given = handle_all(bench)
    assert sorted(given[first] + given[second]) == list(range(10_000))
    assert abs(len(given[second]) - 1_000) <= 100
    assert bench.purpose().pending(10_000) == 0
    assert bench.purpose().settled == 10_000


def test_a_key_stays_with_its_version_while_that_one_s_share_grows() -> None:
    bench, _, second = rollout(0.3)
    keys = [f"k{number}" for number in range(50)]
    shares = []
    for share in (0.3, 0.6, 0.9):
        bench.dispatcher.share_out("T", "p", 2, share, bench.now)
        stored = bench.fire(50, keys=keys)
        shares.append({keys[position - stored.start] for position in handle_all(bench)[second]})
    assert shares[0] < shares[1] < shares[2]


def test_versions_with_different_exchanges_are_at_work_side_by_side() -> None:
    bench, first, second = rollout(0.5, exchange="keyed")
    bench.fire(40, keys=["a", "b", "c", "d"] * 10)
    given: Counter[int] = Counter()
    for offer in bench.take():
        given[offer.instance] += len(offer.picks)
    assert given[first] > given[second], "of each of the keyed one's keys one at a time, of the others all"
    assert 1 <= given[second] <= 3


def test_a_keyed_version_gets_what_another_had_of_a_key_when_that_is_done() -> None:
    bench, first, second = rollout(0.0, exchange="keyed")
    bench.fire(keys=["a"])
    (before,) = bench.take()
    bench.dispatcher.share_out("T", "p", 2, 1.0, bench.now)
    bench.fire(keys=["a"])
    assert before.instance == first
    assert not bench.given()
    bench.report(before, done=before.picks)
    assert bench.given() == {second: [1]}


def test_a_share_whose_instances_died_is_another_s_after_their_lease_and_theirs_again_with_the_next() -> None:
    bench, first, second = rollout(1.0, lease_ns=30 * SECOND)
    bench.fire()
    assert bench.given() == {second: [0]}
    bench.leave(second, died=True)
    bench.fire()
    bench.pass_time(29)
    assert not bench.given()
    bench.pass_time(1)
    assert bench.given() == {first: [0, 1]}
    bench.leave(bench.join(version=1, room=1_000))
    bench.fire()
    assert bench.given() == {first: [2]}, "whoever else comes and goes"
    third = bench.join(version=2, room=1_000)
    bench.fire()
    assert bench.given() == {third: [3]}


def test_a_version_goes_on_while_the_newer_one_s_instances_hang_beyond_their_lease() -> None:
    bench = Bench()
    first, second = bench.join(version=1, room=9), bench.join(version=2, room=1, lease_ns=30 * SECOND)
    bench.fire(2)
    (hung,) = bench.take()
    assert hung.instance == second
    bench.pass_time(29)
    assert not bench.given()
    bench.pass_time(1)
    assert bench.given() == {first: [0, 1]}
    bench.dispatcher.alive(second, bench.now)
    bench.fire()
    assert bench.given() == {second: [2]}


def test_a_share_whose_instances_hang_for_their_lease_is_another_s_at_once() -> None:
    bench, first, second = rollout(1.0, lease_ns=30 * SECOND)
    bench.fire()
    assert bench.given() == {second: [0]}
    bench.pass_time(30)
    bench.fire()
    assert bench.given() == {first: [0, 1]}
    bench.dispatcher.alive(second, bench.now)
    bench.fire()
    assert bench.given() == {second: [2]}


def test_a_version_that_gets_all_of_a_key_waits_for_nothing_that_the_other_only_passed_by() -> None:
    bench, _, second = rollout(0.5, exchange="keyed")
    key = next(key for key in map(str, range(99)) if bucket(batch(keys=[key]), 0, header_key) < 0.5)
    bench.fire(3, keys=[key] * 3)
    bench.settle_all()
    bench.dispatcher.share_out("T", "p", 2, 1.0, bench.now)
    bench.fire(keys=["other"])
    assert bench.given() == {second: [3]}


def test_splits_of_which_nothing_is_left_are_forgotten_though_an_event_waits_from_before_them() -> None:
    bench, _, second = rollout(0.5)
    bench.fire()
    (offer,) = bench.take()
    bench.report(offer, failed=[0], verdict="later", after_ns=3_600 * SECOND)
    for number in range(50):
        bench.dispatcher.share_out("T", "p", 2, number % 2 / 2, bench.now)
        bench.fire(4)
        bench.settle_all()
    assert len(bench.track().state.rollout.splits) <= 4
    bench.dispatcher.share_out("T", "p", 2, 1.0, bench.now)
    bench.fire()
    assert bench.given() == {second: [201]}


@pytest.mark.parametrize("exchange", ["keyed", "direct"])
def test_nobody_waits_for_a_track_that_only_passed_by_what_was_replayed(exchange: str) -> None:
    bench = Bench()
    for version in (1, 2):
        bench.join(version=version, room=10, exchange=exchange)
    for share in (1.0, None, 1.0):
        bench.dispatcher.share_out("T", "p", 2, share, bench.now)
        bench.fire(4)
        bench.settle_all()
    assert bench.dispatcher.replay("T", "p", 5, 7, bench.now) == 2
    bench.carry_out()
    bench.dispatcher.share_out("T", "p", 2, None, bench.now)
    bench.fire(2)
    assert sorted(position for picks in handle_all(bench).values() for position in picks) == [5, 6, 12, 13]


@pytest.mark.parametrize("again", ["replayed", "redriven"])
def test_events_of_a_key_that_pend_again_in_several_tracks_go_in_the_order_accepted(again: str) -> None:
    bench = Bench()
    for version in (1, 2):
        bench.join(version=version, room=10, exchange="keyed")
    for share in (1.0, None):  # the first event is in the share's track, which comes behind the other
        bench.dispatcher.share_out("T", "p", 2, share, bench.now)
        bench.fire(keys=["k"])
    for _ in range(2):
        (offer,) = bench.take()
        bench.report(offer, **{"failed" if again == "redriven" else "done": offer.picks}, verdict="reject")
    if again == "redriven":
        bench.dispatcher.redrive("T", "p", Spans((0, 2)), bench.now)
    else:
        bench.dispatcher.replay("T", "p", 0, 2, bench.now)
    bench.carry_out()
    order = []
    while offers := bench.take():
        for offer in offers:
            order.append(list(offer.picks))
            bench.report(offer, done=offer.picks)
    assert order == [[0], [1]]


@pytest.mark.parametrize("again", ["replayed", "redriven"])
def test_an_event_that_pends_again_waits_for_a_later_one_of_its_key_that_another_track_has_in_hand(again: str) -> None:
    bench = Bench()
    first, second = [bench.join(version=version, room=10, exchange="keyed") for version in (1, 2)]
    bench.fire(keys=["k"])
    (offer,) = bench.take()
    bench.report(offer, **{"failed" if again == "redriven" else "done": offer.picks}, verdict="reject")
    bench.dispatcher.share_out("T", "p", 1, 1.0, bench.now)
    bench.fire(keys=["k"])
    (later,) = bench.take()
    assert (later.instance, list(later.picks)) == (first, [1])
    if again == "redriven":
        bench.dispatcher.redrive("T", "p", Spans((0, 1)), bench.now)
    else:
        bench.dispatcher.replay("T", "p", 0, 1, bench.now)
    bench.carry_out()
    assert not bench.take()
    bench.report(later, returned=later.picks)
    (offer,) = bench.take()
    assert (offer.instance, list(offer.picks)) == (second, [0])
    bench.report(offer, done=offer.picks)
    assert bench.given() == {first: [1]}


def test_a_dead_letter_of_a_share_that_is_over_long_ago_is_handed_out_when_it_is_redriven() -> None:
    bench, _, _ = rollout(1.0)
    bench.fire()
    (offer,) = bench.take()
    bench.report(offer, failed=[0], verdict="reject")
    for _ in range(3):
        for share in (None, 0.5):
            bench.dispatcher.share_out("T", "p", 2, share, bench.now)
            bench.fire(4)
            bench.settle_all()
    bench.dispatcher.share_out("T", "p", 2, None, bench.now)
    bench.fire()
    bench.settle_all()
    assert bench.dispatcher.redrive("T", "p", Spans((0, 1)), bench.now) == 1
    bench.carry_out()
    assert list(handle_all(bench).values()) == [[0]]


def test_after_a_restart_shares_are_as_they_were_and_nothing_is_done_twice() -> None:
    bench = Bench(durable=True)
    bench.join(version=1, room=100)
    bench.join(version=2, room=100)
    bench.dispatcher.share_out("T", "p", 2, 0.5, bench.now)
    bench.commit()
    bench.fire(100)
    bench.settle_all()
    bench.commit()
    bench.fire(100)
    bench.restart()
    first, second = bench.join(version=1, room=1_000), bench.join(version=2, room=1_000)
    given = handle_all(bench)
    assert sorted(given[first]) == list(range(100, 200)), "nobody of version 2 was there when these came"
    bench.commit()
    bench.fire(100)
    bench.commit()
    given = handle_all(bench)
    assert sorted(given[first] + given[second]) == list(range(200, 300))
    assert 30 < len(given[second]) < 70


def test_a_fanout_version_gets_copies_of_its_share_alone() -> None:
    bench, first, second = rollout(0.5, exchange="fanout")
    bench.fire(100)
    given = handle_all(bench)
    assert sorted(given[first] + given[second]) == list(range(100))
    assert bench.purpose().pending(100) == 0
    assert bench.purpose().dropped == 0
