"""What a payload is on its way: JSON, or bytes as they are. The only file that knows the codec.

Payloads are encoded when they are fired and decoded for each handler afresh, so that nobody can
change what somebody else sees. Types: whatever msgspec knows (dict, list, dataclass, Struct, attrs, …)
and pydantic models.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import Any, TypeVar

import msgspec
import msgspec.inspect

from .errors import BadArgument, BadPayload

JSON = "application/json"
BYTES = "application/octet-stream"

T = TypeVar("T")
Decoder = Callable[[bytes, str], Any]


def _encode_foreign(value: Any) -> Any:
    dump = getattr(value, "model_dump", None)  # pydantic, without importing it
    if dump is not None:
        return dump(mode="json")
    raise TypeError(f"expected a type that JSON can carry, got {type(value).__qualname__}")


def _decode_foreign(type_: type, value: Any) -> Any:
    validate = getattr(type_, "model_validate", None)
    if validate is None:
        raise NotImplementedError(f"a payload cannot be decoded to {type_.__qualname__}")
    try:
        return validate(value)
    except ValueError as error:
        raise msgspec.ValidationError(_pydantic_fault(error)) from None


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
        if isinstance(payload, msgspec.Raw):
            _decode_json(payload)
        return _encode_json(payload), JSON
    except (TypeError, ValueError, OverflowError, RecursionError, msgspec.MsgspecError) as error:
        raise BadPayload(f"expected a payload that JSON can carry, got {type(payload).__qualname__}: {error}") from None


def decode(data: bytes, content: str) -> Any:
    """`data` as plain Python values; bytes stay bytes."""
    if content != JSON:
        return data
    try:
        return _decode_json(data)
    except (msgspec.DecodeError, ValueError, RecursionError) as error:
        raise BadPayload(f"expected JSON, got {_shown(data)}: {error}") from None


@lru_cache(maxsize=1024)
def decoder(type_: Any) -> Decoder:
    """A function (data, content type) -> value of `type_`; it raises `BadPayload`.

    `bytes` and `msgspec.Raw` give the payload as it travels, undecoded.
    Raises `BadArgument` where no payload can be decoded to `type_`.
    """
    if type_ is Any or type_ is object:
        return decode
    if type_ is bytes:
        return lambda data, content: data
    if type_ is msgspec.Raw:
        return lambda data, content: msgspec.Raw(data)
    validate = getattr(type_, "model_validate_json", None)
    if validate is None:
        validate = _msgspec_decoder(type_)

    def decode_to(data: bytes, content: str) -> Any:
        if content != JSON:
            raise BadPayload(f"expected JSON for {_name(type_)}, got {content} at $")
        try:
            return validate(data)
        except msgspec.ValidationError as error:
            raise BadPayload(_msgspec_fault(error)) from None
        except msgspec.DecodeError as error:
            raise BadPayload(f"expected {_name(type_)}, got {_shown(data)}: {error} at $") from None
        except ValueError as error:
            raise BadPayload(_pydantic_fault(error)) from None

    return decode_to


def _msgspec_decoder(type_: Any) -> Callable[[bytes], Any]:
    try:
        _check_decodable(msgspec.inspect.type_info(type_), set())
        return msgspec.json.Decoder(type_, dec_hook=_decode_foreign).decode
    except (TypeError, NotImplementedError) as error:
        raise BadArgument(f"expected a payload type that JSON can be decoded to, got {_name(type_)}: {error}") from None


def _check_decodable(info: Any, seen: set[int]) -> None:
    """Raise `TypeError` where a type, or one within it, is nothing that msgspec or pydantic can make."""
    if id(info) in seen:
        return
    seen.add(id(info))
    if isinstance(info, msgspec.inspect.CustomType) and not hasattr(info.cls, "model_validate"):
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


def _pydantic_fault(error: ValueError) -> str:
    errors = getattr(error, "errors", None)
    if errors is None:
        return f"expected another value, got one that is refused: {error} at $"
    first = errors(include_url=False)[0]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in first["loc"])
    if first["type"] == "missing":
        return f"expected field {first['loc'][-1]}, got none at ${path}"
    if first["type"] == "value_error" or "input" not in first:
        return f"expected another value: {first['msg']} at ${path}"
    return f"expected {first['msg'].removeprefix('Input should be ')}, got {_shown(first['input'])} at ${path}"


def _name(type_: Any) -> str:
    return getattr(type_, "__qualname__", None) or str(type_)


def _shown(value: Any) -> str:
    text = ascii(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_PATH = re.compile(r"\$(?:\.[A-Za-z0-9_-]+)+")
_MOST_PATH = 200


def field(path: str) -> Callable[[bytes, str], str | None]:
    """A function (data, content type) -> the field at `path` as a key, or None where there is none.

    `path` is `$.name` or `$.name.name`. Text is the key itself, anything else its JSON.
    Raises `BadArgument` for another path.
    """
    if not isinstance(path, str) or len(path) > _MOST_PATH or not _PATH.fullmatch(path):
        raise BadArgument(
            f"expected a field such as $.video_id or $.video.id, of at most {_MOST_PATH} characters, got {_shown(path)}"
        )
    return _field(path)


@lru_cache(maxsize=1024)
def _field(path: str) -> Callable[[bytes, str], str | None]:
    names = path.split(".")[1:]
    type_: Any = msgspec.Raw
    for name in reversed(names):  # a type with just this field lets the codec skip all the others
        type_ = msgspec.defstruct("Field", [("value", type_, msgspec.field(name=name))])
    read = msgspec.json.Decoder(type_).decode

    def key(data: bytes, content: str) -> str | None:
        if content != JSON:
            return None
        try:
            value = read(data)
            for _ in names:
                value = value.value
            text = bytes(value)
            if text == b"null":
                return None
            return str(_decode_json(text)) if text.startswith(b'"') else text.decode()
        except (msgspec.DecodeError, ValueError, RecursionError):  # then it is nobody's key
            return None

    return key
