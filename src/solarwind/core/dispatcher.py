"""THE PLAN: the life of an event in seven steps, top to bottom.

    1 receive               a batch comes in
    2 pre_send              is it to be kept? the store then makes it durable, and it is accepted
    3 for_each_purpose      known on its topic
    4 exchange              the purpose's exchange picks instances, and they get it
    5 post_send             what the instances made of it: settled, again, dead
    6 further_partitions    within a purpose, versions split the work
    7 drop                  what nobody needs any more

A pure state machine. Time comes in as `now` (ns since 1970, never going back), chance as a function; what is to be
done comes out as effects (`take_effects`) and as changes to be committed (`take_changes`). The engine commits, carries
out, and reports back. Nothing here waits, and nothing here knows a clock, a socket, a thread or a database.

Positions number a topic's events from 0. A backlog is arithmetic on them (see `spans` and `backlog`), never
a list of events.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from heapq import heappop

from ..batch import Batch
from .backlog import Backlog, Missing
from .effects import Failure, Fault, Fetch, Offer, Report
from .exchange import Direct, Exchange, Portions
from .log import Stored
from .process import Process
from .purpose import MARGIN, MAX_HELD_BYTES, MAX_ROOM, PATIENCE_NS, Instance, Lease, Purpose, letter_of
from .registry import LOOK, Registry, Topic
from .spans import Spans
from .state import Change, Letter, Waiting

TOGETHER = 100  # purposes that get a batch in one turn, so that others get theirs
MAX_BEHIND = 16  # batches that some purposes have not got yet; then that is done first


class Dispatcher(Registry):
    """The logically central place that takes events and hands them out. One call at a time."""

    # 1 ------------------------------------------------------------------------------------------------

    def receive(self, batch: Batch) -> bool:
        """A batch came in. Gives whether it is to be stored; else it is accepted and gone.

        Raises `Busy` where its topic would be one too many.
        """
        return self.pre_send(self.topic(batch.topic), batch)

    # 2 ------------------------------------------------------------------------------------------------

    def pre_send(self, topic: Topic, batch: Batch) -> bool:
        """Names and sizes were checked where the batch was made or read; the store leaves out what was accepted before
        and makes the rest durable. A topic that nobody listens to and that keeps no history stores nothing."""
        if topic.purposes or topic.keep_ns > 0:
            return True
        topic.unkept += len(batch)
        return False

    def accepted(self, stored: Stored, now: int) -> None:
        """The store has it. From here on it is the dispatcher's."""
        topic = self.topics[stored.batch.topic]
        topic.end = stored.stop
        if len(topic.purposes) <= TOGETHER and not topic.behind:
            self.for_each_purpose(topic.purposes.values(), stored, now)
            return
        topic.behind += 1
        self._passes.append((topic, stored, list(reversed(topic.purposes.values()))))
        while len(self._passes) > MAX_BEHIND:
            self.go_on(now)

    # 3 ------------------------------------------------------------------------------------------------

    def for_each_purpose(self, purposes: Iterable[Purpose], stored: Stored, now: int) -> None:
        for purpose in purposes:
            copied_from = purpose.state.copied_from
            if copied_from is None:
                self.exchange(purpose, now)
            elif copied_from <= stored.start:
                self._copy_out(purpose, stored, now)

    @property
    def behind(self) -> bool:
        """Whether something was put off for `go_on`, so that others get their turn meanwhile."""
        return bool(self._passes or self._looking)

    def go_on(self, now: int) -> None:
        """Do a piece of what was put off."""
        if self._passes:
            topic, stored, purposes = self._passes[0]
            some = purposes[: -TOGETHER - 1 : -1]
            del purposes[-TOGETHER:]
            if not purposes:
                self._passes.popleft()
                topic.behind -= 1
            there = [purpose for purpose in some if topic.purposes.get(purpose.state.purpose) is purpose]
            self.for_each_purpose(there, stored, now)
        if self._looking:
            looking = next(iter(self._looking))
            del self._looking[looking]
            self.exchange(looking, now)

    # 4 ------------------------------------------------------------------------------------------------

    def exchange(self, purpose: Purpose, now: int) -> None:
        """Hand out what the purpose has and its instances have room for."""
        self._hand_out(purpose, now)
        if purpose.last_tries or purpose.turn is not None:
            self._take_turn(purpose, now)

    def _hand_out(self, purpose: Purpose, now: int) -> None:
        topic = self.topics[purpose.state.topic]
        exchange = purpose.exchange
        if exchange is None or not exchange.pends or purpose.fetching:
            return
        backlog, instances = purpose.backlog, self.further_partitions(purpose)
        if backlog is None or not instances:
            return
        divided = False
        while True:
            if purpose.reached is not None and backlog.cursor + purpose.margin > purpose.state.reach:
                self._reach_ahead(purpose, backlog, instances)
            if backlog.through(topic.end):
                return
            if not divided:
                self._divide(exchange, backlog, instances, topic.end)
                divided = True
            ready, room = [], 0
            for instance in instances:
                if free := instance.free:
                    ready.append(instance)
                    room += free
            if not ready:
                return
            found = purpose.next(topic.end, room, self._log, ready)
            rejected = exchange.keyed and self._note_keyless(purpose, now)
            if found is None:
                if rejected:  # it has come further, and may come further yet
                    continue
                if backlog.more:
                    self._looking[purpose] = None
                return
            if isinstance(found, Missing):
                self._fetch(purpose, found)
                return
            stored, picks, careful = found
            if careful and purpose.is_last_try(picks[0]):
                self._set_aside(purpose, stored, picks, now)
                continue
            if purpose.last_tries and purpose.turn is None and self._take_turn(purpose, now):
                purpose.give_back(Spans.of(picks), suspicious=careful)  # some may have no room any more
                continue
            shares = self._share(purpose, exchange, stored, picks, ready)
            for chosen, part in shares:
                self._lease(purpose, self.instances[chosen.id][0], stored, part, now, careful=careful)
            if sum([len(part) for _, part in shares]) < len(picks):
                rest = Spans.of(picks)
                for _, part in shares:
                    rest.difference_update(Spans.of(part))
                purpose.give_back(rest, suspicious=careful)
                if not shares:
                    return

    def _share(
        self, purpose: Purpose, exchange: Exchange, stored: Stored, picks: Sequence[int], instances: list[Instance]
    ) -> Portions:
        """What the exchange says; nothing where it is somebody's own and raises."""
        try:
            return exchange.share(stored, picks, instances, self._random)
        except Exception as error:
            topic, name = purpose.key
            why = f"{type(error).__name__}: {error}"
            text = f"exchange {type(exchange).__name__} of {name!r} on {topic!r} chose nobody: {why}"
            self._effects.append(Fault(text, ("chose nobody", *purpose.key)))
            return []

    def _divide(self, exchange: Exchange, backlog: Backlog, instances: Collection[Instance], end: int) -> None:
        """Where it is all the same which instance gets an event, each gets an even part of what is yet to be looked at:
        the first to be done with a burst's beginning does not get all the rest."""
        ahead, quota = end - backlog.cursor, MAX_ROOM
        if isinstance(exchange, Direct) and len(instances) > 1 and ahead > 0:
            able = sum([not (instance.silent or instance.process.closed) for instance in instances])
            quota = -(-ahead // max(1, able))
        for instance in instances:
            instance.quota = quota

    def _lease(
        self,
        purpose: Purpose,
        instance: Instance,
        stored: Stored,
        part: Iterable[int],
        now: int,
        *,
        careful: bool = False,
        pends: bool = True,
    ) -> Lease:
        """The events are this instance's until it reports, leaves, or is silent for its lease. `careful`: the attempt
        is counted, and durable, before it begins."""
        picks = part if isinstance(part, range) else list(part)
        positions = Spans.of(picks)
        low, high = positions.edges[0] - stored.start, positions.edges[-1] - stored.start
        size = stored.batch.bytes_of(low, high) // (high - low)
        lease = Lease(self._next_number(), instance, positions, size, None if pends else stored, careful)
        tried = purpose.state.tried
        before = {position: tried[position] for position in picks if position in tried} if tried and pends else {}
        if careful:
            purpose.careful += 1
            purpose.suspects.difference_update(positions)
            started = [(position, tried.get(position, 0) + 1) for position in picks]
            self._change(purpose, Change(*purpose.key, started=started))
        purpose.leases[lease.id] = lease
        if not instance.leases:  # else it is at work already, and to be given more is no sign of life
            instance.alive_until = now + instance.join.lease_ns
            instance.moved_at = now
        instance.take(lease)
        instance.quota -= len(picks)
        instance.used = self._next_number()
        instance.process.lost_with = -1
        if pends and not instance.watched:
            instance.watched = True
            self._wake(instance.alive_until, purpose, instance.id, retry=False)
        self._effects.append(Offer(instance.id, lease.id, stored, picks, before, after_commit=careful))
        return lease

    def _copy_out(self, purpose: Purpose, stored: Stored, now: int) -> None:
        """What was just accepted, as copies: one for every instance chosen. Nothing of it pends."""
        instances, exchange = list(self.further_partitions(purpose)), purpose.exchange
        copied = Spans()
        picks = range(stored.start, stored.stop)
        shares = self._share(purpose, exchange, stored, picks, instances) if instances and exchange is not None else []
        parts = [(chosen.id, Spans.of(part)) for chosen, part in shares]
        for _, part in parts:
            copied.update(part)
        purpose.dropped += len(picks) - len(copied)
        if parts:
            purpose.held.append((stored, stored.start, parts))
            purpose.held_bytes += len(stored.batch.data)
            self._copy_held(purpose, now)

    def _copy_held(self, purpose: Purpose, now: int) -> None:
        """Put copies into the buffers of those whose they are, as far as that costs those any who keep up."""
        receivers: dict[int, Instance] = {}
        while purpose.held:
            stored, start, parts = purpose.held[0]
            here = [(found[0], part) for number, part in parts if (found := self.instances.get(number)) is not None]
            stop = start + self._fitting(purpose, [instance for instance, _ in here], stored.stop - start, now)
            if stop == start:
                break
            if stop < stored.stop:
                purpose.held[0] = (stored, stop, parts)
            else:
                purpose.held.popleft()
                purpose.held_bytes -= len(stored.batch.data)
            made = 0
            for instance, part in here:
                for low, high in part.within(start, stop) if not instance.leaving else ():
                    receivers[instance.id] = instance
                    purpose.dropped += instance.buffer(stored, low, high, self._limits)
                    made += high - low
            purpose.dropped += sum([len(part.within(start, stop)) for _, part in parts]) - made
        for receiver in receivers.values():
            self._drain_copies(purpose, receiver, now)

    def _fitting(self, purpose: Purpose, instances: list[Instance], most: int, now: int) -> int:
        """How many events may be copied now: a burst is not to cost those any who keep up, be it all in one turn. The
        others of the purpose wait a moment with them; nobody waits for one that is slow."""
        if purpose.held_bytes > MAX_HELD_BYTES:
            return most
        full, look_at = None, 0
        for instance in instances:
            if instance.copied + most > self._limits.copies or instance.copied_bytes:
                space = instance.space(self._limits)
                if space < most and (until := instance.keeps_up_until(now, self._limits)) > now:
                    most, full, look_at = space, instance, until
        if not most and full is not None:
            full.full_since = full.full_since or now
            if not purpose.look_at:
                purpose.look_at = min(look_at, full.full_since + PATIENCE_NS)
                self._wake(purpose.look_at, purpose, LOOK, retry=True)
        return most

    def _drain_copies(self, purpose: Purpose, instance: Instance, now: int) -> None:
        if instance.copies:
            instance.quota = MAX_ROOM
        while instance.copies and instance.free:
            stored, picks = instance.unbuffer(instance.free)
            self._lease(purpose, instance, stored, picks, now, pends=False)

    def _fetch(self, purpose: Purpose, position: int) -> None:
        purpose.fetching = True
        topic = self.topics[purpose.state.topic]
        topic.asked.setdefault(position, topic.end)
        self._effects.append(Fetch(purpose.state.topic, int(position)))

    def fetched(self, topic_name: str, position: int, found: Stored | None, now: int) -> None:
        """The log at `position` is at hand now. `found` is the first batch there is from there on; what lies before
        it was trimmed or lost, and no purpose can have it any more."""
        topic = self.topics[topic_name]
        asked = topic.asked.pop(position, topic.end)
        until = found.start if found is not None else asked  # what was accepted since was not looked for
        for purpose in topic.purposes.values():
            if position < until:
                gone = purpose.state.pending(until).within(position, until)
                gone.difference_update(purpose.in_flight())
                if gone:
                    purpose.dropped += len(gone)
                    self._change(purpose, Change(*purpose.key, skipped=gone))
                    purpose.rewind()
            if purpose.fetching:
                purpose.fetching = False
                self.exchange(purpose, now)

    def _reach_ahead(self, purpose: Purpose, backlog: Backlog, instances: Collection[Instance]) -> None:
        """Note, well before it happens, up to where events may have been handed out: after a crash only those are
        suspects. The note rides with some commit, so in a steady flow nobody waits for it."""
        purpose.margin = MARGIN + 2 * sum([instance.room for instance in instances])
        self._change(purpose, Change(*purpose.key, reach=backlog.cursor + 2 * purpose.margin))

    def _note_keyless(self, purpose: Purpose, now: int) -> bool:
        """Count the events that have no key, say so once, and make them dead letters where the version states that:
        then True."""
        positions, new = purpose.take_keyless()
        if not positions:
            return False
        statement, (topic, name) = purpose.active, purpose.key
        what = f"the field {statement.key} of its payload" if statement.key else "key= when it is fired"
        rejects = statement.key_missing == "reject"
        if new and new == purpose.key_missing:
            then = "is a dead letter" if rejects else "is handed out in no order, as one with a key of its own"
            text = f"an event on topic {topic!r} has no key for the keyed purpose {name!r} ({what})"
            self._effects.append(Fault(f"{text}: such an event {then}", ("keyless", *purpose.key)))
        if rejects:
            error, tried = f"expected a key, {what}, got none", purpose.state.tried
            letters = [Letter(position, tried.get(position, 0), now, error) for position in positions]
            purpose.suspects.difference_update(Spans.of(positions))
            self._change(purpose, Change(*purpose.key, dead=letters))
        return rejects

    def _set_aside(self, purpose: Purpose, stored: Stored, picks: Iterable[int], now: int) -> None:
        """Suspects that may be tried once more wait for their turn. Those that were being handled each time something
        died, as often as they may be tried, are dead."""
        for position in picks:
            tried = purpose.state.tried.get(position, 0)
            if tried < purpose.attempts:
                purpose.last_tries.append(position)
                continue
            purpose.suspects.remove(position, position + 1)
            error = f"its handler did not come to an end {tried} times: the process died or hung"
            self._change(purpose, Change(*purpose.key, dead=[letter_of(position, tried, now, error)]))
            which = f"event {stored.batch.id(position - stored.start)} on topic {purpose.key[0]!r}"
            self._effects.append(
                Fault(f"{which} for {purpose.key[1]!r}, now a dead letter: {error}", ("dead", *purpose.key))
            )

    def _take_turn(self, purpose: Purpose, now: int) -> bool:
        """See that one of the purpose's last attempts has its turn in a process, the one that has least to do. Return
        whether it has."""
        process = purpose.turn
        has_it = process is not None and process.turns[0] is purpose and process.last_try
        if process is not None and not has_it and not self._takers(purpose, process):
            process.turns.remove(purpose)
            purpose.turn = None
            self._proceed(process, now)
        if purpose.turn is None and (takers := self._takers(purpose)):
            process = min([each.process for each in takers], key=lambda each: (len(each.turns), each.in_hand))
            process.turns.append(purpose)
            purpose.turn = process
        if purpose.turn is not None:
            self._proceed(purpose.turn, now)
        return purpose.turn is not None

    def _takers(self, purpose: Purpose, process: Process | None = None) -> list[Instance]:
        """Those who may get a last attempt of the purpose, in that process or any."""
        exchange = purpose.exchange
        if exchange is None or not exchange.pends or purpose.backlog is None or not purpose.last_tries:
            return []
        instances = self.further_partitions(purpose)
        return [each for each in instances if not each.silent and (process is None or each.process is process)]

    def _proceed(self, process: Process, now: int) -> None:
        ended: dict[Purpose, None] = {}
        was_closed = process.closed
        while process.turns and not process.in_hand and process.last_end is None:
            purpose = process.turns[0]
            if not process.last_try and self._give_last(purpose, process, now):
                break
            if process.last_try:
                ended[purpose] = None
            process.turns.popleft()
            process.last_try, purpose.turn = 0, None
        process.closed = bool(process.turns) or process.last_end is not None
        if was_closed and not process.closed:  # those that had their turn come last
            there = dict.fromkeys(purpose for _, purpose in process.instances.values() if purpose not in ended)
            for instance, purpose in list(process.instances.values()):
                self._drain_copies(purpose, instance, now)
            for purpose in [*there, *ended]:
                self.exchange(purpose, now)

    def _give_last(self, purpose: Purpose, process: Process, now: int) -> bool:
        """Hand out a last attempt in a process that has nothing else in hand. Return False if there is none."""
        takers = self._takers(purpose, process)
        exchange = purpose.exchange
        if not takers or exchange is None or purpose.fetching:
            return bool(takers)
        position = purpose.last_tries[0]
        stored = self._log.find(purpose.state.topic, position)
        if stored is None:
            self._fetch(purpose, position)
            return True
        process.closed = False  # for the exchange to see that they have room
        for each in takers:
            each.quota = MAX_ROOM
        shares = [share for share in self._share(purpose, exchange, stored, [position], takers) if share[1]]
        if not shares:
            purpose.last_tries.rotate(-1)
            return False
        purpose.last_tries.popleft()
        instance = self.instances[shares[0][0].id][0]
        # Elsewhere the dispatcher outlives the process, and counts what it was lost with.
        lease = self._lease(purpose, instance, stored, [position], now, careful=process.home)
        purpose.suspects.remove(position, position + 1)
        process.last_try = lease.id
        return True

    # 5 ------------------------------------------------------------------------------------------------

    def post_send(self, report: Report, now: int) -> bool:
        """Note what an instance made of its events. False if the lease is not, or no longer, its own, or what it says
        is done is not (a report that came twice): then nothing it says counts, and neither does what it fired."""
        found = self.instances.get(report.instance)
        if found is None:
            return False
        instance, purpose = found
        instance.alive(now)
        self._drain_copies(purpose, instance, now)
        lease = purpose.leases.get(report.lease)
        if lease is None or lease.instance is not instance:
            self.exchange(purpose, now)
            return False
        held = lease.positions
        done = held.common(report.done)
        if report.done and not done:
            self.exchange(purpose, now)
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
        if done or failed:
            instance.moved_at = now
        instance.put_down(lease, len(done) + len(failed) + len(returned))
        instance.observe(report.handled, report.busy_ns)
        if returned:
            instance.room = max(instance.join.room, instance.in_flight)
        if lease.copies_of is None:
            if done:
                self._change(purpose, Change(*purpose.key, settled=done))
            if failed:
                self._again(purpose, lease, failed, now)
            if returned:
                self._return(purpose, lease, returned)
        else:
            purpose.copies_handled += len(done)
            purpose.dropped += len(failed)
            instance.rebuffer(lease.copies_of, returned)
        if not held:
            self._note_last_end(lease)
            self._end_lease(purpose, lease)
        if not lease.pends:
            self._drain_copies(purpose, instance, now)
            self._copy_held(purpose, now)
        if instance.process.closed:
            self._proceed(instance.process, now)
        self.exchange(purpose, now)
        return True

    def _again(self, purpose: Purpose, lease: Lease, failed: Iterable[Failure], now: int) -> None:
        """Events whose handlers did not return: try them again at some time, or make them dead letters. All of them are
        one change, for there may be very many."""
        retry = lease.instance.join.retry
        change = Change(*purpose.key)
        for failure in failed:
            position = failure.position
            counted = purpose.state.tried.get(position, 0)
            tried = counted if lease.counted else counted + 1
            if failure.verdict == "reject" or (failure.verdict == "retry" and tried >= retry.attempts):
                change.dead.append(letter_of(position, tried, now, failure.error))
            elif failure.verdict == "later":
                change.waiting.append(Waiting(position, tried - 1, now + failure.after_ns))
            else:
                drawn = failure.after_ns or retry.delay_ns(tried, self._random)
                change.waiting.append(Waiting(position, tried, now + min(drawn, retry.longest_ns(tried))))
                change.retried += 1
        self._change(purpose, change)
        for waiting in change.waiting:
            self._wake(waiting.due, purpose, waiting.position, retry=True)

    def _return(self, purpose: Purpose, lease: Lease, positions: Spans) -> None:
        """They were not handled, and not for a fault of theirs: an attempt that was counted before is none."""
        if lease.counted:
            tried = purpose.state.tried
            started = [(position, tried[position] - 1) for position in positions.positions()]
            self._change(purpose, Change(*purpose.key, started=started))
        purpose.give_back(positions, suspicious=lease.counted)

    def _end_lease(self, purpose: Purpose, lease: Lease) -> None:
        del purpose.leases[lease.id]
        lease.instance.leases.discard(lease.id)
        if lease.counted:
            purpose.careful -= 1

    def _note_last_end(self, lease: Lease) -> None:
        """How a suspect's last attempt ended is to be durable before anything else goes to its process: if that ended
        the process now, the suspect would be dead by another's fault."""
        process = lease.instance.process
        if self._durable and lease.counted and lease.id == process.last_try:
            process.last_end = self._changes[-1]
            self._last_ends.append(process)

    def alive(self, instance_id: int, now: int) -> None:
        """The instance is at work: its leases run on."""
        found = self.instances.get(instance_id)
        if found is not None:
            instance, purpose = found
            was_silent = instance.silent
            instance.alive(now)
            if was_silent:
                self._drain_copies(purpose, instance, now)
                self.exchange(purpose, now)

    def tick(self, now: int) -> None:
        """Do what is due by now: retries, and the leases of those who have been silent. All of it before anything is
        handed out, so that nobody gets what another lost a moment before his own lease ends too."""
        touched: dict[Purpose, None] = {}
        silent: list[Process] = []
        while self._timers and self._timers[0][0] <= now:
            when, _, purpose, number, retry = heappop(self._timers)
            if number == LOOK:
                if purpose.look_at == when:
                    purpose.look_at = 0
                    self._copy_held(purpose, now)
                continue
            if retry:
                if purpose.state.due.get(number) == when and number in purpose.delayed:
                    purpose.due(number)
                    touched[purpose] = None
                continue
            found = self.instances.get(number)
            if found is None or found[1] is not purpose:
                continue
            instance = found[0]
            instance.watched = bool(instance.leases)
            if instance.leases and instance.alive_until > now:
                self._wake(instance.alive_until, purpose, number, retry=False)
            elif instance.leases:
                instance.watched, instance.silent = False, True
                self._take_away(purpose, instance, now, purpose.attempts, died=True)
                touched[purpose] = None
                silent.append(instance.process)
        for process in [process for process in silent if process.closed]:
            self._proceed(process, now)
        for purpose in touched:
            self.exchange(purpose, now)

    @property
    def wake_at(self) -> int | None:
        """When `tick` has something to do, ns since 1970."""
        return self._timers[0][0] if self._timers else None

    def _take_away(self, purpose: Purpose, instance: Instance, now: int, attempts: int, *, died: bool) -> None:
        """Take back what an instance has in hand. If it died, that was an attempt of each, since nobody knows at which
        it was, and they are handed out with care. Only where its process had but one in hand may that have been its
        last."""
        most = attempts if died and instance.process.lose() == 1 else attempts - 1
        tried = purpose.state.tried
        for number in list(instance.leases):
            lease = purpose.leases[number]
            self._end_lease(purpose, lease)
            instance.put_down(lease, len(lease.positions))
            if not lease.pends:
                purpose.dropped += len(lease.positions)
                continue
            if not died:
                self._return(purpose, lease, lease.positions)
                self._note_last_end(lease)
                continue
            if not lease.counted:
                counts = ((position, tried.get(position, 0) + 1) for position in lease.positions.positions())
                if started := [(position, count) for position, count in counts if count <= most]:
                    self._change(purpose, Change(*purpose.key, started=started))
            purpose.give_back(lease.positions, suspicious=True)

    # 6 ------------------------------------------------------------------------------------------------

    def further_partitions(self, purpose: Purpose) -> Collection[Instance]:
        """The instances whose turn it is: those of the active version."""
        return purpose.at_work

    # 7 ------------------------------------------------------------------------------------------------

    def drop(self, topic_name: str) -> Spans:
        """The positions of a topic that some purpose pends on or has as dead letters. The rest is history, kept as long
        as the topic says; what has been settled is nowhere in memory any more."""
        topic = self.topics[topic_name]
        pinned = Spans()
        for purpose in topic.purposes.values():
            pinned.update(purpose.state.pending(topic.end))
            pinned.update(purpose.state.dead)
        return pinned
