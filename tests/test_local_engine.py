"""What the loop of commits must not lose on its way to the store, seen at the store itself."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sampling import some
from solarwind import Cause, Reject, SolarWind, StoreError
from solarwind.batch import Batch, seal
from solarwind.core.effects import Join, Offer, Report
from solarwind.core.log import Stored
from solarwind.core.spans import Spans
from solarwind.core.state import Change, Letter, Snapshot
from solarwind.engine.cache import LogCache
from solarwind.engine.held_reports import HeldReports
from solarwind.engine.local import LocalEngine
from solarwind.operations import Internal
from solarwind.store.base import Full
from solarwind.store.sqlite import SqliteStore
from solarwind.testing import FakeClock
from solarwind.testing.contract import a_while, on_loop, until
from store.faultyvfs import faulty_disk


class Watched(SqliteStore):
    """Remembers what each commit had, and refuses all while `full`."""

    def __init__(self, path: Path) -> None:
        super().__init__(str(path))
        self.full = False
        self.refused = 0
        self.commits: list[tuple[list[Batch], list[Change], list[Snapshot]]] = []

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int, *more: Any
    ) -> list[Stored | None]:
        if self.full:
            self.refused += 1
            raise Full("no room: free some")
        stored = await super().commit(batches, changes, snapshots, now, *more)
        self.commits.append((list(batches), list(changes), list(snapshots)))
        return stored


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "wind.db"


class Holder:
    """A receiver that holds what it gets."""

    def __init__(self) -> None:
        self.offers: list[Offer] = []

    def told(self, text: str) -> None: ...

    def deliver(self, offer: Offer) -> None:
        self.offers.append(offer)

    def flush(self) -> None:
        """Do nothing."""

    def lost(self, lease: int | None = None) -> None:
        """Do nothing: it keeps its events."""

    def close(self, reason: str) -> None:
        """Do nothing: it stays."""


@on_loop
async def test_an_engine_that_stops_commits_nothing_once_its_store_is_being_closed(path: Path) -> None:
    """Though an instance leaves late, whose death is an attempt."""
    store, holder = Watched(path), Holder()
    engine = LocalEngine(store)
    await engine.start()
    instance = await engine.join(Join("T", "p"), "beginning", holder)
    await engine.submit(seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p"))
    await until(lambda: holder.offers)
    close = store.close
    commits: list[int] = []

    async def closing() -> None:
        commits.append(len(store.commits))
        await engine.leave(instance, died=True)
        for _ in range(10):
            await asyncio.sleep(0)
        commits.append(len(store.commits))
        await close()

    store.close = closing  # type: ignore[method-assign]
    await engine.stop()
    assert commits[0] == commits[1] > 0


@on_loop
async def test_what_the_disk_has_not_got_is_accepted_by_nobody_and_handed_to_nobody(path: Path) -> None:
    """Though it is dispatched while the disk is at work, where the loop waits for that."""

    def fault(kind: str, file: str) -> int:
        on_loop = threading.current_thread() is threading.main_thread()
        return apsw.SQLITE_IOERR_FSYNC if kind == "sync" and file.endswith("-commits") and on_loop else 0

    with faulty_disk() as disk:
        engine, holder = LocalEngine(SqliteStore(str(path), vfs=disk.name)), Holder()
        await engine.start()
        await engine.join(Join("T", "p", room=10_000), "beginning", holder)
        disk.fault = fault
        accepted = 0

        async def failed() -> bool:
            nonlocal accepted
            try:
                await engine.submit(_one(accepted))
            except StoreError:
                return True
            accepted += 1
            return False

        await until(failed, "a commit once the thread is idle")
        await a_while()
        assert [offer.picks for offer in holder.offers] == [range(at, at + 1) for at in range(accepted)]
        disk.fault = lambda kind, file: 0
        with suppress(StoreError):
            await engine.stop()


@on_loop
async def test_what_expires_while_the_disk_is_at_work_is_handed_to_nobody(path: Path) -> None:
    """And what does not expire by then is handed out, as is what never does."""
    hour_ns, slow = 3600 * 10**9, list[int]()
    clock = FakeClock()

    def fault(kind: str, file: str) -> int:
        if kind == "sync" and file.endswith("-commits") and threading.current_thread() is threading.main_thread():
            clock.set_wall(clock.wall() + hour_ns)
            slow.append(sent)
        return 0

    sent = 0
    with faulty_disk() as disk:
        engine, holder = LocalEngine(SqliteStore(str(path), vfs=disk.name), clock=clock), Holder()
        await engine.start()
        await engine.join(Join("T", "p", room=10_000), "beginning", holder)
        await engine.submit(_one(0))
        disk.fault = fault

        async def held_up() -> bool:
            nonlocal sent
            sent += 3
            for number, life_ns in ((sent - 2, hour_ns // 2), (sent - 1, 2 * hour_ns), (sent, None)):
                end = None if life_ns is None else clock.wall() + life_ns
                await engine.submit(_one(number, end))
            return sent in slow

        await until(held_up, "a commit once the thread is idle")
        disk.fault = lambda kind, file: 0
        picked = {position for offer in holder.offers for position in offer.picks}
        await engine.stop()
    assert slow
    assert picked >= {sent - 1, sent}
    assert sent - 2 not in picked


def _one(number: int, expires: int | None = None) -> Batch:
    return seal("T", [b"%d" % number], [1], producer=1, first=number, machine="m", process="p", expires=[expires])


def test_what_was_settled_while_there_was_no_room_is_on_disk_once_there_is(path: Path) -> None:
    seen: list[int] = []

    async def life(full: bool) -> None:
        store = Watched(path)
        wind = SolarWind(engine=LocalEngine(store))
        gate = asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            await gate.wait()
            seen.append(number)

        async with wind:
            if full:
                await wind.fire_many("T", range(10))
                store.full = True
                gate.set()
                await until(lambda: len(seen) == 10 and store.refused > 2)
                store.full = False
            gate.set()
            await wind.settled(60)

    asyncio.run(life(True))
    asyncio.run(life(False))
    assert sorted(seen) == list(range(10))


def test_all_that_a_handler_fired_is_in_the_commit_of_its_settle_however_much_it_is(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMIT_BYTES, 2000)
    store = Watched(path)
    wind = SolarWind(engine=LocalEngine(store))

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        for topic in ("U", "V", "W", "X"):
            wind.fire(topic, "x" * 3000)

    @wind.on("U", purpose="p")
    async def keep_it(text: str) -> None: ...

    async def main() -> None:
        async with wind:
            await wind.fire("T", 1)
            await wind.settled(60)

    asyncio.run(main())
    settling = [
        {batch.topic for batch in batches}
        for batches, changes, _ in store.commits
        if any(change.topic == "T" and change.settled for change in changes)
    ]
    assert settling == [{"U", "V", "W", "X"}]


COMMIT_BYTES = "solarwind.engine.commits.MAX_COMMIT_BYTES"


def test_a_purpose_is_snapshotted_after_so_many_commits_also_what_it_did_before_a_restart(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.engine.snapshots.SNAPSHOT_AFTER", 5)

    async def life(store: Watched, busy: str, times: int) -> list[str]:
        wind = SolarWind(engine=LocalEngine(store))

        @wind.on(busy, purpose=busy)
        async def handle() -> None: ...

        async with wind:
            for _ in range(times):
                await wind.fire(busy)
                await wind.settled(60)
        return [each.purpose for _, _, snapshots in store.commits for each in snapshots]

    assert asyncio.run(life(Watched(path), "first", 2)) == []
    snapshots = asyncio.run(life(Watched(path), "second", 10))
    assert set(snapshots) == {"first", "second"}
    assert (snapshots.count("first"), snapshots.count("second") <= 7) == (1, True), "of thirty commits, not after each"


def test_an_empty_read_counts_only_if_nothing_arrived_meanwhile(path: Path) -> None:
    class Late(Watched):
        late = True

        async def read(self, topic: str, position: int, max_bytes: int) -> list[Stored]:
            if self.late:  # it was asked just before a commit that brought what it was asked for
                self.late = False
                await wind.fire("T", 1)
                return []
            return await super().read(topic, position, max_bytes)

    store = Late(path)
    engine = LocalEngine(store)
    wind = SolarWind(engine=engine)

    async def main() -> None:
        wind.topic("T", keep=100)
        async with wind:
            await wind.fire("T", 0)
            assert [each.start for each in await engine._fetcher.read_settled("T", 0)] == [0, 1]

    asyncio.run(main())


def test_what_was_to_be_handed_out_after_a_commit_is_handed_out_though_there_was_no_room_for_it(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMIT_BYTES, 1000)  # what handlers fire is more: offers wait for commits
    store = Watched(path)
    wind = SolarWind(engine=LocalEngine(store))
    seen: list[int] = []

    @wind.on("T", purpose="p", concurrency=1)
    async def handle(number: int) -> None:
        seen.append(number)
        wind.fire("U", "x" * 3000)
        if number == 2:
            store.full = True

    async def main() -> None:
        async with wind:
            for number in range(60):
                wind.fire("T", number)
            await until(lambda: store.refused > 2)
            store.full = False
            await wind.settled(60)

    asyncio.run(main())
    assert sorted(seen) == list(range(60))


class Gated(Watched):
    """Holds up each commit until the next gate is open, once there are gates."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.gates: list[asyncio.Event] = []
        self.begun = 0

    @contextmanager
    def gated(self, gates: list[asyncio.Event]) -> Iterator[None]:
        """Yield gates that are all open at the end, so that the engine can stop."""
        self.gates = gates
        try:
            yield
        finally:
            for gate in gates:
                gate.set()

    async def commit(
        self, batches: Sequence[Batch], changes: Sequence[Change], snapshots: Sequence[Snapshot], now: int, *more: Any
    ) -> list[Stored | None]:
        if self.gates:
            self.begun += 1
            await self.gates[self.begun - 1].wait()
        return await super().commit(batches, changes, snapshots, now, *more)


@on_loop
async def test_who_waits_for_a_commit_waits_for_the_one_with_its_own_change(path: Path) -> None:
    """Not for the one that was under way already."""
    store = Gated(path)
    engine = LocalEngine(store)

    class Nobody:
        def told(self, text: str) -> None: ...

        def deliver(self, offer: object) -> None: ...
        def flush(self) -> None: ...
        def lost(self, lease: int | None = None) -> None: ...
        def close(self, reason: str) -> None: ...

    gates = [asyncio.Event() for _ in range(3)]
    async with SolarWind(engine=engine) as wind:
        with store.gated(gates):
            gates[2].set()
            receipt = wind.fire("T", 1)
            await until(lambda: store.begun == 1)
            joining = asyncio.ensure_future(engine.join(Join("T", "p"), "now", Nobody()))
            await a_while()
            gates[0].set()
            await receipt
            await until(lambda: store.begun == 2)
            await a_while()
            assert not joining.done()
            gates[1].set()
            await engine.leave(await joining)


@on_loop
async def test_handlers_that_fire_much_get_no_more_until_it_is_committed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(COMMIT_BYTES, 1000)
    store = Gated(path)
    wind = SolarWind(engine=LocalEngine(store))
    seen: list[int] = []
    gate = asyncio.Event()

    @wind.on("T", purpose="p", concurrency=1)
    async def handle(number: int) -> None:
        await gate.wait()
        seen.append(number)
        wind.fire("U", "x" * 3000)

    wind.on("U", purpose="q")(lambda text: None)
    async with wind:
        await wind.fire_many("T", range(60))
        with store.gated([asyncio.Event()] * 1000):
            gate.set()
            await until(lambda: store.begun)
            await a_while()
            assert 0 < len(seen) < 30
        await wind.settled(60)
        assert sorted(seen) == list(range(60))


def test_the_part_of_the_log_in_memory_has_nothing_beyond_its_end() -> None:
    cache = LogCache(lambda topic, position: None)
    made = seal("T", [b"1"] * 3, [1] * 3, producer=1, first=1, machine="m", process="p")
    cache.add(Stored(5, made))
    assert [cache.find("T", position) is not None for position in (4, 5, 7, 8)] == [False, True, True, False]


@settings(deadline=None)
@given(starts=st.lists(st.integers(0, 400), unique=True, max_size=400), room=st.integers(1, 300))
def test_the_part_of_the_log_in_memory_is_what_arrived_last_in_whatever_order(starts: list[int], room: int) -> None:
    """More of it goes than stays, so that what went leaves no trace."""
    made = seal("T", [b"1"], [1], producer=1, first=1, machine="m", process="p")
    cache = LogCache(lambda topic, position: None, max_bytes=room * made.weight)
    for count, start in enumerate(starts, 1):
        cache.add(Stored(start, made))
        there = set(starts[max(0, count - room) : count])
        for position in {start, start + 1, start - 1, *starts[max(0, count - room - 3) : count - room + 3]}:
            found = cache.find("T", position)
            assert (None if found is None else found.start) == (position if position in there else None)


@on_loop
async def test_what_an_instance_reported_while_there_was_no_room_counts_before_it_leaves() -> None:
    counted: list[int] = []
    held = HeldReports(lambda report, fired: counted.append(report.lease) or report.lease != 2)
    futures = [held.add(Report(instance, lease, Spans()), []) for lease, instance in enumerate((7, 8, 7, 8))]
    held.count_all(7)
    assert (counted, len(held)) == ([0, 2], 2)
    assert [future.done() and future.result() for future in futures] == [True, False, False, False]
    held.count_next()
    assert counted == [0, 2, 1]


@on_loop
async def test_commits_that_somebody_else_cancels_end_the_engine_loudly(tmp_path: Path) -> None:
    """A handler that cancels all tasks of the loop must not leave a dispatcher that accepts nothing more, silently."""
    wind = SolarWind(f"sqlite:///{tmp_path}/wind.db", grace=0.1)
    await wind.start()
    receipt = wind.fire("T", 1)
    for _ in range(3):  # turns of the loop: its commit is under way
        await asyncio.sleep(0)
    for task in asyncio.all_tasks() - {asyncio.current_task()}:
        task.cancel()
    with pytest.raises(StoreError, match="cancel your own tasks alone"):
        await wind.failed
    with pytest.raises(StoreError, match="cancel your own tasks alone"):
        await receipt
    with pytest.raises(StoreError):
        await wind.fire("T", 2)
    await wind.stop()
    await wind.start()
    await wind.fire("T", 3)
    await wind.stop()


@on_loop
async def test_whoever_cancels_all_tasks_while_there_is_nothing_to_commit_stops_no_dispatcher() -> None:
    async with SolarWind("memory://") as wind:
        await wind.fire("T", 1)
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await wind.fire("T", 2)
        assert not wind.failed.done()


@on_loop
async def test_other_tasks_have_their_turn_while_many_purposes_get_a_batch(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("solarwind.core.dispatcher.PURPOSES_A_TURN", 5)
    wind = SolarWind("memory://")
    turn, turns = 0, list[int]()

    async def handle() -> None:
        turns.append(turn)

    for number in range(50):
        wind.on("T", purpose=f"p{number}")(handle)

    async def count_turns() -> None:
        nonlocal turn
        while True:
            turn += 1
            await asyncio.sleep(0)

    async with wind:
        counting = asyncio.create_task(count_turns())
        await wind.fire("T")
        await wind.settled(60)
        counting.cancel()
    assert len(turns) == 50
    assert len(set(turns)) >= 10, "no more than five of them in a turn"


@pytest.mark.parametrize("together", some([600], [1, 600]), ids=["one by one", "in one batch"])
def test_a_page_of_dead_letters_reads_the_events_of_that_page_only(path: Path, together: int) -> None:
    store = Watched(path)
    wind, reads = SolarWind(engine=LocalEngine(store)), 0
    read_at = store.read_at

    async def counted(topic: str, positions: Spans, max_bytes: int) -> list[Stored]:
        nonlocal reads
        reads += len(positions)
        return await read_at(topic, positions, max_bytes)

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        raise Reject("no")

    async def work() -> None:
        async with wind:
            for first in range(0, 600, together):
                await wind.fire_many("T", range(first, first + together))
            await wind.settled(60)
            page = await wind.dead("T", "p")
            assert [letter.event.payload for letter in page] == list(range(600))
            store.read_at = counted  # type: ignore[method-assign]
            assert len(await wind.dead("T", "p", limit=5)) == 5
            assert (await wind.dead("T", "p", "594", 5)).next is None
            assert (await Internal.letter(wind, "T", "p", page[0].event.id)).event.payload == 0
            assert await wind.redrive("T", "p", [page[-1].event.id]) == 1
            assert await wind.discard("T", "p", [page[0].event.id]) == 1
            assert reads == 5 + 5 + 1

    asyncio.run(asyncio.wait_for(work(), 300))


@on_loop
async def test_a_trace_over_more_than_is_read_for_one_answer_is_whole_in_pages(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("solarwind.engine.operations.MAX_SEARCH_BYTES", 1_000)
    wind = SolarWind(engine=LocalEngine(SqliteStore(str(path))))

    @wind.on("a", purpose="p")
    async def spread() -> None:
        for number in range(20):
            await wind.fire("b", number, cause=Cause("event", root), now=True)  # each in a batch of its own

    root = "root"
    async with wind:
        await wind.fire("a", id=root)
        await wind.settled(60)
        pages = [await wind.trace(root)]
        while pages[-1].more:
            pages.append(await wind.trace(root, pages[-1].caused[-1].event.id))
    assert len(pages) > 2
    assert [each.event.payload for page in pages for each in page.caused] == list(range(20))


@on_loop
async def test_a_dead_letter_that_is_discarded_and_trimmed_while_they_are_listed_is_left_out(path: Path) -> None:
    store = Watched(path)
    engine = LocalEngine(store)
    wind, find = SolarWind(engine=engine), store.dead
    wind.topic("T", keep=0)

    async def trimmed() -> bool:
        return await store.history("T") == (1, ANY)

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        raise Reject("no")

    async def found_first(topic: str, purpose: str, track: int, positions: Spans) -> list[Letter]:
        store.dead = find  # type: ignore[method-assign]
        letters = await find(topic, purpose, track, positions)
        assert await wind.discard("T", "p", [ids[0]]) == 1
        engine._trimmer.look_at(engine._dispatcher.topics["T"], at_once=True)
        await until(lambda: trimmed(), "what was discarded to be trimmed")
        return letters

    async with wind:
        for number in range(2):
            await wind.fire("T", number)
            await wind.settled(60)
        ids = [letter.event.id for letter in await wind.dead("T", "p")]
        store.dead = found_first  # type: ignore[method-assign]
        assert [letter.event.id for letter in await wind.dead("T", "p")] == ids[1:]


RIDE = "solarwind.engine.local.RIDE_S"
FOREVER_S = 1e6


def settles(store: Watched) -> list[tuple[int, int]]:
    """Return of each commit with settles how many batches it had, and how many events it settled."""
    counts = ((len(batches), sum(len(each.settled) for each in changes)) for batches, changes, _ in store.commits)
    return [each for each in counts if each[1]]


@pytest.mark.parametrize("exchange", ["direct", "keyed"])
def test_a_settle_that_nobody_waits_for_goes_with_the_next_commit(
    path: Path, monkeypatch: pytest.MonkeyPatch, exchange: str
) -> None:
    monkeypatch.setattr(RIDE, FOREVER_S)
    store, seen = Watched(path), list[int]()
    wind = SolarWind(engine=LocalEngine(store))

    @wind.on("T", purpose="p", exchange=exchange)
    async def handle(number: int) -> None:
        seen.append(number)

    async def main() -> None:
        async with wind:
            for number in range(3):
                await wind.fire("T", number, key="k")
                await until(lambda number=number: seen[-1:] == [number])  # type: ignore[misc]
                while (await wind.statistics()).purposes["T", "p"].settled <= number:
                    await a_while()
            assert settles(store) == [(1, 1), (1, 1)]
        assert settles(store) == [(1, 1), (1, 1), (0, 1)]  # what is left goes when it stops

    asyncio.run(main())
    assert seen == [0, 1, 2]


def test_a_settle_without_a_commit_to_go_with_is_committed_by_itself(path: Path) -> None:
    store = Watched(path)
    wind = SolarWind(engine=LocalEngine(store))

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        """Settle it."""

    async def main() -> None:
        async with wind:
            await wind.fire("T", 0)
            await until(lambda: settles(store) == [(0, 1)])

    asyncio.run(main())


@pytest.mark.parametrize("who", ["settled()", "a settle that is confirmed", "what its handler fired", "an operator"])
def test_a_settle_that_somebody_waits_for_is_committed_at_once(
    path: Path, monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(RIDE, FOREVER_S)
    store, holder = Watched(path), Holder()
    engine = LocalEngine(store)
    wind = SolarWind(engine=engine)
    waited: asyncio.Event

    async def handle(number: int) -> None:
        if who == "what its handler fired":
            wind.fire("U", number)
        elif who == "settled()":
            await waited.wait()

    async def main() -> None:
        nonlocal waited
        waited = asyncio.Event()
        if who != "a settle that is confirmed":
            wind.on("T", purpose="p")(handle)
        async with wind:
            if who == "a settle that is confirmed":
                instance = await engine.join(Join("T", "p"), "beginning", holder)
                engine.alive(instance)
            await wind.fire("T", 0)
            if who == "settled()":
                settled = asyncio.create_task(wind.settled(timeout=60))
                await a_while()
                waited.set()
                await settled
            elif who == "an operator":
                while (await wind.statistics()).purposes["T", "p"].settled < 1:
                    await a_while()
                await wind.pause("T", "p")
            elif who == "a settle that is confirmed":
                await until(lambda: bool(holder.offers))
                lease = holder.offers[0].lease
                assert await engine.settle(Report(instance, lease, done=Spans((0, 1))))
            else:
                await until(lambda: bool(settles(store)))
            assert [count for _, count in settles(store)] == [1]

    asyncio.run(main())


def test_what_failed_does_not_wait_for_a_commit_to_go_with(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RIDE, FOREVER_S)
    store = Watched(path)
    wind = SolarWind(engine=LocalEngine(store))

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        raise Reject("no")

    async def main() -> None:
        async with wind:
            await wind.fire("T", 0)
            await until(lambda: any(change.dead for _, changes, _ in store.commits for change in changes))

    asyncio.run(main())
