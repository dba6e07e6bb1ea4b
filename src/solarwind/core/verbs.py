"""What operators do to a purpose as a whole: pause and resume, replay, redrive and discard, retry now, and retire. What
they do to its versions is in `versions`."""

from __future__ import annotations

from ..errors import ConflictError, NotAllowed
from .effects import Closed
from .purpose import Purpose
from .registry import Registry
from .spans import Spans
from .state import Change
from .track import Track


class Verbs(Registry):
    """The part of a dispatcher that does what operators ask for."""

    def pause(self, topic_name: str, name: str, now: int) -> None:
        """Hand out nothing more of a purpose until it is resumed. What instances have in hand stays with them; what
        pends goes on pending, and what a fan-out has in its instances' buffers waits there. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        if not purpose.paused:
            self._set_paused(purpose, now, now)

    def resume(self, topic_name: str, name: str, now: int) -> None:
        """Go on handing out a purpose that was paused. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        if purpose.paused:
            self._set_paused(purpose, 0, now)
            for instance in purpose.instances.values():
                self.copies.drain(instance, now)

    def _set_paused(self, purpose: Purpose, paused: int, now: int) -> None:
        self.change(purpose.main, Change(*purpose.main.key, paused=paused))
        purpose.note_change()
        self.note_alone(purpose, now)
        self.further_partitions(purpose, now)  # also where it is paused: its last attempts hold up no process

    def replay(
        self,
        topic_name: str,
        name: str,
        since: int,
        until: int,
        now: int,
        *,
        only: Spans | None = None,
        dry: bool = False,
    ) -> int:
        """Make what is done, from position `since` up to `until`, pend again: all of it, or `only` these positions.
        Return how many events that are; with `dry` that is all. Where versions have shares it is a lower bound: what
        one has done and another has not come past yet is replayed, and not counted, since a track does not know whose
        the events before it are."""
        purpose = self.purpose(topic_name, name)
        if not purpose.exchange_pends:
            raise NotAllowed(
                f"expected a purpose whose events pend, got {name!r} on topic {topic_name!r} with exchange "
                f"{purpose.active.exchange!r}: its events are dropped, "
                "not kept for replay"
            )
        until = min(until, self.topics[topic_name].end)

        def chosen(spans: Spans) -> Spans:
            return spans if only is None else spans.common(only)

        pending, reopened = Spans(), dict[Track, Change]()
        redriven = Spans()  # into a version, and not done there
        for track in [each for each in purpose.tracks.values() if each.number < 0]:
            redriven.update(track.state.pending(until).within(since, until))
            if dead := chosen(track.state.dead.within(since, until)):
                reopened[track] = Change(*track.key, discarded=dead.edges)
        for track in [each for each in purpose.tracks.values() if each.number >= 0 and each.state.copied_from is None]:
            its = track.state.pending(until).within(since, until)
            pending.update(its)
            spans = its.outside(since, until)
            spans.difference_update(redriven)
            if spans := chosen(spans):
                reopened[track] = Change(*track.key, reopened=spans.edges)
        pending.update(redriven)
        if not dry:
            self._reopen(purpose, reopened, now)
        return len(chosen(pending.outside(since, until)))

    def redrive(self, topic_name: str, name: str, positions: Spans, now: int, version: int | None = None) -> int:
        """Hand dead letters out again, as if they had never been tried: to the version that works on the track where
        they died, or to this one alone. Return how many; other positions are ignored. Raise `NotFound`, and
        `NotAllowed` where that version may not have them."""
        purpose, count, reopened = self.purpose(topic_name, name), 0, dict[Track, Change]()
        if version is not None:
            reopened = self.versions.redriven(purpose, positions, version)
        for track in purpose.tracks.values():
            spans = track.state.dead.common(positions)
            count += len(spans)
            if spans and track not in reopened:
                reopened[track] = Change(*track.key, redriven=spans.edges)
        self._reopen(purpose, reopened, now)
        self.note_alone(purpose, now)
        return count

    def _reopen(self, purpose: Purpose, reopened: dict[Track, Change], now: int) -> None:
        """Let these events pend again in all tracks before anything is handed out: the order per key holds across
        tracks."""
        for track, change in reopened.items():
            self.change(track, change)
        for track in purpose.tracks.values() if reopened else ():
            track.rewind()
        if reopened:
            self.further_partitions(purpose, now)

    def retry_now(self, topic_name: str, name: str, now: int, *, dry: bool = False) -> int:
        """End the waits of the events that wait for a retry. Return how many these are; with `dry` that is all. It is
        as when they are over: nothing of it is written down. Raise `NotFound`."""
        purpose = self.purpose(topic_name, name)
        count = sum(len(track.retrying) for track in purpose.tracks.values())
        if count and not dry:
            for track in purpose.tracks.values():
                track.end_waits()
            self.further_partitions(purpose, now)
        return count

    def discard(self, topic_name: str, name: str, positions: Spans) -> int:
        """Forget dead letters. Return how many."""
        count = 0
        for track in self.purpose(topic_name, name).tracks.values():
            spans = track.state.dead.common(positions)
            if spans:
                self.change(track, Change(*track.key, discarded=spans.edges))
            count += len(spans)
        return count

    def retire(self, topic_name: str, name: str, now: int, *, force: bool) -> None:
        """Forget a purpose. Raise `ConflictError`, unless forced, while it is paused, while events pend, or while
        instances are at work for it."""
        purpose = self.purpose(topic_name, name)
        if purpose.paused and not force:
            raise ConflictError(
                f"expected purpose {name!r} on topic {topic_name!r} not to be paused, got one that is: "
                "resume it first, or retire it with force"
            )
        if not force:
            left = purpose.left(self.topics[topic_name].end)
            if left:
                raise ConflictError(
                    f"expected purpose {name!r} on topic {topic_name!r} to have nothing left, "
                    f"got {' and '.join(left)}: "
                    "settle, redrive or discard them and stop its instances, or retire it with force"
                )
        for instance in purpose.instances.values():
            self.effects.append(Closed(instance.id, f"purpose {name!r} on topic {topic_name!r} was retired"))
            del self.instances[instance.id]
            self._leave_process(instance)
        for lease in purpose.leases.values():
            lease.instance.remove_events(lease, len(lease.positions))
        processes = {id(each.process): each.process for each in purpose.instances.values() if each.process.closed}
        purpose.instances.clear()
        purpose.live.clear()
        purpose.shadows.clear()
        purpose.note_change()
        purpose.held = purpose.limiter = None
        purpose.gone.clear()
        for track in purpose.tracks.values():
            self.end_track(track)
        del self.topics[topic_name].purposes[name]
        self.alone.pop(purpose, None)
        self._purposes -= 1
        for process in processes.values():
            self.crashes.proceed(process, now)
