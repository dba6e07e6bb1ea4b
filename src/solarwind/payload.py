"""What a payload is on its way: JSON, or bytes as they are. The only file that knows the codec.

Payloads are encoded when they are fired and decoded for each handler afresh, so that nobody can
change what somebody else sees. Types: whatever msgspec knows (dict, list, dataclass, Struct, attrs, …)
and what pydantic does (`models`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import lru_cache
from hashlib import blake2b
from math import isfinite
from types import UnionType
from typing import Annotated, Any, TypeVar, Union, get_args, get_origin

import msgspec
import msgspec.inspect

from . import models
from .errors import BadArgument, BadPayload

JSON = "application/json"
BYTES = "application/octet-stream"

_PLAIN = frozenset((dict, list, str, int, float, bool, tuple, type(None)))

_SHOWN = 60  # bytes of what is no JSON

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
    """The bytes that travel for `payload`, and their content type.

    `bytes`, `bytearray` and `memoryview` travel as they are; `msgspec.Raw` is JSON already.
    Raises `BadPayload` for what JSON cannot carry.
    """
    if isinstance(payload, bytes):
        return payload, BYTES
    if isinstance(payload, bytearray | memoryview):
        return bytes(payload), BYTES
    try:
        if type(payload) not in _PLAIN and models.is_model_type(type(payload)):
            return models.dump(payload), JSON  # a dataclass of pydantic's too, which the codec takes for any other
        if isinstance(payload, msgspec.Raw):
            _decode_json(payload)
        data = _encode_json(payload)
        if b"null" in data and payload is not None:
            _check_numbers(payload)
        return data, JSON
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayload(f"expected a payload that JSON can carry, got {type(payload).__qualname__}: {error}") from None


def _check_numbers(payload: Any) -> None:
    """Raise `ValueError` for NaN and infinities, of which the codec makes null: somebody else would get None."""
    left = [payload]
    for value in left:  # it grows meanwhile
        kind = type(value)
        if kind is float:
            if not isfinite(value):
                raise ValueError(f"{value} is no number that JSON has: fire None, or text")
        elif kind is dict:
            left += value.values()
        elif kind is list or kind is tuple:
            left += value
        elif kind not in _PLAIN and kind is not msgspec.Raw:
            left.append(msgspec.to_builtins(value, enc_hook=lambda model: None))  # a model has been compared


def decode(data: bytes, content: str) -> Any:
    """`data` as plain Python values; bytes stay bytes."""
    if content != JSON:
        return data
    try:
        return _decode_json(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPayload(json_fault(bytes(data), error)) from None


def json_fault(data: bytes, error: Exception, expected: str = "JSON") -> str:
    """What is no JSON as text, as much of it as is around the place, and the place."""
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
    """A function (data, content type) -> value of `type_`; it raises `BadPayload`.

    `bytes`, `bytearray`, `memoryview` and `msgspec.Raw` give the payload as it travels, undecoded; so does a union with
    one of them where bytes were fired, or where nothing else in it but None is left.
    Raises `BadArgument` where no payload can be decoded to `type_`.
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
        return lambda data, content: None if content == JSON and data == b"null" else as_bytes(data, content)
    as_json = _make_decoder(Union[tuple(others)])  # noqa: UP007
    return lambda data, content: as_json(data, content) if content == JSON else as_bytes(data, content)


_decoder = lru_cache(maxsize=1024)(_make_decoder)
_BINARY = (bytes, bytearray, memoryview)


def unwrapped(type_: Any) -> Any:
    """The type behind `Annotated`, `NewType` and `type` aliases."""
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
    """For a type that is not bytes."""
    try:
        validate = models.reader_of(type_)
        if validate is None:
            _check_decodable(msgspec.inspect.type_info(type_), set())
            validate = msgspec.json.Decoder(type_, dec_hook=_decode_foreign).decode
    except (TypeError, NotImplementedError) as error:
        raise BadArgument(f"expected a payload type that JSON can be decoded to, got {_name(type_)}: {error}") from None
    read = validate

    def decode_to(data: bytes, content: str) -> Any:
        if content != JSON:
            raise BadPayload(f"expected JSON for {_name(type_)}, got {content} at $")
        try:
            return read(data)
        except msgspec.ValidationError as error:
            raise BadPayload(_msgspec_fault(error)) from None
        except msgspec.DecodeError as error:
            raise BadPayload(f"expected {_name(type_)}, got {_shown(data)}: {error} at $") from None
        except ValueError as error:
            raise BadPayload(models.fault_of(error)) from None

    return decode_to


def _check_decodable(info: Any, seen: set[int]) -> None:
    """Raise `TypeError` where a type, or one within it, is nothing that msgspec or pydantic can make."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType) and not models.is_model(info.cls):
        raise TypeError(f"{info.cls.__qualname__} cannot be made from JSON")
    if isinstance(info, tuple):
        for each in info:
            _check_decodable(each, seen)
    elif isinstance(info, msgspec.inspect.Type | msgspec.inspect.Field):
        for name in info.__struct_fields__:
            _check_decodable(getattr(info, name), seen)


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


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_PATH = re.compile(r"\$(?:\.[A-Za-z0-9_-]+)+")
_MOST_PATH = 200
Key = str | bytes  # text as it is, other JSON in its canonical form
_MAX_KEY = 256  # characters or bytes; a longer one is known by its digest, so that it costs no more
_NUMBER = re.compile(rb"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,1000}))?")
_ZERO = ord("0")
_decode_exactly = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(text.encode())).decode
_DIGITS = 18  # that any 64-bit number has room for
_LARGE = re.compile(rb"[0-9]{%d}" % (_DIGITS + 1))
_decode_alike = msgspec.json.Decoder(float_hook=lambda text: msgspec.Raw(_plain_number(text.encode()))).decode
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_MAX_NAMES = 16  # in a path: each takes a type of its own


def field(path: str) -> Callable[[bytes, str], Key | None]:
    """A function (data, content type) -> the field at `path` as a key, or None where there is none, or null.

    `path` is `$.name` or `$.name.name`. Fields that say the same JSON value give the same key, however it is written:
    1, 1.0 and 1e0; objects with their members in any order. The text "1" is another than the number.
    Raises `BadArgument` for another path.
    """
    check_field(path)
    return _field(path)


def check_field(path: str) -> None:
    """Whether `field` knows what is meant, without the work of making it. Raises `BadArgument`."""
    if not isinstance(path, str) or len(path) > _MOST_PATH or not _PATH.fullmatch(path):
        raise BadArgument(
            f"expected a field such as $.video_id or $.video.id, of at most {_MOST_PATH} characters, got {_shown(path)}"
        )
    if path.count(".") > _MAX_NAMES:
        raise BadArgument(
            f"expected a field at most {_MAX_NAMES} names deep, such as $.video.id, got one {path.count('.')} deep"
        )


@lru_cache(maxsize=256)
def _field(path: str) -> Callable[[bytes, str], Key | None]:
    names = path.split(".")[1:]
    type_: Any = msgspec.Raw
    for name in reversed(names):  # a type with just this field lets the codec skip all the others
        type_ = msgspec.defstruct("Field", [("value", type_, msgspec.field(name=name))])
    read = msgspec.json.Decoder(type_).decode

    def key(data: bytes, content: str) -> Key | None:
        if content != JSON:
            return None
        try:
            value = read(data)
            for _ in names:
                value = value.value
            return _canonical_key(bytes(value))
        except (msgspec.DecodeError, ValueError, RecursionError):  # then it is nobody's key
            return None

    return key


def _canonical_key(text: bytes) -> Key | None:
    found: Key
    if text.startswith(b'"'):
        found = str(_decode_json(text))
    elif text == b"null":
        return None
    elif text.isdigit():  # a number as nearly all are
        found = text if text[-1] != _ZERO else _canonical_number(text)
    elif text[:1] in (b"{", b"["):
        found = _canonical_container(text)
    else:
        found = _canonical_number(text)
    if len(found) <= _MAX_KEY:
        return found
    digest = blake2b(found if isinstance(found, bytes) else found.encode(), digest_size=32).digest()
    return (b"text" if isinstance(found, str) else b"json") + digest


def _canonical_container(text: bytes) -> bytes:
    """By the codec, thirty times as fast; by hand where it may not write a number exactly, with the same result."""
    if _LARGE.search(text) is None:
        return _encode_sorted(_decode_alike(text))
    return _canonical(_decode_exactly(text))


def _canonical(value: Any) -> bytes:
    if isinstance(value, dict):
        members = (_encode_json(name) + b":" + _canonical(each) for name, each in sorted(value.items()))
        return b"{" + b",".join(members) + b"}"
    if isinstance(value, list):
        return b"[" + b",".join(map(_canonical, value)) + b"]"
    if isinstance(value, msgspec.Raw):
        return _plain_number(bytes(value))
    return _plain_number(b"%d" % value) if type(value) is int else _encode_json(value)


def _plain_number(text: bytes) -> bytes:
    """Canonical, and whole numbers of up to 18 digits as the codec writes them."""
    number = _canonical_number(text)
    digits, _, tens = number.partition(b"e")
    if tens and not tens.startswith(b"-") and len(digits.lstrip(b"-")) + int(tens) <= _DIGITS:
        return digits + b"0" * int(tens)
    return number


def _canonical_number(text: bytes) -> bytes:
    """The digits and the power of ten they are multiplied by, without a zero at either end; true and false as they are.
    Never as a float, which cannot tell large ones apart."""
    number = _NUMBER.fullmatch(text)
    if number is None:
        return text
    sign, whole, fraction, power = number.groups(b"")
    digits = (whole + fraction).lstrip(b"0")
    stripped = digits.rstrip(b"0")
    if not stripped:
        return b"0"
    tens = int(power or b"0") - len(fraction) + len(digits) - len(stripped)
    return sign + stripped + (b"e%d" % tens if tens else b"")


# JSON that somebody else wrote -----------------------------------------------------------------------------------

_skip = msgspec.json.Decoder(msgspec.Raw).decode  # knows the grammar, not whether text is UTF-8 or a number too large
_FLAT = bytes.maketrans(b"123456789E", b"000000000e")
_LONG = b"0" * 200  # of fewer digits, also with an exponent of two more, a float can be made
_EXPONENTS = (b"0e000", b"0e+000")
_EXPONENT = re.compile(rb"[eE]\+?0*+[1-9][0-9]{2}")
_IN_NUMBERS = b"0123456789.eE+-"
_NUMBER_BYTES = 512  # that nearly all numbers have room in
_MAX_HUGE = 1_000  # numbers in one payload that have to be tried, since no float may hold them
_LINE_ENDS = bytes.maketrans(b"\r\n", b"  ")


def as_json(data: bytes, content: str) -> msgspec.Raw | None:
    """The payload as JSON in one line, to be put into a document or a line; None where it is none.

    Every output takes it from here. Whoever fires may say `application/json` of anything: what is none, put into a
    document, would be read as a part of it, and what has line ends as lines of their own.
    """
    if content != JSON:
        return None
    try:
        check_grammar(data)
    except (msgspec.DecodeError, ValueError, RecursionError):
        return None
    return msgspec.Raw(data.translate(_LINE_ENDS) if b"\n" in data or b"\r" in data else data)


def check_grammar(data: bytes) -> None:
    """Raise what decoding it would, and build nothing: arrays of nothing take thirty times their bytes as objects."""
    _skip(data)
    check_values(data)


def check_values(data: bytes) -> None:
    """What the grammar does not say of its text and numbers. Raises what decoding it would."""
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
    """The numbers in it that may be too large to be decoded."""
    for found in _EXPONENT.finditer(data):
        yield data[slice(*_number_around(data, found.start()))]
    flat, at = data.translate(_FLAT), 0
    while (at := flat.find(_LONG, at)) >= 0:
        start, at = _number_around(data, at)
        yield data[start:at]


def _number_around(data: bytes, at: int) -> tuple[int, int]:
    """Where the number begins and ends that this is a place in."""
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
    """Sound JSON without what its strings say. There may be a hundred thousand of them: none is looked at by itself."""
    unescaped = data.replace(b"\\\\", b"").replace(b'\\"', b"")
    return b'""'.join(unescaped.split(b'"')[::2])
