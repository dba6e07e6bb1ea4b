"""The simulator's engine: what `LocalEngine` does around `Commits` and the dispatcher, one step at a time, without a
loop.

A commit begins in one step and ends in another, a read likewise, and in between anything may happen. What the engine
sees and does is told to the `Book`, which knows the rules.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from ..batch import Batch
from ..core.dispatcher import Dispatcher
from ..core.effects import Closed, Fetch, Join, Offer, Report
from ..core.log import Stored
from ..engine.commits import Commit, Commits
from ..engine.wall import SAID_NS
from ..limits import Limits
from .sim_book import Book
from .sim_notes import check_told
from .sim_store import Disk, Name, RecentLog

KEEP_NS = 7 * 24 * 3600 * 10**9
HOME = "home"  # the dispatcher's own process


class Read(msgspec.Struct, eq=False):
    """A read that was asked for; `found` is None until the disk was looked at."""

    topic: str
    position: int
    found: list[Stored] | None = None


class SimulatedEngine:
    """One life of the process, from a start to a stop or a crash."""

    def __init__(
        self,
        disk: Disk,
        book: Book,
        random: Callable[[], float],
        deliver: Callable[[Offer], None],
        close: Callable[[int], None],
        *,
        wall: int,
        at_hand: int,
        snapshot_after: int,
        durable: bool,
        limits: Limits,
    ) -> None:
        self.disk = disk
        self.book = book
        earlier = max(0, disk.now - wall)
        earlier = earlier if earlier >= SAID_NS else 0  # else it goes on from the last commit
        self.now = wall if earlier else max(wall, disk.now)
        self.ahead = wall - self.now  # the wall clock, of the engine's
        self.at_hand = RecentLog(at_hand)
        book.wall = lambda: self.wall
        how: dict[str, Any] = {"keep_ns": KEEP_NS, "durable": durable, "limits": limits, "home": HOME}
        self.dispatcher = Dispatcher(self.at_hand, random, wall=lambda now: now + self.ahead, **how)
        self.dispatcher.deaths.heard_elsewhere = True
        self.commits: Commits[str] = Commits(self.dispatcher, self.at_hand, snapshot_after)
        self.committing: Commit[str] | None = None
        self.releasing: tuple[int | None] | None = None  # what was nearest when it began
        self.reads: list[Read] = []
        self._deliver = deliver
        self._close = close
        for name, end in disk.ends.items():
            self.dispatcher.topic(name).end = end
        self.commits.recover(disk.snapshots(), disk.changes(), clean=disk.clean, now=self.now, earlier=earlier)
        self.commits.due.add(disk.next_due())
        disk.clean = False
        book.recovered(self.dispatcher, self.now, earlier)
        book.counts["starts in the past"] += earlier > 0
        self.carry_out()

    # Events in

    def submit(self, batch: Batch) -> None:
        self.commits.submit(batch, "a producer")

    def report(self, report: Report, fired: Sequence[Batch]) -> bool:
        lease = self.book.lease(report)  # before the report ends it
        counts = self.commits.report(report, fired, self.now)
        self.book.reported(report, counts, self.now)
        if counts:
            self.book.fired(report, lease, fired)
        self.carry_out()
        return counts

    def join(self, join: Join, since: int, enter: Callable[[int], None]) -> None:
        """Join. `enter` gets the instance's number before any event can come."""
        instance = self.dispatcher.join(join, since, self.now)
        self.book.joined(instance, join, since, self.now)
        enter(instance)
        self.carry_out()

    def leaving(self, instance: int) -> None:
        self.dispatcher.leaving([instance], self.now)
        self.book.leaving(instance, self.now)
        self.carry_out()

    def leave(self, instance: int, *, died: bool) -> None:
        self.dispatcher.leave(instance, self.now, died=died)
        self.book.left(instance, self.now, died=died)
        self.carry_out()

    def rolled(self, name: Name, lease_ns: int) -> None:
        """Note that an operator changed the versions of a purpose."""
        self.book.rolled(name, self.now, lease_ns)
        self.carry_out()

    def pause(self, name: Name) -> None:
        self.dispatcher.pause(*name, self.now)
        facts = self.book.purposes[name].facts
        if not facts.paused:
            facts.paused, facts.started_paused = self.now, 0
        self.carry_out()

    def resume(self, name: Name) -> None:
        self.dispatcher.resume(*name, self.now)
        self.book.purposes[name].facts.paused = 0
        self.carry_out()

    def retry_now(self, name: Name) -> int:
        """End the waits of what waits for a retry. Return how many events that were."""
        facts = self.book.purposes[name].facts
        facts.due = {at: (0, latest) for at, (_, latest) in facts.due.items()}
        count = self.dispatcher.retry_now(*name, self.now)
        self.carry_out()
        return count

    def alive(self, instance: int) -> None:
        self.dispatcher.alive(instance, self.now)
        self.book.heard_of(instance, self.now)
        self.carry_out()

    def tick(self) -> bool:
        """Do what is due. Return whether anything was."""
        wake_at = self.dispatcher.wake_at
        if wake_at is None or wake_at > self.now:
            return False
        self.dispatcher.tick(self.now)
        self.book.ticked(self.now)
        self.carry_out()
        return True

    # Commits

    @property
    def idle(self) -> bool:
        """Whether everything that came in is durable."""
        return not (self.committing or self.releasing or self.commits.waiting)

    def begin_commit(self) -> None:
        if self.idle or self.committing is not None or self.releasing is not None:
            return
        self.book.counts["told"] += check_told(self.dispatcher.deaths.pop(), self.dispatcher.changes)
        self.committing = commit = self.commits.begin()
        its = [(batch, waiter is None) for batch, waiter in commit.incoming + commit.later]
        self.book.notes.check(commit.notes)
        self.book.commit_begins(self.dispatcher, its)

    def end_commit(self, *, full_for_batches: bool = False, full_for_all: bool = False) -> bool:
        """End a commit, as when the store answers. Return whether anything was stored."""
        commit, self.committing = self.committing, None
        assert commit is not None
        if full_for_all or (full_for_batches and (commit.incoming or commit.later)):
            self.book.refused([batch for batch, _ in self.commits.refuse(commit)])
            if full_for_all or commit.incoming or commit.later:
                self.commits.put_back(commit)
                return False
        for each in self.write(commit):
            self.book.accepted(each)
            self.commits.accept(each, self.now)
        for offer in self.commits.end(commit, self.now):
            self._hand_over(offer)
        self.carry_out()
        return True

    def write(self, commit: Commit[str]) -> list[Stored]:
        """Do what the disk does, whether or not the process lives to see it."""
        stored = self.disk.commit(commit.batches, commit.changes, commit.snapshots, self.now, commit.delayed, self.wall)
        self.book.commit_ends(stored, commit.delayed)
        return stored

    # What is due

    @property
    def wall(self) -> int:
        return self.now + self.ahead

    @property
    def wake_at(self) -> int | None:
        """When something is to be done next."""
        due = self.commits.due
        times = [self.dispatcher.wake_at, due.wake_at(self.now, self.wall) if due.nearest is not None else None]
        return min((each for each in times if each is not None), default=None)

    def begin_release(self) -> bool:
        """Begin a release if it is time to. Return whether it was."""
        due = self.commits.due
        if self.committing is not None or self.releasing is not None or not due.is_due(self.now, self.wall):
            return False
        self.releasing = (due.begin(),)
        return True

    def end_release(self, max_count: int, *, full: bool = False) -> None:
        """End a release, as when the store answers."""
        assert self.releasing is not None
        (nearest,), self.releasing = self.releasing, None
        if full:
            self.commits.due.failed(nearest, self.now)
            return
        for each in self.release(max_count):
            self.dispatcher.topic(each.batch.topic)
            self.book.accepted(each)
            self.commits.accept(each, self.now)
        self.commits.due.released(self.disk.next_due())
        self.carry_out()

    def release(self, max_count: int) -> list[Stored]:
        """Do what the disk does, whether or not the process lives to see it."""
        stored = self.disk.release(self.wall, max_count)
        self.book.delays.released(stored, self.wall)
        for each in stored:
            self.book.stored(each)
            self.book.counts["released"] += len(each.batch)
        return stored

    # Reads

    def look(self, read: Read, max_count: int) -> None:
        read.found = self.disk.read(read.topic, read.position, max_count)

    def end_read(self, read: Read) -> None:
        assert read.found is not None
        self.reads.remove(read)
        for stored in read.found:
            self.at_hand.add(stored)
        first = read.found[0] if read.found else None
        self.dispatcher.fetched(read.topic, read.position, first, self.now)
        self.carry_out()

    # Effects

    def carry_out(self) -> None:
        while self.dispatcher.behind:
            self.dispatcher.go_on(self.now)
        self.book.reconcile(self.dispatcher)
        for effect in self.dispatcher.pop_effects():
            if isinstance(effect, Offer):
                self.book.offered(self.dispatcher, effect, self.now)
                if not self.commits.hold(effect):
                    self._hand_over(effect)
            elif isinstance(effect, Fetch):
                if all((read.topic, read.position) != (effect.topic, effect.position) for read in self.reads):
                    self.reads.append(Read(effect.topic, effect.position))
            elif isinstance(effect, Closed):
                self._close(effect.instance)
        self.book.check(self.dispatcher, self.now)

    def _hand_over(self, offer: Offer) -> None:
        self.book.delivered(offer)
        self._deliver(offer)
