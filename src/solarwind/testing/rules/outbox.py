"""What a dispatcher knows of relays, which fire what was committed in a database of the user's own."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

from ...engine.relays import MAX_RELAYS
from ...operations import Internal
from ...outbox import database as tables
from ...records import Attention
from ...wind import SolarWind
from .place import Place, on_loop, until


async def _outbox(wind: SolarWind) -> list[Attention]:
    """Return what of outboxes needs a person."""
    return [each for each in await wind.attention() if each.kind == "outbox"]


async def _in_use(wind: SolarWind) -> None:
    """Have the dispatcher of a cluster, whichever process that is."""
    await wind.fire("T", 0)


class OutboxRules:
    """The rules of what relays tell."""

    @on_loop
    async def test_attention_names_an_outbox_whose_events_are_refused(self, place: Place, tmp_path: Path) -> None:
        url = f"sqlite:///{tmp_path}/shop.db"
        with closing(sqlite3.connect(tmp_path / "shop.db")) as connection:
            connection.execute("PRAGMA journal_mode = WAL")
            tables.init(url)
            insert = "INSERT INTO solarwind_outbox (id, topic, payload) VALUES (?, ?, X'31')"
            connection.executemany(insert, [("good", "T"), ("bad", "a..b"), ("worse", "a b")])
            connection.commit()
        wind = place.open()
        wind.relay(url)

        async def is_said() -> bool:
            return bool(await _outbox(wind))

        async with wind:
            await until(is_said)
            (found,) = await _outbox(wind)
            assert found.urgency == "medium"
            assert "2 events of the outbox in" in found.text
            assert found.command == f"solarwind outbox status --database {url}"
            assert found.since is not None

    @on_loop
    async def test_a_relay_in_trouble_is_forgotten_once_it_is_well_or_silent(self, place: Place) -> None:
        """Its database, how far it is behind, and what was refused, which several relays of one outbox count alike."""
        clock = place.clock()
        async with place.open() as wind:
            await _in_use(wind)
            await Internal.note_relay(wind, "db", "a/1", 3, 30.0, "it is away")
            await Internal.note_relay(wind, "db", "a/2", 3, 600.0)
            await Internal.note_relay(wind, "db", "a/3")
            high, behind, refused = await _outbox(wind)
            assert (high.urgency, high.error) == ("high", "it is away")
            assert "10 minutes behind" in behind.text + refused.text
            assert "3 events of the outbox in" in behind.text + refused.text
            await clock.advance(60)
            await Internal.note_relay(wind, "db", "a/2", 3, 660.0, "it is away too")
            first, second, _ = await _outbox(wind)
            assert first.since is not None
            assert second.since is not None
            assert 50 < (second.since - first.since).total_seconds() < 70
            await Internal.note_relay(wind, "db", "a/2", 3, 660.0)
            await Internal.note_relay(wind, "db", "a/1")
            assert {each.urgency for each in await _outbox(wind)} == {"medium"}
            await clock.advance(121)
            assert not await _outbox(wind)

    @on_loop
    async def test_of_very_many_relays_in_trouble_those_are_known_that_were_heard_of_last(self, place: Place) -> None:
        async with place.open() as wind:
            await _in_use(wind)
            for number in range(MAX_RELAYS + 2):
                await Internal.note_relay(wind, f"db{number}", "a/1", 1)
            found = await wind.attention(limit=10_000)
            assert len(found) == MAX_RELAYS
            assert not any("in db1 " in each.text for each in found)
