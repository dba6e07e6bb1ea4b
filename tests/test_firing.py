"""Firing, as the process sees it that fires: the order of ids, time that runs out, memory, a fork."""

from __future__ import annotations

import asyncio
import gc
from inspect import signature
from typing import Any

import pytest

from leaping import leap
from server.place import Host
from solarwind import BadArgument, Busy, Cause, Event, Limits, SolarWind, Unavailable
from solarwind.batch import seal
from solarwind.engine.local import LocalEngine
from solarwind.event import HandOut
from solarwind.service import buffer, group
from solarwind.service.group import Group
from solarwind.store.memory import MemoryStore
from solarwind.testing.contract import on_loop, until

S = 1_000_000_000
LONG_S = 20.0  # within which an event is to be accepted, by a clock that leaps


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock of what is fired: ns since 1970, as a list of one. It goes by 1 µs each time somebody looks."""
    now = [1_800_000_000 * S]

    def look() -> int:
        now[0] += 1_000
        return now[0]

    for module in (group, buffer):
        monkeypatch.setattr(module, "time_ns", look)
    monkeypatch.setattr(group.ORDER, "latest", 0)
    return now


@on_loop
async def test_ids_sort_though_the_clock_steps_back(clock: list[int]) -> None:
    """On one topic within a turn of the loop, on several from turn to turn; and they stay what they were said to be."""
    async with SolarWind("memory://") as wind:
        ids: list[str] = []
        receipts: list[Any] = []
        for step in (0, 500, -3 * S, -1, 1 * S, -2 * S, 0):
            clock[0] += step
            receipts += [wind.fire("T"), wind.fire("T"), wind.fire("U"), wind.fire("U"), wind.fire("W", key="k")]
            ids += [each.id for each in receipts[-5:]]
            receipts.append(wind.fire("V"))
            clock[0] -= 5_000
            receipts.append(wind.fire("V"))
            await receipts[-1]
            ids += [each.id for each in receipts[-2:]]
        assert ids == [each.id for each in receipts]
        assert ids == sorted(ids)
        clock[0] -= 3_600 * S
        last = wind.fire("T")
        await last
        assert last.id < ids[0], "a clock that was set far back is believed"
        assert wind.fire("U").id > last.id


@on_loop
async def test_an_event_sorts_after_a_cause_whose_clock_is_ahead(clock: list[int]) -> None:
    def cause(ahead: int) -> Event:
        return Event(HandOut(seal("T", [b"1"], [clock[0] + ahead], producer=1, first=1, machine="m", process="p")), 0)

    async with SolarWind("memory://") as wind:
        near, far = cause(5 * S), cause(60 * S)
        assert wind.fire("T", cause=near).id > near.id
        assert wind.fire("T", cause=far).id < far.id, "too far ahead to be believed"


@on_loop
async def test_a_receipt_shows_its_id_and_what_became_of_it() -> None:
    held: list[str] = []
    async with SolarWind("memory://", limits=Limits(names=1)) as wind:

        @wind.on("T", purpose="p")
        async def handle() -> None:
            held.append(repr(wind.fire("T")) if len(held) < 4 else "")

        await wind.joined()
        receipt, receipts = wind.fire("T", key="k"), wind.fire_many("T", range(3))
        assert repr(receipt) == f"<Receipt id={receipt.id}, pending>"
        assert repr(receipts) == "<Receipts of 3 events, pending>"
        await receipts
        assert repr(receipt) == f"<Receipt id={receipt.id}, accepted>"
        assert repr(receipts) == "<Receipts of 3 events, accepted>"
        assert repr(wind.fire_many("T", [])) == "<Receipts of 0 events, accepted>"
        one_too_many = wind.fire("another")
        with pytest.raises(Busy):
            await one_too_many
        assert repr(one_too_many).startswith(f"<Receipt id={one_too_many.id}, failed: expected no more than 1 ")
        assert repr(wind.fire_many("another", [1])) == "<Receipts of 1 event, pending>"
    assert len(held) >= 1
    assert held[0].startswith("<Receipt id=")
    assert held[0].endswith(", pending>")


class Gate(MemoryStore):
    """A store whose commits wait, while it is shut."""

    def __init__(self) -> None:
        super().__init__()
        self.passing = asyncio.Event()
        self.entered = asyncio.Event()

    async def commit(self, *what: Any) -> Any:
        self.entered.set()
        await self.passing.wait()
        return await super().commit(*what)


@on_loop
async def test_what_is_not_accepted_within_its_time_is_taken_back_or_not_known_and_may_be_fired_again() -> None:
    gate = Gate()
    async with SolarWind(engine=LocalEngine(gate)) as wind:
        gate.passing.set()
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            seen.append(number)

        await wind.joined()
        gate.passing.clear()
        gate.entered.clear()
        under_way = wind.fire("T", 1, within=LONG_S)
        await gate.entered.wait()
        waiting = wind.fire("T", 2, within=LONG_S)
        many = wind.fire_many("T", [3, 4], within=LONG_S)
        patient = wind.fire("T", 5)
        leap(LONG_S)
        with pytest.raises(Unavailable, match=rf"{under_way.id}.* 20 s.*fired again with the same id"):
            await under_way
        with pytest.raises(Unavailable, match="taken back"):
            await waiting
        with pytest.raises(Unavailable, match=r"2 events on topic 'T'.*taken back"):
            await many
        assert repr(patient).endswith("pending>")
        again = wind.fire("T", 1, id=under_way.id)
        gate.passing.set()
        assert await again == under_way.id
        await patient
        await wind.settled(60)
        assert seen == [1, 5]
        assert repr(waiting).startswith(f"<Receipt id={waiting.id}, failed: ")


@on_loop
async def test_what_was_accepted_within_its_time_is_not_kept_until_that_is_over() -> None:
    async with SolarWind("memory://") as wind:
        for _ in range(300):
            await wind.fire("T", within=3_600)
        await asyncio.to_thread(lambda: [wind.fire("T", within=3_600).wait(60) for _ in range(300)])
        gc.collect()
        assert sum(type(each) is Group for each in gc.get_objects()) < 250  # the loop forgets its timers by the hundred


@on_loop
async def test_a_thread_gets_it_too_that_an_event_was_not_accepted_within_its_time() -> None:
    gate = Gate()
    gate.passing.set()
    wind = SolarWind(engine=LocalEngine(gate), grace=0.1)
    wind.on("T", purpose="p")(lambda event: None)
    await wind.start()
    gate.passing.clear()

    def fire() -> str:
        with pytest.raises(Unavailable, match=r"same id|taken back"):
            wind.fire("T", 1, within=0.05).wait(60)
        receipt = wind.fire("T", 2)
        with pytest.raises(TimeoutError):
            receipt.wait(0.05)
        gate.passing.set()
        return receipt.wait(60)

    assert await asyncio.to_thread(fire)
    await wind.stop()


@on_loop
async def test_a_waiter_that_is_cancelled_takes_nothing_back() -> None:
    gate = Gate()
    gate.passing.set()
    wind = SolarWind(engine=LocalEngine(gate))
    wind.on("T", purpose="p")(lambda event: None)
    async with wind:
        gate.passing.clear()
        receipt = wind.fire("T", 1)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(receipt, 0.01)  # type: ignore[arg-type]
        gate.passing.set()
        assert await receipt == receipt.id


@on_loop
async def test_stopping_while_the_server_is_away_gives_up_what_was_not_accepted_and_says_how_much(
    host: Host,
    caplog: pytest.LogCaptureFixture,
) -> None:
    port = host.start("memory://")
    wind = SolarWind(f"ws://127.0.0.1:{port}", grace=0.2)
    await wind.start()
    await wind.fire("T", 0)
    host.stop(port)
    await until(lambda: wind.engine._link is None)  # type: ignore[attr-defined]
    with pytest.raises(Unavailable, match="taken back"):
        await wind.fire("T", 1, within=0.05)
    receipts = [wind.fire("T", 2), wind.fire_many("U", range(10))]
    await wind.stop()
    assert "11 events that were fired were not accepted within" in caplog.text
    for receipt in receipts:
        with pytest.raises(Unavailable):
            await receipt


@on_loop
async def test_keys_ids_and_causes_that_are_long_travel_in_batches_that_a_server_takes(host: Host) -> None:
    """However many are fired together; and a cause that is too long is refused where it is given."""
    port = host.start("memory://")
    async with SolarWind(f"ws://127.0.0.1:{port}") as wind:
        receipts = [
            wind.fire("T", key="k" * 256, id=f"{number:i>200}", cause=Cause.user(f"{number:u>1000}"))
            for number in range(3_000)
        ]
        await wind.settled(60)
        assert {await each for each in receipts[::100]} == {each.id for each in receipts[::100]}
        with pytest.raises(BadArgument, match="at most 1,000 characters"):
            wind.fire("T", cause=Cause.user("u" * 1_001))
    host.stop(port)


def test_many_events_are_fired_with_the_options_that_one_is_fired_with() -> None:
    one, many = (signature(each).parameters for each in (SolarWind.fire, SolarWind.fire_many))
    apart = {"payload", "id", "payloads", "keys", "ids"}  # for one event, and for each of many
    assert {*one} - apart == {*many} - apart


@on_loop
async def test_a_topic_that_is_fired_on_when_there_is_little_room_left_loses_nothing_of_others() -> None:
    async with SolarWind("memory://", limits=Limits(unaccepted_bytes=10_000)) as wind:
        first = wind.fire("A", b"a" * 6_000)
        second = wind.fire("B", b"b" * 1_000)  # there was room for it, but not for all that a new batch takes besides
        with pytest.raises(Busy):
            wind.fire("C", b"c" * 1_000)
        assert await first
        assert await second
