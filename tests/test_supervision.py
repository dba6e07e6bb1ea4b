"""Whatever goes on in the background of a process has an owner that notices what nobody expects: it is logged, and the
owner goes on, or ends and says so. What a server does is in `server/test_supervision.py`, and a process on `nats://` in
`cluster/test_supervision.py`."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import pytest

from breaking import Once, Unexpected
from due_log import events
from solarwind import Event, Later, Retry, SolarWind, StoreError
from solarwind.batch import Batch
from solarwind.core.dispatcher import Dispatcher
from solarwind.core.effects import Report
from solarwind.core.log import Stored
from solarwind.core.state import Change, Snapshot
from solarwind.engine.commits import Commits
from solarwind.engine.fetching import Fetcher
from solarwind.engine.held_reports import HeldReports
from solarwind.engine.history import Trimmer
from solarwind.engine.local import LocalEngine
from solarwind.engine.release import Releaser
from solarwind.lifecycle import serve
from solarwind.service import consumer, runner
from solarwind.service.buffer import ProducerBuffer
from solarwind.service.consumer import Consumer
from solarwind.service.group import Group
from solarwind.service.runner import Runner
from solarwind.store.base import Full
from solarwind.store.memory import MemoryStore
from solarwind.store.sqlite import SqliteStore
from solarwind.store.writeahead import WriteAheadLog
from solarwind.testing import FakeClock, memory_engine
from solarwind.testing.contract import on_loop, until
from solarwind.threads import Threads

# --- the engine -------------------------------------------------------------------------------------------------


class Store(SqliteStore):
    """Refuses events while it is `full`."""

    full = False

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self.fires = asyncio.Event()

    async def commit(
        self,
        batches: Sequence[Batch],
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        now: int,
        *more: Any,
    ) -> list[Stored | None]:
        if self.full and batches:
            raise Full("no room: free some")
        return await super().commit(batches, changes, snapshots, now, *more)

    async def has_room(self, size: int) -> bool:
        return not self.full


async def commits(wind: SolarWind) -> None:
    wind.fire("T")


async def commits_again(wind: SolarWind) -> None:
    await wind.fire("T")
    wind.fire("T")


async def is_due(wind: SolarWind) -> None:
    wind.fire("later")


async def postpones(wind: SolarWind) -> None:
    await wind.fire("many")


async def trims(wind: SolarWind) -> None:
    wind.topic("T", keep=0)
    await wind.fire("T")
    await wind.topics()


async def reads(wind: SolarWind) -> None:
    await wind.fire("T")
    assert isinstance(wind.engine, LocalEngine)
    wind.engine.limit_cache(0)
    await wind.fire("T")
    wind.on("T", purpose="late", since="beginning")(lambda: None)


async def is_full(wind: SolarWind) -> None:
    assert isinstance(wind.engine, LocalEngine)
    store = wind.engine.store
    assert isinstance(store, Store)
    await wind.fire("fires")  # whose handler fires what there is no room for
    await until(lambda: store.full)
    with pytest.raises(StoreError, match="no room"):
        await wind.fire("U")
    store.fires.set()
    await until(lambda: len(wind.engine._held))  # type: ignore[attr-defined]
    store.full = False


async def releases(wind: SolarWind) -> None:
    wind.engine.submit(events("T", 1, due=[1]))


async def hands_out(wind: SolarWind) -> None:
    wind.fire("many")


@pytest.mark.parametrize(
    ("of", "cause"),
    [
        ((LocalEngine, "_commit_once"), commits),
        ((Dispatcher, "tick"), is_due),
        ((Dispatcher, "go_on"), postpones),
        ((Trimmer, "_trim"), trims),
        ((Fetcher, "read_settled"), reads),
        ((HeldReports, "count_next"), is_full),
        ((Releaser, "release"), releases),
        ((WriteAheadLog, "_checkpoint"), commits),
        ((SqliteStore, "_insert_pending"), commits_again),
        ((Consumer, "deliver"), hands_out),
        ((Commits, "fire"), hands_out),
    ],
    ids=[
        *("commits", "timers", "postponed work", "trimming", "reading", "held reports", "the due-log", "upkeep"),
        "the journal",
        *("handing out", "what was fired"),
    ],
)
@on_loop
async def test_an_engine_whose_background_work_raises_says_so_and_ends_loudly(
    of: tuple[type, str],
    cause: Callable[[SolarWind], Awaitable[None]],
    once: Once,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr("solarwind.core.dispatcher.PURPOSES_A_TURN", 1)
    monkeypatch.setattr("solarwind.store.writeahead._LOG_BYTES", 1)
    monkeypatch.setattr("solarwind.store.journal.MAX_COMMITS", 1)
    store = Store(str(tmp_path / "wind.db"))
    wind = SolarWind(engine=LocalEngine(store), grace=0)

    @wind.on("later", purpose="p")
    async def again(event: Event) -> None:
        if event.attempt == 1:
            raise Later(0.001)

    @wind.on("fires", purpose="p")
    async def fires() -> None:
        store.full = True
        await store.fires.wait()
        wind.fire("U")

    for purpose in "abc":
        wind.on("many", purpose=purpose)(lambda: None)
    await wind.start()
    try:
        raised = once(*of)
        with contextlib.suppress(StoreError):
            await cause(wind)
        with pytest.raises(StoreError):
            await asyncio.wait_for(wind.failed, 60)
        assert raised
        with pytest.raises(StoreError):
            wind.engine.check()
        with pytest.raises(StoreError):
            await wind.fire("T")
        assert "solarwind stops" in caplog.text
        assert "Unexpected" in caplog.text
    finally:
        with contextlib.suppress(StoreError):
            await wind.stop()


# --- services ---------------------------------------------------------------------------------------------------


@on_loop
async def test_a_report_in_time_that_raises_is_followed_by_the_next(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    gate = asyncio.Event()
    async with SolarWind("memory://") as wind:

        @wind.on("T", purpose="p", concurrency=2)
        async def handle(number: int) -> None:
            if number:
                await gate.wait()

        raised = once(Consumer, "_is_held_up")
        await wind.fire_many("T", range(2))
        await until(lambda: raised, "a report")
        await until(lambda: settled(wind), "what is done to be reported while the other event is at work")
        gate.set()
        assert "Unexpected: _is_held_up" in caplog.text


async def settled(wind: SolarWind) -> int:
    return (await wind.statistics()).purposes["T", "p"].settled


@pytest.mark.parametrize("of", [(LocalEngine, "report"), (Consumer, "_seal")], ids=["the report", "what is fired"])
@on_loop
async def test_an_event_that_cannot_be_reported_is_tried_again_while_its_instance_goes_on(
    of: tuple[type, str], once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    seen: list[tuple[int, int]] = []
    async with SolarWind("memory://") as wind:

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            seen.append((number, event.attempt))
            wind.fire("U", number)

        raised = once(*of)
        await wind.fire("T", 1)
        await until(lambda: raised)
        await wind.fire("T", 2)
        await wind.settled(60)
        assert sorted(seen) == [(1, 1), (1, 2), (2, 1)]
        assert (await wind.statistics()).topics["U"].fired == 2
        assert "events of 'p' on 'T' could not be reported" in caplog.text


@on_loop
async def test_a_lease_that_could_not_be_renewed_is_renewed_in_time(
    once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.testing.clock.HANGS_S", 0.02)  # the handler is not waited for
    clock = FakeClock()
    async with SolarWind(engine=memory_engine(clock), grace=0) as wind:
        gate, attempts = asyncio.Event(), list[int]()

        @wind.on("T", purpose="p", lease=30)
        async def handle(event: Event) -> None:
            attempts.append(event.attempt)
            await gate.wait()

        await wind.fire("T")
        await until(lambda: attempts)
        raised = once(LocalEngine, "alive")
        for _ in range(5):
            with contextlib.suppress(Unexpected):
                await clock.advance(6)
        assert raised
        await clock.advance(120)
        gate.set()
        await wind.settled(60)
        assert attempts == [1], "it was never another's"


class Bounded(LocalEngine):
    """Counts what is reported, and ends what reports without an end."""

    reports = 0

    def report(self, report: Report, fired: Collection[Batch]) -> bool:
        self.reports += 1
        assert self.reports < 1_000
        return super().report(report, fired)


@pytest.mark.parametrize("how", ["each", "batch", "thread", "stream"])
@on_loop
async def test_what_was_not_begun_before_the_process_stood_still_for_longer_than_the_lease_is_handled(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where a handler blocks the loop: it is given back, and the engine, in this process, hands it out again."""
    stood_s, seen = 0.0, list[int]()
    for module in (consumer, runner):
        monkeypatch.setattr(module, "monotonic", lambda: time.monotonic() + stood_s)

    def stand_still(numbers: Sequence[int]) -> None:
        nonlocal stood_s
        if not seen:
            stood_s += 60
        seen.extend(numbers)

    wind = SolarWind(engine=Bounded(MemoryStore()))
    if how == "each":

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            stand_still([number])

    elif how == "batch":

        @wind.on("T", purpose="p", batch=2)
        async def handle_some(numbers: list[int]) -> None:
            stand_still(numbers)

    elif how == "thread":

        @wind.on("T", purpose="p", concurrency=1)
        def handle_on_thread(number: int) -> None:
            stand_still([number])

    async with wind:
        if how == "stream":
            async with wind.listen("T", "p") as events:
                wind.fire_many("T", range(9))
                async for event in events:
                    stand_still([event.payload])
                    if len(seen) == 9:
                        break
        else:
            await wind.fire_many("T", range(9))
            await wind.settled(60)
    assert sorted(seen) == list(range(9))


@pytest.mark.parametrize("of", ["_handle_each", "_each_on_thread"])
@on_loop
async def test_a_worker_that_raises_is_replaced_and_its_events_are_handled(
    of: str, once: Once, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("solarwind.service.runner.REPLACE_S", 0)
    seen: list[int] = []
    async with SolarWind("memory://") as wind:
        if of == "_handle_each":

            @wind.on("T", purpose="p")
            async def handle(number: int) -> None:
                seen.append(number)
        else:

            @wind.on("T", purpose="p")
            def handle_on_thread(number: int) -> None:
                seen.append(number)

        raised = once(Runner, of)
        await wind.fire_many("T", range(3))
        await wind.settled(60)
    assert raised
    assert seen == [0, 1, 2]
    assert "another takes its place" in caplog.text
    assert "Unexpected" in caplog.text


@pytest.mark.parametrize(
    ("of", "is_async"), [("note_fired", True), ("note_fired", False), ("_failure", True), ("leave_work", False)]
)
@on_loop
async def test_no_event_stays_in_hand_of_a_worker_that_raised(
    of: str, is_async: bool, once: Once, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.service.runner.REPLACE_S", 0)
    failed: set[int] = set()
    wind = SolarWind("memory://")

    def work(number: int) -> None:
        wind.fire("U", number)
        if number not in failed:
            failed.add(number)
            raise ValueError(number)

    async def work_async(number: int) -> None:
        work(number)

    wind.on("T", purpose="p", retry=Retry(wait=0))(work_async if is_async else work)
    async with wind:
        raised = once(Runner, of)
        await wind.fire_many("T", range(5))
        await wind.settled(60)
        assert raised
        assert (await wind.statistics()).topics["U"].fired == 5


@on_loop
async def test_a_thread_whose_job_raises_does_the_next_one(caplog: pytest.LogCaptureFixture) -> None:
    threads, done = Threads(1, "jobs"), list[int]()

    def raise_it() -> None:
        raise Unexpected

    threads.run(raise_it)
    threads.run(lambda: done.append(1))
    await until(lambda: done)
    threads.close(60)
    assert "a job on thread 'jobs 0' raised" in caplog.text


@pytest.mark.parametrize("of", [(Group, "seal"), (ProducerBuffer, "_weigh"), (ProducerBuffer, "pop_groups")])
@on_loop
async def test_what_cannot_be_sent_for_an_unexpected_reason_is_refused_and_the_next_is_accepted(
    of: tuple[type, str], once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with SolarWind("memory://") as wind:
        once(*of)
        with pytest.raises(Unexpected):
            await asyncio.wait_for(wind.fire("T"), 60)
        assert "not accepted: " in caplog.text
        assert "breaking.Unexpected" in caplog.text
        await asyncio.wait_for(wind.fire("T"), 60)


@on_loop
async def test_a_service_that_cannot_tell_whether_all_is_settled_ends_with_the_error(once: Once) -> None:
    once(SolarWind, "_settle")
    with pytest.raises(Unexpected):
        await serve(SolarWind("memory://"), until_settled=True)


@on_loop
async def test_a_handler_that_cannot_join_a_running_process_is_logged_with_the_cause(
    once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with SolarWind("memory://") as wind:
        once(LocalEngine, "join")
        wind.on("T", purpose="p")(lambda: None)
        await until(lambda: "refused: join" in caplog.text)
        assert "breaking.Unexpected" in caplog.text
        assert not wind.handlers
