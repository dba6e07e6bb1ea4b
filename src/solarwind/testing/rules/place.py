"""The environment of the rules: a place where a dispatcher runs, and ways to wait without sleeping."""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec

import pytest

from ...engine.base import Engine
from ...engine.clock import SteadyClock
from ...engine.local import LocalEngine
from ...store.base import Store
from ...wind import SolarWind
from ..clock import FakeClock

P = ParamSpec("P")
# Nothing is to take so long; a machine that is busy with much else may.
A_TEST_S = 900.0
A_CONDITION_S = 180.0
# `until` looks again after the first, and ever more rarely: to look may cost other processes as much as the test's own.
_LOOK_S, _MAX_LOOK_S = 0.001, 0.02


class Place:
    """One dispatcher, and access to it. Subclass it for an engine of your own."""

    # What was accepted is still there when everything was closed and opened again.
    durable = False
    # Exchanges registered in this process are known to the dispatcher.
    in_process = True

    def open(self) -> SolarWind:
        """Return a new SolarWind, not started, on the same dispatcher. One at a time is started."""
        raise NotImplementedError

    def clock(self) -> FakeClock:
        """Return the clock of the dispatcher alone: services do not use it. Call it before `open`."""
        pytest.skip("this engine goes by the real time")

    def chance(self, random: Callable[[], float]) -> None:
        """Set the source of the dispatcher's random numbers; call it before `open`."""
        pytest.skip("this engine has its own random numbers")

    def restart(self) -> SolarWind:
        """Restart the dispatcher and return a SolarWind, as `open` does."""
        if not self.durable:
            pytest.skip("this engine forgets when it is closed")
        return self.open()


class LocalPlace(Place):
    """A store in this process. `make_store` is called for each start; it is durable if that returns the same file."""

    def __init__(self, make_store: Callable[[], Store], *, durable: bool) -> None:
        self.durable = durable
        self._make_store = make_store
        self._options: dict[str, Any] = {}

    def open(self) -> SolarWind:
        engine: Engine = LocalEngine(self._make_store(), **self._options)
        return SolarWind(engine=engine, grace=A_CONDITION_S)

    def clock(self) -> FakeClock:
        clock: FakeClock = self._options.setdefault("clock", FakeClock())
        self._options["service_clock"] = SteadyClock()  # so that a handler may hang for as long as its lease
        return clock

    def chance(self, random: Callable[[], float]) -> None:
        self._options["random"] = random


def on_loop(test: Callable[P, Coroutine[Any, Any, None]]) -> Callable[P, None]:
    """Run a coroutine as a test, with a loop of its own; one that hangs fails."""

    @functools.wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> None:
        asyncio.run(_within(test(*args, **kwargs)))

    return run


async def _within(test: Coroutine[Any, Any, None]) -> None:
    async with asyncio.timeout(A_TEST_S):
        await test


async def until(
    condition: Callable[[], object | Awaitable[object]],
    what: str = "",
    *,
    meanwhile: Callable[[], object] | None = None,
) -> None:
    """Wait until the condition holds; fail with `what` if it does not. `meanwhile` is called before each check."""
    loop = asyncio.get_running_loop()
    deadline, pause = loop.time() + A_CONDITION_S, _LOOK_S
    while True:
        if meanwhile is not None:
            meanwhile()
        holds = condition()
        if inspect.isawaitable(holds):
            holds = await holds
        if holds:
            return
        if loop.time() > deadline:
            raise AssertionError(
                f"waited {A_CONDITION_S:g} s in vain for {what or inspect.getsource(condition).strip()}"
            )
        await asyncio.sleep(pause)
        pause = min(pause * 1.2, _MAX_LOOK_S)


async def all_reported(wind: SolarWind) -> None:
    """Wait until the dispatcher knows what became of all events that it has handed out.

    What a handler has done is not known yet: its report is on its way. If time goes on by as much as a lease meanwhile,
    the lease ends, and the event is handed out again."""

    async def nothing_in_flight() -> bool:
        return not any(each.in_flight for each in (await wind.statistics()).purposes.values())

    await until(nothing_in_flight, "the reports of all that was handed out")


async def a_while() -> None:
    """Wait for everything that needs no time to pass: some turns of the loop, and of the store's threads."""
    for _ in range(25):
        await asyncio.sleep(0.001)


async def refused(work: Awaitable[object], error: type[Exception], *words: str) -> Exception:
    """Assert that it raises this error, in one sentence with these words, and return the error."""
    with pytest.raises(error) as caught:
        await work
    text = str(caught.value)
    assert "\n" not in text
    for word in words:
        assert word in text
    return caught.value
