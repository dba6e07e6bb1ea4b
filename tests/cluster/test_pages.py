"""The pages of a sorted map in a stream, over one in memory that keeps messages as JetStream does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from random import Random

import pytest

from solarwind.cluster.pages import REWRITE_BYTES, ROLLUP, Pages, PageSizes
from solarwind.cluster.pieces import Message

SIZES = PageSizes(page_bytes=2000, max_changes=10, in_memory=3)


class Stream:
    """The last message of each subject with its sequence, and what was stored and read so far."""

    def __init__(self) -> None:
        self.messages: dict[str, tuple[int, bytes]] = {}
        self._last = 0
        self.stored_bytes = self.read_pages = 0

    def store(self, messages: Iterable[Message]) -> None:
        for subject, data, headers in messages:
            assert headers == ROLLUP
            self.stored_bytes += len(data)
            self._last += 1
            self.messages[subject] = self._last, data

    async def read(self, subjects: Sequence[str]) -> dict[str, list[bytes]]:
        self.read_pages += len(subjects)
        return {subject: self.page(subject) for subject in subjects if subject in self.messages}

    def page(self, subject: str) -> list[bytes]:
        """What counts of a page."""
        since = self.messages[subject][0]
        below = [stored for each, stored in self.messages.items() if each.startswith(f"{subject}.")]
        return [self.messages[subject][1]] + [data for seq, data in sorted(below) if seq > since]

    @property
    def pages(self) -> list[str]:
        return [subject for subject in self.messages if subject.count(".") == 1]

    def purge(self) -> list[str]:
        """Delete what is empty, as the owner does now and then."""
        empty = [subject for subject in self.pages if self.page(subject) == [b""]]
        for subject in list(self.messages):
            if subject in empty or subject.rpartition(".")[0] in empty:
                del self.messages[subject]
        return empty


class Map:
    """Pages over a stream."""

    def __init__(self, sizes: PageSizes = SIZES) -> None:
        self.stream = Stream()
        self._sizes = sizes
        self.reopen()

    def reopen(self) -> None:
        """Go on as the next owner."""
        self.pages = Pages("p.", self.stream.read, self._sizes)
        self.pages.open(self.stream.pages)

    async def change(self, puts: dict[bytes, bytes], removes: Iterable[bytes] = (), read: Iterable[bytes] = ()) -> None:
        draft = await self.pages.draft(read)
        for key in removes:
            draft.remove(key)
        for key, value in puts.items():
            draft.put(key, value)
        self.stream.store(await draft.messages())
        draft.stored()

    async def content(self) -> dict[bytes, bytes]:
        found = [entry async for entry in self.pages.entries()]
        assert [key for key, _ in found] == sorted({key for key, _ in found})
        return dict(found)


def key(number: int) -> bytes:
    return number.to_bytes(8, "big")


@pytest.mark.parametrize("seed", range(8))
def test_a_map_has_what_was_put_and_not_removed_for_each_owner(seed: int) -> None:
    async def test() -> None:
        random, there, pages = Random(seed), dict[bytes, bytes](), Map()
        for step in range(120):
            put = {key(random.randrange(1 << 20)): random.randbytes(random.randrange(300)) for _ in range(8)}
            gone = random.sample(sorted(there), min(len(there), random.choice([0, 4, 20])))
            again = random.sample(sorted(there), min(len(there), 1))
            put |= dict.fromkeys(again, b"again")
            new = [each for each in put if each not in there]
            named = [*again, *(random.sample(new, 2) if step % 2 else []), *(each for each in put if each in gone)]
            await pages.change(put, gone, named)
            for each in gone:
                del there[each]
            there |= put
            if step % 10 == 9:
                if step % 20 == 9:
                    pages.reopen()
                elif step % 3:
                    pages.pages.purged(pages.stream.purge())
                assert await pages.content() == there
        await pages.change({}, there)
        assert await pages.content() == {}
        await pages.change({}, there)
        pages.stream.purge()
        assert pages.stream.messages == {}

    asyncio.run(test())


def test_entries_far_from_each_other_are_put_without_reading_and_writing_a_page_for_each() -> None:
    async def test() -> None:
        sizes = PageSizes(page_bytes=64 << 10, max_changes=128, in_memory=2)
        random, pages, value = Random(1), Map(sizes), bytes(200)
        for _ in range(80):
            await pages.change({key(random.randrange(1 << 60)): value for _ in range(250)})
        assert len(pages.pages._names) > 50
        assert pages.stream.stored_bytes < 6 * 80 * 250 * (8 + len(value))
        assert pages.stream.read_pages < 80 * 10

    asyncio.run(test())


def test_entries_far_from_each_other_are_removed_without_reading_a_page_for_each() -> None:
    async def test() -> None:
        sizes = PageSizes(page_bytes=2000, max_changes=16, in_memory=2)
        random, pages, numbers = Random(1), Map(sizes), [*range(4000)]
        await pages.change({key(number): bytes(20) for number in numbers})
        random.shuffle(numbers)
        for at in range(0, 4000, 100):
            await pages.change({}, [key(number) for number in numbers[at : at + 100]])
        assert pages.stream.read_pages < 4000 / 5
        pages.stream.purge()
        assert pages.stream.messages == {}

    asyncio.run(test())


@pytest.mark.parametrize("value", [10, 5000, 400_000], ids=["small", "larger than a page", "very large"])
def test_no_page_grows_without_a_bound(value: int) -> None:
    async def test() -> None:
        random, pages = Random(1), Map()
        together = max(1, min(20, REWRITE_BYTES // 4 // value))
        for _ in range(50):
            await pages.change({key(random.randrange(1 << 60)): bytes(value) for _ in range(together)})
        for found in map(pages.stream.page, pages.stream.pages):
            assert len(found) <= 2 * SIZES.max_changes + 1
            assert sum(map(len, found)) < 2 * SIZES.page_bytes + 12 * 2 * value

    asyncio.run(test())


def test_only_the_pages_used_last_are_in_memory() -> None:
    async def test() -> None:
        pages = Map()
        await pages.change({key(number): bytes(100) for number in range(1000)})
        assert await pages.content() != {}
        assert len(pages.pages._recent) == SIZES.in_memory

    asyncio.run(test())
