"""The due-log of a partition, in the state stream: see `DueLog`.

What is delayed is first put into an inbox, one message that is stored together with the commit it belongs to. From
there it is sorted into pages by due time, a part in each further commit, and out of them released in a commit that has
it among what handlers fired. All of it is stored with commits, so only the owner writes it, each change whole.

inbox      what is not sorted yet, in the order accepted
time       key: due time, batch, part; value: a batch
id         key: topic and id, as hashes; value: the key of the entry that has the event
of         key: a topic, as a hash; value: its name, and how many events of it there are
           key: the same and the key of an entry; value: nothing
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from hashlib import sha256
from typing import NamedTuple, Protocol

import msgspec

from ..batch import Batch, read_id
from ..core.log import Stored
from ..errors import ProtocolError, StoreError
from ..store.delays import (
    BEGINNING,
    PAGE_BYTES,
    RELEASE_BYTES,
    Delayed,
    DelayedCount,
    Entry,
    check_due,
    only,
    runs,
    together,
    without,
)
from .known import History
from .layout import Layout
from .log import CommitLog
from .pages import ROLLUP, Draft, Pages, PageSizes
from .pieces import Message

INBOX_BYTES = 1 << 20  # more is sorted before the next is put in
EVENTS_TOGETHER = 192  # sorted or released in one commit: each may change a page of its own
# Ids are looked up one by one, so their pages are small; entries are read from the nearest on.
TIMES = PageSizes(64 << 10, max_changes=32, in_memory=8)
IDS = PageSizes(8 << 10, max_changes=16, in_memory=64)
OF_TOPICS = PageSizes(16 << 10, max_changes=16, in_memory=16)
PART_BITS = 16  # of an entry's number; above them is the batch's

_encode = msgspec.msgpack.Encoder().encode
_LAST = b"\xff" * 16  # behind the keys of all entries
_decode_count = msgspec.msgpack.Decoder(tuple[str, int]).decode
_decode = msgspec.msgpack.Decoder(list[tuple[int, int, bytes]]).decode


class Size(NamedTuple):
    """How much a due-log has: events, and batches that were ever accepted."""

    events: int
    accepted: int


class CommitPages(Protocol):
    """Commits pages of the due-log, and batches that are released, in a commit of their own."""

    async def __call__(self, pages: Sequence[Message], released: Sequence[Batch], size: Size, /) -> None: ...


class StreamDueLog:
    """The due-log of a partition. `lock` is held while anything is committed."""

    def __init__(
        self, layout: Layout, partition: int, log: CommitLog, history: History, lock: asyncio.Lock, commit: CommitPages
    ) -> None:
        self.size = Size(0, 0)
        self._log = log
        self._history = history
        self._lock = lock
        self._commit = commit
        self._subject = layout.kept(partition, "due.")
        self._times = Pages(f"{self._subject}time.", log.kept, TIMES)
        self._ids = Pages(f"{self._subject}id.", log.kept, IDS)
        self._of = Pages(f"{self._subject}of.", log.kept, OF_TOPICS)
        self._inbox: list[Entry] = []
        self._is_open = False

    # What is accepted ---------------------------------------------------------------------------------

    async def make_room(self) -> None:
        """Make sure that the inbox has room, under the lock. Raise `Full`."""
        if not self._is_open or sum(len(each.batch.data) for each in self._inbox) > INBOX_BYTES:
            await self._sort()

    def accept(self, delayed: Sequence[Delayed | Entry]) -> tuple[list[Message], Size, list[Entry]]:
        """Return the messages that store batches, the size after that, and the inbox after that: see `accepted`."""
        accepted, inbox = self.size.accepted, list(self._inbox)
        for each in delayed:
            number = each.number if isinstance(each, Entry) else (accepted + 1) << PART_BITS
            inbox.append(Entry(each.due, number, each.batch))
            accepted = max(accepted, number >> PART_BITS)
        return [self._inbox_message(inbox)], self.size._replace(accepted=accepted), inbox

    def accepted(self, size: Size, inbox: list[Entry]) -> None:
        """Note that this is stored."""
        self.size, self._inbox = size, inbox

    def _inbox_message(self, inbox: Sequence[Entry]) -> Message:
        entries = [(due, number, batch.data) for due, number, batch in inbox]
        return f"{self._subject}inbox", _encode(entries), dict(ROLLUP)

    async def sort(self) -> None:
        """Sort what is in the inbox; other commits go in between. Raise `Full`."""
        is_more = True
        while is_more:
            async with self._lock:
                is_more = await self._sort_next()

    async def _sort(self) -> None:
        while await self._sort_next():
            pass

    async def _sort_next(self) -> bool:
        """Sort what goes into one commit, and return whether there is more."""
        if not self._is_open:
            await self._open()
        if self._inbox:
            some, rest = _divided(self._inbox)
            await self._sort_some(some, rest)
        return bool(self._inbox)

    async def _open(self) -> None:
        inbox = f"{self._subject}inbox"
        nothing = not self.size.accepted  # so that an owner who takes over asks for nothing
        if not nothing:
            self._times.open(await self._log.kept_subjects(f"{self._subject}time.*"))
            self._ids.open(await self._log.kept_subjects(f"{self._subject}id.*"))
            self._of.open(await self._log.kept_subjects(f"{self._subject}of.*"))
            for data in (await self._log.kept([inbox])).get(inbox, []):
                try:
                    self._inbox = [Entry(due, number, Batch.read(each)) for due, number, each in _decode(data)]
                except (msgspec.MsgspecError, ProtocolError) as error:
                    raise _foreign(inbox, error) from None
        self._is_open = True

    async def _sort_some(self, some: list[Entry], rest: list[Entry]) -> None:
        keys = [_keys_of(each.batch) for each in some]
        ids = await self._ids.draft(key for by_id in keys for key in by_id.values())
        times = await self._times.draft(filter(None, [ids.get(key) for by_id in keys for key in by_id.values()]))
        of = await self._of.draft(_topic_key(each.batch.topic) for each in some)
        events = self.size.events
        for (due, number, batch), by_id in zip(some, keys, strict=True):
            taken = await self._history.known(batch)
            new = []
            for index, id in enumerate(_ids_of(batch)):
                if id not in taken and _find(ids, times, by_id[id], id) is None:
                    taken.add(id)
                    new.append(index)
            if new:
                _put(ids, times, of, due, number, batch if len(new) == len(batch) else batch.select(new), by_id)
                events += len(new)
        await self._store(ids, times, of, Size(events, self.size.accepted), inbox=rest)

    async def _store(
        self,
        ids: Draft,
        times: Draft,
        of: Draft,
        size: Size,
        *,
        inbox: list[Entry] | None = None,
        released: Sequence[Batch] = (),
    ) -> None:
        pages = [*await ids.messages(), *await times.messages(), *await of.messages()]
        if inbox is not None:
            pages.append(self._inbox_message(inbox))
        await self._commit(pages, released, size)
        ids.stored()
        times.stored()
        of.stored()
        self.size = size
        self._inbox = self._inbox if inbox is None else inbox

    async def purged(self, subjects: Sequence[str]) -> None:
        """Note which pages that became empty are no longer stored."""
        async with self._lock:
            self._times.purged(subjects)
            self._ids.purged(subjects)
            self._of.purged(subjects)

    # What becomes of it -------------------------------------------------------------------------------

    async def release(self, now: int) -> list[Stored]:
        """See `DueLog`. It gets its positions when it arrives, as what handlers fire does."""
        async with self._lock:
            await self._sort()
            entries, rest = await self._due(now)
            if entries:
                keys = [key for each in entries for key in _keys_of(each.batch).values()]
                ids = await self._ids.draft()
                times = await self._times.draft(_key(each.due, each.number) for each in entries)
                of = await self._of.draft(_topic_key(each.batch.topic) for each in entries)
                for key in keys:
                    ids.remove(key)
                for each in entries:
                    times.remove(_key(each.due, each.number))
                    _count(of, each.batch.topic, -len(each.batch))
                    if rest is None or each is not entries[-1]:
                        of.remove(_topic_key(each.batch.topic) + _key(each.due, each.number))
                if rest is not None:
                    times.put(_key(rest.due, rest.number), rest.batch.data)
                size = self.size._replace(events=self.size.events - len(keys))
                await self._store(ids, times, of, size, released=list(map(together, runs(entries))))
        return []

    async def _due(self, now: int) -> tuple[list[Entry], Entry | None]:
        """Return the nearest that are due, and the rest of the last one, where only a part of it is to be released."""
        found: list[Entry] = []
        size = events = 0
        async for key, data in self._times.entries():
            entry = _entry(key, data)
            size += len(data)
            if entry.due > now or events == EVENTS_TOGETHER or (found and size > RELEASE_BYTES):
                break
            room, count = EVENTS_TOGETHER - events, len(entry.batch)
            if count > room:
                found.append(entry._replace(batch=entry.batch.part(0, room)))
                return found, entry._replace(batch=entry.batch.part(room, count))
            found.append(entry)
            events += count
        return found, None

    async def next_due(self) -> int | None:
        async with self._lock:
            await self._sort()
            async for key, _ in self._times.entries():
                return int.from_bytes(key[:8], "big")
        return None

    async def count(self) -> int:
        async with self._lock:
            await self._sort()
            return self.size.events

    async def topics(self) -> dict[str, DelayedCount]:
        found: dict[str, DelayedCount] = {}
        async with self._lock:
            await self._sort()
            after = b""
            while (of_topic := await anext(self._of.entries(after), None)) is not None:
                topic, events = _read_count(of_topic[1])
                async for key, _ in self._of.entries(of_topic[0]):
                    found[topic] = DelayedCount(events, int.from_bytes(key[8:16], "big"))
                    break
                after = of_topic[0] + _LAST  # behind its entries
        return found

    async def find(self, topic: str, id: str) -> Entry | None:
        async with self._lock:
            await self._sort()
            id_key = _topic_key(topic) + _id_key(id)
            ids = await self._ids.draft([id_key])
            times = await self._times.draft(filter(None, [ids.get(id_key)]))
            return _find(ids, times, id_key, id)

    async def cancel(self, events: Sequence[tuple[str, str]], now: int = -1) -> list[bool]:
        return await self._cut_out(events, now=now)

    async def move(self, topic: str, id: str, due: int) -> bool:
        check_due(due)
        (found,) = await self._cut_out([(topic, id)], due)
        return found

    async def _cut_out(self, events: Sequence[tuple[str, str]], due: int | None = None, now: int = -1) -> list[bool]:
        """Remove events; put them back where they have a new due time. Return for each False where it is not there, or
        due at `now`."""
        async with self._lock:
            await self._sort()
            keys = [_topic_key(topic) + _id_key(id) for topic, id in events]
            ids = await self._ids.draft(keys)
            times = await self._times.draft(filter(None, map(ids.get, keys)))
            of = await self._of.draft({_topic_key(topic) for topic, _ in events})
            count, accepted = self.size
            found = []
            for (topic, id), id_key in zip(events, keys, strict=True):
                entry = _find(ids, times, id_key, id)
                found.append(entry is not None and entry.due > now)
                if entry is None or entry.due <= now:
                    continue
                rest = without(entry.batch, id)
                if rest is None:
                    times.remove(_key(entry.due, entry.number))
                    of.remove(_topic_key(topic) + _key(entry.due, entry.number))
                else:
                    times.put(_key(entry.due, entry.number), rest.data)
                _count(of, topic, -1)
                if due is None:
                    ids.remove(id_key)
                    count -= 1
                else:
                    accepted += 1
                    _put(ids, times, of, due, accepted << PART_BITS, only(entry.batch, id), {id: id_key})
            if any(found):
                await self._store(ids, times, of, Size(count, accepted))
            return found

    async def page(
        self, after: tuple[int, int] = BEGINNING, max_bytes: int = PAGE_BYTES, topic: str | None = None
    ) -> list[Entry]:
        found: list[Entry] = []
        async with self._lock:
            await self._sort()
            start = b"" if after == BEGINNING else _key(after[0], max(0, after[1]))
            async for key, data in self._times.entries(start) if topic is None else self._entries_of(topic, start):
                max_bytes -= len(data)
                if found and max_bytes < 0:
                    break
                found.append(_entry(key, data))
        return found

    async def _entries_of(self, topic: str, after: bytes) -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the entries of a topic by time, behind that one."""
        of_topic = _topic_key(topic)
        async for key, _ in self._of.entries(of_topic + after):
            if not key.startswith(of_topic):
                return
            place = key[len(of_topic) :]
            data = (await self._times.draft([place])).get(place)
            if data is not None:
                yield place, data


def _divided(inbox: Sequence[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return what is to be sorted in one commit, and the rest: a large batch in parts."""
    some: list[Entry] = []
    room, size = EVENTS_TOGETHER, 0
    for at, each in enumerate(inbox):
        count = len(each.batch)
        size += len(each.batch.data)
        if some and (room == 0 or size > RELEASE_BYTES):
            return some, list(inbox[at:])
        if count > room:
            some.append(each._replace(batch=each.batch.part(0, room)))
            rest = each._replace(number=each.number + 1, batch=each.batch.part(room, count))
            return some, [rest, *inbox[at + 1 :]]
        some.append(each)
        room -= count
    return some, []


def _put(ids: Draft, times: Draft, of: Draft, due: int, number: int, batch: Batch, keys: dict[str, bytes]) -> None:
    key = _key(due, number)
    times.put(key, batch.data)
    of.put(_topic_key(batch.topic) + key, b"")
    _count(of, batch.topic, len(batch))
    for id in _ids_of(batch):
        ids.put(keys[id], key)


def _count(of: Draft, topic: str, more: int) -> None:
    """Count so many more events of a topic."""
    key = _topic_key(topic)
    data = of.get(key)
    events = more if data is None else _read_count(data)[1] + more
    if events:
        of.put(key, _encode((topic, events)))
    else:
        of.remove(key)


def _read_count(data: bytes) -> tuple[str, int]:
    try:
        return _decode_count(data)
    except msgspec.MsgspecError as error:
        raise _foreign("a page by topic", error) from None


def _find(ids: Draft, times: Draft, id_key: bytes, id: str) -> Entry | None:
    """Return the entry with an event."""
    key = ids.get(id_key)
    data = None if key is None else times.get(key)
    entry = None if key is None or data is None else _entry(key, data)
    return entry if entry is not None and id in _ids_of(entry.batch) else None


def _ids_of(batch: Batch) -> list[str]:
    return [batch.id(index) for index in range(len(batch))]


def _key(due: int, number: int) -> bytes:
    return due.to_bytes(8, "big") + number.to_bytes(8, "big")


def _keys_of(batch: Batch) -> dict[str, bytes]:
    """Return the keys of a batch's events, by their ids."""
    of_topic = _topic_key(batch.topic)
    return {id: of_topic + _id_key(id) for id in _ids_of(batch)}


def _topic_key(topic: str) -> bytes:
    return sha256(topic.encode()).digest()[:8]


def _id_key(id: str) -> bytes:
    """Return a key for an id. Those of ids that Solar Wind made one after the other are near each other."""
    return sha256(id.encode()).digest()[:16] if read_id(id) is None else bytes.fromhex(id.replace("-", ""))


def _entry(key: bytes, data: bytes) -> Entry:
    due, number = int.from_bytes(key[:8], "big"), int.from_bytes(key[8:], "big")
    try:
        return Entry(due, number, Batch.read(data))
    except ProtocolError as error:
        raise _foreign(f"a page by time {due}", error) from None


def _foreign(where: str, error: Exception) -> StoreError:
    return StoreError(f"expected delayed events in {where}, got what Solar Wind did not write: delete it ({error})")
