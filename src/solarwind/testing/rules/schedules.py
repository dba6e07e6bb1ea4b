"""Schedules: one event at every tick, whoever declares them, and whatever becomes of who fires them."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from ...errors import BadArgument, BadName, BadPayload, ConflictError, NotFound, TooLarge
from ...event import Cause, Event
from ...operations import Internal
from ...wind import SolarWind
from ..clock import FakeClock
from .place import Place, a_while, on_loop, refused, until

_S = 1_000_000_000


def _at(seconds: int) -> datetime:
    return datetime.fromtimestamp(seconds, UTC)


def _next(clock: FakeClock, every: int) -> int:
    """Return the next tick of an interval, in seconds since 1970."""
    return (clock.wall() // _S // every + 1) * every


async def _tick(wind: SolarWind, clock: FakeClock, tick: int, events: list[Event]) -> None:
    """Let time pass until a tick, and wait until its event is settled."""
    count = len(events)
    await clock.advance(tick - clock.wall() / _S + 0.5)
    await until(lambda: len(events) > count, "the event of a tick")
    await wind.settled(60)
    assert len(events) == count + 1


def _gathers(wind: SolarWind, topic: str = "T") -> list[Event]:
    """Register a handler that gathers events."""
    events: list[Event] = []

    @wind.on(topic, purpose="p")
    async def handle(event: Event) -> None:
        events.append(event)

    return events


class ScheduleRules:
    """The rules of schedules."""

    @on_loop
    async def test_a_schedule_fires_one_event_at_every_tick_named_after_it(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()
        events = _gathers(wind)
        assert wind.every("5m", "T", {"what": "all"}, name="sweep") == "sweep"
        async with wind:
            first = _next(clock, 300)
            for number in range(3):
                await _tick(wind, clock, first + 300 * number, events)
            await until(lambda: _is_over(wind, "sweep", first + 600))
            (found,) = await wind.schedules()
        ticks = [_at(first), _at(first + 300), _at(first + 600)]
        assert [event.time for event in events] == ticks
        assert [event.id for event in events] == [f"sweep@{tick:%Y-%m-%dT%H:%M:%SZ}" for tick in ticks]
        assert {event.cause for event in events} == {Cause.schedule("sweep")}
        assert events[0].payload == {"what": "all"}
        assert (found.name, found.topic, found.words, found.state) == ("sweep", "T", "every 5 minutes", "running")
        assert found.fired == ticks[-1]
        assert found.next == tuple(_at(first + 600 + 300 * number) for number in range(1, 6))

    @on_loop
    async def test_a_crontab_goes_by_its_time_zone(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()
        events = _gathers(wind)
        wind.every("30 2 * * *", "T", name="nightly", zone="Europe/Berlin")
        async with wind:
            found = await wind.schedule("nightly")
            await _tick(wind, clock, int(found.next[0].timestamp()), events)
        assert found.words == "At 02:30 every day, Europe/Berlin time"
        assert [event.time for event in events] == [found.next[0]]
        assert events[0].payload is None

    @on_loop
    async def test_a_schedule_that_is_declared_again_is_the_same_one(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, wind = place.clock(), place.open()
        events = _gathers(wind)
        wind.every("5m", "T", name="s")
        async with wind:
            wind.every("5m", "T", name="s")
            await _tick(wind, clock, _next(clock, 300), events)
            assert len(await wind.schedules()) == 1
            assert "declared anew" not in caplog.text
            wind.every("1h", "T", "other", name="s")
            await until(lambda: _is_every(wind, "s", "1h"), "the later statement to count")
            assert "schedule 's' is declared anew: every '1h', before '5m', another payload" in caplog.text
            await _tick(wind, clock, _next(clock, 3600), events)
            assert [event.payload for event in events] == [None, "other"]

    @on_loop
    async def test_two_schedules_of_one_name_before_the_start_are_refused_where_they_are_declared(
        self, place: Place
    ) -> None:
        wind = place.open()
        for _ in range(2):  # as in a module that is imported twice
            wind.every("5m", "T", "one", name="s")
        with pytest.raises(ConflictError, match="one statement of schedule 's' before the start"):
            wind.every("5m", "U", "one", name="s")
        wind.every("1h", "T", "one")
        with pytest.raises(ConflictError, match=r"schedule 'T 1h'.* with name="):
            wind.every("1h", "T", "another")
        async with wind:
            assert [(each.name, each.topic) for each in await wind.schedules()] == [("T 1h", "T"), ("s", "T")]

    @on_loop
    async def test_a_schedule_is_of_one_topic(self, place: Place) -> None:
        wind = place.open()
        wind.every("5m", "T", name="s")
        async with wind:
            pass
        wind = place.restart()
        wind.every("5m", "U", name="s")
        await refused(wind.start(), ConflictError, "'s' on 'T'", "on 'U'", "name it otherwise")

    @on_loop
    async def test_a_paused_schedule_fires_nothing_and_goes_on_with_its_next_tick(self, place: Place) -> None:
        clock, wind = place.clock(), place.open()
        events = _gathers(wind)
        wind.every("5m", "T", name="s")
        async with wind:
            await wind.pause_schedule("s")
            await wind.pause_schedule("s")
            await clock.advance(3600)
            await a_while()
            paused = await wind.schedule("s")
            assert (paused.state, paused.next, events) == ("paused", (), [])
            await wind.resume_schedule("s")
            await _tick(wind, clock, _next(clock, 300), events)

    @on_loop
    async def test_a_schedule_is_run_at_once_besides_its_ticks_and_removed(self, place: Place) -> None:
        wind = place.open()
        events = _gathers(wind)
        name = wind.every("1d", "T", [1])
        async with wind:
            assert name == "T 1d"
            id = await wind.run_schedule(name)
            await wind.settled(60)
            assert [(event.id, event.payload, event.cause) for event in events] == [(id, [1], Cause.schedule(name))]
            await wind.remove_schedule(name)
            assert await wind.schedules() == []
            verbs = [entry.verb for entry in await wind.audit()]
        assert verbs == ["remove_schedule", "run_schedule"]

    @pytest.mark.parametrize("missed", ["skip", "once"])
    @on_loop
    async def test_ticks_while_nobody_ran_are_skipped_or_fired_once(self, place: Place, missed: Any) -> None:
        clock, wind = place.clock(), place.open()
        wind.every("5m", "T", name="s", missed=missed)
        _gathers(wind)  # so that the purpose is known when the ticks are fired
        async with wind:
            await wind.joined()
        wind = place.restart()
        events = _gathers(wind)
        clock.set_wall((clock.wall() // (3600 * _S) + 2) * 3600 * _S + 100 * _S)  # 100 s after several ticks
        async with wind:
            late = _next(clock, 300) - 300
            await until(lambda: _is_over(wind, "s", late), "the ticks that were missed to be over")
            await wind.settled(60)
            attention = [each for each in await wind.attention() if each.kind == "schedule missed"]
            assert [event.time for event in events] == ([] if missed == "skip" else [_at(late)])
            assert [each.command for each in attention] == (["solarwind schedules run s"] if missed == "skip" else [])
            await _tick(wind, clock, late + 300, events)
            assert events[-1].time == _at(late + 300)
            await until(lambda: _is_over(wind, "s", late + 300))
            assert [each for each in await wind.attention() if each.kind == "schedule missed"] == []

    @on_loop
    async def test_a_clock_that_was_years_ahead_does_not_silence_a_schedule(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        clock, wind = place.clock(), place.open()
        events = _gathers(wind)
        wind.every("5m", "T", name="s", missed="once")
        async with wind:
            right = clock.wall()
            clock.set_wall(right + 10 * 365 * 86_400 * _S)
            await _tick(wind, clock, _next(clock, 300), events)
            clock.set_wall(right + 600 * _S)
            await until(
                lambda: "by a clock that was wrong" in caplog.text, "it to notice", meanwhile=lambda: clock.advance(1)
            )
            tick = _next(clock, 300)
            await _tick(wind, clock, tick, events)
        assert events[-1].time == _at(tick)

    @on_loop
    async def test_what_cannot_be_a_schedule_is_refused(self, place: Place) -> None:
        wind = place.open()
        bad: Any
        for bad, words in (
            ("61 * * * *", "bad minute"),
            ("0 0 30 2 *", "bad day-of-month"),
            ("soon", "five fields of a crontab"),
            ("0s", "1s to 366d"),
            ("367d", "1s to 366d"),
            (5, "five fields of a crontab"),
        ):
            with pytest.raises(BadArgument, match=words):
                wind.every(bad, "T")
        with pytest.raises(BadArgument, match="time zone such as UTC or Europe/Berlin, got 'Mars'"):
            wind.every("@daily", "T", zone="Mars")
        with pytest.raises(BadArgument, match='"skip" or "once", got \'all\''):
            wind.every("@daily", "T", missed="all")  # type: ignore[arg-type]
        for bad in ("", " x", "x" * 151, 7):
            with pytest.raises(BadName, match="a schedule's name of 1 to 150"):
                wind.every("@daily", "T", name=bad)
        with pytest.raises(BadName):
            wind.every("@daily", "no topic")
        for zone in (ZoneInfo("Europe/Berlin"), None):
            with pytest.raises(BadArgument, match="the name of a time zone such as 'Europe/Berlin'"):
                wind.every("@daily", "T", zone=zone)  # type: ignore[arg-type]
        with pytest.raises(BadName, match="since topic and every together have 203: state name="):
            wind.every("1d", "T" * 200)
        with pytest.raises(BadArgument, match="bad minute"):
            wind.every("9" * 200 + " * * * *", "T")
        assert wind.every(" 30  2 * * *\n", "U") == "U 30 2 * * *"
        with pytest.raises(TooLarge):
            wind.every("@daily", "T", "x" * 40_000)
        async with wind:
            for payload in (b"", b"{x", b'"\xff"', b"[" * 10_000):
                declared = Internal.declare_schedule(wind, "T", "s", "1d", payload=payload)
                await refused(declared, BadPayload, "expected JSON")
            await wind.remove_schedule("U 30 2 * * *")
            assert await wind.schedules() == []
            for ask in (
                wind.schedule,
                wind.pause_schedule,
                wind.resume_schedule,
                wind.run_schedule,
                wind.remove_schedule,
            ):
                await refused(ask("none"), NotFound, "expected a schedule that is declared, got 'none'")


async def _is_every(wind: SolarWind, name: str, every: str) -> bool:
    return (await wind.schedule(name)).every == every


async def _is_over(wind: SolarWind, name: str, tick: int) -> bool:
    found = await wind.schedule(name)
    return _at(tick) in (found.fired, found.missed_at)
