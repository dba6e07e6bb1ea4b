"""ui: the console's address, of a server that runs, or on a store that it serves itself."""

from __future__ import annotations

import asyncio
import http.client
import json
import os
import signal
from collections.abc import Callable
from contextlib import closing
from typing import Any
from urllib.parse import urlsplit

import pytest

from solarwind import SolarWind

from .conftest import PATIENCE_S, Process, Serving, call, done, eventually

Serve = Callable[..., Serving]
Start = Callable[..., Process]


def ask(address: str, path: str, method: str = "GET", body: object = None, token: bool = True) -> tuple[int, Any]:
    """Ask the server of a console's address. Gives the status, and what the answer has in JSON."""
    parts = urlsplit(address)
    headers = {"content-type": "application/json"} if body is not None else {}
    if token:
        headers["authorization"] = f"Bearer {parts.fragment.removeprefix('token=')}"
    with closing(http.client.HTTPConnection(parts.netloc, timeout=PATIENCE_S)) as connection:
        connection.request(method, path, None if body is None else json.dumps(body), headers)
        answer = connection.getresponse()
        is_json = answer.headers.get_content_subtype().endswith("json")
        return answer.status, json.loads(answer.read()) if is_json else None


# --- on an engine -------------------------------------------------------------------------------------------


def test_ui_serves_the_console_of_a_store_until_a_signal(furnished: str, start: Start) -> None:
    process = start("ui", "--url", furnished)
    address = process.read("http://").strip()
    assert address.startswith("http://127.0.0.1:")
    assert "/console/#token=sw_" in address
    assert ask(address, "/console/", token=False) == (200, None)
    assert ask(address, "/v1/topics", token=False)[0] == 401
    status, rights = ask(address, "/v1/token")
    assert (status, rights["admin"], rights["payloads"], rights["fire"]) == (200, True, True, ["*"])
    assert [each["topic"] for each in ask(address, "/v1/topics")[1]["topics"]] == ["video.encoded", "video.uploaded"]
    process.signal(signal.SIGINT)
    answer = process.end()
    assert (answer.code, answer.out) == (0, "")
    assert done("topics", "--url", furnished, "--json").json[0]["topic"] == "video.encoded"


def test_each_ui_has_a_token_of_its_own_and_leaves_none_behind(empty: str, start: Start) -> None:
    tokens = set()
    before = set(os.listdir())
    for _ in range(2):
        process = start("ui", "--url", empty, "--json")
        tokens.add(urlsplit(json.loads(process.read("console"))["console"]).fragment)
        process.signal(signal.SIGTERM)
        assert process.end().code == 0
    assert len(tokens) == 2
    assert set(os.listdir()) == before


def test_ui_listens_on_the_port_that_is_stated(empty: str, start: Start, serving: Serve) -> None:
    taken = serving("--engine", "memory://").port
    answer = call("ui", "--url", empty, "--port", str(taken))
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert f"expected to listen on 127.0.0.1 port {taken}" in answer.err


def test_ui_shows_webhooks_and_leaves_their_delivery_to_a_server(furnished: str, start: Start, serving: Serve) -> None:
    path = furnished.removeprefix("sqlite:///")
    server = serving("--data", path, "--webhook-network", "127.0.0.0/8")
    topic = "/v1/topics/hooked"
    hook = {"url": "http://127.0.0.1:9/", "handshake": False}
    assert server.ask("PUT", f"{topic}/purposes/p/webhooks/w", hook)[0] == 201
    server.process.signal(signal.SIGTERM)
    assert server.process.end().code == 0
    address = start("ui", "--url", furnished).read("http://").strip()
    assert ask(address, f"{topic}/events", "POST", 1)[0] == 202
    (shown,) = ask(address, "/v1/webhooks")[1]["webhooks"]
    assert (shown["state"], shown["reason"]) == ("refused", "here it is only shown; `solarwind serve` delivers it")
    status, said = ask(address, f"{topic}/purposes/p/webhooks/other", "PUT", hook)
    assert (status, said["code"]) == (403, "not-allowed")
    assert "`solarwind serve` delivers it" in said["detail"]
    purpose = ask(address, f"{topic}/purposes/p")[1]
    assert (purpose["pending"], purpose["instances"]) == (1, 0)
    assert "webhook failing" not in {each["kind"] for each in ask(address, "/v1/attention")[1]["attention"]}


def test_a_ui_refuses_what_any_question_refuses(url: str, held: Process) -> None:
    for where, words in {
        "sqlite:///nothing.db": "expected a store, but there is none at nothing.db",
        url: f"in use by process {held.popen.pid}",
        "redis://host": "name a store, such as --url sqlite:///wind.db, or a server",
    }.items():
        answer = call("ui", "--url", where)
        assert (answer.code, answer.out) == (1, ""), answer
        assert words in answer.err.splitlines()[-1]
        assert "Traceback" not in answer.err
    assert not os.path.exists("nothing.db")


# --- of a server --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scheme", ["ws", "http"])
def test_ui_prints_the_console_of_a_server_with_the_token_for_it(
    scheme: str, serving: Serve, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = serving()
    url = f"{scheme}://127.0.0.1:{server.port}/"
    assert done("ui", "--url", url).out == f"{server.http}/console/\n"
    token = done("token", "create", "me", "--admin").out.strip()
    eventually(lambda: server.ask("GET", "/v1/topics")[0] == 401, "the token to count")
    refused = call("ui", "--url", url)
    assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1)
    assert "$SOLARWIND_TOKEN" in refused.err
    monkeypatch.setenv("SOLARWIND_TOKEN", token)
    assert done("ui", "--url", url, "--json").json == {"console": f"{server.http}/console/#token={token}"}


def test_ui_refuses_a_server_without_its_console(serving: Serve) -> None:
    server = serving("--engine", "memory://", "--no-console")
    answer = call("ui", "--url", server.url)
    assert (answer.code, answer.out) == (1, "")
    assert answer.err == (
        f"solarwind: expected a console at {server.http}/console/, got status 404: start the server without "
        "--no-console, or mount it with console=True\n"
    )


def test_ui_refuses_a_server_that_is_not_there(serving: Serve) -> None:
    server = serving("--engine", "memory://")
    server.process.signal(signal.SIGTERM)
    assert server.process.end().code == 0
    answer = call("ui", "--url", server.http)
    assert (answer.code, answer.out, answer.err.count("\n")) == (1, "", 1)
    assert f"expected a server at {server.url}" in answer.err


def test_a_port_for_the_console_of_a_server_is_wrong_usage(serving: Serve) -> None:
    answer = call("ui", "--url", "ws://127.0.0.1:7400", "--port", "8000")
    assert (answer.code, answer.out) == (2, "")
    assert "expected no --port" in answer.err


# --- of a server at a Unix socket -----------------------------------------------------------------------------


def test_ui_shows_the_webhooks_of_a_server_at_a_unix_socket_as_that_does(
    serving: Serve, start: Start, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How they stand there, with their answers and what is to be done of them; they are registered there alone."""
    path = tmp_path_factory.mktemp("s") / "wind.sock"
    server = serving("--socket", str(path), "--port", "0", "--webhook-network", "127.0.0.0/8")
    hooks = "/v1/topics/hooked/purposes/p/webhooks"
    hook = {"url": "http://127.0.0.1:9/", "handshake": False}
    for name in ("one", "two"):
        assert server.ask("PUT", f"{hooks}/{name}", hook)[0] == 201
    address = start("ui", "--url", f"unix://{path}").read("http://").strip()
    parts = urlsplit(address)
    monkeypatch.setenv("SOLARWIND_TOKEN", parts.fragment.removeprefix("token="))
    console = f"ws://{parts.netloc}"

    def shown() -> dict[str, str]:
        return {each["name"]: each["state"] for each in done("webhooks", "list", "--url", console, "--json").json}

    assert shown() == {"one": "live", "two": "live"}
    assert server.ask("POST", "/v1/topics/hooked/events", 1)[0] == 202
    eventually(lambda: "failing" in shown().values(), "a target to be called")
    failing = next(name for name, state in shown().items() if state == "failing")
    (answer, *_) = ask(address, f"{hooks}/{failing}/answers")[1]["answers"]
    assert (answer["status"], answer["attempt"]) == (None, 1)
    assert "webhook failing" in {each["kind"] for each in ask(address, "/v1/attention")[1]["attention"]}
    assert ask(address, f"{hooks}/one/pause", "POST")[0] == 204
    assert {each["name"]: each["state"] for each in server.ask("GET", "/v1/webhooks")[1]["webhooks"]}["one"] == "paused"

    async def watched() -> None:
        """Wait until viewers, such as the console, see what has become of them."""
        seen: dict[str, Any] = {}
        async with asyncio.timeout(PATIENCE_S), SolarWind(console) as wind:
            async for change in wind.watch(["webhooks"]):
                for key, fact in change["webhooks"].items():
                    seen[key] = None if fact is None else (seen.get(key) or {}) | fact
                states = {key: fact["state"] for key, fact in seen.items() if fact is not None}
                if states.get("hooked/p/one") == "paused" and "hooked/p/two" not in states:
                    return

    assert server.ask("DELETE", f"{hooks}/two")[0] == 204
    asyncio.run(watched())
    for method, where, body in (
        ("PUT", f"{hooks}/three", hook),
        ("DELETE", f"{hooks}/one", None),
        ("GET", f"{hooks}/one", None),
        ("GET", hooks, None),
        ("GET", "/v1/webhooks", None),
    ):
        status, said = ask(address, where, method, body)
        assert (status, said["code"]) == (403, "not-allowed"), (method, where)
        assert said["detail"] == (
            f"expected this at the server whose webhooks they are, got it at one that shows them: ask the server at "
            f"unix://{path}, over HTTP"
        )
    assert server.ask("GET", f"{hooks}/one")[0] == 200
