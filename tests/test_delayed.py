"""Delayed events on their way through an engine: into the due-log, and when they are due into their topic."""

from __future__ import annotations

import asyncio
import logging
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from solarwind import Event, SolarWind, StoreError
from solarwind.batch import Batch, seal
from solarwind.core.log import Stored
from solarwind.engine.due import LOOK_NS
from solarwind.engine.local import LocalEngine
from solarwind.store import delays, journal
from solarwind.store.base import Full, Store
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.testing import FakeClock
from solarwind.testing.contract import on_loop, until

SECOND = 1_000_000_000
START = 1_800_000_000 * SECOND


class Place:
    """A store, and what runs over it one after the other, all by the same clock. Handlers note what they get, and
    after how many seconds."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.clock = FakeClock(START)
        self.seen: list[tuple[float, int]] = []
        self._first = 0

    def wind(self, *purposes: str) -> SolarWind:
        self.engine = LocalEngine(self.store, clock=self.clock)
        wind = SolarWind(engine=self.engine)
        for purpose in purposes:
            self.listen(wind, purpose)
        return wind

    def listen(self, wind: SolarWind, purpose: str = "p") -> None:
        @wind.on("T", purpose=purpose)
        async def note(event: Event) -> None:
            self.seen.append(((self.clock.now() - START) / SECOND, event.payload))

    def batch(self, *seconds: float | None) -> Batch:
        """Return events that are due after so many seconds, by the wall clock, with which everything began."""
        first, self._first = self._first, self._first + len(seconds)
        return seal(
            "T",
            [b"%d" % (first + index) for index in range(len(seconds))],
            [self.clock.wall()] * len(seconds),
            producer=1,
            first=first,
            machine="m",
            process="p",
            due=[None if each is None else START + round(each * SECOND) for each in seconds],
        )

    def has_handed_out(self, *expected: tuple[float, int]) -> bool:
        """Return whether these were handed out in this order, after so many seconds, or later where the disk is
        slow."""
        times = zip(self.seen, expected, strict=False)
        return [each for _, each in self.seen] == [each for _, each in expected] and all(
            found == due or (found > due and self.store.durable) for (found, _), (due, _) in times
        )

    async def delay(self, *seconds: float | None) -> None:
        await asyncio.wait_for(self.engine.submit(self.batch(*seconds)), 60)


@pytest.fixture(params=["memory", "sqlite"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Place:
    return Place(MemoryStore() if request.param == "memory" else SqliteStore(str(tmp_path / "wind.db")))


@pytest.fixture
def file(tmp_path: Path) -> Place:
    return Place(SqliteStore(str(tmp_path / "wind.db")))


@on_loop
async def test_a_delayed_event_is_handed_out_when_it_is_due_and_not_before(place: Place) -> None:
    async with place.wind("p") as wind:
        await place.delay(100)
        assert (await wind.statistics()).topics["T"].fired == 0
        await place.delay(50, None, 100, 7)
        await place.clock.advance(200)
        await wind.settled(60)
    assert place.has_handed_out((0, 2), (7, 4), (50, 1), (100, 0), (100, 3))


@on_loop
async def test_a_purpose_that_joins_before_an_event_is_due_gets_it_though_nobody_listened_before(place: Place) -> None:
    async with place.wind() as wind:
        await place.delay(10)
        await place.clock.advance(5)
        place.listen(wind)
        await place.clock.advance(10)
        await wind.settled(60)
    assert place.has_handed_out((10, 0))


@on_loop
async def test_the_oldest_event_that_pends_is_as_old_as_its_due_time_where_it_was_delayed(place: Place) -> None:
    async with place.wind() as wind:

        @wind.on("T", purpose="p")
        async def leave(number: int) -> None: ...

        await wind.settled(60)
        await wind.off(leave)
        await place.delay(100)
        assert (await wind.statistics()).purposes["T", "p"].oldest is None
        await place.clock.advance(200)
        await until(lambda: place.engine._dispatcher.topics["T"].end == 1)
        oldest = (await wind.statistics()).purposes["T", "p"].oldest
        assert oldest == datetime.fromtimestamp(START // SECOND + 100, UTC)


@on_loop
async def test_delayed_events_outlive_a_stop_and_those_due_meanwhile_are_handed_out_at_the_start(file: Place) -> None:
    async with file.wind("p"):
        await file.delay(10, 20, 30)
    await file.clock.advance(25)
    async with file.wind("p") as wind:
        await wind.settled(60)
        assert file.has_handed_out((25, 0), (25, 1))
        await file.clock.advance(10)
        await wind.settled(60)
    assert file.has_handed_out((25, 0), (25, 1), (30, 2))


@on_loop
async def test_an_event_is_late_where_the_clock_was_set_back_and_never_early(place: Place) -> None:
    async with place.wind("p") as wind:
        await place.delay(100)
        place.clock.set_wall(place.clock.now() - 1000 * SECOND)
        await place.clock.advance(1099)
        assert place.seen == []
        await place.clock.advance(LOOK_NS // SECOND)
        await wind.settled(60)
    assert place.has_handed_out((1100, 0))


@on_loop
async def test_a_clock_that_was_set_forward_is_noticed_within_a_minute(place: Place) -> None:
    async with place.wind("p") as wind:
        await place.delay(10_000)
        place.clock.set_wall(START + 10_000 * SECOND)
        await place.clock.advance(LOOK_NS // SECOND)
        await wind.settled(60)
    assert place.has_handed_out((60, 0))


@on_loop
async def test_what_a_handler_fires_for_later_is_delayed_in_the_commit_of_its_settle(file: Place) -> None:
    commits: list[tuple[int, int, int]] = []
    commit = file.store.commit

    async def noted(batches: Any, changes: Any, snapshots: Any, now: int, delayed: Any = (), *more: Any) -> Any:
        settled = sum(change.settled != [] for change in changes)
        commits.append((len(batches), settled, len(delayed)))
        return await commit(batches, changes, snapshots, now, delayed, *more)

    file.store.commit = noted  # type: ignore[method-assign]
    wind = file.wind("p")
    report = file.engine.report

    def fire_later(settle: Any, fired: Any) -> bool:
        return report(settle, [file.batch(30)] if file.clock.now() == START else ())

    file.engine.report = fire_later  # type: ignore[method-assign]
    async with wind:
        await wind.fire("T", -1)
        await wind.settled(60)
        assert [each for each in commits if each[2]] == [(0, 1, 1)]
        await file.clock.advance(30)
        await wind.settled(60)
    assert file.has_handed_out((0, -1), (30, 0))


class Failing:
    """Has the due-log raise `error` instead of releasing, while there is one."""

    def __init__(self, place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
        self.error: Exception | None = None
        self.times: list[float] = []
        self.asked = 0
        kind = type(place.store.delays)
        release, next_due = kind.release, kind.next_due

        async def releasing(due_log: Any, now: int) -> list[Stored]:
            self.times.append((now - START) / SECOND)
            if self.error is not None:
                raise self.error
            return await release(due_log, now)

        async def asking(due_log: Any) -> int | None:
            self.asked += 1
            return await next_due(due_log)

        monkeypatch.setattr(kind, "release", releasing)
        monkeypatch.setattr(kind, "next_due", asking)


@pytest.mark.parametrize("error", [Full("no room"), StoreError("no answer")], ids=["full", "failed"])
@on_loop
async def test_a_due_log_that_fails_is_asked_again_and_the_engine_is_not_ready_until_it_goes(
    place: Place, error: Exception, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(place, monkeypatch)
    caplog.set_level(logging.WARNING)
    async with place.wind("p") as wind:
        await place.delay(10)
        failing.error = error
        await place.clock.advance(11)
        assert failing.times == [10, 10.25, 10.75]
        with pytest.raises(StoreError, match="see the log"):
            place.engine.check()
        assert caplog.messages == [f"delayed events cannot enter their topics, which is tried again: {error}"]
        await wind.fire("T", 7)
        await until(lambda: place.seen == [(11, 7)])
        with pytest.raises(TimeoutError, match="left: delayed events that are due"):
            await wind.settled(0)
        failing.error = None
        await place.clock.advance(10)
        await wind.settled(60)
        place.engine.check()
        assert caplog.messages[1:] == ["delayed events enter their topics again"]
    assert place.has_handed_out((11, 7), (11.75, 0))


@on_loop
async def test_an_unexpected_error_of_a_release_ends_the_engine_loudly(
    place: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = Failing(place, monkeypatch)
    wind = place.wind("p")
    await wind.start()
    await place.delay(10)
    failing.error = RuntimeError("nobody expects it")
    place.clock.advance(10)
    with pytest.raises(StoreError, match="nobody expects it"):
        await wind.failed
    with pytest.raises(StoreError, match="nobody expects it"):
        place.engine.check()
    assert "the dispatcher's commits ended in an unexpected way" in caplog.text
    await wind.stop()


@on_loop
async def test_where_nothing_is_delayed_the_due_log_is_asked_only_at_the_start(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(place, monkeypatch)
    async with place.wind("p") as wind:
        for _ in range(3):
            await wind.fire("T", 1)
        await place.clock.advance(1000)
        await wind.settled(60)
    assert (failing.asked, failing.times) == (1, [])


@on_loop
async def test_an_engine_that_stops_leaves_what_is_due_for_the_next_start(
    file: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    failing = Failing(file, monkeypatch)
    file.wind()
    await file.engine.start()
    accepted = file.engine.submit(file.batch(0, 0))
    await file.engine.stop()
    assert (accepted.done(), failing.times) == (True, [])
    async with file.wind("p") as wind:
        await wind.settled(60)
    assert file.has_handed_out((0, 0), (0, 1))


@on_loop
async def test_others_have_their_turn_while_much_is_due(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delays, "RELEASE_ROWS", 5)
    monkeypatch.setattr("solarwind.store.delayed.RELEASE_ROWS", 5)
    failing = Failing(place, monkeypatch)
    turns: list[int] = []

    async def turn() -> None:
        while True:
            turns.append(len(failing.times))
            await asyncio.sleep(0)

    async with place.wind("p") as wind:
        for _ in range(50):
            place.engine.submit(place.batch(10))
        await wind.fire("T", -1)
        turning = asyncio.create_task(turn())
        await place.clock.advance(10)
        await wind.settled(60)
        turning.cancel()
    assert len(place.seen) == 51
    assert {*range(1, 10)} <= {*turns}, "between two releases"


@on_loop
async def test_a_delayed_event_that_comes_twice_is_handed_out_once(place: Place) -> None:
    async with place.wind("p") as wind:
        batch = place.batch(10)
        for _ in range(2):
            await place.engine.submit(batch)
        await place.clock.advance(20)
        await place.engine.submit(batch)
        await place.clock.advance(20)
        await wind.settled(60)
    assert place.has_handed_out((10, 0))


@on_loop
async def test_events_that_are_taken_back_at_a_time_share_commits_and_a_line_of_the_audit(tmp_path: Path) -> None:
    """The rule: what comes in one turn costs one commit, and is one thing that somebody did."""
    store = SqliteStore(str(tmp_path / "wind.db"))
    async with SolarWind(engine=LocalEngine(store)) as wind:
        ids = list((await wind.fire_many("T", range(100), after="1h")).ids)
        await wind.cancel("T", ids[0])
        before = _commits(store)
        assert all(await asyncio.gather(*(wind.cancel("T", id) for id in ids[1:])))
        assert _commits(store) - before == 2, "and that of the audit"
        last, first = await wind.audit()
        assert (first.arguments, first.events) == (msgspec.json.encode({"id": ids[0]}).decode(), 1)
        assert (last.verb, last.topic, last.events) == ("cancel", "T", 99)
        assert last.arguments.startswith(f'{{"ids":["{ids[1]}","{ids[2]}",')


def _commits(store: SqliteStore) -> int:
    """Return how many commits there were on the file, as another process sees it."""
    connection = apsw.Connection(store.path, flags=apsw.SQLITE_OPEN_READONLY)
    try:
        return journal.read(store.path, None, connection).last.number
    finally:
        connection.close()
