"""Nobody waits for what another sends, asks for, or does not read: long work is done in pieces."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import msgspec
import pytest

from sampling import some
from solarwind import wire
from solarwind.peer.time_slices import TimeSlices
from solarwind.server import Server, Settings
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop, until

from .peers import ask, join_of, peer, request, talker
from .turning import MAX_TURN_S, on_short_turns, short_turns

EVENTS, PURPOSE = "/v1/topics/t/events", "/v1/topics/t/purposes/p"
BATCHED = {"content-type": "application/cloudevents-batch+json"}
JSON = {"content-type": "application/json"}
NDJSON = {"content-type": "application/x-ndjson"}
STRUCTURED = {"content-type": "application/cloudevents+json"}


@asynccontextmanager
async def here(**settings: Any) -> AsyncIterator[tuple[Server, int]]:
    """Yield a server on this loop."""
    server = Server("memory://", settings=Settings(**settings))
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    try:
        yield server, listener.port
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


# --- the line ---------------------------------------------------------------------------------------------------


@on_loop
async def test_pieces_of_many_take_one_turn_of_the_loop_each() -> None:
    slices, done = TimeSlices(), []

    async def work(name: int) -> None:
        for _ in range(3):
            await slices.next()
            slices.spend(1.0)
            done.append(name)

    tasks = [asyncio.create_task(work(name)) for name in range(4)]
    counts = []
    while len(done) < 12:
        counts.append(len(done))
        await asyncio.sleep(0)
    await asyncio.gather(*tasks)
    assert max(after - before for before, after in pairwise(counts)) <= 1
    assert set(done[:5]) == {0, 1, 2, 3}, "each in its turn"


@on_loop
async def test_short_pieces_do_not_wait_and_one_that_is_cancelled_holds_up_nobody() -> None:
    slices = TimeSlices()
    await asyncio.wait_for(slices.next(), 60)
    slices.spend(1.0)
    first, second = (asyncio.create_task(slices.line()) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    await asyncio.wait_for(second, 60)


# --- readers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [10, 3_000])
@on_short_turns
async def test_feed_readers_that_hang_up_with_full_buffers_hold_up_nobody(size: int) -> None:
    async with here(connections=200) as (server, port), AsyncExitStack() as stack:
        feed = request("GET", "/v1/topics/t/feed?purpose=Live%20page")
        readers = [await stack.enter_async_context(peer(port)) for _ in range(30)]
        for each in readers:
            await each.send(feed)
            assert (await each.answer(head_only=True)).status == 200
        for _ in range(5):
            await server.wind.fire_many("t", ["x" * size] * 2_000)
        with short_turns():
            for each in readers:
                each.close()
            await until(lambda: not server.feeds._open, "all feeds have ended")


# --- frames -----------------------------------------------------------------------------------------------------


def joins(**fields: Any) -> list[wire.Message]:
    return [join_of(number, number, "t", f"p{number}", **fields) for number in range(1, 2_001)]


def deep(number: int) -> str:
    return "$." + ".".join([f"n{number}", *["a"] * 90])


@pytest.mark.parametrize(
    ("messages", "refused"),
    [
        (lambda: [join_of(n, n, "t", f"p{n}", exchange="keyed", key=deep(n)) for n in range(1, 2_001)], "names deep"),
        (lambda: [join_of(n, n, "t", "p", exchange=f"pigeon{n}") for n in range(1, 10_001)], "an exchange, one of"),
        (lambda: [join_of(n, n, "t", f"p{n}", exchange="keyed", key=f"$.a{n}.b.c") for n in range(1, 2_001)], ""),
        (lambda: [wire.Call(n, "statistics") for n in range(1, 16_000)], ""),
    ],
    ids=["deep keys", "unknown exchanges", "distinct keys", "calls"],
)
@on_short_turns
async def test_a_frame_of_many_messages_holds_up_nobody(
    messages: Callable[[], list[wire.Message]], refused: str
) -> None:
    data = wire.encode(messages())
    async with here() as (server, port), talker(port) as made:
        await made.hello()
        await made.submit("t", b"1")
        with short_turns():
            await made.socket.send(data)
            if refused:
                assert refused in (await made.hear(wire.Refused)).text
            known = server.host._connections
            await until(lambda: not any(each._inbound or each._lasting for each in known), "all is read")


HEAD: list[Any] = [3, "t", 1, 0]  # of a batch: its format, topic, producer and first number
ORIGIN: list[Any] = ["m", "p", b"author", 1]


@pytest.mark.parametrize(
    ("header", "said"),
    [
        (lambda: [*HEAD, 3_500_000, *ORIGIN, [0] * 3_500_000, [0] * 3_500_000], "4,194,304 bytes"),
        (lambda: [*HEAD, 1_900_000, *ORIGIN, [0] * 1_900_000, [0] * 1_900_000], "4,096 events"),
        (lambda: [*HEAD, 1, *ORIGIN, [0] * 3_500_000, [0]], "a column of 3,500,000"),
        (lambda: [*HEAD, 1, *ORIGIN, [0], [0], ["x"] * 1_900_000], "a column of 1,900,000"),
        (lambda: [*HEAD, 1, *ORIGIN, [0], [0], "x", None, None, [["user", "u"]] * 500_000], "a column of 500,000"),
    ],
    ids=["a long header", "many events", "many times", "many content types", "many causes"],
)
@on_short_turns
async def test_a_batch_that_says_too_much_of_its_events_is_refused_before_it_is_read(
    header: Callable[[], list[Any]], said: str
) -> None:
    head = msgspec.msgpack.encode(header())
    data = wire.encode([wire.Submit(1, len(head).to_bytes(4, "little") + head)])
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        with short_turns():
            await made.socket.send(data)
            refused = await made.hear(wire.Refused)
        assert said in refused.text


@on_short_turns
async def test_what_becomes_of_many_events_is_noted_without_holding_up_anybody() -> None:
    async with here() as (server, port):
        await ask(port, "POST", f"{PURPOSE}/take", JSON, b"{}")
        for _ in range(3):
            await server.wind.fire_many("t", [1] * 2_000)
        taken = await ask(port, "POST", f"{PURPOSE}/take", JSON, b'{"max":6000}')
        tokens = [each["token"] for each in json.loads(taken.body)["events"]]
        said = {"reject": tokens[::3], "done": tokens[1::3], "later": [{"token": each} for each in tokens[2::3]]}
        with short_turns():
            settled = await ask(port, "POST", f"{PURPOSE}/settle", JSON, json.dumps(said).encode())
        assert (settled.status, len(tokens)) == (200, 6_000)
        with short_turns(MAX_TURN_S / 4):
            dead = await ask(port, "GET", f"{PURPOSE}/dead?limit=1")
        assert json.loads(dead.body)["next"] is not None


@on_loop
async def test_messages_of_a_long_frame_are_answered_in_their_order() -> None:
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        count = 5_000
        await made.say(*(wire.Submit(n, b"no batch at all, and as long as it need be") for n in range(1, count + 1)))
        await made.say(wire.Ping())
        assert [(await made.hear(wire.Refused)).ref for _ in range(count)] == list(range(1, count + 1))
        await made.hear(wire.Pong)


@on_short_turns
async def test_a_message_that_lists_too_much_is_refused_before_it_is_read() -> None:
    async with here() as (_, port), talker(port) as made:
        await made.hello()
        await made.join(1, "t", "p")
        with short_turns():
            await made.say(wire.Report(1, 1, list(range(wire.MAX_LISTED + 2))))
            refused = await made.hear(wire.Refused)
        assert (refused.ref, refused.code) == (0, "protocol")
        assert "length <= 131072" in refused.text


# --- bodies -----------------------------------------------------------------------------------------------------

EVENT = b'{"specversion":"1.0","type":"t","source":"s","id":"%d","data":%b}'


def nothing(size: int) -> bytes:
    """Return empty arrays: as objects they take thirty times as much."""
    return b"[" + b"[]," * (size // 3 - 1) + b"[]]"


BODIES = [
    (EVENTS, BATCHED, lambda: nothing(4 << 20), 413),
    (EVENTS, BATCHED, lambda: b"[%b]" % b",".join(EVENT % (n, nothing(900_000)) for n in range(4)), 202),
    (EVENTS, BATCHED, lambda: b"[%b]" % b",".join(EVENT % (n, b"1") for n in range(10_000)), 202),
    (EVENTS, BATCHED, lambda: b"[" + b"1," * 2_000_000 + b"1]", 413),
    (EVENTS, BATCHED, lambda: b"[%b]" % nothing(3 << 20), 413),
    (EVENTS, JSON, lambda: nothing(1 << 20), 202),
    (EVENTS, JSON, lambda: b"[" + (b"[" * 60 + b"]" * 60 + b",") * 8_000 + b"1]", 202),
    (EVENTS, NDJSON, lambda: nothing(1_000_000) + b"\n" + b"1 \n" * 300_000, 202),
    (f"{PURPOSE}/settle", JSON, lambda: b'{"done":%b}' % nothing(4 << 20), 413),
    (f"{PURPOSE}/settle", JSON, lambda: b'{"done":["' + b'","' * 1_000_000 + b'"]}', 413),
    (EVENTS, STRUCTURED, lambda: b"{%b}" % b",".join(b'"a%x":1' % n for n in range(180_000)), 413),
    (f"{PURPOSE}/take", JSON, lambda: b'{"since":"' + b"\\u00e9" * 2_500_000 + b'"}', 413),
    (f"{PURPOSE}/settle", JSON, lambda: b'{"x":[%b]}' % b",".join(b'{"a%x":1.0}' % n for n in range(75_000)), 400),
    (f"{PURPOSE}/webhooks/w", JSON, lambda: nothing(1 << 20), 413),
    (EVENTS, BATCHED, lambda: b'["' + b'\\"' * 4_000_000 + b'"]', 413),
    (EVENTS, JSON, lambda: b"[" + b"1e308," * 170_000 + b"1]", 400),
]
SOME = 2, 6, 8, 10, 13, 15  # of each kind of body, and of each kind of what is in it


@pytest.mark.parametrize(
    ("path", "kind", "body", "status"),
    some([BODIES[number] for number in SOME], BODIES),
    ids=[
        *("arrays as events", "arrays in events", "many events", "many numbers", "one large event"),
        *("a payload of arrays", "a deep payload", "lines", "arrays as tokens", "many tokens"),
        *("many attributes", "a long text", "many numbers that are whole", "a webhook"),
        *("a text of escaped quotes", "many numbers near the largest"),
    ],
)
@on_short_turns
async def test_a_body_within_the_limits_holds_up_nobody(
    path: str, kind: dict[str, str], body: Callable[[], bytes], status: int
) -> None:
    sent = body()
    async with here() as (_, port):
        with short_turns():
            answer = await ask(port, "PUT" if "webhooks" in path else "POST", path, kind, sent)
        assert answer.status == status, answer.body[:300]


@pytest.mark.parametrize("kind", some([NDJSON], [JSON, NDJSON]), ids=["a payload", "lines"])
@on_short_turns
async def test_a_body_of_very_many_chunks_holds_up_nobody(kind: dict[str, str]) -> None:
    async with here() as (_, port):
        chunks = b"2\r\n1\n\r\n" * 60_000 if kind is NDJSON else b"1\r\n \r\n" * 60_000 + b"1\r\n1\r\n"
        with short_turns():
            answer = await ask(port, "POST", EVENTS, kind | {"transfer-encoding": "chunked"}, chunks + b"0\r\n\r\n")
        assert answer.status == 202, answer.body


@pytest.mark.parametrize(
    "text",
    [
        *('"\\ud800"', "1e999", "[-1e+400]", "1" * 5_000, "[1" + "0" * 250 + "e99]", '{"a":1e0400}'),
        f"[{'1' * 200},{'1' * 5_000}]",
    ],
)
@on_loop
async def test_json_that_nobody_can_decode_is_refused_though_its_grammar_is_right(text: str) -> None:
    async with here() as (_, port):
        for kind, body in ((JSON, text), (NDJSON, f"1\n{text}")):
            answer = await ask(port, "POST", EVENTS, kind, body.encode())
            assert (answer.status, answer.code) == (400, "bad-payload")
        data = EVENT % (1, text.encode())
        answer = await ask(port, "POST", EVENTS, BATCHED, b"[%b]" % data)
        assert (answer.status, answer.code) == (400, "bad-payload")
        within = json.dumps([f"see 1e999 and {'1' * 400}"]).encode()
        assert (await ask(port, "POST", EVENTS, JSON, within)).status == 202


# --- answers ----------------------------------------------------------------------------------------------------


@pytest.mark.long
@on_short_turns
async def test_an_answer_of_many_things_holds_up_nobody() -> None:
    async with here() as (server, port):
        async with talker(port) as made:
            await made.hello()
            for start in range(0, 3_000, 1_000):
                ref = made.ref
                await made.say(*(join_of(ref, n, "t", f"p{n}") for n in range(start, start + 1_000)))
            known = server.host._connections
            await until(
                lambda: sum(bool(each.instance) for c in known for each in c._instances.values()) == 3_000,
                "all have joined",
            )
            for path in ("/v1/statistics", "/v1/purposes", "/metrics"):
                with short_turns():
                    answer = await ask(port, "GET", path)
                assert answer.status == 200
                assert answer.body.count(b'"p2999"') >= 1, path


@on_loop
async def test_a_take_of_very_much_gives_back_what_makes_its_answer_too_long() -> None:
    async with here() as (server, port):
        async with peer(port) as made:
            assert (await made.ask("POST", f"{PURPOSE}/take", JSON, b"{}")).status == 200
            for _ in range(12):
                await server.wind.fire("t", b"x" * 1_000_000)
            counts: list[int] = []
            while sum(counts) < 12:
                answer = await made.ask("POST", f"{PURPOSE}/take", JSON, b'{"max":1000,"wait":60}')
                tokens = [each["token"] for each in msgspec.json.decode(answer.body)["events"]]
                assert tokens
                counts.append(len(tokens))
                done = json.dumps({"done": tokens}).encode()
                assert (await made.ask("POST", f"{PURPOSE}/settle", JSON, done)).status == 200
        assert counts[0] == 8
        assert sum(counts) == 12
