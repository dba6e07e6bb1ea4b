"""Shadows: what they get, what is compared, and that nothing of it counts or grows."""

from __future__ import annotations

from typing import Any

import pytest

from solarwind.batch import Batch, seal
from solarwind.core.dispatcher import PURPOSES_A_TURN
from solarwind.core.effects import Join
from solarwind.core.log import Stored
from solarwind.core.shadows import MAX_DIFFERENCES, Difference, Shadow
from solarwind.core.spans import Spans
from solarwind.errors import ConflictError
from solarwind.event import Cause
from solarwind.failure import Retry
from solarwind.limits import Limits

from .bench import SECOND, Bench, batch


def shadowed(bench: Bench | None = None, **second: Any) -> tuple[Bench, int, int]:
    """Version 2 is a shadow of version 1."""
    bench = bench or Bench()
    first = bench.join(version=1, room=1_000)
    other = bench.join(version=2, rollout="shadow", **{"room": 1_000, **second})
    return bench, first, other


def shadow(bench: Bench) -> Shadow:
    return bench.purpose().shadows[2]


def counts(bench: Bench) -> tuple[int, int, int]:
    found = shadow(bench)
    return found.compared, found.differed, found.missed


def differences(bench: Bench) -> list[Difference]:
    return list(bench.purpose().differences or ())


def settle(bench: Bench, instance: int) -> list[int]:
    """Settle what an instance gets, until it gets nothing more; leave what others get for the next `take`."""
    done, left = [], []
    while offers := bench.take():
        left += [offer for offer in offers if offer.instance != instance]
        for offer in [offer for offer in offers if offer.instance == instance]:
            done += list(offer.picks)
            bench.report(offer, done=offer.picks)
    bench.offers = left
    return done


def fired(position: int, payload: bytes, version: int) -> Batch:
    """Return what a handler fired for the event at a position of a bench's only batch."""
    cause = Cause("event", EVENTS.id(position), purpose="p", version=version)
    return seal("U", [payload], [1], producer=2, first=1, machine="m", process="p", causes=[cause])


def accept(bench: Bench, batch: Batch) -> None:
    """Accept a batch. What is put off stays so."""
    stored = Stored(bench.log[-1].stop if bench.log else 0, batch)
    bench.log.append(stored)
    bench.dispatcher.accepted(stored, bench.now)


EVENTS = seal("T", [b"1"] * 4, [1] * 4, producer=1, first=1, machine="m", process="p")


def test_nothing_of_a_shadow_is_committed_counted_needed_or_waited_for() -> None:
    bench, first, second = shadowed(Bench(durable=True))
    bench.commit()
    bench.fire(3)
    assert settle(bench, first) == [0, 1, 2]
    bench.commit()
    (offer,) = bench.take()
    assert (offer.instance, list(offer.picks)) == (second, [0, 1, 2])
    purpose, written = bench.purpose(), len(bench.written)
    assert not bench.dispatcher.has_work("T", "p")
    assert not bench.dispatcher.needed("T")
    bench.report(offer, done=[0], failed=[1], verdict="retry")
    bench.report(offer, failed=[2], verdict="reject")
    bench.commit()
    assert len(bench.written) == written
    assert [(note.version, note.edges) for note in bench.dispatcher.pop_notes()] == [(1, [0, 3])]
    assert [sum(purpose.times[version].settle.counts) for version in (1, 2)] == [3, 0]
    assert [sum(purpose.times[version].handler.counts) for version in (1, 2)] == [3, 3]
    assert [bench.dispatcher.instances[each][0].settled for each in (first, second)] == [3, 1], (
        "copies count here alone"
    )
    assert (purpose.settled, purpose.retried, purpose.dead_count) == (3, 0, 0)
    assert (purpose.pending(3), purpose.in_flight) == (0, 0)
    assert (purpose.died, purpose.failing_since, purpose.state(3, bench.now)) == (0, 0, "running")
    assert [(each.version, each.current.verdict, each.shadow.verdict) for each in differences(bench)] == [
        (2, "settled", "failed"),
        (2, "settled", "rejected"),
    ]


def test_what_the_two_make_of_an_event_is_compared_whoever_is_first() -> None:
    bench, first, second = shadowed()
    bench.fire(4)
    by = {offer.instance: offer for offer in bench.take()}
    bench.report(by[second], done=[0, 1])
    bench.report(by[first], done=[0, 2], failed=[1, 3])
    assert counts(bench)[:2] == (2, 1)
    bench.report(by[second], done=[3], failed=[2], verdict="later")
    assert counts(bench)[:2] == (4, 3)
    assert [(each.current.verdict, each.shadow.verdict) for each in differences(bench)] == [
        ("failed", "settled"),
        ("settled", "later"),
        ("failed", "settled"),
    ]
    bench.pass_time(3_600)  # the retries of the current version are compared no more
    assert settle(bench, first) == [1, 3]
    assert counts(bench)[:2] == (4, 3)
    assert shadow(bench).waiting == 0


def test_what_the_current_version_makes_of_an_event_later_waits_for_nothing() -> None:
    bench, first, second = shadowed()
    bench.fire(2)
    by = {offer.instance: offer for offer in bench.take()}
    bench.report(by[second], done=[1])
    bench.report(by[first], done=[0], failed=[1], verdict="later", after_ns=SECOND)
    bench.pass_time(2)
    assert settle(bench, first) == [1]
    assert shadow(bench).waiting == 1
    bench.report(by[second], done=[0])
    assert (counts(bench), shadow(bench).waiting) == ((2, 1, 0), 0)


def test_what_is_fired_is_compared_for_each_event_by_its_cause() -> None:
    bench, first, second = shadowed()
    accept(bench, EVENTS)
    bench.carry_out()
    by = {offer.instance: offer for offer in bench.take()}
    theirs = [fired(0, b"1", 1), fired(1, b"2", 1), fired(2, b"3", 1)]
    assert bench.report(by[first], done=range(4), fired=theirs)
    assert bench.report(by[second], done=range(4), fired=[fired(0, b"1", 2), fired(1, b"20", 2)])
    found = {each.id: each for each in differences(bench)}
    assert found.keys() == {EVENTS.id(1), EVENTS.id(2)}
    assert [each.payload for each in found[EVENTS.id(1)].shadow.fired] == [b"20"]
    assert found[EVENTS.id(2)].shadow.fired == ()
    assert counts(bench)[:2] == (4, 2)


def test_the_last_thousand_differences_are_kept() -> None:
    bench, first, _ = shadowed()
    for _ in range(3):
        bench.fire(400)
        settle(bench, first)
        for offer in bench.take():
            bench.report(offer, failed=offer.picks)
    found = differences(bench)
    assert len(found) == MAX_DIFFERENCES
    assert counts(bench)[:2] == (1_200, 1_200)


def test_a_keyed_shadow_gets_the_events_of_a_key_one_at_a_time_in_order() -> None:
    bench, first, _ = shadowed(exchange="keyed")
    bench.fire(3, keys=["k", "k", "l"])
    settle(bench, first)
    order = []
    while offers := bench.take():
        for offer in offers:
            order.append(list(offer.picks))
            bench.report(offer, done=offer.picks)
    assert order == [[0, 2], [1]]


def test_a_keyed_shadow_that_rejects_events_without_a_key_goes_without_them() -> None:
    bench, first, second = shadowed(exchange="keyed", key_missing="reject")
    bench.fire(2, keys=[None, "k"])
    settle(bench, first)
    assert bench.given() == {second: [1]}
    assert bench.purpose().dead_count == bench.purpose().died == 0
    assert not bench.said


def test_a_shadow_that_is_too_slow_goes_without_the_older_half_and_nothing_grows() -> None:
    bench, first, second = shadowed(Bench(limits=Limits(copies=100)), room=1)
    for _ in range(150):
        bench.fire()
        settle(bench, first)
    (offer,) = bench.take()
    assert list(offer.picks) == [0]
    assert counts(bench)[2] >= 50
    assert shadow(bench).waiting <= 101
    bench.report(offer, done=[0])
    assert differences(bench) == []
    got = settle(bench, second)
    assert got == list(range(150 - len(got), 150))
    assert len(got) >= 50
    assert counts(bench) == (1 + len(got), 0, 149 - len(got))
    assert shadow(bench).waiting == 0


def test_a_shadow_gets_a_batch_that_is_larger_than_what_may_wait_for_it() -> None:
    bench, first, second = shadowed(Bench(limits=Limits(copies=100)))
    bench.fire(150)
    given = bench.given()
    assert given[first] == given[second] == list(range(150))


def test_a_shadow_that_gives_back_what_it_was_too_slow_for_goes_without_it() -> None:
    bench, first, second = shadowed(Bench(limits=Limits(copies=4)), room=2)
    for _ in range(20):
        bench.fire()
        settle(bench, first)
    by = bench.take()
    assert [list(offer.picks) for offer in by] == [[0], [1]]
    for offer in by:
        bench.report(offer, returned=offer.picks)
    got = settle(bench, second)
    assert got == list(range(20 - len(got), 20))
    assert counts(bench) == (len(got), 0, 20 - len(got))
    assert shadow(bench).waiting == 0


def test_a_current_version_that_is_slow_has_as_many_outcomes_wait_for_it_as_there_may_be_copies() -> None:
    bench = Bench(limits=Limits(copies=100))
    first = bench.join(version=1, room=1)
    second = bench.join(version=2, room=1_000, rollout="shadow")
    for _ in range(300):
        bench.fire()
        settle(bench, second)
    assert shadow(bench).waiting <= 100
    settle(bench, first)
    compared, _, missed = counts(bench)
    assert 50 <= compared <= 101
    assert compared + missed == 300


def test_a_shadow_without_an_instance_misses_what_comes_and_goes_on_with_the_next() -> None:
    bench, first, second = shadowed()
    bench.leave(second)
    bench.fire(5)
    settle(bench, first)
    assert counts(bench) == (0, 0, 5)
    assert shadow(bench).waiting == 0
    third = bench.join(version=2, room=10)
    bench.fire(2)
    settle(bench, first)
    assert bench.given() == {third: [5, 6]}


@pytest.mark.parametrize("died", [True, False])
def test_the_copies_of_an_instance_that_is_gone_are_another_s_unless_they_may_have_been_begun(died: bool) -> None:
    bench, first, second = shadowed()
    third = bench.join(version=2, room=1_000)
    bench.fire(1)
    settle(bench, first)
    (offer,) = bench.take()
    bench.leave(offer.instance, died=died)
    other = third if offer.instance == second else second
    assert bench.given() == ({} if died else {other: [0]})
    assert [each.shadow.verdict for each in differences(bench)] == (["lost"] if died else [])


def test_a_shadow_that_hangs_for_its_lease_loses_its_copies() -> None:
    bench, first, _ = shadowed(lease_ns=5 * SECOND)
    bench.fire(2)
    settle(bench, first)
    bench.pass_time(6)
    assert [each.shadow.verdict for each in differences(bench)] == ["lost", "lost"]
    assert not bench.purpose().leases


def test_a_shadow_begins_with_what_is_accepted_after_it_though_others_have_yet_to_get_what_came_before() -> None:
    bench = Bench()
    first = bench.join(version=1, room=1_000)
    for number in range(PURPOSES_A_TURN):
        bench.join(f"other {number}")
    accept(bench, batch(3))
    accept(bench, batch(2))
    join = Join("T", "p", version=2, room=1_000, rollout="shadow")
    second = bench.dispatcher.join(join, 0, bench.now)
    assert bench.dispatcher.behind
    bench.carry_out()
    bench.fire(1)
    given = bench.given()
    assert given[second] == [5]
    assert sorted(given[first]) == list(range(6))


def test_a_shadow_gets_no_copy_of_what_another_version_has_a_share_of() -> None:
    bench, first, second = shadowed()
    third = bench.join(version=3, room=1_000, rollout=0.5)
    bench.fire(100)
    (its,) = [offer for offer in bench.offers if offer.instance == third]
    given = bench.given()
    assert given[first] == given[second]
    assert sorted(given[first] + given[third]) == list(range(100))
    assert 40 < len(given[third]) < 60
    bench.report(its, done=its.picks)
    assert shadow(bench).waiting == 0


def test_dead_letters_that_are_redriven_into_a_shadow_count_and_are_not_compared() -> None:
    bench = Bench()
    first = bench.join(version=1, room=1_000, retry=Retry(attempts=1))
    bench.fire(1)
    (offer,) = bench.take()
    bench.report(offer, failed=[0])
    second = bench.join(version=2, room=1_000, rollout="shadow")
    assert bench.dispatcher.redrive("T", "p", Spans((0, 1)), bench.now, 2) == 1
    bench.carry_out()
    assert settle(bench, second) == [0]
    assert (bench.purpose().settled, bench.purpose().dead_count) == (1, 0)
    assert counts(bench) == (0, 0, 0)
    assert shadow(bench).waiting == 0
    assert first


def test_a_shadow_is_promoted_once_it_has_no_copies_in_hand() -> None:
    bench, first, second = shadowed()
    bench.fire(2)
    settle(bench, first)
    (offer,) = bench.take()
    with pytest.raises(ConflictError, match=r"expected version 2 .* no copies in hand, got 2"):
        bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    with pytest.raises(ConflictError, match=r"expected version 2 .* no copies in hand, got 2"):
        bench.dispatcher.versions.share("T", "p", 2, 0.5, bench.now)
    bench.dispatcher.versions.share("T", "p", 2, 0.0, bench.now)
    bench.fire(1)
    assert settle(bench, first) == [2]
    bench.report(offer, done=[0], failed=[1])
    bench.dispatcher.versions.promote("T", "p", 2, bench.now)
    bench.fire(1)
    assert bench.given() == {second: [3]}
    assert bench.purpose().settled == 3


def test_a_purpose_that_is_retired_forgets_its_shadows() -> None:
    bench, first, second = shadowed()
    bench.fire(2)
    bench.dispatcher.retire("T", "p", bench.now, force=True)
    bench.carry_out()
    assert sorted(each.instance for each in bench.closed) == [first, second]
    bench.fire(1)
    assert "p" not in bench.dispatcher.topics["T"].purposes


def test_a_paused_purpose_hands_its_shadows_nothing_until_it_is_resumed() -> None:
    bench, first, second = shadowed()
    bench.dispatcher.pause("T", "p", bench.now)
    bench.fire(2)
    assert bench.given() == {}
    bench.dispatcher.resume("T", "p", bench.now)
    bench.carry_out()
    assert bench.given() == {first: [0, 1], second: [0, 1]}


@pytest.mark.parametrize("slow", ["current", "shadow"])
def test_of_what_one_of_the_two_let_expire_nothing_is_kept(slow: str) -> None:
    """The current version's is compared with what the shadow made of it; the shadow's is missed."""
    bench = Bench()
    first = bench.join(version=1, room=1 if slow == "current" else 9)
    second = bench.join(version=2, rollout="shadow", room=1 if slow == "shadow" else 9)
    bench.fire(2, expires=[None, bench.now + SECOND])
    fast, late = (second, first) if slow == "current" else (first, second)
    assert settle(bench, fast) == [0, 1]
    assert shadow(bench).waiting == 2
    bench.pass_time(2)
    assert settle(bench, late) == [0]
    assert shadow(bench).waiting == 0
    if slow == "current":
        assert counts(bench) == (2, 1, 0)
        assert [each.current.verdict for each in differences(bench)] == ["expired"]
    else:
        assert counts(bench) == (1, 0, 1)
