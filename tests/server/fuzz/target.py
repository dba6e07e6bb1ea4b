"""The server that everything is sent to, in a process of its own, and what must hold of it all the time."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from solarwind.testing.contract import until

from ..peers import PATIENCE_S, ask, talker
from ..resident import resident
from ..serving import Serving

# Small, so that all of them are met, and so that what is remembered of names and events has an end soon.
OPTIONS: dict[str, Any] = {
    "frame-bytes": 200_000,
    "body-bytes": 50_000,
    "header-bytes": 8_000,
    "nesting": 16,
    "ids": 20,
    "names": 60,
}
OPTIONS |= {"instances": 12, "unanswered": 8, "payload-bytes": 20_000, "batch-bytes": 30_000, "batch-events": 50}
OPTIONS |= {"waiting": 200, "copies": 100, "copy-bytes": 100_000, "connections": 500, "authenticate-s": 2, "idle-s": 2}
OPTIONS |= {"webhook-network": "127.0.0.1"}
MAX_GROWTH = 48 << 20  # bytes, once it is warm
WARM = 200  # examples


class Target:
    """Used by one loop."""

    def __init__(self, folder: Path) -> None:
        self.runner = asyncio.Runner()
        self._serving = Serving(folder, *(part for name, value in OPTIONS.items() for part in (f"--{name}", value)))
        self.runner.run(self._serving.start())
        self.port = int(self._serving.port)
        self._examples = 0
        self._warm = 0  # its memory then

    def close(self) -> None:
        """Close it, and check that it can still stop in order."""
        try:
            assert self.runner.run(self._serving.end()) == 0
        finally:
            self._serving.kill()
            self.runner.close()

    async def check(self) -> None:
        """Check that it answers others, has logged no error, and has not grown."""
        self._examples += 1
        async with asyncio.timeout(PATIENCE_S):
            assert (await ask(self.port, "GET", "/readyz")).status == 200
        if self._examples % 20 == 0:
            await self.check_all()

    async def check_all(self) -> None:
        async with asyncio.timeout(PATIENCE_S), talker(self.port) as made:
            await made.hello()
            await made.submit("others")
        # That a webhook's target does not answer is not the server's fault, nor are clients that leave in the middle,
        # or fire without a key.
        others = ("handler webhook ", "its handler did not come to an end", "has no key for the keyed purpose")
        complaints = [
            line for line in self._serving.complaints().splitlines() if not any(other in line for other in others)
        ]
        assert not complaints, complaints[0]
        if self._examples >= WARM:
            pid = self._serving.pid
            warm = self._warm = self._warm or resident(pid)
            await until(lambda: resident(pid) - warm < MAX_GROWTH, f"less than {warm + MAX_GROWTH:,} bytes of memory")
