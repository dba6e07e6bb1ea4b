"""Waiting for purposes to be idle, and saying why that may take for ever."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable

from ..engine.base import PAUSED
from ..errors import SolarWindError

log = logging.getLogger("solarwind")

_LOOK_S, _MAX_LOOK_S = 0.25, 60.0  # how often it is asked what is left: at first, and later on


async def wait_idle(idle: Awaitable[None], left: Callable[[], Awaitable[str]]) -> None:
    """Wait for `idle`. Log it once if what is `left` meanwhile is of a purpose that is paused."""
    saying = asyncio.create_task(_say_paused(left))
    try:
        await idle
    finally:
        saying.cancel()


async def _say_paused(left: Callable[[], Awaitable[str]]) -> None:
    pause_s = _LOOK_S
    while True:
        await asyncio.sleep(pause_s)
        pause_s = min(2 * pause_s, _MAX_LOOK_S)
        try:
            found = await left()
        except SolarWindError:  # whoever waits gets it too
            return
        if PAUSED in found:
            log.warning("settled() waits until somebody resumes what is paused; left: %s", found)
            return
