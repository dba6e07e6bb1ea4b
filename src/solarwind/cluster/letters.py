"""The dead letters of a partition: which events are dead, in memory, and their texts, in the state stream.

The texts are first in the commits alone, and before those are purged in messages of their own. Of these an owner notes
when it is first asked which positions they have, so that a page of letters reads only the messages that it is in.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import msgspec

from ..core.spans import Spans
from ..core.state import Change, Letter
from .layout import Layout, purpose_name
from .pieces import Message, pass_over
from .records import decode_letters, encode
from .session import Raw, Session

LETTERS_BYTES = 256 << 10  # of dead letters in a message, about
PurposeKey = tuple[str, str]  # the topic and the name of a purpose


class _Texts(NamedTuple):
    """A message with texts: its sequence, and its first and last position."""

    seq: int
    low: int
    high: int


class Letters:
    """The dead letters of one partition."""

    def __init__(self, session: Session, layout: Layout, partition: int) -> None:
        self._session = session
        self._layout = layout
        self._partition = partition
        self._dead: dict[PurposeKey, Spans] = {}
        self._recent: dict[PurposeKey, list[Letter]] = {}  # that are nowhere but in commits
        self.since: int | None = None  # the first such commit
        self._texts: dict[PurposeKey, list[_Texts]] = {}  # the messages, as far as they were looked at

    def _subject(self, purpose: PurposeKey) -> str:
        return self._layout.kept(self._partition, f"dead.{purpose_name(*purpose)}")

    # What is noted ------------------------------------------------------------------------------------

    def recover(self, purpose: PurposeKey, dead: Sequence[int]) -> None:
        """Note the edges of what is dead as of a snapshot."""
        self._dead.setdefault(purpose, Spans()).update(Spans(dead))

    def note(self, change: Change, number: int) -> None:
        """Note a change that commit `number` made durable."""
        purpose = change.topic, change.purpose
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
        for purpose, letters in self._recent.items():
            found += [(self._subject(purpose), encode(some), {}) for some in _some(letters)]
        return found

    def written(self) -> None:
        """Note that those messages are stored."""
        self._recent.clear()
        self.since = None

    def forget(self) -> list[str]:
        """Forget the purposes without dead letters, and return the subjects of their texts."""
        none = [purpose for purpose, spans in self._dead.items() if not spans]
        for purpose in none:
            del self._dead[purpose]
            self._texts.pop(purpose, None)
        return [self._subject(purpose) for purpose in none]

    # Reading ------------------------------------------------------------------------------------------

    async def read(self, purpose: PurposeKey, positions: Spans) -> list[Letter]:
        """Return the dead letters at these positions, by position."""
        recent = list(self._recent.get(purpose, ()))  # before the messages: it goes into one of them
        dead = self._dead.get(purpose, Spans()).common(positions)
        if not dead:
            return []
        letters: dict[int, Letter] = {}
        for each in await self._look_at_texts(purpose):
            if dead.within(each.low, each.high + 1):
                raw = await self._next(purpose, each.seq)
                if raw is not None and raw.seq == each.seq:
                    letters.update((letter.position, letter) for letter in decode_letters(raw.data))
        letters.update((letter.position, letter) for letter in recent)
        return [letters[position] for position in dead.positions() if position in letters]

    async def _look_at_texts(self, purpose: PurposeKey) -> list[_Texts]:
        """Return all messages with texts, once those were looked at that came since."""
        known = self._texts.setdefault(purpose, [])
        seq = known[-1].seq + 1 if known else 1
        while (raw := await self._next(purpose, seq)) is not None:
            try:
                found = [letter.position for letter in decode_letters(raw.data)]
            except msgspec.MsgspecError as error:
                pass_over(raw, self._layout.state_stream, error)
                found = []
            seq = raw.seq + 1
            if found and (not known or known[-1].seq < raw.seq):  # else another question looked at it meanwhile
                known.append(_Texts(raw.seq, min(found), max(found)))
        return list(known)

    async def _next(self, purpose: PurposeKey, seq: int) -> Raw | None:
        ask = partial(self._session.next, self._layout.state_stream, self._subject(purpose), seq)
        raw: Raw | None = await self._session.until_answered(ask, "read dead letters")
        return raw


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
