"""An event as a row of the outbox, and back: what the caller's process writes, and the relay reads."""

from __future__ import annotations

from typing import Any
from zlib import crc32

import msgspec

from ..columns import MAX_TIME, Extensions, Time
from ..errors import BadArgument
from ..event import Cause
from ..names import check_content, check_id
from ..service.receipts import Fired
from ..text import plain
from .sql import BUCKETS


class Attributes(msgspec.Struct, omit_defaults=True):
    """What the column `attributes` holds as JSON: what an event says besides its topic, id and payload."""

    time: Time | None = None  # when it was fired, in ns since 1970
    keys: str | None = None
    causes: Cause | None = None
    due: Time | None = None
    expires: Time | None = None
    extensions: Extensions | None = None


EXAMPLE = '{"keys": "k"}'
_write = msgspec.json.Encoder().encode
_read = msgspec.json.Decoder(Attributes).decode
_FIELDS = tuple(field for field in Attributes.__struct_fields__ if field != "time")  # of `columns.COLUMNS`


class OutboxRow(msgspec.Struct):
    """A row that a relay has claimed."""

    place: int
    id: str
    topic: str
    content: str
    payload: bytes
    attributes: str
    written: int  # about when, in ns since 1970

    def read(self) -> tuple[int, dict[str, Any]]:
        """Return when it was fired, and its attributes by column. Raise `BadName` and `BadArgument` for what cannot
        be read: another program may have written it."""
        check_id(self.id)
        check_content(self.content)
        try:
            found = _read(self.attributes)
        except (msgspec.MsgspecError, ValueError, RecursionError) as error:
            fault = plain(str(error))
            raise BadArgument(
                f"expected attributes as a JSON object such as {EXAMPLE}, got another: {fault[:1].lower()}{fault[1:]}"
            ) from None
        columns = {field: value for field in _FIELDS if (value := getattr(found, field)) is not None}
        columns["ids"] = self.id
        time = self.written if found.time is None else found.time
        return min(max(0, time), MAX_TIME), columns  # `written` is what the database says, of any year


def row_of(fired: Fired) -> tuple[Any, ...]:
    """Return the values of `sql.COLUMNS` for an event."""
    columns = dict(fired.attributes)
    id = columns.pop("ids")
    attributes = _write(Attributes(time=fired.time, **columns)).decode()
    return bucket_of(fired.topic, columns.get("keys")), id, fired.topic, fired.content, fired.data, attributes


def bucket_of(topic: str, key: str | None) -> int:
    """Return the bucket of a key. The events of a topic that have none are in one bucket, so they keep their order."""
    return crc32(f"{topic}\n{key or ''}".encode()) % BUCKETS
