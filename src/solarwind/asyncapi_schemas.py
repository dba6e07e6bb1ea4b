"""JSON Schemas as the components of an AsyncAPI document: in draft 07, where a name stands for one schema.

A schema that came from elsewhere may be none, or refer to what is not there. What the document could not have of it is
left out, so that the rest of the document stands.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator
from hashlib import blake2b
from typing import Any
from urllib.parse import unquote

import msgspec

Schema = dict[str, Any]

MAX_APART = 200  # targets of references in a schema: each of more counts as the same only where all of them are
_MAX_CHAIN = 50  # references that refer to a reference
MAX_NAME = 100  # characters of a type's, which somebody else may have made
_encode = msgspec.json.Encoder(order="sorted").encode

_LEFT_OUT = {"$id", "$schema", "$anchor", "$dynamicAnchor", "$vocabulary", "$defs", "definitions", "externalDocs"}
_ONE = {"additionalProperties", "additionalItems", "contains", "propertyNames", "not", "if", "then", "else"}
_SEVERAL = {"allOf", "anyOf", "oneOf", "prefixItems"}
_BY_NAME = {"properties", "patternProperties", "dependentSchemas"}
_TEXTS = {"title", "description", "format", "pattern", "$comment", "contentMediaType", "contentEncoding"}
_NUMBERS = {"minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum", "multipleOf"}
_COUNTS = {"minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties"}
_FLAGS = {"uniqueItems", "readOnly", "writeOnly", "deprecated"}
_KINDS = {"array", "boolean", "integer", "null", "number", "object", "string"}
_UNSAFE = {"$ref", "__proto__"}  # as the name of a property or of data: AsyncAPI's parser takes it for its own


class Components:
    """The schemas of a document, by their names."""

    def __init__(self) -> None:
        self.schemas: dict[str, Schema] = {}
        self._names: dict[tuple[str, bytes], str] = {}  # by the name in a schema, and the digest of all it refers to
        self.free = Free()

    def add(self, schema: Schema) -> Schema:
        """Return a schema as it is in the document, with what it refers to among the components."""
        targets = _targets(schema)
        names, new = dict[str, str](), list[str]()
        for pointer, digest in _digests(targets).items():
            key = _name_of(pointer, schema), digest
            if key not in self._names:
                self._names[key] = self.free.name(key[0], self.schemas)
                self.schemas[self._names[key]] = {}  # it is taken
                new.append(pointer)
            names[pointer] = self._names[key]
        for pointer in new:
            self.schemas[names[pointer]] = _object(_moved(targets[pointer], names))
        return _object(_moved(schema, names))


class Free:
    """Finds names that are not taken, by numbers."""

    def __init__(self) -> None:
        self._numbers: dict[str, int] = {}  # the last of each name

    def name(self, wanted: str, among: dict[str, Any]) -> str:
        """Return the word that a name is as a key of the components, with a number where it is taken."""
        word = found = word_of(wanted)
        while found in among:
            self._numbers[word] = number = self._numbers.get(word, 1) + 1
            found = f"{word}-{number}"
        return found


def word_of(text: str) -> str:
    """Return a name as the key of a component may be: of A-Z a-z 0-9 . - and _."""
    return re.sub(r"[^A-Za-z0-9._-]+", "-", text).strip("-") or "unnamed"


def title_of(schema: Schema) -> str:
    """Return the name of the type that a schema describes, "" if it has none."""
    pointer = _pointer(schema)
    title = schema.get("title") if not pointer else _name_of(pointer, schema)
    return title[:MAX_NAME] if isinstance(title, str) else ""


# References -------------------------------------------------------------------------------------------------------


def _pointer(schema: Any) -> str:
    """Return where a schema refers to, in its document; "" where it refers to nothing."""
    reference = schema.get("$ref") if isinstance(schema, dict) else None
    return reference if isinstance(reference, str) else ""


def _steps(pointer: str) -> list[str]:
    return [each.replace("~1", "/").replace("~0", "~") for each in unquote(pointer[1:]).split("/")[1:]]


def _name_of(pointer: str, schema: Schema) -> str:
    steps = _steps(pointer)
    return (steps[-1] if steps else str(schema.get("title", "")))[:MAX_NAME]


def _at(root: Schema, pointer: str) -> Any:
    """Return what is at a place of a document; None where there is nothing."""
    if pointer != "#" and not pointer.startswith("#/"):
        return None  # it is elsewhere
    found: Any = root
    for step in _steps(pointer):
        if isinstance(found, list) and step.isdecimal() and len(step) < 6 and int(step) < len(found):
            found = found[int(step)]
        elif isinstance(found, dict) and step in found:
            found = found[step]
        else:
            return None
    return found


def _target(root: Schema, pointer: str) -> Any:
    """Return the schema that a reference refers to; None where there is none, or nothing but a reference to itself."""
    first: Any = None
    for _ in range(_MAX_CHAIN):
        found = _at(root, pointer)
        if not _is_schema(found):
            return None
        first = found if first is None else first
        pointer = _pointer(found)
        if not pointer:
            return first
    return None


def _targets(root: Schema) -> dict[str, Any]:
    """Return what is referred to, by references."""
    found: dict[str, Any] = {}
    left = list(_references(root))
    for pointer in left:
        if pointer not in found and (target := _target(root, pointer)) is not None:
            found[pointer] = target
            left += _references(target)
    return found


def _references(schema: Any) -> Iterator[str]:
    if pointer := _pointer(schema):
        yield pointer
    for each in _within(schema):
        yield from _references(each)


def _within(schema: Any) -> Iterable[Any]:
    """Return the schemas that a schema has in it, and not those that it defines."""
    if not isinstance(schema, dict):
        return
    for name, value in schema.items():
        if name in _ONE or (name == "items" and not isinstance(value, list)):
            yield value
        elif (name in _SEVERAL or name == "items") and isinstance(value, list):
            yield from value
        elif (name in _BY_NAME or name == "dependencies") and isinstance(value, dict):
            yield from value.values()


def _digests(targets: dict[str, Any]) -> dict[str, bytes]:
    """Return a digest of each target with all it refers to: what has the same is the same."""
    own = {pointer: blake2b(_encode([pointer, target]), digest_size=16).digest() for pointer, target in targets.items()}
    if len(targets) > MAX_APART:
        everything = blake2b(b"".join(sorted(own.values())), digest_size=16).digest()
        return {pointer: each + everything for pointer, each in own.items()}
    further = {pointer: set(_references(target)) & targets.keys() for pointer, target in targets.items()}
    made: dict[str, bytes] = {}
    for pointer in targets:
        reached, left = {pointer}, [pointer]
        while left:
            fresh = further[left.pop()] - reached
            reached |= fresh
            left += fresh
        made[pointer] = own[pointer] + blake2b(b"".join(sorted(own[each] for each in reached)), digest_size=16).digest()
    return made


# As AsyncAPI has them ---------------------------------------------------------------------------------------------


def _object(schema: Schema | bool) -> Schema:
    """Return a schema as an object, as that of a message has to be."""
    return schema if isinstance(schema, dict) else {} if schema else {"not": {}}


def _moved(schema: Any, names: dict[str, str]) -> Any:
    """Return a schema in draft 07, with references to components, and without what would be invalid."""
    if isinstance(schema, bool):
        return schema
    moved: Schema = {}
    for name, value in schema.items():
        if name not in _LEFT_OUT and name not in _UNSAFE:
            _move(name, value, schema, names, moved)
    pointer = _pointer(schema)
    if pointer not in names:
        return moved
    reference = {"$ref": f"#/components/schemas/{names[pointer]}"}
    if not moved:
        return reference
    return moved | {"allOf": [reference, *moved.get("allOf", ())]}  # beside a reference draft 07 has nothing


def _move(name: str, value: Any, schema: Schema, names: dict[str, str], moved: Schema) -> None:
    """Put a keyword into a schema, unless its value is invalid."""
    if name in _ONE or (name == "items" and not isinstance(value, list)):
        if _is_schema(value):
            moved["additionalItems" if name == "items" and "prefixItems" in schema else name] = _moved(value, names)
    elif name in _SEVERAL or name == "items":
        several = [_moved(each, names) for each in value if _is_schema(each)] if isinstance(value, list) else []
        if several:
            moved["items" if name == "prefixItems" else name] = several
    elif name in _BY_NAME:
        if isinstance(value, dict):
            found = {each: _moved(it, names) for each, it in value.items() if _is_schema(it) and each not in _UNSAFE}
            into = "dependencies" if name == "dependentSchemas" else name
            moved[into] = moved.get(into, {}) | found
    elif name in ("dependencies", "dependentRequired"):
        if isinstance(value, dict):
            for each, it in value.items():
                if (_is_schema(it) or _are_names(it)) and each not in _UNSAFE:
                    moved.setdefault("dependencies", {})[each] = it if isinstance(it, list) else _moved(it, names)
    elif name == "discriminator":
        field = value.get("propertyName") if isinstance(value, dict) else value
        if isinstance(field, str):
            moved[name] = field
    elif _CHECKS.get(name, _is_anything)(value) and not _is_unsafe(value):
        moved[name] = value


def _is_schema(value: Any) -> bool:
    return isinstance(value, dict | bool)


def _are_names(value: Any) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value) and len(set(value)) == len(value)


def _is_unsafe(value: Any) -> bool:
    if isinstance(value, dict):
        return not _UNSAFE.isdisjoint(value) or any(map(_is_unsafe, value.values()))
    return isinstance(value, list) and any(map(_is_unsafe, value))


def _is_anything(value: Any) -> bool:
    return True


def _is_text(value: Any) -> bool:
    return isinstance(value, str)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: Any) -> bool:
    return _is_number(value) and value >= 0 and (isinstance(value, int) or value.is_integer())


def _is_flag(value: Any) -> bool:
    return isinstance(value, bool)


def _is_kind(value: Any) -> bool:
    kinds = [value] if isinstance(value, str) else value
    return _are_names(kinds) and bool(kinds) and _KINDS.issuperset(kinds)


def _are_values(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and len({_encode(each) for each in value}) == len(value)


_CHECKS: dict[str, Callable[[Any], bool]] = {
    **dict.fromkeys(_TEXTS, _is_text),
    **dict.fromkeys(_NUMBERS, _is_number),
    **dict.fromkeys(_COUNTS, _is_count),
    **dict.fromkeys(_FLAGS, _is_flag),
    "multipleOf": lambda value: _is_number(value) and value > 0,
    "required": _are_names,
    "type": _is_kind,
    "enum": _are_values,
    "examples": lambda value: isinstance(value, list),
}
