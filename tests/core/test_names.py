"""The grammars of topic, purpose, key and id, and that a refusal says what was expected, what came, and where."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind.errors import BadName
from solarwind.names import check_id, check_key, check_purpose, check_topic

WORD = re.compile(r"[A-Za-z0-9_-]+")


@pytest.mark.parametrize("topic", ["a", "video.uploaded", "A-1_b.C", "0", "-", "_", "x" * 200, ".".join("a" * 100)])
def test_a_topic_is_words_joined_by_single_dots(topic: str) -> None:
    assert check_topic(topic) == topic


@pytest.mark.parametrize(
    ("topic", "says"),
    [
        ("", "got ''"),
        (".", "got '.'"),
        (".a", "character 1"),
        ("a.", "character 2"),
        ("a..b", "character 2"),
        ("a b", "character 2"),
        ("video.*", "character 6"),
        ("vidéo", "character 4"),
        ("a\n", "character 2"),
        ("x" * 201, "201 characters"),
        (None, "got NoneType: None"),
        (7, "got int: 7"),
        (b"a", "got bytes: b'a'"),
    ],
)
def test_what_is_no_topic_is_refused_with_what_came_and_where(topic: object, says: str) -> None:
    with pytest.raises(BadName) as refused:
        check_topic(topic)
    assert str(refused.value).startswith("expected a topic of 1 to 200 characters")
    assert says in str(refused.value)


@given(st.one_of(st.text(max_size=12), st.text("aZ9_-.", max_size=210)))
def test_a_topic_is_taken_exactly_if_the_grammar_has_it(text: str) -> None:
    expected = 1 <= len(text) <= 200 and all(WORD.fullmatch(word) for word in text.split("."))
    assert takes(check_topic, text) == expected


@pytest.mark.parametrize("purpose", ["p", "Encode video to MP4", "Für Ökonomie: 视频 → MP4", "a" * 200, "🎬" * 200])
def test_a_purpose_is_printable_text(purpose: str) -> None:
    assert check_purpose(purpose) == purpose


@pytest.mark.parametrize(
    ("purpose", "says"),
    [
        ("", "got ''"),
        (" a", "got ' a'"),
        ("a ", "got 'a '"),
        ("a\tb", r"'\t' at character 2"),
        ("a\x00", r"'\x00' at character 2"),
        ("ab\u200b", r"'\u200b' at character 3"),
        ("\ud800", "at character 1"),
        ("x" * 201, "201 characters"),
        (3.5, "got float: 3.5"),
    ],
)
def test_what_is_no_purpose_is_refused_with_what_came_and_where(purpose: object, says: str) -> None:
    with pytest.raises(BadName) as refused:
        check_purpose(purpose)
    assert str(refused.value).startswith("expected a purpose of 1 to 200 printable characters")
    assert says in str(refused.value)


@given(st.text(max_size=210))
def test_a_purpose_is_taken_exactly_if_it_is_printable_and_neat(text: str) -> None:
    expected = 1 <= len(text) <= 200 and text.isprintable() and text == text.strip()
    assert takes(check_purpose, text) == expected


@given(st.text(max_size=90))
def test_a_key_is_up_to_256_bytes_of_utf8(text: str) -> None:
    assert takes(check_key, text) == (len(text.encode(errors="surrogatepass")) <= 256 and "\ud800" not in text)
    assert takes(check_key, "é" * 128)
    assert not takes(check_key, "é" * 128 + "a")


@pytest.mark.parametrize(
    ("key", "says"),
    [
        ("x" * 257, "got 257 bytes"),
        ("ab\ud800", "lone surrogate at character 3"),
        (1, "got int: 1"),
        pytest.param(10**5_000, "got int: int of 16,610 bits", id="huge"),  # Python writes no integer of so many digits
    ],
)
def test_what_is_no_key_is_refused_with_what_came_and_where(key: object, says: str) -> None:
    with pytest.raises(BadName) as refused:
        check_key(key)
    assert str(refused.value).startswith("expected a key of at most 256 bytes of UTF-8")
    assert says in str(refused.value)


@given(st.text(max_size=210))
def test_an_id_is_printable_and_neat(text: str) -> None:
    expected = 1 <= len(text) <= 200 and text.isprintable() and text == text.strip()
    assert takes(check_id, text) == expected


def takes(check: Callable[[object], str], text: str) -> bool:
    try:
        return check(text) == text
    except BadName as error:
        refusal = str(error)
    assert "expected" in refusal
    assert "got" in refusal
    assert refusal.isascii(), "a refusal can be printed anywhere"
    return False
