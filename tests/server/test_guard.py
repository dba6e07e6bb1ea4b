"""Which requests may come in at all: no web page drives a server that it has no business with."""

from __future__ import annotations

import asyncio
import ipaddress
import json
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from solarwind.errors import BadArgument, NotAllowed
from solarwind.logs import limited
from solarwind.server import Server
from solarwind.server.access import Access, create_token
from solarwind.server.guard import Guard, read_host, read_origin
from solarwind.server.http import ENDPOINTS
from solarwind.testing.contract import on_loop, until

from .browser import CHROMIUM, chromium
from .doors import served
from .mounted import ROOT
from .peers import Mounted, ask, handshake, peer, talker
from .place import Host
from .webhooks.place import served as served_by_uvicorn

PAGE = "https://shop.example"  # of an origin that is allowed
FOREIGN = "https://evil.example"
OPEN = Access()


def passes(guard: Guard, scheme: str = "http", **headers: str | None) -> bool:
    said = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items() if value is not None]
    try:
        guard.check(scheme, said)
    except NotAllowed:
        return False
    return True


# --- Host -------------------------------------------------------------------------------------------------------

LOOPBACKS = ["localhost", "LocalHost", "localhost.", "127.0.0.1", "[::1]", "[0:0:0:0:0:0:0:1]", "[::0001]"]
FOREIGN_HOSTS = [
    *("evil.example", "localhost.evil.example", "evil.localhost", "127.0.0.1.evil.example", "127.0.0.2", "127.1"),
    *(
        "2130706433",
        "0x7f.0.0.1",
        "0.0.0.0",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[fe80::1]",
        "192.168.0.1",
        "localhost..",
        ".",
    ),
    *(
        "",
        " ",
        "localhost@evil.example",
        "evil.example@localhost",
        "localhost#evil.example",
        "localhost/",
        "localhost:",
    ),
    *("localhost:x", "localhost:80:80", "localhost:123456", "localhost,evil.example", "localhost evil.example", "[::1"),
    *("::1", "[::1]x", "[localhost]", "löcalhost", "localhost\x00", "http://localhost"),
]


@pytest.mark.parametrize("port", ["", ":7400", ":1"])
@pytest.mark.parametrize("host", LOOPBACKS)
def test_a_server_that_is_open_answers_to_the_names_of_loopback(host: str, port: str) -> None:
    assert passes(Guard(OPEN), host=host + port)


@pytest.mark.parametrize("host", FOREIGN_HOSTS)
def test_a_server_that_is_open_answers_to_no_other_host_name(host: str) -> None:
    assert not passes(Guard(OPEN), host=host)
    assert not passes(Guard(OPEN), host=None)


NAMES = st.from_regex(r"[a-z0-9.:\[\]%@/-]{1,20}", fullmatch=True) | st.sampled_from([*LOOPBACKS, *FOREIGN_HOSTS])


@given(NAMES, st.sampled_from(["", ":7400"]))
def test_whatever_passes_is_loopback_for_a_parser_of_urls_too(name: str, port: str) -> None:
    if passes(Guard(OPEN), host=name + port):
        host = (urlsplit(f"http://{name}{port}/").hostname or "").removesuffix(".")
        assert host in ("localhost", "127.0.0.1") or int(ipaddress.IPv6Address(host)) == 1


def test_names_that_are_stated_are_the_only_ones() -> None:
    guard = Guard(OPEN, ["Events.Example.com", "2001:DB8::1", "[2001:db8:0::2]"])
    for good in ("events.example.com", "EVENTS.example.com.:443", "[2001:db8::1]:7400", "[2001:db8::2]"):
        assert passes(guard, host=good)
    for bad in ("localhost", "127.0.0.1", "example.com", "x.events.example.com", "2001:db8::1", None):
        assert not passes(guard, host=bad)
    assert passes(Guard(OPEN, ["*"]), host="anything")
    assert passes(Guard(OPEN, ["*"]), host=None)


def test_where_tokens_are_needed_any_name_will_do_unless_some_are_stated(tmp_path: Path) -> None:
    """A page that the name was rebound for has no token."""
    access = Access(str(tmp_path / "tokens"), required=False)
    assert not passes(Guard(access), host="events.example.com")
    create_token(str(tmp_path / "tokens"), "shop", admin=True)
    assert passes(Guard(access), host="events.example.com")
    assert passes(Guard(access), host=None)
    assert not passes(Guard(access, ["localhost"]), host="events.example.com")


@pytest.mark.parametrize(
    "name", ["", "a b", "example.com:443", "[::1]:80", "http://example.com", "exämple.com", "[::", "::x"]
)
def test_a_name_that_is_none_cannot_be_stated(name: str) -> None:
    with pytest.raises(BadArgument, match="expected a host's name without a port"):
        read_host(name)


# --- Origin -----------------------------------------------------------------------------------------------------

ORIGINS = [
    *("http://localhost:7400", "http://localhost", "https://localhost:7400", "http://127.0.0.1:7400"),
    *("http://localhost:7401", "http://LOCALHOST:7400", "http://localhost.:7400", "https://shop.example"),
    *("https://shop.example:443", "http://shop.example", "https://shop.example:444", "https://x.shop.example"),
    *("https://shop.example.evil.example", "https://evil.example", "null", "", "file://", "*", "localhost:7400"),
    *("http://localhost:7400/", "http://localhost:7400?", "chrome-extension://abc", "https://shop.example https://x"),
]


@given(st.sampled_from(ORIGINS), st.sampled_from(["localhost:7400", "localhost", "127.0.0.1:7400"]), st.booleans())
def test_a_page_may_come_from_the_server_itself_or_an_origin_that_is_allowed(
    origin: str, host: str, secure: bool
) -> None:
    scheme = "https" if secure else "http"
    own = urlsplit(f"{scheme}://{host}")
    page = urlsplit(origin)
    ports = {"http": 80, "https": 443}
    whole = page.scheme in ports and origin == f"{page.scheme}://{page.netloc}" and " " not in origin
    same = whole and (page.scheme, str(page.hostname).rstrip("."), page.port or ports[page.scheme]) == (
        own.scheme,
        own.hostname,
        own.port or ports[own.scheme],
    )
    allowed = whole and (page.scheme, page.hostname, page.port or 443) == ("https", "shop.example", 443)
    for asked in (scheme, "wss" if secure else "ws"):
        assert passes(Guard(OPEN, origins=[PAGE]), asked, host=host, origin=origin) == (same or allowed)
        assert passes(Guard(OPEN), asked, host=host, origin=origin) == same


@pytest.mark.parametrize(
    ("origin", "does"),
    [
        ("https://shop.example:8443", "serve with --origin https://shop.example:8443, in an app with origins=["),
        ("null", "serve the page by http or https"),
        ("moz-extension://1", "serve the page by http or https"),
    ],
)
@on_loop
async def test_a_page_that_is_refused_is_told_what_to_do_and_so_is_the_log(
    origin: str, does: str, caplog: pytest.LogCaptureFixture
) -> None:
    limited.flush()
    async with served(Server("memory://")) as port, peer(port) as made:
        wanted = {"origin": origin, "access-control-request-method": "POST"}
        for method, headers in (("GET", {"origin": origin}), ("OPTIONS", wanted)):
            answer = await made.ask(method, "/v1/topics", headers)
            assert (answer.status, answer.code) == (403, "not-allowed")
            assert f"got one from '{origin}': " in answer.problem["detail"]
            assert does in answer.problem["detail"]
    line = next(record.message for record in caplog.records if "a page from" in record.message)
    assert line.startswith(f"a page from '{origin}' was refused: ")
    assert does in line


@pytest.mark.parametrize(
    ("site", "may"), [("cross-site", False), ("same-site", False), ("same-origin", True), ("none", True), (None, True)]
)
def test_a_request_without_origin_is_looked_at_for_where_it_is_from(site: str | None, may: bool) -> None:
    """A picture, a link and a style sheet come without. What is no browser says nothing at all."""
    assert passes(Guard(OPEN), host="localhost", sec_fetch_site=site) == may
    assert passes(Guard(OPEN, origins=[PAGE]), host="localhost", sec_fetch_site=site, origin=PAGE)


@pytest.mark.parametrize("name", [b"host", b"origin", b"sec-fetch-site"])
def test_a_header_that_counts_is_there_once(name: bytes) -> None:
    headers = [(b"host", b"localhost"), (name, b"localhost"), (name, b"localhost")]
    with pytest.raises(NotAllowed, match=r"expected one [\w-]+ header, got [23]"):
        Guard(OPEN).check("http", headers)


@pytest.mark.parametrize("origin", ["", "null", "*", "shop.example", "https://shop.example/", "ftp://shop.example"])
def test_an_origin_that_is_none_cannot_be_allowed(origin: str) -> None:
    with pytest.raises(BadArgument, match="expected an origin with nothing after it"):
        read_origin(origin)


# --- every door -------------------------------------------------------------------------------------------------

GOOD: dict[str, dict[str, str]] = {
    "no browser": {},
    "a page of its own": {"origin": "http://localhost:{port}", "sec-fetch-site": "same-origin"},
    "an address typed in": {"sec-fetch-site": "none"},
}
BAD: dict[str, dict[str, str]] = {
    "rebound": {"host": "evil.example:{port}"},
    "rebound, by a page": {"host": "evil.example:{port}", "origin": "http://evil.example:{port}"},
    "another's page": {"origin": FOREIGN, "sec-fetch-site": "cross-site"},
    "a page of another port": {"origin": "http://localhost:1", "sec-fetch-site": "same-site"},
    "a page in a box": {"origin": "null", "sec-fetch-site": "cross-site"},
    "another's picture": {"sec-fetch-site": "cross-site"},
    "two origins": {"origin": "http://localhost:{port}\r\nOrigin: " + FOREIGN},
    "two hosts": {"host": "localhost:{port}\r\nHost: evil.example"},
}


class Place(NamedTuple):
    port: int
    root: str


@pytest.fixture(scope="module", params=["by itself", "mounted"])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "mounted":
        mounted = Mounted("memory://")
        yield Place(mounted.port, ROOT)
        mounted.end()
    else:
        host: Host = request.getfixturevalue("host")
        port = host.start("memory://")
        yield Place(port, "")
        host.stop(port)


def headers_of(said: dict[str, str], port: int) -> dict[str, str]:
    return {"host": f"localhost:{port}"} | {name: value.format(port=port) for name, value in said.items()}


@pytest.mark.parametrize("how", [*GOOD, *BAD])
@on_loop
async def test_every_http_endpoint_looks_at_where_a_request_is_from(place: Place, how: str) -> None:
    """Those that need no token too, and places where there is no door."""
    paths = [(each.method, each.path) for each in ENDPOINTS]
    async with peer(place.port) as made:
        for method, path in [*paths, ("GET", "/"), ("POST", "/v1/topics"), ("OPTIONS", "/v1/topics")]:
            if how in GOOD and path.endswith(("/feed", "/watch")):  # which would not end
                path += "?nonsense=1"
            path = place.root + path.format(topic="t", purpose="p", name="n", id="i", file="f")
            headers = headers_of((GOOD | BAD)[how], place.port)
            if how == "two hosts":  # which h11 does not even let through
                answer = await ask(place.port, method, path, headers, b"")
                assert answer.status in (400, 403), (method, path)
                continue
            answer = await made.ask(method, path, headers)
            assert (answer.status == 403) == (how in BAD), (method, path, answer)
            assert "access-control-allow-origin" not in answer.headers
            if how in BAD:
                assert answer.code == "not-allowed"


@pytest.mark.parametrize("how", [*GOOD, *BAD])
@on_loop
async def test_the_websocket_looks_at_where_a_request_is_from(place: Place, how: str) -> None:
    headers = headers_of((GOOD | BAD)[how], place.port)
    async with peer(place.port) as made:
        await made.send(handshake(f"{place.root}/v1/connect", headers))
        if how in GOOD:
            assert await made.status() == 101
            return
        answer = await made.answer()
        assert answer.status in (403, 400)  # of which the latter is that of no handshake at all
        if place.root == "" or answer.status == 403:
            assert answer.code in ("not-allowed", "protocol")


@on_loop
async def test_an_origin_that_is_allowed_may_read_what_it_asks_for_and_is_told_so_beforehand() -> None:
    server = Server("memory://", origins=[PAGE])
    async with served(server) as port, peer(port) as made:
        answer = await made.ask("GET", "/v1/topics", {"origin": PAGE})
        assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, PAGE)
        assert answer.headers["vary"] == "Origin"
        assert "access-control-allow-credentials" not in answer.headers
        problem = await made.ask("GET", "/v1/topics/none", {"origin": PAGE})
        assert (problem.status, problem.headers["access-control-allow-origin"]) == (404, PAGE)
        wanted = {"access-control-request-method": "POST", "access-control-request-headers": "authorization, x-y"}
        told = await made.ask("OPTIONS", "/v1/topics/t/events", {"origin": PAGE, **wanted})
        assert (told.status, told.headers["access-control-allow-origin"]) == (204, PAGE)
        assert told.headers["access-control-allow-headers"] == "authorization, x-y"
        assert "POST" in told.headers["access-control-allow-methods"]
        # Whoever is not allowed learns nothing, and neither does who asks for what no browser would.
        assert (await made.ask("OPTIONS", "/v1/topics/t/events", {"origin": FOREIGN, **wanted})).status == 403
        wanted["access-control-request-headers"] = "x(y"
        told = await made.ask("OPTIONS", "/v1/topics/t/events", {"origin": PAGE, **wanted})
        assert told.headers["access-control-allow-headers"] == ""
        async with talker(port, origin=PAGE) as socket:
            await socket.hello()


# --- a browser --------------------------------------------------------------------------------------------------

_EVENTS = "/v1/topics/{topic}/events"
ATTACK = """<!doctype html><body><script>
const at = location.search.slice(1) || location.host;
const json = {method: "POST", headers: {"content-type": "application/json"}, body: "1"};
const events = `http://${at}/v1/topics/t/events`;
const socket = () => new Promise((done, failed) => {
  const made = new WebSocket(`ws://${at}/v1/connect`, "solarwind.v1");
  made.onopen = () => { made.close(); done(101); };
  made.onerror = failed;
});
const picture = () => new Promise((done, failed) => {
  const made = new Image();
  made.onload = done; made.onerror = failed;
  made.src = `http://${at}/v1/statistics`;
});
const form = () => new Promise(done => {
  const frame = document.createElement("iframe");
  frame.name = "into";
  document.body.appendChild(frame);
  const made = document.body.appendChild(document.createElement("form"));
  Object.assign(made, {method: "POST", action: events, target: "into", enctype: "text/plain"});
  made.submit();
  setTimeout(done, 1, 0);
});
const attempts = {
  json: () => fetch(events, json).then(answer => answer.status),
  simple: () => fetch(events, {method: "POST", mode: "no-cors", body: "1"}).then(answer => answer.status),
  read: () => fetch(`http://${at}/v1/statistics`).then(answer => answer.status),
  socket, picture, form,
  beacon: () => navigator.sendBeacon(events, "1") && 0,
};
(async () => {
  const found = {};
  for (const [name, attempt] of Object.entries(attempts)) {
    try { found[name] = await attempt(); } catch { found[name] = "refused"; }
  }
  await fetch("/report", {method: "POST", body: JSON.stringify(found)});
})();
</script>"""


class Page:
    """What serves the page, and what the page says it could do."""

    def __init__(self) -> None:
        self.reports: list[dict[str, Any]] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["method"] == "POST":
            self.reports.append(json.loads((await receive())["body"]))
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/html")]})
        await send({"type": "http.response.body", "body": ATTACK.encode()})

    async def report(self) -> dict[str, Any]:
        await until(lambda: self.reports, "the page reports")
        return self.reports.pop()


@asynccontextmanager
async def rebound(page: int, server: int) -> AsyncIterator[int]:
    """Yield a port that is the page's until it has been fetched, and the server's from there on, but for the report."""

    async def carry(source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        try:
            while data := await source.read(1 << 16):
                sink.write(data)
        finally:
            sink.close()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = await reader.readuntil(b"\r\n\r\n")
        to_page = head.split(b" ")[1] in (b"/page", b"/report")
        onward, sink = await asyncio.open_connection("127.0.0.1", page if to_page else server)
        # One request a connection, so that each goes where it should.
        sink.write(head.replace(b"Connection: keep-alive", b"Connection: close"))
        await asyncio.gather(carry(reader, sink), carry(onward, writer), return_exceptions=True)

    listening = await asyncio.start_server(accept, "127.0.0.1", 0)
    try:
        yield listening.sockets[0].getsockname()[1]
    finally:
        listening.close()


@pytest.mark.long
@pytest.mark.skipif(CHROMIUM is None, reason="needs chromium")
@on_loop
async def test_a_page_in_a_browser_does_nothing_to_a_server_that_does_not_allow_it(tmp_path: Path) -> None:
    page = Page()
    async with served_by_uvicorn(page) as page_port:
        origin = f"http://127.0.0.1:{page_port}"
        closed, allowing = Server("memory://"), Server("memory://", origins=[origin])
        async with served(closed) as closed_port, served(allowing) as allowing_port:
            async with chromium(f"{origin}/?127.0.0.1:{closed_port}", tmp_path / "foreign"):
                refused = {"json": "refused", "read": "refused", "socket": "refused", "picture": "refused"}
                assert await page.report() == refused | {"simple": 0, "form": 0, "beacon": 0}
                await until(lambda: closed.host.requests["POST", _EVENTS, 403] == 3, "all that it sent is refused")
            async with chromium(f"{origin}/?127.0.0.1:{allowing_port}", tmp_path / "allowed"):
                found = await page.report()
                assert (found["json"], found["read"], found["socket"]) == (202, 200, 101)
            rules = "--host-resolver-rules=MAP evil.example 127.0.0.1"
            async with rebound(page_port, closed_port) as port:
                async with chromium(f"http://evil.example:{port}/page", tmp_path / "rebound", rules):
                    found = await page.report()
                    assert {each for each in found.values() if each not in (0, "refused")} == {403}
            assert {status for _, _, status in closed.host.requests} == {403}
            assert not (await closed.wind.statistics()).topics
            assert (await allowing.wind.statistics()).topics["t"].fired == 1
