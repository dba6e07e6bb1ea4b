"""The simulator's judge: a simple model of the rules, which shares no code with the core.

It is told what happens, keeps the facts by it (see `sim_facts`), and after every step asks whether the dispatcher has
them too. `Broken` says which rule was broken.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from ..batch import Batch
from ..core.dispatcher import Dispatcher
from ..core.effects import Join, Offer, Report
from ..core.log import Stored
from ..core.purpose import Purpose
from ..core.state import Snapshot
from ..store.delays import Delayed
from . import sim_notes, sim_shadows, sim_versions
from .sim_due import DueBook, numbers
from .sim_facts import (
    PENDING_EXCHANGES,
    Broken,
    Facts,
    Held,
    Holder,
    PurposeBook,
    bits,
    bits_of,
    comparable,
    positions,
)
from .sim_limits import LimitBook
from .sim_log import LogBook
from .sim_order import Order
from .sim_store import Name


class Book:
    """What must be true. Its methods are called with what happened; `check` is called after every step."""

    def __init__(self, attempts: int, ceiling_ns: int) -> None:
        self.durable = True
        self.bounded = False  # so few copies are kept that some outcomes are not compared
        self.attempts = attempts
        self.ceiling_ns = ceiling_ns
        self.purposes: dict[Name, PurposeBook] = {}
        self.counts: Counter[str] = Counter()
        self.trimmed: dict[str, int] = {}
        self.ends: dict[str, int] = {}
        self.kills: Counter[tuple[Name, int]] = Counter()
        self.pardons: Counter[tuple[Name, int]] = Counter()  # clean stops, which clear all suspicion
        self.delays, self.notes = DueBook(), sim_notes.Notes()
        self.wall: Callable[[], int] = lambda: 0  # the clock by which events expire
        self.only_killers_kill = False  # poison is the one fault: then nothing else may be dead
        self.poison = 0
        self._by_instance: dict[int, PurposeBook] = {}
        self.log = LogBook()
        self.order, self.limits = Order(self.log, self.counts), LimitBook(self.counts)
        self._durable: dict[Name, Facts] = {}
        self._expected: dict[Name, dict[int, Snapshot]] = {}  # and the track
        self._committing: tuple[dict[Name, Facts], dict[Name, dict[int, Snapshot]], list[str]] | None = None
        # Children: the number of an event that a handler fired -> the settle it goes with.
        self._children: dict[int, tuple[Name, int]] = {}
        self._durable_children: set[int] = set()
        # Home alone: a process -> the lease of a last attempt there that is counted already, until its end is durable.
        self._alone: dict[str, int] = {}
        self._shadows_fired: set[int] = set()
        self._owed: dict[int, int] = {}  # children of reports that are not in a commit yet

    # What happened ------------------------------------------------------------------------------------

    def accepted(self, stored: Stored) -> None:
        topic, header = stored.batch.header.topic, stored.batch.header
        self.ends[topic] = stored.stop
        for book in self.purposes.values():
            if book.name[0] == topic and book.pure_fanout:
                version = book.active[0]
                there = sum(holder.join.version == version and not holder.leaving for holder in book.holders.values())
                book.made += header.count * max(1, 0 if book.facts.paused else there)
        self.counts["accepted"] += header.count

    def joined(self, instance: int, join: Join, since: int, now: int) -> None:
        name = (join.topic, join.purpose)
        book = self.purposes.get(name)
        if book is None:
            if join.exchange not in PENDING_EXCHANGES:
                since = self.ends.get(join.topic, 0)
            book = self.purposes[name] = PurposeBook(name, Facts({}, skipped=(1 << since) - 1, created_at=now))
            self.ends.setdefault(join.topic, 0)
        book.state(join)
        self.order.joined(join)
        self.limits.joined(join)
        book.holders[instance] = Holder(join, join.room)
        book.note_shadows(self.ends[join.topic])
        book.note_shares(self.ends[join.topic], now, join.lease_ns)
        book.note_change(self.ends[join.topic])
        self._by_instance[instance] = book

    def leaving(self, instance: int, now: int) -> None:
        """Note that it finishes what it has and gets nothing more."""
        book = self._by_instance.get(instance)
        if book is not None:
            book.holders[instance].leaving = True
            book.note_shares(self.ends[book.name[0]], now, book.holders[instance].join.lease_ns)
            book.note_change(self.ends[book.name[0]])

    def left(self, instance: int, now: int, *, died: bool) -> None:
        book = self._by_instance.pop(instance, None)
        if book is not None:
            self._remove_instance(book, instance, lost=died)
            join = book.holders.pop(instance).join
            book.note_shares(self.ends[book.name[0]], now, join.lease_ns)
            book.note_change(self.ends[book.name[0]])

    def is_stated(self, name: Name, version: int) -> bool:
        """Return whether it is known what the version states, and is after a crash too."""
        if name not in self.purposes or name not in self._durable:
            return False
        return all(version in each.statements for each in (self.purposes[name].facts, self._durable[name]))

    def rolled(self, name: Name, now: int, lease_ns: int) -> None:
        """Note that an operator changed which version is current, or which have shares."""
        book = self.purposes[name]
        book.note_shadows(self.ends[name[0]])
        book.note_shares(self.ends[name[0]], now, lease_ns)
        book.note_change(self.ends[name[0]])

    def owned(self, book: PurposeBook) -> dict[int, int]:
        """Return which events are in which track, a set for each."""
        topic = book.name[0]
        return book.owned(self.ends[topic], self.log.keys[topic], self.log.ids[topic])

    def _remove_instance(self, book: PurposeBook, instance: int, *, lost: bool) -> None:
        for number in [number for number, held in book.leases.items() if held.instance == instance]:
            held = book.leases.pop(number)
            if lost:
                self._alone = {name: lease for name, lease in self._alone.items() if lease != number}
            if held.copy:
                sim_shadows.given_back(book, book.holders[instance].join.version, held.positions, lost=lost)
            elif held.pends and not lost:
                book.facts.give_back(held.positions)
        book.holders[instance].in_hand = 0

    def heard_of(self, instance: int, now: int) -> None:
        book = self._by_instance.get(instance)
        if book is not None:
            holder = book.holders[instance]
            was_silent, holder.heard, holder.silent = holder.silent, now, False
            if was_silent:
                book.note_shares(self.ends[book.name[0]], now, holder.join.lease_ns)
                book.note_change(self.ends[book.name[0]])

    def ticked(self, now: int) -> None:
        for book in self.purposes.values():
            end = self.ends[book.name[0]]
            for instance, holder in book.holders.items():
                at_work = any(held.instance == instance and (held.pends or held.copy) for held in book.leases.values())
                if at_work and holder.heard + holder.join.lease_ns <= now:
                    self.counts["leases ended"] += 1
                    holder.silent = True
                    self._remove_instance(book, instance, lost=True)
                    book.note_shares(end, now, 0)
                    book.note_change(end)
            for version in [version for version, until in book.gone.items() if until <= now]:
                del book.gone[version]
                self.counts["shares without an instance"] += 1
                book.split(end, {each: part for each, part in book.shares.items() if each != version})
                book.note_change(end)

    def reported(self, report: Report, counts: bool, now: int) -> None:
        """Note what an instance made of its events, and whether the dispatcher says that the report counts."""
        book = self._by_instance.get(report.instance)
        if book is None:
            if counts:
                raise Broken(f"instance {report.instance} is gone, and its report counts")
            self.counts["reports refused"] += 1
            return
        self.heard_of(report.instance, now)
        held = book.leases.get(report.lease)
        holder = book.holders[report.instance]
        fits = held is not None and held.instance == report.instance
        done = bits(report.done) & held.positions if held is not None and fits else 0
        if counts != fits and (done != 0 or not report.done):
            raise Broken(f"{book.name}: a report on lease {report.lease} {'counts' if counts else 'does not count'}")
        if held is None or not counts:
            self.counts["reports refused"] += 1
            return
        held.positions &= ~done
        failed = {each.position: each for each in report.failed if held.positions >> each.position & 1}
        held.positions &= ~bits_of(failed)
        returned = bits(report.returned) & held.positions
        held.positions &= ~returned
        holder.in_hand &= ~((done | bits_of(failed) | returned) * (sim_shadows.APART if held.copy else 1))
        if not held.positions:
            del book.leases[report.lease]
        if report.handled:
            fits_in = min(10_000, report.handled * 100_000_000 // max(1, report.busy_ns))
            holder.room = max(holder.join.room, fits_in)
        self.counts["returned"] += returned.bit_count()
        if returned:
            holder.room = max(holder.join.room, holder.in_hand.bit_count())
        if held.copy:
            sim_shadows.reported(book, holder.join.version, done, failed.values(), returned)
            return
        if not held.pends:
            self.counts["copies handled"] += done.bit_count()
            holder.copied &= ~returned  # it has not seen them yet
            return
        facts = book.facts
        if book.shadows:
            sim_shadows.current_reported(book, self.owned(book)[0], done, failed)
        self.notes.reported(book.name, holder.join.version, facts, done, failed.values(), self.attempts)
        facts.give_back(returned)
        facts.settled |= done
        self.counts["settled"] += done.bit_count()
        for position in positions(done):
            facts.failures.pop(position, None)
            facts.due.pop(position, None)
        for position, failure in failed.items():
            if failure.verdict == "later":
                self.counts["later"] += 1
                facts.due[position] = (now + failure.after_ns, now + failure.after_ns)
                continue
            tries = facts.failures[position] = facts.failures.get(position, 0) + 1
            if failure.verdict == "reject" or tries >= self.attempts:
                self._bury(facts, position)
            else:
                self.counts["retries"] += 1
                facts.due[position] = (now, now + self.ceiling_ns)

    def _bury(self, facts: Facts, position: int) -> None:
        facts.dead |= 1 << position
        facts.failures.pop(position, None)
        facts.due.pop(position, None)
        self.counts["dead"] += 1

    def lease(self, report: Report) -> Held | None:
        """Return the lease of a report."""
        book = self._by_instance.get(report.instance)
        return book.leases.get(report.lease) if book is not None else None

    def fired(self, report: Report, held: Held | None, batches: Sequence[Batch]) -> None:
        """Note what the handlers of a report that counts fired: each is the child of the event at its place in
        `done`; or it must never be stored, since a shadow fired it."""
        assert held is not None
        book, pends = self._by_instance[report.instance], held.pends
        children = [batch.header.first + index for batch in batches for index in range(len(batch))]
        if held.copy:
            self._shadows_fired.update(children)
            return
        for number, position in zip(children, report.done.positions(), strict=False):
            if pends:  # of a copy no settle is written down
                self._children[number] = (book.name, position)
            self._owed[number] = position
            self.counts["children"] += 1

    # What an operator did

    def reopened(self, name: Name, mask: int) -> None:
        book, facts = self.purposes[name], self.purposes[name].facts
        for number in [number for number, (each, at) in self._children.items() if each == name and mask >> at & 1]:
            del self._children[number]  # its parent was settled, and is to be handled once more
        for position in positions(mask):
            facts.failures.pop(position, None)
            self.kills.pop((name, position), None)
        facts.settled &= ~mask
        facts.skipped &= ~mask
        facts.dead &= ~mask
        book.excused |= book.in_hand

    def discarded(self, name: Name, mask: int) -> None:
        facts = self.purposes[name].facts
        facts.dead &= ~mask
        facts.settled |= mask

    def retired(self, name: Name) -> None:
        book = self.purposes.pop(name)
        self.order.retired(name)
        self.limits.retired(name)
        for instance in book.holders:
            del self._by_instance[instance]
        self._alone = {name: lease for name, lease in self._alone.items() if lease not in book.leases}
        self._children = {number: parent for number, parent in self._children.items() if parent[0] != name}
        for position in [position for each, position in self.kills if each == name]:
            del self.kills[name, position]

    # Commits and restarts -----------------------------------------------------------------------------

    def commit_begins(self, dispatcher: Dispatcher, batches: Sequence[tuple[Batch, bool]]) -> None:
        self.limits.commit_begins()
        facts = {name: book.facts.copy() for name, book in self.purposes.items()}
        snapshots = {
            name: {number: track.state.snapshot() for number, track in dispatcher.purpose(*name).tracks.items()}
            for name in facts
        }
        going = {number for batch, by_handler in batches if by_handler for number in numbers(batch)}
        if going & self._shadows_fired:
            raise Broken(f"{going & self._shadows_fired} are to be stored, which a shadow fired")
        for number in self._owed:
            if number not in going:
                raise Broken(f"event {number} was fired by a handler and does not go with its settle")
        live = {number for book in self.purposes.values() for number in book.leases}
        self._committing = (facts, snapshots, [name for name, lease in self._alone.items() if lease not in live])

    def commit_ends(self, stored: Sequence[Stored], delayed: Sequence[Delayed]) -> None:
        """Note that a commit is durable."""
        assert self._committing is not None
        self._durable, self._expected, ended = self._committing
        self.limits.commit_ends()
        self._alone = {name: lease for name, lease in self._alone.items() if name not in ended}
        self._committing = None
        self.delays.delayed(delayed)
        for each in stored:
            self.stored(each)
        for batch in (*(each.batch for each in stored), *(batch for _, batch in delayed)):
            for number in numbers(batch):
                self._owed.pop(number, None)
                if number in self._children:
                    self._durable_children.add(number)
                    name, position = self._children[number]
                    facts = self._durable.get(name)
                    if not (facts is None or bool(facts.done >> position & 1)):
                        raise Broken(
                            f"event {number} is stored, and the settle of its parent {position} of {name} is not"
                        )
        self.counts["commits"] += 1

    def stored(self, stored: Stored) -> None:
        """Note that it is on the disk."""
        self.log.add(stored)
        self.order.accepted(stored.batch.topic, len(stored.batch), self.wall())

    def refused(self, batches: Sequence[Batch]) -> None:
        self.counts["refused"] += sum(map(len, batches))

    def lost_everything(self, *, clean: bool) -> None:
        """Note that the process is gone: only what is durable is true."""
        before, self.purposes = self.purposes, {}
        self._by_instance, self.notes = {}, sim_notes.Notes()
        self._committing = None
        self.order.restarted(self._durable, clean=clean)
        self.limits.restarted(self._durable)
        self._alone = {}
        self._owed = {}
        self._children = {each: parent for each, parent in self._children.items() if each in self._durable_children}
        for name, facts in self._durable.items():
            book = self.purposes[name] = PurposeBook(name, facts.copy())
            old = before.get(name)
            if old is not None:
                for position, times in old.facts.handed.items():
                    book.facts.handed[position] = max(times, book.facts.handed.get(position, 0))
            if clean:
                self.pardons.update((each, at) for each, at in self.kills if each == name)

    def recovered(self, dispatcher: Dispatcher, now: int, earlier: int) -> None:
        """Check that what was recovered is the live state as of the last commit, by a clock that was set back by
        `earlier` since then."""
        self.limits.set_back(earlier)
        for book in self.purposes.values():
            book.facts.start(now, earlier)
        self.ends = {name: topic.end for name, topic in dispatcher.topics.items()}
        names = {(name, purpose) for name, topic in dispatcher.topics.items() for purpose in topic.purposes}
        if names != set(self._durable):
            raise Broken(f"recovered {sorted(names)}, committed were {sorted(self._durable)}")
        for name in names:
            book, expected = self.purposes[name], self._expected[name]
            book.note_shadows(self.ends[name[0]])
            book.split(self.ends[name[0]], {})
            book.note_change(self.ends[name[0]])
            tracks = dispatcher.purpose(*name).tracks
            if set(tracks) != set(expected):
                raise Broken(f"{name}: recovered tracks {set(tracks)}, committed were {set(expected)}")
            for number, then in expected.items():
                found = tracks[number].state.snapshot()
                turned = found.copied_from != then.copied_from  # another exchange is at work while nobody is there
                if comparable(found, turned=turned) != comparable(then, turned=turned, earlier=earlier):
                    raise Broken(f"{name}: recovered {found}, committed was {then}")
            copied_from = tracks[0].state.copied_from
            if copied_from != book.facts.copied_from:
                raise Broken(f"{name}: copies from {copied_from}, not {book.facts.copied_from}")
            rollout, facts = tracks[0].state.rollout, book.facts
            said = dict(rollout.wanted), dispatcher.purpose(*name).line, rollout.shadows
            if said != (facts.wanted, facts.line, facts.shadows):
                raise Broken(f"{name}: {said}, not {facts.wanted} with {facts.line} and shadows {facts.shadows}")

    # Offers -------------------------------------------------------------------------------------------

    def offered(self, dispatcher: Dispatcher, offer: Offer, now: int) -> None:
        self.counts["offers"] += 1
        self.counts["events offered"] += len(offer.picks)
        book = self._by_instance.get(offer.instance)
        if book is None:
            return  # it left, and its lease ended, before the offer was carried out
        lease = dispatcher.purpose(*book.name).leases.get(offer.lease)
        if lease is None:
            return  # likewise
        holder, mask = book.holders[offer.instance], bits_of(offer.picks)
        where = f"{book.name}: lease {offer.lease} of {list(offer.picks)} to instance {offer.instance}"
        topic = book.name[0]
        if not (len(offer.picks) == mask.bit_count() and bool(mask)):
            raise Broken(f"{where} twice")
        if list(offer.picks) != sorted(offer.picks):
            raise Broken(f"{where} out of order")
        if not (
            offer.stored.start <= offer.picks[0]
            and offer.picks[-1] < offer.stored.stop <= self.ends[topic]
            and self.log.starts[topic][offer.stored.start] == offer.stored.batch.header.first
        ):
            raise Broken(f"{where} out of another batch")
        version = holder.join.version
        exchange, kind = book.facts.statements[version]
        copy = lease.shadow is not None
        if not copy and version not in (rightful := book.rightful(self.owned(book), mask)) and exchange != "fanout":
            raise Broken(f"{where} of version {version}, not of {rightful}")
        if holder.silent or holder.leaving or book.facts.paused:
            raise Broken(f"{where} which is silent, about to leave or of a paused purpose")
        pends = not copy and holder.join.exchange in PENDING_EXCHANGES
        if not book.holders[offer.instance].in_hand:
            holder.heard = now
        if holder.in_hand.bit_count() + len(offer.picks) > holder.room:
            raise Broken(f"{where} which has {holder.in_hand.bit_count()} in hand and room for {holder.room}")
        self._check_alone(holder.join.process, offer, lease.counted, where)
        self.order.check_delay(
            book, version, [each for each in offer.picks if each not in book.facts.given], self.wall(), where
        )
        if pends:
            self._check_hand_out(book, offer, mask, where, now)
            self.limits.check(book, offer, now, where)
            book.facts.hand_out(mask)
            owned, end = self.owned(book), self.ends[topic]
            if exchange == "keyed":
                self.order.check_keys(book, offer.picks, kind, owned, end, self.wall(), where)
            its = next((own for own in owned.values() if own >> offer.picks[0] & 1), 0)
            unexpired = ~self.log.expired(topic, self.wall()) & ~book.in_hand & ~self.trimmed.get(topic, 0)
            self.order.check_turn(book, version, offer.picks, its, book.pending(end) & unexpired, where)
        elif copy:
            same = self.log.same_keys(topic, offer.picks, kind) if exchange == "keyed" else ()
            sim_shadows.offered(book, version, mask, self.owned(book)[0], same, where)
        else:
            if holder.copied & mask:
                raise Broken(f"{where} which had a copy")
            self.order.check_copies(book, mask, where)
            holder.copied |= mask
        book.leases[offer.lease] = Held(offer.instance, mask, pends, copy, lease.counted)
        holder.in_hand |= mask * (sim_shadows.APART if copy else 1)
        self.counts["counted ahead"] += lease.counted

    def _check_alone(self, process: str, offer: Offer, counted: bool, where: str) -> None:
        """Check that nothing goes to a process beside a last attempt that is counted before it begins."""
        if process in self._alone:
            raise Broken(f"{where} beside a last attempt, lease {self._alone[process]}, in process {process!r}")
        if self.durable and counted and any(offer.tried.get(each, 0) + 1 >= self.attempts for each in offer.picks):
            there = [
                number
                for book in self.purposes.values()
                for number, held in book.leases.items()
                if held.pends and book.holders[held.instance].join.process == process
            ]
            if there or len(offer.picks) > 1:
                raise Broken(f"{where} is a last attempt, and {there} are in process {process!r}")
            self._alone[process] = offer.lease
            self.counts["alone"] += 1

    def _check_hand_out(self, book: PurposeBook, offer: Offer, mask: int, where: str, now: int) -> None:
        facts = book.facts
        expired = self.log.expired(book.name[0], self.wall())
        over = {"settled": facts.settled, "dead": facts.dead, "done with": facts.skipped, "expired": expired}
        for what, there in (*over.items(), ("in another's hands", book.in_hand)):
            if mask & there:
                raise Broken(f"{where}, {what}: {positions(mask & there)}")
        for position in offer.picks if facts.due else ():
            earliest = facts.due.pop(position, (0, 0))[0]
            if earliest > now:
                raise Broken(f"{where}, {position} is not due before {earliest}, now is {now}")
        for position in offer.picks if facts.failures or offer.tried else ():
            tried = offer.tried.get(position, 0)
            if tried < facts.failures.get(position, 0):
                raise Broken(f"{where}, {position} as attempt {tried + 1}")
            if tried >= self.attempts:
                raise Broken(f"{where}, {position} as attempt {tried + 1} of {self.attempts}")

    def delivered(self, offer: Offer) -> None:
        """Check that what must be durable before a handler begins is."""
        book = self._by_instance.get(offer.instance)
        if book is None or offer.lease not in book.leases or not book.leases[offer.lease].pends:
            return
        if not self.durable:
            return
        where = f"{book.name}: lease {offer.lease} of {list(offer.picks)}"
        track = next(track for track, owned in self.owned(book).items() if owned >> offer.picks[0] & 1)
        snapshot = self._expected.get(book.name, {}).get(track)
        if snapshot is None:
            raise Broken(f"{where} before its track is durable")
        if offer.picks[-1] >= snapshot.reach:
            raise Broken(f"{where}, and a crash would not suspect it (reach {snapshot.reach})")
        self.limits.delivered(book.name, offer, where)
        if book.leases[offer.lease].counted:
            tried = dict(snapshot.tried)
            for position in offer.picks:
                if tried.get(position, 0) != offer.tried.get(position, 0) + 1:
                    raise Broken(f"{where}: {position} begins before its attempt is counted for good")

    # After every step ---------------------------------------------------------------------------------

    def reconcile(self, dispatcher: Dispatcher) -> None:
        """Adopt what the dispatcher decides by itself, if it may: trimmed and expired events are skipped, killers
        are dead."""
        for book in self.purposes.values():
            topic = dispatcher.topics[book.name[0]]
            purpose, facts = topic.purposes[book.name[1]], book.facts
            pending, theirs, dead = book.pending(topic.end), 0, 0
            self._adopt_splits(book, purpose, pending)
            sim_versions.adopt_forgotten(book, purpose, self.owned(book), self.counts)
            owned = self.owned(book)
            for number, track in purpose.tracks.items():
                own = bits(track.state.pending(topic.end)) & owned.get(number, 0)
                if not track.fetching and not track.instances and bool(own) != (track.not_done(topic.end) > 0):
                    raise Broken(f"{book.name}: track {number} says that {track.not_done(topic.end)} pend of {own:b}")
                theirs |= own
                dead |= bits(track.state.dead)
            if theirs & ~pending:
                raise Broken(f"{book.name}: {positions(theirs & ~pending)} pend again, though done with")
            for position in positions(dead & pending):
                self._buried(book, position)
                self._bury(facts, position)
                pending &= ~(1 << position)
            gone = pending & ~theirs
            if gone:
                expired = gone & self.log.expired(book.name[0], self.wall())
                if lost := gone & ~self.trimmed.get(book.name[0], 0) & ~expired:
                    raise Broken(f"{book.name}: {positions(lost)} were accepted and are lost")
                self.counts["expired"] += expired.bit_count()
                sim_shadows.current_expired(book, expired & owned.get(0, 0))
                self.counts["skipped"] += gone.bit_count()
                facts.skipped |= gone
                facts.due = {at: due for at, due in facts.due.items() if not gone >> at & 1}
            if dead != facts.dead:
                raise Broken(f"{book.name}: dead are {positions(dead)}, not {positions(facts.dead)}")

    def _adopt_splits(self, book: PurposeBook, purpose: Purpose, pending: int) -> None:
        """Forget the splits that the dispatcher has forgotten, if nothing is left of them."""
        theirs = [(split.since, dict(split.shares), split.key) for split in purpose.main.state.rollout.splits]
        if theirs != book.facts.splits:
            before, book.facts.splits = self.owned(book), theirs
            after = self.owned(book)
            if any((before.get(track, 0) ^ after.get(track, 0)) & pending for track in before | after):
                raise Broken(f"{book.name}: with the splits {theirs} what pends is in other tracks")

    def _buried(self, book: PurposeBook, position: int) -> None:
        """Note that the dispatcher made it a dead letter without a handler saying so, because it kills."""
        self.counts["buried"] += 1
        tries = book.facts.handed.get(position, 0)
        if tries < self.attempts:
            raise Broken(f"{book.name}: {position} is dead after {tries} of {self.attempts} attempts")
        if self.only_killers_kill and not (bool(self.poison >> self.log.number(book.name[0], position) & 1)):
            raise Broken(f"{book.name}: {position} is dead, though it was only next to one that kills")

    def killed(self, name: Name, position: int, instance: int, lease: int) -> None:
        """Note that an event killed the instance that has it in this lease. One that a shadow has kills it once."""
        self.counts["kills"] += 1
        held = self._by_instance[instance].leases.get(lease) if instance in self._by_instance else None
        if held is not None and held.copy:
            return
        self.kills[name, position] += 1
        kills, max_kills = self.kills[name, position], self.attempts + 2 + self.pardons[name, position]
        if kills > max_kills:
            raise Broken(f"{name}: {position} killed {kills} times")

    def check(self, dispatcher: Dispatcher, now: int) -> None:
        self.order.saw(self.wall())
        for book in self.purposes.values():
            purpose = dispatcher.topics[book.name[0]].purposes[book.name[1]]
            book.check_hands(purpose)
            book.check_attempts(purpose, self.attempts)
            book.check_times(purpose)
            sim_shadows.check(book, purpose, self.log.ids[book.name[0]], self.counts, bounded=self.bounded)
            if book.pure_fanout and not purpose.main.fetching and not self.order.has_delay(book.name):
                over = purpose.copies_handled + purpose.dropped + purpose.copies_expired
                seen = over + purpose.in_flight + purpose.copies
                if seen != book.made:
                    raise Broken(f"{book.name}: of {book.made} copies {seen} are handled, dropped, in hand or waiting")

    def left_over(self) -> dict[Name, list[int]]:
        """Return what is not done, and will be without a change of versions."""
        return {
            name: left
            for name, book in self.purposes.items()
            if book.pends and (left := positions(book.pending(self.ends[name[0]])))
        }
