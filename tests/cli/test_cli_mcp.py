"""`mcp`: an assistant asks what an operator asks, by a client of the protocol's own, and can change nothing."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from mcp import Client, StdioServerParameters

from solarwind.extras import install
from solarwind.operations import OPERATIONS
from solarwind.testing.contract import on_loop

from .conftest import Serving, call


@asynccontextmanager
async def assistant(url: str) -> AsyncIterator[Client]:
    command = ["-m", "solarwind", "mcp", "--url", url]
    async with Client(StdioServerParameters(command=sys.executable, args=command, env=dict(os.environ))) as client:
        yield client


async def ask(client: Client, tool: str, **arguments: Any) -> tuple[bool, Any]:
    """Return whether it was answered, and the answer or the refusal."""
    answer = await client.call_tool(tool, arguments)
    (content,) = answer.content
    return not answer.is_error, content.text if answer.is_error else json.loads(content.text)


@on_loop
async def test_each_question_of_an_operator_is_a_tool_that_changes_nothing(furnished: str) -> None:
    questions = {name for name, each in OPERATIONS.items() if each.cli and each.repeat == "question"}
    async with assistant(furnished) as client:
        tools = {each.name: each for each in (await client.list_tools()).tools}
        assert tools.keys() == questions
        assert {"attention", "purposes", "event", "trace", "dead"} <= questions
        assert not {"redrive", "retire", "fire", "replay"} & questions
        assert all(each.description and each.annotations.read_only_hint for each in tools.values())
        assert tools["dead"].input_schema["required"] == ["topic", "purpose"]
        assert tools["dead"].input_schema["properties"]["limit"]["description"] == "How many at most."


def test_answers_are_what_the_commands_print_as_json(furnished: str) -> None:
    printed = {each: call(each, "--url", furnished, "--json").json for each in ("purposes", "topics", "attention")}

    async def compare() -> None:
        async with assistant(furnished) as client:
            for tool, rows in printed.items():
                good, found = await ask(client, tool)
                assert good, found
                assert [each.keys() for each in found] == [each.keys() for each in rows]
            good, found = await ask(client, "events", topic="video.uploaded", since="2h", limit=1)
            assert good, found
            assert len(found["events"]) == 1

    asyncio.run(compare())


@on_loop
async def test_what_is_wrong_is_said_in_the_answer(furnished: str) -> None:
    async with assistant(furnished) as client:
        for tool, arguments, says in (
            ("n" * 5_000, {}, "expected one of the tools "),
            (
                "dead",
                {"topic": "video.uploaded"},
                "as the schema of dead has them: Object missing required",
            ),
            ("purposes", {"topic": "none"}, "which does not exist"),
            ("purposes", {"colour": "red"}, "unknown field `colour`"),
            ("events", {"topic": "video.uploaded", "since": "soon"}, "expected"),
            ("events", {"topic": "video.uploaded", "limit": "many"}, "Expected `int`"),
            ("events", {"topic": "video.uploaded", "limit": 0}, "limit"),
        ):
            good, text = await ask(client, tool, **arguments)
            assert not good, (tool, arguments)
            assert says in text
            assert text.startswith("expected ")
            assert len(text) < 600
        assert (await ask(client, "topics"))[0], "it goes on"


@pytest.mark.long
@on_loop
async def test_a_server_is_asked_with_the_rights_of_its_token(serving: Any, tmp_path: Any) -> None:
    server: Serving = serving("--data", str(tmp_path / "wind.db"))
    async with assistant(server.url) as client:
        assert await ask(client, "topics") == (True, [])


def test_without_the_package_it_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch, url: str) -> None:
    monkeypatch.setitem(sys.modules, "mcp", None)
    monkeypatch.setitem(sys.modules, "mcp.server", None)
    monkeypatch.setitem(sys.modules, "mcp.server.stdio", None)
    answer = call("mcp", "--url", url)
    assert answer.code == 1
    assert f"run {install('mcp')}" in answer.err


def test_a_store_that_is_not_there_is_refused(url: str) -> None:
    answer = call("mcp", "--url", url)
    assert answer.code == 1
    assert "expected a store, but there is none" in answer.err


@pytest.mark.parametrize("ends", ["SIGTERM", "SIGINT", "stdin", "stdout"])
def test_it_ends_while_its_assistant_is_silent_and_where_that_is_gone(furnished: str, ends: str) -> None:
    command = [sys.executable, "-m", "solarwind", "mcp", "--url", furnished]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdin
        assert process.stdout
        assert process.stderr

        def say(method: str, number: int) -> None:
            named = {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "c", "version": "1"}}
            message = {"jsonrpc": "2.0", "id": number, "method": method, "params": named if number == 1 else {}}
            process.stdin.write(json.dumps(message).encode() + b"\n")  # type: ignore[union-attr]
            process.stdin.flush()  # type: ignore[union-attr]

        say("initialize", 1)
        assert json.loads(process.stdout.readline())["result"]["serverInfo"]["name"] == "solarwind"
        if ends == "stdin":
            process.stdin.close()
        elif ends == "stdout":
            process.stdout.close()
            say("ping", 2)
        else:
            process.send_signal(getattr(signal, ends))
        try:
            code = process.wait(60)
        finally:
            process.kill()
        assert (code, process.stderr.read()) == (0, b"")
