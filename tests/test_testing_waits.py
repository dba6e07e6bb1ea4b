"""What a test waits for: what only its clock makes go on is said at once, and a handler that hangs ends soon."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from solarwind import Event, Retry, SolarWind
from solarwind.testing import FakeClock, memory_engine
from solarwind.testing.contract import until

pytest_plugins = ["pytest_solarwind"]


# --- waiting for what needs time to pass -------------------------------------------------------------------------

SOON_S = 5.0  # of real time: far less than a timeout that is waited out, and plenty on a busy machine


def stands(wind: SolarWind, timeout: float | None = 60) -> str:
    """Return why `settled` refuses, which it does soon."""
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        wind.wait(wind.settled(timeout))
    assert time.monotonic() - began < SOON_S
    return str(caught.value)


@pytest.mark.parametrize("timeout", [60, None, 0.02], ids=["long", "none", "short"])
def test_settled_says_at_once_how_long_to_advance_the_clock_for_a_retry(
    wind: SolarWind, wind_clock: FakeClock, timeout: float | None
) -> None:
    """Rather than to wait for what cannot come, as often as that is so; and it goes on once time has passed."""
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=60, attempts=3))
    def handle(event: Event) -> None:
        attempts.append(event.attempt)
        if event.attempt < 3:
            raise RuntimeError("not yet")

    with wind:
        wind.fire("T").wait(60)
        wind.wait(until(lambda: attempts and not wind.engine._under_way()))  # type: ignore[attr-defined]
        said = stands(wind, timeout)
        assert "1 pending (1 of them for a retry) and 0 in flight of 'p' on 'T'" in said
        assert said.endswith(" of 'p' on 'T', which waits for the test's clock: call advance(60) first")
        wind_clock.advance(59.5)
        assert stands(wind, timeout).endswith(": call advance(0.5) first")
        wind_clock.advance(0.5)
        assert stands(wind, timeout).endswith(": call advance(120) first")
        wind_clock.advance(120)
        wind.wait(wind.settled(60))
    assert attempts == [1, 2, 3]


@pytest.mark.parametrize(
    ("options", "fired", "seconds"),
    [({"delay": "1h"}, 1, "3600"), ({"rate": "6/m"}, 20, "10"), ({"delay": "1h", "exchange": "fanout"}, 1, "")],
    ids=["delay", "rate", "a delayed fan-out, which is not waited for"],
)
def test_settled_says_how_long_to_advance_the_clock_for_a_delay_and_a_rate(
    wind: SolarWind, wind_clock: FakeClock, options: dict[str, Any], fired: int, seconds: str
) -> None:
    seen: list[int] = []

    @wind.on("T", purpose="p", **options)
    def handle(number: int) -> None:
        seen.append(number)

    with wind:
        wind.fire_many("T", range(fired)).wait(60)
        if seconds:
            assert stands(wind).endswith(f": call advance({seconds}) first")
        wind_clock.advance("1h")
        wind.wait(wind.settled(60))
    assert seen == [*range(fired)]


def test_settled_on_a_loop_waits_for_time_that_somebody_lets_pass_meanwhile(
    wind: SolarWind, wind_clock: FakeClock
) -> None:
    attempts: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=60))
    async def handle(event: Event) -> None:
        attempts.append(event.attempt)
        await asyncio.sleep(0.01)
        if event.attempt < 3:
            raise RuntimeError("not yet")

    async def go() -> None:
        async with wind:
            await wind.fire("T")
            settled = asyncio.create_task(wind.settled(60))
            await until(lambda: attempts)
            await wind_clock.advance("1h")
            await settled
            wind_clock.advance("1h")
            await wind.settled(60)

    asyncio.run(go())
    assert attempts == [1, 2, 3]


def test_settled_waits_for_what_time_alone_does_not_make_go_on(wind: SolarWind) -> None:
    """A purpose that is paused is resumed by somebody, and a handler that runs may end."""
    gate, seen = threading.Event(), list[int]()

    @wind.on("T", purpose="p")
    def handle(number: int) -> None:
        seen.append(number)

    @wind.on("T", purpose="slow", retry=Retry(wait=60))
    def wait(number: int) -> None:
        gate.wait(60)

    with wind:
        wind.wait(wind.pause("T", "p"))
        wind.fire("T", 1).wait(60)
        timers = [threading.Timer(0.6, gate.set), threading.Timer(1.2, lambda: wind.wait(wind.resume("T", "p")))]
        for each in timers:
            each.start()
        wind.wait(wind.settled(60))
        for each in timers:
            each.join()
    assert seen == [1]


# --- handlers that hang ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("is_async", [True, False], ids=["async", "def"])
def test_a_handler_that_hangs_does_not_hold_up_the_end_of_its_test_for_long(
    wind: SolarWind, wind_clock: FakeClock, caplog: pytest.LogCaptureFixture, is_async: bool
) -> None:
    """It is said which handler it was, and on which event."""
    begun, gate = threading.Event(), threading.Event()

    async def hangs(number: int) -> None:
        begun.set()
        await asyncio.get_running_loop().create_future()

    def hangs_on_thread(number: int) -> None:
        begun.set()
        gate.wait(60)

    handler = hangs if is_async else hangs_on_thread
    wind.on("T", purpose="p")(handler)
    with wind:
        id = wind.fire("T", 7).wait(60)
        assert begun.wait(60)
        began = time.monotonic()
    took = time.monotonic() - began
    gate.set()
    assert took < 10
    name = handler.__qualname__
    assert f"{name} on 'T' did not finish within 3 s, at event {id!r}: it is handed out again" in caplog.text
    [said] = wind_clock.hung
    assert said == (
        f"expected each handler to end with its test, got {name} on 'T', which did not within 3 s, at event {id!r} "
        "with the payload 7: have what it waits for end, or give that a timeout"
    )
    wind_clock.hung.clear()  # else the fixture warns


def test_a_test_may_have_its_handlers_end_in_more_time_or_less(wind: SolarWind, wind_clock: FakeClock) -> None:
    begun, ended = list[int](), list[int]()

    @wind.on("T", purpose="p")
    async def slow(number: int) -> None:
        begun.append(number)
        await asyncio.sleep(3.5)
        ended.append(number)

    async def go(grace: float | None) -> None:
        begun.clear()
        await wind.start()
        await wind.fire("T", 1)
        await until(lambda: begun)
        await wind.stop(grace)

    asyncio.run(go(60))
    assert ended == [1]
    wind.use(engine=memory_engine(FakeClock()))
    wind.grace = 0.05
    began = time.monotonic()
    asyncio.run(go(None))
    assert time.monotonic() - began < 3
    assert not wind_clock.hung


def test_the_fixture_warns_of_a_handler_that_hangs(tmp_path: Path) -> None:
    """In the summary of the run: nobody sees the log of a test that passes."""
    (tmp_path / "test_it.py").write_text(
        """
import asyncio

def test_it(wind):
    @wind.on("T", purpose="p")
    async def hangs(number):
        await asyncio.get_running_loop().create_future()

    with wind:
        wind.fire("T", 7).wait(60)
"""
    )
    run = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(tmp_path)]
    done = subprocess.run(run, cwd=tmp_path, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 warning" in done.stdout
    assert "got test_it.<locals>.hangs on 'T', which did not within 3 s, at event" in done.stdout
