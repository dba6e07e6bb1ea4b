"""A dispatcher in memory forgets what producers stated when it ends: they state it again when it is back."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from solarwind import SolarWind
from solarwind.operations import Internal
from solarwind.peer.restating import MAX_RESTATED, Restating
from solarwind.testing.contract import on_loop, until

from .serving import Serving


class Video(msgspec.Struct):
    name: str


class Coded(msgspec.Struct):
    codec: str


@on_loop
async def test_a_producer_states_its_schemas_again_to_a_server_that_forgot_them(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    serving = Serving(tmp_path, "--engine", "memory://")
    await serving.start()
    try:
        producer, service = SolarWind(serving.url), SolarWind(serving.url)
        producer.topic("T", schema=Coded)

        @service.on("T", purpose="p")
        async def handle(video: Video) -> None: ...

        async def stated() -> bool:
            return [each.purpose for each in await producer.schemas("T") if each.schema is not None] == ["", "p"]

        async def said() -> bool:
            return any(each.kind == "schema" for each in await producer.attention())

        async with producer, service:
            producer.topic("T", schema=Video)
            producer.topic("T", schema=Coded)
            await until(stated)
            await serving.end()
            caplog.clear()
            await serving.start()
            await producer.fire("T", {"codec": "x"}, id="once")
            await until(stated)
            await until(said)
            found = {each.purpose: each.schema for each in await producer.schemas("T")}
            assert found[""] == {"$ref": "#/$defs/Coded", "$defs": found[""]["$defs"]}  # type: ignore[index]
        assert "does not read all of what producers state of topic 'T'" in caplog.text
    finally:
        serving.kill()


def test_there_is_an_end_to_what_is_stated_again() -> None:
    restating = Restating()
    for number in range(MAX_RESTATED + 10):
        restating.note(Internal.declare_schema.request({"topic": f"T{number}", "schema": b"{}"}))
        restating.note(Internal.pause.request({"topic": "T", "purpose": "p"}))
    assert len(restating._requests) == MAX_RESTATED
    assert ("declare_schema", "T0") not in restating._requests
