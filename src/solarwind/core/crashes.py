"""What is done after something died: with what was in hand, and with the events that may be the cause.

An event that may have been in a handler when its process, or the dispatcher, died is a *suspect*. Nobody knows which of
them it was, so an attempt of a suspect is *counted*, durably, before it begins, and suspects are handed out in ever
smaller groups. A suspect whose next attempt is its *last* has that attempt alone in its process: see `process`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from .instance import MAX_ROOM, Instance, Lease
from .log import Stored
from .process import Process
from .state import Change
from .track import Track, letter_of

if TYPE_CHECKING:
    from .dispatcher import Dispatcher


class Crashes:
    """The crashes of a dispatcher's instances, for all its purposes."""

    def __init__(self, dispatcher: Dispatcher) -> None:
        self._dispatcher = dispatcher
        self._last_ends: list[Process] = []  # in which a last attempt ended, and that is not durable yet

    # What was in hand

    def count(self, lease: Lease, track: Track, max_attempts: int) -> None:
        """Count an attempt of each event of a lost lease, since nobody knows at which one it was, up to `max_attempts`.
        The events are suspects from now on."""
        if not lease.counted:
            tried = track.state.tried
            counts = ((position, tried.get(position, 0) + 1) for position in lease.positions.positions())
            if started := [(position, count) for position, count in counts if count <= max_attempts]:
                self._dispatcher.change(track, Change(*track.key, started=started))
        track.give_back(lease.positions, suspicious=True)

    def note_end(self, lease: Lease) -> None:
        """Note how a suspect's last attempt ended. That has to be durable before anything else goes to its process: if
        another event ended the process now, the suspect would be dead by that event's fault."""
        process = lease.instance.process
        if lease.counted and lease.id == process.last_attempt and self._dispatcher.durable:
            process.last_end = self._dispatcher.changes[-1]
            self._last_ends.append(process)

    @property
    def awaits_commit(self) -> bool:
        """Whether anything is handed out only once the end of a last attempt is durable."""
        return bool(self._last_ends)

    def ends_durable(self, changes: Sequence[Change]) -> list[Process]:
        """Return the processes in which a last attempt ended by one of these changes, which are durable now."""
        if not self._last_ends:
            return []
        durable = {id(change) for change in changes}
        ended = [process for process in self._last_ends if id(process.last_end) in durable]
        self._last_ends = [process for process in self._last_ends if process not in ended]
        for process in ended:
            process.last_end = None
        return ended

    # Last attempts

    def set_aside(self, track: Track, stored: Stored, picks: Iterable[int], now: int) -> None:
        """Set suspects that may be tried once more aside, until they can be alone in a process. Make those dead letters
        that were being handled each time something died, as often as they may be tried."""
        for position in picks:
            tried = track.state.tried.get(position, 0)
            if tried < track.statement.retry.attempts:
                track.last_attempts.append(position)
                continue
            track.suspects.remove(position, position + 1)
            error = f"its handler did not come to an end {tried} times: the process died or hung"
            self._dispatcher.give_up(track, [letter_of(position, tried, now, error, track.statement.version)])
            which = f"event {stored.batch.id(position - stored.start)} on topic {track.topic!r}"
            purpose = track.purpose
            text = f"{which} for {purpose.name!r}, now a dead letter: {error}"
            self._dispatcher.fault(text, "dead", *purpose.key)

    def assign_process(self, track: Track, now: int) -> bool:
        """Choose a process for the track's last attempts, the one that has least to do, unless one is chosen. Return
        whether there is one."""
        process = track.chosen
        has_it = process is not None and process.waiting[0] is track and process.last_attempt
        if process is not None and not has_it and not self._candidates(track, process):
            process.waiting.remove(track)
            track.chosen = None
            self.proceed(process, now)
        if track.chosen is None and (candidates := self._candidates(track)) and self._may_go(track, now):
            process = min([each.process for each in candidates], key=lambda each: (len(each.waiting), each.in_hand))
            process.waiting.append(track)
            track.chosen = process
        if track.chosen is not None:
            self.proceed(track.chosen, now)
        return track.chosen is not None

    def _may_go(self, track: Track, now: int) -> bool:
        """Return whether the purpose's limits leave room for a last attempt. While a process is made ready for it, that
        is kept free; otherwise the track waits, and the process does not."""
        limiter = track.limiter
        return limiter is None or self._dispatcher.limiters.room(track, limiter, 1, now) > 0

    def _candidates(self, track: Track, process: Process | None = None) -> list[Instance]:
        """Return the instances that may get a last attempt of the track, in that process or any."""
        exchange = track.exchange
        if exchange is None or not exchange.pends or track.backlog is None or not track.last_attempts:
            return []
        return [each for each in track.instances if not each.silent and (process is None or each.process is process)]

    def proceed(self, process: Process, now: int) -> None:
        """Hand out the last attempts that wait for a process, and then everything else."""
        ended: dict[Track, None] = {}
        was_closed = process.closed
        while process.waiting and not process.in_hand and process.last_end is None:
            track = process.waiting[0]
            if not process.last_attempt and self._give_last(track, process, now):
                break
            if process.last_attempt:
                ended[track] = None
            process.waiting.popleft()
            process.last_attempt, track.chosen = 0, None
        process.closed = bool(process.waiting) or process.last_end is not None
        if was_closed and not process.closed:  # those that had their turn come last
            instances = list(process.instances.values())
            there = dict.fromkeys(track for _, purpose in instances for track in purpose.all_tracks)
            for instance, _ in instances:
                self._dispatcher.copies.drain(instance, now)
            for track in [*(each for each in there if each not in ended), *ended]:
                self._dispatcher.exchange(track, now)

    def _give_last(self, track: Track, process: Process, now: int) -> bool:
        """Hand out a last attempt in a process that has nothing else in hand. Return False if there is none."""
        candidates = self._candidates(track, process)
        exchange = track.exchange
        if not candidates or exchange is None or track.fetching:
            return bool(candidates)
        if not self._dispatcher.limiters.room_for_last(track, now):
            return False
        while True:
            position = track.last_attempts[0]
            stored = self._dispatcher.log.find(track.topic, position)
            if stored is None:
                self._dispatcher.fetch(track, position)
                return True
            if self._dispatcher.expiry.leave_out(track, stored, [position], now):
                break
            track.last_attempts.pop(0)
            if not track.last_attempts:
                return False
        process.closed = False  # for the exchange to see that they have room
        for each in candidates:
            each.quota = MAX_ROOM
        shares = [
            share for share in self._dispatcher.share(track, exchange, stored, [position], candidates) if share[1]
        ]
        if not shares:
            track.last_attempts.append(track.last_attempts.pop(0))
            return False
        track.last_attempts.pop(0)
        instance = self._dispatcher.instances[shares[0][0].id][0]
        # Elsewhere the dispatcher outlives the process, and counts what it was lost with.
        lease = self._dispatcher.lease(track, instance, stored, [position], now, counted=process.home)
        track.suspects.remove(position, position + 1)
        process.last_attempt = lease.id
        return True
