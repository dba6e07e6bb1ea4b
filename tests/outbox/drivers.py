"""Each kind of connection that a caller may pass, opened on the same two databases."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any, NamedTuple

import aiosqlite
import apsw
import asyncpg
import django
import psycopg
import sqlalchemy
import sqlalchemy.ext.asyncio
import sqlalchemy.orm
from django.conf import settings


class Opened(NamedTuple):
    """A connection to pass, and how to end its transaction and itself. `own` runs a statement of the caller's."""

    connection: Any
    commit: Callable[[], Any]
    rollback: Callable[[], Any]
    own: Callable[[str], Any]
    close: Callable[[], Any]


class Driver(NamedTuple):
    """How to open a connection: in a transaction, or with `autocommit`."""

    dialect: str
    open: Callable[[str, bool], AbstractAsyncContextManager[Opened]]
    closes: bool = True  # a closed connection stays closed


def path_of(url: str) -> str:
    return url.removeprefix("sqlite:///")


async def answer(found: Any) -> Any:
    """Return what a call gives, awaited where it is to be."""
    return await found if hasattr(found, "__await__") else found


@asynccontextmanager
async def _plain(connection: Any, begin: bool = False, execute: str = "execute") -> AsyncIterator[Opened]:
    """Yield a connection that has all it needs as its own methods."""
    own = getattr(connection, execute)
    if begin:
        await answer(own("BEGIN"))

    def end(how: str) -> Callable[[], Any]:
        return getattr(connection, how) if hasattr(connection, how) else lambda: own(how.upper())

    try:
        yield Opened(connection, end("commit"), end("rollback"), own, connection.close)
    finally:
        await answer(connection.close())


def _sqlite3(url: str, autocommit: bool) -> Any:
    return _plain(sqlite3.connect(path_of(url), isolation_level=None if autocommit else ""))


def _apsw(url: str, autocommit: bool) -> Any:
    return _plain(apsw.Connection(path_of(url)), begin=not autocommit)


@asynccontextmanager
async def _aiosqlite(url: str, autocommit: bool) -> AsyncIterator[Opened]:
    connection = await aiosqlite.connect(path_of(url), isolation_level=None if autocommit else "")
    async with _plain(connection) as opened:
        yield opened


def _psycopg(url: str, autocommit: bool) -> Any:
    return _plain(psycopg.connect(url, autocommit=autocommit))


@asynccontextmanager
async def _psycopg_async(url: str, autocommit: bool) -> AsyncIterator[Opened]:
    async with _plain(await psycopg.AsyncConnection.connect(url, autocommit=autocommit)) as opened:
        yield opened


def _asyncpg_url(url: str) -> dict[str, Any]:
    rest, _, host = url.removeprefix("postgresql://").partition("?host=")
    user, _, database = rest.partition("@/")
    return {"host": host, "user": user, "database": database}


@asynccontextmanager
async def _asyncpg(url: str, autocommit: bool) -> AsyncIterator[Opened]:
    async with _plain(await asyncpg.connect(**_asyncpg_url(url)), begin=not autocommit) as opened:
        yield opened


@asynccontextmanager
async def _asyncpg_pool(url: str, autocommit: bool) -> AsyncIterator[Opened]:
    async with asyncpg.create_pool(**_asyncpg_url(url), min_size=1, max_size=1) as pool, pool.acquire() as connection:
        if not autocommit:
            await connection.execute("BEGIN")

        def end(how: str) -> Callable[[], Awaitable[Any]]:
            return lambda: connection.execute(how)

        yield Opened(connection, end("COMMIT"), end("ROLLBACK"), connection.execute, connection.close)


def _alchemy_url(url: str, driver: str) -> Any:
    if url.startswith("sqlite"):
        return sqlalchemy.URL.create(f"sqlite+{driver}", database=path_of(url))
    given = _asyncpg_url(url)
    query = {"host": given["host"]}
    return sqlalchemy.URL.create(f"postgresql+{driver}", given["user"], database=given["database"], query=query)


def _alchemy(driver: str, session: bool = False) -> Callable[[str, bool], Any]:
    @asynccontextmanager
    async def opening(url: str, autocommit: bool) -> AsyncIterator[Opened]:
        options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        engine = sqlalchemy.create_engine(_alchemy_url(url, driver), poolclass=sqlalchemy.NullPool, **options)
        found: Any = sqlalchemy.orm.Session(engine) if session else engine.connect()
        try:
            own = lambda text: found.execute(sqlalchemy.text(text))  # noqa: E731
            yield Opened(found, found.commit, found.rollback, own, found.close)
        finally:
            found.close()

    return opening


def _alchemy_async(driver: str, session: bool = False) -> Callable[[str, bool], Any]:
    @asynccontextmanager
    async def opening(url: str, autocommit: bool) -> AsyncIterator[Opened]:
        options = {"isolation_level": "AUTOCOMMIT"} if autocommit else {}
        make = sqlalchemy.ext.asyncio.create_async_engine
        engine = make(_alchemy_url(url, driver), poolclass=sqlalchemy.NullPool, **options)
        found: Any = sqlalchemy.ext.asyncio.AsyncSession(engine) if session else await engine.connect()
        try:
            own = lambda text: found.execute(sqlalchemy.text(text))  # noqa: E731
            yield Opened(found, found.commit, found.rollback, own, found.close)
        finally:
            await found.close()
            await engine.dispose()

    return opening


def django_database(url: str, alias: str) -> None:
    """Make a database one of Django's by this name, in this process."""
    if not settings.configured:
        settings.configure(DATABASES={"default": {"ENGINE": "django.db.backends.sqlite3", "NAME": ":memory:"}})
        django.setup()
    from django.db import connections

    if url.startswith("sqlite"):
        entry = {"ENGINE": "django.db.backends.sqlite3", "NAME": path_of(url)}
    else:
        given = _asyncpg_url(url)
        entry = {"ENGINE": "django.db.backends.postgresql", "NAME": given["database"], "USER": given["user"]}
        entry["HOST"] = given["host"]
    if alias in connections.settings:
        connections[alias].close()
        del connections[alias]
    connections.settings[alias] = connections.configure_settings({"default": {}, alias: entry})[alias]


def _django(alias: str) -> Callable[[str, bool], Any]:
    @asynccontextmanager
    async def opening(url: str, autocommit: bool) -> AsyncIterator[Opened]:
        import os

        os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # as in a test's coroutine nothing else runs
        django_database(url, alias)
        from django.db import connections

        connection: Any = connections[alias]
        if not autocommit:
            connection.set_autocommit(False)
        try:
            yield Opened(alias, connection.commit, connection.rollback, _django_own(connection), connection.close)
        finally:
            if not autocommit:
                connection.rollback()
            connection.close()
            del os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"]

    return opening


def _django_own(connection: Any) -> Callable[[str], Any]:
    def own(text: str) -> None:
        with connection.cursor() as cursor:
            cursor.execute(text)

    return own


DRIVERS = {
    "sqlite3": Driver("sqlite", _sqlite3),
    "apsw": Driver("sqlite", _apsw),
    "aiosqlite": Driver("sqlite", _aiosqlite),
    "psycopg": Driver("postgresql", _psycopg),
    "psycopg-async": Driver("postgresql", _psycopg_async),
    "asyncpg": Driver("postgresql", _asyncpg),
    "asyncpg-pool": Driver("postgresql", _asyncpg_pool),
    "sqlalchemy-sqlite": Driver("sqlite", _alchemy("pysqlite")),
    "sqlalchemy-psycopg": Driver("postgresql", _alchemy("psycopg")),
    "sqlalchemy-aiosqlite": Driver("sqlite", _alchemy_async("aiosqlite")),
    "sqlalchemy-asyncpg": Driver("postgresql", _alchemy_async("asyncpg")),
    "sqlalchemy-psycopg-async": Driver("postgresql", _alchemy_async("psycopg_async")),
    "session-sqlite": Driver("sqlite", _alchemy("pysqlite", session=True), closes=False),
    "session-psycopg": Driver("postgresql", _alchemy("psycopg", session=True), closes=False),
    "session-asyncpg": Driver("postgresql", _alchemy_async("asyncpg", session=True), closes=False),
    "django-sqlite": Driver("sqlite", _django("small"), closes=False),
    "django-postgresql": Driver("postgresql", _django("large"), closes=False),
}
