"""How much a peer may cost: each limit bites, with the right problem, and the server goes on for others."""

from __future__ import annotations

import asyncio
import json
import math
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
import typer.main
from websockets.exceptions import ConnectionClosed

from leaping import leap, leap_until
from sampling import some
from solarwind import Limits, SolarWind, StoreError, wire
from solarwind.cli import app
from solarwind.errors import BadArgument
from solarwind.server import Server, Settings
from solarwind.server.access import create_token
from solarwind.server.listener import Listener
from solarwind.testing.contract import a_while, on_loop, until

from .mounted import ROOT
from .peers import Mounted, Peer, Refusal, ask, batch, bearer, join_of, peer, request, talker
from .resident import least_growth
from .serving import Serving
from .test_tls import hello_of, make_certificate, trusting

F = TypeVar("F", bound=Callable[..., Any])

JSON = {"content-type": "application/json"}
EVENTS, PURPOSE = "/v1/topics/t/events", "/v1/topics/t/purposes/p"
SMALL = {"frame_bytes": 40_000, "body_bytes": 20_000, "header_bytes": 4_000, "nesting": 8, "ids": 5, "instances": 3}
SMALL |= {"unanswered": 4, "payload_bytes": 10_000, "batch_bytes": 12_000, "batch_events": 7}
SOON = {"authenticate_s": 15, "idle_s": 40, "heartbeat_s": 20}  # for those who leap
FEW = {"connections": 6}
SHOWN: set[str] = set()


def bites(*names: str) -> Callable[[F], F]:
    """Note that a test shows that these limits apply."""
    SHOWN.update(names)
    return lambda test: test


# --- what there is ----------------------------------------------------------------------------------------------


def test_every_limit_is_an_option_with_the_same_default() -> None:
    command: Any = typer.main.get_command(app)
    options = {each.name: each for each in command.commands["serve"].params}
    for field in (*msgspec.structs.fields(Settings), *msgspec.structs.fields(Limits)):
        if field.name != "depth":  # which counts where a handler fires, and a server has none
            option = options[field.name]
            assert option.opts == [f"--{field.name.replace('_', '-')}"]
            assert option.help.endswith(f": {field.default:,.16g}.")


def test_every_setting_is_in_the_document_with_its_default() -> None:
    text = (Path(__file__).parents[2] / "docs" / "SECURITY.md").read_text()
    rows = re.findall(r"^\| .* \| ([\d,]+)(?: bytes| s)? \| `--([\w-]+)` \| .* \|$", text, re.MULTILINE)
    stated = {option.replace("-", "_"): default for default, option in rows}
    assert stated == {field.name: f"{int(field.default):,}" for field in msgspec.structs.fields(Settings)}


def test_every_setting_has_a_test_here_or_where_it_says() -> None:
    assert set(Settings.__struct_fields__) == SHOWN | {
        "bodies_bytes",
        "body_rate",
        "viewers",
    }  # test_requests.py, test_watch.py


@pytest.mark.parametrize("name", Settings.__struct_fields__)
@pytest.mark.parametrize("value", [0, -1, True, None, "1", math.nan, math.inf])
def test_a_setting_that_cannot_be_meant_is_refused(name: str, value: Any) -> None:
    with pytest.raises(BadArgument, match=f"expected a setting {name}, a (whole )?number above 0, got "):
        Settings(**{name: value})


def started(folder: Path, settings: dict[str, Any]) -> Serving:
    options = [str(part) for name, value in settings.items() for part in (f"--{name.replace('_', '-')}", value)]
    serving = Serving(folder, *options)
    asyncio.run(serving.start())
    return serving


async def healthy(port: int) -> None:
    """Check that others are served."""
    assert (await ask(port, "GET", "/readyz")).status == 200
    async with talker(port) as made:
        await made.hello()
        await made.submit("others")


@pytest.fixture(scope="module")
def _small(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    serving = started(tmp_path_factory.mktemp("small"), SMALL)
    yield serving
    serving.kill()
    assert not serving.complaints()


@pytest.fixture
def small(_small: Serving) -> Iterator[int]:
    """A server that takes but little."""
    yield int(_small.port)
    asyncio.run(healthy(int(_small.port)))


@asynccontextmanager
async def here(store: str = "memory://", **settings: Any) -> AsyncIterator[tuple[int, Listener]]:
    """Yield a server on this loop, whose connections can be counted."""
    server = Server(store, settings=Settings(**settings))
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        yield listener.port, listener
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


async def alone(listener: Listener) -> None:
    """Wait until the server has let go of everybody."""
    await until(lambda: not listener.admission.count("127.0.0.1"), "the server lets go")


@asynccontextmanager
async def soon() -> AsyncIterator[int]:
    """Yield a server on a loop whose time leaps, with limits that are long enough for what has to come before their
    end."""
    async with here(**SOON) as (port, _):
        yield port
        await healthy(port)


async def leapt(made: Peer) -> float:
    """Let time pass until the server hangs up. Return how much, in seconds."""
    ended = asyncio.ensure_future(made.read())
    return await leap_until(ended.done)


# --- how large --------------------------------------------------------------------------------------------------


@bites("frame_bytes")
@on_loop
async def test_a_websocket_message_above_the_limit_is_refused(small: int) -> None:
    async with talker(small) as made:
        assert (await made.hello()).frame_bytes == SMALL["frame_bytes"]
        await made.say(wire.Hold(bytes(SMALL["frame_bytes"] - 100)))
        await made.say(wire.Ping())
        await made.hear(wire.Pong)
        await made.say(wire.Hold(bytes(SMALL["frame_bytes"])))
        assert (await made.ended())[0] == 1009


@on_loop
async def test_a_fragmented_websocket_message_has_an_end(small: int) -> None:
    async with talker(small) as made:
        await made.hello()
        with suppress(ConnectionClosed):  # in the middle of it
            await made.socket.send(bytes(1_000) for _ in range(100))
        assert (await made.ended())[0] == 1009


@on_loop
async def test_a_websocket_message_before_hello_has_a_lower_limit() -> None:
    async with here() as (port, _), talker(port) as made:
        await made.socket.send(wire.encode([wire.Hello("c", "x" * 16_300)]))
        await made.hear(wire.Welcome)
        await made.say(wire.Hold(bytes(1 << 20)))
        await made.say(wire.Ping())
        await made.hear(wire.Pong)
    async with here() as (port, _), talker(port) as made:
        await made.socket.send(wire.encode([wire.Hello("c", "x" * 16_400)]))
        assert (await made.ended())[0] == 1009


@on_loop
async def test_messages_that_are_not_whole_and_batches_on_hold_have_an_end_together() -> None:
    async with here(bodies_bytes=800_000) as (port, _), talker(port) as one, talker(port) as other:
        await one.hello()
        await other.hello()
        await one.join(1, "t", "p", retry={"attempts": 1, "wait": 0.0})
        held = batch("u", *[b"1"] * 4_000).data  # it weighs half a megabyte, though it is short
        await one.say(wire.Submit(one.ref, batch("t").data))
        (share,) = (await one.hear(wire.Offer)).shares
        await one.say(wire.Hold(held), wire.Ping())
        await one.hear(wire.Pong)
        with suppress(ConnectionClosed):  # in the middle of it
            await other.socket.send(bytes(300_000) for _ in range(3))
        refused = await other.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "busy")
        await other.ended()
        await one.say(wire.Hold(held), wire.Report(1, share.lease, share.picks, fired=2, ref=one.ref))
        await one.hear(wire.Done)
        _, letter = await one.call("dead", topic="t", purpose="p")
        assert "held batches" in letter[1]
        assert (await ask(port, "POST", EVENTS, JSON, b'"%b"' % (b"x" * 700_000))).status == 202, "all is given back"


@on_loop
async def test_a_websocket_message_holds_at_most_so_many_messages() -> None:
    async with here() as (port, _), talker(port) as made:
        await made.hello()
        await made.say(*[wire.Ping()] * wire.MAX_MESSAGES)
        await made.hear(wire.Pong)
        await made.say(*[wire.Ping()] * (wire.MAX_MESSAGES + 1))
        refused = await made.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "protocol")
        assert "at most 16,384 messages together, got 16,385" in refused.text


def test_a_client_sends_no_more_messages_together_than_allowed() -> None:
    messages = [wire.Ping()] * (2 * wire.MAX_MESSAGES + 1)
    assert [len(each) for each in wire.groups(messages)] == [wire.MAX_MESSAGES, wire.MAX_MESSAGES, 1]


@bites("body_bytes")
@pytest.mark.parametrize("chunked", [False, True])
@on_loop
async def test_a_body_above_the_limit_is_refused(small: int, chunked: bool) -> None:
    """Whether it says how long it is, or is found out as it comes."""
    for path, kind, fits in (
        (EVENTS, "application/json", SMALL["payload_bytes"]),
        (EVENTS, "application/cloudevents+json", SMALL["body_bytes"]),
        (EVENTS, "application/cloudevents-batch+json", SMALL["body_bytes"]),
        (f"{PURPOSE}/take", "application/json", SMALL["body_bytes"]),
        (f"{PURPOSE}/settle", "application/json", SMALL["body_bytes"]),
    ):
        for size, status in ((fits, (200, 202, 400)), (fits + 1, (413,))):
            answer = await ask(small, "POST", path, *body_of(b'"%b"' % (b"x" * (size - 2)), kind, chunked))
            assert answer.status in status, (path, kind, answer)
            assert answer.status != 413 or answer.code == "too-large"


def body_of(data: bytes, kind: str, chunked: bool) -> tuple[dict[str, str], bytes]:
    headers = {"content-type": kind}
    if not chunked:
        return headers, data
    pieces = [data[at : at + 999] for at in range(0, len(data), 999)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
    return headers | {"transfer-encoding": "chunked"}, body


@on_loop
async def test_a_line_has_an_end_and_lines_have_none(small: int) -> None:
    async with peer(small) as made:
        most = SMALL["payload_bytes"]
        lines = b"\n".join([b"1", b'"%b"' % (b"x" * (most - 2)), b"2"] * 50)
        kind = {"content-type": "application/x-ndjson"}
        assert (await made.ask("POST", EVENTS, kind, lines)).status == 202
        answer = await made.ask("POST", EVENTS, kind, b"1\n" + b"x" * (most + 1) + b"\n2")
        assert (answer.status, answer.code, answer.problem["line"], answer.problem["accepted"]) == (
            413,
            "too-large",
            2,
            1,
        )


@on_loop
async def test_a_batch_above_the_limit_is_refused(small: int) -> None:
    async with talker(small) as made:
        await made.hello()
        for fits, not_ in (
            ([b"x" * SMALL["payload_bytes"]], [b"x" * (SMALL["payload_bytes"] + 1)]),
            ([b"x" * 6_000] * 2, [b"x" * 6_000, b"x" * 6_001]),
            ([b"1"] * SMALL["batch_events"], [b"1"] * (SMALL["batch_events"] + 1)),
        ):
            await made.submit("t", *fits)
            with pytest.raises(Refusal, match="too-large: expected "):
                await made.submit("t", *not_)


@bites("header_bytes")
@on_loop
async def test_a_head_above_the_limit_is_refused(small: int) -> None:
    fits = {f"x-{number}": "y" * 900 for number in range(4)}
    assert (await ask(small, "GET", "/healthz", fits)).status == 200
    for headers in (fits | {"x-4": "y" * 900}, {f"x{number}": "" for number in range(101)}):
        answer = await ask(small, "GET", "/healthz", headers)
        assert (answer.status, answer.code, answer.headers["connection"]) == (431, "too-large", "close")
        assert (
            await ask(small, "GET", "/v1/connect", headers | {"connection": "upgrade", "upgrade": "websocket"})
        ).status == 431
    answer = await ask(small, "GET", "/" + "x" * 4_000)
    assert (answer.status, answer.code) == (431, "too-large")
    async with peer(small) as made:  # and while it is not whole
        await made.send(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: " + b"y" * 5_000)
        assert (await made.answer()).status == 431
        await made.read()


@on_loop
async def test_no_line_of_a_head_is_longer_than_websockets_can_be_told_of_either() -> None:
    async with here() as (port, _):
        for headers in ({"x": "y" * 7_000}, {"x": "y" * 8_100}):
            status = 200 if len(headers["x"]) < 8_000 else 431
            assert (await ask(port, "GET", "/healthz", headers)).status == status
        async with peer(port) as made:
            more = {"upgrade": "websocket", "connection": "upgrade", "x": "y" * 8_100}
            assert (await made.ask("GET", "/v1/connect", more)).status == 431


@bites("nesting")
@on_loop
async def test_json_nested_above_the_limit_is_refused(small: int) -> None:
    """In each form, strings with brackets do not count, and what comes after the bottom does not matter."""
    most = SMALL["nesting"]
    async with peer(small) as made:
        for depth, status in ((most, 202), (most + 1, 413), (2_000, 413)):
            for deep in (b"[" * depth + b"]" * depth, b'{"a":' * depth + b'"[[[[[[[[[["' + b"}" * depth):
                for kind, body in (
                    ("application/json", deep),
                    ("application/x-ndjson", b"1\n" + deep + b"\n2"),
                ):
                    answer = await made.ask("POST", EVENTS, {"content-type": kind}, body)
                    assert answer.status == status, (depth, kind, answer)
                    assert status == 202 or answer.code == "too-large"
            event = b'{"specversion":"1.0","type":"t","source":"s","id":"%d","data":%b}' % (
                depth,
                b"[" * depth + b"]" * depth,
            )
            kind = "application/cloudevents+json"
            assert ((await made.ask("POST", EVENTS, {"content-type": kind}, event)).status == 413) == (depth >= most)
        for path in (f"{PURPOSE}/take", f"{PURPOSE}/settle", f"{PURPOSE}/webhooks/w"):
            method = "PUT" if path.endswith("w") else "POST"
            answer = await made.ask(method, path, JSON, b'{"url": %b}' % (b"[" * 5_000 + b"]" * 5_000))
            assert (answer.status, answer.code) == (413, "too-large")


@bites("ids")
@on_loop
async def test_a_request_has_only_so_many_ids(small: int) -> None:
    most = SMALL["ids"]
    async with peer(small) as made:
        event = {"specversion": "1.0", "type": "t", "source": "s", "data": 1}
        for count, events, rest in ((most, 202, (200, 400, 404, 409)), (most + 1, 413, (413,))):
            ids = [f"{count}-{number}" for number in range(count)]
            batched = json.dumps([event | {"id": id} for id in ids]).encode()
            kind = {"content-type": "application/cloudevents-batch+json"}
            assert (await made.ask("POST", EVENTS, kind, batched)).status == events
            for path, body in (
                (f"{PURPOSE}/take", {"max": count}),
                (f"{PURPOSE}/settle", {"done": ids[:2], "reject": ids[2:]}),
                (f"{PURPOSE}/dead/redrive", {"ids": ids}),
                (f"{PURPOSE}/dead/discard", {"ids": ids}),
            ):
                answer = await made.ask("POST", path, JSON, json.dumps(body).encode())
                assert answer.status in rest, (path, answer)
        # Of a long NDJSON the ids are left out of the answer.
        answer = await made.ask("POST", EVENTS, {"content-type": "application/x-ndjson"}, b"1\n" * (most + 1))
        assert json.loads(answer.body) == {"accepted": most + 1}


@on_loop
async def test_a_body_that_is_none_ends_its_request_with_one_answer(small: int) -> None:
    """Though the request has one already, or is about to."""
    for method, path in (("GET", "/healthz"), ("POST", EVENTS), ("GET", "/nowhere")):
        async with peer(small) as made:
            await made.send(request(method, path, JSON | {"transfer-encoding": "chunked"}, b"zz\r\n"))
            assert (await made.answer()).code == "protocol"
            assert await made.read() == b""


# --- how many ---------------------------------------------------------------------------------------------------


@bites("instances")
@on_loop
async def test_a_connection_has_only_so_many_instances(small: int) -> None:
    async with talker(small) as made, talker(small) as other:
        await made.hello()
        await other.hello()
        most = SMALL["instances"]
        for number in range(most):
            await made.join(number, "t", f"purpose {number}")
        with pytest.raises(Refusal, match="busy: expected at most 3 instances on a connection"):
            await made.join(most, "t", "one too many")
        await other.join(most, "t", "one too many")
        await made.say(wire.Leave(made.ref, 0))
        await made.hear(wire.Done)
        await made.join(most, "t", "one too many")


@on_loop
async def test_joining_and_leaving_faster_than_can_be_done_is_refused(small: int) -> None:
    """Each of them is under way until its purpose is on disk."""
    async with talker(small) as made:
        await made.hello()
        messages: list[wire.Message] = []
        for number in range(50):
            messages += [join_of(made.ref, 1, "t", f"in and out {number}"), wire.Leave(made.ref, 1)]
        await made.say(*messages)
        assert (await made.hear(wire.Refused)).code == "busy"


@on_loop
async def test_the_number_of_takes_that_are_not_settled_is_limited(small: int) -> None:
    async with peer(small) as made:
        path = "/v1/topics/taken/purposes/p"
        for _ in range(SMALL["instances"] + 1):
            assert (await made.ask("POST", "/v1/topics/taken/events", JSON, b"1")).status == 202
        take = json.dumps({"max": 1, "since": "beginning", "wait": 5}).encode()
        tokens = []
        for _ in range(SMALL["instances"]):
            (event,) = json.loads((await made.ask("POST", f"{path}/take", JSON, take)).body)["events"]
            tokens.append(event["token"])
        answer = await made.ask("POST", f"{path}/take", JSON, take)
        assert (answer.status, answer.code, answer.headers["retry-after"]) == (429, "busy", "1")
        settle = json.dumps({"done": tokens}).encode()
        assert (await made.ask("POST", f"{path}/settle", JSON, settle)).status == 200
        (event,) = json.loads((await made.ask("POST", f"{path}/take", JSON, take)).body)["events"]
        await made.ask("POST", f"{path}/settle", JSON, json.dumps({"done": [event["token"]]}).encode())


@on_loop
async def test_the_number_of_feeds_is_limited(small: int) -> None:
    feed = request("GET", "/v1/topics/t/feed?purpose=Live%20page")
    async with AsyncExitStack() as stack:
        for _ in range(SMALL["instances"]):
            reader = await stack.enter_async_context(peer(small))
            await reader.send(feed)
            assert (await reader.answer(head_only=True)).status == 200
        async with peer(small) as made:
            await made.send(feed)
            assert (await made.answer()).code == "busy"


@bites("unanswered")
@on_loop
async def test_a_connection_has_only_so_many_calls_under_way(small: int) -> None:
    """Here they wait until nothing pends, which is never."""
    async with talker(small) as made, talker(small) as other:
        await other.hello()
        await other.join(1, "waits", "p", room=1)
        await other.submit("waits", b"1")
        await made.hello()
        waiting = msgspec.Raw(msgspec.msgpack.encode({"purposes": [("waits", "p")]}))
        await made.say(*(wire.Call(made.ref, "idle", waiting) for _ in range(SMALL["unanswered"])))
        with pytest.raises(Refusal, match="busy: expected at most 4 calls under way"):
            await made.call("statistics")
        await made.submit("t")
        assert await other.call("statistics")


@bites("connections")
@on_loop
async def test_an_address_has_only_so_many_connections(tmp_path: Path) -> None:
    """More are closed before a word is said; whoever comes from elsewhere is served."""
    serving = Serving(tmp_path, "--connections", 4)
    try:
        await serving.start()
        port = int(serving.port)
        async with AsyncExitStack() as stack:
            made = [await stack.enter_async_context(peer(port, source="127.0.0.3")) for _ in range(4)]
            for each in made:
                assert (await each.ask("GET", "/healthz")).status == 200
            async with peer(port, source="127.0.0.3") as one_too_many:
                await one_too_many.send(request("GET", "/healthz"))
                assert await one_too_many.read() == b""
            assert await answers_from(port, "127.0.0.2")
            made[0].close()
            await until(lambda: answers_from(port, "127.0.0.3"), "one may come when one has gone")
        await serving.end()
    finally:
        serving.kill()


async def answers_from(port: int, address: str) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    try:
        writer.write(request("GET", "/healthz", {"connection": "close"}))
        return b" 200 " in await reader.read()
    except ConnectionError:
        return False
    finally:
        writer.transport.abort()


# --- how long ---------------------------------------------------------------------------------------------------


@bites("authenticate_s")
@pytest.mark.parametrize("sent", [b"", b"G", b"GET /healthz HTTP/1.1\r\nhost: localhost\r\nx: "])
@on_loop
async def test_a_client_that_asks_for_nothing_is_disconnected(sent: bytes) -> None:
    async with soon() as port, peer(port) as made:
        await made.send(sent)
        assert 10 <= await leapt(made) <= 60


@on_loop
async def test_more_bytes_do_not_buy_more_time() -> None:
    async with soon() as port, peer(port) as made:
        ended = asyncio.ensure_future(made.read())
        passed = 0.0
        while not ended.done():
            await made.send(b"G")
            await a_while()
            leap(5)
            passed += 5
            await a_while()
        assert passed <= 60


@on_loop
async def test_a_client_that_does_not_say_hello_is_told_so_and_disconnected() -> None:
    async with soon() as port, talker(port) as made:
        leap(SOON["authenticate_s"] + 1)
        refused = await made.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "protocol")
        assert "expected hello within 15 s" in refused.text
        assert await made.ended() == (1002, "protocol")


@on_loop
async def test_a_body_that_nobody_wants_is_not_waited_for() -> None:
    """It is read for a while, so that its sender reads why."""
    async with soon() as port, peer(port) as made:
        await made.send(request("POST", "/v1/nowhere", {"content-length": "1000"}, b"x"))
        answer = asyncio.ensure_future(made.answer())
        await leap_until(answer.done)
        assert answer.result().status == 404
        await leapt(made)


@on_loop
async def test_a_body_may_take_longer_than_a_head() -> None:
    """If it comes at the least rate or above."""
    body = b'"' + b"x" * 49_998 + b'"'
    async with soon() as port, peer(port) as made:
        await made.send(request("POST", EVENTS, JSON | {"content-length": str(len(body))}))
        for sent in range(0, len(body), 10_000):
            await a_while()
            leap(SOON["authenticate_s"] / 2)
            await made.send(body[sent : sent + 10_000])
        assert (await made.answer()).status == 202


@bites("idle_s")
@on_loop
async def test_a_connection_without_a_request_is_closed() -> None:
    async with soon() as port:
        async with peer(port) as made:
            for _ in range(2):
                assert (await made.ask("GET", "/v1/statistics")).status == 200
                leap(SOON["idle_s"] / 2)
            assert 20 <= await leapt(made) <= 60
        async with peer(port) as made:
            assert (await made.ask("GET", "/v1/statistics")).status == 200
            await made.send(b"GET /healthz HTTP/1.1\r\n")
            assert 20 <= await leapt(made) <= 60


@on_loop
async def test_a_body_that_does_not_go_on_ends_the_connection() -> None:
    async with soon() as port:
        for before in (b"", request("GET", "/healthz"), request("POST", EVENTS, JSON, b"1")):
            for kind in ("application/json", "application/x-ndjson"):
                async with peer(port) as made:
                    head = {"content-type": kind, "content-length": "100"}
                    await made.send(before + request("POST", EVENTS, head, b"1\n2"))
                    assert 10 <= await leapt(made) <= 80


@on_loop
async def test_a_peer_that_hangs_up_with_a_further_request_on_its_way_is_noticed() -> None:
    async with here() as (port, listener):
        async with peer(port) as made:
            await made.send(request("POST", f"{PURPOSE}/take", JSON, b'{"wait": 60}') + request("GET", "/healthz"))
            await until(lambda: listener.admission.count("127.0.0.1"), "it to be there")
        await alone(listener)


@on_loop
async def test_an_answer_that_nobody_reads_ends_the_connection() -> None:
    async with here(idle_s=40) as (port, listener), peer(port) as made:
        await made.ask("POST", EVENTS, {"content-type": "application/x-ndjson"}, (b'"%b"\n' % (b"x" * 900_000)) * 16)
        await made.send(request("POST", f"{PURPOSE}/take", JSON, b'{"since": "beginning", "max": 16}'))
        await leap_until(lambda: not listener.admission.count("127.0.0.1"))


@on_loop
async def test_a_backup_that_cannot_be_written_where_it_is_asked_for_is_refused_in_words(tmp_path: Path) -> None:
    async with here(f"sqlite:///{tmp_path}/wind.db") as (port, _), SolarWind(f"ws://127.0.0.1:{port}") as wind:
        for path, said in ((tmp_path / "none" / "b.db", "does not exist"), (tmp_path / ("x" * 300), "be written")):
            with pytest.raises(StoreError, match=said):
                await wind.backup(str(path))


@bites("heartbeat_s")
@on_loop
async def test_a_client_that_falls_silent_is_taken_for_gone_and_one_that_pings_is_not() -> None:
    async with soon() as port, talker(port) as made, talker(port) as other:
        assert (await made.hello()).heartbeat_s == SOON["heartbeat_s"]
        await other.hello()
        ended = asyncio.ensure_future(made.ended())
        while not ended.done():
            leap(SOON["heartbeat_s"] / 2)
            await other.say(wire.Ping())
            await other.hear(wire.Pong)
            await a_while()
        assert ended.result()[0] == 1006
        await other.submit("t")


@on_loop
async def test_a_feed_shows_that_it_lives() -> None:
    async with soon() as port, peer(port) as made:
        await made.send(request("GET", "/v1/topics/t/feed?purpose=Live%20page"))
        shown = asyncio.ensure_future(made.until(b"\r\n:\n\n"))
        await leap_until(shown.done)
        await shown


# --- how little somebody costs of whom nobody knows who he is ------------------------------------------------------

MAX = 64 << 10  # bytes for each
PEERS = 100
TOKEN = "sw_0123456789ab_" + "x" * 43


async def _nothing(made: Peer) -> None:
    """Connect, no more."""


async def _half_a_head(made: Peer) -> None:
    await made.send(request("GET", "/healthz")[:-2] + b"x: " + b"y" * 15_500)


async def _a_head(made: Peer) -> None:
    """Send the largest head that is allowed; the connection stays for the next."""
    headers = {f"x{number}": "y" * 150 for number in range(95)}
    assert (await made.ask("GET", "/healthz?" + "z" * 900, headers | bearer(TOKEN))).status == 400


async def _half_a_body(made: Peer) -> None:
    await made.send(request("POST", EVENTS, JSON | bearer(TOKEN) | {"content-length": "9999999"}, bytes(1 << 20)))


async def _a_body_that_is_not_asked_for(made: Peer) -> None:
    await made.send(request("GET", "/healthz", {"content-length": "9999999"}, bytes(1 << 20)))
    assert (await made.answer()).status == 200


async def _chunks(made: Peer) -> None:
    headers = JSON | {"transfer-encoding": "chunked"}
    await made.send(request("POST", EVENTS, headers, b"1;%b\r\nx\r\n" % (b"y" * 100) * 100 + b"1;" + b"y" * 15_000))


async def _many_at_once(made: Peer) -> None:
    await made.send(request("GET", "/v1/topics", bearer(TOKEN)) * 200)


async def _a_socket(made: Peer) -> None:
    await made.handshake()


async def _half_a_message(made: Peer) -> None:
    await made.handshake()
    await made.send(b"\x82\xfe\x3f\xff" + bytes(4) + b"x" * 16_000)


async def _a_message_in_pieces(made: Peer) -> None:
    await made.handshake()
    await made.send(b"\x02\x80" + bytes(4) + (b"\x00\x80" + bytes(4)) * 1_000)


async def _pings(made: Peer) -> None:
    """Send pings, none of whose answers is read."""
    await made.handshake()
    await made.send((b"\x89\xfd" + bytes(129)) * 500)


async def _garbage(made: Peer) -> None:
    await made.send(bytes(1 << 16))


async def _half_a_hello(made: Peer) -> None:
    await made.send(hello_of(16_000) + bytes(15_000))


PLAIN = [
    _nothing,
    _half_a_head,
    _a_head,
    _half_a_body,
    _a_body_that_is_not_asked_for,
    _chunks,
    _many_at_once,
    _a_socket,
]
PLAIN += [_half_a_message, _a_message_in_pieces, _pings, _garbage, _half_a_hello]
COMMON = [_nothing, _a_head, _half_a_body, _chunks, _a_socket, _half_a_message]
SECURE = [_nothing, _half_a_head, _a_head, _half_a_body, _half_a_message, _half_a_hello]
LONG = {"authenticate_s": 600, "idle_s": 600, "connections": 100_000}


async def cost(
    pid: int, port: int, what: Callable[[Peer], Awaitable[None]], tls: Any = None, barrier: Any = None
) -> float:
    """Return the bytes of a server's memory for each client that does this and then nothing.

    All of them stay, so nothing is freed for the next.
    """
    async with AsyncExitStack() as held:

        async def come(count: int) -> None:
            for _ in range(count):
                await what(await held.enter_async_context(peer(port, tls)))
            # Whoever asks after them is answered when what they sent was read.
            for _ in range(3):
                assert (await ask(port, "GET", "/nowhere", tls=barrier or tls)).status == 404

        await come(PEERS // 4)
        return await least_growth(pid, lambda: come(PEERS), MAX * PEERS) / PEERS


def with_tokens(folder: Path) -> Path:
    path = folder / "wind.db.tokens"
    create_token(str(path), "one", admin=True)
    return path


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("plain")
    with_tokens(folder)
    serving = started(folder, LONG)
    yield serving
    serving.kill()


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory, certificate: tuple[Path, Path]) -> Iterator[Serving]:
    folder = tmp_path_factory.mktemp("secure")
    with_tokens(folder)
    serving = started(folder, LONG | {"cert": certificate[0], "cert_key": certificate[1]})
    yield serving
    serving.kill()


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Mounted]:
    folder = tmp_path_factory.mktemp("mounted")
    mounted = Mounted("memory://", with_tokens(folder))
    yield mounted
    mounted.end()


@pytest.mark.parametrize("what", some(COMMON, PLAIN), ids=lambda what: what.__name__)
@on_loop
async def test_an_unknown_client_costs_no_more_than_64_kib(plain: Serving, what: Any) -> None:
    assert await cost(plain.pid, int(plain.port), what) < MAX


@pytest.mark.parametrize("what", some([_a_head, _half_a_hello], SECURE), ids=lambda what: what.__name__)
@on_loop
async def test_an_unknown_client_over_tls_costs_no_more_than_64_kib(
    secure: Serving, certificate: tuple[Path, Path], what: Any
) -> None:
    tls = trusting(certificate[0])
    way = None if what is _half_a_hello else tls
    assert await cost(secure.pid, int(secure.port), what, way, tls) < MAX


@on_loop
async def test_an_unknown_client_of_a_mounted_app_costs_no_more_than_64_kib(mounted: Mounted) -> None:
    async def a_socket(made: Peer) -> None:
        await made.handshake(ROOT)

    assert await cost(mounted.pid, mounted.port, a_socket) < MAX


@on_loop
async def test_a_mounted_app_has_the_same_limit_before_hello(mounted: Mounted) -> None:
    async with talker(mounted.port, root=ROOT) as made:
        await made.say(wire.Hello("c", "x" * (16 << 10)))
        refused = await made.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "protocol")
        assert "of at most 16,384 bytes" in refused.text


@pytest.mark.long
@on_loop
async def test_a_backup_that_nobody_waits_for_any_more_leaves_nothing_behind(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is under way on a thread, which goes on."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    serving = Serving(tmp_path)
    try:
        await serving.start()
        for turn in range(40):  # each hangs up at another moment of it
            async with peer(serving.port) as made:
                await said_hello(made)
                await made.send(masked(wire.encode([wire.Call(1, "backup")])))
                for _ in range(turn % 20):
                    assert (await ask(serving.port, "GET", "/healthz")).status == 200
        await until(lambda: not [*temporary.iterdir()], "all copies are gone")
        await healthy(serving.port)
        assert not serving.complaints()
        await serving.end()
    finally:
        serving.kill()


# --- how little somebody can make it grow of whom it does ------------------------------------------------------------


@pytest.fixture
def asking(_small: Serving) -> Serving:
    return _small


async def said_hello(made: Peer) -> None:
    await made.handshake()
    await made.send(masked(wire.encode([wire.Hello("c")])))
    await made.until(b"welcome")


def masked(data: bytes) -> bytes:
    """Return a client's frame, with a mask of zeros."""
    assert len(data) < 126
    return bytes([0x82, 0x80 | len(data)]) + bytes(4) + data


@pytest.mark.long
@on_loop
async def test_pings_whose_answers_are_not_read_are_not_kept(asking: Serving) -> None:
    async with peer(int(asking.port)) as made:
        await said_hello(made)
        pings = (b"\x89\xfd" + bytes(129)) * 1_000
        for _ in range(40):  # as many as the system keeps the answers of
            await made.send(pings)

        async def ask_on() -> None:
            for _ in range(80):
                await made.send(pings)
            await healthy(int(asking.port))

        assert await least_growth(asking.pid, ask_on, 4 << 20) < 4 << 20


@pytest.mark.long
@on_loop
async def test_a_client_that_does_not_read_what_it_is_answered_can_ask_no_more(asking: Serving) -> None:
    async with AsyncExitStack() as held:

        async def ask_until_it_stands() -> None:
            made = await held.enter_async_context(peer(int(asking.port)))
            await said_hello(made)
            sent = 0

            async def send() -> None:
                nonlocal sent
                while True:
                    await made.send(masked(wire.encode([wire.Leave(1, 9)] * 10)) * 500)
                    sent += 1

            async def stands() -> bool:
                """Return whether nothing goes through any more, while others are served."""
                so_far = sent
                for _ in range(5):
                    await healthy(int(asking.port))
                return sent == so_far > 0

            sending = asyncio.ensure_future(send())
            await until(stands, "the server reads no more")
            sending.cancel()

        assert await least_growth(asking.pid, ask_until_it_stands, 16 << 20) < 16 << 20
