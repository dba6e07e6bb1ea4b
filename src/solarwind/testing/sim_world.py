"""A world to simulate: its purposes, the workers that handle events for them, and all that can go wrong.

Each `do_…` method is one kind of step. A worker is a service instance as it sees itself, which may be mistaken: it does
not know that its lease ended, or that the dispatcher dropped it.
"""

from __future__ import annotations

from collections import Counter, deque
from random import Random
from typing import Any

import msgspec

from ..batch import Batch, seal
from ..core.effects import Failure, Join, Offer, Report
from ..core.spans import Spans
from ..errors import ConflictError, NotAllowed
from ..failure import Retry
from . import sim_plans, sim_versions
from .sim_book import Book
from .sim_engine import HOME, SimulatedEngine
from .sim_facts import Broken, bits_of, positions
from .sim_plans import FAULTS, KEYS, MAX_EVENTS, MS, SECOND, START, WEIGHTS, OfferInHand, PurposePlan, SimulatedWorker
from .sim_store import Disk, Name


class World:
    """All of a simulation: the disk, the process's present life, the workers, and the book."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.counts: Counter[str] = Counter()
        self.said: deque[tuple[int, str, tuple[object, ...]]] = deque(maxlen=30)
        self.step = 0
        self.faults = sim_plans.choose_faults(random)
        self.limits = sim_plans.with_few_versions(Random(-seed - 12), sim_plans.choose_limits(random))
        self.attempts = random.choice((1, 2, 3, 5))
        self.retry = Retry(self.attempts, wait=random.choice((0.0, 0.5, 5.0)), factor=2.0, ceiling=20.0)
        self.durable = random.random() > 0.15
        self.plans = sim_plans.with_more_versions(Random(-seed - 13), sim_plans.make_plans(random))
        self.plans = sim_plans.with_delays(Random(-seed - 2), self.plans)
        self.plans = sim_plans.with_limits(Random(-seed - 7), self.plans)
        self.allergic = random.sample(self.plans, random.randint(1, len(self.plans)))  # their handlers die of poison
        self.processes = random.choice(((HOME,), (HOME, ""), (HOME, "x"), ("x", "y"), (HOME, "", "x", "y")))
        self.disk = Disk(forgets=random.random() < 0.5)
        self.book = Book(self.attempts, 20 * SECOND)
        self.book.durable = self.durable
        self.book.bounded = self.limits.copies < MAX_EVENTS
        self.book.only_killers_kill = self.faults == {"poison"}
        self.at_hand = random.choice((1, 2, 4, 100))
        self.snapshot_after = random.choice((1, 3, 20))
        self.busy = random.choice((100_000, 5 * MS, 400 * MS))
        self.room = random.choice((1, 2, 4))
        self.full = ""
        self.serial = 0
        self.workers: list[SimulatedWorker] = []
        self.engine = self._start(START)
        for plan in self.plans:
            self.join(plan, random.choice(list(plan.versions)), "now", random.randint(1, self.room))

    def note(self, words: str, *values: object) -> None:
        self.said.append((self.step, words, values))

    def _start(self, wall: int) -> SimulatedEngine:
        return SimulatedEngine(
            self.disk,
            self.book,
            self.random.random,
            self._deliver,
            self._close,
            wall=wall,
            at_hand=self.at_hand,
            snapshot_after=self.snapshot_after,
            durable=self.durable,
            limits=self.limits,
        )

    def _deliver(self, offer: Offer) -> None:
        self.note("instance %d gets %s as lease %d", offer.instance, list(offer.picks), offer.lease)
        for worker in self.workers:
            if worker.id == offer.instance:
                worker.works.append(OfferInHand(offer, list(offer.picks)))

    def _close(self, instance: int) -> None:
        for worker in self.workers:
            if worker.id == instance:
                worker.gone = True

    # One step -----------------------------------------------------------------------------------------

    def take_step(self, action: str) -> None:
        getattr(self, "do_" + action.replace(" ", "_"))()

    def actions(self) -> tuple[list[str], list[int]]:
        names = [name for name in WEIGHTS if name in self.faults or name not in FAULTS]
        return names, [WEIGHTS[name] for name in names]

    def _worker(self, *, at_work: bool = False, **wanted: bool) -> SimulatedWorker | None:
        found = [
            worker
            for worker in self.workers
            if (not at_work or worker.works) and all(getattr(worker, name) is value for name, value in wanted.items())
        ]
        return self.random.choice(found) if found else None

    def _name(self) -> Name | None:
        names = list(self.book.purposes)
        return self.random.choice(names) if names else None

    # Events

    def batch(self, topic: str, count: int, due: list[int] | None = None) -> Batch:
        random, first = self.random, self.serial
        self.serial += count
        if "poison" in self.faults:
            for number in range(first, self.serial):
                self.book.poison |= (random.random() < 0.04) << number
        keys = [random.choice(KEYS) for _ in range(count)]
        payloads = [b'{"k":"%s"}' % random.choice((b"x", b"y", b"z")) for _ in range(count)]
        times = [self.engine.now] * count
        expires = sim_plans.make_expires(random, self.engine.wall, count)
        source: dict[str, Any] = {"producer": 1, "first": first, "machine": "m", "process": "p"}
        return seal(topic, payloads, times, **source, keys=keys, due=due, expires=expires)

    def do_submit(self) -> None:
        if self.serial < MAX_EVENTS:
            topic = self.random.choice(("a", "a", "b"))
            count = self.random.choice((1, 1, 2, 3, 5, 8))
            self.note("%d events are fired on %s", count, topic)
            self.engine.submit(self.batch(topic, count))

    def do_delay(self) -> None:
        if self.serial < MAX_EVENTS:
            topic, due = self.random.choice(("a", "a", "b")), sim_plans.make_due(self.random, self.engine.wall)
            self.note("%d events are fired on %s, due at %s", len(due), topic, due)
            self.engine.submit(self.batch(topic, len(due), due))

    def do_set_clock(self) -> None:
        """Set the machine's clock."""
        self.engine.ahead = self.random.randint(-600, 600) * SECOND
        self.note("the wall clock is %d s ahead", self.engine.ahead // SECOND)
        self.counts["clocks set"] += 1

    def do_commit(self) -> None:
        """Begin a commit, or end the one that is under way; likewise a release of what is due."""
        if self.engine.releasing is not None and "crash" in self.faults and self.random.random() < 0.1:
            self.do_crash()
        elif self.engine.releasing is not None:
            self.note("a release ends%s", ", there is no room" * bool(self.full))
            self.counts["releases without room" if self.full else "releases"] += 1
            self.engine.end_release(self.random.randint(1, 3), full=bool(self.full))
        elif self.engine.committing is None:
            if self.random.random() < 0.5 or not self.engine.begin_release():
                self.engine.begin_commit()
        else:
            stored = self.engine.end_commit(
                full_for_batches=self.full == "batches", full_for_all=self.full == "everything"
            )
            self.note("a commit is %s%s", "made" if stored else "refused", f", full for {self.full}" * bool(self.full))
            if self.full:
                self.counts["full commits"] += 1
                self.full = self.full if self.random.random() < 0.6 else ""

    def do_full(self) -> None:
        self.full = self.random.choice(("batches", "everything"))

    def do_read(self) -> None:
        if self.engine.reads:
            read = self.random.choice(self.engine.reads)
            if read.found is None:
                self.engine.look(read, self.random.choice((1, 1, 3)))
                if "slow reads" in self.faults:
                    return
            self.note("%s from %d on is read", read.topic, read.position)
            self.counts["fetches"] += 1
            self.engine.end_read(read)

    # Workers

    def do_join(self) -> None:
        random = self.random
        plan = random.choice(self.plans)
        version = random.choice(list(plan.versions))
        if len(self.workers) < 12:
            self.join(plan, version, "now" if random.random() < 0.6 else "beginning", random.randint(1, self.room))

    def join(self, plan: PurposePlan, version: int, since: str, room: int) -> None:
        exchange, key = plan.versions[version]
        process = self.random.choice(self.processes)
        as_before = self.book.is_stated((plan.topic, plan.purpose), version) and self.random.random() < 0.3
        retry = None if as_before else self.retry
        join = Join(plan.topic, plan.purpose, exchange, version, key, retry, plan.lease_ns, room, process=process)
        limits = {"rate": plan.rate, "at_most": plan.at_most.get(version)} if exchange != "fanout" else {}
        join = msgspec.structs.replace(join, delay_ns=plan.delays.get(version, 0), **limits)
        if plan.shared and "share" in self.faults:
            join = msgspec.structs.replace(
                join, rollout=self.random.choice(("newest", "newest", "hold", "shadow", 0.2, 0.5))
            )
        first = self.disk.ends.get(plan.topic, 0) if since == "now" else self.disk.first(plan.topic)
        worker = SimulatedWorker(0, join, plan, works=[], said=[])
        self.note("%s of %s, %s, version %d, is joined in %r", plan.purpose, plan.topic, exchange, version, process)
        if sim_versions.may_join(self, join, lambda: self.engine.join(join, first, lambda it: self._enter(worker, it))):
            self.counts["joins"] += 1

    def _enter(self, worker: SimulatedWorker, number: int) -> None:
        worker.id = number
        self.workers.append(worker)

    def do_conflict(self) -> None:
        """State something that contradicts an earlier statement: it is refused, and changes nothing."""
        name = self._name()
        if name is None:
            return
        version, (exchange, _) = self.random.choice(list(self.book.purposes[name].facts.statements.items()))
        other = "direct" if exchange != "direct" else "fanout"
        self.note("a conflicting statement for version %d of %s", version, name)
        try:
            self.engine.dispatcher.join(Join(*name, other, version), 0, self.engine.now)
        except ConflictError:
            self.counts["conflicts"] += 1
        else:
            raise Broken(f"{name}: version {version} is {exchange}, and another may say it is {other}")

    def do_work(self) -> None:
        worker = self._worker(at_work=True, hung=False)
        if worker is not None:
            work = self.random.choice(worker.works)
            count = self.random.randint(1, len(work.todo))
            picks, work.todo = work.todo[:count], work.todo[count:]
            if worker.gone:
                self.counts["late reports"] += 1
            elif not self._survives(worker, work, picks):
                return
            returned = []
            if work.todo and self.random.random() < 0.1:
                returned, work.todo = work.todo, []
            if not work.todo:
                worker.works.remove(work)
            self._report(worker, work, picks, returned)

    def _survives(self, worker: SimulatedWorker, work: OfferInHand, picks: list[int]) -> bool:
        if "poison" not in self.faults or worker.plan not in self.allergic or worker.join.exchange == "fanout":
            return True
        first = work.offer.stored.batch.header.first - work.offer.stored.start
        for position in picks:
            if self.book.poison >> (first + position) & 1:
                self.note("event %d kills instance %d", position, worker.id)
                self.book.killed((worker.plan.topic, worker.plan.purpose), position, worker.id, work.offer.lease)
                worker.works = []
                self._end_process(worker)
                return False
        return True

    def _report(self, worker: SimulatedWorker, work: OfferInHand, picks: list[int], returned: list[int]) -> None:
        found = [(position, self._failure(position)) for position in picks]
        done = [position for position, failure in found if failure is None]
        failed = [failure for _, failure in found if failure is not None]
        report = Report(
            worker.id,
            work.offer.lease,
            Spans.of(done),
            failed,
            Spans.of(returned),
            len(picks),
            len(picks) * self.random.choice((self.busy, self.busy, 10 * self.busy)),
        )
        self.send(worker, report, self._fire(worker, len(done)))

    def _failure(self, position: int) -> Failure | None:
        chance = self.random.random()
        if "fail" not in self.faults or chance > 0.3:
            return None
        if chance > 0.06:
            return Failure(position, "retry", "it raised")
        if chance > 0.01:
            return Failure(position, "later", "not yet", self.random.choice((0, SECOND, 40 * SECOND)))
        return Failure(position, "reject", "never")

    def _fire(self, worker: SimulatedWorker, max_count: int) -> list[Batch]:
        count = self.random.randint(0, min(max_count, 2))
        if worker.plan.fires is None or not count or self.serial >= MAX_EVENTS:
            return []
        if "delay" in self.faults and self.random.random() < 0.2:
            due = sim_plans.make_due(self.random, self.engine.wall)
            return [self.batch(worker.plan.fires, len(due), due)]
        return [self.batch(worker.plan.fires, count)]

    def send(self, worker: SimulatedWorker, report: Report, fired: list[Batch]) -> None:
        counts = self.engine.report(report, fired)
        self.note(
            "instance %d reports on lease %d: done %s, failed %s, returned %s, fired %d%s",
            worker.id,
            report.lease,
            report.done,
            [(each.position, each.verdict) for each in report.failed],
            report.returned,
            sum(map(len, fired)),
            "" if counts else ", refused",
        )
        worker.said.append((report, fired))

    def do_resend(self) -> None:
        """Send a report twice, maybe much later."""
        worker = self._worker()
        if worker is not None and worker.said:
            self.counts["reports sent twice"] += 1
            self.send(worker, *self.random.choice(worker.said))

    def do_foreign(self) -> None:
        """Let an instance report on another's events."""
        worker, other = self._worker(), self._worker(at_work=True)
        if worker is not None and other is not None and worker is not other:
            work = self.random.choice(other.works)
            self.counts["foreign reports"] += 1
            report = Report(worker.id, work.offer.lease, Spans.of(work.todo), [], Spans(), 1, 1)
            self.send(worker, report, self._fire(worker, 1))
            worker.said.pop()

    def do_hang(self) -> None:
        worker = self._worker(hung=False, gone=False, at_work=True)
        if worker is not None:
            self.note("instance %d hangs", worker.id)
            self.counts["hangs"] += 1
            worker.hung = True

    def do_wake(self) -> None:
        worker = self._worker(hung=True)
        if worker is not None:
            self.note("instance %d wakes up", worker.id)
            worker.hung = False
            if self.random.random() < 0.5:
                self.engine.alive(worker.id)

    def do_die(self) -> None:
        worker = self._worker(gone=False)
        if worker is not None and self.random.random() < 0.5:
            self._die(worker)
        elif worker is not None:
            self._end_process(worker)

    def _end_process(self, worker: SimulatedWorker) -> None:
        """Lose all that is in the process."""
        process = worker.join.process
        if process == HOME and self.durable:
            self.do_crash()
            return
        lost = [
            each for each in self.workers if not each.gone and (each is worker or each.join.process == process != "")
        ]
        for each in lost:  # as a connection does
            self.engine.leaving(each.id)
        for each in lost:
            self._die(each)

    def _die(self, worker: SimulatedWorker) -> None:
        """Drop a worker's connection. What it still does does not count."""
        self.note("instance %d dies", worker.id)
        self.counts["deaths"] += 1
        worker.gone = True
        self.engine.leave(worker.id, died=True)

    def do_leave(self) -> None:
        worker = self._worker(gone=False, hung=False)
        if worker is not None:
            if not worker.leaving:
                self.note("instance %d is about to leave", worker.id)
                worker.leaving = True
                self.engine.leaving(worker.id)
                if self.random.random() < 0.6:
                    return
            self.note("instance %d leaves", worker.id)
            self.counts["leaves"] += 1
            worker.gone = True
            self.engine.leave(worker.id, died=False)

    # Time

    def do_pass_time(self) -> None:
        self._pass(self.random.randint(MS, 2 * SECOND))

    def do_jump(self) -> None:
        self.counts["jumps"] += 1
        self._pass(self.random.randint(20 * SECOND, 600 * SECOND), asleep=self.random.random() < 0.5)

    def _pass(self, span: int, *, asleep: bool = False) -> None:
        """Let time pass. Workers at work renew their leases, unless the whole machine was asleep."""
        self.note("%.3f s pass", span / SECOND)
        self.engine.now += span
        self.book.order.passed += span
        for worker in self.workers if not asleep else ():
            if not worker.hung and not worker.gone:
                self.engine.alive(worker.id)
        self.engine.tick()

    # The process

    def do_crash(self) -> None:
        if not self.durable:
            return
        self.counts["crashes"] += 1
        commit = self.engine.committing
        written = commit is not None and self.random.random() < 0.5
        self.note("the process crashes%s", ", after a commit that it does not hear of" if written else "")
        if commit is not None and written:
            self.counts["crashes after a commit"] += 1
            self.engine.write(commit)
        if self.engine.releasing is not None and self.random.random() < 0.5:
            self.note("and after a release that it does not hear of")
            self.counts["crashes after a release"] += 1
            self.engine.release(3)
        self._restart(clean=False)

    def do_stop(self) -> None:
        if not self.durable or self.full:
            return
        for worker in self.workers:
            if not worker.gone and self.random.random() < 0.7:
                worker.gone = True
                self.engine.leave(worker.id, died=False)
        self._commit_all()
        self.note("the process stops in order")
        self.counts["stops"] += 1
        self.disk.clean = True
        self._restart(clean=True)

    def _commit_all(self) -> None:
        while not self.engine.idle:
            if self.engine.releasing is not None:
                self.engine.end_release(3)
                continue
            self.engine.begin_commit()
            self.engine.end_commit()

    def _restart(self, *, clean: bool) -> None:
        self.workers = []
        self.book.lost_everything(clean=clean)
        is_set = "set clock" in self.faults and self.random.random() < 0.5  # while nothing runs
        passed = self.random.randint(-600 if is_set else -30, 600 if is_set else 60)
        self.note("the next start is %d s later by the wall clock", passed)
        self.engine = self._start(self.engine.wall + passed * SECOND)

    # An operator

    def do_replay(self) -> None:
        name = self._name()
        if name is None:
            return
        book, end = self.book.purposes[name], self.engine.dispatcher.topics[name[0]].end
        since = self.random.randint(self.disk.first(name[0]), end)
        until = self.random.randint(since, end)
        mask = book.facts.done & ((1 << until) - 1) & ~((1 << since) - 1)
        try:
            count = self.engine.dispatcher.replay(*name, since, until, self.engine.now)
        except NotAllowed:
            if book.pends:
                raise
            return
        self.note("%s of %s is replayed from %d to %d", name[1], name[0], since, until)
        book.facts.given = {at: version for at, version in book.facts.given.items() if not mask >> at & 1}
        self._reopened(name, mask, count)
        self.counts["replayed"] += count

    def _reopened(self, name: Name, mask: int, count: int) -> None:
        if count > mask.bit_count() or (count < mask.bit_count() and not self.book.purposes[name].facts.splits):
            raise Broken(f"{name}: {count} were made pending again, not {positions(mask)}")
        if mask:
            self.book.reopened(name, mask)
        self.engine.carry_out()

    def _some_dead(self, name: Name) -> list[int]:
        dead = positions(self.book.purposes[name].facts.dead)
        return self.random.sample(dead, self.random.randint(0, len(dead)))

    def do_redrive(self) -> None:
        name = self._name()
        if name is not None:
            some = self._some_dead(name)
            version = sim_versions.redrive_to(self, name, bits_of(some))
            self.note("dead letters %s of %s are redriven, to %s", some, name, version)
            count = self.engine.dispatcher.redrive(*name, Spans.of(some), self.engine.now, version)
            self._reopened(name, bits_of(some), count)
            self.counts["redriven"] += count
            self.counts["retried at once"] += self.engine.retry_now(name)

    def do_discard(self) -> None:
        name = self._name()
        if name is not None:
            some = self._some_dead(name)
            self.note("dead letters %s of %s are discarded", some, name)
            self.counts["discarded"] += self.engine.dispatcher.discard(*name, Spans.of(some))
            self.book.discarded(name, bits_of(some))
            self.engine.carry_out()

    def do_share(self) -> None:
        """Give a version a share of its own, or another one, or make it or an earlier one current."""
        name = self._name()
        plan = next((plan for plan in self.plans if (plan.topic, plan.purpose) == name and plan.shared), None)
        if plan is None:
            return
        shares = self.book.purposes[plan.name].shares
        if shares and self.random.random() < 0.3:
            self._abandon(plan, self.random.choice(list(shares)))
        else:
            sim_versions.change(self, plan)

    def _abandon(self, plan: PurposePlan, version: int) -> None:
        """Lose all instances of a version that has a share."""
        for worker in self.workers:
            if not worker.gone and (worker.plan, worker.join.version) == (plan, version):
                self._die(worker)
        if self.random.random() < 0.5:
            self._pass(plan.lease_ns)

    def do_pause(self) -> None:
        """Pause a purpose, or resume it; maybe not for the first time."""
        name = self._name()
        if name is not None:
            paused = self.random.random() < 0.4
            self.note("%s is %s", name, "paused" if paused else "resumed")
            self.counts["paused" if paused else "resumed"] += 1
            (self.engine.pause if paused else self.engine.resume)(name)

    def do_retire(self) -> None:
        name = self._name()
        if name is None or self.random.random() < 0.5:
            return
        book, force = self.book.purposes[name], self.random.random() < 0.5
        left = bool(book.facts.paused or book.holders or book.facts.dead or book.pending(self.book.ends[name[0]]))
        self.note("%s is to be retired%s", name, " with force" if force else "")
        try:
            self.engine.dispatcher.retire(*name, self.engine.now, force=force)
        except ConflictError:
            if force or (not left and not book.facts.splits):  # how much is in a share is counted when it comes there
                raise
            return
        if left and not force:
            raise Broken(f"{name} was retired with work left")
        self.counts["retired"] += 1
        self.book.retired(name)
        self.engine.carry_out()

    def do_trim(self) -> None:
        """Trim the oldest history; what some purpose pends on stays."""
        topic = self.random.choice(("a", "b"))
        log = self.disk.logs.get(topic)
        if not log or topic not in self.engine.dispatcher.topics:
            return
        pinned = self.engine.dispatcher.needed(topic)
        for stored in log[: self.random.randint(1, len(log))]:
            if not pinned.within(stored.start, stored.stop):
                self.disk.trim(topic, stored)
                self.book.trimmed[topic] = self.book.trimmed.get(topic, 0) | bits_of(range(stored.start, stored.stop))
                self.counts["trimmed"] += len(stored.batch)

    # The end ------------------------------------------------------------------------------------------

    def settle_down(self) -> None:
        """Get everything done, without further faults, in a number of rounds in proportion to what there is."""
        self.faults, self.full, self.engine.ahead = set(), "", 0
        self.note("no more faults")
        self._commit_all()
        for worker in self.workers:
            worker.hung = False
            if worker.leaving and not worker.gone:
                worker.gone = True
                self.engine.leave(worker.id, died=False)
            if not worker.gone:
                self.engine.alive(worker.id)
        for name, book in list(self.book.purposes.items()):
            self.engine.resume(name)
            for version in dict.fromkeys([book.facts.line[-1], *book.facts.given.values()]):
                if not book.has(version):
                    plan = next(plan for plan in self.plans if plan.name == name)
                    self.join(plan, version, "now", 1)
        rounds, most = 0, 60 + MAX_EVENTS + 8 * sum(map(len, self.book.left_over().values()))
        most += 8 * len(self.book.delays.due)
        while self.book.left_over() or self.book.delays.due or not self.engine.idle:
            rounds += 1
            if rounds > most:
                left, due = self.book.left_over(), self.book.delays.due
                raise Broken(f"stuck: nothing gets done any more, left over is {left}, delayed {due}")
            self._round()
        self.counts["rounds to the end"] += rounds

    def _round(self) -> None:
        self.engine.begin_commit()
        if self.engine.committing is not None:
            self.engine.end_commit()
        for read in list(self.engine.reads):
            self.engine.look(read, 1)
            self.engine.end_read(read)
        for worker in [worker for worker in self.workers if not worker.gone]:
            works, worker.works = worker.works, []
            for work in works:
                self._report(worker, work, work.todo, [])
        if self.engine.begin_release():
            self.engine.end_release(3)
        if self.engine.idle and not self.engine.reads and (wake_at := self.engine.wake_at) is not None:
            self._pass(max(0, wake_at - self.engine.now))
