"""The limits of a purpose while its workers, and the server, are killed."""

from __future__ import annotations

import signal
from collections.abc import Callable
from time import monotonic

import pytest

from solarwind import SolarWind
from solarwind.testing.contract import on_loop, until

from .serving import Life, Serving

EVENTS = 160
AT_MOST = 2
EVERY_S = 1 / 40  # one event
MEANWHILE = AT_MOST + 2  # that may begin late, and so together: what is in flight, and what the rate allows at once


@pytest.mark.long
@on_loop
async def test_limits_hold_and_no_place_is_lost_while_workers_and_the_server_are_killed(
    serving: Callable[..., Serving], live: Callable[..., Life]
) -> None:
    """A version with a share keeps to them together with the current one."""
    server = serving()
    await server.start()
    lives: list[Life] = []
    ended: dict[str, float] = {}  # when they were killed
    restarted = 0.0

    def begin(version: int) -> Life:
        lives.append(live("limited", server.url, f"{len(lives)}", version))
        return lives[-1]

    def kill(life: Life) -> None:
        ended[life.name] = monotonic()  # another may have its events before it is known to have ended
        life.kill()

    def begun() -> int:
        return sum(line.startswith("begun") for each in lives for line in each.lines)

    async with SolarWind(server.url) as wind:
        await wind.fire_many("T", range(EVENTS))
        workers = [begin(1)]
        await until(begun, "the first to join")
        workers += [begin(1), begin(2)]
        for round_ in range(6):
            before = begun()
            await until(lambda before=before: begun() > before + 10, "some to be handled")
            if round_ == 3:
                restarted = monotonic()
                await server.end(signal.SIGKILL)
                await server.start()
            else:
                kill(workers.pop(0))
                workers.append(begin(1 + round_ % 2))

        async def all_settled() -> bool:
            return (await wind.statistics()).purposes["T", "p"].settled == EVENTS

        await until(all_settled, "all to be settled, in places that are free again")
    spans = list[tuple[float, float]]()
    for life in lives:
        begun_at = dict[str, float]()
        for what, number, time in [line.split() for line in life.lines]:
            if what == "begun":
                begun_at[number] = float(time)
            else:
                spans.append((begun_at.pop(number), float(time)))
        spans += [(start, ended.get(life.name, start)) for start in begun_at.values()]
    # What ran as the server was killed counts no more.
    spans = [(start, restarted if start < restarted < stop else stop) for start, stop in spans]
    moments = [moment for start, stop in spans if start < stop for moment in ((start, 1), (stop, -1))]
    at_once = highest = 0
    for _, change in sorted(moments):
        at_once += change
        highest = max(highest, at_once)
    assert highest == AT_MOST
    starts = sorted(time for time, change in moments if change > 0)
    for first, start in enumerate(starts):
        for count, later in enumerate(starts[first:], 1):
            assert count <= MEANWHILE + (later - start) / EVERY_S, f"{count} began within {later - start} s"
