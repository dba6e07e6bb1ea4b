"""The owner's log of commits: fenced, snapshotted, taken up by the next owner, and purged of what is not needed.

epoch, number     which owner wrote a commit, and which of the partition's commits it is; both only grow
snapshots         of purposes and topics, stored together with a commit: the changes up to it are in them
fence             the first commit of an owner: from then on the former owner can write nothing
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import msgspec

from ..batch import Batch
from ..core.spans import Spans
from ..core.state import Change, Snapshot
from ..engine.backoff import Backoff
from ..errors import ProtocolError, SolarWindError, StoreError
from ..store.base import Full
from .id_index import MAX_MESSAGES, IdIndex
from .layout import Layout, purpose_name
from .letters import Letters
from .noted import NOTES_OF, Noted, is_over
from .pages import ROLLUP
from .pieces import HEADERS_BYTES, Message, Pieces, in_pieces, pass_over, whole
from .records import (
    COMMIT,
    CommitRecord,
    Hole,
    KeptTopic,
    TopicState,
    TrackRecord,
    changes_of,
    decode_commit,
    decode_topic,
    decode_track,
    encode,
)
from .session import EXPECT, FULL, NO_STREAM, WRONG_SEQUENCE, NoAnswer, Raw, Refusal, Session, log

SNAPSHOT_AFTER = 512  # commits since a topic changed first
SNAPSHOTS_TOGETHER = 64
PURGE_AFTER = 256  # commits
PAGE = 512
PAGE_BYTES = 4 << 20
TOGETHER = 900  # messages that are stored together, about; JetStream accepts 1,000 at most
KEPT_TOGETHER = 8  # pages that are read together
KEPT_MESSAGES = 1024  # that JetStream returns at most
_Track = tuple[str, str, int]  # of a track: its topic, its purpose and its number


class Fired(NamedTuple):
    """What a commit put on its way to the streams of its topics. `was_delayed`: it comes out of the due-log."""

    commit: int
    batches: list[Batch]
    was_delayed: bool = False


class Written(msgspec.Struct):
    """What earlier owners wrote. `before` is the last commit; `fired` has what may still be copied."""

    before: CommitRecord | None = None
    topics: dict[str, TopicState] = msgspec.field(default_factory=dict)
    holes: dict[str, list[Hole]] = msgspec.field(default_factory=dict)
    snapshots: list[Snapshot] = msgspec.field(default_factory=list)
    changes: list[Change] = msgspec.field(default_factory=list)
    fired: list[Fired] = msgspec.field(default_factory=list)


class CommitLog:
    """The log of one partition."""

    def __init__(self, session: Session, layout: Layout, partition: int) -> None:
        self._session = session
        self._layout = layout
        self._partition = partition
        self._stream = layout.state_stream
        self._subject = layout.log(partition, "commit")
        self.fenced = False
        self.gone = False  # the stream was deleted
        self._epoch = 0
        self._number = 0
        self._last = 0  # the sequence of the last commit
        self._commits: deque[tuple[int, int]] = deque()  # numbers and sequences of those that are stored
        self._tracks: dict[_Track, int] = {}  # the first commit since a track's snapshot; ascending
        self._topics: dict[str, int] = {}  # the same of topics
        self._states: dict[str, TopicState] = {}
        self._holes: dict[str, list[Hole]] = {}
        self.letters = Letters(session, layout, partition, self.kept_subjects)
        self.noted = Noted(session, layout, partition)
        self.ids = IdIndex(session, layout, partition)
        self._parts_gone: dict[str, int] = {}  # of topics: about how many parts of their logs were trimmed
        self._stale: dict[str, int] = {}  # subjects of which nothing counts that is before this sequence
        self._purged = 0

    # Taking up ----------------------------------------------------------------------------------------

    async def open(
        self, now: int, created: str, *, at_rest: bool, rightful: Callable[[], Awaitable[bool]] | None = None
    ) -> Written:
        """Fence off the former owner, and read what was written. `at_rest`: nothing will be handed out, so that it is
        as it was if this is cut off. Raise `Refusal`, and `StoreError` where this process is not, or not any more,
        `rightful`."""
        number = 0
        while number >= self._number:
            fence = await self._session.until_answered(
                partial(self._fence, now, created, at_rest, rightful, number), "take over a partition"
            )
            tracks: dict[_Track, TrackRecord] = {}
            topics: dict[str, KeptTopic] = {}
            commits: list[CommitRecord] = []
            self._commits.clear()
            for raw in await self._read_until(fence):
                try:
                    self._read_message(raw, tracks, topics, commits)
                except (msgspec.MsgspecError, ProtocolError, ValueError) as error:
                    pass_over(raw, self._stream, error)
            number = commits[-1].number if commits[-1].number != self._number else 0
        self._purged = commits[0].number
        written = Written(before=commits[-2] if len(commits) > 1 else None)
        self._merge_topics(written, topics, commits)
        self._merge_tracks(written, tracks, commits)
        written.fired = [
            Fired(each.number, [Batch.read(data) for data in each.fired], was_delayed=each.was_delayed)
            for each in commits
            if each.fired and each.number >= commits[-1].copied
        ]
        return written

    def _read_message(
        self,
        raw: Raw,
        tracks: dict[_Track, TrackRecord],
        topics: dict[str, KeptTopic],
        commits: list[CommitRecord],
    ) -> None:
        """Read a message of the log. Raises where Solar Wind did not write it."""
        kind = raw.subject.removeprefix(self._layout.log(self._partition, "")).partition(".")[0]
        if kind == "commit":
            commit = _read_commit(raw)
            if commits and commit.number <= commits[-1].number:
                raise ValueError(f"its number is {commit.number}, behind {commits[-1].number}")
            commits.append(commit)
            self._commits.append((commit.number, raw.seq))
        elif kind == "track":
            track = decode_track(raw.data)
            tracks[track.topic, track.purpose, track.track] = track
        elif kind == "topic":
            topic = decode_topic(raw.data)
            topics[topic.topic.name] = topic
        else:
            raise ValueError(f"its subject is {raw.subject!r}")

    async def _fence(
        self, now: int, created: str, at_rest: bool, rightful: Callable[[], Awaitable[bool]] | None, number: int
    ) -> int:
        """Write the first commit of an epoch, with a number above that one. A process that became the owner meanwhile
        writes behind the last commit that is seen here, so one that does not know of it yet does not fence it off."""
        while True:
            try:
                last = await self._session.last(self._stream, self._subject)
            except Refusal as refusal:
                if refusal.code == NO_STREAM:
                    raise self._deleted() from refusal
                raise
            if rightful is not None and not await rightful():
                self.fenced = True
                raise self._no_owner()
            before = None if last is None else await self._last_commit(last)
            # A log that begins anew continues above the numbers of a deleted one: copies are known by them.
            before = before or CommitRecord(0, now // 1000, 0, 0, created, closed=True)
            closed = at_rest and before.closed
            fence = CommitRecord(
                before.epoch + 1,
                max(before.number, number) + 1,
                max(now, before.time),
                before.seen,
                before.created,
                closed,
                copied=before.copied,
                delayed=before.delayed,
                accepted=before.accepted,
            )
            try:
                mark = {COMMIT: f"{fence.epoch}.{fence.number}", EXPECT: str(last.seq if last else 0)}
                self._last = await self._session.publish(self._subject, encode(fence), mark)
            except Refusal as refusal:
                if refusal.code != WRONG_SEQUENCE:
                    raise
                continue  # the owner before wrote something just now; or this was stored and not answered
            self._epoch, self._number = fence.epoch, fence.number
            return self._last

    async def _last_commit(self, last: Raw) -> CommitRecord | None:
        """Return the commit of which `last` is the message, or the last piece; the one before, if it is not valid."""
        found = await whole(self._session, self._stream, last)
        for raw in (found, *reversed(await self._read_until(last.seq))) if not _is_commit(found) else (found,):
            if raw is not None and raw.subject == self._subject and _is_commit(raw):
                return _read_commit(raw)
        return None

    async def _read_until(self, fence: int) -> list[Raw]:
        """Read all messages of the log up to that one. A replica may be behind: then ask it again."""
        found: list[Raw] = []
        pieces = Pieces()
        seq = 1
        while seq <= fence:
            request = {
                "seq": seq,
                "next_by_subj": self._layout.log(self._partition),
                "batch": PAGE,
                "max_bytes": PAGE_BYTES,
            }
            page: list[Raw] = await self._session.until_answered(
                partial(self._session.get, self._stream, request), "read a partition's log"
            )
            if not page:
                await asyncio.sleep(0.01)
            for raw in page:
                seq = raw.seq + 1
                message = pieces.add(raw)
                if message is not None and raw.seq <= fence:
                    found.append(message)
        return found

    def _merge_topics(self, written: Written, records: dict[str, KeptTopic], commits: list[CommitRecord]) -> None:
        for name, record in records.items():
            written.topics[name], written.holes[name] = record.topic, record.holes
        for commit in commits:
            for topic in commit.topics:
                if topic.name not in records or commit.number > records[topic.name].number:
                    written.topics[topic.name] = topic
                    self._topics.setdefault(topic.name, commit.number)
            for name, holes in commit.holes.items():
                if name not in records or commit.number > records[name].number:
                    written.holes[name] = holes
        self._states, self._holes = dict(written.topics), dict(written.holes)

    def _merge_tracks(self, written: Written, records: dict[_Track, TrackRecord], commits: list[CommitRecord]) -> None:
        for (topic, purpose, _), record in records.items():
            if record.snapshot is not None:
                written.snapshots.append(record.snapshot)
                self.letters.recover((topic, purpose), record.snapshot.dead)
        for commit in commits:
            self.noted.add(commit.notes, commit.number)
            self.ids.recover(commit.ids, commit.number)
            for change in changes_of(commit):
                track = (change.topic, change.purpose, change.track)
                if track not in records or commit.number > records[track].number:
                    written.changes.append(change)
                    self._note(change, commit.number)
                else:
                    self.letters.note_texts(change, commit.number)

    # Writing ------------------------------------------------------------------------------------------

    async def write(
        self,
        record: CommitRecord,
        changes: Sequence[Change],
        snapshots: Sequence[Snapshot],
        pages: Sequence[Message] = (),
    ) -> None:
        """Store a commit, and `pages` of the due-log together with it; give it its epoch and number. Raise `Full` where
        there is no room, and `StoreError` where nothing more can be written: if another process owns the partition, the
        log is `fenced`."""
        if self.fenced:
            raise self._no_owner()
        record.epoch, record.number = self._epoch, self._number + 1
        record.copied = record.copied or record.number
        self._holes |= record.holes
        beside = self._beside(record, changes, snapshots)
        if self.ids.is_full or (self.ids.since is not None and record.number - self.ids.since > PURGE_AFTER):
            beside += self.ids.messages(min(MAX_MESSAGES, TOGETHER - len(beside) - len(pages)))
        for subject, data, headers in pages:
            first_piece, *others = self._in_pieces(subject, data, {})
            first_piece[2].update(headers)
            beside += [first_piece, *others]
        first, self._last = await self._store(record, beside)
        self._number = record.number
        self._commits.append((record.number, first))
        if any(".kept.dead." in subject for subject, _, _ in beside):  # those of before
            self.letters.written()
        if any(".kept.notes." in subject for subject, _, _ in beside):
            self.noted.written()
        self.noted.add(record.notes, record.number)
        self.ids.committed(record.ids, record.number)
        if any(".kept.ids." in subject for subject, _, _ in beside):
            self.ids.written()
        for topic in record.topics:
            self._topics.setdefault(topic.name, record.number)
            self._states[topic.name] = topic
        for change in changes:
            self._note(change, record.number)
        for snapshot in snapshots:
            self._tracks.pop((snapshot.topic, snapshot.purpose, snapshot.track), None)
        fresh: set[str] = set()
        of_topics = self._layout.log(self._partition, "topic.")
        for seq, (subject, data, headers) in enumerate(beside, first - len(beside)):
            if subject.startswith(of_topics):
                self._topics.pop(subject.removeprefix(of_topics), None)
            if ROLLUP.keys() & headers:
                if data:
                    self._stale.pop(subject, None)
                else:
                    self._stale |= {f"{subject}.*": seq + 1, subject: seq + 1}
            elif ".kept." not in subject:
                self._stale[subject] = min(seq, self._stale.get(subject, seq) if subject in fresh else seq)
                fresh.add(subject)

    def _note(self, change: Change, number: int) -> None:
        """Note what a durable change means for what has to be kept."""
        track = (change.topic, change.purpose, change.track)
        self._tracks.setdefault(track, number)
        if change.retired:
            del self._tracks[track]
        self.letters.note(change, number)

    def _beside(self, record: CommitRecord, changes: Sequence[Change], snapshots: Sequence[Snapshot]) -> list[Message]:
        """Return what is stored together with a commit."""
        beside: list[Message] = []
        for snapshot in snapshots:
            beside += self._track(record.number, (snapshot.topic, snapshot.purpose, snapshot.track), snapshot)
        for change in changes:
            if change.retired:
                beside += self._track(record.number, (change.topic, change.purpose, change.track), None)
        changed = {topic.name: topic for topic in record.topics}
        for name, number in list(self._topics.items())[:SNAPSHOTS_TOGETHER]:
            if number > record.number - SNAPSHOT_AFTER:
                break
            topic = KeptTopic(record.number, changed.get(name) or self._states[name], self._holes.get(name, []))
            beside += self._in_pieces(self._layout.log(self._partition, f"topic.{name}"), encode(topic), {})
        if self.letters.since is not None and record.number - self.letters.since > PURGE_AFTER:
            beside += self.letters.messages()
        if self.noted.since is not None and record.number - self.noted.since > PURGE_AFTER:
            beside += self.noted.messages()
        return beside

    def _track(self, number: int, track: _Track, snapshot: Snapshot | None) -> list[Message]:
        topic, purpose, which = track
        subject = self._layout.log(self._partition, f"track.{purpose_name(topic, purpose)}.{which}")
        return self._in_pieces(subject, encode(TrackRecord(number, *track, snapshot)), {})

    def _in_pieces(self, subject: str, data: bytes, headers: dict[str, str]) -> list[Message]:
        return in_pieces(subject, data, headers, self._session.max_payload - HEADERS_BYTES)

    async def _store(self, record: CommitRecord, beside: list[Message]) -> tuple[int, int]:
        """Store messages until it is certain whether they are stored; return the sequences of the first and the
        last."""
        mark = {COMMIT: f"{record.epoch}.{record.number}"}
        data, said, backoff = encode(record), False, Backoff()
        while True:
            try:
                await self._session.ready()
            except SolarWindError as error:
                raise StoreError(str(error)) from None
            try:
                stored = await self._try_or_find(data, mark, beside)
                if stored is None:
                    continue
                if said:
                    log.warning("NATS answers again: partition %d is written", self._partition)
                return stored
            except Refusal as refusal:
                if refusal.code in FULL:
                    raise Full(
                        f"stream {self._stream} has no room left ({refusal}): give it or its account more"
                    ) from refusal
                if refusal.code == NO_STREAM:
                    raise self._deleted() from refusal
                raise StoreError(f"NATS refused to write to stream {self._stream}: {refusal}") from refusal
            except NoAnswer as error:
                if not said:
                    log.warning("waiting to write partition %d: %s", self._partition, error)
                    said = True
                await backoff.pause()
                await self._check_stream()

    async def _try_or_find(self, data: bytes, mark: dict[str, str], beside: list[Message]) -> tuple[int, int] | None:
        """Return the sequences; None where it is to be tried again."""
        try:
            return await self._try(data, mark, beside)
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                raise
            return await self._behind(mark[COMMIT])

    async def _try(self, data: bytes, mark: dict[str, str], beside: list[Message]) -> tuple[int, int]:
        expect = {EXPECT: str(self._last)}
        pieces = self._in_pieces(self._subject, data, mark)
        pieces[0][2].update(expect)
        if len(pieces) == 1 and not beside:
            seq = await self._session.publish(*pieces[0])
        else:
            seq = await self._session.publish_together(beside + pieces)
        return seq - len(pieces) + 1, seq

    async def _behind(self, mark: str) -> tuple[int, int] | None:
        """Look at what is written behind the last commit. If it is this one, whose answer was lost, return its
        sequences; from now on ignore what is no commit. Raise the error where it is another owner's, or all of it was
        purged."""
        pieces, found, last = Pieces(), None, self._last
        while True:
            raw: Raw | None = await self._session.until_answered(
                partial(self._session.next, self._stream, self._subject, last + 1), "see whether a commit is stored"
            )
            if raw is None:
                break
            last = raw.seq
            message = pieces.add(raw)
            if message is None:
                continue
            if not _is_commit(message):
                pass_over(message, self._stream, "it is not a commit")
            elif message.headers[COMMIT] == mark:
                found = message.seq, raw.seq
            else:
                self.fenced = True
                raise self._no_owner()
        if last == self._last:
            if await self._session.last_sequence(self._stream) < last:
                raise NoAnswer("the leader of the stream is behind")  # it was cut off, and will lead no more
            raise StoreError(
                f"expected the commits of partition {self._partition} in {self._stream}, but they were purged"
            )
        self._last = last
        return found and (found[0], last)

    async def _check_stream(self) -> None:
        try:
            await self._session.api(f"STREAM.INFO.{self._stream}")
        except NoAnswer:
            pass
        except Refusal as refusal:
            if refusal.code == NO_STREAM:
                raise self._deleted() from refusal

    def _deleted(self) -> StoreError:
        self.gone = True
        return StoreError(f"expected stream {self._stream}, but it was deleted: start again to make it anew")

    def _no_owner(self) -> StoreError:
        return StoreError(f"partition {self._partition} has another owner now; what was on its way here does not count")

    # What is no longer needed -------------------------------------------------------------------------

    @property
    def purge_due(self) -> bool:
        return self._number - self._purged >= PURGE_AFTER

    async def purge(self, copying: int | None) -> list[str]:
        """Delete the commits that snapshots replace, older snapshots, and empty pages. Return the subjects of which
        something was deleted. `copying` is the first commit of which something is still to be copied."""
        self._purged = self._number
        needed = [next(iter(since.values()), self._number) for since in (self._tracks, self._topics)]
        oldest = min(self._number, *needed, copying or self._number, *self._noted_since())
        seq = 0
        while self._commits and self._commits[0][0] < oldest:
            self._commits.popleft()
            seq = self._commits[0][1] if self._commits else 0
        if seq:
            await self._purge(self._subject, seq=seq)
        stale, self._stale = self._stale, {}
        for subject, seq in stale.items():
            await self._purge(subject, seq=seq)
        last = self._last
        for subject in self.letters.forget():
            await self._purge(subject, seq=last)
        return [subject for subject in stale if not subject.endswith(".*")]

    def _noted_since(self) -> list[int]:
        """Return from which commits on something is nowhere else."""
        return [since for since in (self.letters.since, self.noted.since, self.ids.since) if since is not None]

    async def forget_notes(self, topic: str, gone: Spans) -> None:
        """Delete what was noted about events that are gone, in parts of the topic's log of which all is."""
        parts = len(gone) // NOTES_OF
        if parts != self._parts_gone.get(topic, 0):
            self._parts_gone[topic] = parts
            for subject in await self.kept_subjects(self.noted.subject(topic, "*")):
                if is_over(subject, gone):
                    await self._purge(subject)

    async def _purge(self, subject: str, **what: int) -> None:
        await self._session.until_answered(
            lambda: self._session.api(f"STREAM.PURGE.{self._stream}", {"filter": subject, **what}), "delete old state"
        )

    # The due-log --------------------------------------------------------------------------------------

    async def kept(self, subjects: Sequence[str]) -> dict[str, list[bytes]]:
        """Return the last message of each subject that has one, and behind it those of the subjects below it that came
        later, as of the last commit or later."""
        found: dict[str, list[bytes]] = {}
        for at in range(0, len(subjects), KEPT_TOGETHER):
            some = subjects[at : at + KEPT_TOGETHER]
            found |= await self._session.until_answered(partial(self._kept, some), "read the due-log")
        return found

    async def _kept(self, subjects: Sequence[str]) -> dict[str, list[bytes]]:
        below = [f"{subject}.*" for subject in subjects]
        request = {"multi_last": [self._subject, *subjects, *below], "batch": KEPT_MESSAGES}
        page = {raw.subject: raw for raw in await self._session.get(self._stream, request)}
        commit = page.pop(self._subject, None)
        if commit is None or commit.seq < self._last:
            raise NoAnswer(f"a node that is behind answered for stream {self._stream}")
        found: dict[str, list[bytes]] = {}
        for raw in sorted(page.values(), key=lambda raw: raw.seq):
            of = raw.subject if raw.subject in subjects else raw.subject.rpartition(".")[0]
            message = await whole(self._session, self._stream, raw)
            if message is not None and (of == raw.subject or of in found):
                found.setdefault(of, []).append(message.data)
        return found

    async def kept_subjects(self, of: str) -> list[str]:
        """Return the subjects that have messages, as of the last commit or later."""

        async def ask() -> dict[str, Any]:
            body = {"subjects_filter": of, "offset": len(found)}
            info = await self._session.api(f"STREAM.INFO.{self._stream}", body)
            if info["state"]["last_seq"] < self._last:
                raise NoAnswer(f"a node that is behind answered for stream {self._stream}")
            return info

        found: list[str] = []
        while True:
            info: dict[str, Any] = await self._session.until_answered(ask, "see what is kept")
            page = info["state"].get("subjects") or {}
            found += page
            if not page or len(found) >= info.get("total", 0):
                return found


def _read_commit(raw: Raw) -> CommitRecord:
    """Read a commit. Raise `ValueError` and `MsgspecError` where it is none."""
    commit = decode_commit(raw.data)
    if raw.headers.get(COMMIT) != f"{commit.epoch}.{commit.number}":
        raise ValueError(f"expected the epoch and number of the commit in header {COMMIT}")
    return commit


def _is_commit(raw: Raw | None) -> bool:
    try:
        return raw is not None and bool(_read_commit(raw))
    except (msgspec.MsgspecError, ValueError):
        return False
