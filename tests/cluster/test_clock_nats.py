"""The clock of a process that owns a partition is set forward and back while it runs: what is delayed and what a
schedule fires. See GUARANTEES.md, "The clock"."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path

import pytest

from solarwind import SolarWind
from solarwind.testing.contract import on_loop, until
from wrong_clock import CAN, DAY, WrongClock

from .processes import Process, process
from .servers import NatsServer

SECOND = 1_000_000_000


@pytest.fixture
def clock(tmp_path: Path) -> WrongClock:
    if not CAN:
        pytest.skip("gcc, which makes the library that sets clocks, is not there")
    WrongClock.make(tmp_path)
    return WrongClock(tmp_path, tmp_path / "clock")


class Owned:
    """A namespace whose partition is owned by a process with a clock that is set, as a client with a right one sees
    it."""

    def __init__(self, wind: SolarWind, owner: Process) -> None:
        self.wind = wind
        self.owner = owner
        self._monotonic = time.monotonic_ns() - time.time_ns()  # of this machine, for all processes

    async def check(self) -> None:
        """Check that the process is the owner still."""
        (found,) = await self.wind.owners()
        assert found.owner.endswith(f":{self.owner.pid}")

    def handled(self) -> Counter[str]:
        return Counter(each.payload for each in self.owner.handled())

    async def is_handled(self, payload: str) -> int:
        """Wait until it was handled. Return when, by the right clock."""
        await until(lambda: self.handled()[payload], f"{payload} to be handled")
        return next(each.time for each in self.owner.handled() if each.payload == payload) - self._monotonic

    async def looks_again(self, mark: str) -> None:
        """Have the owner look at its clock, as it does within a minute, and wait until it has."""
        await self.wind.fire("T", mark, after=0)
        await self.is_handled(mark)

    async def is_settled(self) -> bool:
        """Return whether all that is due is settled, and that is committed: counts are ahead of commits."""
        found = [await self.wind.event("T", event.id) for event in await self.wind.events("T")]
        return all([each.state for each in event.outcomes] == ["settled"] for event in found)

    async def has_fired(self, since: datetime) -> bool:
        """Return whether the schedule fired since then, at a tick of that day."""
        fired = next((each.fired for each in await self.wind.schedules()), None)
        return fired is not None and since <= fired < since + timedelta(hours=1)

    async def delayed(self) -> list[str]:
        return [each.event.payload for each in await self.wind.delayed()]


@on_loop
async def test_what_is_delayed_is_late_where_its_owner_s_clock_is_set_back_and_never_early(
    server: NatsServer, namespace: str, clock: WrongClock
) -> None:
    url = server.url(namespace, streams=1)
    async with process(url, clock.environment, topics=["T"]) as owner, SolarWind(url) as wind:
        owned = Owned(wind, owner)
        await owned.check()
        due = datetime.now(UTC) + timedelta(seconds=1)
        clock.set(-DAY)
        await wind.fire("T", "soon", at=due)
        await wind.fire("T", "tomorrow", after=DAY)
        await wind.fire("T", "at once")
        await owned.is_handled("at once")
        await until(lambda: datetime.now(UTC) > due, "it to be due")
        assert sorted(await owned.delayed()) == ["soon", "tomorrow"]
        clock.set(0)
        await owned.looks_again("mark")
        assert await owned.is_handled("soon") >= due.timestamp() * SECOND
        await owned.check()
        assert await owned.delayed() == ["tomorrow"]
        assert owned.handled() == Counter({"at once": 1, "mark": 1, "soon": 1})


@on_loop
async def test_what_is_delayed_is_due_by_its_owner_s_clock_and_once_where_that_is_set_forward_and_back(
    server: NatsServer, namespace: str, clock: WrongClock
) -> None:
    """The next owner, whose clock is right, hands out nothing of it again, and nothing early."""
    url = server.url(namespace, streams=1)
    async with process(url, clock.environment, topics=["T"]) as owner, SolarWind(url) as wind:
        owned = Owned(wind, owner)
        await owned.check()
        await wind.fire("T", "in an hour", after=3_600)
        await wind.fire("T", "in two days", after=2 * DAY)
        clock.set(DAY)
        await owned.looks_again("forward")
        await owned.is_handled("in an hour")
        await wind.fire("T", "in two hours", after=7_200)
        await owned.is_handled("in two hours")
        clock.set(0)
        due = datetime.now(UTC) + timedelta(seconds=2)
        await wind.fire("T", "soon", at=due)
        assert await owned.is_handled("soon") >= due.timestamp() * SECOND
        await owned.looks_again("back")
        assert await owned.delayed() == ["in two days"]
        await owned.check()

        await until(owned.is_settled, "all to be settled")
        await owner.kill()
        async with process(url, topics=["T"]) as next_one:
            after = Owned(wind, next_one)
            await after.looks_again("after")
            assert await after.delayed() == ["in two days"]
            assert after.handled() == Counter({"after": 1})
        assert max(owned.handled().values()) == 1


@pytest.mark.long
@on_loop
async def test_a_schedule_fires_once_at_a_tick_and_goes_on_where_its_owner_s_clock_is_set_forward_and_back(
    server: NatsServer, namespace: str, clock: WrongClock
) -> None:
    url = server.url(namespace, streams=1)
    async with process(url, clock.environment, topics=["T"]) as owner, SolarWind(url) as wind:
        owned = Owned(wind, owner)
        await owned.check()
        wind.every("1s", "T", "tick", name="often")
        for wall_s in (0, DAY, 0, -DAY, 0):
            clock.set(wall_s)
            since = datetime.now(UTC) + timedelta(seconds=wall_s)
            await until(partial(owned.has_fired, since), f"the schedule to go on at {wall_s}")
        await owned.check()
        await wind.pause_schedule("often")
        ids = [event.id for event in await wind.events("T", limit=10_000)]
        assert len(ids) == len(set(ids)) >= 5
