"""Text from outside as people are to see it: nothing acts on a terminal, and no secret is shown."""

from __future__ import annotations

import json
import logging

import pytest

from solarwind import SolarWind
from solarwind.copying import open_end
from solarwind.errors import SolarWindError
from solarwind.text import escape_controls, plain, plain_json, plain_traceback, redact

ACTING = [
    *map(chr, range(0x20)),
    *map(chr, range(0x7F, 0xA0)),
    *map(chr, (0x61C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x2028, 0x2029, 0xFEFF)),
    chr(0xE0001),
]


def test_json_for_any_reader_has_no_character_that_turns_the_direction_of_writing() -> None:
    said = {"name": "grüße \u4f60 a\u202eb\x9b\x7f\ufeff\U000e0041"}
    escaped = escape_controls(json.dumps(said, ensure_ascii=False).encode())
    assert json.loads(escaped) == said
    assert escaped.decode() == '{"name": "grüße \u4f60 a\\u202eb\\u009b\\u007f\\ufeff\\udb40\\udc41"}'
    for same in (b'{"a": 1}', "grüße".encode()):
        assert escape_controls(same) is same


def test_whatever_acts_on_a_terminal_is_written_out() -> None:
    for each in ACTING:
        shown = plain(f"a{each}b")
        assert shown.isprintable(), ascii(each)
        assert shown == f"a{each.encode('unicode_escape').decode()}b"
    assert plain("Größe 大 [red] 😀") == "Größe 大 [red] 😀"


def test_json_with_everything_escaped_is_the_same_json() -> None:
    value = {each: f"ö{each}" for each in ACTING}
    shown = plain_json(json.dumps(value, ensure_ascii=False).encode())
    assert shown.decode().isprintable()
    assert json.loads(shown) == value


SECRET = "hunter2"
SCHEMES = ("ws://", "wss://", "sqlite://", "sqlite:///", "nats://", "http://", "WS://", " ws://", "", "//", "ws:")
RESTS = (
    f"u:{SECRET}@h", f"u:{SECRET}@h/x", f"u:{SECRET}@h:7400", f"{SECRET}@h", f":{SECRET}@h", f"u:a/{SECRET}@h",
    f"u:?{SECRET}@h", f"u:#{SECRET}@h", f"u%3A{SECRET}%40h", f"u%3a{SECRET}%2540h", f"h?token={SECRET}",
    f"h?a=1&{SECRET}", f"h/x?a=b;c={SECRET}", f"h#{SECRET}", f"u:{SECRET}@[::1", f"u:{SECRET}@h:port",
    f"h/sw_0123456789ab_{SECRET}",
)  # fmt: skip
SECRETIVE = [scheme + rest for scheme in SCHEMES for rest in RESTS]


@pytest.mark.parametrize("url", SECRETIVE)
def test_no_refusal_shows_a_secret_of_a_url(url: str) -> None:
    assert SECRET not in redact(url)
    said = []
    for use in (SolarWind, lambda url: open_end(url, writes=True)):
        try:
            use(url)
        except SolarWindError as error:
            said.append(str(error))
    assert not any(SECRET in text for text in said)


def test_redact_keeps_what_is_no_secret() -> None:
    for url in (
        "ws://127.0.0.1:7400",
        "sqlite:///wind.db",
        "nats://n1,n2/shop",
        "memory://",
        "wind.db",
        "wss://[::1]:1/x",
    ):
        assert redact(url) == url
    assert redact("ws://me:secret@host:7400/x?a=b") == "ws://...@host:7400/x?a=..."


def _raised(text: str) -> Exception:
    try:
        try:
            raise ValueError(text)
        except ValueError as error:
            raise ExceptionGroup(text, [RuntimeError(text), error]) from error
    except ExceptionGroup as error:
        error.add_note(text)
        return error


def test_an_exceptions_text_is_no_line_of_a_log(caplog: pytest.LogCaptureFixture) -> None:
    evil = "no\n2026-01-01 INFO solarwind: all is well \x1b[2J\x9b\u202e"
    assert all(line.isprintable() for line in plain_traceback(_raised(evil)).split("\n"))
    assert plain(evil) in plain_traceback(_raised(evil))
    logging.getLogger("solarwind").error("it raised: %s", evil, exc_info=_raised(evil))
    written = caplog.text
    assert all(line.isprintable() for line in written.split("\n"))
    assert sum(line.startswith("2026-01-01") for line in written.split("\n")) == 0
    assert "test_text.py" in written, "it is still a traceback"


def test_an_exception_that_has_no_text_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError("no text")

    logging.getLogger("solarwind").error("it raised", exc_info=Mute())
    assert "Mute" in caplog.text
