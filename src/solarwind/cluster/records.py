"""What the owner of a partition writes: commits and snapshots, as they are in the state stream."""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from ..core import state
from ..core.state import Change, Snapshot

COMMIT = "Solarwind-Commit"  # a header: which epoch and number


class Hole(NamedTuple):
    """Messages that were deleted from among those that are kept. Their events are at this position and on, up to before
    `end`, and their sequences go from `seq` to `last`; before them there were `total` bytes, and behind them
    `end_total`. No two holes of a topic touch."""

    position: int
    seq: int
    total: int
    end: int
    last: int
    end_total: int


class TopicState(msgspec.Struct, array_like=True):
    """What is known of a topic. `end` is the position of its next event, and `total` how many bytes came before it;
    `first` and `first_total` are the same of the first event of the history, whose message is the first of the topic at
    or after `first_seq`; so many events and bytes are `missing` since, in holes. `keep_ns` and `keep_bytes` are None
    where they were never set."""

    name: str
    end: int = 0
    total: int = 0
    first: int = 0
    first_total: int = 0
    first_seq: int = 0
    missing: int = 0
    missing_bytes: int = 0
    keep_ns: int | None = None
    keep_bytes: int | None = None

    @property
    def events(self) -> int:
        """How many events its history holds."""
        return self.end - self.first - self.missing

    @property
    def size(self) -> int:
        """How many bytes."""
        return self.total - self.first_total - self.missing_bytes


class IdEntry(NamedTuple):
    """Which ids a batch has to do with, for `IdIndex`: the sequence of its message, its position and the time of its
    first event; the `causes` of its events, as hashes; and the numbers of its own events, where they are indexed."""

    seq: int
    start: int
    time: int
    causes: list[int] = []  # noqa: RUF012
    producer: int = -1
    first: int = 0
    events: int = 0


IdEntries = dict[str, list[IdEntry]]  # by window and topic


class CommitRecord(msgspec.Struct, array_like=True):
    """One commit: all of it or nothing. Commits of a partition are numbered from 1; an owner's all have its epoch.

    It was made when the event stream, of the one that was `created` then, was read up to sequence `seen`. `topics` are
    those that changed since the commit before. `fired` are batches that handlers fired, on their way to the streams of
    their topics; what commits below number `copied` fired is there. `holes` are all of a topic's, where they changed.
    `closed`: it is the last one of an owner that left in order. `delayed` events are in the due-log after it, and so
    many batches were `accepted` for it so far. `was_delayed`: what is in `fired` comes out of the due-log.
    `notes` are a list of what instances made of events, where there are any. `ids` are those of batches that arrived
    since the commit before.
    """

    epoch: int
    number: int
    time: int  # ns since 1970
    seen: int
    created: str = ""
    closed: bool = False
    topics: list[TopicState] = []
    changes: bytes = b""
    fired: list[bytes] = []
    copied: int = 0
    holes: dict[str, list[Hole]] = {}
    delayed: int = 0
    accepted: int = 0
    was_delayed: bool = False
    notes: bytes = b""
    ids: IdEntries = {}


class TrackRecord(msgspec.Struct, array_like=True):
    """The state of a purpose's track as of commit `number`; None once it was retired."""

    number: int
    topic: str
    purpose: str
    track: int
    snapshot: Snapshot | None


class KeptTopic(msgspec.Struct, array_like=True):
    """A topic's state as of commit `number`."""

    number: int
    topic: TopicState
    holes: list[Hole] = []


LATEST = (1 << 63) - 1  # no event was fired later


class Note(NamedTuple):
    """The event at this position of a topic begins the message with this sequence; so many bytes came before it, and
    none from the note before to this one was fired later than at `latest`, in ns since 1970."""

    position: int
    seq: int
    total: int
    latest: int = LATEST


encode = msgspec.msgpack.Encoder().encode
decode_commit = msgspec.msgpack.Decoder(CommitRecord).decode
decode_track = msgspec.msgpack.Decoder(TrackRecord).decode
decode_topic = msgspec.msgpack.Decoder(KeptTopic).decode
decode_letters = msgspec.msgpack.Decoder(list[state.Letter]).decode
decode_entries = msgspec.msgpack.Decoder(list[IdEntry]).decode
decode_notes = msgspec.msgpack.Decoder(list[Note]).decode


def changes_of(commit: CommitRecord) -> list[Change]:
    return state.decode_changes(commit.changes) if commit.changes else []
