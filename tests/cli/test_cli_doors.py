"""An operator's call with a bad or unknown name is refused with the same code at every door, on every engine."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import pytest

from solarwind import SolarWind, SolarWindError

from .conftest import Process, Serving, call

TOPIC, PURPOSE = "video.uploaded", "Encode"
CASES = {
    "a bad topic": ("a b", PURPOSE, "bad-name", "expected a topic"),
    "an empty topic": ("", PURPOSE, "bad-name", "expected a topic"),
    "a bad purpose": (TOPIC, " p", "bad-name", "expected a purpose"),
    "an unknown topic": ("video.uplaoded", PURPOSE, "not-found", "expected a purpose of topic 'video.uplaoded'"),
    "an unknown purpose": (TOPIC, "Decode", "not-found", "got 'Decode', which does not exist"),
}

# What each verb is in Python, over HTTP (method, end of the path, body), and on the command line.
Verb = tuple[Callable[[SolarWind, str, str], Awaitable[object]], tuple[str, str, Any], list[str]]
VERBS: dict[str, Verb] = {
    "dead": (lambda wind, t, p: wind.dead(t, p), ("GET", "/dead", None), ["dead", "list", "T", "P"]),
    "redrive": (
        lambda wind, t, p: wind.redrive(t, p),
        ("POST", "/dead/redrive", {"all": True}),
        ["dead", "redrive", "T", "P", "--all"],
    ),
    "discard": (
        lambda wind, t, p: wind.discard(t, p, None),
        ("POST", "/dead/discard", {"all": True}),
        ["dead", "discard", "T", "P", "--all"],
    ),
    "replay": (lambda wind, t, p: wind.replay(t, p), ("POST", "/replay", {}), ["replay", "T", "P"]),
    "pause": (lambda wind, t, p: wind.pause(t, p), ("POST", "/pause", None), ["pause", "T", "P"]),
    "resume": (lambda wind, t, p: wind.resume(t, p), ("POST", "/resume", None), ["resume", "T", "P"]),
    "rollout": (lambda wind, t, p: wind.rollout(t, p), ("GET", "/rollout", None), ["rollout", "show", "T", "P"]),
    "share": (
        lambda wind, t, p: wind.share(t, p, 2, 0.1),
        ("POST", "/rollout/share", {"version": 2, "share": 0.1}),
        ["rollout", "share", "T", "P", "--version", "2", "--share", "0.1"],
    ),
    "shadow": (
        lambda wind, t, p: wind.shadow(t, p, 2),
        ("POST", "/rollout/shadow", {"version": 2}),
        ["rollout", "shadow", "T", "P", "--version", "2"],
    ),
    "differences": (
        lambda wind, t, p: wind.differences(t, p),
        ("GET", "/rollout/differences", None),
        ["rollout", "differences", "T", "P"],
    ),
    "promote": (
        lambda wind, t, p: wind.promote(t, p, 2),
        ("POST", "/rollout/promote", {"version": 2}),
        ["rollout", "promote", "T", "P", "--version", "2"],
    ),
    "rollback": (
        lambda wind, t, p: wind.rollback(t, p),
        ("POST", "/rollout/rollback", None),
        ["rollout", "rollback", "T", "P"],
    ),
    "retire": (lambda wind, t, p: wind.retire(t, p), ("DELETE", "", None), ["retire", "T", "P"]),
}


def _furnish(url: str) -> None:
    async def make() -> None:
        wind = SolarWind(url)
        wind.on(TOPIC, purpose=PURPOSE)(lambda payload: None)
        async with wind:
            await wind.fire(TOPIC, 1)
            await wind.settled(60)

    asyncio.run(make())


def _ask_in_python(wind: SolarWind, verb: str, topic: str, purpose: str) -> Awaitable[object]:
    return VERBS[verb][0](wind, topic, purpose)


@pytest.mark.parametrize("engine", ["memory", "sqlite", "ws"])
def test_in_python_a_bad_or_unknown_name_has_the_same_code_on_every_engine(
    engine: str, url: str, serving: Callable[..., Serving]
) -> None:
    where = {"memory": "memory://", "sqlite": url}.get(engine) or serving("--engine", "memory://").url

    async def ask() -> None:
        wind = SolarWind(where)
        wind.on(TOPIC, purpose=PURPOSE)(lambda payload: None)
        async with wind:
            for verb in VERBS:
                for case, (topic, purpose, code, words) in CASES.items():
                    with pytest.raises(SolarWindError) as refused:
                        await _ask_in_python(wind, verb, topic, purpose)
                    assert refused.value.code == code, (verb, case, refused.value)
                    assert words in str(refused.value), (verb, case)

    asyncio.run(ask())


@pytest.mark.parametrize("verb", VERBS)
def test_over_http_a_bad_or_unknown_name_has_the_code_that_it_has_in_python(verb: str, shared: Serving) -> None:
    method, end, body = VERBS[verb][1]
    for case, (topic, purpose, code, words) in CASES.items():
        if not topic:
            continue  # it would be another path
        path = f"/v1/topics/{quote(topic, '')}/purposes/{quote(purpose, '')}{end}"
        status, problem = shared.ask(method, path, body)
        assert (status, problem["code"]) == ({"bad-name": 400, "not-found": 404}[code], code), (case, problem)
        assert words in problem["detail"], (case, problem)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Any:
    process = Process("serve", "--json", "--port", "0", "--engine", "memory://")
    process._end.cancel()  # it is there for all of them
    server = Serving(process)
    _furnish(server.url)
    yield server
    process.close()


@pytest.mark.parametrize("verb", VERBS)
@pytest.mark.parametrize("engine", ["sqlite", "ws"])
def test_on_the_command_line_a_bad_or_unknown_name_is_one_line_that_says_the_same(
    engine: str, verb: str, url: str, shared: Serving
) -> None:
    if engine == "sqlite":
        _furnish(url)
    where = url if engine == "sqlite" else shared.url
    for case, (topic, purpose, _, words) in CASES.items():
        command = [{"T": topic, "P": purpose}.get(word, word) for word in VERBS[verb][2]]
        answer = call(*command, "--url", where)
        assert (answer.code, answer.err.count("\n")) == (1, 1), (case, answer)
        assert words in answer.err, (case, answer)


@pytest.mark.parametrize("word", ["a b", "", "T."])
def test_purposes_of_a_topic_that_is_none_are_refused_everywhere(word: str, empty: str, shared: Serving) -> None:
    for where in (empty, shared.url):
        assert "expected a topic" in call("purposes", word, "--url", where).err
    status, problem = shared.ask("GET", f"/v1/purposes?topic={quote(word)}")
    assert (status, problem["code"]) == (400, "bad-name")
    assert "'nobody.knows', which does not exist" in call("purposes", "nobody.knows", "--url", shared.url).err
