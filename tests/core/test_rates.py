"""Rings of numbers of events."""

from __future__ import annotations

from collections import Counter
from random import Random

import pytest

from solarwind.core.rates import SPANS, Rates, RecentRate, Ring

NOW = 1_800_000_000


def test_a_ring_has_the_number_of_each_slot_the_oldest_first() -> None:
    ring = Ring(10, 6)
    for second, count in ((NOW, 1), (NOW + 9, 2), (NOW + 10, 4), (NOW + 35, 8)):
        ring.add(second, count)
    assert ring.read(NOW + 35, 6) == [0, 0, 3, 4, 0, 8]
    assert ring.read(NOW + 45, 3) == [0, 8, 0]
    assert ring.read(NOW + 35, 2) == [0, 8]


def test_a_total_is_the_sum_of_the_slots_that_are_read_whatever_came_when() -> None:
    random, ring, second = Random(1), Ring(10, 6), NOW
    for _ in range(300):
        second += random.choice((0, 0, 3, 10, 25, 90))
        ring.add(second, random.randrange(9))
        asked = second + random.choice((0, 0, 10, 30, 100))
        for slots in range(7):
            assert ring.total(asked, slots) == sum(ring.read(asked, slots))


def test_a_ring_forgets_what_is_older_than_its_slots() -> None:
    ring = Ring(1, 5)
    ring.add(NOW, 7)
    assert ring.read(NOW + 4, 5) == [7, 0, 0, 0, 0]
    assert ring.read(NOW + 5, 5) == [0, 0, 0, 0, 0]
    ring.add(NOW + 1_000_000, 1)
    ring.add(NOW + 1_000_000 - 5, 9)  # too old
    assert ring.read(NOW + 1_000_000, 5) == [0, 0, 0, 0, 1]


@pytest.mark.parametrize("seed", range(3))
def test_a_ring_agrees_with_a_count_of_everything(seed: int) -> None:
    random, ring, all_of_it, second = Random(seed), Ring(7, 20), Counter[int](), NOW
    for _ in range(500):
        second += random.choice((0, 1, 3, 10, 200))
        count = random.randrange(5)
        ring.add(second, count)
        all_of_it[second // 7] += count
        last = second // 7
        assert ring.read(second, 20) == [all_of_it[slot] for slot in range(last - 19, last + 1)]


def test_rates_are_what_a_counter_has_grown_by_between_two_looks() -> None:
    rates = Rates((100, 5))
    assert not rates.look((100, 5), NOW)
    assert rates.is_empty
    assert rates.look((103, 5), NOW + 1)
    assert rates.look((104, 5), NOW + 3)
    assert rates.read(0, 0, NOW + 3, 4) == [0, 3, 0, 1]
    assert [sum(rates.read(0, span, NOW + 3)) for span in range(len(SPANS))] == [4, 4, 4]
    assert sum(rates.read(1, 0, NOW + 3)) == 0


def test_a_counter_that_was_begun_anew_counts_from_there() -> None:
    rates = Rates((100,))
    assert not rates.look((0,), NOW)
    assert rates.look((2,), NOW)
    assert rates.read(0, 0, NOW, 1) == [2]


def test_growth_between_rare_looks_is_spread_over_the_seconds_between() -> None:
    rates = Rates((0,))
    rates.look((8,), NOW, 3)
    assert rates.read(0, 0, NOW, 4) == [0, 2, 2, 4]
    rates.look((9,), NOW + 10, 3)
    assert rates.read(0, 0, NOW + 10, 4) == [0, 0, 0, 1]


def test_a_number_too_large_for_its_slot_is_the_largest_there_is() -> None:
    rates = Rates((0,))
    rates.look((1 << 40,), NOW)
    assert rates.read(0, 0, NOW, 1) == [(1 << 32) - 1]


def test_forgotten_rings_read_as_nothing_and_begin_anew() -> None:
    rates = Rates((0,))
    rates.look((5,), NOW)
    rates.forget()
    assert rates.read(0, 2, NOW) == [0] * 1440
    rates.look((6,), NOW)
    assert rates.read(0, 2, NOW, 1) == [1]


def test_a_recent_rate_is_a_mean_of_about_ten_seconds_and_falls_to_nothing() -> None:
    rate, now, count = RecentRate(NOW), NOW, 0
    for _ in range(35):
        now, count = now + 1_000_000_000, count + 3
        rate.note(count, now)
        assert rate.read(count, now) == pytest.approx(3)
    assert 2 < rate.read(count, now + 1_000_000_000) < 3
    assert rate.read(count, now + 1_000_000_000_000) < 0.1
    rate.note(count + 1, now + 1_000_000_000_000)
    assert rate.read(count + 1, now + 1_000_000_000_000) < 0.1


def test_a_recent_rate_begins_with_what_was_counted_so_far() -> None:
    rate = RecentRate(NOW)
    rate.note(8, NOW + 2_000_000_000)
    assert rate.read(8, NOW + 4_000_000_000) == 2
    assert rate.read(0, NOW) == 0
