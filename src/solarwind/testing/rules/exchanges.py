"""How events are handed out: `direct`, `fanout`, `keyed`, and exchanges of one's own."""

from __future__ import annotations

import asyncio
import importlib
import sys
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from ...errors import BadArgument, ConflictError
from ...event import Event
from ...exchanges import Exchange, Instance, register_exchange
from ...failure import Later, Reject, Retry
from ...wind import SolarWind
from .place import Place, a_while, all_reported, on_loop, refused, until


class Oldest(Exchange):
    """Gives everything to the instance that joined first; events that say `wait` wait for a second instance."""

    def choose(self, event: Event, instances: Sequence[Instance]) -> Instance | None:
        if event.payload == "wait" and len(instances) < 2:
            return None
        return min(instances, key=lambda instance: instance.id)


class TwoCopies(Exchange):
    """Gives a copy to the two instances that joined first."""

    pends = False

    def choose(self, event: Event, instances: Sequence[Instance]) -> Iterable[Instance]:
        return sorted(instances, key=lambda instance: instance.id)[:2]


class ExchangeRules:
    """The rules of exchanges."""

    @on_loop
    async def test_each_exchange_hands_out_ten_thousand_events_as_promised(self, place: Place) -> None:
        """10,000 events: instance A of purpose a gets all; B1 and B2 of b share them, as their speed divides them; C1
        and C2 of c, a fan-out, get all each."""
        wind = place.open()
        seen: dict[str, list[int]] = defaultdict(list)

        def service(name: str, purpose: str, exchange: str) -> None:
            @wind.on("T", purpose=purpose, exchange=exchange)
            async def handle(number: int) -> None:
                seen[name].append(number)

        for name, purpose, exchange in (
            ("A", "a", "direct"),
            ("B1", "b", "direct"),
            ("B2", "b", "direct"),
            ("C1", "c", "fanout"),
            ("C2", "c", "fanout"),
        ):
            service(name, purpose, exchange)
        async with wind:
            for number in range(10_000):
                wind.fire("T", number)
            await wind.settled(60)
            statistics = await wind.statistics()
        everything = list(range(10_000))
        assert sorted(seen["A"]) == everything
        assert sorted(seen["B1"] + seen["B2"]) == everything
        assert seen["B1"]
        assert seen["B2"]
        assert sorted(seen["C1"]) == everything
        assert sorted(seen["C2"]) == everything
        assert statistics.topics["T"].fired == 10_000
        assert statistics.purposes["T", "a"].settled == 10_000
        assert statistics.purposes["T", "b"].settled == 10_000
        assert statistics.purposes["T", "c"].settled == 20_000
        assert statistics.purposes["T", "c"].dropped == 0

    @on_loop
    async def test_direct_takes_the_least_recently_used(self, place: Place) -> None:
        wind = place.open()
        calls: list[int] = []

        def service(name: int) -> None:
            @wind.on("T", purpose="p")
            async def handle() -> None:
                calls.append(name)

        for name in (1, 2, 3):
            service(name)
        async with wind:
            for _ in range(9):
                await wind.fire("T")
                await wind.settled(60)
        assert sorted(calls[:3]) == [1, 2, 3]
        assert calls == calls[:3] * 3

    @on_loop
    async def test_direct_passes_over_an_instance_without_room(self, place: Place) -> None:
        """Others take over from a busy instance; it does not hold up what it cannot begin."""
        wind = place.open()
        gate = asyncio.Event()
        calls: list[tuple[str, int]] = []

        @wind.on("T", purpose="p", concurrency=1)
        async def slow(number: int) -> None:
            calls.append(("slow", number))
            await gate.wait()

        @wind.on("T", purpose="p", concurrency=1)
        async def quick(number: int) -> None:
            calls.append(("quick", number))

        async with wind:
            for number in range(20):
                await wind.fire("T", number)
            await until(lambda: len(calls) == 20, "all but the one that is held")
            assert [name for name, _ in calls].count("slow") == 1
            gate.set()
            await wind.settled(60)
        assert sorted(number for _, number in calls) == list(range(20))

    @on_loop
    async def test_direct_least_busy_chooses_the_instance_with_the_fewest_events(self, place: Place) -> None:
        """The instance with the fewest events in hand is chosen, so none goes to the busy one."""
        wind = place.open()
        gate = asyncio.Event()
        calls: list[tuple[int, str]] = []

        def service(name: int) -> None:
            @wind.on("T", purpose="p", exchange="direct:least-busy", concurrency=10)
            async def handle(what: str) -> None:
                calls.append((name, what))
                if what == "long":
                    await gate.wait()

        service(1)
        service(2)
        async with wind:
            await wind.fire("T", "long")
            await until(lambda: calls, "the long one to begin")
            holder = calls[0][0]
            for count in range(2, 8):
                await wind.fire("T", "short")
                await until(lambda count=count: len(calls) == count)  # type: ignore[misc]
                await until(lambda: _flying(wind, 1), "the short one to be settled")
            gate.set()
            await wind.settled(60)
        assert {name for name, what in calls if what == "short"} == {3 - holder}

    @on_loop
    async def test_direct_random_chooses_an_instance_by_chance(self, place: Place) -> None:
        wind = place.open()
        calls: list[int] = []

        def service(name: int) -> None:
            @wind.on("T", purpose="p", exchange="direct:random")
            async def handle() -> None:
                calls.append(name)

        service(1)
        service(2)
        async with wind:
            for _ in range(60):
                await wind.fire("T")
                await wind.settled(60)
        assert len(calls) == 60
        assert set(calls) == {1, 2}
        assert calls not in (([1, 2] * 30), ([2, 1] * 30)), "it takes turns, which is another rule"

    @on_loop
    async def test_keyed_one_at_a_time_in_order_across_retries(self, place: Place) -> None:
        """All events of a key come in the order accepted, over several instances, although some are retried."""
        wind = place.open()
        began: dict[str, list[int]] = defaultdict(list)
        ended: dict[str, list[int]] = defaultdict(list)
        at_work: set[str] = set()
        busy: set[int] = set()

        def service(name: int) -> None:
            @wind.on("T", purpose="p", exchange="keyed", retry=Retry(wait=0))
            async def handle(number: int, event: Event) -> None:
                key = event.key or ""
                assert key not in at_work
                at_work.add(key)
                busy.add(name)
                began[key].append(number)
                await asyncio.sleep(0)
                at_work.remove(key)
                if number % 7 == 0 and event.attempt < 3:
                    raise RuntimeError("not yet")
                ended[key].append(number)

        service(1)
        service(2)
        async with wind:
            for number in range(600):
                wind.fire("T", number, key=f"k{number % 6}")
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
        assert counts.dead == 0
        assert ended == {f"k{k}": list(range(k, 600, 6)) for k in range(6)}
        assert all(numbers == sorted(numbers) for numbers in began.values())
        assert busy == {1, 2}

    @on_loop
    async def test_keyed_holds_up_only_the_key_that_is_busy(self, place: Place) -> None:
        wind = place.open()
        gate = asyncio.Event()
        seen: list[tuple[str | None, int]] = []

        @wind.on("T", purpose="p", exchange="keyed")
        async def handle(number: int, event: Event) -> None:
            if (event.key, number) == ("a", 0):
                await gate.wait()
            seen.append((event.key, number))

        async with wind:
            for number in range(5):
                wind.fire("T", number, key="a")
                wind.fire("T", number, key="b")
            await until(lambda: len(seen) == 5)
            assert seen == [("b", number) for number in range(5)]
            gate.set()
            await wind.settled(60)
        assert seen[5:] == [("a", number) for number in range(5)]

    @on_loop
    async def test_keyed_waits_for_later_and_goes_on_after_the_dead(self, place: Place) -> None:
        """`Later` holds up its key, and only that; a dead letter holds up nothing."""
        clock = place.clock()
        wind = place.open()
        seen: list[tuple[str | None, int]] = []
        postponed = False

        @wind.on("T", purpose="p", exchange="keyed")
        async def handle(number: int, event: Event) -> None:
            nonlocal postponed
            if (event.key, number) == ("later", 0) and not postponed:
                postponed = True
                raise Later(60)
            if (event.key, number) == ("dead", 0):
                raise Reject("no")
            seen.append((event.key, number))

        async with wind:
            for number in range(3):
                wind.fire("T", number, key="later")
                wind.fire("T", number, key="dead")
                wind.fire("T", number, key="plain")
            await until(lambda: len(seen) == 5, "the other keys")
            await all_reported(wind)
            await a_while()
            assert [number for key, number in seen if key == "later"] == []
            clock.advance(61)
            await wind.settled(60)
        assert [number for key, number in seen if key == "later"] == [0, 1, 2]
        assert [number for key, number in seen if key == "dead"] == [1, 2]

    @on_loop
    async def test_keyed_keeps_the_order_across_a_restart(self, place: Place) -> None:
        """An event that waits for a retry still holds up its key, and the events behind it follow in order."""
        clock = place.clock()
        place.chance(lambda: 1.0)
        seen: list[tuple[str | None, int]] = []
        broken = True

        def service(wind: SolarWind) -> SolarWind:
            @wind.on("T", purpose="p", exchange="keyed", retry=Retry(wait=60))
            async def handle(number: int, event: Event) -> None:
                if broken and (event.key, number) == ("a", 1):
                    raise RuntimeError("not yet")
                seen.append((event.key, number))

            return wind

        async with service(place.open()) as wind:
            for number in range(4):
                wind.fire("T", number, key="a")
                wind.fire("T", number, key="b")
            await until(lambda: len(seen) == 5)
            await all_reported(wind)
        broken = False
        async with service(place.restart()) as wind:
            await wind.fire("T", 4, key="a")
            await a_while()
            assert len(seen) == 5, "its wait is not over"
            clock.advance(61)
            await wind.settled(60)
        assert [number for key, number in seen if key == "a"] == [0, 1, 2, 3, 4]
        assert [number for key, number in seen if key == "b"] == [0, 1, 2, 3]

    @on_loop
    async def test_keyed_keeps_the_order_across_the_loss_of_an_instance(self, place: Place) -> None:
        """The events of a key that a lost instance had come again before those behind them."""
        clock = place.clock()
        wind = place.open()
        hung = asyncio.Event()
        seen: list[tuple[int, int]] = []

        async with wind:
            stream = await wind.listen("T", "p", exchange="keyed", lease=10).open()
            await wind.fire_many("T", range(4), key="a")
            lost = await anext(stream)
            assert lost.payload == 0

            @wind.on("T", purpose="p", exchange="keyed")
            async def handle(number: int, event: Event) -> None:
                seen.append((number, event.attempt))
                hung.set()

            await wind.joined()
            assert not seen, "the key is in somebody's hands"
            clock.advance(11)
            await asyncio.wait_for(hung.wait(), 60)
            await until(lambda: len(seen) == 4)
            await stream.aclose()
            await wind.settled(60)
        assert [number for number, _ in seen] == [0, 1, 2, 3]
        assert seen[0][1] == 2, "it was in the lost one's hands, which counts"

    @on_loop
    async def test_keyed_orders_by_a_field_of_the_payload(self, place: Place) -> None:
        """The purpose names the field, whatever key the producer gave."""
        wind = place.open()
        at_work: set[Any] = set()
        order: dict[Any, list[int]] = defaultdict(list)

        @wind.on("T", purpose="p", exchange="keyed", key="$.video.id")
        async def handle(payload: dict[str, Any]) -> None:
            video = payload["video"]["id"]
            assert video not in at_work
            at_work.add(video)
            await asyncio.sleep(0)
            at_work.remove(video)
            order[video].append(payload["n"])

        async with wind:
            for number in range(120):
                wind.fire("T", {"n": number, "video": {"id": number % 4, "x": []}}, key=f"other {number}")
            await wind.settled(60)
        assert order == {video: list(range(video, 120, 4)) for video in range(4)}

    @on_loop
    async def test_keyed_compares_a_field_by_its_json_value(self, place: Place) -> None:
        """Equal values written differently are one key: its events never run together, those of different keys all
        do."""
        same = [
            ["1", "1.0", "1e0"],
            ['"1"', r'"\u0031"'],
            ["100", "1E+2"],
            ["true"],
            [str(2**70), f"{2**70}.0"],
            [str(2**70 + 1)],
            ['{"a": 1, "b": [2]}', '{"b":[2.0],"a":1}'],
            ['{"a": "1", "b": [2]}'],
        ]
        wind, all_met = place.open(), asyncio.Barrier(len(same))
        met: list[int] = []

        @wind.on("T", purpose="p", exchange="keyed", key="$.k", concurrency=20)
        async def handle(payload: dict[str, Any]) -> None:
            if payload["first"]:
                await all_met.wait()
            met.append(payload["group"])

        async with wind:
            texts = [
                f'{{"k": {text}, "group": {group}, "first": {"false" if place_in else "true"}}}'
                for group, texts in enumerate(same)
                for place_in, text in enumerate(texts)
            ]
            await wind.fire_many("T", [msgspec.Raw(text.encode()) for text in texts])
            await wind.settled(60)
            assert await wind.dead("T", "p") == []
        assert sorted(met[: len(same)]) == list(range(len(same))), "a second of a key came before all the first"

    @on_loop
    async def test_an_event_without_a_key_is_its_own_key(self, place: Place) -> None:
        """Such events do not hold each other up: two are handled at the same time."""
        wind = place.open()
        both = asyncio.Barrier(2)
        met: list[str] = []

        @wind.on("T", purpose="of the event", exchange="keyed", concurrency=2)
        async def by_event() -> None:
            await both.wait()
            met.append("event")

        async with wind:
            wind.fire("T", {"a": 1})
            wind.fire("T", {"a": 1})
            await wind.settled(60)
            await wind.off(by_event)

            @wind.on("T", purpose="of a field", exchange="keyed", key="$.missing", concurrency=2)
            async def by_field() -> None:
                await both.wait()
                met.append("field")

            await wind.joined()
            wind.fire("T", {"a": 1})
            wind.fire("T", b"no JSON")
            await wind.settled(60)
        assert met == ["event"] * 2 + ["field"] * 2

    @on_loop
    async def test_events_without_a_key_are_counted_and_said_once(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()

        @wind.on("T", purpose="of a field", exchange="keyed", key="$.product", retry=Retry(attempts=2, wait=0))
        async def by_field(event: Event) -> None:
            if event.attempt == 1:
                raise RuntimeError("an event that is handed out again is not counted again")

        @wind.on("T", purpose="of the event", exchange="keyed")
        async def by_event() -> None: ...

        @wind.on("T", purpose="in no order")
        async def unordered() -> None: ...

        async with wind:
            await wind.fire("T", {"prod": 1})
            await wind.settled(60)
            await wind.fire_many("T", [{"prod": 2}, {"product": None}, {"product": 3}, b"", [1]])
            await wind.settled(60)
            counts = (await wind.statistics()).purposes
        missing = {purpose: each.key_missing for (_, purpose), each in counts.items()}
        assert missing == {"of a field": 5, "of the event": 6, "in no order": 0}
        assert {each.settled for each in counts.values()} == {6}
        if place.in_process:
            said = [record.getMessage() for record in caplog.records if "no key" in record.getMessage()]
            assert len(said) == 2
            assert "'of a field'" in said[0] + said[1]
            assert "$.product" in said[0] + said[1]
            assert {record.levelname for record in caplog.records if "no key" in record.getMessage()} == {"WARNING"}

    @on_loop
    async def test_an_event_without_a_key_is_a_dead_letter_where_that_is_stated(self, place: Place) -> None:
        wind = place.open()
        seen: list[int] = []

        @wind.on("T", purpose="p", exchange="keyed", key="$.product", key_missing="reject")
        async def handle(payload: dict[str, int]) -> None:
            seen.append(payload["product"])

        async with wind:
            await wind.fire_many("T", [{"product": 1}, {"prod": 2}, {"product": 3}, b"", {"product": 4}])
            await wind.settled(60)
            letters = await wind.dead("T", "p")
            counts = (await wind.statistics()).purposes["T", "p"]
            assert sorted(seen) == [1, 3, 4]
            assert [(letter.event.payload, letter.attempts) for letter in letters] == [({"prod": 2}, 0), (b"", 0)]
            assert letters[0].error == "expected a key, the field $.product of its payload, got none"
            assert (counts.key_missing, counts.settled, counts.dead, counts.pending) == (2, 3, 2, 0)
            assert await wind.redrive("T", "p") == 2
            await wind.settled(60)
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.key_missing, counts.dead) == (2, 2), "dead again, and not counted twice"

    @on_loop
    async def test_the_first_instance_states_what_becomes_of_events_without_a_key(self, place: Place) -> None:
        async with place.open() as wind:
            async with wind.listen("T", "p", exchange="keyed", key_missing="reject"):
                other = wind.listen("T", "p", exchange="keyed")
                await refused(other.open(), ConflictError, "key_missing='reject'", "version=2")
            for exchange in ("direct", "fanout"):
                with pytest.raises(BadArgument, match=f"key_missing .*'{exchange}'"):
                    wind.listen("T", "q", exchange=exchange, key_missing="reject")
            with pytest.raises(BadArgument, match="'handle' or 'reject', got 'ignore'"):
                wind.on("T", exchange="keyed", key_missing="ignore")

    @on_loop
    async def test_a_long_backlog_without_keys_becomes_dead_letters(self, place: Place) -> None:
        """Many batches without keys precede an event that has one."""
        async with place.open() as wind:
            async with wind.listen("T", "p", exchange="keyed", key_missing="reject"):
                pass
            for _ in range(3):
                await wind.fire_many("T", range(2_000))
            await wind.fire("T", "last", key="a")
            async with wind.listen("T", "p", exchange="keyed", key_missing="reject") as events:
                assert (await anext(events)).payload == "last"
            counts = (await wind.statistics()).purposes["T", "p"]
            assert (counts.dead, counts.key_missing, counts.pending) == (6_000, 6_000, 1)

    @on_loop
    async def test_a_key_needs_a_keyed_exchange(self, place: Place) -> None:
        with pytest.raises(BadArgument, match=r"\$\.id.*direct"):
            place.open().on("T", purpose="p", key="$.id")

    @on_loop
    async def test_a_registered_exchange_chooses_the_instances(self, place: Place) -> None:
        """A registered exchange chooses; an event that it chooses no instance for waits until another joins."""
        if not place.in_process:
            pytest.skip("its dispatcher is in another process")
        register_exchange("contract-oldest", Oldest())
        wind = place.open()
        seen: list[tuple[int, str]] = []

        def service(name: int) -> None:
            @wind.on("T", purpose="p", exchange="contract-oldest")
            async def handle(what: str) -> None:
                seen.append((name, what))

        service(1)
        async with wind:
            await wind.fire_many("T", ["go"] * 3)
            await wind.settled(60)
            await wind.fire_many("T", ["wait", "behind"])
            assert (await wind.statistics()).purposes["T", "p"].pending == 2
            service(2)
            await wind.joined()
            await wind.settled(60)
        assert seen == [(1, "go")] * 3 + [(1, "wait"), (1, "behind")]

    @on_loop
    async def test_a_registered_exchange_may_drop_events_instead_of_pending(self, place: Place) -> None:
        if not place.in_process:
            pytest.skip("its dispatcher is in another process")
        register_exchange("contract-two-copies", TwoCopies())
        wind = place.open()
        seen: list[int] = []

        def service(name: int) -> None:
            @wind.on("T", purpose="p", exchange="contract-two-copies")
            async def handle() -> None:
                seen.append(name)

        for name in (1, 2, 3):
            service(name)
        async with wind:
            await wind.fire_many("T", range(4))
            await wind.settled(60)
        assert sorted(seen) == [1] * 4 + [2] * 4

    @on_loop
    async def test_an_exchange_is_loaded_from_an_installed_package(
        self, place: Place, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """It is found by the entry-point group `solarwind.exchanges`."""
        if not place.in_process:
            pytest.skip("its dispatcher is in another process")
        name = f"packaged{abs(hash(str(tmp_path))) % 10**9}"
        (tmp_path / f"{name}_module.py").write_text(
            "from solarwind.exchanges import Direct\nclass Last(Direct):\n"
            "    def order(self, instances, random):\n        return sorted(instances, key=lambda i: -i.id)\n"
        )
        metadata = tmp_path / f"{name}-1.0.dist-info"
        metadata.mkdir()
        (metadata / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        (metadata / "entry_points.txt").write_text(f"[solarwind.exchanges]\n{name} = {name}_module:Last\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        importlib.invalidate_caches()
        wind = place.open()
        seen: list[int] = []

        def service(number: int) -> None:
            @wind.on("T", purpose="p", exchange=name)
            async def handle() -> None:
                seen.append(number)

        service(1)
        service(2)
        async with wind:
            for _ in range(3):
                await wind.fire("T")
                await wind.settled(60)
        assert seen == [2, 2, 2]
        sys.modules.pop(f"{name}_module", None)


async def _flying(wind: Any, count: int) -> bool:
    statistics = await wind.statistics()
    return bool(statistics.purposes["T", "p"].in_flight == count)
