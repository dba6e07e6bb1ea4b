"""AsyncAPI 3.1: the document that says which topics there are, who receives from them for what purpose, and what their
events look like.

A topic is a channel, each version of a purpose an operation that receives, what producers state and handlers fire an
operation that sends, and each type of a payload a message.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import msgspec

from .asyncapi_schemas import Components, Free, Schema, title_of, word_of
from .errors import BadArgument
from .records import SchemaInfo

VERSION = "3.1.0"
MEDIA_TYPE = "application/json"
_JSON, _BYTES = "application/json", "application/octet-stream"


def document(
    infos: Iterable[SchemaInfo], *, title: str, version: str, servers: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Return the document of these topics and purposes. `version` is that of the application, `servers` its AsyncAPI
    servers, if there are any. Raise `BadArgument` for a title or version that is no text or empty."""
    for name, value in (("title", title), ("version", version)):
        if not isinstance(value, str) or not value.strip():
            raise BadArgument(f"expected {name} of an AsyncAPI document to be a text that is not empty, got {value!a}")
    made = _Document()
    for info in infos:
        made.add(info)
    return made.whole(title, version, servers or {})


class _Document:
    def __init__(self) -> None:
        self._channels: dict[str, Schema] = {}
        self._operations: dict[str, Schema] = {}
        self._sent: dict[str, list[Schema]] = {}  # by topic, by which purposes
        self._stated: set[str] = set()  # topics of which producers state a schema
        self._messages: dict[str, Schema] = {}
        self._names: dict[bytes, str] = {}  # of messages, by their encoding
        self._message_names, self._operation_names = Free(), Free()
        self._components = Components()

    def add(self, info: SchemaInfo) -> None:
        """Add what is known of a topic, or of a version of a purpose."""
        channel = self._channel(info.topic)
        message = self._message(info)
        channel["messages"][message] = {"$ref": f"#/components/messages/{message}"}
        reference = {"$ref": f"#/channels/{info.topic}/messages/{message}"}
        if not info.purpose:
            if info.schema is not None:
                self._stated.add(info.topic)
            self._sent.setdefault(info.topic, [])
            return
        how = {"purpose": info.purpose, "version": info.version, "exchange": info.exchange}
        if info.key is not None:
            how["key"] = info.key
        if info.retry is not None:
            how["retry"] = info.retry
        name = self._operation_names.name(
            f"receive-{info.topic}-{word_of(info.purpose)}-v{info.version}", self._operations
        )
        self._operations[name] = {
            "action": "receive",
            "channel": {"$ref": f"#/channels/{info.topic}"},
            "title": info.purpose,
            "summary": f"{info.purpose} (version {info.version})",
            "messages": [reference],
            "x-solarwind": how,
        }
        for topic in info.fires:
            by = {"topic": info.topic, "purpose": info.purpose, "version": info.version}
            self._sent.setdefault(topic, []).append(by)

    def _channel(self, topic: str) -> Schema:
        return self._channels.setdefault(topic, {"address": topic, "messages": {}})

    def _message(self, info: SchemaInfo) -> str:
        """Return the name of the message for the payloads of an info, which is made unless there is the same."""
        payload = None if info.schema is None else self._components.add(info.schema)
        title = "" if info.schema is None else title_of(info.schema)
        made: Schema = {"contentType": _BYTES if payload == {"type": "string", "format": "binary"} else _JSON}
        if payload is not None:
            made["payload"] = payload
        made["name"] = made["title"] = title or f"{info.topic} event"
        key = msgspec.json.encode(made, order="sorted")
        if key not in self._names:
            self._names[key] = self._message_names.name(title or f"{info.topic}-event", self._messages)
            self._messages[self._names[key]] = made
        return self._names[key]

    def whole(self, title: str, version: str, servers: dict[str, Any]) -> dict[str, Any]:
        """Return the document of all that was added."""
        for topic, by in sorted(self._sent.items()):
            channel = self._channel(topic)
            if not channel["messages"]:
                message = self._message(SchemaInfo(topic))
                channel["messages"][message] = {"$ref": f"#/components/messages/{message}"}
            operation: Schema = {
                "action": "send",
                "channel": {"$ref": f"#/channels/{topic}"},
                "summary": f"Fire on {topic}",
                "x-solarwind": {"stated": topic in self._stated, "firedBy": by},
            }
            self._operations[self._operation_names.name(f"send-{topic}", self._operations)] = operation
        made: dict[str, Any] = {
            "asyncapi": VERSION,
            "info": {"title": title, "version": version},
            "defaultContentType": _JSON,
        }
        if servers:
            made["servers"] = servers
        components = {"messages": self._messages, "schemas": self._components.schemas}
        if any("security" in each for each in servers.values()):
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return made | {"channels": self._channels, "operations": self._operations, "components": components}


def encode(made: dict[str, Any]) -> bytes:
    """Return a document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"
