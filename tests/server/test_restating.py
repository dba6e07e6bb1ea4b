"""A dispatcher in memory forgets what its clients stated when it ends: they state it again when it is back."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from solarwind import SolarWind, Unavailable
from solarwind.engine.request import Request
from solarwind.operations import Internal
from solarwind.peer.restating import MAX_RESTATED, Restating
from solarwind.testing.contract import on_loop, until

from .place import Host
from .serving import Serving
from .test_chain import front_of


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


@on_loop
async def test_how_much_topics_keep_and_schedules_are_stated_again_before_events_to_a_server_that_forgot_them(
    tmp_path: Path,
) -> None:
    """The rule: what a program states counts wherever its events do. Both as at the start, and while it runs."""
    serving = Serving(tmp_path, "--engine", "memory://")
    await serving.start()
    try:
        wind = SolarWind(serving.url)
        wind.topic("early", keep=3600)
        wind.every("1h", "T", name="early")
        async with wind:
            wind.topic("late", keep=7200)
            wind.topic("late", keep_bytes=1_000_000)
            wind.every("1h", "T", 2, name="late", zone="Europe/Berlin", missed="once")

            async def stated() -> bool:
                kept = {each.topic: (each.keep, each.keep_bytes) for each in await wind.topics()}
                found = [(each.name, each.topic, each.zone, each.missed) for each in await wind.schedules()]
                return (kept.get("early"), kept.get("late"), found) == (
                    (3600.0, None),
                    (7200.0, 1_000_000),
                    [("early", "T", "UTC", "skip"), ("late", "T", "Europe/Berlin", "once")],
                )

            await until(stated, "all to be stated at first")
            await serving.end()
            firing = [
                wind.fire("early", 1),
                wind.fire("late", 2),
            ]  # no purpose needs them, and by default none are kept
            await serving.start()
            for each in firing:
                await each
            assert await stated()
            assert [len(await wind.events(topic)) for topic in ("early", "late")] == [1, 1]
    finally:
        serving.kill()


@on_loop
async def test_what_an_operator_changed_stays_where_the_server_has_forgotten_nothing(tmp_path: Path) -> None:
    """The rule: the last statement counts. A connection that is lost is none, and a client that is back states nothing
    that the store has, or that was removed from it since."""
    serving = Serving(tmp_path)
    await serving.start()
    try:
        service, operator = SolarWind(serving.url), SolarWind(serving.url)
        service.topic("T", keep=3600)
        service.every("1h", "T", name="nightly")
        async with service, operator:
            await operator.remove_schedule("nightly")
            await Internal.keep(operator.engine, "T", 60.0)
            await serving.end()
            await serving.start()
            await service.fire("T")
            await operator.fire("T")
            assert await service.schedules() == []
            assert [each.keep for each in await service.topics()] == [60.0]
    finally:
        serving.kill()


@on_loop
async def test_a_server_in_front_of_another_one_states_again_what_its_clients_stated(tmp_path: Path) -> None:
    behind = Serving(tmp_path, "--engine", "memory://")
    await behind.start()
    try:
        async with front_of(behind.port) as (front, _):
            service = SolarWind(f"ws://127.0.0.1:{front}")
            service.topic("T", keep=3600)
            service.every("1h", "T", name="kept")
            service.every("1h", "T", name="removed")
            async with service:
                await service.remove_schedule("removed")
                await behind.end()
                await behind.start()
                await service.fire("T")
                assert [each.name for each in await service.schedules()] == ["kept"]
                assert [(each.topic, each.keep, each.kept) for each in await service.topics()] == [("T", 3600.0, 1)]
    finally:
        behind.kill()


@on_loop
async def test_clients_of_a_front_that_was_restarted_state_again_what_the_server_behind_forgot_later(
    host: Host,
) -> None:
    """The front does not know what they stated through the one before it."""
    behind = host.start("memory://")
    front = host.start(f"ws://127.0.0.1:{behind}")
    service = SolarWind(f"ws://127.0.0.1:{front}")
    service.topic("T", keep=3600)
    service.every("1h", "T", name="hourly")

    async def stated() -> bool:
        try:
            found = [each.name for each in await service.schedules()]
            return ([each.keep for each in await service.topics()], found) == ([3600.0], ["hourly"])
        except Unavailable:  # just now
            return False

    async with service:
        assert await stated()
        host.stop(front)
        host.start(f"ws://127.0.0.1:{behind}", front)
        await service.fire("T")
        assert await stated()
        host.stop(behind)
        host.start("memory://", behind)
        await until(stated, "the clients to state it again")


def test_there_is_an_end_to_what_is_stated_again() -> None:
    restating = Restating()
    for number in range(MAX_RESTATED + 10):
        restating.note(Internal.declare_schema.request({"topic": f"T{number}", "schema": b"{}"}), "")
        restating.note(Internal.pause.request({"topic": "T", "purpose": "p"}), "")
    assert len(restating._stated) == MAX_RESTATED
    assert ("declare_schema", "T0") not in restating._stated


@on_loop
async def test_of_several_statements_on_a_topic_all_counts_that_was_not_stated_anew_and_none_that_only_asked() -> None:
    asked: list[Request[Any]] = []

    async def ask(request: Request[Any]) -> list[Any]:
        asked.append(request)
        return []

    restating = Restating()
    for stated in ({"keep": 60.0, "keep_bytes": 5}, {"keep": 30.0}, {"keep": 1.0, "dry_run": True}, {"keep_bytes": 7}):
        restating.note(Internal.keep.request({"topic": "T", **stated}), "one")
    await restating.restate(ask, "one")
    assert asked == []
    await restating.restate(ask, "another")
    await restating.restate(ask, "another")
    assert [each.arguments for each in asked] == [{"topic": "T", "keep": 30.0, "keep_bytes": 7, "dry_run": False}]
