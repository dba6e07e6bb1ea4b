"""Versions with shares of their own: tracks side by side, over one log."""

from __future__ import annotations

import sys
from collections import Counter
from types import FrameType
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind.batch import MAX_NUMBERS, Batch, seal
from solarwind.core.effects import Report
from solarwind.core.exchange import header_key
from solarwind.core.log import Stored
from solarwind.core.rollout import MAX_EDGES, MAX_PARTS, Division, Split, divide
from solarwind.core.spans import Spans
from solarwind.core.state import encode
from solarwind.errors import BadArgument, ConflictError, NotAllowed, NotFound
from solarwind.failure import Retry
from solarwind.limits import Limits
from solarwind.testing.sim_facts import owned, positions

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
    bench.dispatcher.versions.share("T", "p", 2, 0.5, bench.now)
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
    """Return how many functions are called, by name or built in, to do this."""
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
        assert calls(lambda track=track: track.pending(end)) < 80


def keys_of(bench: Bench, versions: dict[int, int]) -> dict[int, str]:
    """Return for each version, here by its instance, a key whose events it gets."""
    keys = [f"k{number}" for number in range(40)]
    start = bench.fire(40, keys=keys).start
    return {versions[instance]: keys[picks[0] - start] for instance, picks in handle_all(bench).items()}


@pytest.mark.parametrize("at_hand", [True, False], ids=["log in memory", "log to be read"])
def test_after_a_restart_without_instances_nothing_pends_of_what_other_versions_have_done(
    at_hand: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.core.backlog.LOOK_AHEAD", 1)
    bench = Bench(durable=True)
    first, second = [bench.join(version=version, room=100) for version in (1, 2)]
    give(bench, 2, 0.5)
    bench.commit()
    theirs = keys_of(bench, {first: 1, second: 2})
    bench.fire(10, keys=[theirs[2]] * 10)
    handle_all(bench)
    bench.commit()
    bench.at_hand = at_hand
    bench.restart()
    bench.at_hand = True
    for each in bench.fetches:
        bench.dispatcher.fetched("T", each.position, bench.find("T", each.position), bench.now)
        bench.carry_out()
    end = bench.log[-1].stop
    purpose = bench.purpose()
    assert (purpose.pending(end), purpose.oldest_position(end), purpose.state(end, bench.now)) == (0, None, "running")
    bench.commit()
    last = bench.fire(keys=[theirs[1]])
    assert (purpose.pending(last.stop), purpose.oldest_position(last.stop)) == (1, last.start)
    assert purpose.state(last.stop, bench.now) == "nobody up"


def test_a_purpose_that_is_retired_while_it_is_looked_through_is_not_written_down_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("solarwind.core.backlog.LOOK_AHEAD", 1)
    bench, first, _ = rollout(1.0)
    bench.leave(first)
    for instance, _ in bench.dispatcher.instances.values():
        instance.room = 10_000
    for start in (0, SIZE):
        bench.log.append(Stored(start, keyed(start, SIZE, keys=False)))
    bench.dispatcher.accepted(Stored(0, bench.log[0].batch), bench.now)
    bench.dispatcher.accepted(bench.log[1], bench.now)
    assert bench.dispatcher.behind
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.dispatcher.pop_changes()
    bench.carry_out()
    assert not bench.dispatcher.changes


def test_a_keyed_version_goes_on_while_one_without_an_instance_has_nothing_of_its_own() -> None:
    bench, first, second = rollout(0.5, exchange="keyed")
    theirs = keys_of(bench, {first: 1, second: 2})
    bench.leave(first)
    bench.fire(keys=[theirs[2]])
    assert list(handle_all(bench)) == [second]
    give(bench, 2, 0.6)
    bench.fire(keys=[theirs[2]])
    assert list(handle_all(bench)) == [second], "nothing from before the split is left"


@pytest.mark.parametrize("up", [True, False], ids=["no room", "no instance"])
def test_a_version_that_gets_nothing_is_asked_about_its_first_event_only_and_costs_little(up: bool) -> None:
    bench, first, second = rollout(0.5)
    theirs = keys_of(bench, {first: 1, second: 2})
    if up:
        bench.dispatcher.instances[first][0].room = 1
        bench.fire(keys=[theirs[1]])
    else:
        bench.leave(first)
    bench.fire(3_000, keys=[theirs[2]] * 3_000)
    end = bench.log[-1].stop
    given = [offer for offer in bench.take() if offer.instance == second]
    for offer in given:
        bench.report(offer, done=offer.picks)
    handled = [position for offer in given for position in offer.picks]
    while offers := [offer for offer in bench.take() if offer.instance == second]:
        for offer in offers:
            handled += offer.picks
            bench.report(offer, done=offer.picks)
    assert len(handled) == 3_000
    purpose = bench.purpose()
    assert (purpose.pending(end), purpose.in_flight) == (0, int(up))
    own = bench.fire(keys=[theirs[1]])
    assert purpose.pending(own.stop) == 1
    bench.at_hand = False
    assert calls(lambda: bench.dispatcher.exchange(purpose.main, bench.now)) < 60
    assert not bench.fetches
    if not up:
        bench.at_hand = True
        bench.fire(50, keys=[theirs[1 + number % 5 // 4] for number in range(50)])
        assert purpose.pending(own.stop + 50) == 41, "each of its own is counted"
        assert purpose.oldest_position(own.stop) == own.start


def test_what_an_instance_gives_back_pends_and_nothing_else_does() -> None:
    bench, first, second = rollout(0.5)
    bench.fire(100)
    offers = bench.take()
    for offer in offers:
        if offer.instance == second:
            bench.report(offer, done=offer.picks)
    (held,) = [offer for offer in offers if offer.instance == first]
    bench.leave(first)
    assert bench.purpose().pending(100) == len(held.picks)
    assert bench.purpose().oldest_position(100) == held.picks[0]


def test_the_oldest_event_is_not_one_that_another_version_has_done() -> None:
    bench, first, second = rollout(0.5)
    theirs = keys_of(bench, {first: 1, second: 2})
    bench.fire(10, keys=[theirs[2]] * 10)
    own = bench.fire(keys=[theirs[1]])
    for offer in bench.take():
        if offer.instance == second:
            bench.report(offer, done=offer.picks)
    assert bench.purpose().oldest_position(own.stop) == own.start


def give(bench: Bench, version: int, share: float | None) -> None:
    """Give a version a share, or with None make it current."""
    if share is None:
        bench.dispatcher.versions.promote("T", "p", version, bench.now)
    else:
        bench.dispatcher.versions.share("T", "p", version, share, bench.now)


def rollout(share: float = 0.5, **second: object) -> tuple[Bench, int, int]:
    """Version 2 has a share of what comes, beside version 1."""
    bench = Bench()
    first = bench.join(version=1, room=1_000)
    other = bench.join(version=2, room=1_000, **second)
    give(bench, 2, share)
    return bench, first, other


def handle_all(bench: Bench) -> dict[int, list[int]]:
    """Return which events each instance gets."""
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
    assert abs(len(given[second]) - 1_000) <= 10
    assert bench.purpose().pending(10_000) == 0
    assert bench.purpose().settled == 10_000


def as_divided(sealed: Batch, start: int, stop: int, shares: list[float]) -> dict[int, list[int]]:
    """Check that a part of a batch is divided as the simulator's model says. Return which events each track has."""
    split, count = Split(0, list(enumerate(shares, 2))), len(sealed)
    found = divide(Stored(0, sealed), start, stop, split, None)
    keys, ids = [(sealed.key(at), None) for at in range(count)], [sealed.id(at) for at in range(count)]
    expected = owned([(0, dict(split.shares), None)], count, keys, ids)
    for track, own in found.items():
        assert list(own.positions()) == [at for at in positions(expected.get(track, 0)) if start <= at < stop]
    return {track: list(own.positions()) for track, own in found.items()}


@given(
    st.lists(st.sampled_from([1e-9, 0.001, 0.05, 0.1, 0.25, 1 / 3]) | st.floats(1e-12, 0.25), min_size=1, max_size=3),
    st.integers(0, MAX_NUMBERS - 580),
    st.sampled_from([0, 1, 2**32 - 1]),
    st.integers(0, 290),
    st.integers(1, 290),
)
def test_what_is_numbered_in_a_row_is_divided_as_each_of_its_events_would_be(
    shares: list[float], first: int, producer: int, start: int, count: int
) -> None:
    stop = start + count
    where = {"producer": producer, "first": first, "machine": "m", "process": "p"}
    as_divided(seal("T", [b"1"] * stop, [1] * stop, **where), start, stop, shares)


@pytest.mark.parametrize("every", [1, 2, 3])
def test_what_has_keys_or_ids_is_divided_by_the_key_or_else_the_id_or_else_the_number(every: int) -> None:
    keys = [f"k{at}" if at % every == 0 else None for at in range(100)]
    ids = [f"i{at}" if at % 2 == 0 else None for at in range(100)]
    where = {"producer": 1, "first": 7, "machine": "m", "process": "p"}
    for columns in ({"keys": keys}, {"ids": ids}, {"keys": keys, "ids": ids}):
        sealed = seal("T", [b"1"] * 100, [1] * 100, **where, **columns)
        found = as_divided(sealed, 10, 90, [0.25, 0.5])
        assert all(found.values())


def test_four_that_are_numbered_in_a_row_go_to_one_version() -> None:
    where = {"producer": 5, "first": 4 * 1_000, "machine": "m", "process": "p"}
    found = as_divided(seal("T", [b"1"] * 400, [1] * 400, **where), 0, 400, [0.1, 0.6])
    for own in found.values():
        assert {at // 4 for at in own} == {at // 4 for at in own[::4]}
        assert len(own) == 4 * len({at // 4 for at in own})


def test_how_events_are_divided_is_remembered_for_a_track_that_is_far_behind_but_not_without_limit(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    divided: list[int] = []

    def noting(stored: Stored, *where: Any, genuine: Any = divide) -> Any:
        divided.append(stored.start)
        return genuine(stored, *where)

    monkeypatch.setattr("solarwind.core.rollout.divide", noting)
    split, count = Split(0, [(2, 0.5)]), 4_000
    names = [str(number) for number in range(count)]
    log = [Stored(at, batch(count, keys=names)) for at in range(0, 20 * count, count)]
    edges = sum(len(own.edges) for own in divide(log[0], 0, count, split, None).values())
    remembered = MAX_EDGES // edges
    assert 4 <= remembered < MAX_PARTS

    def go(track: int, over: list[Stored]) -> list[int]:
        del divided[:]
        for stored in over:
            division.own(track, stored, stored.start, stored.stop, count)
        return list(divided)

    division = Division(lambda: [split], lambda path: header_key)
    near = log[:remembered]
    assert go(2, near) == [stored.start for stored in near]
    assert go(0, near) == []
    go(2, log)
    assert go(0, log[::-1]) == [stored.start for stored in log[-remembered - 1 :: -1]]


def test_an_event_that_is_not_done_pends_though_those_of_its_version_before_and_after_it_are() -> None:
    bench, _, _ = rollout(0.5)
    bench.fire(100)
    for offer in bench.take():
        state = next(lease.track.state for lease in bench.purpose().leases.values() if lease.id == offer.lease)
        first, *left, last = offer.picks
        bench.report(offer, done=[first, last])
        assert set(left) <= set(state.pending(100).positions())
        bench.report(offer, done=left)
        assert bench.purpose().tracks[state.track].pending(100) == 0


@pytest.mark.parametrize("keys", [False, True], ids=["by id", "by key"])
def test_what_two_versions_cost_more_than_one_is_less_than_a_call_an_event(keys: bool) -> None:
    divide(Stored(0, keyed(0, SIZE, keys=keys)), 0, SIZE, Split(0, [(2, 0.1)]), None)  # a key's place is remembered
    cost = []
    for bench in (Bench(), rollout(0.1)[0]):
        if not cost:
            bench.join(version=1, room=1_000)
        for instance, _ in bench.dispatcher.instances.values():
            instance.room = 10_000
        stored = Stored(0, keyed(0, SIZE, keys=keys))
        bench.log = [stored]

        def handled(bench: Bench = bench, stored: Stored = stored) -> None:
            bench.dispatcher.accepted(stored, bench.now)
            bench.carry_out()
            for offer in bench.take():
                bench.dispatcher.post_send(Report(offer.instance, offer.lease, Spans.of(offer.picks)), bench.now)

        cost.append(calls(handled))
        assert bench.purpose().settled == SIZE
    assert cost[1] - cost[0] < SIZE


def test_a_key_stays_with_its_version_while_that_one_s_share_grows() -> None:
    bench, _, second = rollout(0.3)
    keys = [f"k{number}" for number in range(50)]
    shares = []
    for share in (0.3, 0.6, 0.9):
        give(bench, 2, share)
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
    bench.dispatcher.versions.share("T", "p", 2, 1.0, bench.now)
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
    halves = divide(Stored(0, batch(99, keys=[str(number) for number in range(99)])), 0, 99, Split(0, [(2, 0.5)]), None)
    key = str(halves[2].edges[0])
    bench.fire(3, keys=[key] * 3)
    bench.settle_all()
    bench.dispatcher.versions.share("T", "p", 2, 1.0, bench.now)
    bench.fire(keys=["other"])
    assert bench.given() == {second: [3]}


def test_splits_of_which_nothing_is_left_are_forgotten_though_an_event_waits_from_before_them() -> None:
    bench, _, second = rollout(0.5)
    bench.fire()
    (offer,) = bench.take()
    bench.report(offer, failed=[0], verdict="later", after_ns=3_600 * SECOND)
    for number in range(50):
        bench.dispatcher.versions.share("T", "p", 2, number % 2 / 2, bench.now)
        bench.fire(4)
        bench.settle_all()
    assert len(bench.track().state.rollout.splits) <= 4
    bench.dispatcher.versions.share("T", "p", 2, 1.0, bench.now)
    bench.fire()
    assert bench.given() == {second: [201]}


@pytest.mark.parametrize("exchange", ["keyed", "direct"])
def test_nobody_waits_for_a_track_that_only_passed_by_what_was_replayed(exchange: str) -> None:
    bench = Bench()
    for version in (1, 2):
        bench.join(version=version, room=10, exchange=exchange)
    for share in (1.0, None, 1.0):
        give(bench, 2, share)
        bench.fire(4)
        bench.settle_all()
    assert bench.dispatcher.replay("T", "p", 5, 7, bench.now) == 2
    bench.carry_out()
    bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    bench.fire(2)
    assert sorted(position for picks in handle_all(bench).values() for position in picks) == [5, 6, 12, 13]


@pytest.mark.parametrize("again", ["replayed", "redriven"])
def test_events_of_a_key_that_pend_again_in_several_tracks_go_in_the_order_accepted(again: str) -> None:
    bench = Bench()
    for version in (1, 2):
        bench.join(version=version, room=10, exchange="keyed")
    for share in (1.0, None):  # the first event is in the share's track, which comes behind the other
        give(bench, 2, share)
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
    bench.dispatcher.versions.share("T", "p", 1, 1.0, bench.now)
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
            give(bench, 2, share)
            bench.fire(4)
            bench.settle_all()
    bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    bench.fire()
    bench.settle_all()
    assert bench.dispatcher.redrive("T", "p", Spans((0, 1)), bench.now) == 1
    bench.carry_out()
    assert list(handle_all(bench).values()) == [[0]]


def test_after_a_restart_shares_are_as_they_were_and_nothing_is_done_twice() -> None:
    bench = Bench(durable=True)
    bench.join(version=1, room=100)
    bench.join(version=2, room=100)
    bench.dispatcher.versions.share("T", "p", 2, 0.5, bench.now)
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


@pytest.mark.parametrize("beside", ["share", "shadow"])
def test_a_fanout_does_not_become_current_beside_a_share_or_a_shadow(beside: str) -> None:
    bench = Bench()
    bench.join(version=1)
    bench.join(version=2, rollout=0.5 if beside == "share" else "shadow")
    change, before = bench.dispatcher.versions, bench.purpose().main.state.rollout
    refusal = "version 2 beside version 3 with exchange 'fanout': hold one of the two, with a share of 0"
    with pytest.raises(ConflictError, match=refusal):
        bench.join(version=3, exchange="fanout")
    assert 3 not in bench.purpose().statements
    bench.join(version=3, exchange="fanout", rollout="hold", room=100)
    with pytest.raises(ConflictError, match=refusal):
        change.promote("T", "p", 3, bench.now)
    change.share("T", "p", 3, 0, bench.now)
    assert bench.purpose().main.state.rollout == msgspec.structs.replace(before, wanted=[*before.wanted, (3, 0.0)])
    change.share("T", "p", 2, 0, bench.now)
    change.promote("T", "p", 3, bench.now)
    bench.fire(10)
    assert bench.purpose().active.version == 3
    assert bench.purpose().pending(10) == 0


def test_no_share_and_no_shadow_begins_where_a_fanout_is_current_or_was_so_before() -> None:
    bench = Bench()
    bench.join(version=1, exchange="fanout")
    bench.join(version=2, rollout="hold")
    change = bench.dispatcher.versions
    for current, held in ((1, 2), (2, 3)):
        refusal = f"version {held} beside version 1 with exchange 'fanout'"
        with pytest.raises(ConflictError, match=refusal):
            change.share("T", "p", held, 0.1, bench.now)
        with pytest.raises(ConflictError, match=refusal):
            change.shadow("T", "p", held, bench.now)
        with pytest.raises(ConflictError, match="version 4 beside version 1"):
            bench.join(version=4, rollout=0.1)
        assert (bench.purpose().active.version, bench.purpose().shares, bench.purpose().shadows) == (current, {}, {})
        change.promote("T", "p", held, bench.now)
        bench.join(version=3, rollout="hold")
    change.share("T", "p", 1, 0, bench.now)
    change.share("T", "p", 3, 0, bench.now)
    change.share("T", "p", 3, 0.1, bench.now)


def versions(bench: Bench) -> tuple[int, list[int], dict[int, float]]:
    """Return the current version, those that were so before it, and the shares."""
    purpose = bench.purpose()
    return purpose.active.version, purpose.line[:-1], dict(purpose.main.state.rollout.wanted)


def test_a_version_that_is_promoted_is_current_and_a_rollback_leads_to_the_one_before() -> None:
    bench, first, second = rollout(0.5)
    change = bench.dispatcher.versions
    assert versions(bench) == (1, [], {2: 0.5})
    change.promote("T", "p", 2, bench.now)
    bench.fire()
    assert bench.given() == {second: [0]}
    assert versions(bench) == (2, [1], {})
    change.rollback("T", "p", bench.now)
    bench.fire()
    assert bench.given() == {first: [1]}
    bench.leave(first)
    bench.fire()
    assert not bench.given(), "what was rolled back gets nothing, also where nobody else is there"
    with pytest.raises(ConflictError, match="a version that was current before version 1, got none"):
        change.rollback("T", "p", bench.now)
    assert versions(bench) == (1, [], {})
    third = bench.join(version=3, room=9)
    assert bench.given() == {third: [1, 2]}
    change.promote("T", "p", 1, bench.now)
    assert versions(bench)[1] == [3]


def test_an_older_version_that_is_first_seen_later_stands_behind_the_newer() -> None:
    bench = Bench()
    for version in (1, 3):
        bench.join(version=version)
    bench.dispatcher.versions.promote("T", "p", 1, bench.now)
    bench.dispatcher.versions.promote("T", "p", 3, bench.now)
    bench.join(version=2)
    assert versions(bench) == (3, [1, 2], {})
    bench.join(version=5)
    bench.dispatcher.versions.promote("T", "p", 1, bench.now)
    bench.join(version=4)
    assert versions(bench) == (4, [2, 3, 5, 1], {}), "newer than what is current"


def test_dead_letters_are_redriven_into_one_version_alone_and_stay_its_own() -> None:
    bench = Bench(durable=True)
    first = bench.join(version=1, room=100)
    held = bench.join(version=2, room=100, rollout="hold", retry=Retry(attempts=1))
    bench.fire(9)
    bench.commit()
    (offer,) = bench.take()
    bench.report(offer, failed=offer.picks, verdict="reject")
    redrive = bench.dispatcher.redrive
    assert redrive("T", "p", Spans((2, 6)), bench.now, 2) == 4
    bench.carry_out()
    bench.commit()
    (offer,) = bench.take()
    assert (offer.instance, list(offer.picks), offer.tried) == (held, [2, 3, 4, 5], {})
    bench.report(offer, done=[3], failed=[2, 4, 5])
    bench.commit()
    assert list(bench.purpose().dead.positions()) == [0, 1, 2, 4, 5, 6, 7, 8]
    assert (bench.purpose().pending(9), bench.purpose().settled) == (0, 1)
    assert redrive("T", "p", Spans((4, 7)), bench.now, 2) == 3
    bench.carry_out()
    bench.commit()
    offers = bench.take()
    assert sorted(position for offer in offers for position in offer.picks) == [4, 5, 6], "its own, and the other's"
    for offer in offers:
        bench.report(offer, failed=offer.picks)
    bench.commit()
    bench.restart()
    first = bench.join(version=1, room=100)
    bench.fire()
    assert bench.dispatcher.redrive("T", "p", Spans((0, 3)), bench.now, None) == 3
    bench.carry_out()
    bench.commit()
    given = handle_all(bench)
    assert sorted(given[first]) == [0, 1, 9]
    assert bench.purpose().pending(10) == 1, "it waits for version 2"
    assert bench.dispatcher.replay("T", "p", 0, 10, bench.now) == 9
    bench.carry_out()
    bench.commit()
    assert sorted(handle_all(bench)[first]) == [0, 1, 3, 4, 5, 6, 7, 8, 9], "what is done or dead anywhere, and no more"
    held = bench.join(version=2, room=100)
    assert handle_all(bench) == {held: [2]}
    assert bench.purpose().dead_count == bench.purpose().pending(10) == 0


def test_letters_are_not_redriven_into_another_version_where_one_keeps_the_order_of_keys() -> None:
    bench = Bench()
    first = bench.join(version=1, room=9)
    second = bench.join(version=2, room=9, exchange="keyed", rollout="hold")
    bench.join(version=3, exchange="fanout", rollout="hold")
    bench.fire(keys=["a"])
    (offer,) = bench.take()
    bench.report(offer, failed=[0], verdict="reject")
    letters, redrive = Spans((0, 1)), bench.dispatcher.redrive
    with pytest.raises(NotAllowed, match="since version 2 keeps the order of keys, got version 2: promote that one"):
        redrive("T", "p", letters, bench.now, 2)
    with pytest.raises(NotAllowed, match="got version 3 with exchange 'fanout'"):
        redrive("T", "p", letters, bench.now, 3)
    with pytest.raises(NotFound, match="one of 1, 2, 3, got 4"):
        redrive("T", "p", letters, bench.now, 4)
    assert bench.purpose().dead_count == 1
    assert redrive("T", "p", letters, bench.now, 1) == 1
    bench.carry_out()
    (offer,) = bench.take()
    assert offer.instance == first
    bench.report(offer, failed=[0], verdict="reject")
    bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    redrive("T", "p", letters, bench.now, 2)
    bench.carry_out()
    assert bench.given() == {second: [0]}


@pytest.mark.parametrize("stated", ["hold", 0.25])
def test_what_a_version_states_when_it_is_first_seen_holds_whoever_joins_later(stated: str | float) -> None:
    bench = Bench()
    bench.join(version=1, rollout=stated)
    assert versions(bench) == (1, [], {}), "there is nobody else"
    bench.join(version=2, rollout=stated)
    bench.join(version=2)
    assert versions(bench) == (1, [], {2: 0.0 if stated == "hold" else stated})
    bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    bench.join(version=2, rollout=stated)
    assert versions(bench) == (2, [1], {})


def test_a_version_that_states_more_than_is_left_is_refused_and_is_not_known() -> None:
    bench, _, _ = rollout(0.75)
    with pytest.raises(ConflictError, match=r"expected a share of 0 to 0\.25, .*, got 0\.5 for version 3 of 'p'"):
        bench.join(version=3, rollout=0.5)
    assert versions(bench) == (1, [], {2: 0.75})
    assert 3 not in bench.purpose().statements
    bench.join(version=3, rollout=0.25)


def test_what_has_no_meaning_is_refused_and_changes_nothing() -> None:
    bench, _, _ = rollout(0.5)
    bench.join(version=3, exchange="fanout", rollout="hold")
    before, change = versions(bench), bench.dispatcher.versions
    for share in (-0.1, 1.1, float("nan")):
        with pytest.raises(BadArgument, match=f"expected a share of 0 to 1, got {share:.6g} for version 2"):
            change.share("T", "p", 2, share, bench.now)
    with pytest.raises(ConflictError, match="expected another version of purpose 'p' on topic 'T' that may be current"):
        change.share("T", "p", 1, 0.5, bench.now)
    with pytest.raises(NotFound, match="one of 1, 2, 3, got 4, which never joined"):
        change.promote("T", "p", 4, bench.now)
    with pytest.raises(NotAllowed, match="got version 3 with exchange 'fanout'"):
        change.share("T", "p", 3, 0.1, bench.now)
    with pytest.raises(ConflictError, match="got version 2: share 0 takes it away, and leaves version 1 current"):
        change.rollback("T", "p", bench.now)
    assert versions(bench) == before


def test_shares_that_are_all_together_may_be_above_it_by_how_numbers_are_rounded() -> None:
    shares = (0.05, 0.55, 0.3, 0.1)
    assert sum(shares) > 1
    bench = Bench()
    bench.join(version=1)
    for version, share in enumerate(shares, 2):
        bench.join(version=version, rollout=share)
    assert tuple(versions(bench)[2].values()) == shares


@pytest.mark.parametrize("stated", ["newest", 0.5, "shadow"])
def test_versions_that_are_over_are_forgotten_the_first_first_and_what_they_counted_stays(stated: str | float) -> None:
    """One after the other is new, maybe has a share at first or is a shadow, becomes current, and goes."""
    bench = Bench(durable=True, limits=Limits(versions=3))
    change, retry = bench.dispatcher.versions, Retry(attempts=1)
    last = bench.join(version=1, room=9, retry=retry)
    for version in range(2, 9):
        new = bench.join(version=version, room=9, rollout=stated, retry=retry)
        for _ in range(2):
            bench.fire(40)
            bench.commit()
            while offers := bench.take():
                for offer in offers:
                    bench.report(offer, done=offer.picks)
                bench.commit()
            change.promote("T", "p", version, bench.now)
        bench.leave(last)
        last = new
    purpose = bench.purpose()
    assert sorted(purpose.statements) == [6, 7, 8]
    assert purpose.line == [6, 7, 8]
    assert set(purpose.tracks) <= {0, 6, 7, 8}
    assert purpose.times.keys() == {6, 7, 8}
    assert purpose.settled == bench.log[-1].stop == 560
    change.rollback("T", "p", bench.now)
    assert purpose.line == [6, 7]
    bench.commit()
    bench.restart(clean=True)
    purpose = bench.purpose()
    assert sorted(purpose.statements) == [6, 7, 8]
    assert purpose.settled == 560
    bench.join(version=2, room=9)
    assert (purpose.active.version, purpose.line) == (2, [2, 6, 7]), "it is new, and only it is there"


def test_a_version_that_has_something_left_is_not_forgotten() -> None:
    """Whatever that is: an instance, a share that waits for one, events that pend, and dead letters."""
    bench = Bench(durable=True, limits=Limits(versions=1))
    change, retry = bench.dispatcher.versions, Retry(attempts=1)
    for version in range(1, 4):
        bench.join(version=version, room=99, retry=retry)
    pending, dead, idle = (bench.join(version=each, room=99, rollout=0.25, retry=retry) for each in (4, 5, 6))
    assert idle
    bench.fire(200)
    bench.commit()
    for offer in bench.take():
        if offer.instance == pending:
            bench.leave(pending)
        elif offer.instance == dead:
            bench.report(offer, failed=offer.picks)
        else:
            bench.report(offer, done=offer.picks)
        bench.commit()
    letters, open_before = bench.purpose().dead_count, bench.purpose().pending(200)
    assert letters
    change.share("T", "p", 5, 0, bench.now)
    for instance in [id for id in bench.purpose().instances if id != idle]:
        bench.leave(instance)
    for version in range(7, 12):
        bench.leave(bench.join(version=version, room=99))
        bench.commit()
    purpose = bench.purpose()
    assert {4, 5, 6} < purpose.statements.keys()
    assert not {1, 2, 3} & purpose.statements.keys()
    assert purpose.dead_count == letters
    assert purpose.pending(200) >= open_before
