"""What a program that ends is told."""

from __future__ import annotations

import logging

import pytest

from solarwind import SolarWind
from solarwind.testing.contract import on_loop


@on_loop
async def test_leaving_memory_with_events_unhandled_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p")
    async def handle() -> None: ...

    with caplog.at_level(logging.WARNING, "solarwind"):
        async with wind:
            wind.fire_many("T", range(3))
        async with wind:
            await wind.settled(10)
    [line] = caplog.messages
    assert line.startswith("stopped with 3 events on memory:// not handled")
