"""Messages for an invalid body or query: what was expected, what came, and where."""

from __future__ import annotations

import re
from collections.abc import Hashable
from functools import lru_cache
from typing import Any, Literal, TypeVar, cast, get_args, get_origin, get_type_hints

import msgspec

from ..errors import BadArgument, BadPayload
from ..peer.time_slices import PIECE_BYTES

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

_MISSING, _UNKNOWN, _NO_ENUM = "Object missing required field ", "Object contains unknown field ", "Invalid enum value "
_STEP = re.compile(r"\.([A-Za-z0-9_]+)|\[(\d+)\]")


def read_body(body: bytes, kind: type[T]) -> T:
    """Return a JSON body as a struct. Raise `BadArgument` for a wrong field, whose text shows only numbers and names of
    fields, and `BadPayload` for what is no JSON object."""
    try:
        found: T = _decoder(cast(Hashable, kind)).decode(body)
    except msgspec.ValidationError as error:
        text, _, path = str(error).replace("`", "").partition(" - at ")
        path = path or "$"
        is_field = path != "$" or text.startswith((_MISSING, _UNKNOWN))
        refusal = BadArgument if is_field else BadPayload
        raise refusal(f"{_said(text, kind, path, _number(body, path))} at {path}") from None
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPayload(f"expected JSON, got something else: {error}") from None
    return found


def read_query(parameters: dict[str, str], kind: type[S]) -> S:
    """Return a query as a struct. Raise `BadArgument`."""
    try:
        return msgspec.convert(parameters, kind, strict=False)
    except msgspec.ValidationError as error:
        text, _, path = str(error).replace("`", "").partition(" - at ")
        if text.startswith(_MISSING):
            raise BadArgument(f"expected parameter {text.removeprefix(_MISSING)[:80]!a}, got none") from None
        if text.startswith(_UNKNOWN):
            known = ", ".join(each.encode_name for each in msgspec.structs.fields(kind))
            what = f"expected only parameters that are known here, {known}, got {text.removeprefix(_UNKNOWN)[:80]!a}"
            raise BadArgument(what) from None
        name = path.removeprefix("$.")
        wanted = text.partition(", got ")[0].replace("Expected bool", "expected true or false")
        what = f"{wanted[:1].lower()}{wanted[1:]}, got {parameters.get(name, '')[:80]!a} as parameter {name!a}"
        raise BadArgument(what) from None


@lru_cache(maxsize=64)
def _decoder(kind: Any) -> msgspec.json.Decoder[Any]:
    return msgspec.json.Decoder(kind)


def _said(text: str, kind: Any, path: str, number: str | None) -> str:
    if text.startswith(_MISSING):
        return f"expected field {text.removeprefix(_MISSING)}, got none"
    if text.startswith(_UNKNOWN):
        known = {each.encode_name for of in _types_at(kind, path) for each in _fields(of)}
        return f"expected known fields, {', '.join(sorted(known))}, got {text.removeprefix(_UNKNOWN)[:80]!a}"
    if text.startswith(_NO_ENUM):
        values = [repr(value) for of in _types_at(kind, path) if get_origin(of) is Literal for value in get_args(of)]
        return f"expected one of {', '.join(values)}, got {text.removeprefix(_NO_ENUM)[:80]}"
    more = f", got {number}" if number is not None and ", got " not in text else ""
    return f"{text[:1].lower()}{text[1:]}{more}"


def _fields(of: Any) -> tuple[msgspec.structs.FieldInfo, ...]:
    return msgspec.structs.fields(of) if isinstance(of, type) and issubclass(of, msgspec.Struct) else ()


def _types_at(kind: Any, path: str) -> list[Any]:
    """Return the types that are allowed at `path`."""
    found = _members(kind)
    for name, _ in _STEP.findall(path):
        if name:
            hints = [get_type_hints(of, include_extras=True) for of in found if _fields(of)]
            found = [each for of in hints if name in of for each in _members(of[name])]
        else:
            found = [each for of in found if get_origin(of) is list for each in _members(get_args(of)[0])]
    return found


def _members(kind: Any) -> list[Any]:
    """Return the members of a union, and the type behind `Annotated`."""
    if hasattr(kind, "__metadata__"):
        return _members(kind.__origin__)
    if get_origin(kind) in (None, list, dict, tuple, Literal):
        return [kind]
    return [each for member in get_args(kind) for each in _members(member)]


def _number(body: bytes, path: str) -> str | None:
    """Return the number at `path`; None where it is something else, or the body is long."""
    if len(body) > PIECE_BYTES:
        return None
    value = msgspec.json.decode(body)
    for name, index in _STEP.findall(path):
        try:
            value = value[name] if name else value[int(index)]
        except (LookupError, TypeError):
            return None
    return f"{value:g}" if isinstance(value, float) else str(value) if type(value) is int else None
