"""A purpose's state is a value: a snapshot and the changes since give it again, in memory and as bytes."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from solarwind.core.spans import Spans
from solarwind.core.state import (
    Change,
    Creation,
    Letter,
    Snapshot,
    State,
    Statement,
    Waiting,
    decode_changes,
    decode_snapshot,
    encode,
)

END = 30
position = st.integers(0, END - 1)
ranges = st.tuples(position, st.integers(1, 8)).map(lambda at: Spans((at[0], at[0] + at[1])))
edges = ranges.map(lambda spans: spans.edges)
changes = st.builds(
    Change,
    st.just("T"),
    st.just("p"),
    stated=st.lists(st.builds(Statement, st.integers(1, 3), st.sampled_from(["direct", "keyed"])), max_size=1),
    copied_until=st.one_of(st.none(), st.integers(END, END + 5)),
    copied_from=st.one_of(st.none(), st.integers(END, END + 5)),
    reopened=st.one_of(st.just([]), edges),
    redriven=st.one_of(st.just([]), edges),
    discarded=st.one_of(st.just([]), edges),
    reach=st.integers(0, 100),
    started=st.lists(st.tuples(position, st.integers(0, 3)), max_size=2),
    waiting=st.lists(st.builds(Waiting, position, st.integers(0, 3), st.integers(1, 10**18)), max_size=2),
    settled=st.one_of(st.just(Spans()), ranges),
    skipped=st.one_of(st.just(Spans()), ranges),
    dead=st.lists(
        st.builds(Letter, position, st.integers(1, 5), st.integers(0, 10**18), st.text(max_size=5), st.integers(1, 9)),
        max_size=2,
    ),
    retried=st.integers(0, 2),
)
created = st.builds(
    lambda *when: Change("T", "p", created=Creation(*when), stated=[Statement(1, "direct")]),
    st.integers(0, 5),
    st.integers(0, 5),
)
histories = st.tuples(created, st.lists(changes, max_size=12)).map(lambda parts: [parts[0], *parts[1]])


def value(state: State) -> dict[str, Any]:
    found = {name: getattr(state, name) for name in State.__slots__}
    return found | {"done": found["done"].edges, "dead": found["dead"].edges}


def after(history: list[Change], state: State | None = None) -> State:
    state = state or State("T", "p")
    for change in history:
        state.apply(change)
    return state


@given(histories, st.integers(0, 12))
def test_a_snapshot_and_the_changes_since_are_the_state(history: list[Change], at: int) -> None:
    live = after(history)
    recovered = after(history[at:], State.restore(after(history[:at]).snapshot())) if at else after(history)
    assert value(recovered) == value(live)


@given(histories)
def test_bytes_give_the_same_changes_and_snapshots(history: list[Change]) -> None:
    assert decode_changes(encode(history)) == history
    snapshot = after(history).snapshot()
    assert decode_snapshot(encode(snapshot)) == snapshot
    assert value(State.restore(decode_snapshot(encode(snapshot)))) == value(after(history))


@given(histories, changes)
def test_a_snapshot_and_what_is_restored_from_it_are_copies(history: list[Change], change: Change) -> None:
    state = after(history)
    snapshot = state.snapshot()
    before = encode(snapshot)
    state.apply(change)
    State.restore(snapshot).apply(change)
    assert encode(snapshot) == before


@given(histories)
def test_a_state_agrees_with_a_plain_set_on_what_is_done_and_pends(history: list[Change]) -> None:
    """Against a plain set: done is what was settled, skipped or buried and not reopened since."""
    state, done, copied_from = State("T", "p"), set[int](), None
    for change in history:
        before = set(state.dead.positions())
        state.apply(change)
        if change.created is not None:
            done = set(range(change.created.since))
        if change.copied_until is not None and copied_from is not None:
            done |= set(range(copied_from, change.copied_until))
            copied_from = None
        copied_from = change.copied_from if change.copied_from is not None else copied_from
        for opened in (change.reopened, change.redriven):
            done.difference_update(Spans(opened).positions())
            before.difference_update(Spans(opened).positions())
        before.difference_update(Spans(change.discarded).positions())
        dead = {letter.position for letter in change.dead}
        done |= {*change.settled.positions(), *change.skipped.positions(), *dead}
        assert (
            set(state.pending(2 * END).positions())
            == set(range(2 * END if copied_from is None else copied_from)) - done
        )
        assert set(state.dead.positions()) == before | dead
        assert state.floor == next(place for place in range(3 * END) if place not in done)
        assert not state.done or state.done.edges[0] > state.floor
        settled = {*change.settled.positions(), *change.skipped.positions(), *dead}
        assert not settled & {*state.due, *state.tried}, "what is done with needs no retry"


def test_how_far_events_may_have_been_handed_out_never_goes_back() -> None:
    state = State("T", "p")
    for reach in (20, 10):
        state.apply(Change("T", "p", reach=reach))
    assert state.reach == 20


def test_what_was_counted_before_it_began_and_did_not_raise_is_without_an_end() -> None:
    state = after([Change("T", "p", created=Creation(0)), Change("T", "p", started=[(1, 1), (2, 1)])])
    assert state.unended() == Spans((1, 3))
    state.apply(Change("T", "p", waiting=[Waiting(1, 1, 10)], settled=Spans((2, 3))))
    assert not state.unended()
    state.apply(Change("T", "p", started=[(1, 2)]))
    assert state.unended() == Spans((1, 2))


def test_a_snapshot_names_every_part_of_a_state() -> None:
    parts = set(Snapshot.__struct_fields__) - {"waiting"} | {"due"}
    assert parts == set(State.__slots__) - {"dead_count"}, "which is counted"
