"""An exchange of your own: `nearest` prefers an instance in the process, then on the machine, that fired the event.

python examples/exchange.py
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from solarwind import Event, SolarWind
from solarwind.exchanges import Exchange, Instance, register_exchange


class Nearest(Exchange):
    """Chooses the nearest instance with room; the event pends until there is one."""

    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance:
        def distance(instance: Instance) -> tuple[bool, bool, int]:
            machine, _, process = instance.origin.partition("/")
            return machine != event.machine, process != event.process, instance.used

        return min(instances, key=distance)


register_exchange("nearest", Nearest())


async def main() -> list[int]:
    wind = SolarWind("memory://")
    handled: list[int] = []

    @wind.on("page.viewed", purpose="Warm the cache", exchange="nearest")
    async def warm(page: int) -> None:
        handled.append(page)

    async with wind:
        wind.fire_many("page.viewed", range(10))
        await wind.settled(timeout=10)
    return handled


if __name__ == "__main__":
    print(asyncio.run(main()))
