"""Starting, stopping and restarting, and which waits are refused."""

from __future__ import annotations

import asyncio
import logging
import threading
from typing import Any

import pytest

from ...errors import Unavailable
from ...event import Event
from ...failure import Retry
from ...wind import SolarWind
from .place import Place, on_loop, refused, until


def in_a_thread(make: Any) -> asyncio.Future[Any]:
    """Run a coroutine on the loop of another thread."""
    return asyncio.ensure_future(asyncio.to_thread(lambda: asyncio.run(make())))


class LifecycleRules:
    """The rules of starting and stopping."""

    @on_loop
    async def test_all_who_call_stop_wait_for_the_one_stop(self, place: Place) -> None:
        wind = place.open()
        begun = asyncio.Event()
        gate = asyncio.Event()
        ended: list[str] = []

        @wind.on("T", purpose="p")
        async def handle() -> None:
            begun.set()
            await gate.wait()
            ended.append("handler")

        await wind.start()
        await wind.fire("T")
        await asyncio.wait_for(begun.wait(), 60)

        async def stop(name: str) -> None:
            await wind.stop()
            ended.append(name)

        stops = [asyncio.ensure_future(stop(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        stops[0].cancel()  # the stop goes on
        asyncio.get_running_loop().call_soon(gate.set)
        await asyncio.gather(*stops[1:])
        assert ended[0] == "handler"
        assert sorted(ended[1:]) == ["second", "third"]
        await wind.stop()

    @on_loop
    async def test_a_stop_is_shortened_by_another_with_less_grace(self, place: Place) -> None:
        wind = place.open()
        begun = asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle() -> None:
            begun.set()
            await asyncio.Event().wait()

        await wind.start()
        await wind.fire("T")
        await asyncio.wait_for(begun.wait(), 60)
        first = asyncio.ensure_future(wind.stop(grace=50))
        await asyncio.sleep(0)
        await asyncio.wait_for(wind.stop(grace=0), 60)
        await asyncio.wait_for(first, 60)

    @on_loop
    async def test_after_a_stop_that_was_cut_short_nothing_can_be_fired(self, place: Place) -> None:
        wind = place.open()
        begun, ended = asyncio.Event(), asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle() -> None:
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

        await wind.start()
        await wind.fire("T")
        await asyncio.wait_for(begun.wait(), 60)
        stopping = asyncio.ensure_future(wind.stop(30))
        await asyncio.sleep(0)
        await wind.stop(0)
        await stopping
        assert ended.is_set()
        with pytest.raises(Unavailable, match="expected a SolarWind that runs, got one that is stopped"):
            wind.fire("T")

    def test_entering_a_running_solarwind_is_refused_and_leaves_it_running(self, place: Place) -> None:
        wind = place.open()
        with wind:
            with pytest.raises(Unavailable, match="got one that is running: stop it first"), wind:
                pass
            wind.fire("T").wait(60)
        with wind:
            wind.fire("T").wait(60)

    @pytest.mark.parametrize(
        ("turns", "times"), [*((turns, 1) for turns in (0, 1, 2, 3, 5, 8, 13)), (1, 1_000), (5, 1_000), (13, 1_000)]
    )
    @on_loop
    async def test_a_start_that_is_cancelled_leaves_nothing_open(self, place: Place, turns: int, times: int) -> None:
        """It may be cancelled at any moment, once or repeatedly; then it can be started again at once."""
        wind = place.open()
        handled: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            handled.append(number)

        starting = asyncio.ensure_future(wind.start())
        for _ in range(turns):
            await asyncio.sleep(0)
        while not starting.done() and times:
            starting.cancel()
            times -= 1
            await asyncio.sleep(0)
        await asyncio.wait([starting])
        if not starting.cancelled():
            await wind.stop()
        async with wind:
            await wind.fire("T", turns)
            await wind.settled(60)
        assert handled == [turns]

    @pytest.mark.parametrize("turns", [1, 8])
    @on_loop
    async def test_a_stop_that_is_shortened_again_and_again_leaves_nothing_open(self, place: Place, turns: int) -> None:
        """Whatever it is doing at the time; then it can be started again at once."""
        wind = place.open()
        handled: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(number: int) -> None:
            handled.append(number)

        await wind.start()
        await wind.fire("T", turns)
        await wind.settled(60)
        stops = [asyncio.ensure_future(wind.stop())]
        while not stops[0].done():
            for _ in range(turns):
                await asyncio.sleep(0)
            stops.append(asyncio.ensure_future(wind.stop(grace=0)))
        await asyncio.gather(*stops)
        async with wind:
            await wind.fire("T", -turns)
            await wind.settled(60)
        assert handled == [turns, -turns]

    def test_a_stopped_solarwind_can_be_started_again(self, place: Place) -> None:
        """It keeps its handlers, on another loop or a thread of its own, also those registered meanwhile."""
        wind = place.open()
        handled: list[tuple[str, int]] = []

        @wind.on("T", purpose="p")
        async def first(number: int) -> None:
            handled.append(("first", number))

        async def live(number: int) -> None:
            async with wind:
                await wind.fire("T", number)
                await wind.settled(60)
                assert (await wind.statistics()).purposes["T", "p"].pending == 0

        asyncio.run(live(1))
        asyncio.run(live(2))

        @wind.on("T", purpose="q")
        def second(number: int) -> None:
            handled.append(("second", number))

        with wind:
            wind.fire("T", 3).wait(60)
            wind.wait(wind.settled(60))
        asyncio.run(live(4))
        assert sorted(handled) == [
            ("first", 1),
            ("first", 2),
            ("first", 3),
            ("first", 4),
            ("second", 3),
            ("second", 4),
        ]

    @on_loop
    async def test_a_solarwind_can_be_started_many_times_on_one_loop(self, place: Place) -> None:
        wind = place.open()
        handled: list[int] = []

        @wind.on("T", purpose="p", concurrency=2)
        async def handle(number: int) -> None:
            handled.append(number)

        for number in range(5):
            async with wind:
                wind.fire("T", number)
                await wind.settled(60)
        assert handled == list(range(5))
        assert len(wind.handlers) == 1

    @on_loop
    async def test_settled_in_a_handler_is_refused(self, place: Place) -> None:
        """It would wait for itself: in an `async def` handler, in a task of it, and by `wait` in a `def` one."""
        wind = place.open()
        refusals: list[Exception] = []

        @wind.on("T", purpose="p", retry=Retry(attempts=1))
        async def handle() -> None:
            refusals.append(await refused(wind.settled(), Unavailable, "outside of handlers", "'p' on 'T'"))
            await asyncio.create_task(refused(wind.settled(), Unavailable, "outside of handlers"))

        @wind.on("T", purpose="on a thread", retry=Retry(attempts=1))
        def handle_on_a_thread() -> None:
            with pytest.raises(Unavailable, match="outside of handlers") as caught:
                wind.wait(wind.settled(), 10)
            refusals.append(caught.value)

        async with wind:
            await wind.fire("T")
            await wind.settled(60)
            for purpose in ("p", "on a thread"):
                assert (await wind.statistics()).purposes["T", purpose].settled == 1
        assert len(refusals) == 2

    @on_loop
    async def test_settled_with_an_event_of_a_stream_in_hand_is_refused(self, place: Place) -> None:
        """It would wait for that event; after it is settled, and elsewhere, the call waits."""
        wind = place.open()
        async with wind, wind.listen("T", "p") as stream:
            await wind.fire("T")
            async for _ in stream:
                await refused(wind.settled(60), Unavailable, "no event in hand", "'T' for 'p'", "settle()")
                await asyncio.create_task(refused(wind.settled(60), Unavailable, "no event in hand"))
                stream.settle()
                await wind.settled(60)
                break

    @on_loop
    async def test_a_handler_that_stops_the_service_is_not_waited_for_by_itself(self, place: Place) -> None:
        wind = place.open()
        ended: list[bool] = []

        @wind.on("T", purpose="p")
        async def handle() -> None:
            await wind.stop()
            ended.append(True)

        await wind.start()
        await wind.fire("T")
        await until(lambda: ended)
        await asyncio.wait_for(wind.stop(), 60)
        with pytest.raises(Unavailable):
            wind.fire("T")

    @on_loop
    async def test_a_handler_that_goes_on_though_it_is_cancelled_does_not_hold_up_the_stop(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()
        begun = asyncio.Event()
        over = False

        @wind.on("T", purpose="p")
        async def handle() -> None:
            begun.set()
            while not over:
                try:
                    await asyncio.sleep(0.01)
                except asyncio.CancelledError:
                    pass

        await wind.start()
        await wind.fire("T")
        await asyncio.wait_for(begun.wait(), 60)
        try:
            with caplog.at_level(logging.WARNING, "solarwind"):
                await asyncio.wait_for(wind.stop(grace=0.01), 60)
        finally:
            over = True
        assert any("still runs though it was cancelled" in message for message in caplog.messages)

    @on_loop
    async def test_a_call_awaited_on_another_loop_runs_on_its_own_loop(self, place: Place) -> None:
        wind = place.open()
        handled: list[int] = []
        purposes: set[str] = set()

        @wind.on("T", purpose="p")
        async def handle(number: int, event: Event) -> None:
            handled.append(number)

        async def elsewhere() -> None:
            assert await wind.fire("T", 1)
            await wind.fire_many("T", [2, 3])
            await wind.settled(60)
            await wind.joined()
            purposes.update(each.purpose for each in await wind.purposes("T"))
            await wind.off(handle)
            await wind.stop()

        await wind.start()
        await asyncio.wait_for(in_a_thread(elsewhere), 60)
        assert sorted(handled) == [1, 2, 3]
        assert purposes == {"p"}
        await refused(wind.settled(), Unavailable, "stopped")

    @on_loop
    async def test_a_stream_is_read_on_the_loop_that_it_was_opened_on(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            stream = wind.listen("T", "p")

            async def elsewhere() -> None:
                await refused(stream.open(), Unavailable, "event loop")

            await in_a_thread(elsewhere)
            async with stream:
                await in_a_thread(elsewhere)

    @on_loop
    async def test_a_loop_over_a_stream_that_is_left_by_break_is_no_instance_any_more(self, place: Place) -> None:
        """The event in hand is handed out again at once; another loop over the stream joins anew."""
        wind = place.open()
        async with wind:
            await wind.fire("T", 0)
            stream = wind.listen("T", "p", since="beginning")
            async with wind.listen("T", "p"):  # so that the purpose is there
                pass
            await wind.fire_many("T", [1, 2, 3])
            for number in (1, 2):
                async for event in stream:
                    assert event.payload == number
                    if number == 1:
                        stream.settle()
                    break
                await until(lambda: _instances(wind, 0))
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.settled, counts.pending, counts.in_flight) == (1, 2, 0)
            async for event in wind.listen("T", "p"):
                assert (event.payload, event.attempt) == (2, 1)
                break
            await until(lambda: _instances(wind, 0))

    @on_loop
    async def test_a_stream_that_nobody_has_any_more_is_no_instance_any_more(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            await wind.listen("T", "p").open()
            await until(lambda: _instances(wind, 0))
            await wind.fire("T", 1)
            assert (await anext(wind.listen("T", "p"))).payload == 1
            await until(lambda: _instances(wind, 0))
            assert (await wind.statistics()).purposes["T", "p"].pending == 1

    @on_loop
    async def test_a_stream_whose_opening_is_cancelled_is_no_instance(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            for turns in (1, 2, 4, 8, 16):
                opening = asyncio.ensure_future(wind.listen("T", "p").open())
                for _ in range(turns):
                    await asyncio.sleep(0)
                opening.cancel()
                await asyncio.wait([opening])
                if not opening.cancelled():
                    await opening.result().aclose()

            async def nobody_is_there() -> bool:
                counts = (await wind.statistics()).purposes.get(("T", "p"))
                return counts is None or counts.instances == 0

            await until(nobody_is_there)

    @on_loop
    async def test_a_second_reader_of_a_stream_is_refused_while_one_waits(self, place: Place) -> None:
        wind = place.open()
        async with wind, wind.listen("T", "p") as stream:
            first = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            with pytest.raises(Unavailable, match="expected one reader of a stream at a time, got another"):
                await anext(stream)
            await wind.fire("T", 1)
            assert (await first).payload == 1

    @on_loop
    async def test_off_during_joining_removes_the_instance(self, place: Place) -> None:
        wind = place.open()

        async def handle() -> None: ...

        async with wind:
            wind.on("T", purpose="p")(handle)
            await asyncio.gather(wind.off(handle), wind.off(handle))
            counts = (await wind.statistics()).purposes["T", "p"]
            assert counts.instances == 0

    @on_loop
    async def test_settled_without_time_returns_where_nothing_is_left(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle() -> None:
            await gate.wait()

        async with wind:
            await wind.settled(0)
            await wind.fire("T")
            await refused(wind.settled(0), TimeoutError, "'p' on 'T'")
            gate.set()
            await wind.settled(60)
            await wind.settled(0)

    def test_a_call_is_refused_where_its_own_loop_is_gone(self, place: Place) -> None:
        wind = place.open()

        async def forget() -> None:
            await wind.start()

        loop = asyncio.new_event_loop()
        loop.run_until_complete(forget())

        async def later() -> None:
            for work in (wind.settled(), wind.statistics(), wind.stop()):
                await refused(work, Unavailable, "does not run any more")

        asyncio.run(later())
        loop.run_until_complete(wind.stop())
        loop.close()

    def test_a_def_handler_that_hangs_does_not_hold_up_the_stop(self, place: Place) -> None:
        wind = place.open()
        begun, gate = threading.Event(), threading.Event()

        @wind.on("T", purpose="p")
        def handle() -> None:
            begun.set()
            gate.wait(60)

        async def live() -> None:
            await wind.start()
            await wind.fire("T")
            await until(begun.is_set)
            await asyncio.wait_for(wind.stop(grace=0), 60)

        asyncio.run(live())
        gate.set()


async def _instances(wind: SolarWind, count: int) -> bool:
    return (await wind.statistics()).purposes["T", "p"].instances == count
