"""CloudEvents 1.0 over HTTP: writing events in that format, and reading them."""

from __future__ import annotations

import re
import time
from base64 import b64decode, b64encode
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Annotated, Any, NamedTuple
from urllib.parse import quote, unquote

import msgspec

from ..columns import MAX_TIME, RESERVED, Attributes, check_extensions
from ..errors import BadArgument, BadName, BadPayload, TooLarge
from ..event import Cause, CauseKind, Event
from ..names import check_id, check_key, check_purpose
from ..payload import BYTES, HIDDEN_JSON, JSON, as_json, is_json
from ..timing import time_of, timed

SPECVERSION = "1.0"
STRUCTURED = "application/cloudevents+json"
BATCHED = "application/cloudevents-batch+json"
PREFIX = "ce-"
_HIDDEN = HIDDEN_JSON.partition("; ")[2]  # the parameter alone
MAX_SOURCE = 1_000  # characters
_MAX_NS = 1 << 63
_PLAIN = "".join(map(chr, range(0x21, 0x7F))).replace('"', "").replace("%", "")  # not encoded in a header
_SAFE = "!$&'()*+,;=:@~"
_TIME = re.compile(r"(\d{4}-\d\d-\d\d)[Tt](\d\d:\d\d:\d\d)(?:\.(\d{1,9})\d*)?([Zz]|[+-]\d\d:\d\d)")
_MEDIA_TYPE = re.compile(r"[\w!#$&^.+-]+/([\w!#$&^.+-]+)[ \t]*(;[ -~]*)?", re.ASCII)
_HEADER = re.compile(r"[!-~]([ -~]*[!-~])?")
_KINDS: tuple[CauseKind, ...] = ("user", "schedule", "machine", "application")
_DATA = ("data", "data_base64")
_IN_THE_BODY = {*_DATA, "datacontenttype"}  # no headers in binary mode
_OF_ANOTHER = (("causename", "causekind"), ("causekind", "causename"))  # a cause that is no event
_MAX_ATTRIBUTES_BYTES = 64 << 10  # everything but the data, in structured form
_Data: type[Any] = msgspec.defstruct("Data", [(name, msgspec.Raw, msgspec.Raw()) for name in _DATA])

_decode_text = msgspec.json.Decoder(str).decode
_decode_data = msgspec.json.Decoder(_Data).decode
_decode_members = msgspec.json.Decoder(dict[str, msgspec.Raw]).decode
encode = msgspec.json.Encoder().encode


# The structured form, for OpenAPI.
CloudEvent = Annotated[
    dict[str, Any],
    msgspec.Meta(
        title="CloudEvent",
        description="A CloudEvent 1.0 in structured form. The data is in data_base64 where it is no JSON.",
        extra_json_schema={
            "required": ["specversion", "id", "type", "source"],
            "properties": {
                "specversion": {"const": SPECVERSION},
                **{name: {"type": "string"} for name in ("id", "type", "source", "time", "datacontenttype")},
                **{name: {"type": "string"} for name in ("partitionkey", "correlationid", "data_base64")},
                **{name: {"type": "string", "format": "date-time"} for name in ("duetime", "expirytime")},
            },
        },
    ),
]


# Out -----------------------------------------------------------------------------------------------------


def attributes(event: Event) -> dict[str, str | int]:
    """Return the attributes of a CloudEvent. `attempt` and `purpose` are among them for an event that is handed out."""
    found: dict[str, str | int] = {
        "specversion": SPECVERSION,
        "id": event.id,
        "type": event.topic,
        "source": write_source(event.machine, event.process),
        "time": write_time(event.time_ns),
        "datacontenttype": event.content_type,
    }
    if event.key is not None:
        found["partitionkey"] = event.key
    cause = event.cause
    if cause.kind == "event":
        found["causationid"] = cause.id
        if cause.purpose is not None:
            found["causationpurpose"] = cause.purpose
        if cause.version is not None:
            found["causationversion"] = cause.version
    elif (cause.kind, cause.id) != ("application", event.process):
        found["causekind"], found["causename"] = cause.kind, cause.id
    found["correlationid"] = event.root
    batch, index = event._of.batch, event._index
    for name, at in (("duetime", batch.due(index)), ("expirytime", batch.expires(index))):
        if at is not None:
            found[name] = write_time(at)
    found.update(event.extensions)
    if event.purpose:
        found["purpose"], found["attempt"] = event.purpose, event.attempt
    return found


def to_cloudevent(event: Event) -> dict[str, Any]:
    """Return the event in structured form, for `encode`: JSON in `data`, anything else in `data_base64`.

    A payload fired as JSON need not be valid JSON. One that is not must not break the other events in the document.
    """
    found: dict[str, Any] = dict(attributes(event))
    data = as_json(event.data, event.content_type)
    if data is not None:
        found["data"] = data
    else:
        found["data_base64"] = b64encode(event.data).decode()
    return found


def to_headers(event: Event) -> dict[str, str]:
    """Return the headers of the event in binary form; its body is `event.data`."""
    found = attributes(event)
    content = str(found.pop("datacontenttype"))
    headers = {"content-type": content if _HEADER.fullmatch(content) else BYTES}
    for name, value in found.items():
        headers[PREFIX + name] = quote(str(value), safe=_PLAIN, encoding="utf-8", errors="replace")
    return headers


def write_source(machine: str, process: str) -> str:
    """Return `//machine/process`. A source of another form was read as the process of no machine."""
    if not machine:
        return (process if process.isprintable() else quote(process, safe=_SAFE + "/")) or "//unknown"
    return f"//{quote(machine, safe=_SAFE)}/{quote(process, safe=_SAFE)}"


def read_source(source: str) -> tuple[str, str]:
    """Return the machine and the process from which `write_source` makes the same source again."""
    machine, _, process = source.removeprefix("//").partition("/")
    found = unquote(machine), unquote(process)
    return found if write_source(*found) == source else ("", source)


def write_time(time_ns: int) -> str:
    seconds, ns = divmod(time_ns, 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{ns:09}Z"


def _fired_at(text: str) -> int:
    """Return when an event was fired, in ns since 1970. Raise `BadArgument`."""
    time = read_time(text)
    if time > MAX_TIME:
        raise BadArgument(f"expected the time of an event, from 1970 to 2116, got {text[:80]!a}")
    return time


def read_time(text: str) -> int:
    """Return an RFC 3339 time in ns since 1970, with all nine digits. Raise `BadArgument`."""
    found = _TIME.fullmatch(text)
    if found is not None:
        date, time, fraction, offset = found.groups()
        try:
            whole = datetime.fromisoformat(f"{date}T{time}{offset.upper().replace('Z', '+00:00')}")
        except ValueError:
            pass
        else:
            ns = round(whole.timestamp()) * 1_000_000_000 + int((fraction or "0").ljust(9, "0"))
            if 0 <= ns < _MAX_NS:
                return ns
    raise BadArgument(f"expected a time such as 2026-01-31T12:00:00Z, from 1970 to 2262, got {text[:80]!a}")


# In ------------------------------------------------------------------------------------------------------


class Incoming(NamedTuple):
    """An event that came as a CloudEvent.

    Attributes that an event has no field for (`subject`, `dataschema`, `traceparent`, any extension) become its
    extensions, as text. `…/json` with any parameters becomes `application/json`; any other content type is kept. JSON,
    `…+json` too, is still to be checked.
    """

    data: bytes
    content: str
    time_ns: int | None
    machine: str
    process: str
    attributes: Attributes


def read_structured(body: bytes | msgspec.Raw, topic: str) -> Incoming:
    """Read an event in structured form. Raise `BadPayload`, `BadArgument` and `BadName`."""
    raw = _members(body)
    given = {name: _text(name, value) for name, value in raw.items() if name not in _DATA and bytes(value) != b"null"}
    base64, plain = raw.get("data_base64"), raw.get("data")
    if base64 is not None and bytes(base64) == b"null":
        base64 = None
    if base64 is not None and plain is not None:
        raise BadPayload("expected data or data_base64, got both: send one of them")
    if base64 is not None:
        data, content = _from_base64(base64), given.get("datacontenttype", BYTES)
    elif plain is not None:
        content = given.get("datacontenttype", JSON)
        data = bytes(plain) if is_json(content) else _as_text(plain, content)
    else:
        content = given.get("datacontenttype", JSON)
        data = b"null" if is_json(content) else b""
    return _incoming(given, data, content, topic)


def _members(body: bytes | msgspec.Raw) -> dict[str, msgspec.Raw]:
    """Return the members of a JSON object by name, each undecoded: there may be a hundred thousand."""
    try:
        if len(body) > _MAX_ATTRIBUTES_BYTES:
            found = _decode_data(body)
            rest = len(body) - len(found.data) - len(found.data_base64)
            if rest > _MAX_ATTRIBUTES_BYTES:
                raise TooLarge(
                    f"expected a CloudEvent of at most {_MAX_ATTRIBUTES_BYTES:,} bytes besides its data, got {rest:,}"
                )
        return _decode_members(body)
    except TooLarge:
        raise
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPayload(f"expected a CloudEvent, a JSON object, got something else: {error}") from None


def is_binary(headers: Mapping[str, str]) -> bool:
    """Return whether headers are those of an event in binary form, or were meant to be."""
    return any(name.startswith(PREFIX) for name in headers)


def read_binary(headers: Mapping[str, str], body: bytes, topic: str) -> Incoming:
    """Read an event in binary form, whose attributes are the percent-decoded headers `ce-…`. Raise `BadPayload`,
    `BadArgument` and `BadName`."""
    given: dict[str, str] = {}
    for header, value in headers.items():
        name = header.removeprefix(PREFIX)
        if name == header:
            continue
        if name in _IN_THE_BODY:
            raise BadArgument(
                f"expected the data in the body and its type as content-type, as in CloudEvents' binary mode, got "
                f"header {header}: leave it out, or send the event in structured mode"
            )
        if name in given:
            raise BadArgument(f"expected header {header} once, got it more often")
        try:
            given[name] = unquote(_quoted(value), errors="strict")
        except UnicodeDecodeError:
            raise BadArgument(f"expected header {header} in percent-encoded UTF-8, got {value[:80]!a}") from None
    content = headers.get("content-type", JSON)
    data = body if body or ("content-type" in headers and not is_json(content)) else b"null"
    return _incoming(given, data, content, topic)


def _quoted(value: str) -> str:
    """Return the value without quotes, which some clients put around values with spaces."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        return re.sub(r"\\(.)", r"\1", value[1:-1])
    return value


def _incoming(given: dict[str, str], data: bytes, content: str, topic: str) -> Incoming:
    if given.get("specversion") != SPECVERSION:
        raise BadArgument(f"expected specversion {SPECVERSION!r}, got {_got(given, 'specversion')}")
    for name in ("id", "source", "type"):
        if not given.get(name):
            raise BadArgument(f"expected a CloudEvent with {name}, got none")
    if given["type"] != topic:
        raise BadArgument(
            f"expected events of type {topic!a}, the topic, got {given['type'][:200]!a}: send it to its own topic"
        )
    if len(given["source"]) > MAX_SOURCE or not given["source"].isprintable():
        raise BadArgument(
            f"expected a source of at most {MAX_SOURCE:,} printable characters, got {len(given['source']):,}: "
            f"{given['source'][:80]!a}"
        )
    machine, process = read_source(given["source"])
    if not _MEDIA_TYPE.fullmatch(content) or len(content) > 200:
        raise BadArgument(f"expected a datacontenttype such as {JSON}, got {content[:80]!a}")
    content = _kept(content)
    attributes: dict[str, Any] = {"ids": _checked(given, "id", check_id)}
    if "partitionkey" in given:
        attributes["keys"] = _checked(given, "partitionkey", check_key)
    cause = _cause(given, process)
    if cause is not None:
        attributes["causes"] = cause
    if "duetime" in given or "expirytime" in given:
        attributes |= _timed(given)
    extensions = {name: value for name, value in given.items() if name not in RESERVED}
    if extensions:
        attributes["extensions"] = check_extensions(extensions)
    time_ns = _fired_at(given["time"]) if "time" in given else None
    return Incoming(data, content, time_ns, machine, process, attributes)


def _kept(content: str) -> str:
    """Return a content type as it is kept: as stated, but for what only a server may say, that a payload is hidden."""
    lower = content.lower()
    return JSON if lower == JSON or (is_json(content) and _HIDDEN in lower) else content


def _timed(given: dict[str, str]) -> dict[str, int]:
    """Return when the event is due, and when it expires, as far as that is stated."""
    try:
        due, end = (time_of(read_time(given[name])) if name in given else None for name in ("duetime", "expirytime"))
        return timed(time.time_ns(), at=due, expires=end)
    except BadArgument as error:
        raise BadArgument(f"attributes duetime and expirytime: {error}") from None


def _check_whole_cause(given: dict[str, str]) -> None:
    """Raise `BadArgument` where attributes of a cause lack the one that they are about, or speak of two causes."""
    for name, needed in (("causationpurpose", "causationid"), ("causationversion", "causationid"), *_OF_ANOTHER):
        if name in given and needed not in given:
            raise BadArgument(f"expected {needed} with {name}, got none: send both, or neither")
    if "causationid" in given and "causekind" in given:
        raise BadArgument(
            "expected one cause, an event by causationid or another by causekind and causename, got both: send one"
        )


def _cause(given: dict[str, str], process: str) -> Cause | None:
    _check_whole_cause(given)
    root = _checked(given, "correlationid", check_id) if "correlationid" in given else None
    if "causationid" in given:
        id, version = _checked(given, "causationid", check_id), given.get("causationversion")
        if version is not None and not re.fullmatch(r"[1-9]\d{0,8}", version, re.ASCII):
            raise BadArgument(f"expected a causationversion of 1 or more, got {version[:80]!a}")
        purpose = _checked(given, "causationpurpose", check_purpose) if "causationpurpose" in given else None
        return Cause("event", id, purpose, int(version) if version is not None else None, root or id)
    if root == given["id"]:
        root = None
    if "causekind" in given:
        kind = next((each for each in _KINDS if each == given["causekind"]), None)
        if kind is None:
            raise BadArgument(f"expected a causekind, one of {', '.join(_KINDS)}, got {given['causekind'][:80]!a}")
        return Cause(kind, _checked(given, "causename", check_id), root=root)
    return Cause("application", process, root=root) if root is not None else None


def _got(given: dict[str, str], name: str) -> str:
    return ascii(given[name][:80]) if name in given else "none"


def _checked(given: dict[str, str], name: str, check: Callable[[object], str]) -> str:
    """Return a checked attribute. Raise `BadName` with the attribute's name."""
    try:
        return check(given[name])
    except BadName as error:
        raise BadName(f"attribute {name}: {error}") from None


def _text(name: str, value: msgspec.Raw) -> str:
    """Return an attribute as text: it may be text, a whole number, or a boolean."""
    text = bytes(value)
    if re.fullmatch(rb"-?\d{1,10}|true|false", text):
        return text.decode()
    try:
        return _decode_text(text)
    except (msgspec.DecodeError, ValueError):
        got = "an array or object" if text[:1] in (b"[", b"{") else ascii(text[:80].decode(errors="replace"))
        raise BadArgument(
            f"expected attribute {name} as text, a whole number of at most 10 digits, true or false, which are all "
            f"types that CloudEvents has in JSON, got {got}: send it as text, or in the data"
        ) from None


def _from_base64(value: msgspec.Raw) -> bytes:
    try:
        return b64decode(_decode_text(value), validate=True)
    except (msgspec.DecodeError, ValueError) as error:
        raise BadPayload(f"expected data_base64 in base64, got something else: {error}") from None


def _as_text(value: msgspec.Raw, content: str) -> bytes:
    try:
        return _decode_text(value).encode()
    except (msgspec.DecodeError, ValueError):
        raise BadPayload(
            f"expected text as data of type {content[:80]!a}, got something else: bytes go into data_base64"
        ) from None
