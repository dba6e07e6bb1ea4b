"""The audit: how much of it is kept, by several dispatchers at a time, and when it cannot be written."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from solarwind.engine import audit
from solarwind.engine.audit import Audit
from solarwind.errors import StoreError
from solarwind.operations import OPERATIONS
from solarwind.store.definitions import Definition, StoredDefinitions, in_memory


async def note(to: Audit, purpose: str) -> None:
    request = OPERATIONS["pause"].request({"topic": "T", "purpose": purpose})
    await to.note(audit.entry_of(request, None, 1_700_000_000_000_000_000))


async def noted(definitions: StoredDefinitions) -> list[tuple[int, str]]:
    return [(each.number, each.purpose) for each in await audit.read(definitions, None, 100)]


@pytest.fixture(autouse=True)
def _few(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(audit, "MAX_ENTRIES", 3)


def test_only_the_last_entries_are_kept_and_their_numbers_go_on() -> None:
    async def main() -> None:
        definitions = in_memory()
        made = Audit(lambda: definitions)
        for number in range(7):
            await note(made, f"p{number}")
            assert len(await definitions.list()) <= 3
        assert await noted(definitions) == [(7, "p6"), (6, "p5"), (5, "p4")]
        await note(Audit(lambda: definitions), "later")
        assert await noted(definitions) == [(8, "later"), (7, "p6"), (6, "p5")]

    asyncio.run(main())


def test_two_dispatchers_that_note_at_a_time_lose_nothing_of_each_other() -> None:
    async def main() -> None:
        definitions = in_memory()
        one, other = Audit(lambda: definitions), Audit(lambda: definitions)
        await note(one, "a")
        await note(other, "b")
        await asyncio.gather(note(one, "c"), note(other, "d"))
        assert [number for number, _ in await noted(definitions)] == [4, 3, 2]
        assert {purpose for _, purpose in await noted(definitions)} == {"b", "c", "d"}

    asyncio.run(main())


def test_what_cannot_be_noted_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def change(kind: str, name: str, value: bytes | None, before: int | None) -> Definition | None:
        raise StoreError("the disk is gone")

    async def read(kind: str | None) -> list[Definition]:
        return []

    asyncio.run(note(Audit(lambda: StoredDefinitions(change, read, lasting=True)), "p"))
    (line,) = [each.getMessage() for each in caplog.records]
    assert "cannot be noted" in line
    assert "verb='pause'" in line
    assert "the disk is gone" in line


def test_many_ids_are_noted_as_a_text_that_is_cut() -> None:
    async def main() -> None:
        definitions = in_memory()
        ids = [f"id-{number}" for number in range(1_000)]
        request = OPERATIONS["redrive"].request({"topic": "T", "purpose": "p", "ids": ids})
        await Audit(lambda: definitions).note(audit.entry_of(request, 1_000, 0))
        (entry,) = await audit.read(definitions, None, 10)
        assert entry.arguments.startswith('{"ids":["id-0","id-1"')
        assert len(entry.arguments) == 500
        assert entry.events == 1_000

    asyncio.run(main())


def test_times_are_noted_so_that_people_can_read_them() -> None:
    since, until = timedelta(hours=2), datetime(2026, 1, 31, 12, tzinfo=UTC)
    request = OPERATIONS["replay"].request({"topic": "T", "purpose": "p", "since": since, "until": until})
    assert audit.entry_of(request, 1, 0).arguments == '{"since":"7200 s ago","until":"2026-01-31T12:00:00Z"}'
