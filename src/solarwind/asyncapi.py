"""AsyncAPI 3.1: the document that says which topics there are, who receives from them for what purpose, and what their
events look like.

A topic is a channel, each version of a purpose an operation that receives, what producers state and handlers fire an
operation that sends, and each type of a payload a message.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

import msgspec

from .errors import BadArgument
from .records import SchemaInfo

VERSION = "3.1.0"
MEDIA_TYPE = "application/json"
_REF = "#/$defs/"
_JSON, _BYTES = "application/json", "application/octet-stream"

Schema = dict[str, Any]


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
        self._schemas: dict[str, Any] = {}

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
        name = self._free(f"receive-{_word(info.topic)}-{_word(info.purpose)}-v{info.version}", self._operations)
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
        payload, title = (None, "") if info.schema is None else self._payload(info.schema)
        made: Schema = {"contentType": _BYTES if payload == {"type": "string", "format": "binary"} else _JSON}
        if payload is not None:
            made["payload"] = payload
        made["name"] = made["title"] = title or f"{info.topic} event"
        wanted = _word(title) if title else f"{_word(info.topic)}-event"
        name = next((name for name, there in self._messages.items() if there == made), None)
        if name is None:
            name = self._free(wanted, self._messages)
            self._messages[name] = made
        return name

    def _payload(self, schema: Schema) -> tuple[Schema, str]:
        """Return a schema as it is here, with what it refers to among the components, and the name of its type."""
        defs = schema.get("$defs", {})
        names = self._named(defs if isinstance(defs, dict) else {})
        root = _moved({name: each for name, each in schema.items() if name != "$defs"}, names)
        reference = schema.get("$ref")
        title = reference.removeprefix(_REF) if isinstance(reference, str) else str(schema.get("title", ""))
        return root, title

    def _named(self, defs: Schema) -> dict[str, str]:
        """Add schemas to the components, and return what each is called there: one of a name that is another's already
        gets a number."""
        names = {name: _word(name) for name in defs}
        while True:
            clashing = [
                name
                for name in defs
                if self._schemas.get(names[name], _NOT_THERE) not in (_NOT_THERE, _moved(defs[name], names))
            ]
            if not clashing:
                break
            for name in clashing:
                names[name] = _next(names[name])
        for name, each in defs.items():
            self._schemas[names[name]] = _moved(each, names)
        return names

    @staticmethod
    def _free(wanted: str, among: dict[str, Any]) -> str:
        while wanted in among:
            wanted = _next(wanted)
        return wanted

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
            self._operations[self._free(f"send-{_word(topic)}", self._operations)] = operation
        made: dict[str, Any] = {
            "asyncapi": VERSION,
            "info": {"title": title, "version": version},
            "defaultContentType": _JSON,
        }
        if servers:
            made["servers"] = servers
        components = {"messages": self._messages, "schemas": self._schemas}
        if any("security" in each for each in servers.values()):
            components["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return made | {"channels": self._channels, "operations": self._operations, "components": components}


_NOT_THERE = object()


def _word(text: str) -> str:
    """Return a name as the key of a component may be: of A-Z a-z 0-9 . - and _."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "unnamed"


def _next(name: str) -> str:
    """Return the name with the next number."""
    stem, dash, number = name.rpartition("-")
    return f"{stem}-{int(number) + 1}" if dash and number.isdecimal() else f"{name}-2"


def _moved(schema: Any, names: dict[str, str]) -> Any:
    """Return a schema as AsyncAPI has them, with references to components: that is JSON Schema of draft 07, and a
    discriminator that is only the name of a field."""
    if isinstance(schema, list):
        return [_moved(each, names) for each in schema]
    if not isinstance(schema, dict):
        return schema
    moved: Schema = {}
    for name, value in schema.items():
        if name == "$ref" and isinstance(value, str):
            found = value.removeprefix(_REF)
            moved[name] = f"#/components/schemas/{names.get(found, _word(found))}"
        elif name == "discriminator" and isinstance(value, dict):
            moved[name] = value.get("propertyName", "type")
        elif name == "prefixItems":
            moved["items"] = _moved(value, names)
        elif name == "items" and "prefixItems" in schema:
            moved["additionalItems"] = _moved(value, names)
        elif name in _LITERAL:
            moved[name] = value
        elif name in _BY_NAME and isinstance(value, dict):
            moved[name] = {key: _moved(each, names) for key, each in value.items()}
        else:
            moved[name] = _moved(value, names)
    return moved


_LITERAL = {"enum", "const", "default", "examples", "example", "required"}
_BY_NAME = {"properties", "patternProperties", "$defs", "definitions", "dependencies"}


def encode(made: dict[str, Any]) -> bytes:
    """Return a document as indented JSON."""
    return msgspec.json.format(msgspec.json.encode(made), indent=2) + b"\n"
