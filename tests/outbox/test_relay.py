"""The relay: what was committed is accepted once, in the order of commit per key, whatever goes away meanwhile."""

from __future__ import annotations

import asyncio
import logging
import re
import sqlite3
from collections import defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, closing
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from breaking import Once
from sampling import some
from server.serving import Serving
from solarwind import BadArgument, Cause, Event, Limits, NotFound, Retry, SolarWind
from solarwind.outbox import database as tables
from solarwind.outbox import relay as relays
from solarwind.outbox.postgres import CLAIM, PostgresLane
from solarwind.outbox.relay import Relay
from solarwind.testing.contract import on_loop, until

from .conftest import new_file
from .drivers import path_of
from .postgres import Postgres

outside = SolarWind("memory://")  # only writes into outboxes


def connect(url: str) -> Any:
    """Return a connection that does not commit by itself."""
    return sqlite3.connect(path_of(url)) if url.startswith("sqlite") else psycopg.connect(url)


def commit(url: str, topic: str, payloads: list[Any], **columns: Any) -> list[str]:
    """Write events in a transaction of their own, and return their ids."""
    with closing(connect(url)) as connection:
        ids: list[str] = outside.outbox(connection).fire_many(topic, payloads, **columns)
        connection.commit()
    return ids


@asynccontextmanager
async def relaying(url: str, topic: str = "t", **options: Any) -> AsyncIterator[list[Event]]:
    """Yield what a purpose gets of what a relay fires."""
    wind = SolarWind("memory://", **options)
    got: list[Event] = []

    @wind.on(topic, purpose="Look")
    async def look(event: Event) -> None:
        got.append(event)

    wind.relay(url)
    async with wind:
        yield got


def pending(url: str) -> int:
    return tables.status(url).pending


@on_loop
async def test_what_is_committed_is_fired_as_it_was_written(database: str) -> None:
    """With its id, key, cause, extensions, time and payload, JSON and bytes; and it is gone from the outbox."""
    begun = datetime.now(UTC)
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            outbox = outside.outbox(connection)
            first = outbox.fire(
                "t", {"n": 1}, key="k\0ey", cause=Cause.user("alice"), extensions={"traceparent": "00-1"}
            )
            ids = [first, outbox.fire("t", b"\x00\xff", id="mine"), outbox.fire("t")]
            written = datetime.now(UTC)
            await asyncio.sleep(0)
            assert not got
            connection.commit()
        await until(lambda: len(got) == 3, "all three")
        await until(lambda: pending(database) == 0, "an empty outbox")
        assert {event.id for event in got} == set(ids)
        one, other, last = sorted(got, key=lambda event: ids.index(event.id))
        assert (one.payload, one.key, one.cause) == ({"n": 1}, "k\0ey", Cause.user("alice"))
        assert one.extensions == {"traceparent": "00-1"}
        assert begun <= one.time <= written
        assert (other.payload, other.key, other.id) == (b"\x00\xff", None, "mine")
        assert last.payload is None
        assert last.cause.kind == "application"


@on_loop
async def test_an_event_may_be_written_for_later_and_may_expire(database: str) -> None:
    """A delay counts from the writing, not from the relay."""
    written = datetime.now(UTC)
    with closing(connect(database)) as connection:
        outbox = outside.outbox(connection)
        outbox.fire("t", "later", after=0.3)
        outbox.fire("t", "expired", expires=0.000001)
        outbox.fire("t", "now", expires="1h")
        outbox.fire_many("t", ["at", "at"], at=written + timedelta(seconds=0.2), expires="1h")
        connection.commit()
    async with relaying(database) as got:
        await until(lambda: len(got) == 4, "all but the expired one")
        came = datetime.now(UTC)
        await until(lambda: pending(database) == 0, "an empty outbox")
    assert sorted(event.payload for event in got) == ["at", "at", "later", "now"]
    (later,) = (event for event in got if event.payload == "later")
    assert later.due is not None
    assert written + timedelta(seconds=0.3) <= later.due <= came
    assert {event.expires is None for event in got if event.payload != "later"} == {False}


@on_loop
async def test_what_was_rolled_back_is_never_fired(database: str) -> None:
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            outside.outbox(connection).fire("t", "undone")
            connection.rollback()
        commit(database, "t", ["done"])
        await until(lambda: got, "the other")
        assert [event.payload for event in got] == ["done"]


@on_loop
async def test_the_same_id_is_accepted_once(database: str) -> None:
    """As after a relay that died between acceptance and deletion."""
    commit(database, "t", [1, 2], ids=["a", "b"])
    commit(database, "t", [3, 4], ids=["a", "c"])
    async with relaying(database) as got:
        await until(lambda: pending(database) == 0, "an empty outbox")
        await until(lambda: len(got) == 3, "three")
    assert sorted(event.payload for event in got) == [1, 2, 4]


@on_loop
async def test_a_handler_that_fires_in_its_transaction_is_the_cause_and_each_follow_up_comes_once(
    database: str,
) -> None:
    """The first attempt writes and rolls back; the second has its effect and fails after it; the third does nothing."""
    wind = SolarWind("memory://")
    attempts: list[int] = []
    follow_ups: list[Event] = []

    @wind.on("t", purpose="Bill", retry=Retry(wait=0.01))
    async def bill(event: Event) -> None:
        attempts.append(event.attempt)
        with closing(connect(database)) as connection:
            if event.once(connection):
                wind.outbox(connection).fire("billed", event.id)
                if event.attempt == 1:
                    raise RuntimeError("before the commit")
            connection.commit()
        if event.attempt == 2:
            raise RuntimeError("after the commit")

    @wind.on("billed", purpose="Mail")
    async def mail(event: Event) -> None:
        follow_ups.append(event)

    wind.relay(database)
    async with wind:
        fired = await wind.fire("t")
        await until(lambda: len(attempts) == 3 and follow_ups, "the mail")
        await until(lambda: pending(database) == 0, "an empty outbox")
        await wind.settled(10)
    assert [event.payload for event in follow_ups] == [fired]
    cause = follow_ups[0].cause
    assert (cause.kind, cause.id, cause.purpose, cause.root) == ("event", fired, "Bill", fired)


@on_loop
async def test_what_a_shadow_fires_into_the_outbox_is_not_there(database: str) -> None:
    wind = SolarWind("memory://")
    asked: list[tuple[int, bool]] = []

    def register(version: int, rollout: str) -> None:
        @wind.on("t", purpose="Bill", version=version, rollout=rollout)
        async def bill(event: Event) -> None:
            with closing(connect(database)) as connection:
                wind.outbox(connection).fire("billed", version)
                wind.outbox(connection).fire_many("billed", [version, version])
                asked.append((version, event.once(connection)))
                connection.commit()

    register(1, "newest")
    register(2, "shadow")
    async with wind:
        await wind.fire("t")
        await until(lambda: len(asked) == 2, "both")
    assert sorted(asked) == [(1, True), (2, False)]
    async with relaying(database, "billed") as got:
        await until(lambda: pending(database) == 0, "an empty outbox")
        await until(lambda: len(got) == 3, "those of the current version")
    assert {event.payload for event in got} == {1}


@on_loop
async def test_events_of_a_key_come_in_the_order_of_commit(postgresql: str) -> None:
    """Not in that of writing: the one that waited for the other's lock had written first. No relay sees them meanwhile,
    so nothing but the table can know."""
    with psycopg.connect(postgresql, autocommit=True) as connection:
        connection.execute("CREATE TABLE account AS SELECT 1 AS id, 0 AS sum")
    early, late = psycopg.connect(postgresql), psycopg.connect(postgresql)
    with early, late:
        outside.outbox(early).fire("t", "second", key="k")
        late.execute("UPDATE account SET sum = 1")
        outside.outbox(late).fire("t", "first", key="k")
        late.commit()
        early.execute("UPDATE account SET sum = 2")
        outside.outbox(early).fire("t", "third", key="k")
        early.commit()
    async with relaying(postgresql) as got:
        await until(lambda: len(got) == 3, "all three")
    assert [event.payload for event in got] == ["first", "second", "third"]


@on_loop
async def test_events_without_a_key_of_a_topic_keep_their_order(database: str) -> None:
    commit(database, "t", list(range(500)))
    async with relaying(database) as got:
        commit(database, "t", list(range(500, 600)))
        await until(lambda: len(got) == 600, "all of them")
    assert [event.payload for event in got] == list(range(600))


@on_loop
async def test_several_relays_share_the_work_and_keep_the_order_of_each_key(database: str) -> None:
    """One of them is killed again and again, with what it had claimed."""
    events, keys = 3_000, 40
    wind = SolarWind("memory://")
    got: dict[str, list[int]] = defaultdict(list)

    @wind.on("t", purpose="Look", exchange="keyed")
    async def look(batch: list[Event]) -> None:
        for event in batch:
            got[event.key or ""].append(event.payload)

    async with wind:
        relays = [Relay(database) for _ in range(3)]
        for relay in relays:
            await relay.start(wind.engine, wind.limits)
        try:
            for at in range(0, events, 100):
                numbers = list(range(at, at + 100))
                await asyncio.to_thread(commit, database, "t", numbers, keys=[str(number % keys) for number in numbers])
                if at % 300 == 0:
                    await relays[0].stop()
                    await relays[0].start(wind.engine, wind.limits)
            await until(lambda: sum(map(len, got.values())) >= events, "all of them")
            await until(lambda: pending(database) == 0, "an empty outbox")
        finally:
            for relay in relays:
                await relay.stop()
    assert dict(got) == {str(key): list(range(key, events, keys)) for key in range(keys)}


@on_loop
async def test_what_a_relay_has_claimed_another_has_once_it_is_dead(postgresql: str) -> None:
    """Not before, though it is committed: else the order of a key would not hold."""
    commit(postgresql, "t", [1, 2, 3], key="k")
    dying = PostgresLane(postgresql, 0)
    await dying.open()
    assert len(await dying.claim(100, 1 << 20)) == 3
    other = PostgresLane(postgresql, 1)
    await other.open()
    try:
        assert await other.claim(100, 1 << 20) == []
        await dying.close()
        claimed = await until_claimed(other)
        assert [row.payload for row in claimed] == [b"1", b"2", b"3"]
    finally:
        await other.close()


async def until_claimed(lane: PostgresLane) -> list[Any]:
    found: list[Any] = []

    async def claims() -> bool:
        found[:] = await lane.claim(100, 1 << 20)
        return bool(found)

    await until(claims, "a claim")
    return found


@on_loop
async def test_a_claim_reads_no_more_rows_than_it_takes_however_many_there_are(postgresql: str) -> None:
    """Also where PostgreSQL has no statistics yet: the plan is by the index alone."""
    commit(postgresql, "t", list(range(5_000)), keys=[str(number) for number in range(5_000)])
    lane = PostgresLane(postgresql, 0)
    await lane.open()
    try:
        claimed = await lane.claim(640, 1 << 20)
        assert [row.place for row in claimed] == sorted(row.place for row in claimed)
        assert 320 <= len(claimed) <= 640
        await lane.release()
        query = "EXPLAIN (ANALYZE) " + CLAIM
        cursor = await lane._connection.execute(query.encode(), (list(range(32)), 20, 640, 1 << 20))
        plan = "\n".join(line for (line,) in await cursor.fetchall())
    finally:
        await lane.close()
    assert "Index Scan using solarwind_outbox_next" in plan
    assert not re.search(r"Seq Scan|Bitmap|rows=(?!640|20)\d{3,}\.", plan), plan


@on_loop
async def test_a_claim_holds_so_many_bytes_and_large_events_pass(database: str) -> None:
    """A backlog of large events is never read into memory as a whole; one that is larger than a claim comes alone."""
    large = ["x" * 300_000 for _ in range(12)] + ["y" * 1_048_000, "z" * 1_048_000]
    commit(database, "t", large, key="k")
    sizes: list[int] = []
    lane = Relay(database)._make[0]()
    await lane.open()
    sizes.append(sum(len(row.payload) for row in await lane.claim(2_048, 1 << 20)))
    await lane.release()
    await lane.close()
    assert 0 < sizes[0] <= 1 << 20
    async with relaying(database) as got:
        await until(lambda: len(got) == len(large), "all of them")
    assert [event.payload for event in got] == large


@on_loop
async def test_what_the_dispatcher_refuses_is_put_aside_and_holds_up_nobody(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """It is shown, and fired again when somebody says so. What another program wrote wrongly is refused, too."""
    commit(database, "t", ["small", "x" * 1_000, "small too"], key="k")
    with closing(connect(database)) as connection:
        insert = "INSERT INTO solarwind_outbox (id, topic, payload, attributes) VALUES ({0}, {0}, {0}, {0})"
        text = insert.format("?" if database.startswith("sqlite") else "%s")
        connection.execute(text, ("no-topic", "a..b", b"1", "{}"))
        connection.execute(text, ("no-json", "t", b"1", "{"))
        connection.execute(text, ("no-key", "t", b"1", '{"keys": 7}'))
        connection.execute(text, ("good", "t", b"1", '{"keys": "k"}'))
        connection.commit()
    async with relaying(database, limits=Limits(payload_bytes=100)) as got:
        await until(lambda: len(got) == 3, "the others")
        await until(lambda: pending(database) == 0, "nothing pending")
    assert sorted(event.payload for event in got if event.id != "good") == ["small", "small too"]
    refused = {each.id: each.error for each in tables.status(database).refused}
    assert len(refused) == 4
    assert "words of A-Z" in refused["no-topic"]
    assert any("at most 100 bytes" in error for error in refused.values())
    assert "solarwind outbox status" in caplog.text
    assert tables.redrive(database) == 4
    async with relaying(database) as got:
        await until(lambda: pending(database) == 0, "nothing pending")
        await until(lambda: len(got) == 1, "the large one")
    assert len(tables.status(database).refused) == 3


@pytest.mark.parametrize("database", some(["sqlite"], ["sqlite", "postgresql"]), indirect=True)
@on_loop
async def test_the_dispatcher_knows_of_a_relay_in_trouble_until_that_stops(
    database: str, serving: Callable[..., Serving]
) -> None:
    server = serving()
    await server.start()
    relay, wind = SolarWind(server.url), SolarWind(server.url)
    relay.relay(database)
    with closing(connect(database)) as connection:
        connection.execute("INSERT INTO solarwind_outbox (id, topic, payload) VALUES ('bad', 'a..b', '1')")
        connection.commit()

    async def is_said() -> bool:
        return [each.kind for each in await wind.attention()] == ["outbox"]

    async with wind:
        async with relay:
            await until(is_said, "it to be said")
        assert not await wind.attention()


@on_loop
async def test_a_relay_that_is_behind_needs_a_person_until_it_is_not(
    database: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(relays, "TELL_S", 0.01)
    monkeypatch.setattr(relays, "ACCEPT_S", 0.01)
    wind = SolarWind("memory://")
    wind.relay(database)
    with closing(connect(database)) as connection:
        past = "strftime('%s', 'now') - 1210" if database.startswith("sqlite") else "now() - interval '1210 seconds'"
        payload = "X'31'" if database.startswith("sqlite") else "'1'"
        connection.execute(
            f"INSERT INTO solarwind_outbox (id, topic, payload, at) VALUES ('a', 't', {payload}, {past})"
        )
        connection.commit()

    async def texts() -> list[str]:
        return [each.text for each in await wind.attention()]

    async def is_said() -> bool:
        return any("is 20 minutes behind" in text for text in await texts())

    async def is_well() -> bool:
        return not await texts()

    with monkeypatch.context() as stuck:
        stuck.setattr(wind.engine, "submit", lambda batch: asyncio.get_running_loop().create_future())
        stuck.setattr(wind.engine, "withdraw", lambda submitted: True)
        await wind.start()
        await until(is_said, "it to be said")
    await until(is_well, "it to be well")
    assert pending(database) == 0
    await wind.stop()


@pytest.mark.long
@on_loop
async def test_a_database_out_of_reach_needs_a_person_until_it_is_back(postgres: Postgres) -> None:
    url = postgres.new()
    tables.init(url)
    wind = SolarWind("memory://")
    wind.relay(url)

    async def urgencies() -> list[str]:
        return [each.urgency for each in await wind.attention() if each.error]

    async def is_said() -> bool:
        return await urgencies() == ["high"]

    async def is_well() -> bool:
        return not await urgencies()

    async with wind:
        postgres.stop()
        try:
            await until(is_said, "it to be said")
        finally:
            postgres.start()
        await until(is_well, "it to be well")


@on_loop
async def test_an_event_that_another_program_writes_needs_an_id_a_topic_and_a_payload(database: str) -> None:
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            literal = "X'7b7d'" if database.startswith("sqlite") else r"'\x7b7d'"
            columns = f"'made-elsewhere', 't', {literal}"
            connection.execute(f"INSERT INTO solarwind_outbox (id, topic, payload) VALUES ({columns})")
            connection.commit()
        await until(lambda: got, "it")
    assert (got[0].id, got[0].payload, got[0].content_type) == ("made-elsewhere", {}, "application/json")
    assert abs((datetime.now(UTC) - got[0].time).total_seconds()) < 600


@on_loop
async def test_a_payload_that_another_program_writes_as_text_is_its_bytes_in_utf_8(database: str) -> None:
    """SQLite keeps text in a column of bytes; it holds up nobody."""
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            insert = "INSERT INTO solarwind_outbox (id, topic, payload) VALUES ('{0}', 't', '{1}')"
            for id, payload in (("text", '{"name": "cät"}'), ("number", "7")):
                connection.execute(insert.format(id, payload))
            connection.commit()
        await until(lambda: len(got) == 2, "both")
        assert {event.id: event.payload for event in got} == {"text": {"name": "cät"}, "number": 7}


@on_loop
async def test_no_row_that_another_program_writes_wrongly_holds_up_the_others_or_ends_the_dispatcher(
    database: str,
) -> None:
    attributes = [
        *('{"due": -5}', '{"due": 9223372036854775807}', '{"expires": -1}', '{"time": -1}', '{"time": 1e99}'),
        *("", "[]", '{"keys": "\\ud800"}', '{"causes": {"kind": "user"}}', '{"extensions": {"id": "x"}}', "[" * 10_000),
    ]
    rows: list[dict[str, Any]] = [{"attributes": each} for each in attributes]
    rows += [{"id": ""}, {"id": "x" * 201}, {"id": "a\nb"}, {"content": ""}, {"content": "a\nb"}, {"topic": "a b"}]
    if database.startswith("sqlite"):  # where any column holds any value
        rows += [{"id": b"\xff"}, {"topic": b"\xff"}, {"content": b"a/\xff"}, {"attributes": b"\xff"}]
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            for number, row in enumerate([*rows, {"id": "last"}]):
                _insert(connection, {"id": f"bad-{number}", "topic": "t", "payload": b"1"} | row)
            connection.commit()
        await until(lambda: got, "the last one")
        await until(lambda: pending(database) == 0, "nothing pending")
    assert [event.id for event in got] == ["last"]
    refused = tables.status(database).refused
    assert len(refused) == len(rows)
    assert all(each.error.startswith("expected ") for each in refused)


@on_loop
async def test_a_row_may_have_been_written_at_any_time_and_a_payload_of_sqlite_be_text(database: str) -> None:
    is_sqlite = database.startswith("sqlite")
    times = ["1900-01-01", "9999-12-31"] if is_sqlite else ["infinity", "-infinity", "4713-01-01 BC"]
    rows: list[dict[str, Any]] = [{"at": each} for each in times]
    if is_sqlite:
        rows += [{"at": -5}, {"at": 1 << 60}, {"at": 1.5}, {"at": b"x"}, {"payload": "1"}, {"payload": 1}]
    async with relaying(database) as got:
        with closing(connect(database)) as connection:
            for number, row in enumerate(rows):
                _insert(connection, {"id": f"{number}", "topic": "t", "payload": b"1"} | row)
            connection.commit()
        await until(lambda: len(got) == len(rows), "all of them")
    assert {event.payload for event in got} == {1}
    assert all(1970 <= event.time.year <= 2096 for event in got)
    assert not tables.status(database).refused


def _insert(connection: Any, row: dict[str, Any]) -> None:
    holders = ", ".join(["?" if isinstance(connection, sqlite3.Connection) else "%s"] * len(row))
    connection.execute(f"INSERT INTO solarwind_outbox ({', '.join(row)}) VALUES ({holders})", list(row.values()))


@pytest.mark.parametrize("bucket", [-1, 64])
def test_a_bucket_that_no_relay_looks_at_is_refused_by_the_table(database: str, bucket: int) -> None:
    with closing(connect(database)) as connection, pytest.raises((sqlite3.IntegrityError, psycopg.IntegrityError)):
        _insert(connection, {"id": "x", "topic": "t", "payload": b"1", "bucket": bucket})


@on_loop
async def test_a_relay_waits_for_a_database_that_went_away_and_says_so_once(
    postgres: Postgres, caplog: pytest.LogCaptureFixture
) -> None:
    """Also where it is away when the relay starts."""
    caplog.set_level(logging.INFO, "solarwind")
    url = postgres.new()
    tables.init(url)
    postgres.stop()
    try:
        async with relaying(url) as got:
            for at in range(2):
                postgres.start()
                commit(url, "t", [at])
                await until(lambda at=at: len(got) == at + 1, "the event")  # type: ignore[misc]
                await until(lambda at=at: caplog.text.count("the database is back") == at + 1, "it to say so")  # type: ignore[misc]
                if at == 0:
                    postgres.stop()
                    await until(lambda: caplog.text.count("; it goes on by itself") == 2, "it to say so")
    finally:
        if not postgres.running:
            postgres.start()
    said = [record.getMessage() for record in caplog.records if "goes on by itself" in record.getMessage()]
    assert len(said) == 2
    assert all("the relay of postgresql://...@/" in line and "\n" not in line for line in said)


@on_loop
async def test_what_the_dispatcher_has_no_room_for_waits_and_holds_up_no_other_topic(
    database: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with relaying(database, limits=Limits(names=1)) as got:
        for number in range(3):
            commit(database, "another", [number], key="k")
            commit(database, "t", [number], key="k")
            await until(lambda number=number: len(got) == number + 1, "that of the topic that is known")
        await until(lambda: pending(database) == 3, "it is not there any more")
    assert [event.payload for event in got] == [0, 1, 2]
    assert "waits: expected no more than 1 topics" in caplog.text
    assert not tables.status(database).refused
    async with relaying(database, topic="another") as got:
        await until(lambda: len(got) == 3, "what waited")
    assert [event.payload for event in got] == [0, 1, 2]


@on_loop
async def test_a_relay_goes_on_with_the_file_that_took_the_place_of_the_one_it_had_open(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """As where a backup was restored."""
    url, other = new_file(folder), new_file(folder)
    for each in (url, other):
        tables.init(each)
    async with relaying(url) as got:
        commit(url, "t", ["before"])
        await until(lambda: len(got) == 1, "what was in the first")
        commit(other, "t", ["after"])
        path = Path(path_of(url))
        path.rename(path.with_suffix(".aside"))
        for end in ("-wal", "-shm"):
            Path(f"{path}{end}").unlink(missing_ok=True)
        Path(path_of(other)).rename(path)
        await until(lambda: len(got) == 2, "what is in the second")
    assert [event.payload for event in got] == ["before", "after"]
    assert "another file has the name" in caplog.text


@pytest.mark.parametrize("database", some(["postgresql"], ["sqlite", "postgresql"]), indirect=True)
@on_loop
async def test_a_relay_waits_for_a_dispatcher_that_went_away_and_says_so_once(
    database: str, serving: Callable[..., Serving], caplog: pytest.LogCaptureFixture
) -> None:
    """Events are committed meanwhile, and each comes once."""
    caplog.set_level(logging.INFO, "solarwind")
    server = serving()
    await server.start()
    wind = SolarWind(server.url)
    got: list[int] = []

    @wind.on("t", purpose="Look", exchange="keyed", key="$.of")
    async def look(payload: dict[str, int]) -> None:
        got.append(payload["n"])

    wind.relay(database)
    async with wind:
        commit(database, "t", [{"n": 1, "of": 1}])
        await until(lambda: got, "the event")
        await wind.settled(30)
        await server.end()
        commit(database, "t", [{"n": 2, "of": 1}])
        await until(lambda: "goes on by itself" in caplog.text, "it to say so")
        await server.start()
        await until(lambda: len(got) == 2, "the event of meanwhile")
        await until(lambda: "the dispatcher is back" in caplog.text, "it to say so")
        await wind.settled(30)
    assert got == [1, 2]
    assert caplog.text.count("goes on by itself") == 1


@on_loop
async def test_a_relay_goes_on_after_an_unexpected_error(
    database: str, once: Once, caplog: pytest.LogCaptureFixture
) -> None:
    async with relaying(database) as got:
        once(Relay, "_fire")
        commit(database, "t", [1])
        await until(lambda: got, "it to be fired all the same")
    assert [event.payload for event in got] == [1]
    assert "failed in an unexpected way; it is tried again" in caplog.text


@on_loop
async def test_a_relay_of_a_database_without_the_table_does_not_start(folder: Path, postgres: Postgres) -> None:
    for url in (new_file(folder), postgres.new()):
        wind = SolarWind("memory://")
        wind.relay(url)
        with pytest.raises(NotFound, match=r"^expected the table solarwind_outbox .* `solarwind outbox init"):
            await wind.start()
        tables.init(url)
        async with wind:
            commit(url, "t", [1])
            await until(lambda url=url: pending(url) == 0, "an empty outbox")  # type: ignore[misc]


@on_loop
async def test_a_relay_may_be_asked_for_while_it_runs_and_ends_with_it(database: str) -> None:
    wind = SolarWind("memory://")
    async with wind:
        wind.relay(database)
        commit(database, "t", [1])
        await until(lambda: pending(database) == 0, "an empty outbox")
    commit(database, "t", [2])
    other = SolarWind("memory://")
    async with other:
        other.relay(database)  # and ends before it has begun
    async with wind:
        await until(lambda: pending(database) == 0, "an empty outbox")
    assert not [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]


@pytest.mark.parametrize(
    "url", ["", "mysql://h/d", "postgresql:/x", "sqlite://wind.db", "sqlite:///", "sqlite:///:memory:", None, 7]
)
def test_a_url_that_is_no_databases_is_refused(url: Any) -> None:
    for call in (SolarWind("memory://").relay, tables.init, tables.schema, tables.status):
        with pytest.raises(BadArgument, match=r"^expected (the URL of a database|sqlite:///)") as found:
            call(url)
        assert str(found.value).count(". ") == 0


def test_a_second_relay_of_one_database_is_refused() -> None:
    wind = SolarWind("memory://")
    wind.relay("sqlite:///shop.db")
    with pytest.raises(BadArgument, match=r"^expected one relay of a database, got it twice"):
        wind.relay("sqlite:///shop.db")


def test_a_secret_in_a_url_is_not_said() -> None:
    with pytest.raises(BadArgument) as found:
        SolarWind("memory://").relay("mysql://alice:hush@host/shop?password=hush")
    assert "hush" not in str(found.value)
