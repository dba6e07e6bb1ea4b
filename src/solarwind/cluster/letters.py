"""The dead letters of a partition: which events are dead, in memory, and their texts, in the state stream.

The texts are first in the commits alone, and before those are purged in messages of their own. The subject of each
says from which position to which it has some, so that a page of letters reads only the messages that it is in.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from operator import attrgetter
from typing import NamedTuple

import msgspec

from ..core.spans import Spans
from ..core.state import Change, Letter
from .layout import Layout, purpose_name
from .pieces import Message, pass_over
from .records import decode_letters, encode
from .session import Raw, Session

AT_ONCE = 16  # messages that are read at the same time
_PAGE = {"batch": 16, "max_bytes": 4 << 20}
LETTERS_BYTES = 64 << 10  # of dead letters in a message, about
PurposeKey = tuple[str, str]  # the topic and the name of a purpose


class _Texts(NamedTuple):
    """The first and the last position of a message with texts."""

    low: int
    high: int


class Letters:
    """The dead letters of one partition."""

    def __init__(
        self, session: Session, layout: Layout, partition: int, subjects: Callable[[str], Awaitable[list[str]]]
    ) -> None:
        """`subjects` returns those that have messages: see `CommitLog.kept_subjects`."""
        self._session = session
        self._subjects = subjects
        self._layout = layout
        self._partition = partition
        self._dead: dict[PurposeKey, Spans] = {}
        self._recent: dict[PurposeKey, list[Letter]] = {}  # that are nowhere but in commits
        self.since: int | None = None  # the first such commit
        self._texts: dict[PurposeKey, set[_Texts]] = {}  # the messages, of purposes that were asked for
        self._writing: list[tuple[PurposeKey, _Texts]] = []
        self._times_written = 0

    def _subject(self, purpose: PurposeKey, positions: str) -> str:
        return self._layout.kept(self._partition, f"dead.{purpose_name(*purpose)}.{positions}")

    # What is noted ------------------------------------------------------------------------------------

    def recover(self, purpose: PurposeKey, dead: Sequence[int]) -> None:
        """Note the edges of what is dead as of a snapshot."""
        self._dead.setdefault(purpose, Spans()).update(Spans(dead))

    def note(self, change: Change, number: int) -> None:
        """Note a change that commit `number` made durable."""
        purpose = change.topic, change.purpose
        if change.retired and change.track:  # nothing of it is dead
            return
        if change.retired:
            self._dead.pop(purpose, None)
            self._recent.pop(purpose, None)
            return
        gone = [Spans(edges) for edges in (change.reopened, change.redriven, change.discarded) if edges]
        if gone or change.dead:
            dead = self._dead.setdefault(purpose, Spans())
            for spans in gone:
                dead.difference_update(spans)
            for letter in change.dead:
                dead.add(letter.position, letter.position + 1)
            self.note_texts(change, number)

    def note_texts(self, change: Change, number: int) -> None:
        """Note that the texts of a change's dead letters are in commit `number`."""
        if change.dead:
            self._recent.setdefault((change.topic, change.purpose), []).extend(change.dead)
            self.since = self.since or number

    def messages(self) -> list[Message]:
        """Return messages with the texts that are nowhere but in commits."""
        found: list[Message] = []
        self._writing = []
        for purpose, letters in self._recent.items():
            for some in _some(letters):
                positions = [letter.position for letter in some]
                texts = _Texts(min(positions), max(positions))
                found.append((self._subject(purpose, f"{texts.low}-{texts.high}"), encode(some), {}))
                self._writing.append((purpose, texts))
        return found

    def written(self) -> None:
        """Note that those messages are stored."""
        for purpose, texts in self._writing:
            if purpose in self._texts:
                self._texts[purpose].add(texts)
        self._writing = []
        self._times_written += 1
        self._recent.clear()
        self.since = None

    def forget(self) -> list[str]:
        """Forget the purposes without dead letters, and return the subjects of their texts."""
        none = [purpose for purpose, spans in self._dead.items() if not spans]
        for purpose in none:
            del self._dead[purpose]
            self._texts.pop(purpose, None)
        return [self._subject(purpose, "*") for purpose in none]

    # Reading ------------------------------------------------------------------------------------------

    async def read(self, purpose: PurposeKey, positions: Spans) -> list[Letter]:
        """Return the dead letters at these positions, by position."""
        recent = list(self._recent.get(purpose, ()))  # before the messages: it goes into one of them
        dead = self._dead.get(purpose, Spans()).common(positions)
        if not dead:
            return []
        limit = asyncio.Semaphore(AT_ONCE)

        async def read(texts: _Texts) -> list[Raw]:
            async with limit:
                return await self._all(self._subject(purpose, f"{texts.low}-{texts.high}"))

        wanted = [texts for texts in await self._look_at_texts(purpose) if dead.within(texts.low, texts.high + 1)]
        found = [raw for some in await asyncio.gather(*map(read, wanted)) for raw in some]
        letters: dict[int, Letter] = {}
        for raw in sorted(found, key=attrgetter("seq")):
            try:
                letters.update((letter.position, letter) for letter in decode_letters(raw.data))
            except msgspec.MsgspecError as error:
                pass_over(raw, self._layout.state_stream, error)
        letters.update((letter.position, letter) for letter in recent)
        return [letters[position] for position in dead.positions() if position in letters]

    async def _look_at_texts(self, purpose: PurposeKey) -> list[_Texts]:
        """Return which messages there are with texts."""
        while purpose not in self._texts:
            times, prefix = self._times_written, self._subject(purpose, "")
            names = [subject.removeprefix(prefix) for subject in await self._subjects(self._subject(purpose, "*"))]
            if times == self._times_written:  # else there may be more by now
                edges = [name.split("-") for name in names]
                self._texts[purpose] = {_Texts(*map(int, each)) for each in edges if _are_edges(each)}
        return list(self._texts[purpose])

    async def _all(self, subject: str) -> list[Raw]:
        found: list[Raw] = []
        seq = 1
        while True:
            request = {"seq": seq, "next_by_subj": subject, **_PAGE}
            ask = partial(self._session.page, self._layout.state_stream, request)
            page: list[Raw] = await self._session.until_answered(ask, "read dead letters")
            if not page:
                return found
            found += page
            seq = page[-1].seq + 1


def _are_edges(words: list[str]) -> bool:
    """Return whether these are the positions in a subject that Solar Wind wrote."""
    return len(words) == 2 and all(word.isascii() and word.isdecimal() for word in words)


def _some(letters: list[Letter]) -> list[list[Letter]]:
    """Divide a list into parts that fit into a message each."""
    parts: list[list[Letter]] = [[]]
    size = 0
    for letter in letters:
        size += len(letter.error) * 4 + 64
        if size > LETTERS_BYTES and parts[-1]:
            parts.append([])
            size = len(letter.error) * 4 + 64
        parts[-1].append(letter)
    return parts
