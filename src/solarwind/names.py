"""The grammars of topics, purposes, keys, ids and paths: the checks that refuse anything else, and the refusals of
names that nothing has."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from .errors import BadArgument, BadName, NotFound

_TOPIC = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*")
_CONTENT = re.compile(r"[!-~]([ -~]{0,198}[!-~])?")
_TOKEN = re.compile(r"[!-~]+")
_MAX_CHARACTERS = 200
MAX_SCHEDULE = _MAX_CHARACTERS - 50  # the ids of its events are made from its name
_MAX_KEY_BYTES = 256
RESERVED = "solarwind."  # begins the topics on which only the dispatcher fires
DEAD = "solarwind.dead"  # on which it fires an event for each that dies
MAX_SOCKET_PATH = 107  # bytes: the kernel keeps 108, with a NUL at the end


def check_topic(topic: object) -> str:
    """Return `topic` if it is valid, else raise `BadName`."""
    if type(topic) is str and len(topic) <= _MAX_CHARACTERS and _TOPIC.fullmatch(topic):
        return topic  # the common case
    expected = "a topic of 1 to 200 characters, words of A-Z a-z 0-9 _ - joined by single dots"
    name = _text(topic, expected)
    if not _TOPIC.fullmatch(name):
        raise BadName(f"expected {expected}, got {shown(name)}{_where(name)}")
    if len(name) > _MAX_CHARACTERS:
        raise BadName(f"expected {expected}, got {len(name)} characters: {shown(name)}")
    return name


def check_fired(topic: object) -> str:
    """Return `topic` if anybody may fire on it, else raise `BadName`."""
    name = check_topic(topic)
    if name.startswith(RESERVED):
        raise BadName(
            f"expected a topic that does not begin with {RESERVED!r}, got {name!r}, on which only the dispatcher "
            "fires: choose another name"
        )
    return name


def check_heard(topic: object) -> str:
    """Return `topic` if anything is ever fired on it, else raise `BadName`."""
    name = check_topic(topic)
    if name.startswith(RESERVED) and name != DEAD:
        raise BadName(
            f"expected a topic that does not begin with {RESERVED!r}, or {DEAD!r}, got {name!r}, on which the "
            "dispatcher never fires: choose another name"
        )
    return name


def check_path(path: object) -> str:
    """Return the path of a file as text if it can be one, else raise `BadArgument`."""
    text = os.fspath(path) if isinstance(path, str | os.PathLike) else None
    if not isinstance(text, str) or not text:
        raise BadArgument(f"expected the path of a file, such as 'copy.db', got {shown(path)}")
    if "\0" in text or not _is_unicode(text):
        raise BadArgument(f"expected the path of a file, in Unicode without NUL, got {shown(text)}: name another")
    return text


def check_socket_path(path: object) -> str:
    """Return the path of a Unix socket as text if it can be one, else raise `BadArgument`."""
    text = check_path(path)
    size = len(os.fsencode(text))
    if size > MAX_SOCKET_PATH:
        raise BadArgument(
            f"expected a path of at most {MAX_SOCKET_PATH} bytes for a Unix socket, got {size} in {shown(text)}: name "
            "a shorter one, such as /run/wind.sock"
        )
    return text


def _is_unicode(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def check_purpose(purpose: object) -> str:
    """Return `purpose` if it is valid, else raise `BadName`."""
    expected = "a purpose of 1 to 200 printable characters with no space at either end"
    name = _text(purpose, expected)
    if len(name) > _MAX_CHARACTERS:
        raise BadName(f"expected {expected}, got {len(name)} characters: {shown(name)}")
    if not name or name != name.strip():
        raise BadName(f"expected {expected}, got {shown(name)}")
    for at, character in enumerate(name):
        if not character.isprintable():
            raise BadName(f"expected {expected}, got {shown(name)} with {character!a} at character {at + 1}")
    return name


def check_key(key: object) -> str:
    """Return `key` if it is valid, else raise `BadName`."""
    if type(key) is str and len(key) <= _MAX_KEY_BYTES and key.isascii():
        return key  # the common case
    expected = "a key of at most 256 bytes of UTF-8"
    name = _text(key, expected)
    try:
        size = len(name.encode())
    except UnicodeEncodeError as error:
        raise BadName(f"expected {expected}, got a lone surrogate at character {error.start + 1}") from None
    if size > _MAX_KEY_BYTES:
        raise BadName(f"expected {expected}, got {size} bytes: {shown(name)}")
    return name


def check_schedule(name: object) -> str:
    """Return `name`, a schedule's, if it is valid, else raise `BadName`. The ids of its events are made from it."""
    return _check_printable(name, "a schedule's name", MAX_SCHEDULE)


def check_webhook(name: object) -> str:
    """Return `name`, a webhook's, if it is valid, else raise `BadName`."""
    if not isinstance(name, str) or not _TOPIC.fullmatch(name) or len(name) > _MAX_CHARACTERS:
        raise BadName(
            f"expected a webhook's name of 1 to {_MAX_CHARACTERS} characters, words of A-Z a-z 0-9 _ - joined by "
            f"single dots, got {shown(name)}"
        )
    return name


def check_id(id: object) -> str:
    """Return `id`, an event's id given by its producer, if it is valid, else raise `BadName`."""
    return _check_printable(id, "an event id", _MAX_CHARACTERS)


def _check_printable(text: object, what: str, maximum: int) -> str:
    expected = f"{what} of 1 to {maximum} printable characters with no space at either end"
    name = _text(text, expected)
    if not name or len(name) > maximum or name != name.strip() or not name.isprintable():
        raise BadName(f"expected {expected}, got {shown(name)}")
    return name


def check_token(token: object, where: str = "") -> None:
    """Raise `BadArgument` for what cannot be a token; None is none. It is a secret, so the sentence does not show it.
    `where` says in it where the token is from."""
    if token is None or (isinstance(token, str) and _TOKEN.fullmatch(token)):
        return
    if not isinstance(token, str):
        got = type(token).__name__
    elif not token:
        got = "an empty text"
    else:
        at = next(at for at, each in enumerate(token) if not _TOKEN.fullmatch(each))
        got = f"text with {token[at]!a} at character {at + 1}"
    raise BadArgument(
        f"expected a token{where}, such as 'sw_…', in ASCII without spaces and line ends, got {got}: give it as "
        "`solarwind token create` printed it"
    )


def check_content(content: str) -> str:
    """Return `content`, a payload's content type, if it is safe in any header, else raise `BadName`."""
    if not _CONTENT.fullmatch(content):
        raise BadName(f"expected a content type such as application/json, got {shown(content)}")
    return content


def _text(value: object, expected: str) -> str:
    if not isinstance(value, str):
        raise BadName(f"expected {expected}, got {type(value).__name__}: {shown(value)}")
    return value


def _where(topic: str) -> str:
    """Return where a topic leaves the grammar, for the end of a sentence."""
    if topic in ("", "."):
        return ""
    good = _TOPIC.match(topic)
    at = good.end() if good else 0
    return f": the fault is at character {at + 1}"


def shown(value: object) -> str:
    """Return a value as a refusal shows it: in ASCII, of at most 80 characters."""
    try:
        text = ascii(value)
    except ValueError:  # an integer of more digits than Python writes
        text = f"{type(value).__name__} of {value.bit_length():,} bits" if isinstance(value, int) else "another"
    return text if len(text) <= 80 else f"{text[:77]}..."


def no_purpose(topic: str, purpose: str, there: Collection[str] = ()) -> NotFound:
    """Return the refusal for a purpose that a topic does not have; `there` are those that it has."""
    names = ", ".join(map(repr, sorted(there)[:5]))
    has = f"it has {names}" if names else "it has no purposes"
    return NotFound(f"expected a purpose of topic {topic!r}, got {purpose!r}, which does not exist: {has}")


def no_topic(topic: str) -> NotFound:
    """Return the refusal for a topic that has no events and no purposes."""
    return NotFound(f"expected a topic that something was fired on or listens to, got {topic!r}, which does not exist")
