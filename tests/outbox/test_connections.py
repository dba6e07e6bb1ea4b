"""Every kind of connection: `once` and the outbox in its transaction, and what is refused."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Callable
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy

from sampling import some
from solarwind import BadArgument, Event, NotAllowed, NotFound, SolarWind, SolarWindError, Unavailable
from solarwind.batch import seal
from solarwind.event import HandOut
from solarwind.outbox import database as tables
from solarwind.testing.contract import on_loop

from .conftest import new_file
from .drivers import DRIVERS, Driver, answer, path_of
from .postgres import Postgres

_numbers = count()
wind = SolarWind("memory://")  # which does not have to run


def handed(id: str, purpose: str = "Bill", *, shadow: bool = False) -> Event:
    """Return an event as a handler gets it."""
    batch = seal("t", [b"1"], [1], producer=0, first=0, machine="m", process="p", ids=[id])
    return Event(HandOut(batch, purpose=purpose, version=1, shadow=shadow), 0)


def new_id() -> str:
    return f"e{next(_numbers)}"


FEW = ("sqlite3", "apsw", "aiosqlite", "psycopg", "psycopg-async", "asyncpg", "sqlalchemy-psycopg")
FEW += ("sqlalchemy-asyncpg", "session-sqlite", "session-asyncpg", "django-postgresql")


@pytest.fixture(params=some(FEW, DRIVERS))
def driver(request: pytest.FixtureRequest) -> Driver:
    return DRIVERS[request.param]


@pytest.fixture
def url(driver: Driver, common: Callable[[str], str]) -> str:
    return common(driver.dialect)


@on_loop
async def test_an_event_is_seen_once_for_each_purpose_once_its_transaction_commits(driver: Driver, url: str) -> None:
    """Also where the table is the first thing that the transaction touches; a transaction rolled back saw nothing."""
    event = handed(new_id())
    async with driver.open(url, False) as first:
        assert await answer(event.once(first.connection)) is True
        assert await answer(event.once(first.connection)) is False
        await answer(first.rollback())
    async with driver.open(url, False) as again:
        assert await answer(event.once(again.connection)) is True
        await answer(again.commit())
    async with driver.open(url, False) as later:
        assert await answer(event.once(later.connection)) is False
        assert await answer(handed(event.id, "Ship").once(later.connection)) is True


@on_loop
async def test_of_a_batch_those_are_given_that_are_seen_for_the_first_time(driver: Driver, url: str) -> None:
    """In their order; one that is listed twice, once."""
    ids = [new_id() for _ in range(4)]
    events = [handed(id) for id in reversed(ids)]
    async with driver.open(url, False) as opened:
        assert await answer(handed(ids[1]).once(opened.connection)) is True
        found = await answer(wind.once(opened.connection, [*events, events[0]]))
        assert [event.id for event in found] == [ids[3], ids[2], ids[0]]
        assert await answer(wind.once(opened.connection, events)) == []
        assert await answer(wind.once(opened.connection, [])) == []


@on_loop
async def test_a_fired_event_is_a_row_if_and_only_if_the_transaction_commits(driver: Driver, url: str) -> None:
    before = tables.status(url).pending
    async with driver.open(url, False) as opened:
        await answer(wind.outbox(opened.connection).fire("t", {"n": 1}))
        await answer(opened.rollback())
    assert tables.status(url).pending == before
    async with driver.open(url, False) as opened:
        outbox = wind.outbox(opened.connection)
        assert await answer(outbox.fire("t", b"\x00\xff", key="k\0", id="mine-1")) == "mine-1"
        ids = await answer(outbox.fire_many("t", [{"n": 1}, {"n": 2}], keys=["a", None]))
        assert len(set(ids)) == 2
        await answer(opened.commit())
    assert tables.status(url).pending == before + 3


@on_loop
async def test_once_without_a_transaction_is_refused(driver: Driver, url: str) -> None:
    async with driver.open(url, True) as opened:
        event = handed(new_id())
        with pytest.raises(NotAllowed, match=r"^expected once within the transaction of the effect, got a connection"):
            await answer(event.once(opened.connection))
        with pytest.raises(NotAllowed, match="within the transaction"):
            await answer(wind.once(opened.connection, [event]))
        await answer(wind.outbox(opened.connection).fire("t"))  # it is its own transaction
        with pytest.raises(NotAllowed, match=r"^expected more than 1,000 events within the transaction"):
            await answer(wind.outbox(opened.connection).fire_many("t", range(1_001)))


@on_loop
async def test_without_the_tables_the_command_that_makes_them_is_named(
    driver: Driver, folder: Path, request: pytest.FixtureRequest
) -> None:
    bare = new_file(folder) if driver.dialect == "sqlite" else request.getfixturevalue("bare")
    for call in (handed("e").once, lambda connection: wind.outbox(connection).fire("t")):
        async with driver.open(bare, False) as opened:
            with pytest.raises(NotFound, match=r"^expected the table solarwind_\w+ .* `solarwind outbox init"):
                await answer(call(opened.connection))


@pytest.fixture(scope="module")
def bare(postgres: Postgres) -> str:
    return postgres.new()


@on_loop
async def test_a_closed_connection_is_refused(driver: Driver, url: str) -> None:
    if not driver.closes:
        pytest.skip("it opens again by itself")
    async with driver.open(url, False) as opened:
        await answer(opened.close())
        for call in (lambda: handed("e").once(opened.connection), lambda: wind.outbox(opened.connection).fire("t")):
            with pytest.raises(Unavailable, match=r"^expected an open connection to the database, got one that is clo"):
                await answer(call())


@on_loop
async def test_an_error_of_the_database_is_the_drivers_own(driver: Driver, url: str) -> None:
    """A program that tries again after a deadlock must see that it was one."""
    async with driver.open(url, False) as opened:
        with pytest.raises(Exception, match="nowhere"):
            await answer(opened.own("SELECT * FROM nowhere"))
        event = handed(new_id())
        if driver.dialect == "sqlite":
            assert await answer(event.once(opened.connection)) is True
        else:  # the transaction is aborted
            with pytest.raises(Exception, match="aborted") as found:
                await answer(event.once(opened.connection))
            assert not isinstance(found.value, SolarWindError)


@pytest.mark.parametrize(
    "given",
    [None, 7, "nowhere", object(), sqlalchemy.create_engine("sqlite://"), sqlite3.connect(":memory:").cursor()],
    ids=["None", "7", "a name", "object", "engine", "cursor"],
)
def test_what_is_no_connection_is_refused(given: Any) -> None:
    for call in (handed("e").once, wind.outbox, lambda connection: wind.once(connection, [])):
        with pytest.raises(BadArgument, match=r"^expected (a connection of sqlite3, apsw|the name of a Django)"):
            call(given)


def test_the_password_of_a_url_that_is_passed_in_place_of_a_connection_is_not_said() -> None:
    with pytest.raises(BadArgument) as refused:
        wind.outbox("postgresql://shop:secret@db/shop")
    assert "secret" not in str(refused.value)
    assert "postgresql://...@db/shop" in str(refused.value)


def test_a_connection_to_another_kind_of_database_is_refused() -> None:
    class Dialect:
        name, driver, paramstyle = "mysql", "pymysql", "format"

    class Connection:
        dialect = Dialect

    Connection.__module__ = "sqlalchemy.engine.base"
    with pytest.raises(BadArgument, match=r"^expected a connection to PostgreSQL or SQLite, got one to mysql\+pymysql"):
        handed("e").once(Connection())


def test_an_event_that_no_handler_has_is_refused() -> None:
    connection = sqlite3.connect(":memory:")
    with pytest.raises(BadArgument, match=r"^expected an event that was handed out for a purpose"):
        handed("e", purpose="").once(connection)
    for wrong in (handed("e"), None, [1], "e"):
        with pytest.raises(BadArgument, match=r"^expected an event|^expected a list of events"):
            wind.once(connection, wrong)  # type: ignore[arg-type]


@on_loop
async def test_the_answer_of_an_asynchronous_connection_is_no_condition(common: Callable[[str], str]) -> None:
    """Else `if event.once(connection)` would be true each time."""
    async with DRIVERS["aiosqlite"].open(common("sqlite"), False) as opened:
        with pytest.raises(BadArgument, match=r"^expected the answer .* to be awaited"):
            assert not handed("e").once(opened.connection)


def test_a_connection_of_another_thread_is_refused(common: Callable[[str], str]) -> None:
    connection = sqlite3.connect(path_of(common("sqlite")))
    found: list[Exception] = []

    def elsewhere() -> None:
        try:
            handed("e").once(connection)
        except Exception as error:
            found.append(error)

    thread = threading.Thread(target=elsewhere)
    thread.start()
    thread.join()
    assert isinstance(found[0], NotAllowed)
    assert "in the thread that made it" in str(found[0])
    connection.close()


def test_rows_of_the_callers_own_form_do_not_matter(common: Callable[[str], str]) -> None:
    connection = sqlite3.connect(path_of(common("sqlite")))
    connection.row_factory = lambda cursor, row: {"never": "read"}
    event = handed(new_id())
    assert event.once(connection) is True
    assert wind.once(connection, [event, other := handed(new_id())]) == [other]
    connection.close()


def test_a_shadow_has_no_effect_and_is_not_seen(common: Callable[[str], str]) -> None:
    """Else the current version would not have it."""
    connection = sqlite3.connect(path_of(common("sqlite")))
    id = new_id()
    assert handed(id, shadow=True).once(connection) is False
    assert wind.once(connection, [handed(id, shadow=True)]) == []
    assert handed(id).once(connection) is True
    connection.close()


@on_loop
async def test_of_two_transactions_at_once_the_second_waits_and_does_nothing(common: Callable[[str], str]) -> None:
    driver, url, event = DRIVERS["asyncpg"], common("postgresql"), handed(new_id())
    async with driver.open(url, False) as first, driver.open(url, False) as second:
        assert await event.once(first.connection) is True
        waiting = asyncio.ensure_future(answer(event.once(second.connection)))
        done, _ = await asyncio.wait([waiting], timeout=0.05)
        assert not done
        await answer(first.commit())
        assert await waiting is False
