"""What needs a person: one list, made when it is asked for from what is known already.

Each function of `OF_PURPOSES` says what of a purpose does, each of `OF_ENGINE` what of the dispatcher and its store.
Another fact is one more function there.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import StoreError
from ..records import Attention, AttentionKind
from ..timing import time_of
from .nobody import way_out, without
from .rest import Rest

if TYPE_CHECKING:
    from ..core.dispatcher import Dispatcher
    from ..core.purpose import Purpose
    from ..store.base import Store
    from .nobody import NobodyUp
    from .relays import RelayNotes
    from .release import Releaser
    from .room import Room
    from .schedules import Scheduler
    from .schemas import Schemas
    from .wall import WallClock

_NEAR = 20  # a store is nearly full where less than one part in so many is free,
_NEAR_BYTES = 5 << 30  # and so many bytes


class Facts(msgspec.Struct, frozen=True):
    """What a dispatcher knows, at a time."""

    now: int  # ns since 1970
    dispatcher: Dispatcher
    store: Store
    room: Room
    nobody_up: NobodyUp
    releaser: Releaser
    scheduler: Scheduler
    wall: WallClock
    relays: RelayNotes
    schemas: Schemas


async def find(facts: Facts) -> list[Attention]:
    """Return what needs a person, in no order."""
    found = [each for question in OF_ENGINE for each in question(facts)]
    purposes = [purpose for topic in facts.dispatcher.topics.values() for purpose in topic.purposes.values()]
    rest = Rest()
    for purpose in purposes:
        if purpose.name in facts.dispatcher.topics[purpose.topic].purposes:
            found += [each for question in OF_PURPOSES for each in question(facts, purpose)]
        await rest.now_and_then()
    return found


# Of the dispatcher and its store ----------------------------------------------------------------------------------


def store_refuses(facts: Facts) -> Iterator[Attention]:
    """Say that new events are refused, because there is no room for them."""
    if facts.room.full:
        text = f"The store refuses new events since there is no room for them: {facts.room.why}"
        yield Attention("store full", "high", "", "", time_of(facts.room.since), text, "solarwind topics")


def store_nearly_full(facts: Facts) -> Iterator[Attention]:
    """Say that there is little room left."""
    space = facts.store.space() if not facts.room.full else None
    if space is not None and space.free < min(space.size // _NEAR, _NEAR_BYTES):
        text = f"The store is nearly full: {space.free:,} of {space.size:,} bytes are left for it"
        yield Attention("store nearly full", "medium", "", "", None, text, "solarwind topics")


def delayed_stuck(facts: Facts) -> Iterator[Attention]:
    """Say that delayed events do not enter their topics."""
    try:
        facts.releaser.check()
    except StoreError as error:
        text = f"Delayed events do not enter their topics: {error}"
        yield Attention("delayed events stuck", "high", "", "", None, text, "solarwind topics")


def schedule_missed(facts: Facts) -> Iterator[Attention]:
    """Say that a schedule fired nothing at its last tick."""
    for name, schedule in facts.scheduler.missed():
        text = (
            f"Schedule {name!r} missed its time: nothing ran it then, and it skips what is late; run it now where that "
            "is needed"
        )
        since, runs = time_of(schedule.missed_at), command("schedules", "run", names=(name,))
        yield Attention("schedule missed", "medium", schedule.topic, "", since, text, runs)


def schedule_stuck(facts: Facts) -> Iterator[Attention]:
    """Say that a schedule cannot be fired."""
    for name, schedule, why in facts.scheduler.stuck():
        since = time_of(schedule.fired) if schedule.fired else None
        text = f"Schedule {name!r} fires nothing: {why}"
        shows = command("schedules", "show", names=(name,))
        yield Attention("schedule stuck", "high", schedule.topic, "", since, text, shows)


def clock(facts: Facts) -> Iterator[Attention]:
    """Say that the machine's clock was wrong, or is."""
    facts.wall.look()
    if found := facts.wall.wrong():
        since, text = found
        yield Attention("clock", "medium", "", "", time_of(since), text, "timedatectl")


def outbox(facts: Facts) -> Iterator[Attention]:
    """Say that events of an outbox do not arrive: they were refused, or its relay is behind or without its database."""
    counted: set[str] = set()  # outboxes: each of their relays counts the same rows
    for (database, process), note in facts.relays.items():
        relay, since = f"The relay of the outbox in {database}, in {process},", note.since
        status = shlex.join(("solarwind", "outbox", "status", "--database", database))
        if note.error:
            text = f"{relay} does not reach its database, so its events wait"
            yield Attention("outbox", "high", "", "", time_of(since["error"]), text, status, note.error)
        elif note.behind:
            text = f"{relay} is {note.behind / 60:,.0f} minutes behind"
            yield Attention("outbox", "medium", "", "", time_of(since["behind"]), text, status)
        if note.refused and database not in counted:
            counted.add(database)
            what = "1 event" if note.refused == 1 else f"{note.refused:,} events"
            text = f"{what} of the outbox in {database} cannot be fired: see why, and redrive or delete them"
            yield Attention("outbox", "medium", "", "", time_of(since["refused"]), text, status)


# Of a purpose -----------------------------------------------------------------------------------------------------


def nobody_up(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that events pend for which no instance is at work."""
    end = _end(facts, purpose)
    if purpose in facts.dispatcher.alone and purpose.state(end, facts.now) == "nobody up":
        what = _pend(purpose.pending(end))
        text = f"{what}, and no instance{without(purpose)} is at work: start one, or {way_out(purpose)}"
        help_with = command("purposes", names=(purpose.topic,))
        if purpose.instances:
            help_with = command("rollout", "show", names=purpose.key)
        yield _of(purpose, "nobody up", "high", facts.nobody_up.since(purpose), text, help_with)


def failing(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that handlers raise and nothing is settled."""
    if purpose.failing_since and purpose.state(_end(facts, purpose), facts.now) == "failing":
        error = next((each.error for each in purpose.instances.values() if each.error), None)
        text = "Its handlers raise, and nothing was settled since"
        shown = command("instances", names=(purpose.topic,))
        yield _of(purpose, "failing", "high", purpose.failing_since, text, shown, error)


def held_back(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that events pend from before a fan-out, which hands out only what is fired."""
    fanouts = [track for track in purpose.tracks.values() if track.exchange is not None and not track.exchange.pends]
    if count := sum([track.pending(_end(facts, purpose)) for track in fanouts]):
        text = (
            f"{_pend(count)} from before its exchange became {purpose.active.exchange!r}, which hands out only what is "
            "fired: promote a version whose exchange pends"
        )
        yield _of(purpose, "held back", "medium", 0, text, command("rollout", "show", names=purpose.key))


def dead_letters(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that there are dead letters, and whether they grow."""
    if count := purpose.dead_count:
        letters = "1 dead letter" if count == 1 else f"{count:,} dead letters"
        grows = purpose.has_died_lately(facts.now)
        text = (
            f"It has {letters}" + (", and got the last within an hour" if grows else "") + ": redrive or discard them"
        )
        shown = command("dead", "list", names=purpose.key)
        yield _of(purpose, "dead letters", "medium" if grows else "low", purpose.died_at, text, shown)


def silent_instances(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Name the instances that are silent though they had events in hand."""
    for instance in purpose.instances.values() if any((+purpose.silent).values()) else ():
        if instance.silent and not instance.leaving:
            text = f"Its instance in {instance.origin or 'an unnamed process'} is silent: its lease ended, others go on"
            shown = command("instances", names=(purpose.topic,))
            yield _of(purpose, "silent instance", "medium", instance.alive_until, text, shown)


def paused(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that a purpose is paused and has events."""
    end = _end(facts, purpose)
    if purpose.paused and purpose.pending(end):
        text = f"It is paused, and {_pend(purpose.pending(end))}: resume it when it may go on"
        yield _of(purpose, "paused", "low", purpose.paused, text, command("resume", names=purpose.key))


def unreadable(facts: Facts, purpose: Purpose) -> Iterator[Attention]:
    """Say that not all that comes can be read as the current version states."""
    if found := facts.schemas.fault_of(purpose, purpose.pending(_end(facts, purpose))):
        fault, since = found
        text = f"{fault[:1].upper()}{fault[1:]}"
        yield _of(purpose, "schema", "medium", since, text, command("types", names=(purpose.topic,)))


OF_ENGINE: tuple[Callable[[Facts], Iterator[Attention]], ...] = (
    store_refuses,
    store_nearly_full,
    delayed_stuck,
    schedule_missed,
    schedule_stuck,
    clock,
    outbox,
)
OF_PURPOSES: tuple[Callable[[Facts, Purpose], Iterator[Attention]], ...] = (
    nobody_up,
    failing,
    held_back,
    dead_letters,
    silent_instances,
    paused,
    unreadable,
)


def _of(
    purpose: Purpose,
    kind: AttentionKind,
    urgency: Literal["high", "medium", "low"],
    since: int,
    text: str,
    command: str,
    error: str | None = None,
) -> Attention:
    when = time_of(since) if since else None
    return Attention(kind, urgency, purpose.topic, purpose.name, when, text, command, error)


def _end(facts: Facts, purpose: Purpose) -> int:
    return facts.dispatcher.topics[purpose.topic].end


def _pend(pending: int) -> str:
    return "1 event pends" if pending == 1 else f"{pending:,} events pend"


def command(*words: str, names: tuple[str, ...]) -> str:
    """Return a command line with these words and then names, whatever is in them."""
    ends = ["--"] if any(name.startswith("-") for name in names) else []  # the options: what follows is a name
    return shlex.join(("solarwind", *words, *ends, *names))
