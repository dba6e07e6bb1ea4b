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
_LIMITER = "core/test_limiter.py"
_ROLLOUT = "core/test_rollout.py"
_SHADOWS = "core/test_shadows.py"
_DISPATCHER = "core/test_dispatcher.py"
_LOCAL = "test_local_engine.py"
_COMMITS = "core/test_commits.py"
_DELAYED = "test_delayed.py"
_DUE = "core/test_due.py"
_FULL = "test_store_failure.py"
_TRIMMING = "store/test_trimming.py"
_FORGETS = "test_contract.py::TestMemory::test_the_same_id_is_not_stored_again_after_its_event_was_handled"
_PAUSED_COPIES = "test_contract.py::TestMemory::test_copies_of_a_paused_fanout_wait_in_their_buffers_or_are_dropped"
_NOBODY = "test_contract.py::TestSqlite::test_the_log_says_that_nobody_is_up_soon_and_once_an_hour_from_then_on"
_AUDITED = "test_contract.py::TestSqlite::test_the_audit_has_each_verb_of_an_operator_with_who_when_and_how_many"
_PAUSED_RETIRED = (
    "test_contract.py::TestMemory"
    "::test_a_paused_purpose_is_retired_only_by_force_and_a_new_one_of_its_name_is_not_paused"
)
_FAILING = "test_contract.py::TestMemory::test_a_purpose_fails_while_its_handlers_raise_and_nothing_is_settled"
_OF_DELAYS = "test_contract.py::TestMemory::test_a_"
_CLOCK_SET_BACK = f"{_OF_DELAYS}clock_that_is_set_back_makes_nothing_early_and_stalls_nothing"
_NEW_DELAY = f"{_OF_DELAYS}new_version_changes_the_delay_of_what_waits"
_HELD_COPIES = f"{_OF_DELAYS}fan_out_without_instances_drops_what_has_waited_and_holds_no_history"
_FACTS = "core/test_facts.py"
_NOTES = "store/test_notes.py"
_DEPENDS = "test_dependencies.py"
_MIDDLEWARE = "test_middleware.py"
_NEVER_ENDS = f"{_MIDDLEWARE}::test_a_def_handler_that_never_ends_keeps_no_loop_from_ending"
_JOURNAL = "store/test_journal.py"
_FIRED_AGAIN = "test_contract.py::TestMemory::test_what_was_fired_again_without_a_delay_is_not_taken_back"
_RESTATING = "server/test_restating.py"
_IDENTITY = "store/test_identity.py"
_OUTCOMES = "test_contract.py::TestSqlite::test_a"
_SETTLED = f"{_OUTCOMES}_settled_event_is_shown_with_who_handled_it_when_and_in_how_many_attempts"
_DIED = f"{_OUTCOMES}n_event_that_waits_for_a_retry_is_shown_with_when_and_a_dead_one_with_its_error"
_AGAIN = f"{_OUTCOMES}n_event_that_is_handled_again_is_shown_as_it_is_now"
_SETTLE = "crashes/test_settle.py::test_"
_COMMIT = "stored = await self.store.commit(*content, *more, None if expiring else self._dispatch)"
_STOOD_STILL = (
    "test_supervision.py::test_what_was_not_begun_before_the_process_stood_still_for_longer_than_the_lease_is_handled"
)
_LATE = "test_local_engine.py::test_what_expires_while_the_disk_is_at_work_is_handed_to_nobody"
_AT_EACH_COMMIT = f"{_SETTLE}it_is_so_at_every_write_to_a_file_or_socket[memory engine-1]"
_CELL = f"{_SETTLE}what_a_handler_fires_is_there_once_with_its_settle_or_not_at_all"
_REPORT_CAME = f"{_CELL}[the report has come-ws server]"
_COMMITTED = f"{_CELL}[it is sent, and nobody knows-nats process]"
_RETRIES = "test_contract.py::TestMemory::test_what_waits_for_a_retry_is_handed_out_now_and_counted_first"
_KEEPS = "test_contract.py::TestSqlite::test_keep_trims_without_touching_what_pends_or_is_dead"

SPANS = _of(
    "core/spans.py",
    ("        if not all(gaps):", "        if gaps and not any(gaps):", _SPANS),
    ("edges[2 * last + 1] -= counts[last] - count", "pass", _SPANS),
    ("if not edges or theirs[0] > edges[-1]:", "if not edges or theirs[0] >= edges[-1]:", _SPANS),
    ("edges[low:high] = [start] * (low % 2 == 0) + [stop] * (high % 2 == 0)", "edges[low:high] = [start, stop]"),
    ("edges[low:high] = [start] * (low % 2) + [stop] * (high % 2)", "edges[low:high] = []"),
    ("position = edges[at]\n", "position = edges[at] + 1\n"),
    ("return bisect_right(self.edges, position) % 2 == 1", "return bisect_left(self.edges, position) % 2 == 1"),
)

EXPIRY = _of(
    "core/expiry.py",
    ("and end <= wall", "and end < wall - 5_000_000_000"),
    ("wall, start = self._dispatcher.wall(now), stored.start", "wall, start = now, stored.start"),
    ("self._dispatcher.change(track, Change(*track.key, expired=gone))", "pass"),
    ("return [at for at in picks if at not in gone]\n", "return picks\n"),
)

STATE = _of(
    "core/state.py",
    ("            join.retry or retry,\n", "            join.retry or Retry(),\n", _DISPATCHER),
    ("self.limited_until -= earlier", "pass", _LIMITER),
    ("self._finish(change.expired)", "pass"),
    ("self.floor = self.reach = change.created.since", "self.floor = self.reach = 0"),
    ("self.created_at = change.created.at", "pass"),
    ("self._finish(copies)", "pass"),
    ("self._reopen(Spans(change.reopened))", "pass"),
    ("self._forget_dead(Spans(change.discarded))", "pass"),
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
    ("state.paused = snapshot.paused", "pass"),
    ("if change.paused is not None:", "if change.paused:"),
    ("states.pop(name, None)\n", "pass\n"),
    (" or bool(self.dead.within(start, stop))", "", _ROLLOUT),
)

BACKLOG = _of(
    "core/backlog.py",
    ("self.unclaim(Spans.of(positions))", "pass", _RETRIES),
    ("self._claimed.update(in_flight)", "pass"),
    ("            self.walk.leap(start)\n", "            pass\n", _ROLLOUT),
    ("            if self._ready[0] < end:\n", "            if True:\n", _ROLLOUT),
    ("self._cursor = min(self._cursor, positions.edges[0])", "pass"),
    ("            self._far = self.seen\n", "", _ROLLOUT),
    (
        "if start >= until:\n                self.more = True\n                return None\n            stored",
        "stored",
        _ROLLOUT,
    ),
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
    ("self._copies.appendleft((stored, start + max_events, stop))", "pass", _DISPATCHER),
)

PURPOSE = _of(
    "core/purpose.py",
    ("self.live[instance.version] -= 1", "pass"),
    ("each.version == version and not each.leaving}", "not each.leaving}"),
    ("at_work.pop(instance.id, None)", "pass", _DISPATCHER),
    ("self.instances.items() if not self.paused else ()", "self.instances.items()"),
    ("return since if since and settled == self.settled else 0", "return since", _FAILING),
)

TRACK = _of(
    "core/track.py",
    ("            del self.errors[next(iter(self.errors))]", "            pass", "test_retries.py"),
    ("self.retrying.clear()\n        self.errors", "self.errors", _RETRIES),
    ("if len(self.retrying) >= self._limits.waiting:", "if False:", _DISPATCHER),
    ("if not last and times > 1 and self.counted_leases:", "if False:", _DISPATCHER),
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
    ("self.retrying.add(waiting.position)", "pass"),
    ("self.retrying.discard(position)", "pass"),
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
    ("names = header.keys[indices.start : indices.stop]", "names = header.keys[: len(indices)]", _ROLLOUT),
    ("    if header.ids is not None:\n", "    if header.ids is not None and not names:\n", _ROLLOUT),
    ("(header.first + index) // RUN", "index // RUN", _ROLLOUT),
    ("_number(header, index) >> 32 < place if each == _NAMELESS else each for", "each == 1 for", _ROLLOUT),
    ("            before = below\n", "", _ROLLOUT),
    (".within(start, stop)\n\n\n@lru_cache(1_000)", "\n\n\n@lru_cache(1_000)", _ROLLOUT),
    ("        low = high\n", "", _ROLLOUT),
    ("elif place >= down:", "elif place > up:", _ROLLOUT),
    ("            self._before.update(", "            Spans().update(", _ROLLOUT),
    ("return self._at if self._run <= position < self._at else position", "return position", _ROLLOUT),
    ("        self.passed.update(passed)", "        pass", _ROLLOUT),
    ("before[low - 1] if ends else done[0], done[-1]", "done[0], done[-1]", _ROLLOUT),
    ("if before[low:high] == done[1 - ends : -1]:", "if True:", _ROLLOUT),
)

VERSIONS = _of(
    "core/versions.py",
    ("del purpose.gone[track.number]", "pass", _ROLLOUT),
    ("if share and (purpose.is_heard_of(version) or version in purpose.gone)", "if share", _ROLLOUT),
    ("version > line[-1]", "False", _ROLLOUT),
    (
        "line = [each for each in purpose.line if each != version]\n        if not",
        "line = purpose.line\n        if not",
    ),
    ("[*(each for each in purpose.line if each != version), version]", "purpose.line"),
    ("others + share > 1 + _TINY", "others + share > 1", _ROLLOUT),
    ("[] if line == plain else line", "line and []"),
    ("[*line[:at], version, *line[at:]]", "line", _ROLLOUT),
    ("if self._copies(each)), None) if beside", "if self._copies(each)), None) if shadows"),
    ("for version, share in wanted if share), *shadows]", "for version, share in wanted if share)]"),
    ("self._without(purpose, *purpose.shares)", "pass", _ROLLOUT),
    ("moved.update(its.state.dead.common(positions))", "pass", _ROLLOUT),
    ("track.statement.version == version:", "track.number == -version:", _ROLLOUT),
    ("changes[track] = Change(*track.key, discarded=dead.edges)", "pass", _ROLLOUT),
    ("if rollout != before:", "if rollout.wanted != before.wanted:"),
)

SHADOWS = _of(
    "core/shadows.py",
    ("if not self._purpose.live[self.version]:", "if False:", _SHADOWS),
    ("at < len(self._buffer) - 1 and", "at < len(self._buffer) and", _SHADOWS),
    ("undone.difference_update(self.track.in_flight())", "pass", _SHADOWS),
    ("that the same is not looked for again\n        self._current.forget(gone)", "", _SHADOWS),
    ("self.missed += len(gone)\n        self._current.forget(gone)", "self.missed += len(gone)", _SHADOWS),
    ("other.plain.difference_update(same)", "pass", _SHADOWS),
    ("rest.remove(position, position + 1)", "pass", _SHADOWS),
    ("theirs = other.pop(position)", "theirs = mine.pop(position)"),
    ("pair = (theirs, result) if own else (result, theirs)", "pair = theirs, result"),
    ("rest.difference_update(state.done)", "pass", _SHADOWS),
    ("self.missed += mine.limit(self._limits.copies) if own else 0", "pass", _SHADOWS),
    ("return Spans(), []", "return done, failed", _SHADOWS),
    ("(track.shadow is not None or track.number == 0)", "True", _SHADOWS),
    ("ended = purpose.shadows.pop(version)", "ended = purpose.shadows[version]"),
    ("ended.track.delay = ended.limiter = None", "pass"),
    ("odd = dict.fromkeys(lease.positions.positions(), _LOST)", "odd = {}"),
)

DISPATCHER = _of(
    "core/dispatcher.py",
    ("attempts if alone else attempts - 1", "attempts", _DISPATCHER),
    ("topic.end = stored.stop", "topic.end = stored.stop - 1"),
    ("backlog.cursor + track.margin > track.state.reach", "False"),
    ("elif copied_from <= fresh.start:", "else:", _DISPATCHER),
    ("while len(self._put_off) > MAX_BEHIND:", "while False:", _DISPATCHER),
    (
        "if backlog.more:\n                    self._looking[track] = None",
        "if False:\n                    pass",
        _DISPATCHER,
    ),
    (" or topic.purposes.get(purpose.name) is not purpose:", ":", _ROLLOUT),
    ("elif backlog.more:\n            self._looking[track] = None", "", _ROLLOUT),
    ("track.give_back(rest, suspicious=suspicious)", "pass", _EXCHANGE),
    ("self.change(track, Change(*track.key, started=started))\n        track.leases", "track.leases"),
    ("if not instance.leases:  # else", "if True:  # else", _DISPATCHER),
    ("tried, lease.counted or lease.noted, shadow)", "tried, lease.noted, shadow)"),
    ("tried, lease.counted or lease.noted, shadow)", "tried, lease.counted, shadow)", _LIMITER),
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
    ("lease.track.counted_leases -= lease.counted", "pass"),
    ("if about.state.due.get(position) == when and position in about.retrying:", "if True:", _DISPATCHER),
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
    ("self._looking.update(dict.fromkeys(purpose.tracks.values()))", "pass", _ROLLOUT),
    ("until = topic.end if state.copied_to is None else", "until = 0 if state.copied_to is None else"),
    ("self.remove_instance(purpose, instance, now, died=died)\n", "pass\n"),
    ("self.changes.append(Change(*track.key, retired=True))", "pass"),
    ("track.reached = max(track.reached, change.reach, since)", "track.reached = 1 << 60"),
    ("            self.alone.pop(purpose, None)\n        else:", "            pass\n        else:", _NOBODY),
    ("                self.alone[purpose] = 0\n", "", _NOBODY),
    ("return name not in self._creating", "return True", _DISPATCHER),
)
VERBS = _of(
    "core/verbs.py",
    ("if count and not dry:", "if count:", _RETRIES),
    ("track.end_waits()", "pass", _RETRIES),
    ("            track.rewind()\n", "            pass\n", _ROLLOUT),
    ("            spans.difference_update(redriven)\n", "", _ROLLOUT),
    ("reopened[track] = Change(*track.key, discarded=dead.edges)", "pass", _ROLLOUT),
    ("Change(*purpose.main.key, paused=paused))\n        purpose.note_change()", "Change(*purpose.main.key))"),
    ("paused=paused))\n        purpose.note_change()\n", "paused=paused))\n"),
    ("        if not purpose.paused:\n", "        if True:\n"),
    ("                self.copies.drain(instance, now)\n", "                pass\n", _PAUSED_COPIES),
    ("        if purpose.paused and not force:\n", "        if False:\n", _PAUSED_RETIRED),
)

ENGINE = [
    *_of("engine/room.py", ("self.full = self.full_for_all = False", "pass", _FULL)),
    *_of(
        "engine/nobody.py",
        ("self.since(purpose) < PATIENCE_NS:", "self.since(purpose) < 0:", _NOBODY),
        (">= AGAIN_NS:", ">= 0:", _NOBODY),
        ("self._said.update((purpose, now) for _, purpose in found)", "pass", _NOBODY),
    ),
    *_of(
        "engine/commits.py",
        ("self._uncommitted = commit.changes\n", "pass\n"),
        ("self.incoming = commit.incoming + commit.later + self.incoming\n", "pass\n"),
        ("commit.incoming + commit.later + self", "commit.incoming + self", _COMMITS),
        ("self.due.add(min(due for due, _ in commit.delayed))", "pass", _DELAYED),
        ("commit.later = [each for each in commit.later if each[1] is None]", "pass", _COMMITS),
        ("together, commit.notes = commit.incoming + commit.later, []", "together = commit.incoming", _COMMITS),
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
        "engine/room.py",
        ("self.full = self.full_for_all = False\n            log", "log", _FULL),
    ),
    *_of(
        "engine/audit.py",
        ("each.number < int(after)]", "each.number <= int(after)]", _AUDITED),
        ("before=self._places.get(place, 0))", "before=None)", "test_audit.py"),
        ("                self._last = -1\n", "                pass\n", "test_audit.py"),
        ("max((_entry(each.value).number for each in found), default=0)", "0", "test_audit.py"),
        ("number=number))\n", "number=1))\n", "test_audit.py"),
    ),
    *_of(
        "engine/operations.py",
        (
            "if operation.audited and changes:",
            "if operation.audited:",
            _AUDITED,
        ),
    ),
    *_of("engine/fetching.py", ("if found or end == self._dispatcher.topics[topic].end:", "if True:", _LOCAL)),
    *_of(
        "engine/local.py",
        ("in (*commit.incoming, *commit.later):", "in commit.incoming:", _DELAYED),
        ("if number <= commit.number and not waiter.done():", "if not waiter.done():", _LOCAL),
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
    *_of(
        "service/consumer.py",
        ("in list(self._active):  # an engine", "in self._active:  # an engine", _STOOD_STILL),
        ("if work.running or work.left]\n\n    def close", "if work.running]\n\n    def close", _STOOD_STILL),
    ),
]

DEPENDENCIES = [
    *_of(
        "service/dependencies.py",
        ("if wanted.use_cache and key in self._made:", "if key in self._made:", _DEPENDS),
        (
            "        if wanted.use_cache:\n            self._made[key]",
            "        if False:\n            self._made[key]",
            _DEPENDS,
        ),
        ("if any(key == each for each, _ in self._path):", "if False:", _DEPENDS),
        ("        self._path.pop()\n", "", _DEPENDS),
        ("return overrides.get(function, function)", "return overrides.get(function) or function", _DEPENDS),
        ("if parameter.kind is parameter.POSITIONAL_ONLY:", "if False:", _DEPENDS),
        (
            "inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(target)",
            "inspect.iscoroutinefunction(target)",
            _DEPENDS,
        ),
        ("elif not is_async and wraps(target, inner, inspect.isgeneratorfunction):", "elif False:", _DEPENDS),
        ("elif not is_async and wraps(target, inner, inspect.isasyncgenfunction):", "elif False:", _DEPENDS),
        ("with made if isinstance(made, AbstractContextManager) else", "with", _DEPENDS),
        ("            if is_of_request(parameter):", "            if False:", _DEPENDS),
        ("            if self._is_batch:", "            if False:", _DEPENDS),
        ("            if not self._is_batch:", "            if False:", _DEPENDS),
        ("    except RecursionError:", "    except ZeroDivisionError:", _DEPENDS),
    ),
    *_of(
        "service/bound.py",
        ("for step, manager in reversed(opened):", "for step, manager in opened:", _DEPENDS),
        (
            "            except BaseException as error:\n                failure = error\n        if failure",
            "            except BaseException:\n                failure = None\n        if failure",
            _DEPENDS,
        ),
        ("said = (None, None, None) if failure is None else (", "said = (None, None, None) if True else (", _DEPENDS),
        ("            opened.append((step, manager))\n", "", _DEPENDS),
        ("if inspect.iscoroutine(value):", "if asyncio.iscoroutine(value):", _DEPENDS),
        (
            "        payload = needs.decode(given)\n        made = self._current()\n",
            "        made = self._current()\n        payload = None\n",
            _DEPENDS,
        ),
        ("if overrides != self._planned_with:", "if overrides and not self._planned_with:", _DEPENDS),
        ("raise Reject(str(error)) from None", "raise", _DEPENDS),
        ("self._planned(overrides), dict(overrides)", "self._planned(overrides), overrides", _DEPENDS),
        ("self._making[token] = step.name", "pass", _DEPENDS),
        ("if self._seen.get(each[0], self) is not each[1]", "if False", _DEPENDS),
        ("self._context = now.copy()", "return now.copy()", _DEPENDS),
        ("        while not result.done():", "        if not result.done():", _MIDDLEWARE),
        ("cancelled = now\n", "raise\n", _MIDDLEWARE),
        ("            self._is_left = True\n", "            pass\n", _NEVER_ENDS),
        ("        elif self._running is not None:\n            self._running.cancel()", "", _DEPENDS),
        ("if not self._middlewares and not self._current().is_async:", "if not self._middlewares:", _DEPENDS),
        ("if not self._middlewares and not self._current().is_async:", "if not self._current().is_async:", _MIDDLEWARE),
        ("argument = given.data if handler.is_raw else given", "argument = given", "test_middleware.py"),
    ),
]

MIDDLEWARE = [
    *_of(
        "service/middleware.py",
        ("if given is not handing:", "if False:", _MIDDLEWARE),
        ("        if called:\n", "        if False:\n", _MIDDLEWARE),
        ("        if ended:\n", "        if False:\n", _MIDDLEWARE),
        ("    if is_early:\n", "    if False:\n", _MIDDLEWARE),
        ("            task.cancel()  # else", "            pass  # else", _MIDDLEWARE),
        ("            await asyncio.wait([task])\n", "", _MIDDLEWARE),
        ("if not called and not handing._skipped:", "if not called:", _MIDDLEWARE),
        ("if not called and not handing._skipped:", "if False:", _MIDDLEWARE),
        ("return await run_around(middlewares[1:], handing, last)", "return await last()", _MIDDLEWARE),
        ('if self.kind == "fire":\n            raise', "if False:\n            raise", _MIDDLEWARE),
        ("max((event.attempt for event in self.events), default=0)", "0", _MIDDLEWARE),
        ("self.purpose = self.events[0].purpose if self.events else", "self.purpose =", _MIDDLEWARE),
        ("self.version = self.events[0].version if self.events else", "self.version =", _MIDDLEWARE),
        ("context.run(work.send, None)", "work.send(None)", _MIDDLEWARE),
    ),
    *_of(
        "service/firing.py",
        (
            "0 if self._around.middlewares or self._typed else",
            "0 if self._typed else",
            _MIDDLEWARE,
        ),
        (
            '{**options, "extensions": extensions}) if extensions',
            '{"extensions": extensions}) if extensions',
            _MIDDLEWARE,
        ),
        ("else dict(check_extensions(given))", "else {}", _MIDDLEWARE),
        ("return self._fire_through(topic, data, content, handled, options)", "pass", _MIDDLEWARE),
        ("return self._through(topic, encoded, options, fire)", "return fire(options)", _MIDDLEWARE),
        ("return self._through(topic, encoded, options, prepared) if", "return prepared(options) if", _MIDDLEWARE),
    ),
    *_of(
        "wind.py",
        (
            "        self._check_not_running()\n        self._around.middlewares",
            "        self._around.middlewares",
            _MIDDLEWARE,
        ),
    ),
]

NOTES = [
    *_of(
        "core/facts.py",
        ("took_ns = busy_ns if handled <= room else busy_ns * room // handled", "took_ns = busy_ns", _FACTS),
        ("ended, lease.handled = handled - lease.handled, handled", "ended = handled", _FACTS),
        ("took_ns = now - lease.handed_at", "took_ns = now", _FACTS),
        ("if settled and lease.shadow is None:", "if settled:", _FACTS),
        ("max(0, now - lease.fired_at)", "max(0, now - lease.handed_at)", _FACTS),
        ("self.counts[bisect_left(BOUNDS_NS, time_ns)] += count", "self.counts[0] += count", _FACTS),
        ("tried = [each for each in note.tried if each[0] in within]", "tried = note.tried", _NOTES),
    ),
    *_of(
        "core/dispatcher.py",
        ("lease.handed_at, lease.fired_at = now, header", "lease.handed_at, lease.fired_at = 0, header", _SETTLED),
        ("note.tried = [(at, tried[at] + (not lease.counted)) for at in few if at in tried]", "pass", _SETTLED),
        ('self._note_end(track, lease, "settled", done, took_ns, now)', "pass", _SETTLED),
        (
            'self._note_end(track, lease, "dead", Spans.of(each.position for each in change.dead), took_ns, now)',
            "pass",
            _DIED,
        ),
    ),
    *_of("engine/commits.py", ("notes = self._dispatcher.pop_notes() if changes else []", "notes = []", _SETTLED)),
    *_of("engine/commits.py", ("return self._settles == len(changes) and not others", "return False", _LOCAL)),
    *_of(
        "core/state.py",
        ("return self == Change(self.topic, self.purpose, self.track, settled=self.settled)", "return True", _LOCAL),
    ),
    *_of(
        "engine/local.py",
        (
            "if self._ending or self._durable or self._idle_waits.waiting or",
            "if self._ending or self._durable or",
            _LOCAL,
        ),
        ("self._riding = self._loop.call_later(RIDE_S, self._commit_soon)", "pass", _LOCAL),
    ),
    *_of(
        "engine/outcomes.py",
        ("if before is None or before.reported_at <= note.reported_at:", "if before is None:", _AGAIN),
    ),
    *_of(
        "store/memory.py",
        ("if self.has_some_of(part):", "if True:", _NOTES),
        ("self.note_bytes -= _size(self.parts.pop(part))", "pass", _NOTES),
    ),
    *_of(
        "store/commits.py",
        ("if len(encoded) > _NOTES_BYTES and not clears:", "if False:", _NOTES),
        ("self._sort_notes(database.read_recent_notes(self.connection))", "pass", _NOTES),
        ("if log is not None and database.is_trimmed(part, log.trimmed):", "if False:", _NOTES),
    ),
    *_of(
        "engine/taking_back.py",
        ("some = self._asked[:CANCEL_TOGETHER]", "some = self._asked[:1]", _DELAYED),
        ("was_there and next(in_topics) is None", "was_there", _FIRED_AGAIN),
    ),
    *_of("engine/audit.py", ("if each is entry or _are_alike(each, entry)]", "if each is entry]", _DELAYED)),
    *_of("peer/connection.py", ("self._host.engine.store_id != self._store:", "False:", _RESTATING)),
    *_of(
        "peer/restating.py",
        ("if each.store == store and not", "if False and not", _RESTATING),
        ("arguments=before.request.arguments | said", "arguments=arguments", _RESTATING),
        ('or arguments.get("dry_run")', "or False", _RESTATING),
        ("if operation.unstates:", "if False:", _RESTATING),
    ),
    *_of(
        "store/journal.py",
        ("self._file.sync()", "pass", _JOURNAL),
        ("if begin:", "if False:", _JOURNAL),
        (" and entry.before == last:", ":", _JOURNAL),
        ("last, max(found, default=0))", "last, 0)", _JOURNAL),
        ("crc32(entry, seed) == sum", "crc32(entry, seed)", _JOURNAL),
        ('return crc32(b"%b%d" % (store, life))', "return 0", _JOURNAL),
    ),
    *_of(
        "store/sqlite.py",
        ("self._journal.rows.insert(self._writer)", "pass", _JOURNAL),
        ("self._watch.harmed() or self._journal.harmed()", "self._watch.harmed()", _IDENTITY),
        ("if not self._reserve.held:  # else", "if False:  # else", _JOURNAL),
    ),
    *_of(
        "store/files.py",
        ("with suppress(OSError):\n                os.pos", "if True:\n                os.pos", _JOURNAL),
    ),
]

# What handlers fire is committed apart from the settle, in one way or another.
FIRED = [
    *_of(
        "engine/local.py",
        (
            _COMMIT,
            "await self.store.commit([], *content[1:])\n"
            "        stored = await self.store.commit(content[0], [], [], content[3], *more, self._dispatch)",
            _AT_EACH_COMMIT,
        ),
        (
            _COMMIT,
            "stored = await self.store.commit(content[0], [], [], content[3], *more, self._dispatch)\n"
            "        await self.store.commit([], *content[1:])",
            _AT_EACH_COMMIT,
        ),
        (
            _COMMIT,
            "stored = await self.store.commit(*content, (), (), None, self._dispatch)\n"
            "        await self.store.commit([], [], [], content[3], more[0])",
            _AT_EACH_COMMIT,
        ),
        ("None if expiring else self._dispatch)", "self._dispatch)", _LATE),
        ("        if expiring:\n            self._dispatch(stored)\n", "", _LATE),
        (
            "                self._accept_one(each, now)\n\n",
            "                self._accept_one(each, now)\n        self._carry_out()\n\n",
            "test_local_engine.py::test_what_the_disk_has_not_got_is_accepted_by_nobody_and_handed_to_nobody",
        ),
    ),
    *_of(
        "peer/client.py",
        (
            "            self._send(wire.Hold(batch.data))",
            "            self.submit(batch)\n        held = ()",
            _REPORT_CAME,
        ),
    ),
    *_of(
        "cluster/store.py",
        ("for fired in written.fired:", "for fired in ():", _COMMITTED),
        (
            "await self._write(record, changes, snapshots, pages)\n                self.delays",
            "await self._write(record, changes, snapshots)\n"
            "                await self._commit_delayed(pages, [], size)\n"
            "                self.delays",
            _COMMITTED,
        ),
    ),
]

DELAY = [
    *_of(
        "core/delay.py",
        ("wait = waits_since(stored) + delay.delay_ns - self", "wait = waits_since(stored) - self"),
        ("if wait > 0:", "if False:"),
        ("self.to = self.found = self.at = self.ahead_to = 0", "self.found = self.at = self.ahead_to = 0"),
        ("self._dispatcher.wake(when, track, DELAYED)", "pass"),
        ("if wait > delay.delay_ns:", "if False:", _CLOCK_SET_BACK),
        ("if track.reached is None:", "if True:", "core/test_delay.py"),
        ("elif delay.delay_ns != stated:", "elif delay.delay_ns < stated:", _NEW_DELAY),
    ),
    *_of(
        "core/dispatcher.py",
        ("if rejected or before < limit < end:", "if rejected:"),
        ("found = track.next(limit, room, log, ready)", "found = track.next(end, room, log, ready)"),
        ("needed.update(track.waiting_copies(topic.end))", "pass", _HELD_COPIES),
    ),
]

LIMITER = _of(
    "core/limiter.py",
    ("max(limiter.next, now - rate.slack) + count", "limiter.next + count"),
    ("1 + (now - max(limiter.next, now - rate.slack))", "(now - max(limiter.next, now - rate.slack))"),
    ("1 + (now - max(limiter.next, now - rate.slack))", "1 + rate.slack"),
    ("min(limiter.next, now + rate.interval)", "limiter.next", _LIMITER),
    ("if count > 0:", "if True:"),
    ("self._dispatcher.wake(when, track, LIMITED)", "pass"),
    ("limiter.at == when", "True", _LIMITER),
    ("if first is track else 0", "if True else 0", _LIMITER),
    ("self._dispatcher.put_off(first)", "pass", _LIMITER),
    ("purpose.in_flight if track.shadow is None else track.shadow.in_hand", "purpose.in_flight", _LIMITER),
    ("limiter.next = stated, max(", "limiter.next = stated, min("),
    ("sum([each.chosen is not None for each in tracks])", "0", _LIMITER),
    ("Change(*main.key, limited_until=limiter.next)", "Change(*main.key)", _LIMITER),
    ("main, lease.noted = track.purpose.main, True", "main = track.purpose.main", _LIMITER),
    ("self._free(track, limiter, now) >= 0", "True", _LIMITER),
)

_TIMEOUT = "test_contract.py::TestMemory::test_a_call_that_takes_longer_is_cancelled_and_is_a_failed_attempt"
_RETURNS_ANYHOW = (
    "test_contract.py::TestMemory::test_a_handler_that_returns_though_it_was_cancelled_has_failed_and_later_counts"
)

TIMED = _of(
    "service/timed.py",
    ("clock.now() + timeout_ns", "clock.now() + timeout_ns * 10**6", _TIMEOUT),
    (", ends=True)", ")", "test_testing.py::test_a_timeout_comes_when_its_time_has_come_and_what_follows_from_it_too"),
    ("raise TimeoutError(late) from error", "raise", _TIMEOUT),
    ("if limit.expired():  #", "if False:  #", _RETURNS_ANYHOW),
    (' or outcome_of(error).verdict != "retry"', "", _RETURNS_ANYHOW),
)

_DEATHS = "test_deaths.py"
_NO_LOOP = "test_contract.py::TestMemory::test_the_death_of_a_purpose_that_hears_of_deaths_is_not_told"
_ONLY_ITS_OWN = "test_contract.py::TestMemory::test_on_dead_is_called_for_each_death_of_its_purpose_and_no_other"
_SHADOWS_HEAR_NOTHING = "test_contract.py::TestMemory::test_a_shadow_does_not_hear_of_the_deaths_of_its_purpose"

DEATHS = [
    *_of(
        "core/deaths.py",
        ("if track.topic != DEAD and", "if", _NO_LOOP),
        ("(self.heard_here or self.heard_elsewhere)", "True", _DEATHS),
    ),
    *_of(
        "engine/local.py",
        (
            "            await self._deaths.fire(self._commits)\n",
            "            self._loop.create_task(self._deaths.fire(self._commits))\n",
            _DEATHS,
        ),
    ),
    *_of("engine/deaths.py", ("or await self._read(topic, position)", "or None", _DEATHS)),
    *_of(
        "service/dead.py",
        (
            "if event.decode(Of) == of:\n            refuse_unrun(await",
            "if True:\n            refuse_unrun(await",
            _ONLY_ITS_OWN,
        ),
    ),
    *_of(
        "service/registration.py",
        ("if handler is None or self.join.rollout == SHADOW:", "if handler is None:", _SHADOWS_HEAR_NOTHING),
    ),
]

FAULTS = [
    *DEATHS,
    *TIMED,
    *LIMITER,
    *SPANS,
    *DELAY,
    *EXPIRY,
    *STATE,
    *BACKLOG,
    *INSTANCE,
    *PURPOSE,
    *TRACK,
    *ROLLOUT,
    *VERSIONS,
    *SHADOWS,
    *_of("core/facts.py", ("if settled and lease.shadow is None:", "if settled:", _SHADOWS)),
    *DISPATCHER,
    *CRASHES,
    *REGISTRY,
    *VERBS,
    *ENGINE,
    *AROUND,
    *DEPENDENCIES,
    *MIDDLEWARE,
    *NOTES,
    *FIRED,
]
