"""The log of events of dev: what is fired and what became of it, in no more lines than a person can read."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import re
import signal
from collections.abc import Callable
from typing import Any

import pytest

from solarwind import Event, Reject, Retry, SolarWind
from solarwind.cli import eventlog
from solarwind.cli.eventlog import EventLog, Line
from solarwind.testing.contract import on_loop, until

from .conftest import Process, eventually
from .test_cli_ui import ask

Start = Callable[..., Process]
Write = Callable[[str, str], None]


class Looked:
    """A log of events, looked at when a test says so."""

    def __init__(self, wind: SolarWind) -> None:
        self.lines: list[Line] = []
        self.log = EventLog(wind, self.lines.append)

    async def until(self, *words: str) -> Line:
        """Look until there is a line with these words."""

        async def found() -> Line | None:
            await self.log.look()
            return next((each for each in self.lines if all(word in each.text for word in words)), None)

        await until(found, f"a line with {words}")
        line = await found()
        assert line is not None
        return line

    def more(self, topic: str) -> int:
        """Return how many events it said that it did not show."""
        return sum(each.record["more"] for each in self.lines if each.record.get("topic") == topic)

    def shown(self, topic: str) -> int:
        return sum(each.record.get("fired", {}).get("topic") == topic for each in self.lines)


@on_loop
async def test_a_chain_is_followed_by_the_id_of_its_root_and_its_indentation() -> None:
    wind = SolarWind("memory://")
    for topic in ("uploaded", "encoded"):
        wind.topic(topic, keep=3600)

    @wind.on("uploaded", purpose="Encode", version=3)
    async def encode(event: Event) -> None:
        wind.fire("encoded", "done")

    @wind.on("encoded", purpose="Publish")
    async def publish(event: Event) -> None:
        pass

    async with wind:
        looked = Looked(wind)
        await looked.log.look()
        await wind.fire("uploaded", {"name": "cat.mov"}, id="first", key="ann")
        fired = await looked.until("uploaded first key=ann by application", '{"name":"cat.mov"}')
        became = await looked.until("✓ Encode v3 settled in ")
        caused = await looked.until("encoded ", "by Encode v3", '"done"')
        last = await looked.until("✓ Publish v1 settled in ")
    assert [each.depth for each in (fired, became, caused, last)] == [0, 1, 1, 2]
    assert {each.root for each in looked.lines} == {"first"}
    assert len(looked.lines) == 4, "each is said once"


@on_loop
async def test_what_is_tried_again_and_what_is_dead_is_said_with_its_error() -> None:
    wind = SolarWind("memory://")

    @wind.on("T", purpose="Fail", retry=Retry(attempts=2, wait=0.05, factor=1))
    async def fail(number: int) -> None:
        raise ValueError("no frames\n  at all\n" + "E" * 5_000)

    @wind.on("T", purpose="Refuse")
    async def refuse(number: int) -> None:
        raise Reject("no")

    @wind.on("T", purpose="Rest", retry=Retry(attempts=2, wait=600, factor=1))
    async def rest(number: int) -> None:
        raise OSError("busy")

    async with wind:
        looked = Looked(wind)
        await looked.log.look()
        await wind.fire("T", 1)
        await looked.until("✕ Refuse v1 dead", "after 1 attempt: no")
        dead = await looked.until("✕ Fail v1 dead", "after 2 attempts: ValueError: no frames at all E")
        line = await looked.until("↻ Rest v1 waiting until ", "after 1 attempt: OSError: busy")
    assert line.record["outcome"].state == "waiting"
    assert len(dead.text) < 400, "an error may be long"
    assert len(dead.record["outcome"].error) > 4_000 - 100, "a program gets all of it"


@on_loop
async def test_of_many_events_some_are_shown_and_the_others_counted_and_a_quiet_topic_is_not_hidden() -> None:
    wind = SolarWind("memory://")
    topics = [f"loud.{number}" for number in range(eventlog.MAX_TOPICS + 5)]
    for topic in [*topics, "quiet"]:
        wind.topic(topic, keep=3600)
    async with wind:
        looked = Looked(wind)
        await wind.fire("loud.0", 0)
        await looked.log.look()
        for _ in range(3):
            for topic in topics:
                await wind.fire_many(topic, range(100))
            await wind.fire("quiet", 1)
            before = len(looked.lines)
            await looked.log.look()
            assert len(looked.lines) - before <= eventlog.MAX_EVENTS + eventlog.MAX_TOPICS + 10
    assert looked.shown("quiet") == 3
    fired = sum(each.record["more"] for each in looked.lines if "more" in each.record)
    assert fired + sum(map(looked.shown, topics)) == 300 * len(topics)
    assert any(re.search(r"… [\d,]+ more of \d+ other topics", each.text) for each in looked.lines)


@on_loop
async def test_what_is_not_kept_is_counted() -> None:
    async with SolarWind("memory://") as wind:
        wind.on("other", purpose="p")(lambda number: None)
        looked = Looked(wind)
        await wind.fire("T", 0)
        await looked.log.look()
        await wind.fire_many("T", range(7))
        await looked.log.look()
    assert (looked.shown("T"), looked.more("T")) == (0, 7)


@on_loop
async def test_so_many_events_are_followed_and_the_log_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "MAX_OPEN", 5)
    wind = SolarWind("memory://")
    asked = 0
    event = wind.event

    async def counting(*names: str) -> Any:
        nonlocal asked
        asked += 1
        return await event(*names)

    monkeypatch.setattr(wind, "event", counting)

    @wind.on("T", purpose="Wait")
    async def handle(number: int) -> None:
        await asyncio.Event().wait()

    wind.grace = 0
    async with wind:
        looked = Looked(wind)
        await looked.log.look()
        for number in range(3):
            await wind.fire_many("T", range(4 * number, 4 * number + 4))
            await looked.log.look()
    assert any(each.record.get("not_followed") for each in looked.lines)
    assert asked <= 15


@on_loop
async def test_what_was_fired_before_a_purpose_joined_is_followed() -> None:
    wind = SolarWind("memory://")
    wind.topic("T", keep=3600)
    async with wind:
        looked = Looked(wind)
        await looked.log.look()
        await wind.fire("T", 1)
        await looked.until("T ", "by application")
        wind.on("T", purpose="Late", since="beginning")(lambda number: None)
        await looked.until("✓ Late v1 settled in ")


@on_loop
async def test_an_event_that_no_purpose_gets_is_followed_for_a_limited_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(eventlog, "NOBODY_S", 0)
    wind = SolarWind("memory://")
    wind.topic("T", keep=3600)
    asked: list[str] = []
    event = wind.event

    async def counting(*names: str) -> Any:
        asked.append(names[1])
        return await event(*names)

    monkeypatch.setattr(wind, "event", counting)
    async with wind:
        looked = Looked(wind)
        await looked.log.look()
        await wind.fire("T", 1, id="one")
        await looked.until("T one")
        await looked.log.look()
    assert asked == ["one"]


# --- in dev -------------------------------------------------------------------------------------------------

APP = """
    from solarwind import SolarWind
    wind = SolarWind()

    @wind.on("t", purpose="p", since="beginning")
    async def handle(number: int) -> None:
        pass
"""


def joined(address: str) -> None:
    """Wait until the app has joined: an event that no purpose gets is followed for some seconds alone."""
    eventually(lambda: ask(address, "/v1/instances?topic=t")[1]["instances"], "the app to join")


def test_dev_logs_events_as_json_that_programs_read(start: Start, write: Write) -> None:
    write("app.py", APP)
    process = start("dev", "--port", "0", "--json")
    address = json.loads(process.read("console"))["console"]
    joined(address)
    process.read_err('"fired"' if ask(address, "/v1/topics/t/events", "POST", 1)[0] == 202 else "never")
    settled = json.loads(process.read_err('"outcome"'))
    assert (settled["topic"], settled["outcome"]["state"], settled["outcome"]["purpose"]) == ("t", "settled", "p")
    assert settled["root"] == settled["id"]
    process.signal(signal.SIGINT)
    answer = process.end()
    assert (answer.code, "lost the server" in answer.err) == (0, False), answer


def test_dev_is_quiet_if_told_so(start: Start, write: Write) -> None:
    write("app.py", APP.replace("pass", 'print("handled", flush=True)'))
    process = start("dev", "--port", "0", "--quiet")
    address = process.read("http://").strip()
    ask(address, "/v1/topics/t/events", "POST", 1)
    process.read("handled")
    process.signal(signal.SIGTERM)
    assert "application" not in process.end().err


@pytest.mark.parametrize(
    ("environment", "coloured"),
    [({"TERM": "xterm"}, True), pytest.param({"NO_COLOR": "1"}, False, marks=pytest.mark.long)],
)
def test_the_log_has_colours_on_a_terminal_alone(
    start: Start, write: Write, environment: dict[str, str], coloured: bool
) -> None:
    write("app.py", APP)
    ours, theirs = pty.openpty()
    process = start("dev", "--port", "0", stderr=theirs, env=os.environ | environment)
    os.close(theirs)
    address = process.read("http://").strip()
    joined(address)
    ask(address, "/v1/topics/t/events", "POST", 1)
    text = b""
    while b"settled in" not in text:
        text += os.read(ours, 65536)
    process.signal(signal.SIGTERM)
    line = next(each for each in text.splitlines() if b"settled in" in each)
    assert (b"\x1b[32m" in line) == coloured, line
    process.popen.wait()
    os.close(ours)
