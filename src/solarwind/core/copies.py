"""What is done for an exchange that does not pend: copies, one for every instance that it chooses.

Copies never pend and are not remembered. They wait in the instances' own bounded buffers. Those of a burst are held
back for a moment, so that instances that keep up lose none of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from .instance import MAX_ROOM, PATIENCE_NS, Instance, Lease
from .log import Stored
from .purpose import MAX_HELD_BYTES, Purpose
from .spans import Spans
from .track import Track

if TYPE_CHECKING:
    from .dispatcher import Dispatcher


class Copies:
    """The copies of all purposes of a dispatcher."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._limits = dispatcher.limits

    def hand_out(self, track: Track, stored: Stored, now: int) -> None:
        """Make copies of a batch's events: one for every instance that the exchange chooses."""
        purpose, instances, exchange = track.purpose, list(track.instances), track.exchange
        copied = Spans()
        picks = track.own_positions(stored)
        shares = []
        if picks and instances and exchange is not None:
            shares = self._dispatcher.share(track, exchange, stored, picks, instances)
        parts = [(chosen.id, Spans.of(part)) for chosen, part in shares]
        for _, part in parts:
            copied.update(part)
        purpose.dropped += len(picks) - len(copied)
        if parts:
            if purpose.held is None:
                purpose.held = deque()
            purpose.held.append((stored, stored.start, parts))
            purpose.held_bytes += len(stored.batch.data)
            self.fill_buffers(purpose, now)

    def fill_buffers(self, purpose: Purpose, now: int) -> None:
        """Move copies into the instances' buffers, as far as instances that keep up lose none by it."""
        there, receivers = purpose.instances, dict[int, Instance]()
        while purpose.held:
            stored, start, parts = purpose.held[0]
            here = [(found, part) for number, part in parts if (found := there.get(number)) is not None]
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
                    purpose.dropped += instance.add_copies(stored, low, high, self._limits)
                    made += high - low
            purpose.dropped += sum([len(part.within(start, stop)) for _, part in parts]) - made
        for receiver in receivers.values():
            self.drain(receiver, now)

    def _fitting(self, purpose: Purpose, instances: list[Instance], max_count: int, now: int) -> int:
        """Return how many events may be copied now. Instances that keep up are not to lose copies to a burst, even if
        it comes in one turn. The other instances of the purpose wait a moment with them; no instance waits for a slow
        one."""
        if purpose.held_bytes > MAX_HELD_BYTES:
            return max_count
        full, look_at = None, 0
        for instance in instances:
            if instance.copied + max_count > self._limits.copies or instance.copied_bytes:
                space = instance.space(self._limits)
                if space < max_count and (until := instance.keeps_up_until(now, self._limits)) > now:
                    max_count, full, look_at = space, instance, until
        if not max_count and full is not None:
            full.full_since = full.full_since or now
            if not purpose.look_at:
                purpose.look_at = min(look_at, full.full_since + PATIENCE_NS)
                self._dispatcher.wake(purpose.look_at, purpose)
        return max_count

    def look_again(self, purpose: Purpose, when: int, now: int) -> None:
        """Go on with copies that were held back, because the timer that was set for `when` has fired."""
        if purpose.look_at == when:
            purpose.look_at = 0
            self.fill_buffers(purpose, now)

    def drain(self, instance: Instance, now: int) -> None:
        """Hand an instance as many of its copies as it has room for, unless its purpose is paused."""
        if not instance.copies or self._dispatcher.instances[instance.id][1].paused:
            return
        instance.quota, purpose = MAX_ROOM, self._dispatcher.instances[instance.id][1]
        while instance.copies and instance.free:
            stored, picks = instance.pop_copies(instance.free)
            if left := self._dispatcher.expiry.leave_out_copies(purpose, stored, picks, now):
                self._lease(instance, stored, left, now)

    def _lease(self, instance: Instance, stored: Stored, picks: Sequence[int], now: int) -> None:
        lease = Lease(self._dispatcher.next_number(), instance, Spans.of(picks), stored=stored)
        self._dispatcher.hand_over(lease, stored, picks, {}, now)

    def note(self, lease: Lease, done: int, failed: int, returned: Spans, now: int) -> None:
        """Note what an instance made of some of its copies. A handler that raised is logged in its own process."""
        instance, stored = lease.instance, lease.stored
        purpose = self._dispatcher.instances[instance.id][1]
        purpose.copies_handled += done
        purpose.dropped += failed
        if stored is not None:
            instance.put_back_copies(stored, returned)
        self.drain(instance, now)
        self.fill_buffers(purpose, now)
