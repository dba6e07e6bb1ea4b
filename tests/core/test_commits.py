"""What goes into a commit, and what follows from its end, as the local engine and the owner of a partition run it."""

from __future__ import annotations

from itertools import count

import pytest

from solarwind.core.effects import Join, Offer
from solarwind.core.log import Stored
from solarwind.engine.commits import Commit, Commits

from .bench import Bench, batch


class Begun:
    """The commits of a bench, which has a log and no disk."""

    def __init__(self) -> None:
        self.bench = Bench()
        self.commits: Commits[str] = Commits(self.bench.dispatcher, self)
        self._names = (f"producer {number}" for number in count())

    def add(self, stored: Stored) -> None:
        self.bench.log.append(stored)

    def submit(self) -> str:
        name = next(self._names)
        self.commits.submit(batch(), name)
        return name

    def store(self, commit: Commit[str]) -> None:
        for each in commit.batches:
            self.commits.accept(Stored(len(self.bench.log), each), self.bench.now)

    def end(self, commit: Commit[str]) -> list[Offer]:
        self.store(commit)
        return list(self.commits.end(commit, self.bench.now))

    def offer(self) -> Offer:
        self.bench.carry_out()
        (offer,) = self.bench.take()
        return offer


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> Begun:
    """What handlers fire is more than there is room for in a commit, so that offers wait."""
    monkeypatch.setattr("solarwind.engine.commits.MAX_COMMIT_BYTES", 1)
    begun = Begun()
    begun.bench.fire()
    return begun


def test_an_offer_that_came_to_wait_during_a_commit_is_handed_out_at_its_end_where_no_other_follows(
    begun: Begun,
) -> None:
    commits = begun.commits
    commits.fire([batch(topic="U")])
    full = commits.begin()
    commits.refuse(full)
    commits.put_back(full)
    again = commits.begin()
    begun.bench.dispatcher.join(Join("T", "p"), 0, begun.bench.now)
    offer = begun.offer()
    assert commits.hold(offer), "there was no room for what handlers fired"
    begun.bench.dispatcher.pop_changes()
    assert begun.end(again) == [offer]
    assert not commits.waiting


def test_an_offer_does_not_wait_for_what_producers_fired_while_there_was_no_room(begun: Begun) -> None:
    commits = begun.commits
    full = commits.begin()
    name = begun.submit()
    commits.refuse(full)
    commits.put_back(full)
    assert commits.withdraw(name)
    begun.bench.dispatcher.join(Join("T", "p"), 0, begun.bench.now)
    assert not commits.hold(begun.offer()), "no commit may come for which it could wait"


def test_delayed_batches_wait_again_where_there_was_no_room_and_only_those_of_producers_are_refused(
    begun: Begun,
) -> None:
    commits = begun.commits
    commits.submit(batch(due=[7]), "a producer")
    commits.fire([batch(due=[8])])
    first = commits.begin()
    assert ([due for due, _ in first.delayed], first.batches) == ([7, 8], [])
    assert [waiter for _, waiter in commits.refuse(first)] == ["a producer"]
    assert [due for due, _ in first.delayed] == [8]
    commits.put_back(first)
    again = commits.begin()
    assert ([due for due, _ in again.delayed], commits.due.nearest) == ([8], None)
    commits.end(again, begun.bench.now)
    assert commits.due.nearest == 8
