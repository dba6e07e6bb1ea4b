"""Where to find what an event caused, and events whose order in the stream is not that of their numbers: by ids.

An index entry says of a batch where it is, which events caused events of it, and which of its own events have which
numbers. It is in the window of time in which those ids were made, or in one of a number of parts by hash where a caller
gave the id of a cause. So a question reads the windows of its ids, however long the history is.

The entries are made when batches arrive. They are first in the next commit, which says how far the stream was read, and
before commits are purged in messages of their own: some for each window and topic. An entry may be there twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from functools import partial
from typing import NamedTuple
from zlib import crc32

import msgspec

from ..batch import Batch, read_id
from ..core.log import Stored
from ..core.spans import Spans
from ..store.base import BatchPlace
from .layout import DIRECT, Layout
from .pieces import Message, pass_over
from .records import IdEntries, IdEntry, decode_entries, encode
from .session import NO_MESSAGE, Raw, Refusal, Session

WINDOW_BITS = 12  # of the ms in which an id was made, that a window has: about 4 s
PART_BITS = 14  # of the hash of an id that was given
MAX_RECENT = 20_000  # entries that are nowhere but in commits; with more they are written down at once
MAX_MESSAGES = 256  # that are written with one commit
ENTRIES_BYTES = 16 << 10  # of entries in a message, about
MAX_CAUSES = 2_000  # of an entry
AT_ONCE = 16  # windows that are read at the same time
SWEPT_PAGES = 16  # of entries that are looked at each time that a topic was trimmed
_PAGE = {"batch": 256, "max_bytes": 4 << 20}
_PRODUCER_STEP = 0x9E3779B1
_32_BITS = 0xFFFFFFFF


class _IdPlace(NamedTuple):
    """In which window an id is, and as what; and its producer and number, where Solar Wind made it."""

    window: str
    key: int
    producer: int = -1
    number: int = -1


class Row(NamedTuple):
    """A batch in the stream: where it is in the order of a trace, and the sequence of its message."""

    place: BatchPlace
    seq: int


class _Read(NamedTuple):
    """An entry, and the window and topic that it was found in."""

    window: str
    topic: str
    entry: IdEntry

    @property
    def row(self) -> Row:
        return Row(BatchPlace(self.entry.time, self.topic, self.entry.start), self.entry.seq)

    def has(self, producer: int, number: int) -> bool:
        its = self.entry
        return its.producer == producer and its.first <= number < its.first + its.events


class IdIndex:
    """The index of one partition."""

    def __init__(self, session: Session, layout: Layout, partition: int) -> None:
        self._session = session
        self._layout = layout
        self._partition = partition
        self._recent: dict[str, list[IdEntry]] = {}  # that are not in messages of their own, by window and topic
        self._count = 0  # of them
        self._arrived: dict[str, list[IdEntry]] = {}  # those of them that are in no commit
        self._writing: dict[str, int] = {}
        self._is_all = False  # that is written down at present
        self._swept: dict[str, int] = {}  # of topics: how far the messages were looked at
        self.since: int | None = None  # the first commit that has some

    def subject(self, rest: str = ">") -> str:
        return self._layout.kept(self._partition, f"ids.{rest}")

    # What comes in ------------------------------------------------------------------------------------

    def arrive(self, raw: Raw, stored: Stored, via: str) -> None:
        """Add a batch that arrived."""
        start, batch, _ = stored
        for window, entry in _entries(raw.seq, start, batch, own=via != DIRECT):
            self._arrived.setdefault(f"{window}.{batch.topic}", []).append(entry)
            self._recent.setdefault(f"{window}.{batch.topic}", []).append(entry)
            self._count += 1

    def take(self) -> IdEntries:
        """Return what is in no commit yet, for the next one."""
        taken, self._arrived = self._arrived, {}
        return taken

    def give_back(self, taken: IdEntries) -> None:
        """Take back what could not be committed."""
        for part, entries in self._arrived.items():
            taken.setdefault(part, []).extend(entries)
        self._arrived = taken

    def recover(self, entries: IdEntries, number: int) -> None:
        """Add what an earlier owner's commit has."""
        for part, some in entries.items():
            self._recent.setdefault(part, []).extend(some)
            self._count += len(some)
        self.committed(entries, number)

    def committed(self, entries: IdEntries, number: int) -> None:
        """Note that commit `number`, which has these, is durable."""
        if entries:
            self.since = self.since or number

    @property
    def is_full(self) -> bool:
        """Whether so much is nowhere but in commits that it is to be written down."""
        return self._count > MAX_RECENT

    def messages(self, at_most: int) -> list[Message]:
        """Return about so many messages, at most, with what is nowhere but in commits."""
        messages: list[Message] = []
        self._writing = {}
        for part, entries in self._recent.items():
            if len(messages) >= at_most:
                break
            messages += [(self.subject(part), encode(some), {}) for some in _some(entries)]
            self._writing[part] = len(entries)
        self._is_all = len(self._writing) == len(self._recent)
        return messages

    def written(self) -> None:
        """Note that those messages are stored, with a commit that has all that had arrived when they were made."""
        for part, count in self._writing.items():
            del self._recent[part][:count]
            self._count -= count
            if not self._recent[part]:
                del self._recent[part]
        self._writing = {}
        if self._is_all:
            self.since = None

    async def clear(self) -> None:
        """Forget all of it: the stream is another one."""
        self._recent, self._arrived, self._count = {}, {}, 0
        await self._session.api(f"STREAM.PURGE.{self._layout.state_stream}", {"filter": self.subject()})

    # Questions ----------------------------------------------------------------------------------------

    async def caused_by(self, ids: Collection[str]) -> list[Row]:
        """Return the batches that may have events which these caused, in the order of a trace."""
        windows: dict[str, set[int]] = {}
        for id in ids:
            place = _place_of(id)
            windows.setdefault(place.window, set()).add(place.key)
        read = await self._read(windows)
        return sorted({each.row for each in read if not windows[each.window].isdisjoint(each.entry.causes)})

    async def having(self, id: str) -> list[Row]:
        """Return the batches that may have the event with an id that Solar Wind made, but for those that came from its
        producer at once."""
        window, _, producer, number = _place_of(id)
        if producer < 0:
            return []
        return sorted({each.row for each in await self._read([window]) if each.has(producer, number)})

    async def _read(self, windows: Iterable[str]) -> list[_Read]:
        """Return the entries of some windows."""
        found: list[_Read] = []
        wanted = set(windows)
        for part, entries in self._recent.items():  # before the messages: it goes into one of them
            window, _, topic = part.partition(".")
            if window in wanted:
                found += [_Read(window, topic, entry) for entry in entries]
        limit = asyncio.Semaphore(AT_ONCE)

        async def read(window: str) -> None:
            async with limit:
                seq = 1
                while page := await self._page(self.subject(f"{window}.>"), seq):
                    for raw in page:
                        topic = raw.subject.removeprefix(self.subject(f"{window}."))
                        found.extend(_Read(window, topic, entry) for entry in self._decode(raw))
                    seq = page[-1].seq + 1

        await asyncio.gather(*map(read, wanted))
        return found

    def _decode(self, raw: Raw) -> list[IdEntry]:
        try:
            return decode_entries(raw.data)
        except msgspec.MsgspecError as error:
            pass_over(raw, self._layout.state_stream, error)
            return []

    async def _page(self, subject: str, seq: int) -> list[Raw]:
        request = {"seq": seq, "next_by_subj": subject, **_PAGE}
        ask = partial(self._session.page, self._layout.state_stream, request)
        page: list[Raw] = await self._session.until_answered(ask, "read where events are")
        return page

    # What is no longer needed -------------------------------------------------------------------------

    async def forget(self, topic: str, gone: Spans) -> None:
        """Delete the messages all of whose entries are of batches that are gone, a number of them each time. They are
        in the order in which the batches arrived."""
        subject, seq = self.subject(f"*.{topic}"), self._swept.get(topic, 1)
        for _ in range(SWEPT_PAGES):
            page = await self._page(subject, seq)
            for raw in page:
                starts = [entry.start for entry in self._decode(raw)]
                if starts and min(starts) >= gone.edges[-1]:  # and so are all that follow
                    page = []
                    break
                if all(start in gone for start in starts):
                    await self._delete(raw.seq)
                seq = raw.seq + 1
            if not page:
                seq = 1  # what was looked at and stayed may be gone the next time
                break
        self._swept[topic] = seq

    async def _delete(self, seq: int) -> None:
        async def ask() -> None:
            try:
                await self._session.api(
                    f"STREAM.MSG.DELETE.{self._layout.state_stream}", {"seq": seq, "no_erase": True}
                )
            except Refusal as refusal:
                if refusal.code != NO_MESSAGE:  # it was deleted, and the answer was lost
                    raise

        await self._session.until_answered(ask, "shorten an index")


def _place_of(id: str) -> _IdPlace:
    made = read_id(id)
    if made is None:
        number = crc32(id.encode())
        return _IdPlace(f"given-{number >> (32 - PART_BITS):x}", number)
    key = (made.sequence + made.producer * _PRODUCER_STEP) & _32_BITS
    return _IdPlace(_window(made.time_ns), key, made.producer, made.sequence)


def _window(time_ns: int) -> str:
    return f"{time_ns // 1_000_000 >> WINDOW_BITS:x}"


def _entries(seq: int, start: int, batch: Batch, *, own: bool) -> Iterator[tuple[str, IdEntry]]:
    """Yield the entries of a batch, and their windows; with its `own` ids, those that Solar Wind made."""
    header = batch.header
    causes: dict[str, set[int]] = {}
    for cause in header.causes or ():
        if cause.kind == "event":
            place = _place_of(cause.id)
            causes.setdefault(place.window, set()).add(place.key)
    time = batch.time(0)
    if own and (header.ids is None or None in header.ids):
        slots = {(header.time + each) // 1_000_000 >> WINDOW_BITS for each in header.times}
        for slot in slots:
            yield f"{slot:x}", IdEntry(seq, start, time, [], header.producer, header.first, header.count)
    for window, keys in causes.items():
        some = sorted(keys)
        for at in range(0, len(some), MAX_CAUSES):
            yield window, IdEntry(seq, start, time, some[at : at + MAX_CAUSES])


def _some(entries: list[IdEntry]) -> Iterable[list[IdEntry]]:
    """Divide entries into parts that fit into a message each."""
    parts: list[list[IdEntry]] = [[]]
    size = 0
    for entry in entries:
        more = 40 + 5 * len(entry.causes)
        if size + more > ENTRIES_BYTES and parts[-1]:
            parts.append([])
            size = 0
        size += more
        parts[-1].append(entry)
    return parts
