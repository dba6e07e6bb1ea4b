"""The Python API: batches, streams, threads, `settled`, and starting and stopping."""

from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from ...errors import Unavailable
from ...event import Event
from ...failure import Retry
from ...wind import SolarWind
from .place import Place, on_loop, refused, until


class ServiceRules:
    """The rules of the Python API."""

    @on_loop
    async def test_a_batch_handler_gets_500_at_most(self, place: Place) -> None:
        wind = place.open()
        sizes: list[int] = []
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def handle(numbers: list[int]) -> None:
            sizes.append(len(numbers))
            seen.extend(numbers)

        async with wind:
            await wind.fire_many("T", range(4_000))
            await wind.settled(60)
        assert sorted(seen) == list(range(4_000))
        assert max(sizes) == 500

    @on_loop
    async def test_a_def_handler_does_not_block_the_loop(self, place: Place) -> None:
        """The handler waits for something that only the loop can do."""
        wind = place.open()
        begun = threading.Event()
        gate = threading.Event()
        ended: list[bool] = []

        @wind.on("T", purpose="p")
        def handle() -> None:
            begun.set()
            ended.append(gate.wait(60))

        async with wind:
            await wind.fire("T")
            await until(begun.is_set)
            await wind.fire("U")
            gate.set()
            await wind.settled(60)
        assert ended == [True]

    @on_loop
    async def test_a_handler_runs_as_often_at_once_as_its_concurrency(self, place: Place) -> None:
        """An `async def` handler runs 10 times at once, a `def` handler once, or as often as it states."""
        wind = place.open()
        at_work: dict[str, int] = {"async": 0, "def": 0, "threads": 0}
        most: dict[str, int] = {"async": 0, "def": 0, "threads": 0}
        guard = threading.Lock()
        three = threading.Barrier(3)

        def begin(name: str) -> None:
            with guard:
                at_work[name] += 1
                most[name] = max(most[name], at_work[name])

        def end(name: str) -> None:
            with guard:
                at_work[name] -= 1

        @wind.on("T", purpose="async")
        async def asynchronous() -> None:
            begin("async")
            for _ in range(20):
                await asyncio.sleep(0)
            end("async")

        @wind.on("T", purpose="def")
        def one() -> None:
            begin("def")
            end("def")

        @wind.on("T", purpose="threads", concurrency=3)
        def several() -> None:
            begin("threads")
            three.wait(60)
            end("threads")

        async with wind:
            await wind.fire_many("T", range(60))
            await wind.settled(60)
        assert most == {"async": 10, "def": 1, "threads": 3}

    @on_loop
    async def test_asking_a_stream_for_the_next_event_settles_the_last(self, place: Place) -> None:
        """Asking for the next settles the last; leaving gives back the one in hand, without counting an attempt."""
        wind = place.open()
        async with wind:
            taken: list[int] = []
            async with wind.listen("T", "p") as stream:
                await wind.fire_many("T", range(5))
                async for event in stream:
                    taken.append(event.payload)
                    assert (event.attempt, event.purpose) == (1, "p")
                    if event.payload == 2:
                        break
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.settled, counts.pending, counts.in_flight, counts.instances) == (2, 3, 0, 0)
            async with wind.listen("T", "p") as stream:
                taken += [(await anext(stream)).payload for _ in range(3)]
                stream.settle()
                await until(lambda: _settled(wind, 5))
        assert taken == [0, 1, 2, 2, 3, 4]

    @on_loop
    async def test_listen_waits_for_the_next_event(self, place: Place) -> None:
        wind = place.open()
        async with wind:
            stream = await wind.listen("T", "page", exchange="fanout").open()
            next_one = asyncio.ensure_future(anext(stream))
            await wind.fire("T", "hello")
            assert (await asyncio.wait_for(next_one, 60)).payload == "hello"
            next_one = asyncio.ensure_future(anext(stream))
            await asyncio.sleep(0)
            await stream.aclose()
            with pytest.raises(StopAsyncIteration):
                await next_one
            with pytest.raises(StopAsyncIteration):
                await anext(stream)

    @on_loop
    async def test_a_stream_ends_when_it_stops(self, place: Place) -> None:
        """A wait for the next event ends, and events that were not settled come again."""
        wind = place.open()
        taken: list[int] = []

        async def consume() -> None:
            async for event in wind.listen("T", "p"):
                taken.append(event.payload)

        async with wind:
            consumer = asyncio.create_task(consume())
            await until(lambda: _joined(wind))
            await wind.fire_many("T", [1, 2])
            await until(lambda: taken == [1, 2])
            await until(lambda: _settled(wind, 2))
        await asyncio.wait_for(consumer, 60)
        assert taken == [1, 2]

    @on_loop
    async def test_settled_says_what_is_left(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()

        @wind.on("T", purpose="p", concurrency=1)
        async def handle() -> None:
            await gate.wait()

        async with wind:
            await wind.fire_many("T", range(3))
            await refused(wind.settled(0.05), TimeoutError, "0.05 s", "'p' on 'T'", "2 pending", "1 in flight")
            gate.set()
            await wind.settled(60)
            await wind.settled(0.5)

    @on_loop
    async def test_settled_waits_for_chains_retries_and_copies(self, place: Place) -> None:
        wind = place.open()
        seen: list[str] = []

        @wind.on("a", purpose="p", retry=Retry(wait=0.05))
        async def first(event: Event) -> None:
            if event.attempt == 1:
                raise RuntimeError("once more")
            wind.fire("b")

        @wind.on("b", purpose="q")
        async def second() -> None:
            await asyncio.sleep(0)
            seen.append("direct")

        @wind.on("b", purpose="r", exchange="fanout")
        async def third() -> None:
            for _ in range(5):
                await asyncio.sleep(0)
            seen.append("fanout")

        async with wind:
            wind.fire("a")
            await wind.settled(60)
            assert sorted(seen) == ["direct", "fanout"]

    @on_loop
    async def test_settled_waits_for_the_end_of_chains_over_several_topics_each_time(self, place: Place) -> None:
        wind = place.open()
        seen: list[str] = []

        @wind.on("a", purpose="p")
        async def first(left: int) -> None:
            seen.append("a")
            if left:
                wind.fire("a", left - 1)
                wind.fire("b", left)

        @wind.on("b", purpose="q")
        async def second(left: int) -> None:
            seen.append("b")
            if left == 2:
                wind.fire("c")

        @wind.on("c", purpose="r")
        async def third() -> None:
            seen.append("c")

        async with wind:
            for _ in range(100):
                await wind.fire("a", 3)
                await wind.settled(60)
                assert sorted(seen) == [*"aaaabbbc"]
                seen.clear()

    @on_loop
    async def test_statistics_are_a_frozen_record(self, place: Place) -> None:
        """They are a frozen record."""
        wind = place.open()

        @wind.on("T", purpose="p", exchange="keyed", version=4)
        async def handle() -> None: ...

        async with wind:
            await wind.fire_many("T", range(3))
            await wind.settled(60)
            statistics = await wind.statistics()
        counts = statistics.purposes["T", "p"]
        assert statistics.topics["T"].fired == 3
        differ = ("rates", "times", "version_joined")
        found = {name: getattr(counts, name) for name in counts.__struct_fields__ if name not in differ}
        assert found == {
            "exchange": "keyed",
            "versions": (4,),
            "instances": 1,
            "pending": 0,
            "in_flight": 0,
            "settled": 3,
            "retried": 0,
            "dead": 0,
            "expired": 0,
            "dropped": 0,
            "key_missing": 3,
            "state": "running",
            "oldest": None,
            "version_states": ("current",),
            "delay": 0.0,
            "delayed": 0,
            "delayed_until": None,
            "rate": None,
            "at_most": None,
            "limited": False,
        }
        with pytest.raises(AttributeError):
            counts.pending = 1  # type: ignore[misc]

    @on_loop
    async def test_firing_before_start_and_after_stop_is_unavailable(self, place: Place) -> None:
        wind = place.open()
        with pytest.raises(Unavailable):
            wind.fire("T")
        await refused(wind.settled(), Unavailable)
        async with wind:
            await wind.fire("T")
            await refused(wind.start(), Unavailable, "running")
        with pytest.raises(Unavailable) as caught:
            wind.fire("T")
        assert "stopped" in str(caught.value)
        for work in (wind.settled(), wind.statistics(), wind.dead("T", "p"), wind.replay("T", "p"), wind.trace("x")):
            await refused(work, Unavailable)
        await wind.stop()

    @on_loop
    async def test_stopping_flushes_lets_handlers_finish_and_gives_back_the_rest(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()
        begun: list[int] = []
        ended: list[int] = []

        @wind.on("T", purpose="p", concurrency=2)
        async def handle(number: int) -> None:
            begun.append(number)
            await gate.wait()
            ended.append(number)
            wind.fire("child", number)

        async with wind:
            wind.fire_many("T", range(10))
            await until(lambda: len(begun) == 2)
            wind.fire("U", "at the last moment")
            asyncio.get_running_loop().call_soon(gate.set)
        assert begun == ended == [0, 1]
        async with place.restart() as wind:
            statistics = await wind.statistics()
        assert statistics.topics["U"].fired == 1
        assert statistics.topics["child"].fired == 2
        assert (statistics.purposes["T", "p"].settled, statistics.purposes["T", "p"].pending) == (2, 8)

    @on_loop
    async def test_a_stop_while_a_backlog_is_read_leaves_a_store_that_opens_again(self, place: Place) -> None:
        """At any moment it can be stopped, and opened again."""
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle() -> None: ...

        async with wind:
            await wind.off(handle)
            for _ in range(10):
                await wind.fire_many("T", ["x" * 1_000] * 1_000)
        handled = 0
        for turns in range(10):
            wind = place.restart()

            @wind.on("T", purpose="p")
            async def count() -> None:
                nonlocal handled
                await asyncio.sleep(0)
                handled += 1

            await wind.start()
            for _ in range(turns):
                await asyncio.sleep(0)
            await wind.stop(grace=5)
        async with place.restart() as wind:
            counts = (await wind.statistics()).purposes["T", "p"]
        assert counts.pending + counts.settled == 10_000
        assert counts.settled == handled

    @on_loop
    async def test_a_handler_that_does_not_end_in_time_is_tried_again(self, place: Place) -> None:
        wind = place.open()
        begun = asyncio.Event()

        @wind.on("T", purpose="p")
        async def handle() -> None:
            begun.set()
            await asyncio.Event().wait()

        await wind.start()
        await wind.fire("T")
        await asyncio.wait_for(begun.wait(), 60)
        await wind.stop(grace=0.01)
        wind = place.restart()
        attempts: list[int] = []

        @wind.on("T", purpose="p")
        async def again(event: Event) -> None:
            attempts.append(event.attempt)

        async with wind:
            await wind.settled(60)
        assert len(attempts) == 1

    def test_several_threads_fire_and_wait_without_asyncio(self, place: Place) -> None:
        """`with` runs it on a thread of its own; any thread fires, and waits."""
        seen: list[int] = []
        guard = threading.Lock()
        with place.open() as wind:

            @wind.on("T", purpose="p")
            def handle(number: int) -> None:
                with guard:
                    seen.append(number)

            wind.wait(wind.joined(), 10)

            def produce(start: int) -> list[str]:
                ids = [wind.fire("T", number).id for number in range(start, start + 249)]
                return [*ids, wind.fire("T", start + 249).wait(60)]

            with ThreadPoolExecutor(4) as threads:
                ids = [id for part in threads.map(produce, range(0, 1_000, 250)) for id in part]
            wind.wait(wind.settled(60), 20)
            counts = wind.wait(wind.statistics(), 10).purposes["T", "p"]
            assert len(wind.fire_many("T", [1_000, 1_001]).wait(60).ids) == 2
            wind.wait(wind.settled(60))
        assert len(set(ids)) == 1_000
        assert sorted(seen) == list(range(1_002))
        assert counts.settled == 1_000
        with pytest.raises(Unavailable):
            wind.fire("T")

    def test_run_until_settled_ends_once_everything_is_settled(self, place: Place) -> None:
        """It runs as a service that ends once everything is settled, chains included."""
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p")
        async def handle() -> None: ...

        with wind:
            wind.wait(wind.off(handle))
            wind.fire_many("T", range(3)).wait(60)
        wind = place.restart()

        @wind.on("T", purpose="p")
        async def begin(number: int) -> None:
            wind.fire("U", number)

        @wind.on("U", purpose="q")
        def end(number: int) -> None:
            seen.append(number)

        wind.run(until_settled=True)
        assert sorted(seen) == [0, 1, 2]

    def test_an_error_inside_a_with_block_is_raised(self, place: Place) -> None:
        def fail() -> None:
            with place.open() as wind:
                wind.topic("T", keep=60)
                wind.fire("T")
                raise KeyError("mine")

        with pytest.raises(KeyError):
            fail()
        with place.restart() as wind:
            assert wind.wait(wind.statistics()).topics["T"].fired == 1

    def test_leaving_a_with_block_flushes_what_was_fired(self, place: Place) -> None:
        with place.open() as wind:
            wind.topic("T", keep=60)
            wind.fire("T")
        with place.restart() as wind:
            assert wind.wait(wind.statistics()).topics["T"].fired == 1

    @on_loop
    async def test_wait_on_the_loop_is_refused(self, place: Place) -> None:
        """It would wait for itself."""
        wind = place.open()
        async with wind:
            receipt = wind.fire("T")
            with pytest.raises(Unavailable):
                receipt.wait(1)
            with pytest.raises(Unavailable):
                wind.wait(wind.statistics(), 1)
            await receipt


async def _joined(wind: SolarWind) -> bool:
    return ("T", "p") in (await wind.statistics()).purposes


async def _settled(wind: SolarWind, count: int) -> bool:
    statistics = await wind.statistics()
    return bool(statistics.purposes["T", "p"].settled == count)
