"""token create, list, revoke: what is kept of a token, and what it opens."""

from __future__ import annotations

import json
import os
import signal
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from .conftest import Process, Serving, call, done

FILE = Path("wind.db.tokens")


def create(name: str, *rights: str) -> dict[str, Any]:
    made: dict[str, Any] = done("token", "create", name, *rights, "--json").json
    return made


# --- what is kept -------------------------------------------------------------------------------------------


def test_a_token_is_shown_once_and_only_its_hash_is_kept(tmp_path: Path) -> None:
    answer = done("token", "create", "shop", "--fire", "video.uploaded", "--listen", "video.encoded:Live page")
    token = answer.out.strip()
    prefix, id, secret = token.split("_", 2)
    assert prefix == "sw"
    assert len(secret) >= 43  # 256 bits
    assert "shop may fire on video.uploaded, listen to video.encoded:Live page." in answer.err
    assert str(FILE) in answer.err
    assert token not in answer.err
    for path in tmp_path.iterdir():
        assert secret not in path.read_text()
    assert id in FILE.read_text()


def test_a_token_for_a_store_that_is_not_there_says_so_for_it_may_be_mistyped(tmp_path: Path) -> None:
    words = "There is no store at wind.db yet"
    assert words in done("token", "create", "early", "--admin").err
    assert words not in done("token", "create", "named", "--admin", "--file", "mine.tokens").err
    (tmp_path / "wind.db").touch()
    assert words not in done("token", "create", "late", "--admin").err


def test_the_first_token_of_a_store_says_that_everybody_needs_one_from_then_on(tmp_path: Path) -> None:
    words = "a server on wind.db refuses everybody without a token"
    (tmp_path / "wind.db").touch()
    assert words in done("token", "create", "first", "--watch").err
    assert words not in done("token", "create", "second", "--watch").err


def test_nobody_else_may_read_the_file_however_lax_the_umask(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        create("one", "--admin")
        create("two", "--admin")
        done("token", "revoke", "one")
    finally:
        os.umask(before)
    assert stat.S_IMODE(FILE.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [tmp_path / FILE]


def test_the_list_says_what_each_allows_and_no_secret() -> None:
    token = create("shop", "--fire", "a", "--fire", "b.c", "--listen", "*:Look: twice", "--expires", "30d")["token"]
    done("token", "create", "operator", "--admin")
    header, shop, operator = done("token", "list").lines
    assert header.split() == ["NAME", "ID", "FIRE", "LISTEN", "WATCH", "ADMIN", "CREATED", "EXPIRES"]
    assert shop.startswith("shop ")
    assert "a, b.c" in shop
    assert "*:Look: twice" in shop
    assert "yes" in operator
    first, second = done("token", "list", "--json").json
    assert (first["fire"], first["listen"]) == (["a", "b.c"], [{"topic": "*", "purpose": "Look: twice"}])
    assert first["expires"] > first["created"]
    assert (second["admin"], second["expires"]) == (True, None)
    assert token.split("_", 2)[2] not in json.dumps([first, second])


def test_the_file_is_beside_the_store_or_where_it_is_said_to_be() -> None:
    create("one", "--admin", "--data", "other.db")
    assert Path("other.db.tokens").exists()
    create("two", "--admin", "--file", "those")
    assert [each["name"] for each in done("token", "list", "--file", "those", "--json").json] == ["two"]


def test_a_token_is_revoked_by_its_name_or_its_id() -> None:
    create("one", "--admin")
    second = create("two", "--admin")
    assert done("token", "revoke", "one").out.endswith("is revoked\n")
    assert done("token", "revoke", second["id"], "--json").json["name"] == "two"
    assert done("token", "list").out == "No tokens: all access is denied.\n"


# --- what is refused ----------------------------------------------------------------------------------------

REFUSED: dict[str, tuple[list[str], str]] = {
    "no right": (["create", "shop"], "expected a right for the token, got none"),
    "a name that is taken": (["create", "taken", "--admin"], "expected a name that no token has, got 'taken'"),
    "an empty name": (["create", " ", "--admin"], "expected a name of 1 to"),
    "an invalid topic": (["create", "shop", "--fire", "a b"], "expected a topic"),
    "a pattern": (["create", "shop", "--fire", "video.*"], "expected a topic"),
    "an invalid purpose": (["create", "shop", "--listen", "t: p"], "expected a purpose"),
    "nobody's name": (["revoke", "nobody"], "got 'nobody', which none has"),
    "no file": (["list", "--file", "none"], "make one with `solarwind token create`"),
    "no folder": (["create", "shop", "--admin", "--file", "no/such"], "expected a folder for the tokens"),
    "an invalid file": (["create", "shop", "--admin", "--file", "garbage"], "expected a file of tokens"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_refusal_is_one_line_and_changes_nothing(tmp_path: Path, case: str) -> None:
    create("taken", "--admin")
    (tmp_path / "garbage").write_text("garbage")
    (tmp_path / "garbage").chmod(0o600)
    before = {path: path.read_bytes() for path in tmp_path.iterdir()}
    command, words = REFUSED[case]
    answer = call("token", *command)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
    assert answer.err.startswith("solarwind: ")
    assert words in answer.err
    assert {path: path.read_bytes() for path in tmp_path.iterdir()} == before


@pytest.mark.parametrize("expires", ["0", "tomorrow", "-1d"])
def test_how_long_it_lasts_has_to_be_said_in_words_that_are_known(expires: str) -> None:
    assert call("token", "create", "shop", "--admin", "--expires", expires).code == 2
    assert not FILE.exists()


# --- what it opens ------------------------------------------------------------------------------------------


@pytest.fixture
def server(serving: Callable[..., Serving]) -> Serving:
    """One that asks for tokens, with the usual heartbeats: a client under load may be silent for a second."""
    create("operator", "--admin")
    return serving()


def test_a_command_without_a_valid_token_is_refused(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    for token, words in (("", "expected a token, got none"), ("sw_1_x", "expected a token that is known")):
        monkeypatch.setenv("SOLARWIND_TOKEN", token)
        for command in (["fire", "t"], ["topics"], ["listen", "t", "--purpose", "p"], ["backup", "copy.db"]):
            answer = call(*command, "--url", server.url)
            assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
            assert words in answer.err


def test_who_may_watch_alone_is_told_what_a_payload_needs(server: Serving, monkeypatch: pytest.MonkeyPatch) -> None:
    tokens = {name: create(name, f"--{name}")["token"] for name in ("watch", "watch-payloads")}
    monkeypatch.setenv("SOLARWIND_TOKEN", create("shop", "--fire", "t")["token"])
    done("fire", "t", "--id", "i", "--url", server.url)
    for name, shown in (("watch", "(needs the right watch:payloads)"), ("watch-payloads", "null")):
        monkeypatch.setenv("SOLARWIND_TOKEN", tokens[name])
        assert done("events", "t", "--url", server.url).lines[-1].endswith(f"  {shown}")
        assert f"payload   {shown}" in done("show", "t", "i", "--url", server.url).lines
        (event,) = done("events", "t", "--json", "--url", server.url).json["events"]
        assert event["payload"] is None
        assert event.get("content_type") == {"watch": "application/json; hidden=true"}.get(name)


@pytest.mark.long
def test_each_right_opens_what_it_says_and_nothing_else(
    server: Serving, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    since = ("--since", "beginning", "--count", "1")
    rights = {"fire": ["--fire", "t"], "listen": ["--listen", "t:p"], "watch": ["--watch"], "admin": ["--admin"]}
    opens = {
        "fire": ["fire", "t"],
        "listen": ["listen", "t", "--purpose", "p", *since],
        "watch": ["topics"],
        "admin": ["topics", "set", "t", "--keep", "1d"],
    }
    others = [["fire", "u"], ["listen", "u", "--purpose", "p"], ["listen", "t", "--purpose", "q"]]
    for name, options in rights.items():
        monkeypatch.setenv("SOLARWIND_TOKEN", create(name, *options)["token"])
        assert start(*opens[name], "--url", server.url).end().code == 0
        for command in (
            *others,
            *(opens[right] for right in opens if right != name and (name, right) != ("admin", "watch")),
        ):
            answer = call(*command, "--url", server.url)
            assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1), answer
            assert f"got '{name}', which does not have it: give one that has, which the" in answer.err
            assert answer.err.endswith("server's operator makes with `solarwind token create`\n")


@pytest.mark.long
def test_a_token_that_is_revoked_ends_the_connections_that_it_opened_and_the_log_does_not_have_it(
    server: Serving, start: Callable[..., Process], monkeypatch: pytest.MonkeyPatch
) -> None:
    token = create("all", "--fire", "*", "--listen", "*", "--admin")["token"]
    monkeypatch.setenv("SOLARWIND_TOKEN", token)
    done("fire", "t", "1", "--url", server.url)
    listening = start("listen", "t", "--purpose", "p", "--since", "beginning", "--url", server.url)
    watching = start("top", "--interval", "0.05", "--url", server.url)
    listening.read(" 1\n")
    watching.read("SETTLED")
    done("token", "revoke", "all")
    for process in (listening, watching):
        answer = process.end()
        assert answer.code == 1, answer
        said = answer.err.splitlines()[-1]
        assert "expected a token that is known, got one that is not, or was revoked: give another, which the" in said
    assert call("fire", "t", "--url", server.url).code == 1
    server.process.signal(signal.SIGTERM)
    assert token.split("_", 2)[2] not in server.process.end().err
