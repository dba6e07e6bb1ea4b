"""Keys that are in payloads: a field's JSON value, in one form for equal values."""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from hashlib import blake2b
from typing import Any

import msgspec

from . import models
from .errors import BadArgument
from .payload import JSON, is_json

_decode_json = msgspec.json.Decoder().decode
_PATH = re.compile(r"\$(?:\.[A-Za-z0-9_-]+)+")
_MAX_PATH = 200
Key = str | bytes  # text as it is, other JSON in its canonical form
_MAX_KEY = 256  # characters or bytes; a longer key is replaced by its digest
_NUMBER = re.compile(rb"(-?)(\d+)(?:\.(\d+))?(?:[eE]([+-]?\d{1,1000}))?")
_ZERO = ord("0")
_MAX_CANONICAL = 64 << 10  # bytes of an object or array: more takes too long
_WHOLE = 1 << 64
_UNLIKE = re.compile(rb"[0-9][.eE]|[0-9]{20}")  # where a number may have several forms
_NUMBERS_WITHIN = frozenset((list, dict, float, int))
_encode_sorted = msgspec.json.Encoder(order="sorted").encode
_MAX_NAMES = 16  # in a path: each needs a type of its own


def field(path: str) -> Callable[[bytes, str], Key | None]:
    """Return a function (data, content type) -> the field at `path` as a key, or None where it is missing or null.

    `path` is `$.name` or `$.name.name`. Equal JSON values give the same key, however they are written: 1, 1.0 and 1e0;
    objects with their members in any order, unless they are longer than 64 KiB. The text "1" and the number 1 differ.
    Raise `BadArgument` for an invalid path.
    """
    check_field(path)
    return _field(path)


def check_field(path: str) -> None:
    """Raise `BadArgument` where `field` would, without the work of making a decoder."""
    if not isinstance(path, str) or len(path) > _MAX_PATH or not _PATH.fullmatch(path):
        raise BadArgument(
            f"expected a field such as $.video_id or $.video.id, of at most {_MAX_PATH} characters, "
            f"got {models.shown(path)}"
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
        if content != JSON and not is_json(content):
            return None
        try:
            value = read(data)
            for _ in names:
                value = value.value
            return _canonical_key(bytes(value))
        except (msgspec.DecodeError, ValueError, RecursionError):  # then it has no key
            return None

    return key


def _canonical_key(text: bytes) -> Key | None:
    found: Key
    if text.startswith(b'"'):
        found = str(_decode_json(text))
    elif text == b"null":
        return None
    elif text.isdigit():  # the common form of a number
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
    """Return one form for equal arrays or objects, with the 64-bit integers and floats that a reader gets. A long one
    stays as written."""
    if len(text) > _MAX_CANONICAL:
        return text
    value = _decode_json(text)
    return _encode_sorted(_alike(value) if _UNLIKE.search(text) else value)


def _alike(value: Any) -> Any:
    """Return the value with one form for each number: an integer for a whole one of up to 64 bits, else a float."""
    kind = type(value)
    if kind is list:
        return [_alike(each) if type(each) in _NUMBERS_WITHIN else each for each in value]
    if kind is dict:
        return {name: _alike(each) if type(each) in _NUMBERS_WITHIN else each for name, each in value.items()}
    if kind is float:
        return int(value) if value.is_integer() and -_WHOLE < value < _WHOLE else value
    return value if -_WHOLE < value < _WHOLE else float(value)


def _canonical_number(text: bytes) -> bytes:
    """Return the digits and the power of ten that multiplies them, without zeros at either end; true and false
    unchanged. A float would not tell large numbers apart."""
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
