"""What nobody is to read: tokens and the secrets of webhooks, in no log, answer, number or list of processes."""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import typer.main

from sampling import some
from solarwind import wire
from solarwind.cli import app
from solarwind.server.access import Listen, create_token, revoke_token
from solarwind.testing.contract import on_loop, until

from .peers import Refusal, ask, bearer, peer, request, talker
from .serving import Serving

JSON = {"content-type": "application/json"}
HOOK = "/v1/topics/t/purposes/p/webhooks/h"


def secret(kind: str) -> str:
    """Return a secret that is found again wherever it turns up."""
    return f"{kind}-{secrets.token_hex(16)}"


class Session:
    """Somebody who gets everything wrong with secrets in hand, and all that he is told."""

    def __init__(self, serving: Serving, token: str) -> None:
        self.port = int(serving.port)
        self.token = token
        self.heard = b""

    async def ask(self, method: str, path: str, headers: dict[str, str] | None = None, body: bytes = b"") -> int:
        answer = await ask(self.port, method, path, headers, body)
        self.heard += repr((answer.headers, answer.body)).encode()
        return answer.status

    async def put(self, wanted: dict[str, Any]) -> int:
        return await self.ask("PUT", HOOK, JSON | bearer(self.token), json.dumps(wanted).encode())

    async def greet(self, token: str | None, in_hello: bool) -> None:
        async with talker(self.port, None if in_hello else token) as made:
            try:
                welcome = await made.hello(token if in_hello else None)
                self.heard += repr(welcome).encode()
                await made.say(wire.Call(made.ref, "none", wire.msgspec.Raw(b"\x80")))
                self.heard += repr(await made.hear(wire.Refused)).encode()
            except Refusal as refusal:
                self.heard += repr((refusal, await made.ended())).encode()


@on_loop
async def test_no_secret_turns_up_anywhere(tmp_path: Path) -> None:
    tokens = str(tmp_path / "wind.db.tokens")
    good, _ = create_token(tokens, "good", fire=("*",), listen=(Listen("*"),), admin=True)
    little, _ = create_token(tokens, "little", fire=("elsewhere",))
    gone, _ = create_token(tokens, "gone", admin=True)
    revoke_token(tokens, "gone")
    foreign = f"sw_0123456789ab_{secret('foreign')}"
    hook, query, signing = secret("hook"), secret("query"), "whsec_" + "c2VjcmV0IQ" * 4
    hidden = [each.split("_", 2)[2] for each in (good, little, gone, foreign)] + [hook, query, signing, "c2VjcmV0IQc2"]
    serving = Serving(tmp_path, "--webhook-network", "127.0.0.1", "--heartbeat-s", "0.4")
    try:
        await serving.start()
        session = Session(serving, good)
        for token in (little, gone, foreign):
            for path in ("/v1/statistics", f"/v1/statistics?token={token}", f"/v1/topics/{token}/events", f"/{token}"):
                assert await session.ask("GET", path, bearer(token)) in (401, 403, 404, 405)
            for header in (
                f"Basic {token}",
                f"Bearer {token} {token}",
                f"Bearer {token}\r\nAuthorization: Bearer {token}",
            ):
                await session.ask("GET", "/v1/topics", {"authorization": header})
            await session.ask("POST", "/v1/topics/t/events", JSON | bearer(token), b"1")
            await session.ask("GET", "/healthz", {"cookie": token, "x-token": token})
            await session.greet(token, in_hello=True)
            await session.greet(token, in_hello=False)
            async with peer(session.port) as made:
                await made.send(f"GARBAGE {token}\r\nauthorization: {token}\r\n\r\n".encode())
                session.heard += await made.read()
        await refused_webhooks(session, hook, query, signing)
        # One that is taken, whose target does not answer: what is logged then.
        url = f"http://127.0.0.1:1/{secret('path')}?key={query}"
        kept = {"url": url, "token": hook, "secret": signing, "handshake": False, "since": "beginning"}
        assert await session.put(kept | {"retry": {"attempts": 1}}) == 201
        assert await session.ask("POST", "/v1/topics/t/events", JSON | bearer(good), b"1") == 202
        await until(lambda: "to http://127.0.0.1:1" in log_of(tmp_path), "the webhook's failure is logged")
        for path in (HOOK, HOOK.removesuffix("/h"), "/v1/topics/t/purposes/p/dead", "/v1/statistics", "/metrics"):
            assert await session.ask("GET", path, bearer(good)) == 200
        # A connection whose token is revoked meanwhile, and a feed.
        async with talker(session.port) as made, peer(session.port) as reader:
            await made.hello(good)
            await reader.send(request("GET", "/v1/topics/t/feed?purpose=q", bearer(good)))
            await reader.until(b"200 OK")
            revoke_token(tokens, "good")
            session.heard += repr(await made.hear(wire.Refused)).encode()
            await reader.until(b"event: closed")
        command = Path(f"/proc/{serving.pid}/cmdline").read_bytes()
        environment = Path(f"/proc/{serving.pid}/environ").read_bytes()
        await serving.end()
    finally:
        serving.kill()
    for place, text in (("answers", session.heard), ("log", log_of(tmp_path).encode())):
        assert text
        for each in hidden:
            assert each.encode() not in text, f"{each} is in the {place}"
    for each in hidden:
        assert each.encode() not in command + environment
    assert os.stat(tmp_path / "wind.db").st_mode & 0o777 == 0o600


async def refused_webhooks(session: Session, hook: str, query: str, signing: str) -> None:
    """Return webhooks that are each invalid in another place, and have secrets in all others."""
    good = {"url": f"https://user.example/{query}?key={query}", "token": hook, "secret": signing, "handshake": False}
    for wrong in (
        {"url": f"https://user:{hook}@user.example/"},
        {"url": f"ftp://user.example/{query}"},
        {"url": f"https://user.example/#{query}"},
        {"url": f"https://10.0.0.1/?key={query}"},
        {"url": f"https://nowhere.invalid/?key={query}"},
        {"url": [query]},
        {"secret": f"whsec_{hook}"},
        {"secret": hook},
        {"secret": [signing]},
        {"token": f"{hook} {hook}"},
        {"token": {"of": hook}},
        {"exchange": "fanout", "since": "never"},
        {"rate": 0},
        {"more": hook},
    ):
        assert await session.put(good | wrong) >= 400
    for cut in (json.dumps(good)[:-1], json.dumps([good]), json.dumps(good) * 2):
        assert await session.ask("PUT", HOOK, JSON | bearer(session.token), cut.encode()) == 400


def log_of(folder: Path) -> str:
    return (folder / "server.errors").read_text()


def test_no_command_takes_a_secret_where_others_can_read_it() -> None:
    """A list of processes shows all arguments: a token comes by the environment alone."""
    todo: list[Any] = [typer.main.get_command(app)]
    while todo:
        command = todo.pop()
        todo += getattr(command, "commands", {}).values()
        for parameter in command.params:
            assert not {"--token", "--secret", "--password"} & {*parameter.opts}, command.name


URLS = ["ws://user:{}@localhost:1", "ws://{}@localhost:1", "ws://localhost:1/?token={}", "nats://u:{}@localhost"]


@pytest.mark.parametrize("url", some(["ws://localhost:1/?token={}"], URLS))
def test_a_url_with_a_secret_in_it_is_refused_without_showing_it(url: str, tmp_path: Path) -> None:
    hidden = secret("password")
    command = [sys.executable, "-m", "solarwind", "topics", "--url", url.format(hidden)]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert ended.returncode == 1
    assert ended.stderr.count("\n") == 1
    assert hidden not in ended.stdout + ended.stderr


@pytest.mark.long
def test_a_client_that_is_refused_does_not_show_its_token(tmp_path: Path) -> None:
    hidden = secret("token")
    environment = os.environ | {"SOLARWIND_TOKEN": f"sw_0123456789ab_{hidden}"}
    create_token(str(tmp_path / "wind.db.tokens"), "other", admin=True)
    serve = [sys.executable, "-m", "solarwind", "serve", "--port", "0", "--json"]
    with subprocess.Popen(serve, cwd=tmp_path, env=environment, stderr=subprocess.PIPE, text=True) as serving:
        assert serving.stderr is not None
        url = json.loads(serving.stderr.readline())["ws"]
        command = [sys.executable, "-m", "solarwind", "topics", "--url", url]
        ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
        serving.terminate()
        assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
        assert "expected a token that is known" in ended.stderr
        assert hidden not in ended.stdout + ended.stderr + serving.stderr.read()
