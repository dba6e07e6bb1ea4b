"""A sorted map of bytes in the state stream: its pages are written with a commit, and hardly any of it is in memory.

A page is the last message of a subject, whose last word is the page's name, in hex: a key from which on it has the
entries, up to the name of the next page. In memory are the names of all pages, and the pages used last. A page that
became empty is stored as an empty message, until that is purged.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right, insort
from collections import OrderedDict
from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Protocol

import msgspec

from ..errors import StoreError
from .pieces import Message
from .session import log

ROLLUP = {"Nats-Rollup": "sub"}  # a header: what the subject had before is deleted
PAGE_BYTES = 8 << 10  # a page that grows beyond it is divided, unless it is one entry
PAGES_IN_MEMORY = 64
_ENTRY_BYTES = 8  # of a page, besides keys and values, about

Page = dict[bytes, bytes]
_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(list[tuple[bytes, bytes]]).decode


class ReadPages(Protocol):
    """Returns the last message of each subject that has one: see `CommitLog.kept`."""

    async def __call__(self, subjects: Sequence[str], /) -> dict[str, bytes]: ...


class Pages:
    """One such map. Only the owner writes it, one draft after the other."""

    def __init__(self, subject: str, read: ReadPages) -> None:
        """`subject` is that of its pages, without their names."""
        self._subject = subject
        self._read = read
        self._names: list[bytes] = []
        self._recent: OrderedDict[bytes, Page] = OrderedDict()

    def open(self, subjects: Iterable[str]) -> None:
        """Read which pages are stored under some of these subjects."""
        self._names = []
        for subject in subjects:
            if subject.startswith(self._subject):
                try:
                    self._names.append(bytes.fromhex(subject.removeprefix(self._subject)))
                except ValueError:
                    log.error("subject %s is none that Solar Wind wrote; it is passed over", subject)
        self._names.sort()
        self._recent.clear()

    def subject(self, name: bytes) -> str:
        return self._subject + name.hex()

    def name_of(self, key: bytes) -> bytes:
        """Return the name of the page that has a key, or is to have it: empty, where there is no page at all."""
        return self._names[max(0, bisect_right(self._names, key) - 1)] if self._names else b""

    def __contains__(self, name: bytes) -> bool:
        """Return whether a page of that name is stored."""
        at = bisect_left(self._names, name)
        return self._names[at : at + 1] == [name]

    async def entries(self, after: bytes = b"") -> AsyncIterator[tuple[bytes, bytes]]:
        """Yield the entries whose keys are behind that one, in their order."""
        for at in range(max(0, bisect_right(self._names, after) - 1), len(self._names)):
            name = self._names[at]
            page = (await self._load([name]))[name]
            for key in sorted(page):
                if key > after:
                    yield key, page[key]

    async def draft(self, keys: Iterable[bytes]) -> Draft:
        """Return a draft of changes of those keys."""
        names = sorted({self.name_of(key) for key in keys})
        return Draft(self, await self._load(names) if self._names else {b"": {}})

    async def _load(self, names: Sequence[bytes]) -> dict[bytes, Page]:
        found: dict[bytes, Page] = {}
        missing: list[bytes] = []
        for name in names:
            page = self._recent.get(name)
            if page is None:
                missing.append(name)
            else:
                found[name] = page
        if missing:
            stored = await self._read([self.subject(name) for name in missing])
            for name in missing:
                found[name] = self._decode(name, stored.get(self.subject(name), b""))
                self.keep(name, found[name])
        return found

    def _decode(self, name: bytes, data: bytes) -> Page:
        try:
            return dict(_decode(data)) if data else {}
        except msgspec.MsgspecError as error:
            raise StoreError(
                f"expected a page of the due-log as the last message of {self.subject(name)}, got what Solar Wind did "
                f"not write: delete that message ({error})"
            ) from None

    def keep(self, name: bytes, page: Page) -> None:
        """Keep a page in memory for a while."""
        self._recent[name] = page
        self._recent.move_to_end(name)
        while len(self._recent) > PAGES_IN_MEMORY:
            self._recent.popitem(last=False)

    def replace(self, gone: Iterable[bytes], there: dict[bytes, Page]) -> None:
        """Note which pages are stored, and which are gone."""
        for name in gone:
            self._recent.pop(name, None)
            del self._names[bisect_left(self._names, name)]
        for name, page in there.items():
            if name not in self:
                insort(self._names, name)
            self.keep(name, page)


class Draft:
    """Changes that are not stored yet, of keys that were named."""

    def __init__(self, pages: Pages, loaded: dict[bytes, Page]) -> None:
        self._pages = pages
        self._loaded = {name: dict(page) for name, page in loaded.items()}
        self._changed = {name for name, page in loaded.items() if not page}
        self._gone: list[bytes] = []
        self._there: dict[bytes, Page] = {}

    def get(self, key: bytes) -> bytes | None:
        return self._loaded[self._pages.name_of(key)].get(key)

    def put(self, key: bytes, value: bytes) -> None:
        name = self._pages.name_of(key)
        self._loaded[name][key] = value
        self._changed.add(name)

    def remove(self, key: bytes) -> None:
        name = self._pages.name_of(key)
        self._loaded[name].pop(key, None)
        self._changed.add(name)

    def messages(self) -> list[Message]:
        """Return the messages that store the changes, all of them together."""
        self._there = {}
        for name in self._changed:
            for number, part in enumerate(_divided(sorted(self._loaded[name].items()))):
                first = part[0][0]
                is_named = not number and name in self._pages and name <= first
                self._there[name if is_named else first] = dict(part)
        self._gone = [name for name in self._changed if name not in self._there and name in self._pages]
        pages = {name: _encode(list(page.items())) for name, page in self._there.items()} | dict.fromkeys(
            self._gone, b""
        )
        return [(self._pages.subject(name), data, dict(ROLLUP)) for name, data in pages.items()]

    def stored(self) -> None:
        """Note that the messages are stored."""
        self._pages.replace(self._gone, self._there)


def _divided(entries: list[tuple[bytes, bytes]]) -> list[list[tuple[bytes, bytes]]]:
    """Divide entries into pages of about the same size, none where there is no entry."""
    sizes = [len(key) + len(value) + _ENTRY_BYTES for key, value in entries]
    if not entries or sum(sizes) <= PAGE_BYTES:
        return [entries] if entries else []
    room = sum(sizes) / -(-3 * sum(sizes) // (2 * PAGE_BYTES))
    parts: list[list[tuple[bytes, bytes]]] = [[]]
    size = 0.0
    for entry, each in zip(entries, sizes, strict=True):
        if parts[-1] and size + each > room:
            parts.append([])
            size = 0
        parts[-1].append(entry)
        size += each
    return parts
