"""What was noted about the events of a partition: which instance handled them, and when.

The notes are first in the commits alone, and before those are purged in messages of their own: one or a few for a part
of a topic's log, so that a question reads only the messages of the part that its event is in.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import partial

import msgspec

from ..core.facts import Note, about, decode_notes, divided
from ..core.spans import Spans
from .layout import Layout
from .pieces import Message, pass_over
from .records import encode
from .session import Raw, Session

NOTES_OF = 4_096  # positions of a part: there is a subject for each
NOTES_BYTES = 256 << 10  # of notes in a message, about
MAX_PARTS = 256  # that are written with one commit
_PAGE = {"batch": 256, "max_bytes": 4 << 20}  # of messages that are read together
_Part = tuple[str, int]  # a topic, and the number of a part of its log


class Noted:
    """The notes of one partition."""

    def __init__(self, session: Session, layout: Layout, partition: int) -> None:
        self._session = session
        self._layout = layout
        self._partition = partition
        self._recent: dict[_Part, list[Note]] = {}  # that are nowhere but in commits
        self._writing: list[_Part] = []
        self.since: int | None = None  # the first such commit

    def subject(self, topic: str, part: int | str) -> str:
        return self._layout.kept(self._partition, f"notes.{part}.{topic}")

    def add(self, encoded: bytes, number: int) -> None:
        """Add the notes that commit `number` made durable. Raise `MsgspecError` where they cannot be read."""
        if encoded:
            for part, some in divided(decode_notes(encoded), NOTES_OF).items():
                self._recent.setdefault(part, []).extend(some)
            self.since = self.since or number

    def messages(self) -> list[Message]:
        """Return messages with notes that are nowhere but in commits."""
        self._writing = list(self._recent)[:MAX_PARTS]
        return [(self.subject(*part), encode(some), {}) for part in self._writing for some in _some(self._recent[part])]

    def written(self) -> None:
        """Note that those messages are stored."""
        for part in self._writing:
            del self._recent[part]
        self._writing = []
        if not self._recent:
            self.since = None

    async def read(self, topic: str, positions: Spans) -> list[Note]:
        """Return what was noted about the events at these positions; some of it twice, in any order."""
        found: list[Note] = []
        for part in sorted({position // NOTES_OF for position in positions.positions()}):
            found += about(self._recent.get((topic, part), ()), positions)
            seq = 1
            while page := await self._page(self.subject(topic, part), seq):
                for raw in page:
                    try:
                        found += about(decode_notes(raw.data), positions)
                    except msgspec.MsgspecError as error:
                        pass_over(raw, self._layout.state_stream, error)
                seq = page[-1].seq + 1
        return found

    async def _page(self, subject: str, seq: int) -> list[Raw]:
        request = {"seq": seq, "next_by_subj": subject, **_PAGE}
        ask = partial(self._session.page, self._layout.state_stream, request)
        page: list[Raw] = await self._session.until_answered(ask, "read what was noted about events")
        return page


def is_over(subject: str, gone: Spans) -> bool:
    """Return whether all events of the part that a subject is of are gone."""
    part = int(subject.split(".kept.notes.", 1)[1].partition(".")[0])
    return not gone.outside(part * NOTES_OF, (part + 1) * NOTES_OF)


def _some(notes: Sequence[Note]) -> Iterable[list[Note]]:
    """Divide notes into parts that fit into a message each."""
    parts: list[list[Note]] = [[]]
    size = 0
    for note in notes:
        more = 200 + 4 * len(note.purpose) + 5 * len(note.edges) + 8 * len(note.tried)
        if size + more > NOTES_BYTES and parts[-1]:
            parts.append([])
            size = 0
        size += more
        parts[-1].append(note)
    return parts
