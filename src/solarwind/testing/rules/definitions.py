"""Named definitions, apart from any topic."""

from __future__ import annotations

import pytest

from ...errors import BadArgument, ConflictError, TooLarge
from ...store.definitions import Definition
from .place import Place, on_loop, refused, until


class DefinitionRules:
    """The rules of definitions: changes are durable, of two concurrent ones one succeeds, and watchers learn of
    them."""

    @on_loop
    async def test_a_definition_is_listed_as_it_was_put_last(self, place: Place) -> None:
        async with place.open() as wind:
            definitions = wind.engine.definitions
            first = await definitions.put("webhook", "b", b"\x00one")
            second = await definitions.put("webhook", "é", b"two")
            await definitions.put("schedule", "b", b"other")
            changed = await definitions.put("webhook", "b", b"three", before=first.number)
            assert await definitions.list("webhook") == [changed, second]
            assert (changed.value, changed.number > second.number > first.number) == (b"three", True)
            assert [each.value for each in await definitions.list()] == [b"other", b"three", b"two"]
            assert b"three" not in repr(changed).encode()

    @on_loop
    async def test_a_definition_that_is_removed_is_gone_and_may_be_put_again(self, place: Place) -> None:
        async with place.open() as wind:
            definitions = wind.engine.definitions
            one = await definitions.put("webhook", "a", b"one", before=0)
            removed = await definitions.remove("webhook", "a", before=one.number)
            assert removed == Definition("webhook", "a", None, removed.number if removed is not None else 0)
            assert (await definitions.remove("webhook", "a"), await definitions.list("webhook")) == (None, [])
            again = await definitions.put("webhook", "a", b"two", before=0)
            assert await definitions.list("webhook") == [again]

    @on_loop
    async def test_of_two_who_have_read_the_same_definition_only_one_changes_it(self, place: Place) -> None:
        async with place.open() as wind:
            definitions = wind.engine.definitions
            one = await definitions.put("webhook", "a", b"one")
            two = await definitions.put("webhook", "a", b"two", before=one.number)
            await refused(definitions.put("webhook", "a", b"3", before=one.number), ConflictError, "'a'", "try again")
            await refused(definitions.put("webhook", "a", b"3", before=0), ConflictError, "somebody else changed it")
            await refused(definitions.remove("webhook", "a", before=one.number), ConflictError, "'a'")
            assert await definitions.list("webhook") == [two]

    @on_loop
    async def test_who_watches_definitions_is_told_of_each_change_of_that_kind_until_it_ends(
        self, place: Place
    ) -> None:
        told: list[bytes | None] = []
        async with place.open() as wind:
            definitions = wind.engine.definitions
            end = definitions.watch("webhook", lambda each: told.append(each.value))
            await definitions.put("schedule", "a", b"other")
            await definitions.put("webhook", "a", b"one")
            await definitions.remove("webhook", "a")
            await until(lambda: list(dict.fromkeys(told)) == [b"one", None])
            end()
            told.clear()
            await definitions.put("webhook", "a", b"two")
            assert told == []

    @on_loop
    async def test_definitions_outlive_a_restart(self, place: Place) -> None:
        async with place.open() as wind:
            if not wind.engine.definitions.lasting:
                pytest.skip("this engine keeps definitions as long as it runs")
            kept = await wind.engine.definitions.put("webhook", "a", b"one")
            await wind.engine.definitions.put("webhook", "b", b"two")
            await wind.engine.definitions.remove("webhook", "b")
        async with place.restart() as wind:
            assert await wind.engine.definitions.list() == [kept]
            assert (await wind.engine.definitions.put("webhook", "b", b"three")).number > kept.number

    @on_loop
    async def test_a_definition_without_a_name_of_no_kind_or_too_large_is_refused(self, place: Place) -> None:
        async with place.open() as wind:
            definitions = wind.engine.definitions
            await refused(definitions.put("web hook", "a", b""), BadArgument, "a kind of definition", "'web hook'")
            await refused(definitions.put("webhook", "", b""), BadArgument, "a name of 1 to")
            await refused(definitions.put("webhook", "a", bytes(70_000)), TooLarge, "65,536", "70,000")
            assert await definitions.list() == []
