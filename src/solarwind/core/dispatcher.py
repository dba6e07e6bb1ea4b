"""THE PLAN: the life of an event in seven steps, top to bottom, in the order in which they happen.

    1 receive               a batch comes in
    2 pre_send              is it to be kept? the store then makes it durable, and it is accepted
    3 for_each_purpose      known on its topic
    6 further_partitions    within a purpose, versions split the work: each part goes through 4 and 5
    4 exchange              the part's exchange picks instances, and they get it
    5 post_send             what the instances made of it: settled, again, dead
    7 drop                  what nobody has in hand any more is in no memory

The sixth stands before the fourth, because it is what leads there: a purpose's events are divided into *tracks* first,
and each of them has an exchange and a state of its own (see `track`).

A pure state machine. Time comes in as `now` (ns since 1970, never going back), chance as a function; what is to be
done comes out as effects (`pop_effects`) and as changes to be committed (`pop_changes`). The engine commits, carries
out, and reports back. Nothing here waits, and nothing here knows a clock, a socket, a thread or a database.

Positions number a topic's events from 0. A backlog is arithmetic on them (see `spans` and `backlog`), never a list of
events. What is done for fan-outs is in `copies`, for shadows in `shadows`, and after something died in `crashes`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from heapq import heappop
from typing import Any, Literal

from ..batch import Batch
from .backlog import Backlog, Missing
from .copies import Copies
from .crashes import Crashes
from .delay import DELAYED, Delays
from .effects import Failure, Fetch, Offer, Report
from .exchange import Direct, Exchange, Portions
from .expiry import MAX_TOGETHER, Expiry
from .facts import Note
from .instance import MAX_LAST_ERROR, Instance, Lease, limit_to_parts
from .limiter import LIMITED, Limiter, Limiters
from .log import Log, Stored
from .process import Process
from .purpose import Purpose
from .registry import Topic
from .shadows import Shadows
from .spans import Positions, Spans
from .state import Change, Letter, Waiting
from .track import MARGIN, Track, letter_of
from .verbs import Verbs
from .versions import GONE, Versions

PURPOSES_A_TURN = 100  # that get a batch; then other work has its turn
_SEQUENCES = (range, Positions)
MAX_BEHIND = 16  # batches that some purposes have not got yet; then that is done first


class Dispatcher(Verbs):
    """The logically central place that receives events and hands them out. One call at a time."""

    def __init__(self, log: Log, random: Callable[[], float], **how: Any) -> None:
        """See `Registry`."""
        super().__init__(log, random, **how)
        self.copies = Copies(self)
        self.crashes = Crashes(self)
        self.delays = Delays(self)
        self.expiry = Expiry(self)
        self.limiters = Limiters(self)
        self.shadows = Shadows(self)
        self.versions = Versions(self)

    # 1 ------------------------------------------------------------------------------------------------

    def receive(self, batch: Batch) -> bool:
        """Receive a batch. Return whether it is to be stored; otherwise it is accepted and gone.

        Raise `Busy` where its topic would be one too many."""
        return self.pre_send(self.topic(batch.topic), batch)

    # 2 ------------------------------------------------------------------------------------------------

    def pre_send(self, topic: Topic, batch: Batch) -> bool:
        """Return whether the batch is to be kept. Names and sizes were checked where it was made or read; the store
        leaves out what was accepted before and makes the rest durable. A topic without purposes and without history
        stores nothing; whether one is without, only its owner knows."""
        if topic.purposes or topic.keep_ns > 0 or batch.header.due is not None or not self.owns(topic.name):
            return True
        topic.unkept += len(batch)
        return False

    def accepted(self, stored: Stored, now: int) -> None:
        """Dispatch a batch that the store has. It belongs to the dispatcher from here on."""
        topic = self.topics[stored.batch.topic]
        topic.end = stored.stop
        if len(topic.purposes) <= PURPOSES_A_TURN and not topic.behind:
            self.for_each_purpose(topic.purposes.values(), stored, now)
            return
        topic.behind += 1
        self._put_off.append((topic, stored, list(reversed(topic.purposes.values()))))
        while len(self._put_off) > MAX_BEHIND:
            self.go_on(now)

    # 3 ------------------------------------------------------------------------------------------------

    def for_each_purpose(self, purposes: Iterable[Purpose], stored: Stored, now: int) -> None:
        for purpose in purposes:
            self.further_partitions(purpose, now, stored)

    @property
    def behind(self) -> bool:
        """Whether something was put off for `go_on`, so that other work is not held up."""
        return bool(self._put_off or self._looking)

    def go_on(self, now: int) -> None:
        """Do a piece of what was put off."""
        if self._put_off:
            topic, stored, purposes = self._put_off[0]
            some = purposes[: -PURPOSES_A_TURN - 1 : -1]
            del purposes[-PURPOSES_A_TURN:]
            if not purposes:
                self._put_off.popleft()
                topic.behind -= 1
            there = [purpose for purpose in some if topic.purposes.get(purpose.name) is purpose]
            self.for_each_purpose(there, stored, now)
        if self._looking:
            looking = next(iter(self._looking))
            del self._looking[looking]
            self.exchange(looking, now)

    # 6 ------------------------------------------------------------------------------------------------

    def further_partitions(self, purpose: Purpose, now: int, fresh: Stored | None = None) -> None:
        """Hand out each track of a purpose, which is a part of its events. `fresh` is what was just accepted: where the
        exchange does not pend, it is copied now or never."""
        for track in purpose.tracks.values():
            copied_from = track.state.copied_from
            if copied_from is None or fresh is None or track.delay is not None:
                self.exchange(track, now)
            elif copied_from <= fresh.start:
                self.copies.hand_out(track, fresh, now)
        if purpose.shadows:
            self.shadows.hand_out(purpose, fresh, now)

    # 4 ------------------------------------------------------------------------------------------------

    def exchange(self, track: Track, now: int) -> None:
        """Hand out what the track has, as far as its instances have room."""
        if (limiter := track.limiter) is not None:
            limiter.held = False
        self._hand_out(track, limiter, now)
        if track.last_attempts or track.chosen is not None:
            self.crashes.assign_process(track, now)
        if limiter is not None:
            self.limiters.looked_at(track, limiter, now)

    def _hand_out(self, track: Track, limiter: Limiter | None, now: int) -> None:
        exchange, shadow, instances = track.exchange, track.shadow, track.instances
        if track.fetching:
            return
        if exchange is None or not exchange.pends or not instances:
            self._pass_others(track)
            if track.delay is not None:
                self.delays.look(track, track.backlog, now)
            return
        end, log = (self.topics[track.topic].end, self.log) if shadow is None else (shadow.end, shadow)
        backlog = track.backlog
        if backlog is None:
            return
        divided, limit, before = False, end, -1
        while True:
            if track.reached is not None and backlog.cursor + track.margin > track.state.reach:
                self._reach_ahead(track, backlog, instances)
            if track.delay is not None:
                limit = self.delays.limit(track, backlog.next_position, end, log, now)
                if isinstance(limit, Missing):
                    self.fetch(track, limit)
                    return
            if backlog.through(limit):
                if limit < end:
                    self._pass_others(track)
                return
            if not divided:
                limit_to_parts(instances, end - backlog.cursor if isinstance(exchange, Direct) else 0)
                divided = True
            ready, room = [], 0
            for instance in instances:
                if free := instance.free:
                    ready.append(instance)
                    room += free
            if ready and limiter is not None:
                room = self.limiters.room(track, limiter, room, now)
            if not ready or not room:
                self._pass_others(track)
                return
            found = track.next(limit, room, log, ready)
            if backlog.walk is not None and backlog.walk.passed:
                self.change(track, Change(*track.key))  # what was started goes into the commit
            rejected = exchange.keyed and self._note_keyless(track, now)
            if found is None:
                if rejected or before < limit < end:  # it has come further, and may come further yet
                    before = limit
                    continue
                if backlog.more:
                    self._looking[track] = None
                return
            if isinstance(found, Missing):
                self.fetch(track, found)
                return
            if not self._hand_to(track, exchange, found, ready, now):
                return
            if track.left_out >= MAX_TOGETHER:
                track.left_out = 0
                self._looking[track] = None
                return

    def _pass_others(self, track: Track) -> None:
        """Go past events of other tracks, because there is nobody to whom the track's own could be handed out."""
        topic, purpose = self.topics[track.topic], track.purpose
        if not track.splits or track.shadow is not None or topic.purposes.get(purpose.name) is not purpose:
            return
        backlog = track.backlog
        if backlog is None or backlog.walk is None:
            return
        end = track.state.pends_until(topic.end)
        missing = backlog.pass_others(end, self.log, backlog.walk)
        if missing is None and not backlog.more and not track.instances:  # else it is soon somewhere else
            backlog.count_ahead(end, self.log, backlog.walk)
        if backlog.walk.passed:
            self.change(track, Change(*track.key))
        if missing is not None:
            self.fetch(track, missing)
        elif backlog.more:
            self._looking[track] = None

    def _hand_to(
        self,
        track: Track,
        exchange: Exchange,
        found: tuple[Stored, Sequence[int], bool],
        ready: list[Instance],
        now: int,
    ) -> bool:
        """Hand out what was found next to the instances that are ready. Return whether there may be more to hand
        out."""
        stored, picks, suspicious = found
        if stored.batch.header.expires is not None:
            picks = self.expiry.leave_out(track, stored, picks, now)
            if not picks:
                return True
        if suspicious and track.is_last_attempt(picks[0]):
            self.crashes.set_aside(track, stored, picks, now)
            return True
        if track.last_attempts and track.chosen is None and self.crashes.assign_process(track, now):
            track.give_back(Spans.of(picks), suspicious=suspicious)  # some may have no room any more
            return True
        shares = self.share(track, exchange, stored, picks, ready)
        for chosen, part in shares:
            self.lease(track, self.instances[chosen.id][0], stored, part, now, counted=suspicious)
        if sum([len(part) for _, part in shares]) < len(picks):
            rest = Spans.of(picks)
            for _, part in shares:
                rest.difference_update(Spans.of(part))
            track.give_back(rest, suspicious=suspicious)
        return bool(shares)

    def share(
        self, track: Track, exchange: Exchange, stored: Stored, picks: Sequence[int], instances: list[Instance]
    ) -> Portions:
        """Return how the exchange divides the events. Return nothing where it is a plug-in and raises."""
        try:
            return exchange.share(stored, picks, instances, self.random)
        except Exception as error:
            topic, name = track.purpose.key
            why = f"{type(error).__name__}: {error}"
            text = f"exchange {type(exchange).__name__} of {name!r} on {topic!r} chose nobody: {why}"
            self.fault(text, "chose nobody", topic, name)
            return []

    def lease(
        self, track: Track, instance: Instance, stored: Stored, part: Iterable[int], now: int, *, counted: bool
    ) -> Lease:
        """Lease events to an instance: they are its own until it reports, leaves, or is silent for its lease. With
        `counted`, the attempt is counted, durably, before it begins."""
        picks = part if isinstance(part, _SEQUENCES) else list(part)
        lease = Lease(self.next_number(), instance, Spans.of(picks), track=track, counted=counted)
        tried = track.state.tried
        before = {position: tried[position] for position in picks if position in tried} if tried else {}
        if track.purpose.shadows:
            lease.stored = stored
        if counted:
            track.counted_leases += 1
            track.suspects.difference_update(lease.positions)
            started = [(position, tried.get(position, 0) + 1) for position in picks]
            self.change(track, Change(*track.key, started=started))
        track.leases[lease.id] = lease
        if (limiter := track.limiter) is not None:
            self.limiters.handed_out(track, limiter, lease, len(picks), now)
        self.hand_over(lease, stored, picks, before, now)
        if not instance.watched:
            instance.watched = True
            self.wake(instance.alive_until, instance)
        return lease

    def hand_over(self, lease: Lease, stored: Stored, picks: Sequence[int], tried: dict[int, int], now: int) -> None:
        """Give an instance what is in the lease."""
        instance, edges = lease.instance, lease.positions.edges
        low, high = edges[0] - stored.start, edges[-1] - stored.start
        lease.event_bytes = stored.batch.bytes_of(low, high) // (high - low)
        header = stored.batch.header
        lease.handed_at, lease.fired_at = now, header.time + header.times[low]
        if header.due is not None:
            lease.fired_at = max(lease.fired_at, header.due[low] or 0)
        if not instance.leases:  # else it is at work already, and getting more is no sign of life
            instance.alive_until = now + instance.join.lease_ns
            instance.moved_at = now
        instance.add_lease(lease, len(picks))
        instance.quota -= len(picks)
        instance.used = self.next_number()
        instance.process.lost_with = -1
        shadow = lease.shadow is not None
        self.effects.append(Offer(instance.id, lease.id, stored, picks, tried, lease.counted or lease.noted, shadow))

    def fetch(self, track: Track, position: int) -> None:
        """Have the log read from this position on; the track waits for it. A shadow does without what it has no more:
        nothing is read for it."""
        if track.shadow is not None:
            track.shadow.skip_from(position)
            self._looking[track] = None
            return
        track.fetching = True
        topic = self.topics[track.topic]
        topic.asked.setdefault(position, topic.end)
        self.effects.append(Fetch(track.topic, int(position)))

    def fetched(self, topic_name: str, position: int, found: Stored | None, now: int) -> None:
        """Go on with a track, because the log at `position` is in memory now. `found` is the first batch from there on;
        what lies before it was trimmed or lost, and no purpose can have it any more."""
        topic = self.topics[topic_name]
        asked = topic.asked.pop(position, topic.end)
        until = found.start if found is not None else asked  # what was accepted since was not looked for
        for track in [track for purpose in topic.purposes.values() for track in purpose.tracks.values()]:
            if position < until:
                self.delays.skip(track, position, until)
                gone = track.state.pending(until).within(position, until)
                gone.difference_update(track.in_flight())
                if gone:
                    track.purpose.dropped += len(gone)
                    self.change(track, Change(*track.key, skipped=gone))
                    track.rewind()
            if track.fetching:
                track.fetching = False
                self.exchange(track, now)

    def _reach_ahead(self, track: Track, backlog: Backlog, instances: Collection[Instance]) -> None:
        """Note, well before it happens, up to where events may have been handed out: after a crash only those are
        suspects. The note goes into the next commit that is made anyway, so in a steady flow nothing waits for it."""
        track.margin = MARGIN + 2 * sum([instance.room for instance in instances])
        self.change(track, Change(*track.key, reach=backlog.cursor + 2 * track.margin))

    def _note_keyless(self, track: Track, now: int) -> bool:
        """Count the events without a key and log the first. Make them dead letters where the version states that, and
        return True then."""
        positions, new = track.pop_keyless()
        if not positions:
            return False
        statement, (topic, name) = track.statement, track.purpose.key
        if track.shadow is not None:
            if statement.key_missing == "reject":
                self.change(track, Change(*track.key, skipped=Spans.of(positions)))
            return statement.key_missing == "reject"
        what = f"the field {statement.key} of its payload" if statement.key else "key= when it is fired"
        rejects = statement.key_missing == "reject"
        if new and new == track.key_missing:
            then = "is a dead letter" if rejects else "is handed out in no order, as one with a key of its own"
            text = f"an event on topic {topic!r} has no key for the keyed purpose {name!r} ({what})"
            self.fault(f"{text}: such an event {then}", "keyless", topic, name)
        if rejects:
            error, tried = f"expected a key, {what}, got none", track.state.tried
            letters = [
                Letter(position, tried.get(position, 0), now, error, statement.version) for position in positions
            ]
            track.suspects.difference_update(Spans.of(positions))
            self.give_up(track, letters)
        return rejects

    # 5 ------------------------------------------------------------------------------------------------

    def post_send(self, report: Report, now: int, fired: Collection[Batch] = ()) -> bool:
        """Note what an instance made of its events. Return False if the lease is not, or no longer, its own, or if what
        it reports as done is not in the lease (a report that came twice): then nothing in the report counts, and
        neither does what was `fired` with it, which is only compared where there are shadows."""
        found = self.instances.get(report.instance)
        if found is None:
            return False
        instance, purpose = found
        instance.alive(now)
        if instance.silent:
            self.note_silent(purpose, instance, now, silent=False)
        self.copies.drain(instance, now)
        lease = instance.leases.get(report.lease)
        counts = lease is not None and self._note(lease, report, fired, now)
        if counts and instance.process.closed:
            self.crashes.proceed(instance.process, now)
        self.further_partitions(purpose, now)
        return counts

    def _note(self, lease: Lease, report: Report, fired: Collection[Batch], now: int) -> bool:
        """Remove what the report names from the lease. Return False where the report says that something is done, and
        none of that is in the lease."""
        instance, held = lease.instance, lease.positions
        done = held.common(report.done)
        if report.done and not done:
            return False
        held.difference_update(done)
        failed = []
        if report.refusal:
            failed = [Failure(position, "retry", report.refusal) for position in done.positions()]
            done = Spans()
        for failure in report.failed:
            if failure.position in held:
                held.remove(failure.position, failure.position + 1)
                failed.append(failure)
        returned = held.common(report.returned)
        held.difference_update(returned)
        settled = len(done)
        if settled or failed:
            instance.moved_at = now
            instance.settled += settled
            instance.rate.note(instance.settled, now)
        if failed:
            instance.error = failed[-1].error[:MAX_LAST_ERROR]
        instance.remove_events(lease, settled + len(failed) + len(returned))
        instance.observe(report.handled, report.busy_ns)
        if returned:
            instance.room = max(instance.join.room, instance.in_flight)
        track = lease.track
        ended = settled + len(failed)
        took_ns = instance.times.add(lease, report.handled, report.busy_ns, settled, ended, now) if ended else 0
        if track is not None:
            if track.purpose.shadows or lease.shadow is not None:
                done, failed = self.shadows.compare(lease, done, failed, fired, now)
            if done:
                track.purpose.settled_at = now
                self._note_end(track, lease, "settled", done, took_ns, now)
                self.change(track, Change(*track.key, settled=done))
            if failed:
                self._note_failures(track, lease, failed, took_ns, now)
                if not done and any(failure.verdict != "later" for failure in failed):
                    track.purpose.note_failure(now)
            if returned:
                self._return(track, lease, returned)
        if not held:
            self.crashes.note_end(lease)
            self.drop(lease)
        if track is None:
            self.copies.note(lease, settled, len(failed), returned, now)
        return True

    def _note_end(
        self, track: Track, lease: Lease, verdict: Literal["settled", "dead"], ended: Spans, took_ns: int, now: int
    ) -> None:
        """Note, for operators, who is done with these events. It is called before the change that says so."""
        tried, (topic, purpose, _), join = track.state.tried, track.key, lease.instance.join
        note = Note(topic, purpose, verdict, ended.edges, join.version, join.origin, lease.handed_at, now, took_ns)
        if tried:
            few = ended.positions() if len(ended) < len(tried) else [at for at in tried if at in ended]
            note.tried = [(at, tried[at] + (not lease.counted)) for at in few if at in tried]
        self.notes.append(note)

    def give_up(self, track: Track, letters: list[Letter]) -> None:
        """Make events dead letters that no instance reported, and note that for operators."""
        ended, tried = Spans.of([each.position for each in letters]), [(each.position, each.tried) for each in letters]
        last = letters[-1]
        self.notes.append(Note(*track.purpose.key, "dead", ended.edges, last.version, "", 0, last.time, 0, tried))
        self.change(track, Change(*track.key, dead=letters))

    def _note_failures(self, track: Track, lease: Lease, failed: Iterable[Failure], took_ns: int, now: int) -> None:
        """Retry events whose handlers did not return, or make them dead letters. All of them are one change, for there
        may be very many."""
        version = lease.instance.version
        retry = track.purpose.statements[version].retry
        change = Change(*track.key)
        for failure in failed:
            position = failure.position
            counted = track.state.tried.get(position, 0)
            tried = counted if lease.counted else counted + 1
            if failure.verdict == "reject" or (failure.verdict == "retry" and tried >= retry.attempts):
                change.dead.append(letter_of(position, tried, now, failure.error, version))
            elif failure.verdict == "later":
                change.waiting.append(Waiting(position, tried - 1, now + failure.after_ns))
            else:
                drawn = failure.after_ns or retry.delay_ns(tried, self.random)
                change.waiting.append(Waiting(position, tried, now + min(drawn, retry.longest_ns(tried))))
                change.retried += 1
                track.note_error(position, failure.error)
        if change.dead:
            self._note_end(track, lease, "dead", Spans.of(each.position for each in change.dead), took_ns, now)
        self.change(track, change)
        for waiting in change.waiting:
            self.wake(waiting.due, track, waiting.position)

    def _return(self, track: Track, lease: Lease, positions: Spans) -> None:
        """Make events pend again that were not handled, through no fault of theirs: an attempt that was counted in
        advance is uncounted."""
        if lease.counted:
            tried = track.state.tried
            started = [(position, tried[position] - 1) for position in positions.positions()]
            self.change(track, Change(*track.key, started=started))
        track.give_back(positions, suspicious=lease.counted)

    def alive(self, instance_id: int, now: int) -> None:
        """Renew the leases of an instance that is at work."""
        found = self.instances.get(instance_id)
        if found is not None:
            instance, purpose = found
            instance.alive(now)
            if instance.silent:
                self.note_silent(purpose, instance, now, silent=False)
                self.copies.drain(instance, now)
                self.further_partitions(purpose, now)

    def tick(self, now: int) -> None:
        """Do what is due by now: retries, and the ends of leases of silent instances. All of it comes before anything
        is handed out, so that no instance gets what another lost just before its own lease ends too."""
        touched: dict[Track, None] = {}
        silent: list[Process] = []
        while self._timers and self._timers[0][0] <= now:
            when, _, about, position = heappop(self._timers)
            if isinstance(about, Purpose):
                self.copies.look_again(about, when, now)
            elif isinstance(about, Track):
                if position == GONE:
                    touched.update(dict.fromkeys(self.versions.look_for_gone(about, when)))
                elif position == LIMITED:
                    touched.update(dict.fromkeys(self.limiters.due(about, when)))
                elif position == DELAYED:
                    if about.delay is not None and about.delay.at == when:
                        touched[about] = None
                elif about.state.due.get(position) == when and position in about.retrying:
                    about.end_wait(position)
                    touched[about] = None
            elif about.id in self.instances and self._is_lost(about, now):
                purpose = self.instances[about.id][1]
                silent.append(about.process)
                touched.update(dict.fromkeys(purpose.all_tracks))
                self.remove_instance(purpose, about, now, died=True)
                self.note_silent(purpose, about, now, silent=True)
        for process in [process for process in silent if process.closed]:
            self.crashes.proceed(process, now)
        for track in touched:
            self.exchange(track, now)

    def _is_lost(self, instance: Instance, now: int) -> bool:
        """Return whether an instance's lease has ended. While it has something in hand, there is a timer for that."""
        lost = bool(instance.leases) and instance.alive_until <= now
        instance.watched = bool(instance.leases) and not lost
        if instance.watched:
            self.wake(instance.alive_until, instance)
        return lost

    @property
    def wake_at(self) -> int | None:
        """When `tick` has something to do, in ns since 1970."""
        return self._timers[0][0] if self._timers else None

    def remove_instance(self, purpose: Purpose, instance: Instance, now: int, *, died: bool) -> None:
        """Take an instance's events from it. If it died, that was an attempt of each, and they are handed out with
        care. It may have been a last attempt only where its process had a single event in hand."""
        alone = died and instance.process.lose() == 1
        attempts = purpose.statements[instance.version].retry.attempts
        for lease in list(instance.leases.values()):
            self.drop(lease)
            instance.remove_events(lease, len(lease.positions))
            if lease.track is None:
                purpose.dropped += len(lease.positions)
            elif died and lease.shadow is not None:
                self.shadows.lost(lease, now)
            elif died:
                self.crashes.count(lease, lease.track, attempts if alone else attempts - 1)
            else:
                self._return(lease.track, lease, lease.positions)
                self.crashes.note_end(lease)

    # 7 ------------------------------------------------------------------------------------------------

    def drop(self, lease: Lease) -> None:
        """Drop a lease: nothing of it is in hand or in memory any more. What still pends is a range of positions in the
        log."""
        del lease.instance.leases[lease.id]
        if lease.track is not None:
            del lease.track.leases[lease.id]
            lease.track.counted_leases -= lease.counted

    def needed(self, topic_name: str) -> Spans:
        """Return the positions of a topic that some purpose pends on or has as dead letters. The rest is history, kept
        as long as the topic says; what has been settled is nowhere in memory any more."""
        topic = self.topics[topic_name]
        needed = Spans()
        for track in [track for purpose in topic.purposes.values() for track in purpose.tracks.values()]:
            needed.update(track.state.pending(topic.end))
            needed.update(track.state.dead)
            needed.update(track.waiting_copies(topic.end))
        return needed
