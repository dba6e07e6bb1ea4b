"""What the dispatcher has to note of reports, as the simulator knows it: who was done with which events, and how; and
what it has to tell of deaths."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

from ..core.deaths import Death
from ..core.effects import Failure
from ..core.facts import Note
from ..core.spans import Spans
from ..core.state import Change
from .sim_facts import Broken, Facts, positions
from .sim_store import Name

_End = tuple[Name, int, str, int]  # the purpose, the position, "settled" or "dead", and the version


class Notes:
    """What the notes of the next commit have to say."""

    def __init__(self) -> None:
        self._ends: list[tuple[_End, int, int]] = []  # with the fewest and the most attempts that it may have taken
        self._perhaps = set[_End]()  # of these: attempts that were lost may count too

    def reported(
        self, name: Name, version: int, facts: Facts, done: int, failed: Collection[Failure], attempts: int
    ) -> None:
        """Note that an instance is done with some events. It is called before `facts` say so."""

        def end(position: int, verdict: str) -> None:
            fewest = facts.failures.get(position, 0) + 1
            self._ends.append(((name, position, verdict, version), fewest, facts.handed.get(position, 0)))

        for position in positions(done):
            end(position, "settled")
        for each in failed:
            if each.verdict == "later":
                continue
            if each.verdict == "reject" or facts.handed.get(each.position, 0) >= attempts:
                end(each.position, "dead")
                if each.verdict == "retry" and facts.failures.get(each.position, 0) + 1 < attempts:
                    self._perhaps.add((name, each.position, "dead", version))

    def check(self, notes: Sequence[Note]) -> None:
        """Check what a commit takes along."""
        found = sorted(
            (((note.topic, note.purpose), position, note.verdict, note.version), note.attempts(position))
            for note in notes
            if note.handed_at  # else no instance reported it
            for position in Spans(note.edges).positions()
        )
        expected = list[tuple[_End, int, int]]()
        missing = Counter([end for end, _, _ in self._ends]) - Counter([end for end, _ in found])
        for each in sorted(self._ends):
            if missing[each[0]] and each[0] in self._perhaps:
                missing[each[0]] -= 1
            else:
                expected.append(each)
        self._ends, self._perhaps = [], set()
        if [end for end, _, _ in expected] != [end for end, _ in found]:
            raise Broken(f"expected notes of {[end for end, _, _ in expected]}, got {[end for end, _ in found]}")
        for (end, fewest, most), (_, tried) in zip(expected, found, strict=True):
            if not fewest <= tried <= most:
                raise Broken(f"{end} is noted with {tried} attempts, not {fewest} to {most}")


def check_told(deaths: Collection[Death], changes: Collection[Change]) -> int:
    """Check that a commit tells of just those that die by its changes, once. Return how many that are."""
    told = Counter((each.topic, each.purpose, each.letter.position) for each in deaths)
    died = Counter((change.topic, change.purpose, letter.position) for change in changes for letter in change.dead)
    if told != died:
        raise Broken(f"of the deaths {sorted(died.elements())} in a commit it tells of {sorted(told.elements())}")
    return died.total()
