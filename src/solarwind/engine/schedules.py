"""Schedules: definitions of a store, each with the topic on which an event is fired at every tick.

Who declares, pauses or removes one changes the definition, from any process. The dispatcher of its topic fires. An
event's id is made from the schedule's name and the tick, so it is accepted once, also by a dispatcher that took over
and does not know yet that the one before fired it. What was fired last is in the definition.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from secrets import randbelow
from typing import Any

import msgspec

from ..batch import MAX_PRODUCERS, Batch, seal
from ..errors import BadArgument, ConflictError, NotFound, SolarWindError
from ..event import Cause
from ..origin import MACHINE, process_name
from ..payload import JSON
from ..records import ScheduleInfo
from ..schedule import Ticks
from ..store.base import Full, Store
from ..store.definitions import Definition, Definitions
from ..timing import time_of
from .alarm import Wakeup
from .arguments import Content, Every, FiredTopic, Missed, Payload, ScheduleName, Zone
from .clock import Clock

log = logging.getLogger("solarwind")

KIND = "schedule"
SHOWN = 5  # ticks that are shown
LATE_NS = 60_000_000_000  # a tick that is later than that was missed
LOOK_NS = 60_000_000_000  # how often to check whether the machine's clock was set
AHEAD_NS = 3_600_000_000_000  # a last tick that is further ahead is of a clock that was wrong
_AGAIN_NS = 1_000_000_000  # after a tick could not be fired
_TRIES = 100


class Schedule(msgspec.Struct, frozen=True):
    """A schedule as it is stored. Times are in ns since 1970; 0 is never.

    `last` is the tick up to which everything is done, `fired` the one of the last event, and `missed_at` the one of the
    last that was skipped. It is paused since `paused`.
    """

    topic: str
    every: str
    zone: str
    payload: bytes
    content: str
    missed: Missed
    last: int
    fired: int = 0
    missed_at: int = 0
    paused: int = 0

    def is_stated_as(self, other: Schedule) -> bool:
        """Return whether both state the same."""
        return all(getattr(self, name) == getattr(other, name) for name in _STATED)


_STATED = ("topic", "every", "zone", "payload", "content", "missed")
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Schedule).decode


def event_id(name: str, tick: int) -> str:
    """Return the id of the event that a schedule fires at a tick, such as `nightly@2026-11-28T02:30:00Z`; between two
    ticks with milliseconds."""
    time, ms = time_of(tick), f".{tick // 1_000_000 % 1_000:03d}" if tick % 1_000_000_000 else ""
    return f"{name}@{time:%Y-%m-%dT%H:%M:%S}{ms}Z"


class ScheduleOperations:
    """What can be asked about schedules, wherever there are definitions and a way to fire."""

    def _stored_definitions(self) -> Definitions:
        """Return the definitions of the store."""
        raise NotImplementedError

    def submit(self, batch: Batch) -> asyncio.Future[None]:
        """See `Engine`."""
        raise NotImplementedError

    def _wall_time(self) -> int:
        """Return the time in ns since 1970."""
        raise NotImplementedError

    async def declare_schedule(
        self,
        topic: FiredTopic,
        name: ScheduleName,
        every: Every,
        payload: Payload = b"null",
        content: Content = JSON,
        zone: Zone = "UTC",
        missed: Missed = "skip",
    ) -> None:
        """Fire an event on the topic at every tick: see `SolarWind.every`. What is stated anew counts from now on.
        Raise `ConflictError` where a schedule of that name is on another topic."""
        stated = Schedule(topic, every, zone, payload, content, missed, self._wall_time())

        def change(before: Schedule | None) -> Schedule:
            if before is None:
                return stated
            if before.topic != topic:
                raise ConflictError(
                    f"expected schedule {name!r} on {before.topic!r} as it was declared before, got it on {topic!r}: "
                    "name it otherwise, or remove the other one"
                )
            if before.is_stated_as(stated):
                return before
            log.warning("schedule %r is declared anew: %s", name, _difference(before, stated))
            return msgspec.structs.replace(stated, paused=before.paused, fired=before.fired)

        await self._change(name, change)

    async def schedules(self) -> list[ScheduleInfo]:
        """Return all schedules by name, each with its next ticks."""
        now = self._wall_time()
        return [_info(each.name, _read(each), now) for each in await self._stored_definitions().list(KIND)]

    async def schedule(self, name: ScheduleName) -> ScheduleInfo:
        """Return a schedule, with its next ticks. Raise `NotFound`."""
        return _info(name, _there(name, (await self._find(name))[0]), self._wall_time())

    async def pause_schedule(self, name: ScheduleName) -> None:
        """Fire nothing at a schedule's ticks until it is resumed. Raise `NotFound`."""
        now = self._wall_time()

        def change(before: Schedule | None) -> Schedule:
            found = _there(name, before)
            return found if found.paused else msgspec.structs.replace(found, paused=now)

        await self._change(name, change)

    async def resume_schedule(self, name: ScheduleName) -> None:
        """Go on with the next tick of a schedule that is paused. Raise `NotFound`."""
        now = self._wall_time()

        def change(before: Schedule | None) -> Schedule:
            found = _there(name, before)
            return msgspec.structs.replace(found, paused=0, last=now) if found.paused else found

        await self._change(name, change)

    async def run_schedule(self, name: ScheduleName) -> str:
        """Fire a schedule's event now, besides its ticks. Return the event's id. Raise `NotFound`."""
        now = self._wall_time()
        batch = make_event(name, _there(name, (await self._find(name))[0]), now)
        await self.submit(batch)
        await self._change(name, lambda found: msgspec.structs.replace(_there(name, found), fired=now))
        return batch.id(0)

    async def remove_schedule(self, name: ScheduleName) -> None:
        """Forget a schedule. A process that declares it makes it again when it starts, or its server has forgotten all.
        Raise `NotFound`."""
        if await self._stored_definitions().remove(KIND, name) is None:
            raise _no_schedule(name)

    async def _find(self, name: str) -> tuple[Schedule | None, int]:
        for each in await self._stored_definitions().list(KIND):
            if each.name == name:
                return _read(each), each.number
        return None, 0

    async def _change(self, name: str, change: Callable[[Schedule | None], Schedule]) -> None:
        """Put what `change` makes of it, unless that is the same. Others may change it at the same time."""
        for _ in range(_TRIES):
            found, number = await self._find(name)
            changed = change(found)
            if changed == found:
                return
            try:
                await self._stored_definitions().put(KIND, name, _encode(changed), before=number)
                return
            except ConflictError:
                continue
        raise ConflictError(f"expected to change schedule {name!r}, but others keep changing it: try again")


OF_SCHEDULES = tuple(name for name in vars(ScheduleOperations) if "schedule" in name)


class _Running(msgspec.Struct):
    """A schedule of this dispatcher, and when its next tick is. `ticks` is None where they cannot be read here."""

    schedule: Schedule
    number: int
    ticks: Ticks | None
    next: int | None


class Scheduler:
    """Fires the schedules of the topics of one dispatcher. It has a task only while there is something to do."""

    def __init__(
        self,
        store: Store,
        submit: Callable[[Batch], Awaitable[None]],
        clock: Clock,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
    ) -> None:
        self._store = store
        self._submit = submit
        self._clock = clock
        self._spawn = spawn
        self._wakeup = Wakeup(clock, self._wake)
        self._again = False
        self._end_watch: Callable[[], None] = lambda: None
        self._running: dict[str, _Running] = {}
        self._failing: set[str] = set()  # those whose last tick could not be fired, which is tried again
        self._stuck: dict[str, str] = {}  # why those, and those whose ticks cannot be read, fire nothing; it was said
        self.at_work: object | None = None  # another one each time

    def start(self) -> None:
        """Follow the schedules, and fire at each tick."""
        self._end_watch = self._store.definitions.watch(KIND, self._told)
        self.at_work = object()
        self._spawn(self._begin())

    def stop(self) -> None:
        """Set no further timer."""
        self._end_watch()
        self._wakeup.stop()

    def missed(self) -> list[tuple[str, Schedule]]:
        """Return the schedules whose last tick was skipped."""
        return [
            (name, each.schedule)
            for name, each in self._running.items()
            if each.schedule.missed_at > each.schedule.fired and not each.schedule.paused
        ]

    def stuck(self) -> list[tuple[str, Schedule, str]]:
        """Return the schedules that fire nothing though they should, and why."""
        found = [(name, self._running[name].schedule, why) for name, why in self._stuck.items()]
        return [each for each in found if not each[1].paused]

    async def _begin(self) -> None:
        for each in await self._store.definitions.list(KIND):
            self._told(each)
        await self._work()

    async def _work(self) -> None:
        """Fire what is due, until nothing is."""
        self._again = True
        while self._again:
            self._again = False
            await self._fire_due()
        self.at_work = None
        self._set_timer()

    def _wake(self) -> None:
        self._again = True
        if self.at_work is None:
            self.at_work = object()
            self._spawn(self._work())

    def _told(self, definition: Definition) -> None:
        """Follow a schedule that was changed; it is told more than once. What it fired stays fired."""
        name, known = definition.name, self._running.get(definition.name)
        if known is not None and known.number >= definition.number:
            return
        self._forget(name)
        if definition.value is not None:
            schedule = _read(definition)
            if known is not None and known.schedule.last > schedule.last:
                done = known.schedule
                schedule = msgspec.structs.replace(schedule, last=done.last, fired=done.fired, missed_at=done.missed_at)
            if self._store.owns(schedule.topic):
                ticks = self._ticks(name, schedule)
                following = None if ticks is None else ticks.after(schedule.last)
                self._running[name] = _Running(schedule, definition.number, ticks, following)
        self._wake()

    def _ticks(self, name: str, schedule: Schedule) -> Ticks | None:
        """Return when it has its ticks; None where that cannot be read, as on a machine without its time zone."""
        try:
            return Ticks(schedule.every, schedule.zone)
        except BadArgument as error:
            log.error("schedule %r fires nothing, since this machine cannot tell its ticks: %s", name, error)
            self._stuck[name] = str(error)
            return None

    def _forget(self, name: str) -> None:
        self._running.pop(name, None)
        self._stuck.pop(name, None)
        self._failing.discard(name)

    def _set_timer(self) -> None:
        """Wake up at the next tick; or earlier, since the machine's clock may be set."""
        ahead = [each.next for each in self._running.values() if each.next is not None and not each.schedule.paused]
        if ahead:
            wait = _AGAIN_NS if self._failing else max(0, min(ahead) - self._clock.wall())
            self._wakeup.set(self._clock.now() + min(wait, LOOK_NS))

    async def _fire_due(self) -> None:
        for name, each in list(self._running.items()):
            now = self._clock.wall()
            if each.schedule.last > now + AHEAD_NS:
                log.warning("schedule %r was last fired in the future, by a clock that was wrong: it goes on", name)
                await self._done(name, each, now)
            elif each.next is not None and each.next <= now and not each.schedule.paused:
                try:
                    await self._fire(name, each, now)
                    self._failing.discard(name)
                    self._stuck.pop(name, None)
                except (SolarWindError, Full) as error:
                    if name not in self._stuck:
                        log.error("schedule %r cannot be fired, which is tried again: %s", name, error)
                    if name in self._running:
                        self._failing.add(name)
                        self._stuck[name] = str(error)

    async def _fire(self, name: str, running: _Running, now: int) -> None:
        """Fire the last tick that is due. Those before it, and one that is late and to be skipped, are missed."""
        assert running.ticks is not None
        schedule, tick = running.schedule, running.ticks.until(now)
        assert tick is not None
        if now - tick > LATE_NS and schedule.missed == "skip":
            log.warning("schedule %r missed its time: nothing was fired for %s", name, event_id(name, tick))
            await self._done(name, running, tick, missed_at=tick)
            return
        await self._submit(make_event(name, schedule, tick))
        await self._done(name, running, tick, fired=tick)

    async def _done(self, name: str, running: _Running, last: int, **more: int) -> None:
        """Note that everything up to a tick is done, also where others change the schedule at the same time."""
        definitions = self._store.definitions
        running.schedule = msgspec.structs.replace(running.schedule, last=last, **more)
        for _ in range(_TRIES):
            try:
                self._told(await definitions.put(KIND, name, _encode(running.schedule), before=running.number))
                return
            except ConflictError:
                found = [each for each in await definitions.list(KIND) if each.name == name]
                self._told(found[0] if found else Definition(KIND, name, None, running.number + 1))
                if (changed := self._running.get(name)) is None:
                    return
                running = changed
        raise ConflictError(f"expected to note when schedule {name!r} was fired, but others keep changing it")


def make_event(name: str, schedule: Schedule, time: int) -> Batch:
    """Return the event of a schedule, as a batch of its own."""
    return seal(
        schedule.topic,
        [schedule.payload],
        [time],
        producer=randbelow(MAX_PRODUCERS),
        first=1,
        machine=MACHINE,
        process=process_name(),
        content=schedule.content,
        ids=[event_id(name, time)],
        causes=[Cause.schedule(name)],
    )


def _info(name: str, schedule: Schedule, now: int) -> ScheduleInfo:
    shown: list[datetime] = []
    try:
        ticks = Ticks(schedule.every, schedule.zone)
        words = ticks.words
        at = ticks.after(now)
        while at is not None and len(shown) < SHOWN:
            shown.append(time_of(at))
            at = ticks.after(at)
    except BadArgument as error:
        words = f"not known here: {error}"
    return ScheduleInfo(
        name=name,
        topic=schedule.topic,
        every=schedule.every,
        zone=schedule.zone,
        words=words,
        missed=schedule.missed,
        state="paused" if schedule.paused else "running",
        fired=time_of(schedule.fired) if schedule.fired else None,
        missed_at=time_of(schedule.missed_at) if schedule.missed_at else None,
        next=() if schedule.paused else tuple(shown),
    )


def _read(definition: Definition) -> Schedule:
    return _decode(definition.value or b"")


def _there(name: str, schedule: Schedule | None) -> Schedule:
    if schedule is None:
        raise _no_schedule(name)
    return schedule


def _no_schedule(name: str) -> NotFound:
    return NotFound(
        f"expected a schedule that is declared, got {name!a}, which is not: `solarwind schedules list` shows them"
    )


def _difference(before: Schedule, after: Schedule) -> str:
    """Return in words what changed; a payload may be secret."""
    changed = [name for name in _STATED if getattr(before, name) != getattr(after, name)]
    return ", ".join(
        "another payload" if name == "payload" else f"{name} {getattr(after, name)!a}, before {getattr(before, name)!a}"
        for name in changed
    )
