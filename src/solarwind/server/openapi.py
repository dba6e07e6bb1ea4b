"""The OpenAPI 3.1 description of the HTTP endpoints, made from the table that the server uses."""

from __future__ import annotations

import re
from collections.abc import Sequence
from http import HTTPStatus
from importlib.metadata import version
from typing import Any

import msgspec
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from . import cloudevents
from .call import JSON_TYPE, PROBLEM_TYPE
from .endpoint import Endpoint
from .schemas import COMPONENTS, ID, PURPOSE, SCHEDULE, TOPIC, Schema

_PIECE_BYTES = 16 << 10
_LICENSE = {"name": "Apache License 2.0", "identifier": "Apache-2.0"}
_PATH = {"topic": TOPIC, "purpose": PURPOSE, "name": TOPIC, "id": ID, "file": {"type": "string"}}
_RIGHTS = {
    "fire": "Needs the right to fire on the topic.",
    "listen": "Needs the right to listen to the topic for the purpose.",
    "watch": "Needs the right `watch`; payloads and errors in the answer need `watch:payloads`. `admin` has both.",
    "admin": "Needs the right `admin`.",
    "any": "Needs any token.",
    "open": "Needs no token.",
}


class Problem(msgspec.Struct):
    """RFC 9457. `code` is stable; `detail` is for people."""

    type: str
    title: str
    status: int
    detail: str
    code: str


def answer(document: bytes) -> Response:
    return _InPieces(document, media_type=JSON_TYPE)


class _InPieces(Response):
    """Sends the document piece by piece: any client may request it, so only one piece waits to be read."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for at in range(0, len(self.body), _PIECE_BYTES):
            piece, more = self.body[at : at + _PIECE_BYTES], at + _PIECE_BYTES < len(self.body)
            await send({"type": "http.response.body", "body": piece, "more_body": more})


def document_of(endpoints: Sequence[Endpoint], root: str) -> bytes:
    """Return the description of the endpoints. `root` is the path that this app is mounted at."""
    types = [Problem, cloudevents.CloudEvent]
    for each in endpoints:
        types += [kind for kind in (each.body, each.query, each.answer) if kind is not None and type(kind) is not tuple]
    schemas, components = msgspec.json.schema_components(types, ref_template=COMPONENTS)
    refs = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, Any] = {}
    for each in endpoints:
        paths.setdefault(each.path, {})[each.method.lower()] = _described(each, refs, components)
    for each in endpoints:
        if each.query is not None:  # its fields are parameters, each by itself
            components.pop(each.query.__name__, None)
    document = {
        "openapi": "3.1.0",
        "info": {"title": "Solar Wind", "version": version("solarwind"), "license": _LICENSE},
        "servers": [{"url": root}],
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
        },
    }
    return msgspec.json.encode(document)


def _key(kind: Any) -> str:
    return repr(kind)


def _described(each: Endpoint, refs: dict[str, Schema], components: dict[str, Schema]) -> Schema:
    made: Schema = {
        "operationId": f"{each.method.lower()}-{re.sub('[^a-z0-9]+', '-', each.path.lower()).strip('-')}",
        "summary": each.summary,
        "description": _RIGHTS[each.right],
        "security": [] if each.right == "open" else [{"token": []}],
        "parameters": _parameters(each, components),
        "responses": {str(status): _success(each, refs, status) for status in each.statuses}
        | {
            status: {"description": what, "content": {PROBLEM_TYPE: {"schema": refs[_key(Problem)]}}}
            for status, what in (("4XX", "It was refused."), ("5XX", "It cannot be done now."))
        },
    }
    if each.method == "POST" and each.path.endswith("/events"):
        made["requestBody"] = {"required": True, "content": _event_bodies(refs)}
    elif each.body is not None:
        schema = refs[_key(each.body)]
        required = "oneOf" in schema or bool(components[schema["$ref"].rpartition("/")[2]]["required"])
        made["requestBody"] = {"required": required, "content": {JSON_TYPE: {"schema": schema}}}
    return made


def _success(each: Endpoint, refs: dict[str, Schema], status: int) -> Schema:
    if each.answer is None:
        return {"description": "It is done." if 200 <= status < 300 else f"{HTTPStatus(status).phrase}."}
    if isinstance(each.answer, tuple):
        return {
            "description": each.summary,
            "content": {media: {"schema": {"type": "string"}} for media in each.answer},
        }
    return {"description": each.summary, "content": {JSON_TYPE: {"schema": refs[_key(each.answer)]}}}


def _path_schema(path: str, name: str) -> Schema:
    """Return the schema of a part of a path: the one called name is a schedule's, or a webhook's, which is as a
    topic's."""
    return SCHEDULE if name == "name" and "/schedules/" in path else _PATH[name]


def _parameters(each: Endpoint, components: dict[str, Schema]) -> list[Schema]:
    found = [
        {"name": name, "in": "path", "required": True, "schema": _path_schema(each.path, name)}
        for name in re.findall(r"\{(\w+)\}", each.path)
    ]
    if each.query is not None:
        # They stand in the query one by one, not as an object.
        schema = components[each.query.__name__]
        found += [
            {"name": name, "in": "query", "required": name in schema["required"], "schema": _said(field)}
            for name, field in schema["properties"].items()
        ]
    return found


def _said(field: Schema) -> Schema:
    """Return the schema without null: a parameter that is null is left out."""
    found: Schema = field.get("anyOf", [field])[0]
    return found


def _event_bodies(refs: dict[str, Schema]) -> Schema:
    event = refs[_key(cloudevents.CloudEvent)]
    return {
        JSON_TYPE: {"schema": {"description": "The payload of one event, or a CloudEvent's data in binary mode."}},
        "application/x-ndjson": {"schema": {"type": "string", "description": "A payload a line."}},
        "application/octet-stream": {"schema": {"type": "string", "format": "binary"}},
        cloudevents.STRUCTURED: {"schema": event},
        cloudevents.BATCHED: {"schema": {"type": "array", "items": event}},
    }
