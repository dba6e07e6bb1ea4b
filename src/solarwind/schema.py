"""JSON Schemas of payloads: of a type, and whether what one describes can be read as another.

A schema travels as the bytes of one JSON object, which has all it refers to in its `$defs`. It is made of annotations:
by pydantic for what pydantic reads, with aliases as they are in JSON, and by msgspec for everything else.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from functools import lru_cache
from itertools import zip_longest
from math import ceil, floor
from types import UnionType
from typing import Any, Union, get_args, get_origin

import msgspec

from . import models
from .errors import BadArgument
from .names import shown
from .payload import decoder, unwrapped
from .text import plain

Schema = dict[str, Any]

MAX_SCHEMA_BYTES = 48 << 10
MAX_NESTING = 100  # of values within each other
MAX_FAULTS = 20  # that are looked for
_MAX_FAULT = 500  # characters
_MAX_DEPTH = 50  # of schemas within each other that are compared
_MAX_STEPS = 20_000  # pairs of schemas that are compared: what is left then counts as open
_REF = "#/$defs/"
_BYTES: Schema = {"type": "string", "format": "binary"}
_BINARY = (bytes, bytearray, memoryview)

_encode = msgspec.json.Encoder().encode


def schema_of(type_: Any) -> bytes:
    """Return the schema of a payload's type; nothing where it allows anything, where no schema can be made of it, or
    where that would have more than 48 KiB."""
    try:
        return _schema_of(type_)
    except TypeError:  # not hashable: what is annotated with may be anything
        return _make(type_)


def _make(type_: Any) -> bytes:
    try:
        made = _document(type_)
        data = _encode(made) if made else b""
    except Exception:  # what a type is annotated with may raise anything
        return b""
    return data if len(data) <= MAX_SCHEMA_BYTES else b""


_schema_of = lru_cache(maxsize=1024)(_make)


def stated_schema(type_: Any) -> bytes:
    """Return the schema of a type that somebody stated for a topic. Raise `BadArgument` for what is no type of a
    payload, and where no schema can be made of it."""
    example = "a class such as a Struct, a dataclass or a pydantic model, or a union of them"
    if isinstance(type_, str | bytes | dict | list | tuple | int | float) or type_ is None:
        raise BadArgument(f"expected schema= to be a type, {example}, got {shown(type_)}")
    decoder(type_)
    try:
        data = _encode(_document(type_))
    except Exception as error:  # what a type is annotated with may raise anything
        text = str(error).partition("\n")[0]
        raise BadArgument(f"expected schema= of which a JSON Schema can be made, {example}: {text}") from None
    if len(data) > MAX_SCHEMA_BYTES:
        raise BadArgument(
            f"expected schema= whose JSON Schema has at most {MAX_SCHEMA_BYTES:,} bytes, got {len(data):,}: "
            "leave parts of it open, such as with dict"
        )
    return data


def read_schema(data: bytes) -> Schema:
    """Return a schema that came from elsewhere. Raise `BadArgument` unless it is one JSON object of limited size."""
    if len(data) > MAX_SCHEMA_BYTES:
        raise BadArgument(f"expected a schema of at most {MAX_SCHEMA_BYTES:,} bytes, got {len(data):,}")
    try:
        found = msgspec.json.decode(data, type=Schema)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise BadArgument(f"expected a schema, a JSON object, got another: {error}") from None
    level: list[Any] = [found]
    for _ in range(MAX_NESTING):
        level = [each for value in level for each in _within(value)]
        if not level:
            return found
    raise BadArgument(f"expected a schema of at most {MAX_NESTING} values within each other, got more")


def _within(value: Any) -> Iterable[Any]:
    return value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()


# Of a type --------------------------------------------------------------------------------------------------------


def _document(type_: Any) -> Schema:
    bare = unwrapped(type_)
    if bare is Any or bare is object or bare is msgspec.Raw:
        return {}
    if bare in _BINARY:
        return _BYTES
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else ()
    others = [each for each in members if unwrapped(each) not in _BINARY]
    if others and len(others) < len(members):  # bytes come as they are, not in JSON
        made = _document(Union[tuple(others)])  # noqa: UP007
        defs = made.pop("$defs", {})
        return {"anyOf": [made, _BYTES], "$defs": defs} if made else {}
    if models.reader_of(type_) is not None:
        return _named(models.json_schema(type_))
    within: dict[type, Schema] = {}  # the models in it

    def of_model(found: type) -> Schema:
        if not models.is_model(found):
            raise NotImplementedError(found)
        return within.setdefault(found, {"type": "object"})

    made = msgspec.json.schema(type_, schema_hook=of_model)
    if not within:
        return made
    own, prefix = made.get("$defs", {}), ""
    described, defs = models.json_schemas(within, f"{_REF}{{model}}")
    if own.keys() & defs.keys():  # another type has the name of a model
        prefix = "pydantic."
        described, defs = models.json_schemas(within, f"{_REF}{prefix}{{model}}")
    within.update(described)
    made = msgspec.json.schema(type_, schema_hook=of_model)
    return {**made, "$defs": {f"{prefix}{name}": each for name, each in defs.items()} | made.get("$defs", {})}


def _named(schema: Schema) -> Schema:
    """Return the schema of a model as a reference to it by its name, as all others are."""
    defs, name = schema.pop("$defs", {}), str(schema.get("title", ""))
    if name and name not in defs and "$ref" not in schema:
        defs[name], schema = schema, {"$ref": f"{_REF}{name}"}
    return {**schema, "$defs": defs} if defs else schema


# Whether one can be read as another -------------------------------------------------------------------------------


def unreadable(written: Schema, read: Schema) -> list[str]:
    """Return why not all that `written` describes can be read as `read`: a clause for each fault, such as "field
    $.title is required, and does not come", twenty at most. What either leaves open is no fault, and so is all of one
    that is no JSON Schema."""
    faults: list[str] = []
    try:
        for found in _Comparison(written, read).faults(written, read, "$", 0):
            fault = plain(found[:_MAX_FAULT])  # names are in it that came from elsewhere
            if fault not in faults:
                faults.append(fault)
            if len(faults) == MAX_FAULTS:
                break
    except (
        TypeError,
        AttributeError,
        ValueError,
        OverflowError,
    ):  # it came from elsewhere: names may be numbers, and lists texts
        return []
    return faults


_LOWEST = ("minimum", "minLength", "minItems", "minProperties")
_HIGHEST = ("maximum", "maxLength", "maxItems", "maxProperties")
_OUTSIDE = {"minimum": "exclusiveMinimum", "maximum": "exclusiveMaximum"}  # bounds that are outside themselves
# The formats that handlers' types check, and those that are narrower than one of them.
_CHECKED = {"date-time", "date", "time", "duration", "uuid", "decimal", "email", "uri", "ipv4", "ipv6"}
_NARROWER = {f"uuid{version}": "uuid" for version in range(1, 9)} | {"date-past": "date", "date-future": "date"}


class _Comparison:
    def __init__(self, written: Schema, read: Schema) -> None:
        self._written = written.get("$defs", {})
        self._read = read.get("$defs", {})
        self._seen: set[tuple[int, int]] = set()  # pairs that are compared; a type may be within itself, and in unions
        self._merged: dict[tuple[int, int], tuple[Any, Schema]] = {}  # those with parts, by their ids
        self._made: list[Any] = []  # what the documents do not hold stays alive, so that its id is no other's
        self._steps = 0

    def faults(self, written: Any, read: Any, path: str, depth: int) -> Iterator[str]:
        written, read = self._whole(written, self._written), self._whole(read, self._read)
        if read is False and written not in (False, None):
            yield f"nothing is expected at {path}, and something comes"
            return
        pair = id(written), id(read)
        self._steps += 1
        if pair in self._seen or self._steps > _MAX_STEPS:
            return
        self._seen.add(pair)
        self._made += written, read
        if depth > _MAX_DEPTH or not isinstance(written, dict) or not isinstance(read, dict) or not (written and read):
            return
        if alternatives := _alternatives(written):
            for each in alternatives:
                yield from self.faults(each, read, path, depth + 1)
        elif alternatives := _alternatives(read):
            yield from self._of_alternatives(written, alternatives, path, depth)
        else:
            yield from self._of_values(written, read, path)
            yield from self._of_object(written, read, path, depth)
            yield from self._of_array(written, read, path, depth)

    def _whole(self, schema: Any, defs: Any) -> Any:
        """Return what a schema refers to, with the fields of all its parts."""
        schema = _resolved(schema, defs)
        if not isinstance(schema, dict) or not isinstance(schema.get("allOf"), list):
            return schema
        key = id(schema), id(defs)
        if key not in self._merged:
            self._merged[key] = schema, _joined(schema, defs)
        return self._merged[key][1]

    def _of_alternatives(self, written: Schema, alternatives: list[Any], path: str, depth: int) -> Iterator[str]:
        """Yield why none of several can read it: of the one with the same tag, if there is one, or of the nearest."""
        found: list[list[str]] = []
        for each in alternatives:
            if fault := self._of_tag(written, self._whole(each, self._read), path):
                found.append([fault])
                continue
            seen = set(self._seen)
            faults = list(self.faults(written, each, path, depth + 1))
            self._seen = seen
            if not faults:
                return
            found.append(faults)
        alike = [
            faults
            for each, faults in zip(alternatives, found, strict=True)
            if _kind(self._whole(each, self._read)) == _kind(written)
            and not any("is not accepted" in it for it in faults)
        ]
        if alike:
            yield from min(alike, key=len)
        elif written.get("type") == "object":
            yield f"{_called(written)} at {path} is none of what is expected"
        else:
            yield f"{_called(written)} at {path} is not accepted"

    @staticmethod
    def _of_tag(written: Schema, read: Any, path: str) -> str:
        """Return the fault of a field of which no value that comes is accepted, as of the tag of another member."""
        comes, accepted = written.get("properties"), read.get("properties") if isinstance(read, dict) else None
        if not isinstance(comes, dict) or not isinstance(accepted, dict):
            return ""
        for name in comes.keys() & accepted.keys():
            if not isinstance(comes[name], dict) or not isinstance(accepted[name], dict):
                continue
            values, expected = _values(comes[name]), _values(accepted[name])
            if values and expected and len(values) == len(expected) == 1 and values != expected:
                return f"value {shown(values[0])} at {path}.{name} is not accepted"
        return ""

    def _of_values(self, written: Schema, read: Schema, path: str) -> Iterator[str]:
        comes, accepted = _values(written), _values(read)
        if accepted is not None and comes is not None:
            there = {_comparable(value) for value in accepted}  # there may be thousands
            for value in comes:
                if _comparable(value) not in there:
                    yield f"value {shown(value)} at {path} is not accepted"
            return
        kinds, expected = _types(written), _types(read)
        fits = {*expected, "integer"} if "number" in expected else {*expected}
        if kinds and expected and not fits.issuperset(kinds):
            yield f"{' or '.join(expected)} is expected at {path}, and {' or '.join(kinds)} comes"
            return
        if accepted is not None and kinds:
            yield f"one of {len(accepted):,} values is expected at {path}, and any {' or '.join(kinds)} may come"
        if comes is not None:
            return
        yield from _of_range(written, read, kinds, path)
        for name in ("pattern", "format"):
            yield from _of_text(name, written, read, kinds, path)

    def _of_object(self, written: Schema, read: Schema, path: str, depth: int) -> Iterator[str]:
        if "object" not in (_types(written) or ("object",)) or "object" not in (_types(read) or ("object",)):
            return
        comes, known = written.get("properties", {}), read.get("properties", {})
        more = written.get("additionalProperties", True)
        rest = read.get("additionalProperties", True)
        for name, each in comes.items():
            if name in known:
                yield from self.faults(each, known[name], f"{path}.{name}", depth + 1)
            elif "patternProperties" in read:  # it may be among those
                continue
            elif rest is False:
                yield f"field {path}.{name} comes, and is not expected"
            elif isinstance(rest, dict):
                yield from self.faults(each, rest, f"{path}.{name}", depth + 1)
        for name in known if isinstance(more, dict) else ():
            if name not in comes:
                yield from self.faults(more, known[name], f"{path}.{name}", depth + 1)
        if isinstance(more, dict) and isinstance(rest, dict):
            yield from self.faults(more, rest, f"{path}.*", depth + 1)
        sure = frozenset(written.get("required", ()))  # there may be thousands
        for name in read.get("required", ()):
            if name not in comes and "patternProperties" in written:  # it may be among those
                continue
            if name not in comes and ("properties" in written or more is False):
                yield f"field {path}.{name} is required, and does not come"
            elif name in comes and name not in sure:
                yield f"field {path}.{name} is required, and may be left out"

    def _of_array(self, written: Schema, read: Schema, path: str, depth: int) -> Iterator[str]:
        first, others = written.get("prefixItems", []), read.get("prefixItems", [])
        for at, (one, other) in enumerate(
            zip_longest(first[:_MAX_DEPTH], others[:_MAX_DEPTH], fillvalue=_REST)  # more than that is no tuple
        ):
            one = written.get("items") if one is _REST else one
            other = read.get("items") if other is _REST else other
            if one is not False:  # so many do not come
                yield from self.faults(one, other, f"{path}[{at}]", depth + 1)
        if written.get("items") is not False and read.get("items") is not False:  # else it is a matter of how many
            yield from self.faults(written.get("items"), read.get("items"), f"{path}[]", depth + 1)


_REST = object()


def _joined(schema: Schema, defs: Any) -> Schema:
    """Return a schema and its parts as one: all fields, what one of them requires, and of the rest what comes first."""
    made: Schema = {}
    parts, seen = [schema], set[int]()  # a part may have itself as one, or be one of many
    for part in parts:
        part = _resolved(part, defs)
        if not isinstance(part, dict) or id(part) in seen:
            continue
        seen.add(id(part))
        for name, value in part.items():
            if name == "allOf" and isinstance(value, list):
                parts += value
            elif name == "properties" and isinstance(value, dict):
                made[name] = value | made.get(name, {})
            elif name == "required" and isinstance(value, list):
                made[name] = [*made.get(name, ()), *value]
            else:
                made.setdefault(name, value)
    return made


def _of_range(written: Schema, read: Schema, kinds: tuple[str, ...], path: str) -> Iterator[str]:
    """Yield the bounds within which not all is that comes."""
    is_whole = kinds == ("integer",)
    for names, inside in ((_LOWEST, 1), (_HIGHEST, -1)):
        for name in names if kinds else ():
            bound, was = _bound(read, name, inside, is_whole), _bound(written, name, inside, is_whole)
            if bound is None or (was is not None and was[0] >= bound[0]):
                continue
            _, named, value = bound
            comes = "" if was is None else f"{was[2]}" if was[1] == named else f"{was[1]} {was[2]}"
            yield f"{named} {value} is expected at {path}, and {f'{comes} comes' if comes else 'none is stated'}"


def _bound(schema: Schema, name: str, inside: int, is_whole: bool) -> tuple[tuple[float, bool], str, float] | None:
    """Return the narrower bound of those with a name and of those that are outside themselves: what is larger the
    narrower it is, its name and its value."""
    found: list[tuple[tuple[float, bool], str, float]] = []
    for each, is_outside in ((name, False), (_OUTSIDE.get(name, ""), True)):
        value: Any = schema.get(each)
        if not _is_number(value):
            continue
        size = value * inside
        if is_whole:  # then one that is outside has a next one that is not
            size, is_outside = (floor(size) + 1 if is_outside else ceil(size)), False
        found.append(((size, is_outside), each, value))
    return max(found, default=None)


def _of_text(name: str, written: Schema, read: Schema, kinds: tuple[str, ...], path: str) -> Iterator[str]:
    """Yield that texts may come of another pattern or format than is expected."""
    bound, was = read.get(name), written.get(name)
    if not isinstance(bound, str) or bound in (was, _NARROWER.get(str(was))):
        return
    if was is not None:
        yield f"{name} {shown(bound)} is expected at {path}, and {shown(was)} comes"
    elif "string" in kinds and (name == "pattern" or bound in _CHECKED):
        yield f"{name} {shown(bound)} is expected at {path}, and none is stated"


def _reference(schema: Any) -> str:
    found = schema.get("$ref") if isinstance(schema, dict) else None
    return found if isinstance(found, str) else ""


def _resolved(schema: Any, defs: Any) -> Any:
    """Return what a schema refers to."""
    for _ in range(_MAX_DEPTH):
        reference = _reference(schema)
        if not reference:
            break
        schema = defs.get(reference.removeprefix(_REF)) if isinstance(defs, dict) else None
    return schema


def _alternatives(schema: Schema) -> list[Any]:
    for name in ("anyOf", "oneOf"):
        if isinstance(schema.get(name), list):
            found: list[Any] = schema[name]
            return found
    kinds = schema.get("type")
    if isinstance(kinds, list) and len(kinds) > 1:
        return [{**schema, "type": each} for each in kinds]
    return []


def _types(schema: Schema) -> tuple[str, ...]:
    kinds = schema.get("type")
    if kinds is None and (values := _values(schema)):
        return tuple(dict.fromkeys(_JSON_NAMES.get(type(each), "object") for each in values))
    return (kinds,) if isinstance(kinds, str) else ()


_JSON_NAMES: dict[Any, str] = {
    str: "string",
    int: "integer",
    float: "number",
    bool: "boolean",
    type(None): "null",
    list: "array",
}


def _values(schema: Schema) -> list[Any] | None:
    if isinstance(schema.get("enum"), list):
        found: list[Any] = schema["enum"]
        return found
    return [schema["const"]] if "const" in schema else None


def _comparable(value: Any) -> Any:
    return _encode(value) if isinstance(value, list | dict) else value


def _kind(schema: Any) -> object:
    return _types(schema) if isinstance(schema, dict) else None


def _called(schema: Schema) -> str:
    return str(schema.get("title") or " or ".join(_types(schema)) or "what comes")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
