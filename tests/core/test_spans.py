"""`Spans` is a set of whole numbers: every method against a plain set."""

from __future__ import annotations

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from solarwind.core.spans import Spans

MAX = 40
places = st.integers(0, MAX)
ranges = st.tuples(places, places)
sets = st.sets(st.integers(0, MAX - 1))


def is_sound(spans: Spans) -> bool:
    """Sorted, and no two edges alike: no span is empty, and none touch."""
    return len(spans.edges) % 2 == 0 and all(a < b for a, b in zip(spans.edges, spans.edges[1:], strict=False))


@given(sets)
def test_a_set_has_the_positions_it_was_made_of(members: set[int]) -> None:
    spans = Spans.of(members)
    assert is_sound(spans)
    assert list(spans.positions()) == sorted(members)
    assert len(spans) == len(members)
    assert bool(spans) == bool(members)
    assert [position in spans for position in range(MAX)] == [position in members for position in range(MAX)]
    assert [position for start, stop in spans for position in range(start, stop)] == sorted(members)


@given(st.lists(st.integers(0, MAX)))
def test_positions_may_come_in_any_order_and_more_than_once(positions: list[int]) -> None:
    assert Spans.of(positions) == Spans.of(set(positions))


@given(sets, st.slices(MAX), st.integers(-MAX, MAX))
def test_the_positions_of_a_set_are_a_sequence_like_a_list_of_them(members: set[int], part: slice, index: int) -> None:
    spans, expected = Spans.of(members), sorted(members)
    found = spans.positions()
    assert list(found) == expected
    assert len(found) == len(expected)
    assert list(found[part]) == expected[part]
    assert Spans.of(found[part]) == Spans.of(expected[part])
    if -len(expected) <= index < len(expected):
        assert found[index] == expected[index]
    else:
        with pytest.raises(IndexError):
            found[index]
    spans.add(MAX, MAX + 1)
    assert list(found) == expected, "what is added to the set later is not in it"


@given(places, places)
def test_a_range_is_the_set_of_its_positions(start: int, stop: int) -> None:
    assert list(Spans.of(range(start, stop)).positions()) == list(range(start, stop))


@given(st.lists(st.tuples(st.booleans(), ranges), max_size=30))
def test_adding_and_removing_ranges_is_adding_and_removing_their_positions(
    steps: list[tuple[bool, tuple[int, int]]],
) -> None:
    spans, members = Spans(), set[int]()
    for adds, (start, stop) in steps:
        if adds:
            spans.add(start, stop)
            members.update(range(start, stop))
        else:
            spans.remove(start, stop)
            members.difference_update(range(start, stop))
        assert is_sound(spans)
        assert set(spans.positions()) == members


@given(sets, sets)
@example({0, 1}, {2, 5})
@example({0, 1}, {3, 5})
def test_union_and_difference_are_those_of_sets(ours: set[int], theirs: set[int]) -> None:
    spans = Spans.of(ours)
    spans.update(Spans.of(theirs))
    assert is_sound(spans)
    assert set(spans.positions()) == ours | theirs
    spans = Spans.of(ours)
    spans.difference_update(Spans.of(theirs))
    assert is_sound(spans)
    assert set(spans.positions()) == ours - theirs


@given(sets, ranges)
def test_within_and_outside_part_a_range(members: set[int], part: tuple[int, int]) -> None:
    spans, inside = Spans.of(members), set(range(*part))
    within, outside = spans.within(*part), spans.outside(*part)
    assert is_sound(within)
    assert is_sound(outside)
    assert set(within.positions()) == members & inside
    assert set(outside.positions()) == inside - members
    assert set(spans.positions()) == members


@given(sets, places, places)
@example({1, 2, 3, 7, 8}, 2, 0)
@example({1, 2, 3, 7, 8}, 3, 2)
def test_the_first_are_those_at_or_after_a_place(members: set[int], count: int, start: int) -> None:
    spans = Spans.of(members)
    first = spans.first(count, start)
    assert is_sound(first)
    assert list(first.positions()) == sorted(each for each in members if each >= start)[:count]
    assert set(spans.positions()) == members


@given(sets, places)
def test_the_gap_is_the_first_span_that_is_not_in_the_set(members: set[int], position: int) -> None:
    start, stop = Spans.of(members).gap(position)
    assert start == next(place for place in range(position, MAX + 1) if place not in members)
    assert stop == min((member for member in members if member > start), default=None)


@given(sets, ranges)
def test_a_copy_is_equal_and_independent(members: set[int], change: tuple[int, int]) -> None:
    spans = Spans.of(members)
    copy = spans.copy()
    assert copy == spans
    assert Spans(spans.edges) == spans
    copy.add(*change)
    copy.remove(0, 3)
    assert set(spans.positions()) == members
    assert spans != sorted(members)


def test_spans_are_shown_by_their_positions() -> None:
    assert repr(Spans((1, 3, 5, 6))) == "Spans([1, 3, 5, 6])"
