"""Makes text from outside safe to show: on a terminal, in a log, in an error message.

Names, payloads, errors and URLs may come from anywhere. None of them may control a terminal, forge a log line, or
reveal a secret.
"""

from __future__ import annotations

import re
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime

_OTHER = re.compile(r"[^\x00-\x7e]")
_CONTROLS = re.compile("[\x7f-\x9f\xad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\U000e0000-\U000e007f]")
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_LOGIN = re.compile(r".*(?:@|%(?:25)*40)", re.DOTALL)  # an @ may be quoted, more than once too
_OPTION = re.compile(r"([?&;])(\w+=)?[^&;]+")
_FRAGMENT = re.compile(r"#.+", re.DOTALL)
_TOKEN = re.compile(r"sw_[0-9A-Fa-f]{12}_[\w-]*")


def plain(text: str) -> str:
    """Return the text with what would control a terminal escaped: line ends, ESC and other control characters, and
    those that change the direction of writing."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def plain_json(data: bytes) -> bytes:
    """Return the same JSON with what would control a terminal escaped. JSON itself escapes what is below a space."""
    if data.isascii() and b"\x7f" not in data:
        return data
    return _OTHER.sub(_escaped, data.decode()).encode()


def escape_controls(data: bytes) -> bytes:
    """Return the same JSON with C1 control characters, and those that change the direction of writing, escaped. It is
    fast, also for long texts in any language."""
    if data.isascii() and b"\x7f" not in data:
        return data
    text = data.decode()
    return _CONTROLS.sub(_escaped, text).encode() if _CONTROLS.search(text) else data


def _escaped(found: re.Match[str]) -> str:
    if found[0].isprintable():
        return found[0]
    units = found[0].encode("utf-16-be")
    return "".join(f"\\u{units[at : at + 2].hex()}" for at in range(0, len(units), 2))


def plain_traceback(error: BaseException) -> str:
    """Return the traceback, with the text of each exception on one line."""
    text = "".join(traceback.format_exception(error)).rstrip("\n")
    for said in _texts(error):
        if not said.isprintable():
            text = text.replace(said, plain(said))
    return "\n".join(map(plain, text.split("\n")))


def is_plain_error(error: BaseException) -> bool:
    """Return whether its traceback can be logged unchanged."""
    return all(said.isprintable() for said in _texts(error))


def _texts(error: BaseException) -> Iterator[str]:
    """Yield the texts of an exception and of those that led to it."""
    todo: list[BaseException | None] = [error]
    seen: set[int] = set()
    while todo:
        each = todo.pop()
        if each is None or id(each) in seen:
            continue
        seen.add(id(each))
        try:
            yield str(each)
        except Exception:  # then the traceback says so
            pass
        yield from (note for note in getattr(each, "__notes__", ()) if isinstance(note, str))
        todo += [each.__cause__, each.__context__]
        if isinstance(each, BaseExceptionGroup):
            todo += each.exceptions


def time_text(time_ns: int) -> str:
    """Return a time, given in ns since 1970, for people."""
    return datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


def redact(url: str) -> str:
    """Return the URL without possible secrets: name and password, the values of options, a token."""
    text = url.strip()
    scheme = _SCHEME.match(text)
    start = scheme[0] if scheme else ""
    rest = _LOGIN.sub("...@", text[len(start) :], count=1)
    rest = _FRAGMENT.sub("#...", rest)
    rest = _OPTION.sub(r"\1\2...", rest)
    return plain(start + _TOKEN.sub("sw_...", rest))
