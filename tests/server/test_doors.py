"""What is the same at all HTTP doors: paths, methods, parameters, problems, and an app that they are mounted in."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from typing import Any

import fastapi
import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Mount

from solarwind import SolarWind
from solarwind.server import app
from solarwind.testing.contract import on_loop

from .doors import BYTES, JSON, PROBLEM, at, check_problem, mounted, say
from .place import Host


@pytest.fixture(scope="module")
def port(host: Host) -> Iterator[int]:
    port = host.start("memory://")
    yield port
    host.stop(port)


# Paths ---------------------------------------------------------------------------------------------------

PURPOSES = [
    "Encode video to MP4",
    "a/b//c/",
    "100% sure? #1 & more; done=yes",
    "käse \u4e2d\u6587 🌞",
    "take",
    "..",
    "%2F",
    "+",
    "~'()*!$,:@[]",
]


@pytest.mark.parametrize("purpose", PURPOSES)
@on_loop
async def test_a_purpose_in_a_path_may_have_any_character(port: int, purpose: str) -> None:
    async with at(port) as doors:
        path = doors.purpose(purpose)
        encoded = path.replace("..", "%2E%2E")
        await doors.ask("POST", f"{encoded}/take")
        assert (await doors.ask("GET", encoded))["purpose"] == purpose
        assert (await doors.ask("GET", f"{encoded}/dead"))["dead"] == []
        assert await doors.ask("DELETE", encoded, status=204) is None


@on_loop
async def test_a_name_that_is_none_is_refused_and_told_what_one_is(port: int) -> None:
    async with at(port) as doors:
        for path, word in (
            ("/v1/topics/a%2Fb", "a topic"),
            ("/v1/topics/a..b", "a topic"),
            (f"/v1/topics/{'a' * 201}", "a topic"),
            ("/v1/topics/%C3%BC", "a topic"),
            ("/v1/topics/%FF", "UTF-8"),
            ("/v1/topics/T/purposes/%FF", "UTF-8"),
            ("/v1/topics/T/purposes/%20p", "a purpose"),
            (f"/v1/topics/T/purposes/{'%C3%BC' * 201}", "a purpose"),
            ("/v1/topics/T/purposes/a%00b", "a purpose"),
            ("/v1/trace/%0A", "an event id"),
            ("/v1/purposes?topic=a%20b", "a topic"),
            ("/v1/topics/T/feed?purpose=", "a purpose"),
        ):
            await doors.refused(doors.http.get(path), 400, "bad-name", "expected", word)


NOWHERE = [
    *("/", "/v1", "/v1/", "/v2/topics", "/healthz/", "/v1/topics/", "//healthz", "/V1/topics", "/v1/topics/T/"),
    *(
        "/v1/topics/T/events/",
        "/v1/topics/T/purposes",
        "/v1/topics/T/purposes/",
        "/v1/topics//purposes/p",
        "/metrics/x",
    ),
]


@pytest.mark.parametrize("path", NOWHERE)
@on_loop
async def test_another_path_leads_nowhere(port: int, path: str) -> None:
    async with at(port) as doors:
        for method in ("GET", "POST", "OPTIONS", "BREW"):
            await doors.refused(doors.http.request(method, path), 404, "not-found", "/openapi.json")


@on_loop
async def test_parameters_are_those_that_are_known_each_once(port: int) -> None:
    async with at(port) as doors:
        for path in ("/healthz?x=1", "/v1/topics?a", "/v1/purposes?topics=T", "/v1/purposes?topic=T&topic=T"):
            await doors.refused(doors.http.get(path), 400, "bad-argument", "expected")
        await doors.refused(doors.http.get("/v1/purposes?topic=%FF"), 400, "bad-argument", "UTF-8")
        await doors.refused(doors.send(b"1", ids="x"), 400, "bad-argument", "'ids'")
        await doors.refused(doors.http.get("/v1/topics/T/feed"), 400, "bad-argument", "parameter purpose")
        assert (await doors.http.get("/v1/purposes?")).status_code == 200


# Methods -------------------------------------------------------------------------------------------------


@on_loop
async def test_another_method_is_told_which_there_are(port: int) -> None:
    async with at(port) as doors:
        for method, path, allow in (
            ("POST", "/v1/statistics", "GET, HEAD, OPTIONS"),
            ("DELETE", "/v1/topics/T/events", "GET, HEAD, OPTIONS, POST"),
            ("GET", "/v1/topics/T/purposes/p/take", "OPTIONS, POST"),
            ("HEAD", "/v1/topics/T/purposes/p/take", "OPTIONS, POST"),
            ("PATCH", "/v1/topics/T/purposes/p", "DELETE, GET, HEAD, OPTIONS"),
            ("HEAD", "/v1/topics/T/feed", "GET, OPTIONS"),
            ("BREW", "/healthz", "GET, HEAD, OPTIONS"),
        ):
            answer = await doors.http.request(method, path)
            assert (answer.status_code, answer.headers["allow"]) == (405, allow)
            if method != "HEAD":
                assert check_problem(answer)["code"] == "method-not-allowed"
            asked = await doors.http.options(path)
            assert (asked.status_code, asked.headers["allow"], asked.content) == (204, allow, b"")


@on_loop
async def test_head_is_get_without_what_it_gives(port: int) -> None:
    async with at(port) as doors:
        for path in ("/healthz", "/v1/topics", "/openapi.json", "/metrics", "/v1/topics/nowhere"):
            got, head = await doors.http.get(path), await doors.http.head(path)
            assert (head.status_code, head.headers["content-type"]) == (got.status_code, got.headers["content-type"])
            assert head.content == b""
            assert int(head.headers["content-length"]) > 0


@on_loop
async def test_where_the_websocket_is_a_request_is_told_so(port: int) -> None:
    async with at(port) as doors:
        answer = await doors.http.get("/v1/connect")
        assert (answer.status_code, answer.headers["upgrade"]) == (426, "websocket")
        assert "solarwind.v1" in check_problem(answer)["detail"]


# Answers -------------------------------------------------------------------------------------------------


@on_loop
async def test_no_answer_is_kept_by_a_cache_or_taken_for_another_type(port: int) -> None:
    async with at(port) as doors:
        for path in ("/healthz", "/v1/statistics", "/nowhere", "/metrics"):
            headers = (await doors.http.get(path)).headers
            assert (headers["cache-control"], headers["x-content-type-options"]) == ("no-store", "nosniff")
            assert "server" not in headers


@on_loop
async def test_a_body_that_should_be_json_must_say_so(port: int) -> None:
    async with at(port) as doors:
        path = f"/v1/topics/{doors.topic}"
        for kind in ("text/plain", "", "application/jsonp"):
            work = doors.http.put(path, content=b"{}", headers={"content-type": kind})
            await doors.refused(work, 415, "unsupported-media-type", JSON)
        for body, code in (
            (b"", "bad-payload"),
            (b"{", "bad-payload"),
            (b"[1]", "bad-payload"),
            (b"\xff", "bad-payload"),
        ):
            work = doors.http.put(path, content=body, headers={"content-type": JSON})
            await doors.refused(work, 400, code, "expected")
        deep = b'{"keep":' + b"[" * 100 + b"]" * 100 + b"}"
        await doors.refused(doors.http.put(path, content=deep, headers={"content-type": JSON}), 413, "too-large")
        assert (await doors.http.put(path)).status_code == 200


FAULTS: list[tuple[str, str, Any, str]] = [
    ("POST", "take", {"max": 0}, "expected int >= 1, got 0 at $.max"),
    ("POST", "take", {"wait": 61}, "expected float <= 60.0, got 61 at $.wait"),
    ("POST", "take", {"lease": -1}, "expected float > 0.0, got -1 at $.lease"),
    ("POST", "take", {"key_missing": "no"}, "expected one of 'handle', 'reject', got 'no' at $.key_missing"),
    ("POST", "take", {"retry": {"attempt": 1}}, "attempts, ceiling, factor, wait, got 'attempt' at $.retry"),
    ("POST", "take", {"since": 1}, "expected str, got int at $.since"),
    ("POST", "take", {"rollout": "soon"}, "expected rollout 'newest', 'hold', 'shadow' or a share"),
    ("POST", "take", {"rollout": 1.5}, "expected a rollout with a share from 0 to 1, such as 0.1"),
    ("PUT", "webhooks/w", {"url": "http://x/", "rollout": "soon"}, "'newest', 'hold', 'shadow' or a share"),
    ("POST", "settle", {"later": [{"token": "a", "after": -1}]}, "expected float >= 0.0, got -1 at $.later[0].after"),
    ("POST", "settle", {"done": [], "finished": []}, "done, failed, later, reject, renew, got 'finished' at $"),
    ("POST", "settle", {"reject": [{"tokn": "a"}]}, "reason, token, got 'tokn' at $.reject[0]"),
    ("POST", "replay", {"until": "x"}, "expected until now, beginning, a time such as"),
    ("POST", "rollout/rollback", {"version": 1}, 'expected no body, got b\'{"version"'),
    ("POST", "pause", {"until": "1h"}, 'expected no body, got b\'{"until"'),
    ("GET", "dead?limit=0", None, "expected int >= 1, got '0' as parameter 'limit'"),
    ("GET", "dead?limit=x", None, "expected int, got 'x' as parameter 'limit'"),
    ("GET", "dead?page=2", None, "expected only parameters that are known here, after, limit, got 'page'"),
    ("PUT", "webhooks/w", {"url": "http://x/", "mode": "x"}, "expected one of 'binary', 'structured', got 'x'"),
    ("PUT", "webhooks/w", {"url": "x"}, "with http or https, got none as its scheme"),
]


@pytest.mark.parametrize(("method", "path", "body", "said"), FAULTS, ids=[f"{each[1]} {each[2]}" for each in FAULTS])
@on_loop
async def test_a_fault_is_told_what_was_expected_what_came_and_where(
    port: int, method: str, path: str, body: Any, said: str
) -> None:
    async with at(port) as doors:
        answer = await doors.http.request(method, f"{doors.purpose('p')}/{path}", json=body)
        problem = check_problem(answer)
        assert (answer.status_code, problem["code"]) == (400, "bad-argument")
        assert said in problem["detail"]


HEAD = b"POST /v1/topics/T/events HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
NO_REQUESTS = {
    "no http": (b"nonsense\r\n\r\n", 400, "protocol"),
    "no host": (b"GET /healthz HTTP/1.1\r\n\r\n", 400, "protocol"),
    "an invalid header": (b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nno header\r\n\r\n", 400, "protocol"),
    "too many headers": (
        b"GET /healthz HTTP/1.1\r\nHost: localhost\r\nx: " + b"y" * 20_000 + b"\r\n\r\n",
        431,
        "too-large",
    ),
    "an invalid length": (HEAD + b"Content-Length: many\r\n\r\n", 400, "protocol"),
    "two lengths": (HEAD + b"Content-Length: 1\r\nContent-Length: 2\r\n\r\n", 400, "protocol"),
    "another coding": (HEAD + b"Transfer-Encoding: gzip\r\n\r\n", 501, "protocol"),
    "a path with a byte that may not be": (b"GET /\xff HTTP/1.1\r\nHost: localhost\r\n\r\n", 400, "protocol"),
}


@pytest.mark.parametrize("name", NO_REQUESTS)
@on_loop
async def test_what_is_no_request_is_answered_with_a_problem_too(port: int, name: str) -> None:
    data, status, code = NO_REQUESTS[name]
    answer = await say(port, data)
    problem = check_problem(answer)
    assert (answer.status_code, problem["code"]) == (status, code)
    assert answer.headers["connection"] == "close"


@on_loop
async def test_chunks_that_are_none_end_the_request_and_nothing_is_accepted(port: int) -> None:
    async with at(port) as doors:
        head = f"POST {doors.events} HTTP/1.1\r\nHost: localhost\r\nContent-Type: {BYTES}\r\n".encode()
        answer = await say(port, head + b"Transfer-Encoding: chunked\r\n\r\nzz\r\nx\r\n0\r\n\r\n")
        assert (answer.status_code, check_problem(answer)["code"]) == (400, "protocol")
        await doors.ask("GET", f"/v1/topics/{doors.topic}", status=404)


@on_loop
async def test_who_waits_to_be_told_to_send_is_told_yes_or_no(port: int) -> None:
    """curl waits for that with bodies above a megabyte."""
    for length, first in ((1_000, b"100"), (2 << 20, b"413")):
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        head = HEAD.replace(JSON.encode(), BYTES.encode()) + b"Expect: 100-continue\r\n"
        writer.write(head + b"Content-Length: %d\r\n\r\n" % length)
        answer = await reader.readuntil(b"\r\n\r\n")
        assert answer.split()[1] == first
        if first == b"100":
            writer.write(b"x" * length)
            answer = await reader.readuntil(b"\r\n\r\n")
            assert answer.split()[1] == b"202"
        else:
            assert b"connection: close" in answer
            assert PROBLEM.encode() in answer
            await reader.read()  # which ends
        writer.close()


@on_loop
async def test_a_connection_goes_on_after_a_refusal_and_requests_may_come_together(port: int) -> None:
    one = HEAD + b"Content-Length: 2\r\n\r\n"
    last = b"GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(one + b"12" + one + b"x}" + b"GET /nowhere HTTP/1.1\r\nHost: localhost\r\n\r\n" + one + b"34" + last)
    answers = await reader.read()
    writer.close()
    assert re.findall(rb"HTTP/1.1 (\d+)", answers) == [b"202", b"400", b"404", b"202", b"200"]


@on_loop
async def test_a_refusal_is_read_also_by_who_sends_more_than_is_read(port: int) -> None:
    """Up to a point: then the connection ends."""
    async with at(port) as doors:
        await doors.refused(doors.send(b"x" * (4 << 20)), 413, "too-large")
        await doors.refused(doors.send(b"x" * (4 << 20), "text/plain"), 415, "unsupported-media-type")
        assert await doors.ask("GET", "/healthz") == {"status": "alive"}
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD + b"Content-Length: %d\r\n\r\n" % (1 << 40))
        with pytest.raises(ConnectionError):
            await send_on(writer)
        writer.close()


async def send_on(writer: asyncio.StreamWriter) -> None:
    while True:
        writer.write(b"x" * (1 << 16))
        await writer.drain()


@on_loop
async def test_a_client_of_http_1_0_is_answered(port: int) -> None:
    answer = await say(port, b"GET /healthz HTTP/1.0\r\nHost: localhost\r\n\r\n")
    assert (answer.status_code, answer.json()) == (200, {"status": "alive"})


# Mounted -------------------------------------------------------------------------------------------------


def in_fastapi() -> Any:
    doors = app("memory://")
    outer = fastapi.FastAPI(lifespan=doors.lifespan)

    @outer.get("/own")
    def own() -> str:
        return "the outer app's own"

    outer.mount("/deep/events here", doors)
    return outer


def in_starlette() -> Any:
    doors = app("memory://")
    return Starlette(routes=[Mount("/deep/events here", doors)], lifespan=doors.lifespan)


@pytest.mark.parametrize("make", [in_fastapi, in_starlette])
@on_loop
async def test_all_endpoints_work_where_the_app_is_mounted(make: Any) -> None:
    async with mounted(make()) as port, at(port, "/deep/events%20here") as doors:
        purpose = "a/b 100% ü"
        assert await doors.take(purpose) == []
        await doors.fire(b'{"n":1}')
        (event,) = await doors.take(purpose)
        await doors.settle([event], purpose=purpose)
        counts = await doors.ask("GET", doors.purpose(purpose))
        assert (event["data"], counts["purpose"], counts["settled"]) == ({"n": 1}, purpose, 1)
        assert await doors.ask("GET", "/readyz") == {"status": "ready"}
        await doors.refused(doors.http.get("/nowhere"), 404, "not-found")
        await doors.refused(doors.http.get("/v1/topics/T/"), 404, "not-found")
        described = await doors.ask("GET", "/openapi.json")
        (server,) = described["servers"]
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}{server['url']}") as found:
            assert (await found.get("/v1/topics")).status_code == 200
        async with at(port) as outside:
            assert (await outside.http.get("/v1/topics")).status_code == 404
            assert (await outside.http.get("/healthz")).status_code == 404


@on_loop
async def test_a_fastapi_app_fires_on_the_solarwind_that_its_doors_serve() -> None:
    wind = SolarWind("memory://")
    doors_app = app(wind)

    @asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with wind, doors_app.lifespan():
            yield

    outer = fastapi.FastAPI(lifespan=lifespan)
    outer.mount("/events", doors_app)

    @outer.post("/orders/{number}")
    async def order(number: int) -> str:
        return await wind.fire("orders", {"number": number})

    async with mounted(outer) as port, at(port, "/events") as doors:
        doors.topic = "orders"
        await doors.take("p")
        async with at(port) as outside:
            id = (await outside.http.post("/orders/7")).json()
        (event,) = await doors.take("p")
        assert (event["id"], event["data"]) == (id, {"number": 7})
