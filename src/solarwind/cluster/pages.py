"""A sorted map of bytes in the state stream: its pages are written with a commit, and hardly any of it is in memory.

A page is the last message of a subject, whose last word is the page's name, in hex: a key from which on it has the
entries, up to the name of the next page. Changes since then are the last messages of the subjects one word below it,
numbered from 0; what is there from before is out of date. So to change entries that are far from each other costs a
small message each, and no page need be read for it; now and then a page is written whole again. In memory are the names
of all pages, and the pages used last. A page that became empty is stored as an empty message, until that is purged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import NamedTuple, Protocol

import msgspec

from ..errors import StoreError
from .pieces import Message
from .session import log

ROLLUP = {"Nats-Rollup": "sub"}  # a header: what the subject had before is deleted
SMALL_BYTES = 8 << 10  # a page that was read and is no larger is written whole
REWRITE_BYTES = 4 << 20  # of larger pages that are written whole in one commit
MAX_EMPTIED = 64  # pages that a former owner emptied, and are deleted in one commit
FIRST = b"\0"  # the name of the first page
_ENTRY_BYTES = 8  # of a page, besides keys and values, about

Page = dict[bytes, bytes]
_Changes = dict[bytes, "bytes | None"]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes | None]]).decode


class ReadPages(Protocol):
    """Returns what is stored of each page, by its subject: see `CommitLog.kept`."""

    async def __call__(self, subjects: Sequence[str], /) -> dict[str, list[bytes]]: ...


class PageSizes(NamedTuple):
    """How large a map's pages are: a page is divided when it has more than `page_bytes`, unless it is one entry, and
    written whole after `max_changes` messages with changes. `in_memory` pages are remembered."""

    page_bytes: int
    max_changes: int
    in_memory: int


class _Extent(NamedTuple):
    """How large a page is: entries, bytes, with those of its changes, and messages with changes."""

    entries: int
    size: int
    changes: int


_NOTHING = _Extent(0, 0, -1)


class Pages:
    """One such map. Only the owner writes it, one draft after the other."""

    def __init__(self, subject: str, read: ReadPages, sizes: PageSizes) -> None:
        """`subject` is that of its pages, without their names."""
        self.sizes = sizes
        self._subject = subject
        self._read = read
        self._names: list[bytes] = []
        self._extents: dict[bytes, _Extent] = {}  # of pages that were read or written by this owner
        self._recent: OrderedDict[bytes, Page] = OrderedDict()
        self.left: set[bytes] = set()  # empty pages that a former owner left, and are to be stored as such again

    def open(self, subjects: Iterable[str]) -> None:
        """Read which pages are stored under some of these subjects."""
        self._names = []
        for subject in subjects:
            if subject.startswith(self._subject):
                try:
                    self._names.append(bytes.fromhex(subject.removeprefix(self._subject)))
                except ValueError:
                    log.error("subject %s was not written by Solar Wind; it is skipped", subject)
        self._names.sort()
        self._extents.clear()
        self._recent.clear()
        self.left.clear()

    def subject(self, name: bytes) -> str:
        return self._subject + name.hex()

    def name_of(self, key: bytes) -> bytes:
        """Return the name of the page that has a key, or is to have it."""
        at = bisect_right(self._names, key)
        return self._names[at - 1] if at else FIRST

    def __contains__(self, name: bytes) -> bool:
        """Return whether a page of that name is stored."""
        at = bisect_left(self._names, name)
        return self._names[at : at + 1] == [name]

    def extent(self, name: bytes) -> _Extent | None:
        """Return how large a stored page is; None where that is not known before it is read."""
        return self._extents.get(name)

    def is_empty(self, name: bytes) -> bool:
        """Return whether a page is known to be empty."""
        return self._extents.get(name) == _NOTHING

    async def entries(self, after: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the entries whose keys are behind that one, in their order."""
        for at in range(max(0, bisect_right(self._names, after) - 1), len(self._names)):
            name = self._names[at]
            if self.is_empty(name):
                continue
            page = (await self.load([name]))[name]
            for key in sorted(page):
                if key > after:
                    yield key, page[key]

    async def draft(self, keys: Iterable[bytes] = ()) -> Draft:
        """Return a draft of changes, in which those keys can be read, and all be changed."""
        return Draft(self, await self.load(sorted({self.name_of(key) for key in keys})))

    async def load(self, names: Sequence[bytes]) -> dict[bytes, Page]:
        """Return stored pages. They are not to be changed."""
        found: dict[bytes, Page] = {}
        missing: list[bytes] = []
        for name in names:
            page = {} if name not in self or self.is_empty(name) else self._recent.get(name)
            if page is None:
                missing.append(name)
            else:
                found[name] = page
        if missing:
            stored = await self._read([self.subject(name) for name in missing])
            for name in missing:
                messages = stored.get(self.subject(name), [])
                page = found[name] = self._read_page(name, messages)
                if page:
                    self._extents[name] = _Extent(len(page), sum(map(len, messages)), len(messages) - 1)
                    self._keep(name, page)
                else:
                    self._extents[name] = _NOTHING
                    self.left.add(name)
        return found

    def _read_page(self, name: bytes, messages: list[bytes]) -> Page:
        page: Page = {}
        try:
            for data in messages:
                _apply(dict(_decode(data)) if data else {}, page)
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"expected a page of the due-log in the messages of {self.subject(name)}, got what Solar Wind did not "
                f"write: delete the last one ({error})"
            ) from None
        return page

    def _keep(self, name: bytes, page: Page) -> None:
        """Keep a page in memory for a while."""
        self._recent[name] = page
        self._recent.move_to_end(name)
        while len(self._recent) > self.sizes.in_memory:
            self._recent.popitem(last=False)

    def replace(self, emptied: Iterable[bytes], there: dict[bytes, tuple[Page, int]]) -> None:
        """Note which pages are stored whole, in so many bytes, and which as an empty message. Those keep their names,
        as they do for the next owner, until they are purged."""
        for name in emptied:
            self._recent.pop(name, None)
            self._extents[name] = _NOTHING
            self.left.discard(name)
        for name, (page, size) in there.items():
            if name not in self:
                insort(self._names, name)
            self._extents[name] = _Extent(len(page), size, 0)
            self.left.discard(name)
            self._keep(name, page)

    def purged(self, subjects: Iterable[str]) -> None:
        """Note that what was stored of these subjects as an empty message is no longer there. No draft is open."""
        for subject in subjects:
            if subject.startswith(self._subject):
                name = bytes.fromhex(subject.removeprefix(self._subject))
                if self.is_empty(name) and name not in self.left:
                    del self._extents[name]
                    del self._names[bisect_left(self._names, name)]

    def change(self, name: bytes, changes: _Changes, extent: _Extent) -> None:
        """Note that changes of a page are stored, and how large it is now."""
        self._extents[name] = extent
        page = self._recent.get(name)
        if page is not None:
            _apply(changes, page)


class Draft:
    """Changes that are not stored yet."""

    def __init__(self, pages: Pages, loaded: dict[bytes, Page]) -> None:
        self._pages = pages
        self._loaded = loaded
        self._changes: dict[bytes, _Changes] = {}  # by the names of pages
        self._emptied: list[bytes] = []
        self._there: dict[bytes, tuple[Page, int]] = {}
        self._changed: dict[bytes, _Extent] = {}

    def get(self, key: bytes) -> bytes | None:
        """Return the value of a key that was named for the draft."""
        name = self._pages.name_of(key)
        changes = self._changes.get(name, {})
        return changes[key] if key in changes else self._loaded[name].get(key)

    def put(self, key: bytes, value: bytes) -> None:
        self._changes.setdefault(self._pages.name_of(key), {})[key] = value

    def remove(self, key: bytes) -> None:
        self._changes.setdefault(self._pages.name_of(key), {})[key] = None

    async def messages(self) -> list[Message]:
        """Return the messages that store the changes, all of them together."""
        self._emptied, self._there, self._changed = [], {}, {}
        encoded = {name: _encode(list(changes.items())) for name, changes in self._changes.items()}
        await self._load(name for name in encoded if self._pages.extent(name) is None)
        extents = {name: self._extent(name, len(data)) for name, data in encoded.items()}
        await self._load(name for name, extent in extents.items() if extent.entries <= 0)
        whole = self._whole(extents)
        await self._load(whole)
        messages: list[Message] = []
        for name, data in encoded.items():
            if name in whole or not self._extent(name, 0).entries:
                messages += self._write_whole(name)
            else:
                self._changed[name] = extents[name]
                number = extents[name].changes - 1
                messages.append((f"{self._pages.subject(name)}.{number}", data, dict(ROLLUP)))
        self._emptied += list(self._pages.left - self._changes.keys())[:MAX_EMPTIED]
        messages += [(self._pages.subject(name), b"", dict(ROLLUP)) for name in self._emptied]
        return messages

    async def _load(self, names: Iterable[bytes]) -> None:
        missing = [name for name in names if name not in self._loaded]
        if missing:
            self._loaded |= await self._pages.load(missing)

    def _extent(self, name: bytes, size: int) -> _Extent:
        """Return how large a page is with its changes, which are a message of that size."""
        before, changes = self._pages.extent(name) or _NOTHING, self._changes[name]
        removed = sum(value is None for value in changes.values())
        entries = before.entries + len(changes) - 2 * removed
        if name in self._loaded:  # else what is put is new, and what is removed was there, as far as is known
            page = self._loaded[name]
            common = sum(key in page for key in changes)
            entries = len(page) + len(changes) - removed - common
        return _Extent(entries, before.size + size, before.changes + 1)

    def _whole(self, extents: dict[bytes, _Extent]) -> set[bytes]:
        """Return which pages are to be written whole: of the large ones only some at a time."""
        sizes, whole, room = self._pages.sizes, set[bytes](), REWRITE_BYTES
        for name, extent in sorted(extents.items(), key=lambda item: -item[1].changes):
            is_small = name in self._loaded and extent.size <= SMALL_BYTES
            is_due = extent.changes > sizes.max_changes or extent.size > sizes.page_bytes
            if not extent.changes or is_small or extent.changes > 2 * sizes.max_changes:
                whole.add(name)
            elif is_due and room > 0:
                whole.add(name)
                room -= extent.size
        return whole

    def _write_whole(self, name: bytes) -> list[Message]:
        page = dict(self._loaded[name])
        _apply(self._changes[name], page)
        messages: list[Message] = []
        for number, part in enumerate(_divided(sorted(page.items()), self._pages.sizes.page_bytes)):
            first, data = part[0][0], _encode(part)
            of_part = first if number else name
            self._there[of_part] = dict(part), len(data)
            messages.append((self._pages.subject(of_part), data, dict(ROLLUP)))
        if name in self._pages and name not in self._there:
            self._emptied.append(name)
        return messages

    def stored(self) -> None:
        """Note that the messages are stored."""
        for name, extent in self._changed.items():
            self._pages.change(name, self._changes[name], extent)
        self._pages.replace(self._emptied, self._there)


def _apply(changes: _Changes, page: Page) -> None:
    for key, value in changes.items():
        if value is None:
            page.pop(key, None)
        else:
            page[key] = value


def _divided(entries: list[tuple[bytes, bytes]], page_bytes: int) -> list[list[tuple[bytes, bytes]]]:
    """Divide entries into pages of about the same size, none where there is no entry."""
    sizes = [len(key) + len(value) + _ENTRY_BYTES for key, value in entries]
    if not entries or sum(sizes) <= page_bytes:
        return [entries] if entries else []
    room = sum(sizes) / -(-3 * sum(sizes) // (2 * page_bytes))
    parts: list[list[tuple[bytes, bytes]]] = [[]]
    size = 0.0
    for entry, each in zip(entries, sizes, strict=True):
        if parts[-1] and size + each > room:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += each
    return parts
