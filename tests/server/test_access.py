"""Who may do what: every right at every door, and what becomes of tokens while connections are open."""

from __future__ import annotations

import json
import os
from collections.abc import Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import quote

import msgspec
import pytest

from solarwind import wire
from solarwind.batch import Batch
from solarwind.core.effects import Failure
from solarwind.errors import BadArgument, BadName, BadToken, ConflictError, NotFound, SolarWindError, TooLarge
from solarwind.operations import OPERATIONS
from solarwind.origin import user_of
from solarwind.server import access as access_module
from solarwind.server.access import (
    ANY,
    MAX_RIGHTS,
    MAX_TOKENS,
    Access,
    Grant,
    Listen,
    create_token,
    read_tokens,
    revoke_token,
)
from solarwind.server.http import ENDPOINTS
from solarwind.testing.contract import on_loop

from .mounted import ROOT
from .peers import Mounted, Refusal, Talker, ask, batch, bearer, handshake, peer, request, talker
from .place import Host
from .serving import Serving

TOPIC, OTHER = "orders.placed", "orders.cancelled"
PURPOSE, ANOTHER = "Ship: it/now", "Count"
HELD = "what.is.held"  # fired by a handler


# --- tokens of every kind ---------------------------------------------------------------------------------------


class Bearer(NamedTuple):
    """Somebody with these rights, or, where `known` is false, with a token that is none."""

    fire: tuple[str, ...] = ()
    listen: tuple[tuple[str, str], ...] = ()
    admin: bool = False
    watch: bool = False
    watch_payloads: bool = False
    known: bool = True

    def may(self, right: str) -> bool:
        """Return the rule: what the right of a door asks of rights, on TOPIC and for PURPOSE."""
        if right in ("open", "any"):
            return True
        if right == "admin":
            return self.admin
        if right == "watch":
            return self.watch or self.watch_payloads or self.admin
        if right == "fire":
            return bool({TOPIC, ANY} & {*self.fire})
        if right == "relay":
            return bool(self.fire)
        assert right == "listen"
        return bool({(topic, purpose) for topic in (TOPIC, ANY) for purpose in (PURPOSE, ANY)} & {*self.listen})


BEARERS = {
    "no token": Bearer(known=False),
    "no token of ours": Bearer(known=False),
    "another's secret": Bearer(known=False),
    "expired": Bearer((ANY,), ((ANY, ANY),), admin=True, known=False),
    "revoked": Bearer((ANY,), ((ANY, ANY),), admin=True, known=False),
    "fire here": Bearer((TOPIC,)),
    "fire elsewhere": Bearer((OTHER, "orders")),
    "fire anywhere": Bearer((ANY,)),
    "listen here": Bearer((), ((TOPIC, PURPOSE),)),
    "listen here for anything": Bearer((), ((TOPIC, ANY),)),
    "listen here for another purpose": Bearer((), ((TOPIC, ANOTHER),)),
    "listen elsewhere": Bearer((), ((OTHER, PURPOSE), (OTHER, ANY))),
    "listen anywhere for it": Bearer((), ((ANY, PURPOSE),)),
    "listen anywhere": Bearer((), ((ANY, ANY),)),
    "watch": Bearer(watch=True),
    "watch with payloads": Bearer(watch_payloads=True),
    "operate": Bearer(admin=True),
    "fire and listen": Bearer((TOPIC, HELD), ((TOPIC, PURPOSE),)),
    "everything": Bearer((ANY,), ((ANY, ANY),), admin=True),
}


def make_tokens(path: Path) -> dict[str, str | None]:
    """Make tokens, and return their texts by who bears them. All valid ones are in the file."""
    texts: dict[str, str | None] = {}
    for name, of in BEARERS.items():
        rights = of._asdict() | {"listen": tuple(Listen(*each) for each in of.listen)}
        del rights["known"]
        if any(rights.values()):
            begun = datetime.now(UTC) - timedelta(hours=2 if name == "expired" else 0)
            texts[name], _ = create_token(str(path), name, **rights, expires=timedelta(hours=1), now=begun)
    revoke_token(str(path), "revoked")
    id, secret = str(texts["everything"]).split("_", 2)[1], str(texts["operate"]).split("_", 2)[2]
    return texts | {
        "no token": None,
        "no token of ours": "sw_0123456789ab_garbage",
        "another's secret": f"sw_{id}_{secret}",
    }


class Place(NamedTuple):
    """A server with tokens, by itself, at a Unix socket, or mounted."""

    port: int | str
    root: str
    tokens: dict[str, str | None]
    user: str = ""  # that it sees its clients as


@pytest.fixture(scope="module", params=["by itself", "at a socket", "mounted"])
def place(host: Host, tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("access")
    path, store = folder / "tokens", f"sqlite:///{folder}/wind.db"
    tokens = make_tokens(path)
    if request.param == "mounted":
        mounted = Mounted(store, path)
        yield Place(mounted.port, ROOT, tokens)
        mounted.end()
    elif request.param == "at a socket":
        at = folder / "wind.sock"
        host.start_at(at, store, tokens=path)
        yield Place(str(at), "", tokens, f" of {user_of(os.getuid())}")
        host.stop(str(at))
    else:
        port = host.start(store, tokens=path)
        yield Place(port, "", tokens)
        host.stop(port)


# --- HTTP -------------------------------------------------------------------------------------------------------

_TOPIC = "/v1/topics/{topic}"
_PURPOSE = f"{_TOPIC}/purposes/{{purpose}}"
_WEBHOOK = f"{_PURPOSE}/webhooks/{{name}}"

# The right that each endpoint needs which is none of an operation, said once more: one that is not in here, or is there
# with another right, fails.
OTHERS: dict[tuple[str, str], str] = {
    ("POST", f"{_TOPIC}/events"): "fire",
    ("POST", f"{_PURPOSE}/take"): "listen",
    ("POST", f"{_PURPOSE}/settle"): "listen",
    ("GET", f"{_TOPIC}/feed"): "listen",
    ("GET", "/v1/watch"): "watch",
    ("GET", f"{_PURPOSE}/webhooks"): "listen",
    ("GET", "/v1/webhooks"): "admin",
    ("PUT", _WEBHOOK): "listen",
    ("GET", _WEBHOOK): "listen",
    ("DELETE", _WEBHOOK): "listen",
    ("GET", "/v1/connect"): "open",
    ("GET", "/v1/token"): "any",
    ("GET", "/console"): "open",
    ("GET", "/console/{file}"): "open",
    ("GET", "/metrics"): "watch",
    ("GET", "/healthz"): "open",
    ("GET", "/readyz"): "open",
    ("GET", "/asyncapi.json"): "watch",
    ("GET", "/openapi.json"): "open",
}
# What changes nothing may be asked by who may watch, and all else by operators only. So it is of any operation to come;
# `idle` and `left` may besides be asked about purposes that the connection has instances of.
CALLS = {name: "watch" if each.repeat == "question" else "admin" for name, each in OPERATIONS.items()}
CALLS |= {"idle": "own", "left": "own", "watch": "watch", "declare_schedule": "fire", "declare_schema": "fire"}
CALLS |= {"note_relay": "relay"}
DOORS = OTHERS | {
    (each.http.method, each.http.path): CALLS[name] for name, each in OPERATIONS.items() if each.http is not None
}


def test_every_http_door_has_the_right_that_is_stated_here() -> None:
    assert {(each.method, each.path): each.right for each in ENDPOINTS} == DOORS


@pytest.mark.parametrize("name", BEARERS)
@on_loop
async def test_http_doors_open_for_whom_they_should(place: Place, name: str) -> None:
    """What is asked for is nonsense, so that nothing changes: the door says so only to whoever may come in."""
    who, token = BEARERS[name], place.tokens[name]
    async with peer(place.port) as made:
        for (method, path), right in DOORS.items():
            body = b"nonsense" if method in ("POST", "PUT") else b""
            for asked in [method, "HEAD"] if method == "GET" and not path.endswith(("/feed", "/watch")) else [method]:
                answer = await made.ask(asked, place.root + path_of(path), bearer(token), body)
                what = f"{asked} {path}: {answer.status}"
                if right == "open" or (who.known and who.may(right)):
                    assert answer.status not in (401, 403), what
                    assert answer.status < 500, what
                    continue
                assert answer.status == (403 if who.known else 401), what
                assert ("www-authenticate" in answer.headers) == (not who.known), what
                if asked != "HEAD":
                    assert answer.code == ("not-allowed" if who.known else "bad-token"), what


def path_of(path: str) -> str:
    """Return the path of a request, on TOPIC and for PURPOSE."""
    if path.endswith(("/feed", "/watch")):
        path += "?purpose={purpose}&nonsense=1"
    return path.format(topic=TOPIC, purpose=quote(PURPOSE, safe=""), name="hook", id="no-such-event", file="index.html")


@on_loop
async def test_the_right_of_a_door_is_all_that_is_needed_there(place: Place) -> None:
    async def done(who: str, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        headers = bearer(place.tokens[who]) | ({"content-type": "application/json"} if body is not None else {})
        content = json.dumps(body).encode() if body is not None else b""
        answer = await ask(place.port, method, place.root + path_of(path), headers, content)
        assert answer.status == status, answer
        return json.loads(answer.body) if answer.body.startswith(b"{") else answer.body

    await done("fire here", "POST", f"{_TOPIC}/events", 1, 202)
    taken = await done("listen here", "POST", f"{_PURPOSE}/take", {"since": "beginning", "wait": 5})
    tokens = [each["token"] for each in taken["events"]]
    assert tokens
    assert (await done("listen here", "POST", f"{_PURPOSE}/settle", {"done": tokens}))["done"] == len(tokens)
    assert (await done("operate", "GET", _PURPOSE))["pending"] == 0
    assert b"solarwind_events_fired_total" in await done("operate", "GET", "/metrics")
    await done("operate", "DELETE", _PURPOSE, status=204)
    async with peer(place.port) as made:
        path = path_of(f"{_TOPIC}/feed?purpose={{purpose}}")
        await made.send(request("GET", place.root + path, bearer(place.tokens["listen here"])))
        assert (await made.answer(head_only=True)).headers["content-type"].startswith("text/event-stream")


@on_loop
async def test_the_audit_names_the_token_of_every_door_and_for_whom_its_client_asked(place: Place) -> None:
    async with talker(place.port, root=place.root) as made, peer(place.port) as http:
        await made.hello(place.tokens["everything"])
        await made.submit(TOPIC)
        await allowed(made.call("keep", topic=TOPIC, keep=7.0, keep_bytes=None))
        arguments = msgspec.msgpack.encode({"topic": TOPIC, "keep": 8.0, "keep_bytes": None})
        await made.say(wire.Call(made.ref, "keep", msgspec.Raw(arguments), "ann@laptop"))
        await made.hear(wire.Done)
        headers = bearer(place.tokens["operate"]) | {"content-type": "application/json"}
        answer = await http.ask("PUT", f"{place.root}/v1/topics/{TOPIC}", headers, b'{"keep": 9}')
        assert answer.status == 200, answer
        answer = await http.ask("GET", f"{place.root}/v1/audit?limit=3", bearer(place.tokens["operate"]))
        found = json.loads(answer.body)["audit"]
        assert [(each["by"], each["verb"], each["topic"]) for each in found] == [
            (f"operate{place.user}", "keep", TOPIC),
            (f"everything{place.user} for ann@laptop", "keep", TOPIC),
            (f"everything{place.user}", "keep", TOPIC),
        ]
        assert json.loads(found[0]["arguments"]) == {"keep": 9.0}


@on_loop
async def test_a_token_comes_in_one_authorization_header_and_in_no_other_way(place: Place) -> None:
    token = place.tokens["everything"]
    async with peer(place.port) as made:
        path = f"{place.root}/v1/statistics"
        for scheme in ("Bearer", "bearer", "BEARER "):
            assert (await made.ask("GET", path, {"authorization": f"{scheme} {token}"})).status == 200
        for wrong in (f"Basic {token}", f"Bearer  {token} x", "Bearer", f"{token}", f"Bearer {token},"):
            assert (await made.ask("GET", path, {"authorization": wrong})).code == "bad-token"
        for query in (f"token={token}", f"access_token={token}"):
            assert (await made.ask("GET", f"{path}?{query}")).code == "bad-token"
        assert (await made.ask("GET", path, {"cookie": f"token={token}"})).code == "bad-token"
        await made.send(request("GET", path, {"authorization": f"Bearer {token}\r\nAuthorization: Bearer {token}"}))
        assert (await made.answer()).code == "bad-token"


# --- WebSocket --------------------------------------------------------------------------------------------------

# The right that each message needs. `own` is its sender's own instance, which the right to listen got it.
MESSAGES: dict[type[wire.Message], str] = {
    wire.Hello: "known",
    wire.Author: "known",
    wire.Submit: "fire",
    wire.Hold: "fire",
    wire.Join: "listen",
    wire.Report: "own",
    wire.Alive: "own",
    wire.Leaving: "own",
    wire.Leave: "own",
    wire.Call: "call",
    wire.Ping: "known",
}
# And what each call is given, where it has such an argument.
GIVEN = {
    "topic": TOPIC,
    "purpose": PURPOSE,
    "purposes": [(TOPIC, PURPOSE)],
    "id": "no-such-event",
    "ids": [],
    "version": 1,
    "share": 0.5,
    "since": "now",
    "name": "no-such-schedule",
    "every": "1d",
    "database": "sqlite:///shop.db",
    "process": "shop/42",
    "schema": b"{}",
}
ARGUMENTS: dict[str, dict[str, Any]] = {
    name: {each: GIVEN[each] for each in operation.message.__struct_fields__ if each in GIVEN}
    for name, operation in OPERATIONS.items()
} | {
    "retire": {"topic": TOPIC, "purpose": "none has this"},
    "declare_schedule": {"topic": TOPIC, "name": "declared", "every": "1d"},
}


def test_every_message_and_call_has_a_right_stated_here() -> None:
    assert set(MESSAGES) == set(wire.FromClient.__args__)
    assert {name: each.right for name, each in OPERATIONS.items()} == CALLS


@pytest.mark.parametrize("name", BEARERS)
@pytest.mark.parametrize("where", ["handshake", "hello"])
@on_loop
async def test_a_websocket_opens_for_whoever_has_a_token(place: Place, name: str, where: str) -> None:
    who, token = BEARERS[name], place.tokens[name]
    in_handshake, in_hello = (token, None) if where == "handshake" else (None, token)
    async with talker(place.port, in_handshake, root=place.root) as made:
        if who.known:
            await made.hello(in_hello)
            return
        with pytest.raises(Refusal) as refused:
            await made.hello(in_hello)
        assert (refused.value.ref, refused.value.code) == (0, "bad-token")
        assert await made.ended() == (1008, "bad-token")


REFUSED_HANDSHAKES: dict[str, tuple[dict[str, str], int, str]] = {
    "another's page": ({"origin": "https://evil.example"}, 403, "not-allowed"),
    "another subprotocol": ({"sec-websocket-protocol": "solarwind.v2"}, 400, "protocol"),
    "another scheme": ({"authorization": "Basic x"}, 401, "bad-token"),
}


@pytest.mark.parametrize("what", REFUSED_HANDSHAKES)
@on_loop
async def test_a_refused_handshake_is_answered_with_a_problem(place: Place, what: str) -> None:
    headers, status, code = REFUSED_HANDSHAKES[what]
    async with peer(place.port) as made:
        await made.send(handshake(f"{place.root}{wire.PATH}", headers))
        answer = await made.answer()
        assert (answer.status, answer.code) == (status, code)
        assert ("www-authenticate" in answer.headers) == (status == 401)
        assert await made.read() == b""


@on_loop
async def test_a_handshake_at_another_path_or_that_is_invalid_is_answered_with_a_problem(host: Host) -> None:
    port = host.start("memory://")
    for path, headers, status, code in (
        ("/v1/other", {}, 404, "not-found"),
        (wire.PATH, {"sec-websocket-version": "12"}, 400, "protocol"),
        (wire.PATH, {"sec-websocket-key": "short"}, 400, "protocol"),
    ):
        async with peer(port) as made:
            await made.send(handshake(path, headers))
            answer = await made.answer()
            assert (answer.status, answer.code) == (status, code)
    host.stop(port)


@pytest.mark.parametrize("name", [name for name, who in BEARERS.items() if who.known])
@on_loop
async def test_messages_do_what_they_should_for_whom_they_should(place: Place, name: str) -> None:
    who = BEARERS[name]
    async with talker(place.port, root=place.root) as made, talker(place.port, root=place.root) as operator:
        await made.hello(place.tokens[name])
        await operator.hello(place.tokens["everything"])
        await allowed(operator.call("retire", topic=TOPIC, purpose=PURPOSE, force=True))
        fired = await fired_on(operator, TOPIC)
        assert await allowed(made.submit(TOPIC)) == who.may("fire")
        assert await fired_on(operator, TOPIC) == fired + who.may("fire")
        joined = await allowed(made.join(1, TOPIC, PURPOSE))
        assert joined == who.may("listen")
        for call, right in CALLS.items():
            may = (who.admin or joined) if right == "own" else who.may(right)
            assert await allowed(made.call(call, **ARGUMENTS[call])) == may, call
        # Of instances that are none of its own nothing comes of anything that it says.
        await made.say(wire.Alive(7), wire.Leaving(7), wire.Report(7, 1, [0, 1]), wire.Leave(made.ref, 7), wire.Ping())
        assert (await made.hear(wire.Stale)).instance == 7
        await made.hear(wire.Done)
        await made.hear(wire.Pong)


@pytest.mark.parametrize("name", [name for name, who in BEARERS.items() if who.known and who.may("listen")])
@on_loop
async def test_what_a_handler_fires_needs_the_right_to_fire_it(place: Place, name: str) -> None:
    """Without it the event that it handled is not settled: for the handler, firing raised."""
    who = BEARERS[name]
    may = bool({HELD, ANY} & {*who.fire})
    async with talker(place.port, root=place.root) as made, talker(place.port, root=place.root) as operator:
        await operator.hello(place.tokens["everything"])
        await allowed(operator.call("retire", topic=TOPIC, purpose=PURPOSE, force=True))
        before = await fired_on(operator, HELD)
        await made.hello(place.tokens[name])
        await made.join(1, TOPIC, PURPOSE, retry={"attempts": 1, "wait": 0.0})
        await operator.submit(TOPIC, b"1")
        offer = await made.hear(wire.Offer)
        (share,) = offer.shares
        report = wire.Report(1, share.lease, share.picks, handled=1, fired=1, ref=made.ref)
        await made.say(wire.Hold(batch(HELD).data), report)
        await made.hear(wire.Done)
        assert await fired_on(operator, HELD) == before + may
        _, *letters = await operator.call("dead", topic=TOPIC, purpose=PURPOSE)
        assert len(letters) == (not may)
        assert may or f"the right to fire on '{HELD}'" in letters[0][1]


# --- payloads -----------------------------------------------------------------------------------------------------

SECRET = "swordfish-4711"
# The operations whose answers have payloads, or errors that quote them: at least these.
REVEALING = {"events", "trace", "dead", "letter", "delayed", "delayed_event"}


@on_loop
async def test_payloads_and_errors_are_only_for_who_may_see_them(place: Place) -> None:
    """Of each operation that only asks, by WebSocket and by HTTP: the answers for who may watch are searched for a text
    that was in a payload and in an error."""
    topic, purpose = "secrets", "Guess"
    async with talker(place.port, root=place.root) as made, peer(place.port) as http:
        await made.hello(place.tokens["everything"])
        await made.join(1, topic, purpose, retry={"attempts": 1, "wait": 0.0})
        await made.submit(topic, json.dumps(SECRET).encode())
        (share,) = (await made.hear(wire.Offer)).shares
        failed = [Failure(share.picks[0], "retry", f"ValueError: {SECRET}", 0)]
        await made.say(wire.Report(1, share.lease, [], failed, handled=1, ref=made.ref))
        await made.hear(wire.Done)
        later = batch(topic, json.dumps(SECRET).encode(), due=[1 << 61])
        await made.say(wire.Submit(made.ref, later.data))
        await made.hear(wire.Accepted)
        payload = json.dumps(SECRET).encode()
        await made.call("declare_schedule", topic=topic, name=GIVEN["name"], every="1d", payload=payload)
        _, event = await made.call("events", topic=topic)
        given = GIVEN | {"topic": topic, "purpose": purpose, "id": Batch.read(event).id(0), "since": "beginning"}
        for name in ("watch", "watch with payloads", "operate"):
            reveals: set[str] = set()
            async with talker(place.port, root=place.root) as who:
                await who.hello(place.tokens[name])
                for call, operation in OPERATIONS.items():
                    if operation.right != "watch":
                        continue
                    its = given | {"id": later.id(0)} if call == "delayed_event" else given
                    arguments = {each: its[each] for each in operation.message.__struct_fields__ if each in its}
                    try:
                        by_socket = repr(await who.call(call, **arguments))
                    except Refusal:
                        if call == "webhook_answers":  # there is none: see webhooks/test_pausing.py
                            continue
                        raise
                    by_http = ""
                    if operation.http is not None:
                        path = operation.http.path.format(**{key: quote(str(each)) for key, each in its.items()})
                        answer = await http.ask("GET", place.root + path, bearer(place.tokens[name]))
                        assert answer.status == 200, answer
                        by_http = answer.body.decode()
                    assert operation.http is None or (SECRET in by_socket) == (SECRET in by_http), call
                    if SECRET in by_socket:
                        reveals.add(call)
            if name == "watch":
                assert not reveals
            else:
                assert reveals >= REVEALING


async def allowed(work: Coroutine[Any, Any, object]) -> bool:
    """Return whether the right is there; whatever else there may be to say against it."""
    try:
        await work
    except Refusal as refusal:
        return not (refusal.code == "not-allowed" and refusal.text.startswith("expected a token with the right "))
    return True


async def fired_on(operator: Talker, topic: str) -> int:
    found = {each[0]: each[1] for each in await operator.call("statistics")}
    return int(found.get(topic, 0))


# --- while connections are open ---------------------------------------------------------------------------------


class Gate(NamedTuple):
    """A server of a test's own, and the file of its tokens."""

    port: int
    path: Path

    def token(self, name: str, **rights: Any) -> str:
        rights = rights or {"fire": (ANY,), "listen": (Listen(ANY),), "admin": True}
        return create_token(str(self.path), name, **rights)[0]

    def revoke(self, name: str) -> None:
        revoke_token(str(self.path), name)

    async def lets_in(self, token: str | None) -> bool:
        return (await ask(self.port, "GET", "/v1/statistics", bearer(token))).status == 200


@pytest.fixture
def gate(host: Host, tmp_path: Path) -> Iterator[Gate]:
    path = tmp_path / "tokens"
    create_token(str(path), "first", admin=True)
    port = host.start("memory://", tokens=path)
    yield Gate(port, path)
    host.stop(port)


@on_loop
async def test_a_token_that_is_made_is_good_at_once_and_one_that_is_revoked_is_not(gate: Gate) -> None:
    token = gate.token("late")
    assert await gate.lets_in(token)
    gate.revoke("late")
    assert not await gate.lets_in(token)


@on_loop
async def test_a_connection_ends_when_its_token_is_revoked_and_others_go_on(gate: Gate) -> None:
    async with talker(gate.port) as one, talker(gate.port) as other:
        await one.hello(gate.token("one"))
        await other.hello(gate.token("other"))
        gate.revoke("one")
        refused = await one.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "bad-token")
        assert await one.ended() == (1008, "bad-token")
        await other.submit(TOPIC)


@on_loop
async def test_a_feed_ends_when_its_token_is_revoked(gate: Gate) -> None:
    token = gate.token("reader", listen=(Listen(TOPIC),))
    async with peer(gate.port) as made:
        await made.send(request("GET", f"/v1/topics/{TOPIC}/feed?purpose=p", bearer(token)))
        assert (await made.answer(head_only=True)).status == 200
        gate.revoke("reader")
        await made.until(b"event: closed\ndata: ")


@on_loop
async def test_a_right_that_is_taken_back_is_gone_from_open_connections(gate: Gate) -> None:
    """As an editor does it, by another file in its place: the token is the same, and has other rights now."""
    token = gate.token("editor", fire=(TOPIC,), listen=(Listen(TOPIC),))
    async with talker(gate.port) as made:
        await made.hello(token)
        await made.submit(TOPIC)
        await made.join(1, TOPIC, PURPOSE)
        await made.join(2, TOPIC, ANOTHER)
        rewrite(gate.path, "editor", fire=(OTHER,), listen=(Listen(TOPIC, ANOTHER),))
        closed = await made.hear(wire.Closed)
        assert (closed.instance, "the right to listen" in closed.reason) == (1, True)
        assert not await allowed(made.submit(TOPIC))
        await made.submit(OTHER)
        assert await made.call("left", purposes=[(TOPIC, ANOTHER)])


def rewrite(path: Path, name: str, **changes: Any) -> None:
    """Change a token. The file is never seen half written, which nobody would be let in by."""
    tokens = [
        msgspec.structs.replace(each, **changes) if each.name == name else each for each in read_tokens(str(path))
    ]
    other = path.with_suffix(".new")
    other.touch(0o600)
    other.write_bytes(msgspec.json.encode({"version": 1, "tokens": tokens}))
    other.replace(path)


SPOILED = {
    "others may read it": lambda path: path.chmod(0o640),
    "others may write it": lambda path: path.chmod(0o602),
    "it is gone": lambda path: path.unlink(),
    "it is cut off": lambda path: os.truncate(path, path.stat().st_size // 2),
    "it is empty": lambda path: os.truncate(path, 0),
    "it is of a later format": lambda path: path.write_bytes(b'{"version": 2, "tokens": []}'),
    "it is a folder": lambda path: (path.unlink(), path.mkdir()),
    "it is a pipe": lambda path: (path.unlink(), os.mkfifo(path, 0o600)),
}


@pytest.mark.parametrize("how", SPOILED)
@on_loop
async def test_a_file_that_cannot_be_trusted_lets_nobody_in_until_it_is_mended(gate: Gate, how: str) -> None:
    token = gate.token("good")
    before = gate.path.read_bytes()
    async with talker(gate.port) as made:
        await made.hello(token)
        SPOILED[how](gate.path)
        assert (await made.hear(wire.Refused)).code == "bad-token"
    assert not await gate.lets_in(token)
    assert not await gate.lets_in(None)
    mend(gate.path, before)
    assert await gate.lets_in(token)


def mend(path: Path, data: bytes) -> None:
    with suppress(FileNotFoundError):
        path.rmdir() if path.is_dir() else path.unlink()
    path.touch(0o600)
    path.write_bytes(data)


@on_loop
async def test_a_server_without_tokens_closes_to_all_when_the_first_is_made(tmp_path: Path) -> None:
    """And does not open again when the file is gone."""
    serving = Serving(tmp_path)
    gate = Gate(0, tmp_path / "wind.db.tokens")
    try:
        await serving.start()
        gate = Gate(int(serving.port), gate.path)
        assert await gate.lets_in(None)
        async with talker(gate.port) as made:
            await made.hello()
            token = gate.token("first")
            assert (await made.hear(wire.Refused)).code == "bad-token"
        assert await gate.lets_in(token)
        assert not await gate.lets_in(None)
        gate.path.unlink()
        assert not await gate.lets_in(token)
        assert not await gate.lets_in(None)
        await serving.end()
    finally:
        serving.kill()


# --- tokens, and the file they are in ---------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> str:
    return str(tmp_path / "tokens")


def test_the_file_has_no_secret_and_is_its_owners_alone(path: str) -> None:
    text, made = create_token(path, "shop", fire=("orders",))
    data = Path(path).read_text()
    assert text.startswith(f"sw_{made.id}_")
    assert len(text.split("_", 2)[2]) >= 43  # of 256 bits
    assert text.split("_", 2)[2] not in data
    assert made.sha256 in data
    assert os.stat(path).st_mode & 0o777 == 0o600
    assert os.listdir(os.path.dirname(path)) == ["tokens"]


def test_a_token_with_any_character_changed_is_none(path: str) -> None:
    text, _ = create_token(path, "shop", admin=True)
    access = Access(path)
    assert access.grant(text) == Grant("shop", admin=True, id=text.split("_")[1])
    for index, character in enumerate(text):
        other = "A" if character != "A" else "B"
        for changed in (text[:index] + other + text[index + 1 :], text[:index] + text[index + 1 :], text[:index]):
            assert not access.holds(changed), changed
    for changed in (f"{text} ", f" {text}", f"{text}A", text.upper(), f"{text}\udcff", "", "sw", "sw__", "_" * 9):
        assert not access.holds(changed), changed


def test_secrets_are_compared_in_constant_time_whether_the_id_is_known_or_not(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    compared: list[int] = []
    real = access_module.hmac.compare_digest

    def compare(one: bytes, other: bytes) -> bool:
        compared.append(len(one) + len(other))
        return bool(real(one, other))

    _, made = create_token(path, "shop", admin=True)
    access = Access(path)
    monkeypatch.setattr(access_module.hmac, "compare_digest", compare)
    for id in (made.id, "0123456789ab"):
        assert not access.holds(f"sw_{id}_guess")
    assert compared == [64, 64]


def test_a_token_can_be_made_again_under_its_name_once_it_is_revoked(path: str) -> None:
    first, made = create_token(path, "shop", admin=True)
    with pytest.raises(ConflictError, match="revoke that one, or choose another"):
        create_token(path, "shop", admin=True)
    assert revoke_token(path, made.id) == made
    second, _ = create_token(path, "shop", fire=("orders",))
    access = Access(path)
    assert not access.holds(first)
    assert access.grant(second) == Grant("shop", ("orders",), id=second.split("_")[1])
    with pytest.raises(NotFound):
        revoke_token(path, made.id)
    assert [each.name for each in read_tokens(path)] == ["shop"]


REFUSED: list[tuple[dict[str, Any], type[SolarWindError]]] = [
    ({"name": ""}, BadName),
    ({"name": " shop"}, BadName),
    ({"name": "a\nb"}, BadName),
    ({"name": "x" * 201}, BadName),
    ({"fire": ("orders..placed",)}, BadName),
    ({"listen": (Listen("no topic"),)}, BadName),
    ({"listen": (Listen("orders", " p"),)}, BadName),
    ({"admin": False}, BadArgument),
    ({"fire": ("orders",) * (MAX_RIGHTS + 1)}, TooLarge),
]


@pytest.mark.parametrize(("given", "error"), REFUSED)
def test_a_token_that_cannot_be_meant_is_refused(path: str, given: dict[str, Any], error: type[SolarWindError]) -> None:
    with pytest.raises(error):
        create_token(path, **{"name": "shop", "admin": True} | given)
    assert not os.path.exists(path)


def test_there_is_an_end_to_the_tokens_of_a_file(path: str) -> None:
    _, made = create_token(path, "first", admin=True)
    many = [msgspec.structs.replace(made, id=f"{number:012x}", name=str(number)) for number in range(MAX_TOKENS)]
    Path(path).write_bytes(msgspec.json.encode({"version": 1, "tokens": many}))
    with pytest.raises(TooLarge, match="revoke some"):
        create_token(path, "one too many", admin=True)
    assert len(read_tokens(path)) == MAX_TOKENS


def test_tokens_that_are_made_at_once_are_all_there(path: str) -> None:
    names = [f"shop {number}" for number in range(24)]
    with ThreadPoolExecutor(8) as pool:
        texts = list(pool.map(lambda name: create_token(path, name, admin=True)[0], names))
    access = Access(path)
    assert [access.grant(text).name for text in texts] == names


BAD_FILES = {
    "no JSON": b"tokens",
    "another JSON": b"[]",
    "nested without end": b"[" * 100_000,
    "not UTF-8": b'{"tokens": ["\xff"]}',
    "a field more": b'{"tokens": [{"id": "1", "name": "n", "sha256": "", "created": "2026-01-01T00:00:00Z", "x": 1}]}',
    "a short hash": b'{"tokens": [{"id": "1", "name": "n", "sha256": "00", "created": "2026-01-01T00:00:00Z"}]}',
    "no hash": b'{"tokens": [{"id": "1", "name": "n", "sha256": "zz", "created": "2026-01-01T00:00:00Z"}]}',
    "a time of nowhere": b'{"tokens": [{"id": "1", "name": "n", "sha256": "%b", "created": "2026-01-01T00:00:00"}]}'
    % (b"00" * 32),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_is_none_is_refused_when_the_server_starts(path: str, what: str) -> None:
    Path(path).touch(0o600)
    Path(path).write_bytes(BAD_FILES[what])
    with pytest.raises(BadArgument, match="is not one: "):
        Access(path)
    with pytest.raises(BadArgument):
        create_token(path, "shop", admin=True)
    assert Path(path).read_bytes() == BAD_FILES[what]


def test_a_file_that_another_owns_is_refused(path: str) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    create_token(path, "shop", admin=True)
    os.chown(path, 12_345, -1)
    with pytest.raises(BadArgument, match="belongs to user 12345: chown 0 it"):
        Access(path)


def test_a_file_that_is_required_has_to_be_there(path: str) -> None:
    with pytest.raises(BadArgument, match="make one with `solarwind token create`"):
        Access(path)
    assert Access(path, required=False).open
    assert Access().open


def test_a_token_is_good_until_the_moment_it_expires(path: str) -> None:
    text, made = create_token(path, "shop", admin=True, expires=timedelta(days=1))
    assert made.expires is not None
    now = made.expires - timedelta(microseconds=1)
    access = Access(path, now=lambda: now)
    assert access.holds(text)
    now = made.expires
    with pytest.raises(BadToken, match="got 'shop', which expired at "):
        access.grant(text)
