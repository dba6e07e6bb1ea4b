"""The tasks of `run --workers` and `run --reload` that raise: everything ends, loudly."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator

import pytest

from breaking import Unexpected
from solarwind.cli.supervisor import Child, Supervisor


class Tame(Child):
    """A child without a process, which runs until it is told to end."""

    broken = ""  # the name of one that raises

    def __init__(self, name: str) -> None:
        super().__init__(name, [], {**os.environ})

    async def _live(self) -> int:
        self.ready.set()
        if self.name == self.broken:
            raise Unexpected
        while not self._ending:
            self._wake.clear()
            await self._wake.wait()
        return 0


async def changes(files: dict[str, int]) -> AsyncIterator[str]:
    raise Unexpected
    yield ""


@pytest.mark.parametrize("broken", ["worker 2", "the dispatcher", "source files"])
def test_a_supervisor_that_cannot_look_after_one_part_ends_all_and_says_so(
    broken: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(Tame, "broken", broken)
    if broken == "source files":
        monkeypatch.setattr("solarwind.cli.reload.changes", changes)
    workers = [Tame(f"worker {number}") for number in (1, 2)]
    supervisor = Supervisor(workers, Tame("the dispatcher"), reloads=broken == "source files")

    async def run() -> int:
        async with asyncio.timeout(60):
            return await supervisor.run()

    assert asyncio.run(run()) == 1
    assert f"{broken} ended in an unexpected way" in caplog.text
    assert "everything ends" in caplog.text
