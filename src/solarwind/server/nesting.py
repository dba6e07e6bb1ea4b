"""JSON that somebody sent, looked at before anything else is done with it: that it is JSON, and how deep it is."""

from __future__ import annotations

import re

import msgspec

from ..errors import BadPayload, TooLarge

_decode = msgspec.json.Decoder().decode
_STRINGS = re.compile(rb'"(?:[^"\\]+|\\.)*+"', re.DOTALL)
_OTHERS = bytes(set(range(256)) - set(b"[]{}"))
_BRACKETS = bytes.maketrans(b"{}", b"[]")


def check_json(data: bytes, most_nesting: int, what: str = "JSON") -> None:
    """Raises `BadPayload` for what is not JSON, `TooLarge` for arrays and objects deeper within each other."""
    try:
        _decode(data)
    except RecursionError:
        raise _too_deep(most_nesting) from None
    except (msgspec.DecodeError, ValueError) as error:
        raise BadPayload(f"expected {what}, got something else: {error}") from None
    if data.count(b"[") + data.count(b"{") > most_nesting:
        _check_nesting(data, most_nesting)


def _check_nesting(data: bytes, most: int) -> None:
    """The innermost pairs are taken out as often as it may be deep: a few passes, whatever it is. It is JSON, so that
    all strings have an end."""
    brackets = _STRINGS.sub(b"", data).translate(_BRACKETS, _OTHERS)
    for _ in range(most):
        if not brackets:
            return
        brackets = brackets.replace(b"[]", b"")
    if brackets:
        raise _too_deep(most)


def _too_deep(most: int) -> TooLarge:
    return TooLarge(f"expected JSON nested at most {most} deep, got it deeper: send it flatter")
