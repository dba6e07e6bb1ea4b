"""Keyed backlogs: what is the next of its key may lie behind the end up to which events may go."""

from __future__ import annotations

from solarwind.testing.simulator import simulate


def test_what_was_given_back_waits_for_the_delay_that_a_new_version_states() -> None:
    """A life in which instances of a version without a delay die, and one with a delay joins."""
    simulate(95000907)
