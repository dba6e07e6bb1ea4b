"""When the due-log is looked at, as the local engine, the owner of a partition and the simulator run it."""

from __future__ import annotations

from solarwind.batch import seal
from solarwind.engine.due import FIRST_PAUSE_NS, LOOK_NS, MAX_PAUSE_NS, Due, by_due

SECOND = 1_000_000_000


def due_at(when: int) -> Due:
    due = Due()
    due.add(when)
    return due


def test_events_are_parted_by_due_time_and_those_without_one_are_due_at_once() -> None:
    payloads = [b"0", b"1", b"2", b"3"]
    times = [7, None, 3, 7]
    batch = seal("T", payloads, [1] * 4, producer=1, first=0, machine="m", process="p", due=times)
    parts = [(due, [int(each.payload(index)) for index in range(len(each))]) for due, each in by_due(batch)]
    assert parts == [(0, [1]), (3, [2]), (7, [0, 3])]


def test_it_is_due_by_the_wall_clock_alone() -> None:
    due = due_at(100)
    assert [due.is_due(1000, wall) for wall in (99, 100)] == [False, True]
    assert [due.has_work(wall) for wall in (99, 100)] == [False, True]


def test_the_wall_clock_is_looked_at_every_minute() -> None:
    due = due_at(LOOK_NS + 50)
    assert [due.wake_at(7, wall) for wall in (0, 50, 60)] == [7 + LOOK_NS, 7 + LOOK_NS, LOOK_NS - 3]


def test_what_is_added_during_a_release_is_not_forgotten_whatever_the_release_finds() -> None:
    for found, nearest in ((None, 40), (30, 30), (50, 40)):
        due = due_at(10)
        due.begin()
        due.add(40)
        due.released(found)
        assert due.nearest == nearest


def test_what_a_release_has_taken_is_not_released_again_meanwhile_and_is_still_to_be_done() -> None:
    due = due_at(10)
    due.begin()
    due.add(5)
    assert (due.is_due(100, 100), due.has_work(100), due.has_work(0)) == (False, True, True)


def test_after_failures_the_pauses_are_longer_each_time_up_to_a_maximum_and_short_again_after_a_success() -> None:
    due, pauses, now = due_at(10), list[int](), 100
    for _ in range(7):
        due.failed(due.begin(), now)
        pauses.append(due.wake_at(now, 100) - now)
        assert not due.is_due(now + pauses[-1] - 1, 100)
        now += pauses[-1]
        assert due.is_due(now, 100)
        assert due.failing
    assert pauses == [FIRST_PAUSE_NS << number for number in range(6)] + [MAX_PAUSE_NS]
    due.begin()
    due.released(10)
    assert not due.failing
    due.failed(due.begin(), now)
    assert due.wake_at(now, 100) - now == FIRST_PAUSE_NS
