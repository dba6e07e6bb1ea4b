"""What became of events, for each purpose on their topic.

What pends, waits, is in hand or is dead the dispatcher knows. What was settled is in the notes that were committed with
it (`core/facts.py`). A question reads the notes of the events that it is about, however long the history is.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Literal

import msgspec

from ..batch import read_id
from ..core.log import Stored, waits_since
from ..core.spans import Spans
from ..errors import NotFound
from ..event import Event, HandOut
from ..records import EventInfo, Histogram, Outcome, VersionTimes
from ..text import time_text
from ..timing import time_of

if TYPE_CHECKING:
    from ..core import facts
    from ..core.dispatcher import Dispatcher
    from ..core.facts import Note
    from ..core.instance import Instance
    from ..core.purpose import Purpose
    from ..core.registry import Topic
    from ..core.state import Letter
    from ..core.track import Track
    from ..store.base import Store

Found = dict[int, Stored]  # positions of events, and the batches that they are in
_OVER: dict[str, Literal["settled", "expired", "discarded"]] = {
    "settled": "settled",
    "expired": "expired",
    "dead": "discarded",
}  # what became of an event that is over, by what was noted of it last
Outcomes = tuple[Outcome, ...]  # of an event, by the names of purposes


async def event_info(
    dispatcher: Dispatcher, store: Store, topic: str, id: str, committed: Callable[[], Awaitable[None]]
) -> EventInfo:
    """Return the event of a topic with that id, and what became of it. Raise `NotFound`."""
    there = await store.find(id, topic)
    for stored in await store.read_at(topic, Spans((there[1], there[1] + 1)), 1) if there is not None else ():
        position = there[1] if there is not None else 0
        found = await outcomes(dispatcher, store, topic, {position: stored}, committed)
        return EventInfo(Event(HandOut(stored.batch, stored.start), position - stored.start), position, found[position])
    raise await no_such_event(store, dispatcher.topics[topic], id)


async def outcomes(
    dispatcher: Dispatcher, store: Store, topic: str, events: Found, committed: Callable[[], Awaitable[None]]
) -> dict[int, Outcomes]:
    """Return what became of these events of a topic, by their positions, for each purpose in the order of their names.
    `committed` waits until all that the dispatcher knows is durable: then there are notes of all that is settled."""
    on_it = dispatcher.topics.get(topic)
    purposes = dict(sorted(on_it.purposes.items())) if on_it is not None else {}
    end = on_it.end if on_it is not None else 0
    known = {
        at: [_standing(purpose, stored, at, end) for purpose in purposes.values()] for at, stored in events.items()
    }
    await committed()
    latest: dict[tuple[str, int], Note] = {}
    wanted = Spans.of(events)
    for note in await store.notes(topic, wanted) if purposes else ():
        purpose = purposes.get(note.purpose)
        if purpose is None or note.reported_at < purpose.main.state.created_at:
            continue  # of one that was retired, maybe of the same name
        for at in wanted.common(Spans(note.edges)).positions():
            before = latest.get((note.purpose, at))
            if before is None or before.reported_at <= note.reported_at:
                latest[note.purpose, at] = note
    found: dict[int, Outcomes] = {}
    for at, several in known.items():
        ended = [_with_note(each, latest.get((each.purpose, at)), at) for each in several]
        found[at] = tuple([await _with_letter(store, purposes[each.purpose], each, at) for each in ended])
    return found


async def of_events(
    dispatcher: Dispatcher, store: Store, events: Sequence[Event], committed: Callable[[], Awaitable[None]]
) -> list[Outcomes]:
    """Return what became of these events, which know their positions, in their order."""
    by_topic: dict[str, Found] = {}
    places = [(event.topic, event._of.start + event._index) for event in events]
    for (topic, position), event in zip(places, events, strict=True):
        by_topic.setdefault(topic, {})[position] = Stored(event._of.start, event._of.batch)
    found = {topic: await outcomes(dispatcher, store, topic, some, committed) for topic, some in by_topic.items()}
    return [found[topic][position] for topic, position in places]


def _standing(purpose: Purpose, stored: Stored, position: int, end: int) -> Outcome:
    """Return what the dispatcher knows of an event: "settled" stands for all that is over."""
    for instance in purpose.instances.values():
        if (found := _in_hand(purpose, instance, position)) is not None:
            return found
    for track in purpose.tracks.values():
        state = track.state
        if position in state.dead:
            return Outcome(purpose.name, "dead")
        if track.pends(stored, position, end):
            version, tried = track.statement.version, state.tried.get(position, 0)
            if position in track.retrying:
                due = time_of(state.due[position])
                error = track.errors.get(position)
                return Outcome(purpose.name, "waiting", version, attempts=tried, until=due, error=error)
            if (until := _waits_until(track, stored, position)) is not None:
                return Outcome(purpose.name, "waiting", version, attempts=tried, until=until)
            return Outcome(purpose.name, "pending", version, attempts=tried, place=track.place(position))
        if state.copied_from is not None and position >= state.copied_from and track.own_positions(stored):
            if (until := _waits_until(track, stored, position)) is not None:
                return Outcome(purpose.name, "waiting", track.statement.version, until=until)
            return Outcome(purpose.name, "copied")
    return Outcome(purpose.name, "settled")


def _waits_until(track: Track, stored: Stored, position: int) -> datetime | None:
    """Return when an event has waited for the purpose's delay; None where it has, as far as that is known."""
    delay = track.delay
    if delay is None or not stored.accepted:
        return None
    waits = position >= (delay.to if track.state.copied_from is None else delay.copied)
    return time_of(waits_since(stored) + delay.delay_ns) if waits else None


def _in_hand(purpose: Purpose, instance: Instance, position: int) -> Outcome | None:
    for lease in instance.leases.values():
        if position in lease.positions and lease.shadow is None:
            tried = lease.track.state.tried.get(position, 0) if lease.track is not None else 0
            machine, _, process = instance.origin.partition("/")
            return Outcome(
                purpose.name,
                "in hand",
                instance.version,
                machine,
                process,
                attempts=tried + (not lease.counted),
                since=time_of(lease.handed_at),
            )
    if any(start <= position < stop for _, start, stop in instance.copies or ()):
        return Outcome(purpose.name, "pending", instance.version)
    return None


def _with_note(outcome: Outcome, note: Note | None, position: int) -> Outcome:
    if outcome.state not in ("settled", "dead"):
        return outcome
    if note is None:
        return msgspec.structs.replace(outcome, state="not for it") if outcome.state == "settled" else outcome
    machine, _, process = note.origin.partition("/")
    state = "dead" if outcome.state == "dead" else _OVER[note.verdict]
    return Outcome(
        outcome.purpose,
        state,
        note.version,
        machine,
        process,
        attempts=note.attempts(position),
        since=time_of(note.handed_at) if note.handed_at else None,
        ended=time_of(note.reported_at),
        took_s=note.took_ns / 1e9 if note.handed_at else None,
    )


async def _with_letter(store: Store, purpose: Purpose, outcome: Outcome, position: int) -> Outcome:
    if outcome.state != "dead":
        return outcome
    for track in list(purpose.tracks.values()):
        for letter in await _letters(store, track, position):
            ended = time_of(letter.time)
            return msgspec.structs.replace(outcome, attempts=letter.tried, ended=ended, error=letter.error)
    return outcome


async def _letters(store: Store, track: Track, position: int) -> list[Letter]:
    positions = track.state.dead.within(position, position + 1)
    return await store.dead(*track.key, positions) if positions else []


def times(purpose: Purpose) -> tuple[VersionTimes, ...]:
    """Return how long the events of each version took."""
    return tuple(
        VersionTimes(version, histogram(its.handler), histogram(its.settle))
        for version, its in sorted(purpose.times.items())
    )


def histogram(of: facts.Histogram) -> Histogram:
    """Return it as a record."""
    return Histogram(tuple(of.counts), of.sum_ns / 1e9)


async def no_such_event(store: Store, topic: Topic, id: str) -> NotFound:
    """Return the refusal for an id that a topic's history does not have: it says whether the event may have been
    trimmed."""
    expected = f"expected the id of an event in the history of topic {topic.name!r}, got {id!a}"
    later = await store.delays.find(topic.name, id)
    if later is not None:
        due = time_text(later.due)
        return NotFound(f"{expected}: it is delayed until {due}, see `solarwind delayed show {topic.name} {id}`")
    first = next(iter(await store.read(topic.name, 0, 1)), None)
    gone = topic.unkept + (first.start if first is not None else topic.end)
    if not gone:
        return NotFound(f"{expected}, which no event there ever had: look at its events")
    made = read_id(id)
    if made is None:
        return NotFound(f"{expected}: none has it, or its event was among the {gone:,} that were not kept")
    if first is None or made.time_ns < first.batch.time(0):
        return NotFound(
            f"{expected}: it is from {time_text(made.time_ns)}, and what was fired then is not kept any more"
        )
    return NotFound(f"{expected}, which no event there has: look at its events")
