"""Definitions of a namespace: keys of its bucket, each changed by compare-and-set on its last message."""

from __future__ import annotations

from functools import partial
from typing import Any

import msgspec

from ..errors import ConflictError
from ..store.definitions import Definition, StoredDefinitions, check_before, check_count
from .layout import Layout
from .session import EXPECT, WRONG_SEQUENCE, Raw, Refusal, Session, log, refused

PAGE: dict[str, Any] = {"batch": 256, "max_bytes": 4 << 20}
TRIES = 10

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Definition).decode


class DefinitionKeys:
    """The keys of the bucket that are definitions. One that was removed stays as a key without a value, so that a
    process that was away learns of it."""

    def __init__(self, session: Session, layout: Layout) -> None:
        self._session = session
        self._layout = layout
        self._stream = layout.bucket_stream
        self.definitions = StoredDefinitions(self._change, self._read, lasting=True)

    def received(self, raw: Raw) -> None:
        """Read a key of the bucket that changed."""
        definition = self._read_one(raw)
        if definition is not None:
            self.definitions.tell(definition)

    def _read_one(self, raw: Raw) -> Definition | None:
        if not raw.subject.startswith(self._layout.key("definition.")):
            return None
        try:
            return msgspec.structs.replace(_decode(raw.data), number=raw.seq)
        except msgspec.MsgspecError:
            log.error("key %s of bucket %s was not written by Solar Wind", raw.subject, self._layout.bucket)
            return None

    async def _change(self, kind: str, name: str, value: bytes | None, before: int | None) -> Definition | None:
        subject = self._layout.definition(kind, name)
        data = _encode(Definition(kind, name, value, 0))
        for _ in range(TRIES):
            raw = await self._session.until_answered(
                partial(self._session.last, self._stream, subject), "read a definition"
            )
            found = None if raw is None else self._read_one(raw)
            is_there = found is not None and found.value is not None
            check_before(kind, name, found.number if found is not None and is_there else 0, before)
            if value is None and not is_there:
                return None
            if raw is None:
                await self._check_count()
            number = await self._put(subject, data, raw.seq if raw is not None else 0)
            if number is not None:
                return Definition(kind, name, value, number)
        raise ConflictError(f"expected to change {kind} {name!r}, but others keep changing it: try again")

    async def _put(self, subject: str, data: bytes, expected: int) -> int | None:
        """Return the number of the change; None if another process was first."""
        try:
            return await self._session.until_answered(
                partial(self._session.publish, subject, data, {EXPECT: str(expected)}), "write a definition"
            )
        except Refusal as refusal:
            if refusal.code != WRONG_SEQUENCE:
                raise refused(refusal, "write a definition") from refusal
        raw = await self._session.until_answered(
            partial(self._session.last, self._stream, subject), "read a definition"
        )
        # The answer to an earlier try may have been lost.
        return raw.seq if raw is not None and raw.seq > expected and raw.data == data else None

    async def _check_count(self) -> None:
        """Check how many there are; names that were used once count, too."""
        info = await self._session.until_answered(
            partial(
                self._session.api,
                f"STREAM.INFO.{self._stream}",
                {"subjects_filter": self._layout.key("definition.>")},
            ),
            "count definitions",
        )
        check_count(len(info["state"].get("subjects") or ()) + 1)

    async def _read(self, kind: str | None) -> list[Definition]:
        found: dict[str, Definition] = {}
        request = {"seq": 1, "next_by_subj": self._layout.key(f"definition.{kind or '*'}.*"), **PAGE}
        while page := await self._session.until_answered(
            partial(self._session.page, self._stream, request), "read definitions"
        ):
            for raw in page:
                definition = self._read_one(raw)
                if definition is not None:  # a replica that is behind gives an older one first
                    found[raw.subject] = definition
            request = {**request, "seq": page[-1].seq + 1}
        return [each for each in found.values() if each.value is not None]
