"""Bad input: each is refused with the right error, in one sentence that says what was expected and what came, and
nothing is lost or half-done by it."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import pytest
from msgspec import Raw

from solarwind import (
    BadArgument,
    BadName,
    BadPayload,
    Busy,
    Cause,
    ConflictError,
    Depends,
    Event,
    Handlers,
    Later,
    Limits,
    NotAllowed,
    NotFound,
    Reject,
    Retry,
    Share,
    SolarWind,
    SolarWindError,
    StoreError,
    TooLarge,
)
from solarwind.contrib.flask import FlaskSolarWind
from solarwind.copying import open_end
from solarwind.exchanges import Direct, register_exchange
from solarwind.payload import JSON, decode
from solarwind.server import app as server
from solarwind.server.access import Access, read_tokens, revoke_token
from solarwind.server.tls import tls_context
from solarwind.store.check import backup, check, restore
from solarwind.testing.contract import on_loop

Refusal = tuple[Callable[[SolarWind], object], type[SolarWindError], tuple[str, ...]]


def check_sentence(error: SolarWindError, *words: str) -> None:
    """Check that it is one sentence with these words, and that its class has a code and a fault."""
    text = str(error)
    assert text
    assert "\n" not in text
    assert "Traceback" not in text
    for word in words:
        assert word in text, text
    assert type(error).code != SolarWindError.code
    assert type(error).fault in ("caller", "system", "store", "peer")


def _of_number(number: int) -> None: ...


class Unknown:
    """Nothing that JSON can carry."""


@dataclass
class Anything:
    value: Any


LOOP: list[Any] = []
LOOP.append(LOOP)

FIRING: dict[str, Refusal] = {
    "topic empty": (lambda wind: wind.fire(""), BadName, ("1 to 200", "''")),
    "topic with a space": (lambda wind: wind.fire("a b"), BadName, ("'a b'", "character 2")),
    "topic with two dots": (lambda wind: wind.fire("a..b"), BadName, ("'a..b'", "character 2")),
    "topic ends with a dot": (lambda wind: wind.fire("a."), BadName, ("'a.'", "character 2")),
    "topic starts with a dot": (lambda wind: wind.fire(".a"), BadName, ("'.a'", "character 1")),
    "topic with a wildcard": (lambda wind: wind.fire("a.*"), BadName, ("'a.*'",)),
    "topic with an umlaut": (lambda wind: wind.fire("bär"), BadName, ("character 2",)),
    "topic with a newline": (lambda wind: wind.fire("a\n"), BadName, (r"'a\n'",)),
    "topic too long": (lambda wind: wind.fire("a" * 201), BadName, ("201 characters",)),
    "topic no text": (lambda wind: wind.fire(7), BadName, ("int", "7")),  # type: ignore[arg-type]
    "topic None": (lambda wind: wind.fire(None), BadName, ("NoneType",)),  # type: ignore[arg-type]
    "topic a list": (lambda wind: wind.fire(["T"]), BadName, ("list",)),  # type: ignore[arg-type]
    "key too long": (lambda wind: wind.fire("T", key="é" * 129), BadName, ("256 bytes", "258 bytes")),
    "key no text": (lambda wind: wind.fire("T", key=b"k"), BadName, ("key", "bytes")),  # type: ignore[arg-type]
    "key with a lone surrogate": (lambda wind: wind.fire("T", key="a\ud800"), BadName, ("surrogate", "character 2")),
    "now a word": (lambda wind: wind.fire("T", now="yes"), BadArgument, ("now", "True or False", "'yes'")),  # type: ignore[arg-type]
    "now a number": (lambda wind: wind.fire("T", key="k", now=1), BadArgument, ("now", "True or False", "1")),  # type: ignore[arg-type]
    "within a word": (lambda wind: wind.fire("T", within="2"), BadArgument, ("within", "'2'")),  # type: ignore[arg-type]
    "within True": (lambda wind: wind.fire("T", within=True), BadArgument, ("within", "True")),
    "within of none": (lambda wind: wind.fire_many("T", [1], within=0), BadArgument, ("more than 0 seconds", "0")),
    "id bytes": (lambda wind: wind.fire("T", id=b"i"), BadName, ("id", "bytes")),  # type: ignore[arg-type]
    "keys a text": (lambda wind: wind.fire_many("T", [1], keys="k"), BadArgument, ("keys", "str")),
    "keys too few": (lambda wind: wind.fire_many("T", [1, 2], keys=["k"]), BadArgument, ("each of 2", "1")),
    "ids a number": (lambda wind: wind.fire_many("T", [1], ids=5), BadArgument, ("ids", "int")),  # type: ignore[arg-type]
    "ids no texts": (lambda wind: wind.fire_many("T", [1], ids=[5]), BadName, ("id", "int")),  # type: ignore[list-item]
    "key of many a number": (lambda wind: wind.fire_many("T", [1], 5), BadName, ("key", "int")),  # type: ignore[arg-type]
    "key and keys": (lambda wind: wind.fire_many("T", [1], "k", keys=["k"]), BadArgument, ("both",)),
    "extensions a text": (lambda wind: wind.fire("T", extensions="a"), BadArgument, ("extensions", "'a'")),  # type: ignore[arg-type]
    "extension of a bad name": (lambda wind: wind.fire("T", extensions={"A b": ""}), BadArgument, ("a-z", "'A b'")),
    "extension that is known": (
        lambda wind: wind.fire("T", extensions={"id": "1"}),
        BadArgument,
        ("'id'", "leave it out"),
    ),
    "extension a number": (lambda wind: wind.fire("T", extensions={"a": 5}), BadArgument, ("extension a", "5")),  # type: ignore[dict-item]
    "extension with a line end": (lambda wind: wind.fire("T", extensions={"a": "\n"}), BadArgument, ("control",)),
    "extension with a lone surrogate": (
        lambda wind: wind.fire("T", extensions={"a": "\ud800"}),
        BadArgument,
        ("surrogate",),
    ),
    "extensions too long": (lambda wind: wind.fire("T", extensions={"a": "x" * 8192}), BadArgument, ("8,192", "8,193")),
    "extensions too many": (
        lambda wind: wind.fire("T", extensions={f"a{n}": "" for n in range(65)}),
        BadArgument,
        ("64", "65"),
    ),
    "id empty": (lambda wind: wind.fire("T", id=""), BadName, ("id", "''")),
    "id with a newline": (lambda wind: wind.fire("T", id="a\nb"), BadName, ("id",)),
    "id no text": (lambda wind: wind.fire("T", id=5), BadName, ("id", "int")),  # type: ignore[arg-type]
    "payload an object": (lambda wind: wind.fire("T", Unknown()), BadPayload, ("JSON", "Unknown")),
    "payload with an object": (lambda wind: wind.fire("T", {"a": [Unknown()]}), BadPayload, ("JSON", "Unknown")),
    "payload that holds itself": (lambda wind: wind.fire("T", LOOP), BadPayload, ("JSON", "list")),
    "payload with a lone surrogate": (lambda wind: wind.fire("T", "\ud800"), BadPayload, ("JSON", "str")),
    "payload keyed by lists": (lambda wind: wind.fire("T", {(1, 2): 3}), BadPayload, ("JSON",)),
    "payload too large": (lambda wind: wind.fire("T", b"x" * (2**20 + 1)), TooLarge, ("1,048,576", "1,048,577", "'T'")),
    "text too large": (lambda wind: wind.fire("T", "x" * 2**20), TooLarge, ("1,048,578", "'T'")),
    "cause a word": (lambda wind: wind.fire("T", cause="me"), BadArgument, ("Cause", "'me'")),  # type: ignore[arg-type]
    "cause of a number": (lambda wind: wind.fire("T", cause=Cause.user(5)), BadArgument, ("id", "got 5")),  # type: ignore[arg-type]
    "invalid raw JSON": (lambda wind: wind.fire("T", Raw(b"[1")), BadPayload, ("JSON", "Raw")),
    "invalid raw JSON in a dict": (lambda wind: wind.fire("T", {"a": Raw(b'1,"b":2')}), BadPayload, ("JSON",)),
    "invalid raw JSON in a list": (lambda wind: wind.fire("T", [{"a": [Raw(b"")]}]), BadPayload, ("JSON",)),
    "invalid raw JSON in a dataclass": (lambda wind: wind.fire("T", Anything(Raw(b"}"))), BadPayload, ("JSON",)),
    "names that are one as text": (
        lambda wind: wind.fire("T", {1: "a", "1": "b"}),
        BadPayload,
        ("more than one", '"1"'),
    ),
    "such names deep inside": (lambda wind: wind.fire("T", [{"a": {2: 0, "2": 1}}]), BadPayload, ("more than one",)),
    "not a number in a dataclass": (lambda wind: wind.fire("T", Anything(float("nan"))), BadPayload, ("nan",)),
    "cause with a lone surrogate": (
        lambda wind: wind.fire("T", cause=Cause.user("\udcff")),
        BadArgument,
        ("surrogate",),
    ),
}


@pytest.mark.parametrize("name", FIRING)
@pytest.mark.parametrize("where", ["outside", "in a handler"])
@on_loop
async def test_bad_input_to_fire_is_refused_in_one_sentence(name: str, where: str) -> None:
    """Refused at once, where it is fired; what was fired before and after is not touched."""
    fire, error, words = FIRING[name]
    wind = SolarWind("memory://")
    seen: list[int] = []
    errors: list[SolarWindError] = []

    def refused() -> None:
        with pytest.raises(error) as caught:
            fire(wind)
        errors.append(caught.value)

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        seen.append(number)

    @wind.on("U", purpose="p")
    async def inside() -> None:
        wind.fire("T", 1)
        refused()
        wind.fire("T", 2)

    async with wind:
        if where == "outside":
            wind.fire("T", 1)
            refused()
            wind.fire("T", 2)
        else:
            wind.fire("U")
        await wind.settled(60)
        statistics = await wind.statistics()
    assert seen == [1, 2]
    assert statistics.topics["T"].fired == 2
    assert set(statistics.topics) == {"T", "U"}
    check_sentence(errors[0], "expected ", ", got ", *words)


HANDLING: dict[str, tuple[dict[str, Any], type[SolarWindError], tuple[str, ...]]] = {
    "topic": ({"topic": "a b"}, BadName, ("'a b'",)),
    "purpose empty": ({"purpose": ""}, BadName, ("purpose", "''")),
    "purpose with a space at its end": ({"purpose": "p "}, BadName, ("purpose", "'p '")),
    "purpose with a tab": ({"purpose": "a\tb"}, BadName, (r"'\t'", "character 2")),
    "purpose too long": ({"purpose": "p" * 201}, BadName, ("201 characters",)),
    "purpose no text": ({"purpose": 3}, BadName, ("int",)),
    "exchange unknown": ({"exchange": "topic"}, BadArgument, ("direct", "fanout", "keyed", "'topic'")),
    "exchange no text": ({"exchange": None}, BadArgument, ("None",)),
    "version nought": ({"version": 0}, BadArgument, ("version", "0")),
    "version a word": ({"version": "2"}, BadArgument, ("version", "'2'")),
    "version true": ({"version": True}, BadArgument, ("version", "True")),
    "version beyond all bounds": ({"version": 2**64}, BadArgument, ("version", "from 1 to 999,999,999")),
    "key no path": ({"exchange": "keyed", "key": "id"}, BadArgument, ("$.video_id", "'id'")),
    "key no text": ({"exchange": "keyed", "key": 5}, BadArgument, ("5",)),
    "key too long": ({"exchange": "keyed", "key": "$" + ".a" * 100}, BadArgument, ("200 characters",)),
    "key not keyed": ({"exchange": "direct", "key": "$.id"}, BadArgument, ("$.id", "'direct'")),
    "since a word": ({"since": "yesterday"}, BadArgument, ("beginning", "'yesterday'")),
    "since a number": ({"since": 5}, BadArgument, ("beginning", "5")),
    "since below nought": ({"since": timedelta(seconds=-5)}, BadArgument, ("timedelta", "ahead")),
    "since ahead": ({"since": datetime(2999, 1, 1, tzinfo=UTC)}, BadArgument, ("2999", "ahead", "'now'")),
    "since of a fan-out": ({"exchange": "fanout", "since": "beginning"}, BadArgument, ("no since", "'fanout'")),
    "since true": ({"since": True}, BadArgument, ("beginning", "True")),
    "retry a number": ({"retry": 3}, BadArgument, ("Retry", "3")),
    "lease nought": ({"lease": 0}, BadArgument, ("lease", "0")),
    "lease a word": ({"lease": "30"}, BadArgument, ("lease", "'30'")),
    "lease nan": ({"lease": float("nan")}, BadArgument, ("lease", "nan")),
    "lease true": ({"lease": True}, BadArgument, ("lease", "True")),
    "lease below a ns": ({"lease": 1e-12}, BadArgument, ("lease", "1e-12")),
    "concurrency true": ({"concurrency": True}, BadArgument, ("concurrency", "True")),
    "concurrency nought": ({"concurrency": 0}, BadArgument, ("concurrency", "0")),
    "concurrency beyond all bounds": ({"concurrency": 2**63}, BadArgument, ("concurrency", "from 1 to 999,999,999")),
    "concurrency a fraction": ({"concurrency": 1.5}, BadArgument, ("concurrency", "1.5")),
}


@pytest.mark.parametrize("name", HANDLING)
@on_loop
async def test_bad_input_to_on_is_refused_in_one_sentence(name: str) -> None:
    """Refused where it is registered, or at the latest when it joins; no purpose is left behind by it."""
    options, error, words = HANDLING[name]
    wind = SolarWind("memory://")
    seen: list[int] = []

    @wind.on("good", purpose="p")
    async def good(number: int) -> None:
        seen.append(number)

    async with wind:
        with pytest.raises(error) as caught:
            await _join(wind, options)
        check_sentence(caught.value, "expected ", ", got ", *words)
        await wind.fire("good", 1)
        await wind.settled(60)
        assert [(info.topic, info.purpose) for info in await wind.purposes()] == [("good", "p")]
    assert seen == [1]


@pytest.mark.parametrize("name", [name for name in HANDLING if not name.startswith("concurrency")])
@on_loop
async def test_bad_input_to_listen_is_refused_in_one_sentence(name: str) -> None:
    options, error, words = HANDLING[name]
    async with SolarWind("memory://") as wind:
        with pytest.raises(error) as caught:
            await wind.listen(**{"topic": "T", "purpose": "p", **options}).open()
        check_sentence(caught.value, "expected ", ", got ", *words)
        assert await wind.purposes() == []


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: Retry(attempts=0), ("attempts", "0")),
        (lambda: Retry(attempts=1.5), ("attempts", "1.5")),  # type: ignore[arg-type]
        (lambda: Retry(wait=-1), ("wait", "-1")),
        (lambda: Retry(wait=float("nan")), ("wait", "nan")),
        (lambda: Retry(wait=float("inf"), ceiling=float("inf")), ("inf",)),
        (lambda: Retry(wait=1e12), ("wait", "1000000000000")),
        (lambda: Retry(ceiling=1e12), ("ceiling", "1000000000000")),
        (lambda: Retry(factor=0.5), ("factor", "0.5")),
        (lambda: Retry(attempts=True), ("attempts", "True")),
        (lambda: Retry(attempts=10**30), ("attempts", "from 1 to 999,999,999")),
        (lambda: Retry(wait=True), ("wait", "True")),
        (lambda: Retry(wait=100, ceiling=5), ("ceiling=5", "wait=100", "ceiling=100 or more")),
        (lambda: Retry(attempt=3), ("attempt=3", "did you mean attempts=3?")),  # type: ignore[call-arg]
        (lambda: Retry(delays=3), ("attempts, wait, factor, ceiling", "delays=3")),  # type: ignore[call-arg]
        (lambda: Retry(1, 2, 3, 4, 5), ("options of Retry", "1, 2, 3, 4, 5")),  # type: ignore[call-arg]
        (lambda: Retry(wait=timedelta(seconds=-1)), ("wait", "-1")),
        (lambda: Retry(ceiling=timedelta(days=100_000)), ("ceiling", "8640000000")),
        (lambda: Later(timedelta(seconds=-1)), ("seconds", "timedelta")),
        (lambda: Limits(payload=5), ("options of Limits", "did you mean payload_bytes=5?")),  # type: ignore[call-arg]
        (lambda: Limits(5), ("options of Limits by name", "got 5")),  # type: ignore[misc]
        (lambda: Cause("me", "x"), ("kind", "event, user, schedule", "'me'")),  # type: ignore[arg-type]
        (lambda: Cause("user", b"x"), ("id", "b'x'")),  # type: ignore[arg-type]
        (lambda: Cause("event", "x", version="1"), ("version", "'1'")),  # type: ignore[arg-type]
        (lambda: Cause.schedule(None), ("id", "None")),  # type: ignore[arg-type]
        (lambda: Cause.event("x"), ("Event", "'x'")),  # type: ignore[arg-type]
        (lambda: SolarWind(engine=5), ("engine", "5")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://", engine=SolarWind("memory://").engine), ("URL or an engine", "both")),
        (lambda: SolarWind("memory://").use("memory://", token=5), ("token", "int")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").use("memory://", engine=SolarWind().engine), ("URL or an engine", "both")),
        (lambda: SolarWind("memory://").use(engine=5), ("engine", "5")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").use(5), ("URL", "int")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").wait(5), ("coroutine", "5")),  # type: ignore[arg-type]
        (lambda: Later(True), ("seconds", "True")),
        (lambda: SolarWind("memory://", grace=-1), ("grace", "-1")),
        (lambda: SolarWind("memory://", grace="1"), ("grace", "'1'")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://", limits=5), ("limits", "5")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://", token=b"x"), ("token", "bytes")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").run(until_settled=1), ("until_settled", "1")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").fire_many("T", "abc"), ("payloads", "'abc'", "use fire")),
        (lambda: SolarWind("memory://").fire_many("T", {"a": 1}), ("payloads", "use fire")),
        (lambda: SolarWind("memory://").fire_many("T", 5), ("payloads", "5")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").topic("T", keep=True), ("keep", "True")),
        (lambda: SolarWind("memory://").topic("T", keep=timedelta(days=-1)), ("keep", "timedelta")),
        (lambda: SolarWind("memory://").topic("T", keep_bytes=True), ("keep_bytes", "True")),
        (lambda: Retry(ceiling="1"), ("ceiling", "'1'")),  # type: ignore[arg-type]
        (lambda: Later(-1), ("seconds", "-1")),
        (lambda: Later("5"), ("seconds", "'5'")),  # type: ignore[arg-type]
        (lambda: Later(float("nan")), ("seconds", "nan")),
        (lambda: register_exchange("no name", Direct()), ("name", "'no name'")),
        (lambda: register_exchange("mine", Direct), ("instance", "Direct")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").topic("T", keep=-1), ("keep", "-1")),
        (lambda: SolarWind("memory://").topic("T", keep=float("nan")), ("keep", "nan")),
        (lambda: SolarWind("memory://").topic("T", keep="1"), ("keep", "'1'")),  # type: ignore[arg-type]
        (lambda: SolarWind("memory://").topic("T", keep_bytes=-1), ("keep_bytes", "-1")),
        (lambda: SolarWind("memory://").topic("T", keep_bytes=1.5), ("keep_bytes", "1.5")),  # type: ignore[arg-type]
    ],
)
def test_a_bad_option_is_refused_in_one_sentence(make: Callable[[], object], words: tuple[str, ...]) -> None:
    with pytest.raises(BadArgument) as caught:
        make()
    check_sentence(caught.value, "expected ", ", got ", *words)


@pytest.mark.parametrize("make", [lambda: Limits(zone=1), lambda: Retry(number=3)])  # type: ignore[call-arg]
def test_an_option_that_is_like_no_other_is_not_said_to_be_meant(make: Callable[[], object]) -> None:
    with pytest.raises(BadArgument) as caught:
        make()
    assert "did you mean" not in str(caught.value)


@pytest.mark.parametrize(
    "options",
    [
        {"exchange": "direct", "key": "$.id"},
        {"exchange": "fanout", "key": "$.id"},
        {"exchange": "direct:random", "key_missing": "reject"},
        {"exchange": "fanout", "key_missing": "reject"},
        {"exchange": "fanout", "since": "beginning"},
        {"exchange": "topic"},
        {"exchange": "keyed", "key": "id"},
        {"key_missing": "ignore"},
        {"lease": timedelta(0)},
    ],
    ids=str,
)
def test_options_that_do_not_go_together_are_refused_by_on_and_listen_themselves(options: dict[str, Any]) -> None:
    wind = SolarWind("memory://")
    for call in (wind.on, partial(wind.listen, purpose="p")):
        with pytest.raises(BadArgument) as caught:
            call("T", **options)
        check_sentence(caught.value, "expected ", ", got ")


def test_a_grace_that_is_set_later_is_checked_then_and_not_when_it_stops() -> None:
    wind = SolarWind("memory://")
    wind.grace = timedelta(seconds=1)
    with pytest.raises(BadArgument, match=r"expected grace of 0 or more seconds .*, got nan"):
        wind.grace = float("nan")
    assert wind.grace == 1.0


@on_loop
async def test_times_are_given_in_seconds_or_as_a_timedelta_everywhere() -> None:
    second = timedelta(seconds=1)
    assert (Retry(wait=second, ceiling=2 * second), Later(second).seconds) == (Retry(wait=1.0, ceiling=2.0), 1.0)
    wind = SolarWind("memory://", grace=30 * second)
    assert wind.grace == 30.0
    seen: list[int] = []

    @wind.on("T", purpose="p", retry=Retry(wait=timedelta(0), ceiling=second), lease=30 * second)
    async def handle(event: Event) -> None:
        seen.append(event.attempt)
        if len(seen) < 3:
            raise Later(timedelta(0)) if len(seen) == 1 else OSError

    async with wind:
        receipt = wind.fire("T", within=60 * second)
        await asyncio.to_thread(receipt.wait, 60 * second)
        await wind.settled(60 * second)
        await wind.stop(60 * second)
    assert seen == [1, 1, 2]


@on_loop
async def test_times_to_wait_and_functions_of_another_type_are_refused() -> None:
    wind = SolarWind("memory://")
    async with wind:
        fired, many = wind.fire("T"), wind.fire_many("T", [1])
        for wrong in ("1", -1, float("nan"), True):
            for waiting in (fired.wait, many.wait, partial(wind.wait, wind.settled())):
                with pytest.raises(BadArgument) as caught:
                    await asyncio.to_thread(waiting, wrong)
                check_sentence(caught.value, "a timeout", f"got {wrong!r}")
            with pytest.raises(BadArgument):
                await wind.settled(wrong)  # type: ignore[arg-type]
            with pytest.raises(BadArgument):
                await wind.stop(wrong)  # type: ignore[arg-type]
        with pytest.raises(BadArgument, match="expected a function that was registered with on, got 'f'"):
            await wind.off("f")  # type: ignore[arg-type]
        await wind.settled(timedelta(seconds=5))  # type: ignore[arg-type]
        await wind.stop(timedelta(seconds=5))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "url",
    [
        "",
        "wind.db",
        "sqlite:",
        "sqlite://",
        "sqlite:///",
        "sqlite://wind.db",
        "sqlite:///folder/",
        "sqlite:///:memory:",
        "sqlite:///wind.db?mode=ro",
        "sqlite:///wind.db#x",
        "sqlite3:///wind.db",
        "memory://x",
        "memory:",
        "http://localhost:7400",
        "redis://localhost",
        "://",
        "sqlite://[",
        5,
        Path("wind.db"),
    ],
    ids=str,
)
def test_a_bad_url_is_refused_in_one_sentence(url: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Refused when it is given, and nothing is created."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadArgument) as caught:
        SolarWind(url)
    check_sentence(caught.value, "expected ", ", got ")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_url_from_the_environment_is_refused_in_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOLARWIND_URL", "nonsense")
    with pytest.raises(BadArgument) as caught:
        SolarWind()
    check_sentence(caught.value, "expected ", "'nonsense'")


def _not_a_store(path: Path) -> None:
    path.write_bytes(b"This is a text about stores, and no store. " * 100)


def _short(path: Path) -> None:
    path.write_bytes(b"no")


def _other_database(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE songs(title)")
    connection.close()


def _newer(path: Path) -> None:
    asyncio.run(_make_store(path))
    connection = apsw.Connection(str(path))
    version = connection.pragma("user_version")
    connection.pragma("user_version", version + 1)
    connection.close()


def _a_folder(path: Path) -> None:
    path.mkdir()


async def _make_store(path: Path) -> None:
    async with SolarWind(f"sqlite:///{path}") as wind:
        await wind.fire("T", 1)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (_not_a_store, ("expected a store", "not an SQLite database")),
        (_short, ("expected a store",)),
        (_other_database, ("expected a store", "other SQLite database")),
        (_newer, ("newer", "upgrade")),
        (_a_folder, ("folder",)),
    ],
)
@on_loop
async def test_a_file_that_is_no_store_is_refused_in_one_sentence(
    make: Callable[[Path], None], words: tuple[str, ...], tmp_path: Path
) -> None:
    """A file that is not a store, or of a newer format, is refused by name, and left as it is."""
    path = tmp_path / "wind.db"
    await asyncio.to_thread(make, path)
    before = {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()}
    wind = SolarWind(f"sqlite:///{path}")
    with pytest.raises(StoreError) as caught:
        await wind.start()
    check_sentence(caught.value, str(path), *words)
    assert {each.name: each.read_bytes() for each in tmp_path.iterdir() if each.is_file()} == before


_ON_PATHS: dict[str, Callable[[str, str], object]] = {
    "the URL of a store": lambda path, store: SolarWind(f"sqlite:///{path}"),
    "a store to check": lambda path, store: check(path),
    "a backup to restore": lambda path, store: restore(path, store, now=1),
    "a store to restore to": lambda path, store: restore(store, path, now=1),
    "a backup of a file": lambda path, store: backup(store, path),
    "a backup of what runs": lambda path, store: asyncio.run(_back_up(store, path)),
    "an end of a copy": lambda path, store: open_end(f"sqlite:///{path}", writes=True),
    "the tokens of a server": lambda path, store: Access(path, required=False),
    "a file of tokens": lambda path, store: read_tokens(path),
    "a file of tokens to change": lambda path, store: revoke_token(path, "any"),
    "a certificate": lambda path, store: tls_context(path, None),
    "a key": lambda path, store: tls_context(store, path),
}


async def _back_up(store: str, path: str) -> None:
    async with SolarWind(f"sqlite:///{store}") as wind:
        await wind.backup(path)


@pytest.mark.parametrize("path", ["a\0b", "\ud800.db"], ids=["NUL", "no Unicode"])
@pytest.mark.parametrize("what", _ON_PATHS)
def test_a_path_that_no_file_can_have_is_refused_in_a_sentence(what: str, path: str, tmp_path: Path) -> None:
    store = str(tmp_path / "wind.db")
    asyncio.run(_make_store(tmp_path / "wind.db"))
    before = sorted(each.name for each in tmp_path.iterdir())
    with pytest.raises(BadArgument) as caught:
        _ON_PATHS[what](path, store)
    check_sentence(caught.value, "expected the path of a file", "without NUL", ", got ", "name another")
    assert sorted(each.name for each in tmp_path.iterdir()) == before


def test_an_empty_file_is_no_backup_and_says_that_it_is_empty(tmp_path: Path) -> None:
    empty = tmp_path / "empty.db"
    empty.touch()
    with pytest.raises(StoreError) as caught:
        restore(str(empty), str(tmp_path / "wind.db"), now=1)
    check_sentence(caught.value, "expected a store of Solar Wind", f"the file {empty} is empty")


@pytest.mark.parametrize(
    ("ask", "words"),
    [
        (lambda wind: wind.redrive("T", "p", all=True), ("of redrive, of topic, purpose, ids, version", "'all'")),
        (
            lambda wind: wind.replay("T"),
            ("replay(topic, purpose, since='beginning', until='now', caused_by=None, dry_run=False)", "add purpose"),
        ),
        (lambda wind: wind.trace(), ("trace(id", "add id")),
        (lambda wind: wind.topics("T"), ("topics()", "1 argument without a name", "leave out")),
        (lambda wind: wind.topics("T", "p"), ("topics()", "2 arguments without a name", "leave out")),
        (lambda wind: wind.on("T", "p"), ("on(topic)", "2 arguments", "as in purpose=...")),
        (lambda wind: wind.on(), ("on(topic)", "add topic")),
        (lambda wind: wind.on(purpose="p"), ("on(topic)", "add topic")),
        (lambda wind: wind.on("T", topic="T"), ("on(topic)", "one topic, got two")),
        (lambda wind: wind.on("T", retires=3), ("options of on", "did you mean 'retry'?")),
        (lambda wind: wind.on("T", purposse="p"), ("options of on", "did you mean 'purpose'?")),
        (lambda wind: wind.on("T")(), ("register(function)", "add function")),
        (lambda wind: wind.listen("T"), ("listen(topic, purpose)", "add purpose")),
        (lambda wind: wind.listen("T", "p", "direct"), ("listen(topic, purpose)", "as in exchange=...")),
        (lambda wind: wind.listen("T", "p", exchnge="direct"), ("did you mean 'exchange'?",)),
        (lambda wind: wind.fire("T", ky="k"), ("options of fire", "did you mean 'key'?")),
        (lambda wind: wind.fire_many("T", [1], wthin=1), ("options of fire_many", "did you mean 'within'?")),
        (lambda wind: wind.fire_many("T"), ("fire_many(topic, payloads, key=None)", "add payloads")),
        (lambda wind: wind.outbox(sqlite3.connect(":memory:")).fire("T", now=True), ("options of fire", "'now'")),
        (lambda wind: wind.every("5m"), ("every(every, topic, payload=None)", "add topic")),
        (lambda wind: wind.topic("T", 3), ("topic(name)", "as in keep=...")),
        (lambda wind: wind.include(Handlers(), "shop"), ("include(group)", "as in prefix=...")),
        (lambda wind: wind.middleware(), ("middleware(function)", "add function")),
        (lambda wind: Depends(len, cache=False), ("options of Depends", "did you mean 'use_cache'?")),
        (lambda wind: Later(), ("Later(seconds)", "add seconds")),
        (lambda wind: Later(minutes=1), ("options of Later, of seconds", "'minutes'")),
        (lambda wind: Reject(), ("Reject(reason)", "add reason")),
        (lambda wind: Share(), ("options of Share by name", "got none")),
        (lambda wind: Handlers("shop"), ("Handlers()", "leave out")),
        (lambda wind: SolarWind("memory://", "sw_secret"), ("SolarWind(url=None)", "as in token=...")),
        (lambda wind: SolarWind("memory://", tokn="sw_secret"), ("options of SolarWind", "did you mean 'token'?")),
        (lambda wind: FlaskSolarWind(url="memory://"), ("options of FlaskSolarWind", "'url'")),
        (lambda wind: server("memory://", "tokens"), ("app(source=None)", "as in tokens=...")),
        (lambda wind: asyncio.run(wind.off()), ("off(function)", "add function")),
        (lambda wind: asyncio.run(wind.settled(1, 2)), ("settled(timeout=None)", "2 arguments")),
        (lambda wind: wind.lifespan()(None), ("lifespan=wind.lifespan", "leave out the parentheses")),
        (lambda wind: server(wind).lifespan()(None), ("lifespan=events.lifespan", "leave out the parentheses")),
    ],
)
def test_a_wrong_call_is_told_what_it_takes(ask: Callable[[Any], object], words: tuple[str, ...]) -> None:
    with pytest.raises(BadArgument) as caught:
        ask(SolarWind("memory://"))
    check_sentence(caught.value, "expected ", ", got ", *words)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    "make", [lambda token: SolarWind(token=token), lambda token: SolarWind().use("ws://127.0.0.1:1", token)]
)
@pytest.mark.parametrize("token", ["sw_secret\n", "sw_sec ret", "sw_sécret", "sw_secret\0", "", 5, b"sw_secret"])
def test_what_cannot_be_a_token_is_refused_and_not_shown(make: Callable[[Any], object], token: Any) -> None:
    with pytest.raises(BadArgument) as caught:
        make(token)
    check_sentence(caught.value, "expected a token", ", got ")
    assert "secret" not in str(caught.value)


@on_loop
async def test_a_token_in_the_environment_is_checked_when_a_server_is_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOLARWIND_TOKEN", "sw_secret\n")
    with pytest.raises(BadArgument) as caught:
        await SolarWind("ws://127.0.0.1:1").start()
    check_sentence(caught.value, "in $SOLARWIND_TOKEN", "character 10")


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (print, ("print",)),
        (lambda one, other: None, ("(one, other)",)),
        (list, ("list",)),
        (_of_number, ("_of_number", "annotate it with Dead")),
    ],
)
def test_what_cannot_hear_of_deaths_is_refused_as_on_dead(function: Any, words: tuple[str, ...]) -> None:
    with pytest.raises(BadArgument) as caught:
        SolarWind("memory://").on("T", on_dead=function)
    check_sentence(caught.value, "expected on_dead as a function that takes a Dead, got", *words)


@on_loop
async def test_a_store_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "missing" / "wind.db"
    with pytest.raises(StoreError) as caught:
        await SolarWind(f"sqlite:///{path}").start()
    check_sentence(caught.value, "expected a folder", str(path), "create it")
    assert not path.parent.exists()


READ_ONLY = """
import asyncio, concurrent.futures.thread, os, sys
from solarwind import SolarWind, StoreError
if os.getuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
wind = SolarWind("sqlite:///" + sys.argv[1])
try:
    asyncio.run(wind.start())
except StoreError as error:
    print(error)
"""


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that others may look into. Those of pytest are closed again whenever somebody starts it."""
    with tempfile.TemporaryDirectory() as made:
        os.chmod(made, 0o755)
        yield Path(made)


@pytest.mark.parametrize("there", [False, True], ids=["no store there", "a store there"])
def test_a_store_in_a_read_only_folder_is_refused(there: bool, open_folder: Path) -> None:
    """As somebody who may not write there (the superuser may write anywhere, so not as him)."""
    folder = open_folder / "read-only"
    folder.mkdir()
    if there:
        asyncio.run(_make_store(folder / "wind.db"))
    for each in folder.iterdir():
        each.chmod(0o444)
    folder.chmod(0o555)
    before = sorted(each.name for each in folder.iterdir())
    try:
        done = _python(READ_ONLY, str(folder / "wind.db"))
        assert done.stderr == ""
        text = done.stdout.strip()
        assert "\n" not in text
        assert text.startswith("expected to be able to write")
        assert "read-only" in text
        assert sorted(each.name for each in folder.iterdir()) == before
    finally:
        folder.chmod(0o755)


IN_USE = """
import asyncio, sys
from solarwind import SolarWind, StoreError
try:
    asyncio.run(SolarWind("sqlite:///" + sys.argv[1]).start())
except StoreError as error:
    print(error)
"""


@on_loop
async def test_a_store_in_use_is_refused_naming_the_process_that_has_it(tmp_path: Path) -> None:
    """The second is told which process has it, and what to do; the first goes on undisturbed."""
    path = tmp_path / "wind.db"
    seen: list[int] = []
    wind = SolarWind(f"sqlite:///{path}")

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        seen.append(number)

    async with wind:
        await wind.fire("T", 1)
        done = await asyncio.to_thread(_python, IN_USE, str(path))
        assert done.stderr == ""
        text = done.stdout.strip()
        assert "\n" not in text
        for word in (str(path), f"process {os.getpid()}", "solarwind serve"):
            assert word in text
        with pytest.raises(StoreError) as caught:
            await SolarWind(f"sqlite:///{path}").start()
        check_sentence(caught.value, "this very process", "stop it")
        await wind.fire("T", 2)
        await wind.settled(60)
    assert seen == [1, 2]


@on_loop
async def test_operations_on_what_does_not_exist_are_refused() -> None:
    wind = SolarWind("memory://")
    wind.on("T", purpose="p")(_nothing)
    wind.on("T", purpose="page", exchange="fanout")(_nothing)
    async with wind:
        for work, error, words in (
            (wind.dead("T", "q"), NotFound, ("'q'", "'p'")),
            (wind.dead("U", "p"), NotFound, ("'U'",)),
            (wind.redrive("T", "p", ["nobody"]), NotFound, ("'nobody'", "'p'")),
            (wind.discard("T", "p", ["nobody"]), NotFound, ("'nobody'",)),
            (wind.replay("T", "page"), NotAllowed, ("'page'", "fanout")),
            (wind.replay("T", "p", since="sometime"), BadArgument, ("'sometime'",)),
            (wind.retire("T", "p"), ConflictError, ("1 live instance",)),
            (wind.trace("nobody"), NotFound, ("'nobody'",)),
            (wind.backup("copy.db"), NotAllowed, ("memory://",)),
        ):
            with pytest.raises(error) as caught:
                await work
            check_sentence(caught.value, "expected ", ", got ", *words)


@on_loop
async def test_a_naive_datetime_is_local_time_or_refused() -> None:
    """It never silently means another time."""
    wind = SolarWind("memory://")
    wind.topic("T", keep=60)
    seen: list[int] = []
    async with wind:
        await wind.fire("T", 1)

        @wind.on("T", purpose="p", since=datetime(2001, 1, 1))
        async def handle(number: int) -> None:
            seen.append(number)

        await wind.settled(60)
    assert seen == [1]


@on_loop
async def test_two_plug_ins_of_one_name_are_a_conflict() -> None:
    class Mine(Direct): ...

    class Other(Direct): ...

    register_exchange("bad-input-mine", Mine())
    with pytest.raises(ConflictError) as caught:
        register_exchange("bad-input-mine", Other())
    check_sentence(caught.value, "'bad-input-mine'")
    with pytest.raises(ConflictError):
        register_exchange("direct", Other())


@on_loop
async def test_too_much_fired_and_not_accepted_is_busy() -> None:
    """The buffer has a size; what was accepted into it is not lost."""
    wind = SolarWind("memory://")
    wind.topic("T", keep=60)
    payload = b"x" * 2**20
    fired = 0

    def fire_on() -> None:
        nonlocal fired
        for _ in range(200):
            wind.fire("T", payload)
            fired += 1

    async with wind:
        with pytest.raises(Busy) as caught:
            fire_on()
        check_sentence(caught.value, "expected ", "67,108,864", "await")
        assert 60 <= fired <= 70
        await wind.settled(60)
        await wind.fire("T", payload)
        assert (await wind.statistics()).topics["T"].fired == fired + 1


@on_loop
async def test_a_refused_member_of_fire_many_is_named_and_none_is_fired() -> None:
    """Nothing is fired: all of them are looked at first, the keys too."""
    wind = SolarWind("memory://")
    seen: list[int] = []

    @wind.on("T", purpose="p")
    async def handle(number: int) -> None:
        seen.append(number)

    async with wind:
        with pytest.raises(BadPayload):
            wind.fire_many("T", [1, 2, Unknown(), 4])
        with pytest.raises(BadName):
            wind.fire_many("T", [1, 2], key=lambda number: "k" * (256 * number))
        with pytest.raises(TooLarge):
            wind.fire_many("T", [b"", bytes((1 << 20) + 1)])
        await wind.settled(60)
    assert seen == []


@on_loop
async def test_a_start_that_is_refused_leaves_nothing_open(tmp_path: Path) -> None:
    """The store can be opened again at once."""
    url = f"sqlite:///{tmp_path / 'wind.db'}"
    wind = SolarWind(url)
    wind.on("T", purpose="p")(_nothing)
    wind.on("T", purpose="p", exchange="fanout")(_nothing)
    with pytest.raises(ConflictError):
        await wind.start()
    async with SolarWind(url) as wind:
        await wind.fire("T")
    with pytest.raises(ConflictError), _both(url):
        pass


def _both(url: str) -> SolarWind:
    wind = SolarWind(url)
    wind.on("T", purpose="p")(_nothing)
    wind.on("T", purpose="p", exchange="keyed")(_nothing)
    return wind


@on_loop
async def test_what_a_handler_raises_is_kept_whole() -> None:
    """Whatever the text: it is told as it is, and not too long."""
    wind = SolarWind("memory://")

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def handle(text: str) -> None:
        raise Reject(text) if text == "reject" else RuntimeError(text)

    async with wind:
        await wind.fire_many("T", ["two\nlines", "reject", "\x00", "", "x" * 5_000])
        await wind.settled(60)
        errors = [letter.error for letter in await wind.dead("T", "p")]
    assert errors[:-1] == ["RuntimeError: two\nlines", "reject", "RuntimeError: \x00", "RuntimeError: "]
    assert errors[-1] == f"RuntimeError: {'x' * 5_000}"[:4_000]


@on_loop
async def test_what_a_handler_raises_may_be_no_unicode(tmp_path: Path) -> None:
    """Half of a pair cannot be written down, nor sent: it is told by its number, and nothing stops."""
    wind = SolarWind(f"sqlite:///{tmp_path / 'wind.db'}")

    @wind.on("T", purpose="p", retry=Retry(attempts=1))
    async def handle(text: str) -> None:
        raise Reject(text + "\udcff") if text == "reject" else RuntimeError(text + "\udcff")

    async with wind:
        await wind.fire_many("T", ["reject", "raise"])
        await wind.settled(60)
        assert [letter.error for letter in await wind.dead("T", "p")] == ["reject\\udcff", "RuntimeError: raise\\udcff"]
        await wind.fire("U")


async def _nothing(event: Event) -> None: ...


async def _join(wind: SolarWind, options: dict[str, Any]) -> None:
    wind.on(**{"topic": "T", "purpose": "p", **options})(_nothing)
    await wind.joined()


def _python(source: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", source, *arguments], capture_output=True, text=True, timeout=300, check=False
    )


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{'a': 1}", "got \"{'a': 1}\": object keys must be strings at byte 2 of 8"),
        (b'{"a": 1,}', "got '{\"a\": 1,}': trailing comma in object at byte 9 of 9"),
        (b'{"a":', "got '{\"a\":': it ends too early"),
        (b"  ", "got nothing"),
        (b"\xff", "got '\\\\xff': invalid character at byte 1 of 1"),
        (b"[" + b"1," * 500 + b"x" + b",1" * 500 + b"]", "1,1,1,x,1,1,1"),
        (b"1" * 5000, "integer value out of range"),
    ],
)
def test_what_is_no_json_is_shown_as_text_around_its_place(data: bytes, said: str) -> None:
    with pytest.raises(BadPayload) as refused:
        decode(data, JSON)
    assert said in str(refused.value)
    assert "b'" not in str(refused.value)
    assert len(str(refused.value)) < 200
