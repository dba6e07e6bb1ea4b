"""The part of a `SolarWind` for effects once: `once`, `outbox` and `relay`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Unpack

import msgspec

from ..calls import explains_calls
from ..errors import BadArgument
from ..event import Cause, Event
from ..limits import Limits
from ..names import shown
from ..service.fire_options import EventOptions
from ..service.firing import Firing
from . import sql
from .connections import Connection, Pending, connection_of
from .rows import row_of

if TYPE_CHECKING:
    from ..engine.base import Engine
    from ..service.receipts import Fired
    from .relay import Relay

_ROWS = 1_000  # that are written by one statement


def once(event: Event, connection: Any) -> Any:
    """See `Event.once`."""
    given = connection_of(connection)
    _check_handed_out(event)
    if event.shadow:
        return _answer(given, False)
    statement = sql.once(event.topic, event.purpose, event.id)
    return given.run(statement, bool, transaction="once")


def once_all(connection: Any, events: Iterable[Event]) -> Any:
    """See `Effects.once`."""
    given = connection_of(connection)
    if isinstance(events, Event) or not isinstance(events, Iterable):
        raise BadArgument(f"expected a list of events, got {shown(events)}: for one event use event.once(connection)")
    listed = list(events)
    for event in listed:
        _check_handed_out(event)
    # In one order for all, so that two transactions with the same events cannot wait for each other.
    asked = sorted({_triple(event) for event in listed if not event.shadow})
    if not asked:
        return _answer(given, [])

    def first(rows: list[tuple[Any, ...]]) -> list[Event]:
        new = set(map(tuple, rows))
        found = []
        for event in listed:
            if (triple := _triple(event)) in new:
                new.discard(triple)  # the same event may be listed twice
                found.append(event)
        return found

    return given.run(sql.once_all(msgspec.json.encode(asked).decode()), first, transaction="once")


def _triple(event: Event) -> tuple[str, str, str]:
    return event.topic, event.purpose, event.id


def _check_handed_out(event: object) -> None:
    if not isinstance(event, Event):
        raise BadArgument(f"expected an event, got {shown(event)}: annotate the handler's parameter with Event")
    if not event.purpose:
        raise BadArgument(
            f"expected an event that was handed out for a purpose, got {event.id} outside of that: ask in its handler"
        )


def _answer(given: Connection, answer: Any) -> Any:
    """Return an answer for which the database is not asked, as the connection would."""

    async def soon() -> Any:
        return answer

    return Pending(soon()) if given.is_async else answer


@explains_calls
class Outbox:
    """Fires in a transaction of the caller's own database: the events exist if and only if it commits. A relay gives
    them to the dispatcher."""

    def __init__(self, firing: Firing, connection: Connection) -> None:
        self._firing = firing
        self._connection = connection

    def fire(self, topic: str, payload: Any = None, **options: Unpack[EventOptions]) -> Any:
        """Write an event into the outbox, and return its id; with an asynchronous connection, an awaitable of it.

        Options, checks and the cause are those of `SolarWind.fire`; it does not have to run. Raise what `fire` raises,
        `NotFound` where the table is missing, `Unavailable` for a closed connection, and what the driver raises."""
        fired, counts = self._firing.prepare(topic, payload, options)
        id = str(fired.attributes["ids"])
        return self._write([fired] if counts else [], id)

    def fire_many(
        self,
        topic: str,
        payloads: Iterable[Any],
        key: str | Callable[[Any], str | None] | None = None,
        *,
        keys: Iterable[str | None] | None = None,
        ids: Iterable[str | None] | None = None,
        at: datetime | None = None,
        after: float | timedelta | str | None = None,
        expires: datetime | float | timedelta | str | None = None,
        cause: Cause | Event | None = None,
        extensions: Mapping[str, str] | None = None,
    ) -> Any:
        """Write an event for each payload, and return their ids; with an asynchronous connection, an awaitable of them.

        The options are those of `SolarWind.fire_many`. If one event is refused, none is written."""
        common = EventOptions(at=at, after=after, expires=expires, cause=cause, extensions=extensions)
        prepared = self._firing.prepare_many(topic, payloads, key, keys, ids, common)
        ids = [str(fired.attributes["ids"]) for fired, _ in prepared]
        return self._write([fired for fired, counts in prepared if counts], ids)

    def _write(self, events: list[Fired], answer: Any) -> Any:
        rows = list(map(row_of, events))
        statements = [sql.put(rows[at : at + _ROWS]) for at in range(0, len(rows), _ROWS)]

        needs = f"more than {_ROWS:,} events" if len(statements) > 1 else ""
        if self._connection.is_async:
            return Pending(self._write_all(statements, needs, answer))
        for statement in statements:
            self._connection.run(statement, len, transaction=needs)
        return answer

    async def _write_all(self, statements: list[sql.Statement], needs: str, answer: Any) -> Any:
        for statement in statements:
            await self._connection.run(statement, len, transaction=needs)
        return answer


@explains_calls
class Effects(Firing):
    """The part of a `SolarWind` that has to do with the caller's own database."""

    def __init__(self, limits: Limits) -> None:
        super().__init__(limits)
        self._relays: dict[str, Relay] = {}

    def once(self, connection: Any, events: Iterable[Event]) -> Any:
        """Return those of a batch handler's events whose purpose has not seen them before, and note all of them, in the
        open transaction of `connection`: see `Event.once`. It takes one statement. With an asynchronous connection
        return an awaitable."""
        return once_all(connection, events)

    def outbox(self, connection: Any) -> Outbox:
        """Return the outbox in the transaction of a connection to the caller's own database.

        `connection` is one of sqlite3, apsw, psycopg 3, asyncpg, aiosqlite or SQLAlchemy 2 (also a session), or the
        name of a Django database. It may be used before this object has started. Raise `BadArgument`."""
        return Outbox(self, connection_of(connection))

    def relay(self, database: str) -> None:
        """Run a relay in this process while it runs: it fires what was committed to the outbox of a database.

        `database` is a URL such as postgresql://host/shop or sqlite:///shop.db. A database that goes away is waited
        for. Raise `BadArgument`; starting raises `NotFound` where the table is missing."""
        from .relay import Relay

        self._check_process()
        if database in self._relays:
            raise BadArgument("expected one relay of a database, got it twice: leave one out")
        relay = self._relays[database] = Relay(database)
        self._begin_relay(relay)

    def _check_process(self) -> None:
        raise NotImplementedError

    def _begin_relay(self, relay: Relay) -> None:
        raise NotImplementedError

    async def _start_relays(self, engine: Engine) -> None:
        for relay in self._relays.values():
            await relay.start(engine, self._limits, self._around.observer)

    async def _stop_relays(self) -> None:
        for relay in self._relays.values():
            await relay.stop()
