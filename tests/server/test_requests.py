"""Requests as RFC 9112 has them, slow ones, and many at once."""

from __future__ import annotations

import asyncio
import json
from contextlib import AsyncExitStack
from typing import Any

import pytest

from leaping import leap
from solarwind.server import Settings
from solarwind.server.listener import Listener
from solarwind.testing.contract import a_while, on_loop, until

from .peers import Answer, ask, handshake, peer, request
from .place import Host
from .resident import least_growth, resident
from .test_time_slices import here

EVENTS = "/v1/topics/t/events"
JSON = {"content-type": "application/json"}
BIG = b'{"specversion":"1.0","type":"t","source":"s","id":"1","datacontenttype":%b,"data":"x"}'
CLOUDEVENT = {"content-type": "application/cloudevents+json"}


# --- CloudEvents ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "content", ["text/plain\n", "text/plain\r\nx: y", "a/b \n;c=d", "text/plain\t\x0b", "a/b;\x7f"]
)
@on_loop
async def test_a_content_type_with_a_control_character_is_refused(content: str) -> None:
    async with here() as (_, port):
        body = BIG % json.dumps(content).encode()
        answer = await ask(port, "POST", EVENTS, CLOUDEVENT, body)
        assert (answer.status, answer.code) == (400, "bad-argument")
        assert "expected a datacontenttype" in answer.problem["detail"]
        batched = {"content-type": "application/cloudevents-batch+json"}
        assert (await ask(port, "POST", EVENTS, batched, b"[%b]" % body)).status == 400


# --- targets and framing ----------------------------------------------------------------------------------------


@on_loop
async def test_a_target_that_is_a_whole_url_is_taken_and_says_the_host() -> None:
    async with here() as (_, port):
        for target in (
            f"http://localhost:{port}/healthz",
            "HTTP://localhost/healthz",
            f"http://127.0.0.1:{port}/healthz",
        ):
            answer = await ask(port, "GET", target, {"host": "elsewhere.example.com"})
            assert (answer.status, answer.body) == (200, b'{"status":"alive"}'), target
        assert (await ask(port, "GET", "http://localhost")).status == 404
        assert (await ask(port, "GET", "http://localhost?x")).status == 404
        answer = await ask(port, "GET", "http://elsewhere.example.com/healthz", {"host": "localhost"})
        assert (answer.status, answer.code) == (403, "not-allowed")
        for target in ("http://user:secret@localhost/healthz", "ftp://localhost/healthz", "healthz"):
            answer = await ask(port, "GET", target)
            assert (answer.status, answer.code) == (400, "protocol"), target
            assert "secret" not in answer.problem["detail"]
        async with peer(port) as made:
            await made.send(handshake(f"http://localhost:{port}/v1/connect", {}))
            assert await made.status() == 101


@on_loop
async def test_a_body_with_two_lengths_is_refused() -> None:
    async with here() as (_, port), peer(port) as made:
        head = request("POST", EVENTS, JSON | {"transfer-encoding": "chunked"}).replace(
            b"\r\n\r\n", b"\r\ncontent-length: 1\r\n\r\n"
        )
        await made.send(head + b"1\r\n1\r\n0\r\n\r\n")
        answer = await made.answer()
        assert (answer.status, answer.code) == (400, "protocol")
        assert "expected Content-Length or Transfer-Encoding, got both" in answer.problem["detail"]
        assert await made.read() == b""


@on_loop
async def test_the_handshake_of_a_websocket_has_no_body() -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(handshake("/v1/connect", {"content-length": "3"}) + b"abc")
        answer = await made.answer()
        assert (answer.status, answer.code) == (400, "protocol")
        assert "which has no body" in answer.problem["detail"]


@on_loop
async def test_a_version_of_http_that_is_not_spoken_here_is_refused() -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(request("GET", "/healthz").replace(b"HTTP/1.1", b"HTTP/2.0"))
        answer = await made.answer()
        assert (answer.status, answer.code) == (505, "protocol")


@on_loop
async def test_requests_that_come_before_their_answers_are_answered_in_their_order() -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(b"".join(request("GET", path) for path in ("/healthz", "/nowhere", "/readyz") * 20))
        assert [(await made.answer()).status for _ in range(60)] == [200, 404, 200] * 20


HEALTH = request("GET", "/healthz")
BODY = b"POST /v1/topics/t/events HTTP/1.1\r\nhost: localhost\r\n"


@pytest.mark.parametrize("parts", [[b"\r\n"], [b"\r\n\r\n"], [b"\r", b"\n"]], ids=["one", "two", "in two packets"])
@on_loop
async def test_empty_lines_before_a_request_are_passed_over(parts: list[bytes]) -> None:
    async with here() as (_, port), peer(port) as made:
        for _ in range(3):
            for part in parts:
                await made.send(part)
            await made.send(HEALTH)
            assert (await made.answer()).status == 200


@on_loop
async def test_an_empty_line_behind_a_body_is_passed_over_before_the_next_request() -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(request("POST", EVENTS, JSON, b"1") + b"\r\n" + HEALTH + b"\r\n" + HEALTH)
        assert [(await made.answer()).status for _ in range(3)] == [202, 200, 200]


@on_loop
async def test_empty_lines_without_end_are_refused() -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(b"\r\n" * 100)
        answer = await made.answer()
        assert (answer.status, answer.code) == (400, "protocol")
        assert "request line" in answer.problem["detail"]


@pytest.mark.parametrize(
    ("sent", "status", "expected"),
    [
        (b"secret\r\n\r\n", 400, "a request line such as GET /healthz HTTP/1.1"),
        (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "a Host header"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nhost: secret\r\n\r\n", 400, "one Host header"),
        (b"GET /healthz HTTP/1.1\r\nhost: a\r\nsecret\r\n\r\n", 400, "headers of the form name: value"),
        (b"GET /healthz HTTP/1.1\r\nhost : a, target: secret\r\n\r\n", 400, "headers of the form name: value"),
        (BODY + b"content-length: secret\r\n\r\n", 400, "one Content-Length"),
        (BODY + b"content-length: 1, 2\r\n\r\n", 400, "one Content-Length"),
        (BODY + b"transfer-encoding: secret\r\n\r\n", 501, "Transfer-Encoding: chunked"),
        (BODY + b"transfer-encoding: chunked\r\n\r\nsecret\r\n", 400, "a chunk that is"),
        (BODY + b"transfer-encoding: chunked\r\n\r\n1\r\nsecret\r\n", 400, "a chunk that is"),
        (b"GET /healthz HTTP/1.0\r\n\r\n", 403, "a Host header with one of 127.0.0.1, ::1, localhost"),
    ],
)
@on_loop
async def test_a_refused_request_is_told_what_is_wrong_with_it(sent: bytes, status: int, expected: str) -> None:
    async with here() as (_, port), peer(port) as made:
        await made.send(sent)
        answer = await made.answer()
        assert answer.status == status
        assert answer.problem["detail"].startswith(f"expected {expected}")
        assert "secret" not in answer.problem["detail"]


@pytest.mark.parametrize("host", ["127.0.0.2", "::1", "[::1]", "localhost", "0.0.0.0"])
@on_loop
async def test_a_server_answers_to_the_address_it_was_reached_at(host: str) -> None:
    from solarwind.server import Server

    server = Server("memory://", settings=Settings())
    listener = Listener(server, host=host, port=0, grace=1.0)
    await server.start()
    await listener.start()
    to = {"[::1]": "::1", "0.0.0.0": "127.0.0.3"}.get(host, host)
    named = f"[{to}]" if ":" in to else to
    try:
        for said, status in ((named, 200), ("127.0.0.77", 403), ("rebound.example.com", 403)):
            for path, upgrade in (("/healthz", False), ("/v1/connect", True)):
                reader, writer = await asyncio.open_connection(to, listener.port)
                try:
                    headers = {"host": f"{said}:{listener.port}"}
                    writer.write(handshake(path, headers) if upgrade else request("GET", path, headers))
                    line = await reader.readline()
                    assert int(line.split()[1]) == (101 if upgrade and status == 200 else status), (said, path)
                finally:
                    writer.transport.abort()
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


# --- slow, and many ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["application/json", "application/x-ndjson"])
@on_loop
async def test_a_body_that_comes_byte_by_byte_ends_in_time(kind: str) -> None:
    async with here(idle_s=20, authenticate_s=30, body_rate=500) as (_, port), peer(port) as made:
        await made.send(request("POST", EVENTS, {"content-type": kind, "content-length": "100000"}))
        ended = asyncio.ensure_future(made.read())
        passed = 0
        while not ended.done():
            await made.send(b"1")
            await a_while()
            leap(5)
            passed += 5
        assert passed <= 60


@on_loop
async def test_lines_that_come_one_by_one_go_on() -> None:
    async with here(idle_s=20, body_rate=500) as (_, port), peer(port) as made:
        await made.send(request("POST", EVENTS, {"content-type": "application/x-ndjson", "content-length": "20"}))
        for _ in range(10):
            await made.send(b"1\n")
            await a_while()
            leap(5)
        answer = await made.answer()
        assert (answer.status, json.loads(answer.body)["accepted"]) == (202, 10)


@pytest.mark.long
@on_loop
async def test_all_bodies_together_have_an_end_and_what_they_took_is_given_back(own_host: Host) -> None:
    port = own_host.start("memory://", bodies_bytes=64 << 20, authenticate_s=5.0)
    before = resident(own_host.pid)
    try:
        async with AsyncExitStack() as stack:
            made = [await stack.enter_async_context(peer(port)) for _ in range(12)]
            batched = {"content-type": "application/cloudevents-batch+json", "content-length": "16000000"}
            head = request("POST", EVENTS, batched)
            busy: list[Answer] = []

            async def send(each: Any) -> None:
                await each.send(head)
                for _ in range(250):
                    await each.send(b" " * 60_000)

            sending = [asyncio.ensure_future(send(each)) for each in made]
            answers = [asyncio.ensure_future(each.next_answer()) for each in made]

            def has_answer() -> bool:
                busy[:] = [answer for each in answers if each.done() and (answer := each.result()) is not None]
                return bool(busy)

            await until(has_answer, "one to be refused")
            assert {(each.status, each.code) for each in busy} == {(429, "busy")}
            assert resident(own_host.pid) - before < 160 << 20
            for each in (*sending, *answers):
                each.cancel()

        async def is_given_back() -> bool:
            """Three of them have room again."""
            body = b" " * 15_000_000 + b'[{"specversion": "1.0", "id": "1", "source": "s", "type": "t"}]'
            kind = {"content-type": "application/cloudevents-batch+json"}
            answers = await asyncio.gather(*(ask(port, "POST", EVENTS, kind, body) for _ in range(3)))
            return {each.status for each in answers} == {202}

        await until(is_given_back, "what they took is given back")
    finally:
        own_host.stop(port)


@pytest.mark.long
@on_loop
async def test_answers_that_are_not_read_are_not_made_by_the_dozen(own_host: Host) -> None:
    """Of a document that anybody may ask for."""
    port = own_host.start("memory://")
    try:
        async with AsyncExitStack() as stack:
            await ask(port, "GET", "/openapi.json")

            async def ask_and_do_not_read() -> None:
                made = [await stack.enter_async_context(peer(port)) for _ in range(100)]
                for each in made:
                    await each.send(request("GET", "/openapi.json") * 100)
                assert (await ask(port, "GET", "/healthz")).status == 200

            most = 100 * (64 << 10)
            assert await least_growth(own_host.pid, ask_and_do_not_read, most) < most
    finally:
        own_host.stop(port)
