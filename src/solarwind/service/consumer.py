"""Keeps the events that an instance has in hand, and reports what became of them. The base of runners, streams and
feeds.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from time import monotonic, monotonic_ns, time_ns

import msgspec

from ..batch import Batch, seal
from ..columns import gathered, words
from ..core.effects import Failure, Join, Offer, Report
from ..core.spans import Spans
from ..engine.base import Engine
from ..engine.clock import Timer
from ..event import HandOut
from ..limits import Limits
from ..origin import MACHINE, process_name
from .group import MAX_WORDS, IdNumbers
from .in_doubt import in_doubt
from .observing import Observer
from .receipts import Fired, HeldEvents

log = logging.getLogger("solarwind")

MAX_FIRED_BYTES = 8 << 20  # by handlers since the last time that all of it was reported
PROGRESS_S = 0.1  # reports come at least so often while there is something to report


class Work(msgspec.Struct, eq=False):
    """An offer and its progress. `done` and `failed` only grow, so that a thread may append to them."""

    offer: Offer
    todo: deque[int]
    parts: list[list[int]] = msgspec.field(default_factory=list)  # of a batch whose handler raised: before `todo`
    done: list[int] = msgspec.field(default_factory=list)
    failed: list[Failure] = msgspec.field(default_factory=list)
    fired: dict[int, HeldEvents] = msgspec.field(default_factory=dict)  # by those that are done
    held: list[int] = msgspec.field(default_factory=list)  # that may not begin yet: see `InDoubt`
    held_until: float = 0.0  # by `monotonic`
    returned: Spans = msgspec.field(default_factory=Spans)
    running: int = 0
    lost: bool = False  # it is no longer its own: what becomes of it counts for nothing
    since: int = 0  # when its first event was begun
    reported: int = 0  # of `done`
    reported_failed: int = 0

    @property
    def left(self) -> int:
        """The maximum number of calls that are left."""
        return len(self.todo) + len(self.parts) + len(self.held)

    @property
    def unsaid(self) -> bool:
        """Whether it is not known of all its events what became of them."""
        return len(self.done) + len(self.failed) + len(self.returned) < len(self.offer.picks)

    def at(self) -> Spans:
        """Return the events that handlers are running for."""
        positions = Spans.of(self.offer.picks)
        for others in (self.todo, *self.parts, self.held, self.done, [each.position for each in self.failed]):
            positions.difference_update(Spans.of(list(others)))
        positions.difference_update(self.returned)
        return positions

    def next_part(self, max_events: int) -> list[int]:
        """Return the next events for a batch handler; none if nothing is left. Threads may call it at the same time."""
        taken: list[int] = []
        try:
            if self.parts:
                return self.parts.pop(0)
            while len(taken) < max_events:
                taken.append(self.todo.popleft())
        except IndexError:  # those were the last
            pass
        return taken

    def put_back(self, *parts: list[int]) -> None:
        """Put these parts first in the queue, each by itself."""
        if not self.lost:
            self.parts[:0] = [part for part in parts if part]

    def withdraw(self) -> Spans:
        """Remove and return everything that was not begun."""
        positions = Spans.of(_pop_last(self.todo, len(self.todo)))
        while self.parts:
            positions.update(Spans.of(self.parts.pop()))
        positions.update(Spans.of(self.held))
        self.held.clear()
        self.returned.update(positions)
        return positions

    def hand_out(self, join: Join, home: object) -> HandOut:
        """Return what its events have in common."""
        stored, tried, shadow = self.offer.stored, self.offer.tried, self.offer.shadow
        return HandOut(stored.batch, stored.start, join.purpose, join.version, home, tried, shadow)


class Consumer:
    """Receives offers, hands out work and reports what became of it. Only `Work` may be used off the loop's thread."""

    observer: Observer | None = None

    def __init__(self, engine: Engine, join: Join, limits: Limits) -> None:
        self.join = join
        self._limits = limits
        self.closed: str | None = None  # why nothing more comes
        self._engine = engine
        self._instance = 0
        self._queue: list[Work] = []  # of a few: an empty deque would be most of what an instance at rest costs
        self._active: list[Work] = []
        self._numbers = IdNumbers(engine.author)
        self._fired = 0  # bytes, about
        self._timer: asyncio.TimerHandle | None = None
        self._beat: Timer | None = None
        self._handled = 0  # since the last progress, and reported
        self._is_leaving = False
        self._over = False  # nothing is reported any more
        self._period = min(PROGRESS_S, join.lease_ns / 4e9)
        self._in_doubt = in_doubt(engine, join)
        # By this process's clock (`monotonic`): until then its events are its own, unless the engine says otherwise.
        self.certain_until = 0.0

    @property
    def instance(self) -> int:
        return self._instance

    def enter(self, instance: int) -> None:
        """Note the engine's number for it. Offers may have come before."""
        self._instance = instance

    # The engine's side --------------------------------------------------------------------------------

    def deliver(self, offer: Offer) -> None:
        self._instance = offer.instance
        work = Work(offer, deque(offer.picks))
        if self._in_doubt.works:
            self._in_doubt.hold(self, work)
        self._active.append(work)
        if self._is_leaving:  # it was on its way already
            self._give_back(work)
            return
        if work.todo:
            self._queue.append(work)
        if self._timer is None:
            self._renew_certainty()
            self._loop = asyncio.get_running_loop()
            self._timer = self._loop.call_later(self._period, self._progress)
        if self._beat is None:
            self._beat_later()
        self.wake()

    def flush(self) -> None:
        """Do nothing: each offer becomes work at once."""

    def begin(self, work: Work) -> None:
        """Queue events that were set aside and may begin now."""
        if work not in self._queue:
            self._queue.append(work)
        self.wake()

    def lost(self, lease: int | None = None) -> None:
        for work in self._active:
            if lease is None or work.offer.lease == lease:
                work.lost = True
                work.withdraw()
                self._in_doubt.add(work)

    def told(self, text: str) -> None:
        """Do nothing: the engine has logged it."""

    def _renew_certainty(self) -> None:
        """Note until when its events are certainly its own. It renews the lease each fifth of the lease's time, but a
        lease begins when the offer is sent. Over a link that delays messages by more than two fifths of it, no lease
        can be kept anyway."""
        lease_s = self.join.lease_ns / 1e9
        certain_s = max(0.8 * lease_s - self._engine.delay_s, 0.4 * lease_s)
        self.certain_until = monotonic() + min(certain_s, self._engine.patience_s)

    def look(self) -> None:
        """Give back what was not begun, if this process stood still for so long that its events may be another's by
        now. Those that are still its own are handed out again. This is called before anything is begun."""
        if self._active and monotonic() > self.certain_until:
            self._renew_certainty()
            for work in list(self._active):  # an engine of this process hands them out again at once
                self._report(work, work.withdraw())
                self._in_doubt.add(work)
            self._active = [work for work in self._active if work.running or work.left]

    def close(self, reason: str) -> None:
        self.closed = reason
        self.lost()
        self.wake()

    def wake(self) -> None:
        """Handle the work that there is now, or end, because no more will come."""
        raise NotImplementedError

    def note_fired(self, work: Work, position: int, fired: HeldEvents) -> None:
        """Keep what a handler fired for the event at `position`, until that is reported done. From any thread."""
        work.fired[position] = fired
        self._fired += fired.size
        if self._fired > MAX_FIRED_BYTES:
            self._fired = 0
            self._loop.call_soon_threadsafe(self._report_all)

    def _report_all(self) -> None:
        for work in list(self._active):
            self._report(work)

    # The handler's side -------------------------------------------------------------------------------

    def next_work(self) -> Work | None:
        """Return the oldest work with something to do, counted as running once more; None where there is none."""
        queue = self._queue
        if queue:
            self.look()
        while queue:
            work = queue[0]
            if work.todo or work.parts:
                work.running += 1
                if not work.since:
                    work.since = monotonic_ns()
                return work
            del queue[0]
        return None

    def leave_work(self, work: Work) -> None:
        work.running -= 1
        if self._in_doubt.works:
            self._in_doubt.ended(work)
        if not work.running and not work.left:
            self._active.remove(work)
            self._report(work)
        elif (work.todo or work.parts) and work not in self._queue:
            self._queue.append(work)  # another found nothing left in it, and then its batch came back in parts

    def give_back(self) -> None:
        """Give back everything that was not started, and what still comes."""
        self._is_leaving = True
        for work in list(self._active):
            self._give_back(work)
        self._queue.clear()

    def _give_back(self, work: Work) -> None:
        self._report(work, work.withdraw())
        if not work.running:
            self._active.remove(work)

    def stop_reports(self) -> None:
        """Report what is done so far, and nothing from here on."""
        for work in self._active:
            self._report(work)
        self._over = True
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._beat is not None:
            self._beat.cancel()
            self._beat = None

    # Reports ------------------------------------------------------------------------------------------

    def _progress(self) -> None:
        """Report what is done, and give back what cannot be handled soon. Repeated while there is work."""
        if not self._active:
            self._timer = None
            return
        # First, so that it goes on if this fails.
        self._timer = self._loop.call_later(self._period, self._progress)
        self.look()
        self._renew_certainty()
        handled = self._handled + sum(len(work.done) - work.reported for work in self._active)
        keep = max(self.join.room, handled)
        in_hand = sum(len(work.todo) for work in self._active)
        surplus = in_hand - keep if in_hand > 4 * keep else 0
        if self._is_held_up():
            surplus = in_hand
        for work in self._active[::-1]:
            returned = _pop_last(work.todo, surplus)
            surplus -= len(returned)
            returned += self._in_doubt.overdue(work)
            spans = Spans.of(returned)
            work.returned.update(spans)
            self._report(work, spans)
        self._handled = 0
        self._active = [work for work in self._active if work.running or work.left]

    def _beat_later(self) -> None:
        clock = self._engine.service_clock
        self._beat = clock.call_at(clock.now() + self.join.lease_ns // 5, self._say_alive)

    def _say_alive(self) -> None:
        """Renew the lease. Repeated while there is work."""
        self._beat = None
        if self._active:
            self._beat_later()
            self._engine.alive(self._instance)

    def _is_held_up(self) -> bool:
        """Return whether all running handlers are busy with lost events, so that newer ones are not begun."""
        at_work = [work for work in self._active if work.running]
        return bool(at_work) and all(work.lost for work in at_work)

    def _report(self, work: Work, returned: Spans | None = None) -> None:
        done = work.done[work.reported :]
        failed = work.failed[work.reported_failed :]
        if self._over or (not done and not failed and not returned):
            return
        self._handled += len(done)
        work.reported += len(done)
        work.reported_failed += len(failed)
        try:
            self._report_parts(work, done, failed, returned)
        except Exception as error:  # else they would be in hand for as long as there is other work
            log.exception(
                "events of %r on %r could not be reported: they are tried again", self.join.purpose, self.join.topic
            )
            text, after_ns = f"it could not be reported: {type(error).__name__}: {error}", int(PROGRESS_S * 1e9)
            failed = [*failed, *(Failure(position, "retry", text, after_ns) for position in done)]
            self._engine.report(Report(self._instance, work.offer.lease, Spans(), failed, returned or Spans()), ())

    def _report_parts(self, work: Work, done: list[int], failed: list[Failure], returned: Spans | None) -> None:
        parts = _cut(done, work.fired, self._limits.unaccepted_bytes) if work.fired else [done]
        for part in parts:
            fired = [each for position in part for each in work.fired.pop(position, ())] if work.fired else []
            report = Report(
                self._instance,
                work.offer.lease,
                _spans(part, work.offer.picks),
                failed,
                returned if returned is not None else Spans(),
                work.reported + work.reported_failed,
                monotonic_ns() - work.since,
            )
            batches = self._seal(fired) if fired else ()
            began = 0 if self.observer is None else time_ns()
            counts = self._engine.report(report, batches)
            if self.observer is not None:
                self.observer.reported(self.join, work.offer, report, batches, began, counts)
            if not counts and not work.lost:
                self.lost(work.offer.lease)
            failed, returned = [], None

    def _seal(self, fired: Sequence[Fired]) -> list[Batch]:
        together: dict[tuple[str, bool], list[Fired]] = {}  # what is delayed apart from the rest
        for each in fired:
            together.setdefault((each.topic, "due" in each.attributes), []).append(each)
        batches = []
        for (topic, later), events in together.items():
            for part in _parts(events, self._limits):
                producer, first = self._numbers.allocate(topic, len(part), later=later)
                batches.append(
                    seal(
                        topic,
                        [each.data for each in part],
                        [each.time for each in part],
                        producer=producer,
                        author=self._numbers.author,
                        first=first,
                        machine=MACHINE,
                        process=process_name(),
                        **{"content": [each.content for each in part], **gathered(each.attributes for each in part)},
                    )
                )
        return batches


def _cut(done: list[int], fired: dict[int, HeldEvents], max_bytes: int) -> list[list[int]]:
    """Return the events reported together: what they fired has at most `max_bytes`, unless it is one call's."""
    parts: list[list[int]] = [[]]
    size = 0
    for position in done:
        held = fired.get(position)
        if held is not None:
            if size + held.size > max_bytes and parts[-1]:
                parts.append([])
                size = 0
            size += held.size
        parts[-1].append(position)
    return parts


def _pop_last(todo: deque[int], count: int) -> list[int]:
    taken: list[int] = []
    while len(taken) < count and todo:
        try:
            taken.append(todo.pop())
        except IndexError:  # another thread popped the last
            break
    return taken


def _spans(positions: list[int], picks: Sequence[int]) -> Spans:
    """Return the set of these positions, which are some of `picks`, each once."""
    if len(positions) == len(picks):
        return Spans.of(picks)
    if not positions:
        return Spans()
    start, stop = min(positions), max(positions) + 1
    if stop - start == len(positions):
        return Spans((start, stop))
    between = Spans.of(picks).within(start, stop)
    return between if len(between) == len(positions) else Spans.of(positions)


def _parts(events: list[Fired], limits: Limits) -> list[list[Fired]]:
    """Return the events in parts that fit into a batch."""
    parts: list[list[Fired]] = []
    size, said = limits.batch_bytes, 0
    for each in events:
        full = size + len(each.data) > limits.batch_bytes or said > MAX_WORDS
        if full or len(parts[-1]) >= limits.batch_events:
            parts.append([])
            size = said = 0
        parts[-1].append(each)
        size += len(each.data)
        said += words(each.attributes)
    return parts
