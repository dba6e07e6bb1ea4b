"""What is remembered of retries is bounded, however many events wait."""

from __future__ import annotations

from solarwind import Event, Retry, SolarWind
from solarwind.core.track import MAX_ERRORS
from solarwind.testing.contract import on_loop, until


@on_loop
async def test_the_errors_of_the_last_thousand_events_that_wait_are_known() -> None:
    async with SolarWind("memory://") as wind:
        more = 100

        @wind.on("T", purpose="p", retry=Retry(wait=36_000, ceiling=36_000))
        async def handle(events: list[Event]) -> None:
            raise ValueError("no room")

        await wind.joined()
        await wind.fire_many("T", range(MAX_ERRORS + more))

        async def all_wait() -> bool:
            return len(await wind.retries("T", "p", limit=10_000)) == MAX_ERRORS + more

        await until(all_wait)
        found = await wind.retries("T", "p", limit=10_000)
        assert sum(each.error == "ValueError: no room" for each in found) == MAX_ERRORS
        assert sum(each.error is None for each in found) == more
