"""The log records of a handler name the event that it handles."""

from __future__ import annotations

import asyncio
import copy
import io
import json
import logging
import logging.handlers
import pickle
import queue
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from solarwind import Event, Retry, SolarWind
from solarwind.contrib.structlog import add_event
from solarwind.testing.contract import on_loop

FORMAT = "%(message)s|%(topic)s|%(purpose)s|%(event_id)s|%(root)s|%(attempt)s"
log = logging.getLogger("shop")


@pytest.fixture
def lines() -> Iterator[io.StringIO]:
    """Return what a program's own handler writes, whose format names the fields."""
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    defaults = dict.fromkeys(("topic", "purpose", "event_id", "root", "attempt"), "-")
    handler.setFormatter(logging.Formatter(FORMAT, defaults=defaults))
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    yield text
    log.removeHandler(handler)


@pytest.mark.parametrize("kind", ["async", "def", "batch", "in a task of its own"])
@on_loop
async def test_a_record_of_a_handler_has_the_event_that_it_handles(kind: str, lines: io.StringIO) -> None:
    wind = SolarWind("memory://")

    async def handle(event: Event) -> None:
        log.info("one %s", 1)

    def in_thread(event: Event) -> None:
        log.info("one %s", 1)

    async def batch(events: list[Event]) -> None:
        log.info("one %s", 1)

    async def later() -> None:
        log.info("one %s", 1)

    async def in_task(event: Event) -> None:
        await asyncio.create_task(later())

    of_kind: dict[str, Any] = {"async": handle, "def": in_thread, "batch": batch}
    wind.on("T", purpose="Count it")(of_kind.get(kind, in_task))

    @wind.on("before")
    async def before(event: Event) -> None:
        wind.fire("T", 1, id="second")

    async with wind:
        log.info("outside")
        await wind.fire("before", id="first")
        await wind.settled(60)
        log.info("outside")
    assert lines.getvalue().splitlines() == [
        "outside|-|-|-|-|-",
        "one 1|T|Count it|second|first|1",
        "outside|-|-|-|-|-",
    ]


@on_loop
async def test_each_attempt_says_which_it_is_and_what_a_call_states_itself_counts(lines: io.StringIO) -> None:
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p", retry=Retry(attempts=2, wait=0.001))
    async def handle(event: Event) -> None:
        log.info("own", extra={"topic": "mine", "order": 7})
        raise ValueError

    async with wind:
        await wind.fire("T", id="e")
        await wind.settled(60)
    assert lines.getvalue().splitlines() == ["own|mine|p|e|e|1", "own|mine|p|e|e|2"]


@on_loop
async def test_filters_copies_and_queues_find_the_fields(lines: io.StringIO) -> None:
    wind, seen, records = SolarWind("memory://"), list[Any](), queue.SimpleQueue[logging.LogRecord]()

    def look(record: logging.LogRecord) -> bool:
        seen.append((getattr(record, "purpose", None), getattr(record, "nothing", None)))
        seen.append((copy.copy(record).attempt, pickle.loads(pickle.dumps(record)).event_id))  # type: ignore[attr-defined]
        return True

    through = logging.handlers.QueueHandler(records)  # type: ignore[arg-type]
    log.addFilter(look)
    log.addHandler(through)

    @wind.on("T", purpose="p")
    async def handle(event: Event) -> None:
        log.info("one")

    try:
        async with wind:
            await wind.fire("T", id="e")
            await wind.settled(60)
    finally:
        log.removeFilter(look)
        log.removeHandler(through)
    assert seen == [("p", None), (1, "e")]
    assert {"topic": "T", "purpose": "p", "event_id": "e"}.items() <= vars(records.get()).items()


@on_loop
async def test_structlog_adds_them_too(lines: io.StringIO) -> None:
    wind, text = SolarWind("memory://"), io.StringIO()
    logger = structlog.wrap_logger(
        structlog.PrintLogger(text), processors=[add_event, structlog.processors.JSONRenderer()]
    )

    @wind.on("T", purpose="p")
    def handle(event: Event) -> None:
        logger.info("handled", order=7, root="mine")

    async with wind:
        logger.info("outside")
        await wind.fire("T", id="e")
        await wind.settled(60)
    assert [json.loads(line) for line in text.getvalue().splitlines()] == [
        {"event": "outside"},
        {"event": "handled", "order": 7, "topic": "T", "purpose": "p", "event_id": "e", "root": "mine", "attempt": 1},
    ]


@pytest.mark.long
def test_a_factory_of_the_programs_own_is_kept_and_run_with_json_has_the_fields(tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text(
        "import logging\n"
        "from solarwind import Event, SolarWind\n\n"
        "before = logging.getLogRecordFactory()\n\n\n"
        "def mine(*given, **named):\n"
        "    record = before(*given, **named)\n"
        "    record.msg = f'mine: {record.msg}'\n"
        "    return record\n\n\n"
        "logging.setLogRecordFactory(mine)\n"
        "wind = SolarWind('sqlite:///wind.db')\n\n\n"
        "@wind.on('T', purpose='p')\n"
        "async def handle(event: Event) -> None:\n"
        "    logging.getLogger('shop').warning('one')\n"
    )

    def solarwind(*words: str) -> str:
        command = [sys.executable, "-m", "solarwind", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
        assert done.returncode == 0, done.stderr
        return done.stderr

    solarwind("fire", "T", "1", "--id", "e", "--url", "sqlite:///wind.db")
    solarwind("run", "app:wind", "--until-settled", "--json")
    solarwind("fire", "T", "1", "--id", "e", "--url", "sqlite:///wind.db")
    solarwind("fire", "T", "1", "--id", "f", "--url", "sqlite:///wind.db")
    lines = map(json.loads, solarwind("run", "app:wind", "--until-settled", "--json").splitlines())
    (found,) = [each for each in lines if each.get("logger") == "shop"]
    assert {name: found[name] for name in ("message", "topic", "purpose", "event_id", "root", "attempt")} == {
        "message": "mine: one",
        "topic": "T",
        "purpose": "p",
        "event_id": "f",
        "root": "f",
        "attempt": 1,
    }
