"""Encoding and decoding of payloads: JSON, or bytes unchanged. The only file that knows the codec.

Payloads are encoded when they are fired and decoded anew for each handler, so that no handler sees another's changes.
Types: everything that msgspec knows (dict, list, dataclass, Struct, attrs, …) and that pydantic does (`models`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from functools import lru_cache
from math import isfinite
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin
from uuid import UUID

import msgspec
import msgspec.inspect

from . import models
from .errors import BadArgument, BadPayload

JSON = "application/json"
BYTES = "application/octet-stream"
HIDDEN_JSON = "application/json; hidden=true"  # of the null in the place of a payload that needs a further right
_JSON_TYPE = re.compile(r"[\w!#$&^.+-]+/([\w!#$&^.-]+\+)?json[ \t]*(;[ -~]*)?", re.ASCII | re.IGNORECASE)

_PLAIN = frozenset((dict, list, str, int, float, bool, tuple, type(None)))

_SHOWN = 60  # bytes of invalid JSON in a message

T = TypeVar("T")
Decoder = Callable[[bytes, str], Any]


def _encode_foreign(value: Any) -> Any:
    if models.is_model_type(type(value)):
        return msgspec.Raw(models.dump(value))
    raise TypeError(f"expected a type that JSON can carry, got {type(value).__qualname__}")


def _decode_foreign(type_: type, value: Any) -> Any:
    if not models.is_model(type_):
        raise NotImplementedError(f"a payload cannot be decoded to {type_.__qualname__}")
    try:
        return models.read_one(type_, value)
    except ValueError as error:
        raise msgspec.ValidationError(models.fault_of(error)) from None


_encode_json = msgspec.json.Encoder(enc_hook=_encode_foreign).encode
_decode_json = msgspec.json.Decoder().decode


def encode(payload: Any) -> tuple[bytes, str]:
    """Return the bytes that travel for `payload`, and their content type.

    `bytes`, `bytearray` and `memoryview` travel unchanged; `msgspec.Raw` is JSON already. Raise `BadPayload` for what
    JSON does not support, and for what would be decoded as something else.
    """
    kind = type(payload)
    try:
        if kind is dict:  # the common case, and mostly flat
            data = _encode_json(payload)
            for name in payload:
                if type(name) is not str or type(payload[name]) not in _LEAVES:
                    _check_within(payload, data)
                    return data, JSON
            if b"null" in data:
                _check_within(payload, data)
            return data, JSON
        if isinstance(payload, bytes):
            return payload, BYTES
        if isinstance(payload, bytearray | memoryview):
            return bytes(payload), BYTES
        if kind not in _PLAIN and models.is_model_type(kind):
            return models.dump(payload), JSON  # a dataclass of pydantic's too, which the codec treats like any other
        data = _encode_json(payload)
        if kind not in _LEAVES or kind is float:
            _check_within(payload, data)
        return data, JSON
    except (TypeError, ValueError, ArithmeticError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayload(f"expected a payload that JSON can carry, got {kind.__qualname__}: {error}") from None


_LEAVES: frozenset[type] = frozenset((str, int, float, bool, type(None)))
_LEAVES_BUT_FLOAT = _LEAVES - {float}
_TEXT = frozenset((str,))


def _check_within(payload: Any, data: bytes) -> None:
    """Raise `ValueError` for what the codec lets pass but does not encode as it is: NaN and infinities, which become
    null; raw JSON that is invalid; two names in an object that are the same text; what is decoded as something else."""
    sure = _LEAVES if b"null" not in data else _LEAVES_BUT_FLOAT
    unsure = _check_each([payload], sure)
    if unsure:
        _check_each([getattr(value, name, None) for value, names in unsure for name in names], sure)
        for value, names in unsure:
            _check_same(value, names, "$" if value is payload else type(value).__qualname__)


def _check_each(left: list[Any], sure: frozenset[type]) -> list[tuple[Any, list[str]]]:
    """Check values, and what is in them. Return those that have to be decoded and compared, with the fields for which
    this is so."""
    unsure: list[tuple[Any, list[str]]] = []
    for value in left:  # it grows during the loop
        kind = type(value)
        if kind in sure:
            continue
        if kind is float:
            if not isfinite(value):
                raise ValueError(f"{value} is not a number that JSON has: fire None, or text")
        elif isinstance(value, dict):
            if not _TEXT.issuperset(map(type, value)):
                _check_names(value)
                left += [each for each in value if type(each) not in _LEAVES]
            left += [each for each in value.values() if type(each) not in sure]
            _check_attributes(value)
        elif isinstance(value, list | tuple | set | frozenset) and not hasattr(kind, "_fields"):
            left += [each for each in value if type(each) not in sure]
            _check_attributes(value)
        elif kind is msgspec.Raw:
            _decode_json(value)
        elif kind is datetime or kind is time:
            _check_offset(value)
        else:
            names = _unsure_fields(value, left, sure)
            if names:
                unsure.append((value, names))
            if isinstance(value, tuple):
                _check_attributes(value)
    return unsure


def _unsure_fields(value: Any, left: list[Any], sure: frozenset[type]) -> list[str]:
    """Return the fields of an object that may be decoded as something else. Append the values of others to `left`."""
    unsure = []
    for name, (leaves, classes, items) in _fields(type(value)):
        held: Any = getattr(value, name, None)
        kind = type(held)
        if kind in leaves:
            if kind not in sure:
                left.append(held)
        elif classes is None or kind in classes or (kind is list and items and items.issuperset(map(type, held))):
            left.append(held)
        else:
            unsure.append(name)
    return unsure


# Which values a field gives back as they were: those of the leaves; those of other types, None for any, where what is
# in them comes back; lists of nothing but these leaves.
_Faithful = tuple[frozenset[type], frozenset[type] | None, frozenset[type]]


def _find_fields(type_: Any) -> list[tuple[str, _Faithful]]:
    """Return which values each field of a class gives back as they were."""
    names: tuple[str, ...] = () if models.is_base_model(type_) else models.names_of(type_) or ()
    if models.runs_code(type_) or models.is_pydantic_dataclass(type_):
        return [(name, (_NONE, _NONE, _NONE)) for name in names]
    infos = _infos(type_)
    return [(name, _faithful(infos.get(name, _ANY))) for name in names]


def _infos(type_: Any) -> dict[str, Any]:
    """Return what msgspec knows of the types of a class's fields."""
    try:
        return {each.name: each.type for each in getattr(msgspec.inspect.type_info(type_), "fields", ())}
    except Exception:  # nothing can be decoded to it; what it is annotated with may raise anything
        return {}


_fields: Callable[[Any], list[tuple[str, _Faithful]]] = lru_cache(maxsize=1024)(_find_fields)
_NONE: frozenset[type] = frozenset()
_ANY = msgspec.inspect.AnyType()
_AS_THEY_ARE: dict[type, type] = {
    msgspec.inspect.StrType: str,
    msgspec.inspect.IntType: int,
    msgspec.inspect.FloatType: float,
    msgspec.inspect.BoolType: bool,
    msgspec.inspect.NoneType: type(None),
    msgspec.inspect.DateTimeType: datetime,
    msgspec.inspect.TimeType: time,
    msgspec.inspect.DateType: date,
    msgspec.inspect.TimeDeltaType: timedelta,
    msgspec.inspect.DecimalType: Decimal,
    msgspec.inspect.UUIDType: UUID,
    msgspec.inspect.RawType: msgspec.Raw,
}


def _faithful(info: Any) -> _Faithful:
    """Return which values a field of this type gives back as they were."""
    if isinstance(info, msgspec.inspect.UnionType):
        leaves, classes, items = zip(*map(_faithful, info.types), strict=True)
        known = [each for each in classes if each is not None]
        return _NONE.union(*leaves), _NONE.union(*known) if len(known) == len(classes) else None, _NONE.union(*items)
    if _holds_any(info):
        return _NONE, None, _NONE
    kind = _AS_THEY_ARE.get(type(info))
    constrained = any(getattr(info, name) is not None for name in info.__struct_fields__)
    if kind is not None and not constrained:
        return (frozenset((kind,)), _NONE, _NONE) if kind in _LEAVES else (_NONE, frozenset((kind,)), _NONE)
    if isinstance(info, msgspec.inspect.ListType) and info.min_length is info.max_length is None:
        return _NONE, _NONE, _faithful(info.item_type)[0]
    return _NONE, frozenset((info.cls,)) if hasattr(info, "cls") else _NONE, _NONE


def _check_attributes(value: Any) -> None:
    """Raise `ValueError` where a list or dict of a class of its own holds more than its elements."""
    kind = type(value)
    if kind in _PLAIN:
        return
    slots = [name for base in kind.__mro__ for name in getattr(base, "__slots__", ()) if hasattr(value, name)]
    held = [*getattr(value, "__dict__", ()), *slots]
    if held:
        raise ValueError(
            f"a {type(value).__qualname__} has attributes besides its elements, {models.shown(', '.join(held))}, "
            "and JSON has no place for them: fire a dict that names them"
        )


def _check_offset(value: datetime | time) -> None:
    offset = value.utcoffset()
    if offset is not None and offset % _MINUTE:
        raise ValueError(
            f"a time whose UTC offset is {offset}, and in JSON an offset is in whole minutes: "
            "fire it in UTC, such as value.astimezone(UTC)"
        )


_MINUTE = timedelta(minutes=1)


def _check_names(value: dict[Any, Any]) -> None:
    if len(_decode_json(_encode_json(dict.fromkeys(value)))) == len(value):
        return
    texts = [_encode_json({each: None}).rpartition(b":")[0][1:].decode() for each in value]
    twice = next(text for text in texts if texts.count(text) > 1)
    raise ValueError(f"it has more than one name that is {twice} as text, and JSON has no others: keep one")


def _check_same(value: Any, names: list[str], path: str) -> None:
    """Raise `Unlike` where fields of a value are decoded as something else."""
    try:
        read = decoder(type(value))
    except BadArgument:  # no handler can state it
        return
    try:
        found = read(_encode_json(value), JSON)
    except BadPayload as error:
        raise models.Unlike(f"its JSON is refused: {error}") from None
    open_fields = _open_fields(type(value))
    for name in names:
        held, came = getattr(value, name, None), getattr(found, name, None)
        if name in open_fields:  # it may have any value that a plain payload may have
            plain = _encode_json(held)
            if models.same(_decode_json(plain), came):
                _check_within(held, plain)
                continue
        models.check_same(held, came, f"{path}.{name}")


def _find_open_fields(type_: Any) -> frozenset[str]:
    """Return the fields of a class whose types leave something open."""
    infos = _infos(type_)
    return frozenset(name for name in models.names_of(type_) or () if _holds_any(infos.get(name, _ANY)))


_open_fields: Callable[[Any], frozenset[str]] = lru_cache(maxsize=1024)(_find_open_fields)


def _holds_any(info: Any) -> bool:
    """Return whether a field's type leaves something open."""
    return _any_info(info, lambda each: isinstance(each, msgspec.inspect.AnyType), set())


def _any_info(info: Any, asked: Callable[[Any], bool], seen: set[int]) -> bool:
    """Return whether `asked` holds for any part of what msgspec knows of a type."""
    if id(info) in seen:
        return False
    seen.add(id(info))
    if isinstance(info, tuple):
        return any(_any_info(each, asked, seen) for each in info)
    if not isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        return False
    return asked(info) or any(_any_info(getattr(info, name), asked, seen) for name in info.__struct_fields__)


def is_json(content: str) -> bool:
    """Return whether a content type is that of JSON: `application/json`, or one such as `application/geo+json`."""
    return content == JSON or _JSON_TYPE.fullmatch(content) is not None


def decode(data: bytes, content: str) -> Any:
    """Return `data` as plain Python values, or unchanged if it is bytes."""
    if content != JSON and not is_json(content):
        return data
    try:
        return _decode_json(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPayload(json_fault(bytes(data), error)) from None


def json_fault(data: bytes, error: Exception, expected: str = "JSON") -> str:
    """Return a sentence that shows the part of `data` that is no JSON, and its place."""
    if not data.strip():
        return f"expected {expected}, got nothing: it needs a value, such as null"
    what, _, place = str(error).removeprefix("JSON is malformed: ").partition(" (byte ")
    at = int(place[:-1]) if place[:-1].isdigit() else 0
    if isinstance(error, msgspec.DecodeError) and "truncated" in what:
        what, at = "it ends too early", len(data)
    elif place:
        what = f"{what} at byte {min(at + 1, len(data))} of {len(data)}"
    start = max(0, at - _SHOWN // 2)
    around = data[start : start + _SHOWN]
    shown = repr(around.decode("utf-8", "backslashreplace"))
    dots = "..." if start else "", "..." if start + len(around) < len(data) else ""
    return f"expected {expected}, got {dots[0]}{shown}{dots[1]}: {what[:1].lower()}{what[1:]}"


def decoder(type_: Any) -> Decoder:
    """Return a function (data, content type) -> value of `type_`, which raises `BadPayload`.

    `bytes`, `bytearray`, `memoryview` and `msgspec.Raw` give the payload undecoded; so does a union with one of them
    where bytes were fired, or where its only other member is None. Raise `BadArgument` where no payload can be decoded
    to `type_`.
    """
    try:
        return _decoder(type_)
    except TypeError:  # not hashable: what is annotated with may be anything
        return _make_decoder(type_)


def _make_decoder(type_: Any) -> Decoder:
    bare = unwrapped(type_)
    if bare is Any or bare is object:
        return decode
    if bare is msgspec.Raw:
        return lambda data, content: msgspec.Raw(data)
    members = get_args(bare) if get_origin(bare) in (Union, UnionType) else (type_,)
    binary = [each for each in members if unwrapped(each) in _BINARY]
    if not binary:
        return _json_decoder(type_)
    others = [each for each in members if each not in binary]
    as_bytes = _bytes_decoder(binary[0])
    if not others:
        return as_bytes
    if others == [type(None)]:
        return lambda data, content: None if data == b"null" and is_json(content) else as_bytes(data, content)
    as_json = _make_decoder(Union[tuple(others)])  # noqa: UP007
    return lambda data, content: as_json(data, content) if is_json(content) else as_bytes(data, content)


_decoder = lru_cache(maxsize=1024)(_make_decoder)
_BINARY = (bytes, bytearray, memoryview)


def unwrapped(type_: Any) -> Any:
    """Return the type behind `Annotated`, `NewType` and `type` aliases."""
    while True:
        inner = type_.__origin__ if get_origin(type_) is Annotated else None
        inner = inner or getattr(type_, "__supertype__", None) or getattr(type_, "__value__", None)
        if inner is None:
            return type_
        type_ = inner


def _bytes_decoder(type_: Any) -> Decoder:
    if type_ is bytes:
        return lambda data, content: data

    def decode_to(data: bytes, content: str) -> Any:
        try:
            return msgspec.convert(data, type_)
        except msgspec.ValidationError as error:
            raise BadPayload(_msgspec_fault(error)) from None

    return decode_to


def _json_decoder(type_: Any) -> Decoder:
    """Return a decoder for a type that is not bytes."""
    try:
        validate = models.reader_of(type_)
        if validate is None:
            _check_decodable(type_)
            validate = msgspec.json.Decoder(type_, dec_hook=_decode_foreign).decode
    except Exception as error:  # what a type is annotated with may raise anything
        text = str(error).partition("\n")[0]
        raise BadArgument(f"expected a payload type that JSON can be decoded to, got {_name(type_)}: {text}") from None
    read = validate

    def decode_to(data: bytes, content: str) -> Any:
        if content != JSON and not is_json(content):
            raise BadPayload(f"expected JSON for {_name(type_)}, got {content} at $")
        try:
            return read(data)
        except msgspec.ValidationError as error:
            raise BadPayload(_msgspec_fault(error)) from None
        except msgspec.DecodeError as error:
            raise BadPayload(f"expected {_name(type_)}, got {models.shown(data)}: {error} at $") from None
        except ValueError as error:
            raise BadPayload(models.fault_of(error)) from None

    return decode_to


def _check_decodable(type_: Any) -> None:
    """Raise `TypeError` where neither msgspec nor pydantic can make a type, or one within it."""

    def is_foreign(info: Any) -> bool:
        if isinstance(info, msgspec.inspect.CustomType) and not models.is_model(info.cls):
            raise TypeError(f"{info.cls.__qualname__} cannot be made from JSON")
        return False

    _any_info(msgspec.inspect.type_info(type_), is_foreign, set())


def _msgspec_fault(error: Exception) -> str:
    text = str(error).replace("`", "")
    text, at, path = text.partition(" - at ")
    text = text[:1].lower() + text[1:]
    if " got " not in text and text.startswith("object missing required field "):
        text = f"expected field {text.removeprefix('object missing required field ')}, got none"
    if text.startswith("object contains unknown field "):
        text = f"expected known fields, got {text.removeprefix('object contains unknown field ')}"
    return f"{text} at {path if at else '$'}"


def _name(type_: Any) -> str:
    return getattr(type_, "__qualname__", None) or str(type_)


# JSON from other processes ---------------------------------------------------------------------------------------

_skip = msgspec.json.Decoder(msgspec.Raw).decode  # knows the grammar, not whether text is UTF-8 or a number too large
_FLAT = bytes.maketrans(b"123456789E", b"000000000e")
_LONG = b"0" * 200  # of fewer digits, also with an exponent of two more, a float can be made
_EXPONENTS = (b"0e000", b"0e+000")
_EXPONENT = re.compile(rb"[eE]\+?0*+[1-9][0-9]{2}")
_IN_NUMBERS = b"0123456789.eE+-"
_NUMBER_BYTES = 512  # enough for nearly all numbers
_MAX_HUGE = 1_000  # numbers in one payload that have to be decoded to see whether a float holds them
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def as_json(data: bytes, content: str) -> msgspec.Raw | None:
    """Return the payload as JSON on one line, to be embedded in a document or a line; None where it is no JSON.

    Every output uses it: a producer may say `application/json` of anything, and text that is no JSON could otherwise
    break out of the document, and line ends out of the line.
    """
    if content != JSON and not is_json(content):
        return None
    try:
        check_grammar(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(data.translate(_LINE_ENDS) if b"\n" in data or b"\r" in data else data)


def check_grammar(data: bytes) -> None:
    """Raise what decoding would raise, without building objects: empty arrays need thirty times their bytes as
    objects."""
    _skip(data)
    check_values(data)


def check_values(data: bytes) -> None:
    """Check the text and numbers in valid JSON. Raise what decoding would raise."""
    if not data.isascii():
        data.decode()
    if _may_be_huge(data):  # a number, or what some text says
        outside = _outside_strings(data)
        if _may_be_huge(outside):
            for count, number in enumerate(_maybe_huge(outside)):
                if count == _MAX_HUGE:
                    raise ValueError(f"more than {_MAX_HUGE:,} numbers of 200 digits or with an exponent above 99")
                _decode_json(number)


def _maybe_huge(data: bytes) -> Iterator[bytes]:
    """Yield the numbers that may be too large to decode."""
    for found in _EXPONENT.finditer(data):
        yield data[slice(*_number_around(data, found.start()))]
    flat, at = data.translate(_FLAT), 0
    while (at := flat.find(_LONG, at)) >= 0:
        start, at = _number_around(data, at)
        yield data[start:at]


def _number_around(data: bytes, at: int) -> tuple[int, int]:
    """Return the start and end of the number at `at`."""
    for reach in (_NUMBER_BYTES, len(data)):
        before, after = data[max(0, at - reach) : at], data[at : at + reach]
        left, right = len(before) - len(before.rstrip(_IN_NUMBERS)), len(after) - len(after.lstrip(_IN_NUMBERS))
        if max(left, right) < reach:
            break
    return at - left, at + right


def _may_be_huge(data: bytes) -> bool:
    flat = data.translate(_FLAT)
    return _LONG in flat or any(each in flat for each in _EXPONENTS)


def _outside_strings(data: bytes) -> bytes:
    """Return valid JSON with all strings emptied. There may be a hundred thousand, so it works on all of them at
    once."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'""'.join(unescaped.split(b'"')[::2])
