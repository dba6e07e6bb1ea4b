"""Topics whose payloads are of a type that this process states: what it fires there is checked."""

from __future__ import annotations

from typing import Any

import msgspec

from ..errors import BadPayload
from ..payload import Decoder, decoder
from ..schema import stated_schema


class TypedTopic(msgspec.Struct, frozen=True, eq=False):
    """A topic's type, by its name, and its JSON Schema."""

    topic: str
    name: str
    schema: bytes
    decode: Decoder

    def check(self, data: bytes, content: str) -> None:
        """Raise `BadPayload` for a payload that is not of the type."""
        try:
            self.decode(data, content)
        except BadPayload as error:
            raise BadPayload(
                f"expected a payload for topic {self.topic!r} that is a {self.name}, as stated with schema=: {error}"
            ) from None


def typed_topic(topic: str, type_: Any) -> TypedTopic:
    """Return a topic with its type. Raise `BadArgument` for what is no type of a payload."""
    schema = stated_schema(type_)
    return TypedTopic(topic, str(getattr(type_, "__qualname__", type_)), schema, decoder(type_))
