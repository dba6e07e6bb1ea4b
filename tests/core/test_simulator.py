"""The seeded simulator: all rules hold in many worlds, every kind of fault happens in them, and a wrong core is found
out."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable
from datetime import date
from functools import partial
from typing import Any

import pytest

from sampling import some
from solarwind.batch import Batch
from solarwind.core.backlog import Backlog, Lanes
from solarwind.core.crashes import Crashes
from solarwind.core.dispatcher import Dispatcher
from solarwind.core.effects import Report
from solarwind.core.exchange import Direct
from solarwind.core.instance import Instance
from solarwind.core.limiter import Limiters
from solarwind.core.log import Stored
from solarwind.core.process import Process
from solarwind.core.purpose import Purpose
from solarwind.core.rollout import Split, Walk
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Snapshot, State
from solarwind.core.track import Track
from solarwind.core.versions import Versions
from solarwind.engine.due import Due, by_due
from solarwind.limits import Limits
from solarwind.store.delays import Delayed
from solarwind.testing.simulator import SimulationFailure, main, simulate

SEEDS = 100  # always the same
MANY_SEEDS = 3_000
# Others each week, so that in a year many are tried; a failure names its seed. `FIRST` in the environment chooses them.
_year, _week, _ = date.today().isocalendar()
FIRST = int(os.environ.get("FIRST", MANY_SEEDS * (100 * _year + _week)))

# How often it happens in a thousand worlds, or more often; with half of that in as many, they prove enough.
PER_THOUSAND = {
    "accepted": 40_000, "settled": 40_000, "retries": 1_000, "later": 300, "dead": 600, "buried": 120, "kills": 300,
    "crashes": 400, "crashes after a commit": 60, "stops": 700, "deaths": 700, "hangs": 200, "leases ended": 150,
    "leaves": 400, "returned": 400, "late reports": 400, "reports refused": 1_500, "reports sent twice": 500,
    "foreign reports": 200, "children": 8_000, "copies handled": 7_000, "fetches": 3_000, "counted ahead": 4_000,
    "full commits": 600, "refused": 2_000, "jumps": 300, "replayed": 600, "redriven": 30, "discarded": 20,
    "retried at once": 60,
    "retired": 80, "trimmed": 2_000, "conflicts": 300, "alone": 400, "share": 60, "promote": 60, "rollback": 10,
    "shares without an instance": 20, "shadow": 30, "shadows handled": 200, "shadows compared": 100,
    "shadows differed": 10,
    "released": 4_000, "releases": 400, "releases without room": 20, "crashes after a release": 8, "clocks set": 300,
    "starts in the past": 100,
    "expired": 800, "waited for a delay": 4_000, "at a rate": 4_000, "at the maximum": 2_000, "told": 600,
    "versions forgotten": 20,
}  # fmt: skip


@pytest.mark.parametrize(
    ("first", "seeds"),
    [
        pytest.param(0, SEEDS, id="some"),
        pytest.param(FIRST, MANY_SEEDS, id="more", marks=pytest.mark.long),
    ],
)
def test_every_rule_holds_in_many_worlds_and_every_fault_happens_in_them(first: int, seeds: int) -> None:
    happened: Counter[str] = Counter()
    for seed in range(first, first + seeds):
        happened.update(simulate(seed).counts)
    too_few = {name: happened[name] for name, often in PER_THOUSAND.items() if happened[name] < often * seeds / 2000}
    assert not too_few


def test_a_seed_replays_exactly() -> None:
    assert simulate(7).counts == simulate(7).counts


def found(most: int = 1_000) -> SimulationFailure:
    """Return the first failure within so many seeds."""
    for seed in range(most):
        try:
            simulate(seed)
        except SimulationFailure as failure:
            return failure
    raise AssertionError(f"nothing found in {most} worlds")


def _ignore_fencing(monkeypatch: pytest.MonkeyPatch) -> None:
    def post_send(self: Dispatcher, *told: Any, genuine: Any = Dispatcher.post_send) -> bool:
        genuine(self, *told)
        return True

    monkeypatch.setattr(Dispatcher, "post_send", post_send)


def _settle_for_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def post_send(self: Dispatcher, report: Report, *more: Any, genuine: Any = Dispatcher.post_send) -> bool:
        for instance, purpose in self.instances.values():
            if report.lease in purpose.leases:
                report = Report(instance.id, report.lease, report.done, report.failed, report.returned)
        return bool(genuine(self, report, *more))

    monkeypatch.setattr(Dispatcher, "post_send", post_send)


def _forget_to_hold_keys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.core.track.key_of", lambda path: lambda batch, index: None)


def _let_go_of_a_key_while_its_event_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    def end_wait(self: Lanes, position: int, genuine: Any = Lanes.end_wait) -> None:
        self._lanes.pop(self._out.pop(position, ""), None)
        genuine(self, position)

    monkeypatch.setattr(Lanes, "end_wait", end_wait)


def _forget_changes_in_recovery(monkeypatch: pytest.MonkeyPatch) -> None:
    def recover(
        self: Dispatcher,
        snapshots: Iterable[Snapshot],
        changes: Iterable[Change],
        genuine: Any = Dispatcher.recover,
        **more: Any,
    ) -> None:
        genuine(self, snapshots, list(changes)[:-1], **more)

    monkeypatch.setattr(Dispatcher, "recover", recover)


def _forget_what_is_suspect(monkeypatch: pytest.MonkeyPatch) -> None:
    def recover(self: Dispatcher, *args: Any, genuine: Any = Dispatcher.recover, **more: Any) -> None:
        genuine(self, *args, **more)
        for topic in self.topics.values():
            for purpose in topic.purposes.values():
                purpose.main.suspects = Spans()

    monkeypatch.setattr(Dispatcher, "recover", recover)


def _hand_out_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    def share(self: Direct, stored: Stored, picks: Any, instances: Any, random: Any) -> list[Any]:
        return [(instances[0], picks)]

    monkeypatch.setattr(Direct, "share", share)
    genuine = Backlog.next
    monkeypatch.setattr(Backlog, "next", lambda self, end, most, log, **how: genuine(self, end, most + 1, log, **how))


def _lose_what_is_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Track, "give_back", lambda self, positions, suspicious: None)


def _never_end_a_lease(monkeypatch: pytest.MonkeyPatch) -> None:
    def tick(self: Dispatcher, now: int, genuine: Any = Dispatcher.tick) -> None:
        for instance, _ in self.instances.values():
            instance.alive_until = now + 1
        genuine(self, now)

    monkeypatch.setattr(Dispatcher, "tick", tick)


def _retry_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    def _count(self: State, position: int, tried: int) -> None:
        self.tried.pop(position, None)

    monkeypatch.setattr(State, "_count", _count)


def _retry_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Dispatcher.wake

    def wake(self: Dispatcher, when: int, about: Track | Instance | Purpose, position: int = 0) -> None:
        genuine(self, when, about, position)
        if isinstance(about, Track):
            about.end_wait(position)

    monkeypatch.setattr(Dispatcher, "wake", wake)


def _do_not_wait_for_the_note(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Track.__init__

    def init(self: Track, purpose: Purpose, state: State, *, reached: int | None, **how: Any) -> None:
        genuine(self, purpose, state, reached=None, **how)

    monkeypatch.setattr(Track, "__init__", init)


def _copy_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Instance.add_copies

    def add_copies(self: Instance, stored: Stored, start: int, stop: int, limits: Limits) -> int:
        return genuine(self, stored, start, stop, limits) + genuine(self, stored, start, stop, limits)

    monkeypatch.setattr(Instance, "add_copies", add_copies)


def _skip_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Dispatcher.fetched

    def fetched(self: Dispatcher, topic: str, position: int, found: Stored | None, now: int) -> None:
        genuine(self, topic, position, Stored(found.start + 1, found.batch) if found is not None else None, now)

    monkeypatch.setattr(Dispatcher, "fetched", fetched)


def _make_last_attempts_beside_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def proceed(self: Crashes, process: Process, now: int, genuine: Any = Crashes.proceed) -> None:
        in_hand, process.in_hand = process.in_hand, 0
        genuine(self, process, now)
        process.in_hand += in_hand

    monkeypatch.setattr(Crashes, "proceed", proceed)


def _count_ahead_what_is_tried_elsewhere(monkeypatch: pytest.MonkeyPatch) -> None:
    def give(self: Crashes, track: Track, process: Process, now: int, genuine: Any = Crashes._give_last) -> Any:
        home, process.home = process.home, True
        given = genuine(self, track, process, now)
        process.home = home
        return given

    monkeypatch.setattr(Crashes, "_give_last", give)


def _lay_a_process_s_end_on_each_event_in_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Process, "lose", lambda self: 1)


def _forget_a_settle(monkeypatch: pytest.MonkeyPatch) -> None:
    genuine = Dispatcher.pop_changes

    def pop_changes(self: Dispatcher) -> list[Change]:
        return [change for change in genuine(self) if not change.settled]

    monkeypatch.setattr(Dispatcher, "pop_changes", pop_changes)


def _give_each_event_to_both_versions(monkeypatch: pytest.MonkeyPatch) -> None:
    def own(self: Walk, stored: Stored, start: int, stop: int, max_count: int, genuine: Any = Walk.own) -> Any:
        stop, _ = genuine(self, stored, start, stop, max_count)
        return stop, Spans((start, stop))

    monkeypatch.setattr(Walk, "own", own)


def _divide_by_position_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def names(stored: Stored, start: int, stop: int, key_of: object) -> list[str]:
        return [str(at) for at in range(start - stored.start, stop - stored.start)]

    monkeypatch.setattr("solarwind.core.rollout._names", names)


def _pass_what_is_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    def end(self: Walk, stop: int, own: Spans, genuine: Any = Walk.end) -> None:
        genuine(self, stop, own)
        self.passed.add(stop - 1, stop)

    monkeypatch.setattr(Walk, "end", end)


def _do_not_wait_for_the_other_track(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Track, "barrier", lambda self, end: end)


def _leave_a_share_with_those_who_are_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Versions, "look_for_gone", lambda self, track, when: ())


def _divide_what_was_accepted_before(monkeypatch: pytest.MonkeyPatch) -> None:
    def split(since: int, shares: list[tuple[int, float]], key: str | None = None, genuine: Any = Split) -> Split:
        return genuine(max(0, since - 3), shares, key)  # type: ignore[no-any-return]

    monkeypatch.setattr("solarwind.core.versions.Split", split)


def _let_what_a_shadow_makes_of_events_count(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.core.shadows.Shadows.has", lambda self, report: False)


def _copy_what_others_have_a_share_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def walk(self: Track, genuine: Any = Track._walk) -> Walk:
        made: Walk = genuine(self)
        if self.shadow is not None:
            made.own = partial(everything, made)  # type: ignore[method-assign]
        return made

    def everything(made: Walk, stored: Stored, start: int, stop: int, max_count: int) -> tuple[int, Spans]:
        made.leap(start)
        return stop, Spans((start, stop))

    monkeypatch.setattr(Track, "_walk", walk)


def _find_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.core.shadows.Result.agrees_with", lambda self, other: True)


def _forget_what_is_due_next(monkeypatch: pytest.MonkeyPatch) -> None:
    def released(self: Due, nearest: int | None, genuine: Any = Due.released) -> None:
        genuine(self, None)

    monkeypatch.setattr(Due, "released", released)


def _release_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    def earlier(batch: Batch) -> list[Delayed]:
        return [Delayed(due - 1_000_000_000, part) for due, part in by_due(batch)]

    monkeypatch.setattr("solarwind.engine.commits.by_due", earlier)


def _wait_for_the_clock_that_was_wrong(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(State, "set_back", lambda self, earlier, now: None)


def _take_no_rate_into_account(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiters, "handed_out", lambda *told: None)


def _hand_out_whatever_is_in_flight(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Purpose, "in_flight", 0)


def _never_go_on_at_a_rate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Limiters, "due", lambda *told: [])


def _begin_a_slow_rate_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("solarwind.core.limiter.NOTED_NS", 1 << 62)


def _do_not_tell_of_a_death_that_nobody_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    def give_up(self: Dispatcher, *told: Any, genuine: Any = Dispatcher.give_up) -> None:
        before = [*self.deaths.waiting]
        genuine(self, *told)
        self.deaths.waiting = before

    monkeypatch.setattr(Dispatcher, "give_up", give_up)


MUTATIONS: list[Callable[[pytest.MonkeyPatch], None]] = [
    _ignore_fencing,
    _settle_for_others,
    _forget_to_hold_keys,
    _let_go_of_a_key_while_its_event_waits,
    _forget_changes_in_recovery,
    _forget_what_is_suspect,
    _hand_out_too_much,
    _lose_what_is_given_back,
    _never_end_a_lease,
    _retry_for_ever,
    _retry_at_once,
    _do_not_wait_for_the_note,
    _copy_twice,
    _skip_an_event,
    _forget_a_settle,
    _make_last_attempts_beside_others,
    _count_ahead_what_is_tried_elsewhere,
    _lay_a_process_s_end_on_each_event_in_it,
    _give_each_event_to_both_versions,
    _divide_by_position_alone,
    _pass_what_is_its_own,
    _do_not_wait_for_the_other_track,
    _leave_a_share_with_those_who_are_gone,
    _divide_what_was_accepted_before,
    _let_what_a_shadow_makes_of_events_count,
    _copy_what_others_have_a_share_of,
    _find_no_difference,
    _forget_what_is_due_next,
    _release_earlier,
    _wait_for_the_clock_that_was_wrong,
    _take_no_rate_into_account,
    _hand_out_whatever_is_in_flight,
    _never_go_on_at_a_rate,
    _begin_a_slow_rate_anew,
    _do_not_tell_of_a_death_that_nobody_reported,
]
QUICKLY_FOUND = [
    *(_ignore_fencing, _settle_for_others, _let_go_of_a_key_while_its_event_waits, _lose_what_is_given_back),
    *(_never_end_a_lease, _retry_at_once, _copy_twice, _skip_an_event, _make_last_attempts_beside_others),
    *(_take_no_rate_into_account, _hand_out_whatever_is_in_flight),
]


@pytest.mark.parametrize("mutate", some(QUICKLY_FOUND, MUTATIONS), ids=lambda mutate: mutate.__name__.strip("_"))
def test_a_core_that_breaks_a_rule_is_found_out(
    mutate: Callable[[pytest.MonkeyPatch], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    mutate(monkeypatch)
    failure = found()
    assert failure.why


def test_a_failure_says_how_to_see_it_again_and_does_so_exactly(monkeypatch: pytest.MonkeyPatch) -> None:
    _forget_to_hold_keys(monkeypatch)
    failure = found()
    assert f"--seeds 1 --first {failure.seed}" in str(failure)
    with pytest.raises(SimulationFailure) as again:
        simulate(failure.seed)
    assert (again.value.step, again.value.why) == (failure.step, failure.why)


def test_the_command_exits_with_1_and_the_seed_at_a_failure(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--seeds", "2"]) == 0
    assert "all rules held" in capsys.readouterr().out
    _forget_to_hold_keys(monkeypatch)
    assert main(["--seeds", "120"]) == 1
    assert "--seeds 1 --first" in capsys.readouterr().err
