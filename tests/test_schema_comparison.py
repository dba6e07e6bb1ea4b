"""The comparison of two schemas ends, whatever is within itself."""

from __future__ import annotations

from typing import Any

import msgspec

from solarwind.schema import MAX_FAULTS, schema_of, unreadable


class Sum(msgspec.Struct, tag=True):
    left: Sum | Product | Minus | Number
    right: Sum | Product | Minus | Number


class Product(msgspec.Struct, tag=True):
    left: Sum | Product | Minus | Number
    right: Sum | Product | Minus | Number


class Minus(msgspec.Struct, tag=True):
    of: Sum | Product | Minus | Number


class Number(msgspec.Struct, tag=True):
    value: int


def _document(type_: object) -> dict[str, Any]:
    found: dict[str, Any] = msgspec.json.decode(schema_of(type_))
    return found


def test_unions_with_a_tag_that_are_within_themselves_are_compared_to_the_end() -> None:
    written = _document(Sum | Product | Minus | Number)
    read = _document(Sum | Product | Minus | Number)
    assert unreadable(written, read) == []
    read["$defs"]["Number"]["properties"]["value"] = {"type": "string"}
    assert any("string is expected at" in fault for fault in unreadable(written, read))


def test_a_comparison_ends_whatever_refers_to_what() -> None:
    itself = {"$ref": "#/$defs/A", "$defs": {"A": {"anyOf": [{"$ref": "#/$defs/A"}, {"$ref": "#/$defs/A"}]}}}
    assert unreadable({"type": "object", "properties": {}}, itself) == []
    chain: dict[str, Any] = {f"A{at}": {"anyOf": [_field(at), _field(at)]} for at in range(40)}
    written = {"$ref": "#/$defs/A0", "$defs": {**chain, "A40": {"type": "integer"}}}
    read = {"$ref": "#/$defs/A0", "$defs": {**chain, "A40": {"type": "string"}}}
    assert len(unreadable(written, read)) <= MAX_FAULTS


def test_parts_that_have_each_other_as_parts_are_joined_once() -> None:
    parts = [{"$ref": f"#/$defs/A{at}"} for at in range(30)]
    defs = {f"A{at}": {"allOf": parts, "properties": {"x": parts[(at + 1) % 30]}} for at in range(30)}
    written, read = ({"$ref": "#/$defs/A0", "$defs": {**defs, "A29": {"type": kind}}} for kind in ("string", "integer"))
    assert unreadable(written, read) == ["integer is expected at $, and string comes"]


def _field(at: int) -> dict[str, Any]:
    return {"type": "object", "properties": {"x": {"$ref": f"#/$defs/A{at + 1}"}}}
