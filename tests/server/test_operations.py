"""A new operation is a row and a function: with these it can be asked at every door."""

from __future__ import annotations

import asyncio
import inspect
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import islice
from typing import Any

import msgspec
import pytest
import typer
from typer.testing import CliRunner

from solarwind import BadArgument, BadName, Event, SolarWind, wire
from solarwind.cli.operations import follow, register
from solarwind.describing import Describing
from solarwind.engine.answers import Page
from solarwind.engine.arguments import Limit, Purpose, Topic, Version, Wait
from solarwind.engine.local import LocalEngine
from solarwind.engine.reading import event_at
from solarwind.engine.request import Cli, Http, Operation
from solarwind.operations import OPERATIONS, Internal, Operator
from solarwind.peer import calls
from solarwind.scheduling import Scheduling
from solarwind.sending import Sending
from solarwind.server import Server, http, openapi, operate
from solarwind.store.memory import MemoryStore
from solarwind.testing.contract import on_loop, until

from .doors import Doors, at, served

PAST = 5  # events


class Layout(msgspec.Struct, frozen=True):
    """What a verb to come may answer."""

    topic: str
    current_version: int
    shares: dict[int, float] = {}


class Engine(LocalEngine):
    """One that can do more."""

    async def prefer(self, topic: Topic, purpose: Purpose, version: Version = 1, force: bool = False) -> None:
        """Make a version the current one."""
        self.preferred = (topic, purpose, version, force)

    async def count(self, topic: Topic, purpose: Purpose) -> int:
        """Return how many."""
        return 7

    async def cancel(self, topic: Topic, name: str) -> bool:
        """Return whether it was there."""
        return name == "there"

    async def layout(self, topic: Topic) -> Layout:
        """Return how it stands."""
        return Layout(topic, 2)

    async def layouts(self, topic: Topic | None = None) -> list[Layout]:
        """Return how all stand."""
        return [Layout(topic or "T", 2), Layout("U", 1)]

    async def past(self, topic: Topic, after: str | None = None, limit: Limit = 2, wait: Wait = 0.0) -> Page[Event]:
        """Return the events of a topic."""
        start = int(after or 0)
        if start == PAST and wait:
            await asyncio.Event().wait()  # until there is one more
        events = [await event_at(self.store, topic, position) for position in range(start, min(start + limit, PAST))]
        return Page(events, str(start + len(events)) if start + len(events) < PAST or wait else None)


class Made:
    """The rows for it."""

    prefer = Operation(
        Engine.prefer,
        http=Http("POST", "/v1/topics/{topic}/purposes/{purpose}/prefer", "Prefer a version", body="Preference"),
        cli=Cli(
            "prefer",
            "Make a version the current one.",
            "version {version} of {purpose} is current",
            key="preferred",
            options={"version": "Which.", "force": "Even if nobody is up."},
            consent=("force",),
        ),
    )
    count = Operation(
        Engine.count,
        repeat="question",
        http=Http("GET", "/v1/topics/{topic}/purposes/{purpose}/count", "How many", "counted"),
        cli=Cli("count", "How many.", "{} counted"),
    )
    cancel = Operation(
        Engine.cancel,
        http=Http("DELETE", "/v1/topics/{topic}/held", "Take one back", "withdrawn"),
        cli=Cli("cancel", "Take one back.", "cancelled {name}", none="no {name}", options={"name": "Which."}),
    )
    layout = Operation(
        Engine.layout,
        repeat="question",
        http=Http("GET", "/v1/topics/{topic}/layout", "How it stands"),
        cli=Cli("layout", "How it stands."),
    )
    layouts = Operation(
        Engine.layouts,
        repeat="question",
        http=Http("GET", "/v1/layouts", "How all stand", "layouts"),
        cli=Cli("layouts", "How all stand.", none="None."),
    )
    past = Operation(
        Engine.past,
        repeat="question",
        http=Http("GET", "/v1/topics/{topic}/events", "The events of a topic", "past"),
        cli=Cli(
            "past",
            "The events of a topic.",
            none="No events.",
            options={"after": "Where.", "limit": "How many."},
        ),
    )


class Place:
    """One dispatcher with the rows above, and every way to it."""

    engine: Engine
    here: SolarWind
    away: SolarWind
    doors: Doors
    app: typer.Typer

    async def command(self, *words: str) -> str:
        """Return what it prints."""
        url = f"ws://127.0.0.1:{self.doors.port}"
        result = await asyncio.to_thread(CliRunner().invoke, self.app, [*words, "--url", url])
        assert result.exit_code == 0, result.output
        return result.stdout

    async def document(self, *words: str) -> Any:
        return json.loads(await self.command(*words, "--json"))


@asynccontextmanager
async def opened(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Place]:
    rows = {name: each for name, each in vars(Made).items() if isinstance(each, Operation)}
    for name, each in rows.items():
        monkeypatch.setitem(OPERATIONS, name, each)
    endpoints = [operate.endpoint_of(each) for each in rows.values()]
    monkeypatch.setattr(http, "ENDPOINTS", (*http.ENDPOINTS, *endpoints))
    place = Place()
    place.app = typer.Typer()
    groups = {name: typer.Typer() for name in ("dead", "delayed", "topics", "rollout", "schedules", "webhooks")}
    register(place.app, groups, "", questions=True)
    register(place.app, groups, "", questions=False)
    place.engine = Engine(MemoryStore())
    place.here = SolarWind(engine=place.engine)
    place.here.topic("T", keep=3600)
    async with place.here, served(Server(place.here)) as port, at(port) as place.doors:
        place.away = SolarWind(f"ws://127.0.0.1:{port}")
        async with place.away:
            yield place


@on_loop
async def test_an_operation_that_changes_something_is_a_row_and_a_function(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as place:
        for number, wind in enumerate((place.here, place.away), 1):
            await Made.prefer(wind, "T", "p", number, force=True)
            assert place.engine.preferred == ("T", "p", number, True)
            with pytest.raises(BadName, match="expected a topic"):
                await Made.prefer(wind, "T ", "p")
            with pytest.raises(BadArgument, match="expected version to be an integer from 1 to"):
                await Made.prefer(wind, "T", "p", 0)
        path = "/v1/topics/T/purposes/p%2Fq/prefer"
        await place.doors.ask("POST", path, {"version": 3}, 204)
        assert place.engine.preferred == ("T", "p/q", 3, False)
        await place.doors.refused(place.doors.http.post(path, json={"version": 0}), 400, "bad-argument", "version")
        assert await place.command("prefer", "T", "p", "--version=4") == "version 4 of p is current\n"
        document = await place.document("prefer", "T", "p", "--force")
        assert document == {"topic": "T", "purpose": "p", "preferred": True}
        assert place.engine.preferred == ("T", "p", 1, True)


@on_loop
async def test_numbers_booleans_and_records_are_answered_at_every_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as place:
        for wind in (place.here, place.away):
            assert await Made.count(wind, "T", "p") == 7
            assert [await Made.cancel(wind, "T", name) for name in ("there", "not")] == [True, False]
            assert await Made.layout(wind, "T") == Layout("T", 2)
            assert await Made.layouts(wind) == [Layout("T", 2), Layout("U", 1)]
        assert await place.doors.ask("GET", "/v1/topics/T/purposes/p/count") == {"counted": 7}
        assert await place.doors.ask("DELETE", "/v1/topics/T/held", name="not") == {"withdrawn": False}
        one = {"topic": "T", "current_version": 2, "shares": {}}
        assert await place.doors.ask("GET", "/v1/topics/T/layout") == one
        assert (await place.doors.ask("GET", "/v1/layouts", topic="T"))["layouts"][0] == one
        assert await place.command("count", "T", "p") == "7 events counted\n"
        assert await place.command("cancel", "T", "--name=there") == "cancelled there\n"
        assert await place.command("cancel", "T", "--name=not") == "no not\n"
        assert (await place.command("layout", "T")).splitlines()[:2] == ["topic            T", "current version  2"]
        assert (await place.command("layouts")).splitlines()[0].split() == ["TOPIC", "CURRENT", "VERSION", "SHARES"]
        assert (await place.document("layouts", "T"))[0] == one


@on_loop
async def test_a_long_list_is_answered_in_pages_at_every_endpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as place:
        await place.here.fire_many("T", range(PAST))
        for wind in (place.here, place.away):
            seen, page = [], Page[Event]([], "0")
            while page.next is not None:
                page = await Made.past(wind, "T", page.next)
                assert len(page) <= 2
                seen += [event.payload for event in page]
            assert seen == list(range(PAST))
        page = await place.doors.ask("GET", "/v1/topics/T/events", after="2", limit=2)
        assert ([each["data"] for each in page["past"]], page["next"]) == ([2, 3], "4")
        page = await place.document("past", "T", "--after=4")
        assert ([each["payload"] for each in page["past"]], page["next"]) == ([4], None)


@on_loop
async def test_large_events_of_an_answer_come_in_parts_that_can_travel(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as place:
        await place.here.fire_many("T", [bytes(200_000)] * PAST)
        message = Made.past.message(topic="T", limit=PAST)  # type: ignore[call-arg]
        sizes = [len(wire.encode(part)) async for part in calls.answer(place.engine.ask, Made.past, message)]
        assert len(sizes) > 1
        assert max(sizes) < 500_000
        assert len(await Made.past(place.away, "T", limit=PAST)) == PAST


@on_loop
async def test_pages_are_followed_as_they_come_and_given_up_at_any_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch) as place:
        await place.here.fire_many("T", range(PAST))
        following = Made.past.follow(place.away, topic="T", limit=2)
        assert [(await anext(following)).payload for _ in islice(iter(int, 1), PAST)] == list(range(PAST))
        waiting = asyncio.ensure_future(anext(following))
        await asyncio.wait([waiting], timeout=0.01)
        assert not waiting.done()
        waiting.cancel()


@on_loop
async def test_a_command_that_follows_prints_each_as_it_comes(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    async with opened(monkeypatch) as place:
        await place.here.fire_many("T", range(PAST))
        for as_json in (False, True):
            following = asyncio.ensure_future(follow(Made.past, place.away, {"topic": "T", "limit": 2}, as_json))
            printed: list[str] = []
            await until(lambda: "".join(printed).count("\n") >= PAST or printed.append(capfd.readouterr().out))  # noqa: B023
            assert not following.done()
            following.cancel()
            lines = "".join(printed).splitlines()
            payloads = [json.loads(line)["payload"] if as_json else int(line[-1]) for line in lines]
            assert payloads == list(range(PAST))
        command = typer.main.get_command(place.app).commands["past"]  # type: ignore[attr-defined]
        assert [each.name for each in command.params] == ["topic", "after", "limit", "follow", "url", "json"]


@on_loop
async def test_what_a_row_says_of_its_endpoint_is_described(monkeypatch: pytest.MonkeyPatch) -> None:
    async with opened(monkeypatch):
        described = json.loads(openapi.document_of(http.ENDPOINTS, "/"))
    paths, schemas = described["paths"], described["components"]["schemas"]
    assert "204" in paths["/v1/topics/{topic}/purposes/{purpose}/prefer"]["post"]["responses"]
    assert schemas["Preference"]["properties"].keys() == {"version", "force"}
    parameters = {each["name"]: each["in"] for each in paths["/v1/topics/{topic}/events"]["get"]["parameters"]}
    assert parameters == {"topic": "path", "after": "query", "limit": "query", "wait": "query"}
    assert schemas["PastPage"]["properties"].keys() == {"past", "next"}
    assert schemas["Layouts"]["properties"]["layouts"]["items"] == {"$ref": "#/components/schemas/Layout"}
    assert schemas.keys() >= {"Counted", "Withdrawn", "Events"}


# Those that there are ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", OPERATIONS)
def test_an_operation_is_a_method_of_its_name_with_a_signature_and_a_sentence(name: str) -> None:
    operation = OPERATIONS[name]
    assert operation.name == name == operation.__name__
    assert operation.__doc__
    assert list(inspect.signature(operation).parameters)[1:] == list(operation.kinds)
    public = {*vars(Operator), *vars(Scheduling), *vars(Sending), *vars(Describing)}
    assert (getattr(SolarWind, name, None) is operation) == (name in public)
    if name in public:
        method = getattr(SolarWind("memory://"), name)
        assert list(inspect.signature(method).parameters) == list(operation.kinds)
        assert (method.__name__, method.__doc__) == (name, operation.__doc__)
    assert operation.to != "all" or operation.merge is not None
    assert operation.to != "owner" or "topic" in operation.kinds


@pytest.mark.parametrize("name", vars(Internal))
def test_arguments_arrive_as_they_were_given(name: str) -> None:
    operation = OPERATIONS.get(name)
    if operation is None or operation.file is not None:
        return
    given = {"topic": "T", "purpose": "p", "id": "i", "ids": ["i"], "purposes": [("T", "p")]}
    given |= {"name": "s", "every": "1d", "database": "sqlite:///shop.db", "process": "shop/42"}
    request = operation.request({each: given[each] for each in operation.kinds if each in given})
    packed = msgspec.msgpack.encode(operation.pack(request))
    assert operation.unpack(operation.read(msgspec.Raw(packed))) == request
