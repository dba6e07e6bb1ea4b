"""The faults that `make mutants` puts into the sources, one at a time: a piece of text that is in its file once, and
what stands there instead. The simulator has to break a rule, or one of the tests that are named has to fail.

Whoever changes a line that is here changes it here too; `python -m mutants --check` says at once what does not fit any
more, and in which file the text is now.
"""

from __future__ import annotations

from typing import NamedTuple


class Fault(NamedTuple):
    file: str
    text: str
    instead: str
    tests: tuple[str, ...] = ()  # those that notice; none: the simulator does, or else the tests of the dispatcher

    def __str__(self) -> str:
        return f"{self.file}: {' '.join(self.text.split())}  ->  {' '.join(self.instead.split()) or '(nothing)'}"


def _of(file: str, *faults: tuple[str, ...]) -> list[Fault]:
    return [Fault(file, text, instead, tests) for text, instead, *tests in faults]


_SPANS = "core/test_spans.py"
_EXCHANGE = "core/test_exchange.py"
_ROLLOUT = "core/test_rollout.py"
_DISPATCHER = "core/test_dispatcher.py"
_LOCAL = "test_local_engine.py"
_COMMITS = "core/test_commits.py"
_DELAYED = "test_delayed.py"
_DUE = "core/test_due.py"
_FULL = "test_store_failure.py"
_TRIMMING = "store/test_trimming.py"
_FORGETS = "test_contract.py::TestMemory::test_the_same_id_is_not_stored_again_after_its_event_was_handled"
_KEEPS = "test_contract.py::TestSqlite::test_keep_trims_without_touching_what_pends_or_is_dead"

SPANS = _of(
    "core/spans.py",
    ("if edges and position <= edges[-1]:", "if edges and position < edges[-1]:", _SPANS),
    ("edges[low:high] = [start] * (low % 2 == 0) + [stop] * (high % 2 == 0)", "edges[low:high] = [start, stop]"),
    ("edges[low:high] = [start] * (low % 2) + [stop] * (high % 2)", "edges[low:high] = []"),
    ("position = edges[at]\n", "position = edges[at] + 1\n"),
    ("return bisect_right(self.edges, position) % 2 == 1", "return bisect_left(self.edges, position) % 2 == 1"),
)

STATE = _of(
    "core/state.py",
    ("self.floor = self.reach = change.created", "self.floor = self.reach = 0"),
    ("self._finish(copies)", "pass"),
    ("self._reopen(Spans(change.reopened))", "pass"),
    ("self.dead.difference_update(Spans(change.discarded))", "pass"),
    ("if change.reach > self.reach:", "if change.reach:", "core/test_state.py"),
    ("self.due.pop(position, None)\n            self._count", "self._count", "core/test_state.py"),
    ("self._count(waiting.position, waiting.tried)", "pass"),
    ("self.dead.add(letter.position, letter.position + 1)", "pass"),
    ("each.pop(position, None)", "pass"),
    ("self.done.add(low, self.floor)", "pass"),
    ("self.dead.difference_update(spans)", "pass"),
    ("return end if self.copied_from is None else min(end, self.copied_from)", "return end"),
    ("state.tried = dict(snapshot.tried)", "state.tried = {}"),
    ("state.due = {each.position: each.due for each in snapshot.waiting}", "state.due = {}"),
    ("state.reach = snapshot.reach", "state.reach = 0"),
    ("state.copied_from = snapshot.copied_from", "pass"),
    ("states.pop(name, None)\n", "pass\n"),
    (" or bool(self.dead.within(start, stop))", "", _ROLLOUT),
)

BACKLOG = _of(
    "core/backlog.py",
    ("self._claimed.update(in_flight)", "pass"),
    ("            self.walk.leap(start)\n", "            pass\n", _ROLLOUT),
    (" or min(self._ready) < end", " or True", _ROLLOUT),
    ("self._cursor = min(self._cursor, positions.edges[0])", "pass"),
    ("self._claimed.update(Spans.of(self._delayed))", "pass"),
    ("self._lanes[name] = None\n                self._out[position] = name", "pass"),
    ("self._waiting += 1", "pass", _DISPATCHER),
    ("                if position in delayed:\n                    self._delayed_behind.add(position)", ""),
    (
        "lanes[key] = None\n                out[position] = key\n                if position not in delayed:",
        "lanes[key] = None\n                out[position] = key\n                if True:",
    ),
    ("following = lane.popleft()", "following = lane.pop()"),
    ("if following in self._delayed:", "if False:", _DISPATCHER),
    ("self._out[following] = key", "pass"),
    ("del self._lanes[key]", "pass"),
    ("self._waiting -= 1", "pass", _DISPATCHER),
)

INSTANCE = _of(
    "core/instance.py",
    ("if self.silent or self.leaving or self.process.closed", "if self.leaving or self.process.closed"),
    ("or self.process.closed or", "or", _DISPATCHER),
    ("or self.in_hand_bytes >= self.max_bytes:", ":", _DISPATCHER),
    ("self.alive_until = now + self.join.lease_ns", "pass"),
    (
        "self.room = max(self.join.room, min(fits, self.room * 16))",
        "self.room = max(self.join.room, fits)",
        _DISPATCHER,
    ),
    ("self.in_flight -= count", "pass"),
    ("while self.copied > limits.copies or", "while", _DISPATCHER),
    ("self.copies.appendleft((stored, start + max_events, stop))", "pass", _DISPATCHER),
)

PURPOSE = _of(
    "core/purpose.py",
    ("self.live[instance.version] -= 1", "pass"),
    ("each.version == version and not each.leaving}", "not each.leaving}"),
    ("at_work.pop(instance.id, None)", "pass", _DISPATCHER),
)

TRACK = _of(
    "core/track.py",
    ("if len(self.delayed) >= self._limits.waiting:", "if False:", _DISPATCHER),
    ("if not last and times > 1 and self.counted:", "if False:", _DISPATCHER),
    ("several = picks if last else picks[: max(1, MAX_SUSPECTS // 10**times)]", "several = picks", _DISPATCHER),
    ("end = self.reached\n", "pass\n"),
    ("return split.since\n", "return end\n", _ROLLOUT),
    ("                    return 0\n", "                    pass\n", _ROLLOUT),
    (
        "return next((at for at, position in enumerate(picks) if position in suspects), len(picks))",
        "return len(picks)",
        _DISPATCHER,
    ),
    ("if self._backlog_of not in (None, by) and self.in_flight():", "if False:"),
    ("self._backlog.finish(change.settled)", "pass"),
    ("self.suspects.difference_update(change.skipped)", "pass", _DISPATCHER),
    ("self.suspects.update(positions)", "pass"),
    ("self.delayed.add(waiting.position)", "pass"),
    ("self.delayed.discard(position)", "pass"),
)

CRASHES = _of(
    "core/crashes.py",
    ("if tried < track.statement.retry.attempts:", "if tried <= track.statement.retry.attempts:"),
    ("while process.waiting and not process.in_hand and", "while process.waiting and", _DISPATCHER),
    ("and not process.in_hand and process.last_end is None:", "and not process.in_hand:", _DISPATCHER),
    ("process.closed = bool(process.waiting) or process.last_end is not None", "process.closed = False", _DISPATCHER),
    ("self._last_ends.append(process)", "process.last_end = None", _DISPATCHER),
    ("each.quota = MAX_ROOM", "pass"),
    ("track.give_back(lease.positions, suspicious=True)", "track.give_back(lease.positions, suspicious=False)"),
)

ROLLOUT = _of(
    "core/rollout.py",
    ("name = batch.id(index)", 'name = "x"', _ROLLOUT),
    ("self._before[position] = self._run", "pass", _ROLLOUT),
    ("self.passed.add(start, position)", "pass", _ROLLOUT),
    ("if bucket < top:", "if place <= 1 - top:", _ROLLOUT),
)

DISPATCHER = _of(
    "core/dispatcher.py",
    ("attempts if alone else attempts - 1", "attempts", _DISPATCHER),
    ("topic.end = stored.stop", "topic.end = stored.stop - 1"),
    ("backlog.cursor + track.margin > track.state.reach", "False"),
    ("elif copied_from <= fresh.start:", "else:", _DISPATCHER),
    ("while len(self._passes) > MAX_BEHIND:", "while False:", _DISPATCHER),
    ("self._looking[track] = None", "pass", _DISPATCHER),
    ("track.give_back(rest, suspicious=suspicious)", "pass", _EXCHANGE),
    ("self.change(track, Change(*track.key, started=started))\n        track.leases", "track.leases"),
    ("if not instance.leases:  # else", "if True:  # else", _DISPATCHER),
    ("after_commit=lease.counted))", "after_commit=False))"),
    ("lease = instance.leases.get(report.lease)", "lease = purpose.leases.get(report.lease)"),
    ("if report.done and not done:", "if False:", _DISPATCHER),
    ("done = Spans()\n        for failure", "pass\n        for failure", _DISPATCHER),
    ("held.difference_update(returned)", "pass"),
    ("self._return(track, lease, returned)", "pass"),
    ("tried = counted if lease.counted else counted + 1", "tried = counted + 1"),
    (
        '(failure.verdict == "retry" and tried >= retry.attempts)',
        '(failure.verdict == "retry" and tried > retry.attempts)',
    ),
    (
        "change.waiting.append(Waiting(position, tried - 1, now + failure.after_ns))",
        "change.waiting.append(Waiting(position, tried, now + failure.after_ns))",
        _DISPATCHER,
    ),
    ("now + min(drawn, retry.longest_ns(tried))", "now + drawn", _DISPATCHER),
    ("started = [(position, tried[position] - 1) for position in positions.positions()]", "started = []", _DISPATCHER),
    ("lease.track.counted -= lease.counted", "pass"),
    ("if about.state.due.get(position) == when and position in about.delayed:", "if True:", _DISPATCHER),
    ("gone.difference_update(track.in_flight())", "pass", _DISPATCHER),
    (
        "until = found.start if found is not None else asked",
        "until = found.start if found is not None else topic.end",
        _DISPATCHER,
    ),
    ("needed.update(track.state.pending(topic.end))", "pass", _KEEPS),
    ("needed.update(track.state.dead)", "pass", _DISPATCHER),
)

REGISTRY = _of(
    "core/registry.py",
    ("copied_until=topic.end", "copied_until=0"),
    ("self.remove_instance(purpose, instance, died=died)\n", "pass\n"),
    ("join.retry or (before.retry if before is not None else Retry())", "join.retry or Retry()", _DISPATCHER),
    ("self.changes.append(Change(*track.key, retired=True))", "pass"),
    ("            track.rewind()\n", "            pass\n", _ROLLOUT),
    ("if spans := track.state.dead.common(positions):", "if spans := positions:", _DISPATCHER),
    ("track.reached = max(track.reached, change.reach, change.created or 0)", "track.reached = 1 << 60"),
    ("del purpose.gone[track.number]", "pass", _ROLLOUT),
    ("if share and (purpose.is_heard_of(version) or version in purpose.gone)", "if share", _ROLLOUT),
    ("return name not in self._creating", "return True", _DISPATCHER),
)

ENGINE = [
    *_of(
        "engine/commits.py",
        ("self._uncommitted = commit.changes\n", "pass\n"),
        ("self.incoming = commit.incoming + commit.later + self.incoming\n", "pass\n"),
        ("commit.incoming + commit.later + self", "commit.incoming + self", _COMMITS),
        ("self.due.add(min(due for due, _ in commit.delayed))", "pass", _DELAYED),
        ("commit.later = [each for each in commit.later if each[1] is None]", "pass", _COMMITS),
        ("together = commit.incoming + commit.later", "together = commit.incoming", _COMMITS),
        ("incoming = [each for each in incoming if each[0].header.due is None]", "pass", _DELAYED),
        ("self._after = commit.after + self._after", "pass"),
        ("return first + [each for each in rest if each[1] is None]", "return first", _LOCAL),
        ("self._snapshots.note(changes, 0)", "pass", _LOCAL),
        ("commit.incoming = [each for each in commit.incoming if each[1] is None]", "commit.incoming = []"),
        ("self._dispatcher.committed(commit.changes, now)", "pass"),
        ("self._dispatcher.accepted(stored, now)", "pass"),
        ("self._recent.add(stored)", "pass", _LOCAL),
        ("return commit.after", "return []"),
        ("if not self.waiting:\n            commit.after += self._after", "if False:\n            pass", _COMMITS),
        ("for batch, waiter in self.incoming if waiter is None)", "for batch, _ in self.incoming)", _COMMITS),
        ("self._uncommitted + self._dispatcher.pop_changes(), []", "self._dispatcher.pop_changes(), []"),
        ("self._fired_bytes += batch.weight", "pass", _LOCAL),
        ("waits = offer.after_commit or", "waits ="),
        ("self.incoming.append((batch, None))", "pass", _LOCAL),
        ("for _, waiter in (*self._committing, *self.incoming)", "for _, waiter in self.incoming", _FULL),
    ),
    *_of(
        "engine/due.py",
        ("times.setdefault(due or 0, []).append(index)", "times.setdefault(0, []).append(index)", _DELAYED),
        ("or due < self.nearest", "or due > self.nearest", _DELAYED),
        ("self._not_before <= now and", "", _DELAYED),
        ("and not self.releasing", "", _DUE),
        ("self.nearest <= wall", "True", _DUE),
        ("return self.releasing or (", "return (", _DUE),
        ("min(self.nearest - wall, LOOK_NS)", "self.nearest - wall", _DELAYED),
        (", self._not_before)\n", ", 0)\n", _DUE),
        ("nearest, self.nearest = self.nearest, None", "nearest = self.nearest", _DUE),
        ("self.add(nearest)\n        self._pause,", "self._pause,", _DELAYED),
        ("self.add(nearest)\n        self._not_before,", "self._not_before,", _DELAYED),
        ("self._pause, self.releasing, self.failing = FIRST_PAUSE_NS, False, False", "self.releasing = False", _DUE),
        ("self._pause = min(2 * self._pause, MAX_PAUSE_NS)", "pass", _DELAYED),
    ),
    *_of(
        "engine/release.py",
        ("await asyncio.sleep(0)", "pass", _DELAYED),
        ("if self._stopped or not", "if not", _DELAYED),
        ("self._due.add(await self._store.delays.next_due())", "pass", _DELAYED),
        ("if not failed:", "if True:", _DELAYED),
        ("self._arrived(*released)", "pass", _DELAYED),
    ),
    *_of(
        "engine/local.py",
        ("for _, future in commit.later:", "for _, future in ():", _DELAYED),
        ("if found or end == self._dispatcher.topics[topic].end:", "if True:", _LOCAL),
        ("if number <= commit.number and not waiter.done():", "if not waiter.done():", _LOCAL),
        ("self._full = self._full_for_all = False\n            log", "log", _FULL),
        ("refuse(future, StoreError(str(full)))", "pass", _FULL),
        ("for waiter in waiters:\n            refuse(waiter, error)", "", _FULL),
        ("receiver.close(str(error))", "pass", _FULL),
        ("self._trimmer.look_at(self._dispatcher.topics[stored.batch.topic])", "pass", _FORGETS),
    ),
]

AROUND = [
    *_of(
        "engine/snapshots.py",
        ("if number > oldest:", "if True:", _LOCAL),
        ("del self._changed_at[name]", "pass", _LOCAL),
        ("snapshots.append(snapshot)", "pass", _LOCAL),
    ),
    *_of(
        "engine/held_reports.py",
        ("self._count_one(self._waiting.pop(0))", "self._waiting.pop(0)", _LOCAL),
        ("for each in its:\n            self._count_one(each)", "", _LOCAL),
        ("future.set_result(counts)", "future.set_result(True)", _LOCAL),
    ),
    *_of(
        "engine/history.py",
        ("more.append(name)", "pass", _TRIMMING),
        ("pinned.add(topic.end, FOREVER)", "pass", _TRIMMING),
        ("self.look_at(topic, at_once=True)\n", "pass\n", _TRIMMING),
    ),
    *_of("engine/cache.py", ("return last if position < last.stop else None", "return last", _LOCAL)),
]

FAULTS = [
    *SPANS,
    *STATE,
    *BACKLOG,
    *INSTANCE,
    *PURPOSE,
    *TRACK,
    *ROLLOUT,
    *DISPATCHER,
    *CRASHES,
    *REGISTRY,
    *ENGINE,
    *AROUND,
]
