"""Connections that a caller may pass, recognised by their classes' names: none of their libraries is imported.

`connection_of` gives the one interface to all of them. A `Connection` runs one statement in the caller's transaction;
where the connection is asynchronous, the answer is to be awaited.
"""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

from ..errors import BadArgument, NotAllowed, NotFound, SolarWindError, Unavailable
from ..loops import forget
from ..names import shown
from ..text import redact
from .sql import Dialect, Statement, styled

T = TypeVar("T")
Row = tuple[Any, ...]

EXPECTED = (
    "a connection of sqlite3, apsw, psycopg 3, asyncpg, aiosqlite or SQLAlchemy 2, or the name of a Django database"
)


class Pending(Generic[T]):
    """The answer of an asynchronous connection, to be awaited."""

    def __init__(self, work: Awaitable[T]) -> None:
        self._work = work

    def __await__(self) -> Generator[Any, None, T]:
        return self._work.__await__()

    def __bool__(self) -> bool:
        forget(self._work)
        raise BadArgument(
            "expected the answer of an asynchronous connection to be awaited, got it as a condition: write "
            "`if await event.once(connection)`"
        )


class Connection:
    """A caller's connection. Its subclasses know one family of drivers each."""

    dialect: Dialect
    style = "?"  # of its placeholders
    is_async = False

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def run(self, statement: Statement, then: Callable[[list[Row]], T], *, transaction: str = "") -> Any:
        """Run a statement and return what `then` makes of its rows, or an awaitable of it.

        `transaction` is what needs one, in words. Raise `NotAllowed` where none is open, `NotFound` where the table is
        missing, `Unavailable` for a closed connection, and else what the driver raises."""
        self._check_open()
        if transaction:
            self._check_transaction(transaction)
        try:
            rows = self._execute(*self._own(statement))
        except Exception as error:
            raise self._explained(error) from error
        return then(rows)

    def _own(self, statement: Statement) -> tuple[str, tuple[Any, ...]]:
        return styled(statement.text[self.dialect], self.style), statement.parameters

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        raise NotImplementedError

    @property
    def _closed(self) -> bool:
        raise NotImplementedError

    @property
    def _in_transaction(self) -> bool:
        """Whether what is written now is undone if the caller rolls back."""
        raise NotImplementedError

    def _check_open(self) -> None:
        try:
            closed = self._closed
        except SolarWindError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        if closed:
            raise _closed()

    def _check_transaction(self, what: str) -> None:
        if not self._in_transaction:
            raise NotAllowed(
                f"expected {what} within the transaction of the effect, got a connection without one, whose statements "
                "are committed one by one: begin a transaction, and do both in it"
            )

    def _explained(self, error: Exception) -> Exception:
        """Return the error to raise instead of a driver's: in most cases the same."""
        found = missing_table(error)
        return error if found is None else found


class AsyncConnection(Connection):
    """A connection whose statements are awaited."""

    is_async = True

    def run(self, statement: Statement, then: Callable[[list[Row]], T], *, transaction: str = "") -> Any:
        """See `Connection`; return an awaitable."""
        return Pending(self._run(statement, then, transaction))

    async def _run(self, statement: Statement, then: Callable[[list[Row]], T], transaction: str) -> T:
        await self._open()
        self._check_open()
        if transaction:
            self._check_transaction(transaction)
        try:
            rows = await self._execute_soon(*self._own(statement))
        except Exception as error:
            raise self._explained(error) from error
        return then(rows)

    async def _open(self) -> None:
        """Find out what can be known only by awaiting."""

    async def _execute_soon(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        raise NotImplementedError


def missing_table(error: BaseException) -> NotFound | None:
    """Return the refusal for a database without the tables, if that is what a driver's error says."""
    seen: set[int] = set()
    todo: list[Any] = [error]
    while todo:
        each = todo.pop()
        if not isinstance(each, BaseException) or id(each) in seen:
            continue
        seen.add(id(each))
        text = str(each)
        if "solarwind_" in text and (getattr(each, "sqlstate", None) == "42P01" or "no such table" in text):
            table = "solarwind_outbox" if "solarwind_outbox" in text else "solarwind_once"
            return NotFound(f"expected the table {table} in this database, found none: make it with {_tables_by()}")
        todo += [each.__cause__, each.__context__, getattr(each, "orig", None)]
    return None


def _tables_by() -> str:
    """Return what makes the tables, as the end of a sentence."""
    init = "`solarwind outbox init --database URL`, or print its SQL with --sql"
    django = sys.modules.get("django.apps")
    if django is not None and django.apps.is_installed("solarwind.contrib.django"):
        return f"`manage.py migrate solarwind`, or where it is none of Django's, with {init}"
    return init


def _closed() -> Unavailable:
    return Unavailable("expected an open connection to the database, got one that is closed: pass the one in use")


# --- SQLite -------------------------------------------------------------------------------------------------


def _begins_itself(connection: Any) -> bool:
    """Return whether a connection of sqlite3 begins a transaction before it writes."""
    mode = getattr(connection, "autocommit", -1)  # from Python 3.12 on; -1: as `isolation_level` says
    return mode is False or (mode == -1 and connection.isolation_level is not None)


class _Sqlite3(Connection):
    dialect = "sqlite"

    @property
    def _closed(self) -> bool:
        self._connection.total_changes  # noqa: B018 - raises if it is closed
        return False

    @property
    def _in_transaction(self) -> bool:
        return self._connection.in_transaction or _begins_itself(self._connection)

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        cursor = self._connection.cursor()
        cursor.row_factory = None
        return list(cursor.execute(sql, parameters).fetchall())

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        if "closed database" in text:
            return _closed()
        if "same thread" in text:
            return NotAllowed(
                "expected a connection of sqlite3 in the thread that made it, got it in another: open one in the "
                "handler, or with check_same_thread=False"
            )
        return super()._explained(error)


class _Apsw(Connection):
    dialect = "sqlite"

    @property
    def _closed(self) -> bool:
        self._connection.total_changes()  # raises if it is closed
        return False

    @property
    def _in_transaction(self) -> bool:
        return bool(self._connection.in_transaction)

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        return list(self._connection.cursor().execute(sql, parameters).fetchall())

    def _explained(self, error: Exception) -> Exception:
        return _closed() if type(error).__name__ == "ConnectionClosedError" else super()._explained(error)


class _Aiosqlite(AsyncConnection):
    dialect = "sqlite"

    @property
    def _closed(self) -> bool:
        self._connection.row_factory  # noqa: B018 - raises if it is closed
        return False

    @property
    def _in_transaction(self) -> bool:
        return bool(self._connection.in_transaction) or self._connection.isolation_level is not None

    async def _execute_soon(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        async with self._connection.cursor() as cursor:
            cursor.row_factory = None
            await cursor.execute(sql, parameters)
            return list(await cursor.fetchall())

    def _explained(self, error: Exception) -> Exception:
        text = str(error)
        return _closed() if "no active" in text or "closed" in text else super()._explained(error)


# --- PostgreSQL ---------------------------------------------------------------------------------------------


def _psycopg_open(connection: Any) -> bool:
    """Return whether a statement is in a transaction that the caller ends."""
    idle = int(connection.info.transaction_status) == 0
    return not idle or not connection.autocommit


class _Psycopg(Connection):
    dialect = "postgresql"
    style = "%s"

    @property
    def _closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def _in_transaction(self) -> bool:
        return _psycopg_open(self._connection)

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        with self._connection.cursor(row_factory=sys.modules["psycopg.rows"].tuple_row) as cursor:
            cursor.execute(sql, parameters)
            return cursor.fetchall() if cursor.description else []


class _AsyncPsycopg(AsyncConnection):
    dialect = "postgresql"
    style = "%s"
    _closed = _Psycopg._closed
    _in_transaction = _Psycopg._in_transaction

    async def _execute_soon(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        async with self._connection.cursor(row_factory=sys.modules["psycopg.rows"].tuple_row) as cursor:
            await cursor.execute(sql, parameters)
            return await cursor.fetchall() if cursor.description else []


class _Asyncpg(AsyncConnection):
    dialect = "postgresql"
    style = "$1"

    @property
    def _closed(self) -> bool:
        return bool(self._connection.is_closed())

    @property
    def _in_transaction(self) -> bool:
        return bool(self._connection.is_in_transaction())

    async def _execute_soon(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        return [tuple(row) for row in await self._connection.fetch(sql, *parameters)]

    def _explained(self, error: Exception) -> Exception:
        return _closed() if "released back to the pool" in str(error) else super()._explained(error)


# --- SQLAlchemy ---------------------------------------------------------------------------------------------

_STYLES = {"qmark": "?", "format": "%s", "pyformat": "%s", "numeric_dollar": "$1"}


class _SqlAlchemy(Connection):
    """A connection, or a session, which has another one in each transaction. A statement begins its transaction."""

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        self._given = connection

    def _adopt(self, connection: Any) -> None:
        """Use a connection of SQLAlchemy. Raise `BadArgument` where it is to another kind of database."""
        dialect, style = connection.dialect.name, _STYLES.get(connection.dialect.paramstyle)
        if dialect not in ("postgresql", "sqlite") or style is None:
            raise _other_database(f"{dialect}+{connection.dialect.driver}")
        self._connection, self.dialect, self.style = connection, dialect, style

    def _check_open(self) -> None:
        given = self._given
        try:
            self._adopt(given.connection() if hasattr(given, "get_bind") else given)
        except SolarWindError:
            raise
        except Exception as error:
            raise self._explained(error) from error
        super()._check_open()

    @property
    def _closed(self) -> bool:
        return bool(self._connection.closed)

    @property
    def _in_transaction(self) -> bool:
        driver = self._connection.connection.dbapi_connection
        detect = getattr(self._connection.dialect, "detect_autocommit_setting", None)  # since 2.0.4x
        if detect is not None:
            return not detect(driver)
        return not getattr(driver, "autocommit", getattr(driver, "isolation_level", "") is None)

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        return _fetched(self._connection.exec_driver_sql(sql, parameters))

    def _explained(self, error: Exception) -> Exception:
        if type(error).__name__ == "ResourceClosedError":
            return _closed()
        if type(error).__name__ == "UnboundExecutionError":
            return BadArgument("expected a session that is bound to one database, got one that is not: bind it")
        return super()._explained(error)


class _AsyncSqlAlchemy(AsyncConnection, _SqlAlchemy):
    async def _open(self) -> None:
        connection = self._given
        try:
            if hasattr(connection, "get_bind"):
                connection = await connection.connection()
            self._soon = connection
            self._adopt(connection.sync_connection)
        except SolarWindError:
            raise
        except Exception as error:
            raise self._explained(error) from error

    def _check_open(self) -> None:
        Connection._check_open(self)

    async def _execute_soon(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        return _fetched(await self._soon.exec_driver_sql(sql, parameters))


def _fetched(result: Any) -> list[Row]:
    return [tuple(row) for row in result.fetchall()] if result.returns_rows else []


# --- Django -------------------------------------------------------------------------------------------------


class _Django(Connection):
    style = "%s"

    def __init__(self, connection: Any) -> None:
        super().__init__(connection)
        if connection.vendor not in ("postgresql", "sqlite"):
            raise _other_database(f"Django's {connection.vendor}")
        self.dialect = connection.vendor

    @property
    def _closed(self) -> bool:
        return False  # it opens by itself

    @property
    def _in_transaction(self) -> bool:
        return bool(self._connection.in_atomic_block) or not self._connection.get_autocommit()

    def _execute(self, sql: str, parameters: tuple[Any, ...]) -> list[Row]:
        with self._connection.cursor() as cursor:
            cursor.execute(sql, parameters)
            return [tuple(row) for row in cursor.fetchall()] if cursor.description else []


def _django(alias: str) -> Connection:
    """Return the connection of a Django database by its name. Raise `BadArgument`."""
    django = sys.modules.get("django.db")
    if django is None:
        raise BadArgument(f"expected {EXPECTED}, got {_said(alias)}, and Django is not in use here: pass a connection")
    known = list(django.connections)
    if alias not in known:
        raise BadArgument(
            f"expected the name of a Django database, one of {', '.join(map(repr, known))}, got {_said(alias)}"
        )
    return _Django(django.connections[alias])


def _said(alias: str) -> str:
    """Return a name to show, which may be a URL with a password instead."""
    return shown(redact(alias))


# --- recognising --------------------------------------------------------------------------------------------

# By the package and the name of a class that the connection's is, or is derived from.
_FAMILIES: dict[tuple[str, str], type[Connection]] = {
    ("sqlite3", "Connection"): _Sqlite3,
    ("apsw", "Connection"): _Apsw,
    ("aiosqlite", "Connection"): _Aiosqlite,
    ("psycopg", "Connection"): _Psycopg,
    ("psycopg", "AsyncConnection"): _AsyncPsycopg,
    ("asyncpg", "Connection"): _Asyncpg,
    ("asyncpg", "PoolConnectionProxy"): _Asyncpg,
    ("sqlalchemy", "Connection"): _SqlAlchemy,
    ("sqlalchemy", "Session"): _SqlAlchemy,
    ("sqlalchemy", "scoped_session"): _SqlAlchemy,
    ("sqlalchemy", "AsyncConnection"): _AsyncSqlAlchemy,
    ("sqlalchemy", "AsyncSession"): _AsyncSqlAlchemy,
    ("sqlalchemy", "async_scoped_session"): _AsyncSqlAlchemy,
    ("django", "BaseDatabaseWrapper"): _Django,
    ("django", "ConnectionProxy"): _Django,
}


def connection_of(connection: Any) -> Connection:
    """Return the interface to a caller's connection. Raise `BadArgument` for anything else."""
    if isinstance(connection, str):
        return _django(connection)
    for each in type(connection).__mro__:
        family = _FAMILIES.get((each.__module__.partition(".")[0], each.__name__))
        if family is not None:
            return family(connection)
    raise BadArgument(f"expected {EXPECTED}, got {shown(connection)}: pass the connection that has the transaction")


def _other_database(got: str) -> BadArgument:
    return BadArgument(f"expected a connection to PostgreSQL or SQLite, got one to {got}")
