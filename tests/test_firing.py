"""Firing, as the process sees it that fires: the order of ids, time that runs out, memory, a fork."""

from __future__ import annotations

from typing import Any

import pytest

from solarwind import Busy, Event, Limits, SolarWind
from solarwind.batch import seal
from solarwind.event import HandOut
from solarwind.service import group, outbox
from solarwind.testing.contract import on_loop

S = 1_000_000_000


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The wall clock of what is fired: ns since 1970, as a list of one. It goes by 1 µs each time somebody looks."""
    now = [1_800_000_000 * S]

    def look() -> int:
        now[0] += 1_000
        return now[0]

    for module in (group, outbox):
        monkeypatch.setattr(module, "time_ns", look)
    monkeypatch.setattr("solarwind.service.firing.time_ns", look)
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
