"""Whatever somebody sends, as far as a moment goes: `make fuzz` goes on from there. See fuzz/."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from .fuzz import messages, requests
from .fuzz.__main__ import KINDS, fuzz
from .fuzz.messages import BINARY, CONTINUED, PING, Frame, Say, Script
from .fuzz.requests import Asked
from .fuzz.target import Target

EXAMPLES = {"messages": 30, "requests": 20}
MANY = {"messages": 600, "requests": 400}
SEED = 20_000  # none that `make fuzz` comes to


@pytest.fixture(scope="module")
def target(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Target]:
    target = Target(tmp_path_factory.mktemp("fuzz"))
    yield target
    target.close()


@pytest.mark.parametrize("examples", [EXAMPLES, pytest.param(MANY, marks=pytest.mark.long)], ids=["some", "many"])
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_is_sent_the_server_goes_on_and_does_not_grow(
    target: Target, kind: str, examples: dict[str, int]
) -> None:
    fuzz(target, kind, SEED, examples[kind])
    target.runner.run(target.check_all())


# What was found once.
HELLO = Say([["hello", "c"]])
SCRIPTS: dict[str, Script] = {
    "a message in pieces most of which are empty": [
        HELLO,
        Frame(BINARY, b"", fin=False),
        *[Frame(CONTINUED, b"", fin=False)] * 500,
        Frame(CONTINUED, b"\x91\x91\xa4ping"),
    ],
    "pings without number": [HELLO, *[Frame(PING, bytes(125))] * 500],
    "leaves without number": [HELLO, *[Say([["leave", 1, 9]] * 500)] * 20],
    "more messages than may be together": [HELLO, Say([["ping"]] * 20_000)],
    "joining and leaving at once": [HELLO, Say([["join", 1, 1, {"topic": "a", "purpose": "p"}], ["leave", 2, 1]] * 50)],
}
REQUESTS = {
    "two origins": [Asked("GET", "/healthz", (("Origin", "http://localhost"), ("Origin", "null")), b"")],
    "headers without number": [Asked("GET", "/healthz", (("a", ""),) * 1_500, b"")],
    "what is none, and more of it": [Asked("?", "/", (), b"x" * 100_000)],
}


@pytest.mark.parametrize("what", SCRIPTS)
def test_the_server_goes_on_after_messages_that_were_once_too_much(target: Target, what: str) -> None:
    target.runner.run(messages.converse(target, [SCRIPTS[what]]))
    target.runner.run(target.check_all())


@pytest.mark.parametrize("what", REQUESTS)
def test_the_server_goes_on_after_requests_that_were_once_too_much(target: Target, what: str) -> None:
    target.runner.run(requests.send(target, [REQUESTS[what]]))
    target.runner.run(target.check_all())
