"""Schemas of payloads: what handlers read and producers state."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from ...engine.schemas import MAX_VERSIONS
from ...errors import BadArgument, BadPayload
from ...event import Event
from ...wind import SolarWind
from .place import Place, on_loop, until


class Video(msgspec.Struct):
    name: str
    seconds: int = 0


class Coded(msgspec.Struct):
    name: str
    codec: str


class Numbered(msgspec.Struct):
    number: int


def _title(schema: dict[str, Any] | None) -> str:
    return "" if schema is None else str(schema["$ref"]).rpartition("/")[2]


class SchemaRules:
    """The rules of schemas: the dispatcher knows what each version reads, and says what one cannot read."""

    @on_loop
    async def test_what_a_handler_reads_is_known_from_its_registration(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="one")
        async def one(video: Video) -> None: ...

        @wind.on("T", purpose="many", exchange="keyed", key="$.name")
        async def many(videos: list[Coded]) -> None:
            wind.fire("U", None)

        @wind.on("T", purpose="any", exchange="fanout")
        async def anything(event: Event) -> None: ...

        async with wind:
            found = {each.purpose: each for each in await wind.schemas("T")}
            assert [_title(found[name].schema) for name in ("one", "many", "any")] == ["Video", "Coded", ""]
            assert (found["many"].version, found["many"].exchange, found["many"].key) == (1, "keyed", "$.name")
            assert found["one"].retry == {"attempts": 12, "wait": 1.0, "factor": 2.0, "ceiling": 600.0}
            assert found["one"].schema is not None
            assert found["one"].schema["$defs"]["Video"]["required"] == ["name"]
            await wind.fire("T", {"name": "a", "codec": "b"})
            await wind.settled(60)
            assert [each.fires for each in await wind.schemas("T") if each.purpose == "many"] == [("U",)]
            assert not await wind.schemas("nothing.is.here")

    @on_loop
    async def test_what_is_read_outlives_a_restart_and_goes_with_its_purpose(self, place: Place) -> None:
        wind = place.open()

        @wind.on("T", purpose="p")
        async def handle(video: Video) -> None: ...

        async with wind:
            assert [_title(each.schema) for each in await wind.schemas()] == ["Video"]
        if place.durable:
            async with place.open() as again:
                assert [_title(each.schema) for each in await again.schemas("T")] == ["Video"]
                await again.retire("T", "p", force=True)
                assert await again.schemas("T") == []
                assert not await again.engine.definitions.list("schema")

    @on_loop
    async def test_a_version_that_cannot_read_what_pends_is_said_when_it_joins(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind = place.open()

        async def first(video: Video) -> None: ...

        async def second(video: Coded) -> None: ...

        async def third(video: Video) -> None: ...

        async with wind:
            wind.on("T", purpose="p")(first)
            await wind.joined()
            await wind.pause("T", "p")
            await wind.fire("T", Video("cat"))
            assert await self._found(wind) == []
            wind.on("T", purpose="p", version=2)(second)
            await wind.joined()
            (found,) = await self._found(wind)
            said = "version 2 of purpose 'p' on topic 'T' does not read all of what version 1 read before: "
            said += "field $.codec is required, and does not come; such an event becomes a dead letter"
            assert found[1:] == said[1:]
            assert said in caplog.text
            wind.on("T", purpose="p", version=3)(third)
            await wind.joined()
            await until(lambda: self._is_current(wind, 3))
            assert await self._found(wind) == []

    @on_loop
    async def test_of_a_purpose_the_schemas_of_its_newest_versions_are_kept(self, place: Place) -> None:
        async with place.open() as wind:
            for version in range(1, MAX_VERSIONS + 3):

                async def handle(video: Video) -> None: ...

                wind.on("T", purpose="p", version=version)(handle)
                await wind.joined()
            known = [each.version for each in await wind.schemas("T") if each.schema is not None]
            assert known == list(range(3, MAX_VERSIONS + 3))

    @on_loop
    async def test_what_producers_state_is_checked_when_it_is_fired_and_compared_with_who_reads_it(
        self, place: Place, caplog: pytest.LogCaptureFixture
    ) -> None:
        wind, seen = place.open(), list[str]()
        wind.topic("T", schema=Video)

        @wind.on("T", purpose="p")
        async def handle(video: Video) -> None:
            seen.append(video.name)

        async with wind:
            await wind.fire("T", Video("a"))
            await wind.fire_many("T", [{"name": "b"}, {"name": "c", "seconds": 1}])
            for payloads in ([{"name": 5}], [{"name": "d"}, {"seconds": 1}], [b"bytes"]):
                with pytest.raises(BadPayload, match=r"for topic 'T' that is a Video, as stated with schema="):
                    wind.fire_many("T", payloads)
            with pytest.raises(BadPayload, match=r"int.* got .*str.* at \$\.seconds"):
                wind.fire("T", {"name": "d", "seconds": "long"}, key="k")
            await wind.fire("other", {"anything": 1})
            await wind.settled(60)
            assert sorted(seen) == ["a", "b", "c"]
            stated = {each.purpose: _title(each.schema) for each in await wind.schemas("T")}
            assert stated == {"": "Video", "p": "Video"}
            assert await self._found(wind) == []
            wind.topic("T", schema=dict[str, int])
            await until(lambda: "does not read all of what producers state of topic 'T'" in caplog.text)
            await until(lambda: self._has(wind, 1))
            (found,) = await self._found(wind)
            assert "string is expected at $.name" in found or "$.name is required" in found
            with pytest.raises(BadArgument, match="expected schema= to be a type"):
                wind.topic("T", schema="Video")
            wind.topic("T", schema=Video)
            await until(lambda: self._has(wind, 0))

    @on_loop
    async def test_a_schema_that_is_not_stated_any_more_is_no_trouble_any_more(self, place: Place) -> None:
        wind = place.open()
        wind.topic("T", schema=Coded)

        async def strict(numbered: Numbered) -> None: ...

        async def anything(payload: Any) -> None: ...

        async with wind:
            wind.on("T", purpose="p")(strict)
            wind.on("T", purpose="q")(strict)
            await wind.joined()
            await until(lambda: self._has(wind, 2))
            await wind.off(strict)
            await until(lambda: self._has(wind, 0))
            await wind.pause("T", "q")
            await wind.fire("T", Coded("a", "b"))
            await until(lambda: self._has(wind, 2))
            wind.on("T", purpose="q")(anything)
            await wind.joined()
            await until(lambda: self._has(wind, 1))
            (found,) = await self._found(wind)
            assert "1 of purpose 'p'" in found
            assert "field $.number is required" in found
            schemas = {each.purpose: _title(each.schema) for each in await wind.schemas("T")}
            assert schemas == {"": "Coded", "p": "Numbered", "q": ""}

    @on_loop
    async def test_what_producers_state_no_more_after_a_restart_is_trouble_only_for_what_pends(
        self, place: Place
    ) -> None:
        wind = place.open()
        wind.topic("T", schema=Coded)

        async def handle(numbered: Numbered) -> None: ...

        wind.on("T", purpose="p")(handle)
        async with wind:
            await until(lambda: self._has(wind, 1))
        again = place.restart()
        again.on("T", purpose="p")(handle)
        async with again:
            assert await self._found(again) == []
            await again.pause("T", "p")
            await again.fire("T", {"name": "a"})
            await until(lambda: self._has(again, 1))

    async def _found(self, wind: SolarWind) -> list[str]:
        return [each.text for each in await wind.attention() if each.kind == "schema"]

    async def _has(self, wind: SolarWind, count: int) -> bool:
        return len(await self._found(wind)) == count

    async def _is_current(self, wind: SolarWind, version: int) -> bool:
        return (await wind.rollout("T", "p")).current == version
