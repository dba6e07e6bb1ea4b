"""What may come by HTTP: requests that are right, almost right or nothing at all, one after another on a connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any, NamedTuple

import h11
from hypothesis import strategies as st

from solarwind.server.http import ENDPOINTS

from ..peers import PATIENCE_S, Peer, peer
from .target import OPTIONS, Target

STREAMS = {each.path for each in ENDPOINTS if each.streams}
A_MOMENT_S = 0.05
# A transfer coding that it does not know, as HTTP wants it, and a webhook's target that has no address. No more.
EXCUSES = {501: {"protocol"}, 503: {"unavailable"}}

# --- values -----------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 10**30, 2**63, -(2**63) - 1, 1e308, -0.0])
    | st.floats()
    | st.text(max_size=12)
    | st.sampled_from(["now", "\x00", "\ud800", "x" * 301, "[[[[["])
)
WILD = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
)


def mostly(plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return it, and now and then anything."""
    return st.integers(0, 23).flatmap(lambda chance: WILD if chance == 7 else plausible)


def record(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Return an object with some of these, and now and then another."""
    known = st.fixed_dictionaries({}, optional={name: mostly(value) for name, value in fields.items()})
    return st.integers(0, 11).flatmap(
        lambda chance: (
            st.tuples(known, st.text(max_size=5), WILD).map(lambda found: {**found[0], found[1]: found[2]})
            if chance == 4
            else known
        )
    )


def of(*good: Any, bad: Sequence[Any] = ()) -> st.SearchStrategy[Any]:
    """Return one of the good ones, most of the time."""
    return st.sampled_from([*good * (1 + 8 * len(bad) // len(good)), *bad])


topics = of("a", "b.c", "d-1", bad=["", ".", "a..b", "x" * 201, "a%2Fb", "%", "%00", "%ff", "..", "\u00fc"])
purposes = of("p", "Ship%20it", "%C3%BC", bad=["", "%20p", "p%0a", "x" * 201, "a%2Fb", "%zz", "%ff"])
names = of("hook", "h.1", bad=["", "%00", "x" * 201])
event_ids = st.sampled_from(["k", "l", "%00", "01990000-0000-7000-8000-000000000000", "x" * 300])
seconds = of(0, 0.001, 1, 0.5, bad=[-1, 1e18])
exchanges = of("direct", "keyed", bad=["fanout", "none", ""])
since = of("now", "beginning", "2h", "2026-01-31T12:00:00Z", bad=["-1h", "99999999d", "0001-01-01T00:00:00Z", "x"])
ids = st.lists(mostly(of("k", "l", "x.1", bad=["", "x" * 300])), max_size=5) | st.just(["k"] * 25)
retry = record(attempts=of(1, 5, bad=[0, -1]), wait=seconds, factor=of(1, 2, bad=[-1]), ceiling=seconds)

# --- bodies -----------------------------------------------------------------------------------------------------

TAKE = record(
    max=of(1, 5, 20, bad=[0, -1, 21]), wait=of(0, 0.01, bad=[-1]), exchange=exchanges, version=of(1, bad=[0, 3]),
    since=since, key=of("$.k", bad=["$", ""]), lease=of(0.2, bad=[0, -1, 1e18]), retry=retry,
)  # fmt: skip
token = of("TAKEN0", "TAKEN1", bad=["x.0", ".", "", "x" * 300])
tokens = st.lists(mostly(token), max_size=3)
SETTLE = record(
    done=tokens,
    failed=st.lists(mostly(token | record(token=token, error=st.text(max_size=9))), max_size=2),
    later=st.lists(mostly(token | record(token=token, after=seconds)), max_size=2),
    reject=st.lists(mostly(token | record(token=token, reason=st.text(max_size=9))), max_size=2),
    renew=tokens,
)
TARGETS = ["http://[::1]/", "https://nowhere.invalid/", "ftp://x", "x", "http://10.0.0.1", "http://127.0.0.1:1/#"]
WEBHOOK = record(
    url=of("http://127.0.0.1:1/", bad=TARGETS), exchange=exchanges, version=of(1, bad=[0, 3]), since=since, retry=retry,
    concurrency=of(1, 9, bad=[0, 200]), rate=of(1, 9, bad=[0]), timeout=of(1, bad=[0, -1, 1e18]),
    mode=of("binary", "structured", bad=["?"]), handshake=st.booleans(), token=of("secret", bad=["", "a b"]),
    secret=of("whsec_" + "A" * 32, bad=["whsec_AAAA", "x"]),
)  # fmt: skip
CLOUDEVENT = record(
    specversion=of("1.0", bad=["0.3"]), type=of("a", "b.c", "d-1"), source=of("//m/p", "s", bad=[""]),
    id=of("k", "l", "m", bad=["", "x" * 300]), data=st.integers(0, 9), data_base64=of("AAAA", bad=["=", "A"]),
    datacontenttype=of("application/json", "text/plain", bad=["", "x"]), subject=st.text(max_size=3),
    time=of("2026-01-31T12:00:00Z", "2026-01-31T12:00:00.123456789+23:59", bad=["9999-12-31T23:59:60Z", "now"]),
    partitionkey=of("k", bad=["x" * 300]), causationid=of("k", bad=[""]), correlationid=of("k", bad=[""]),
    traceparent=of("00-" + "a" * 32 + "-" + "b" * 16 + "-01", bad=["x"]),
)  # fmt: skip
WHOLE_EVENT = CLOUDEVENT.map(lambda found: {"specversion": "1.0", "type": "a", "source": "s", "id": "k", **found})
BODIES: dict[str, st.SearchStrategy[Any]] = {
    "take": TAKE,
    "settle": SETTLE,
    "webhooks/{name}": WEBHOOK.map(lambda found: {"url": "http://127.0.0.1:1/", "handshake": False, **found}),
    "redrive": record(ids=ids, all=st.booleans()),
    "discard": record(ids=ids, all=st.booleans()),
    "replay": record(since=since, until=since),
    "{topic}": record(keep=seconds, keep_bytes=of(0, 9, bad=[-1])),
}


def as_json(value: Any) -> bytes:
    """Return it as a careless client writes it, with NaN and lone surrogates."""
    return json.dumps(value, ensure_ascii=False).encode("utf-8", "surrogatepass")


@st.composite
def spoilt(draw: st.DrawFn, data: bytes) -> bytes:
    """Now and then a few bytes are others, or it is nested deeply."""
    how = draw(st.integers(0, 11))
    if how >= 9:
        at = draw(st.integers(0, len(data)))
        return data[:at] + draw(st.binary(max_size=4)) + data[at + draw(st.integers(0, 3)) :]
    if how == 8:
        depth = draw(st.sampled_from([15, 16, 17, 5_000]))
        return b"[" * depth + data + b"]" * depth
    return data


@st.composite
def event_bodies(draw: st.DrawFn) -> tuple[str, bytes]:
    """Return a content type, and a body of that or of another type."""
    kinds = {
        "application/json": WILD.map(as_json),
        "application/x-ndjson": st.lists(
            WILD.map(as_json) | st.sampled_from([b"", b" ", b"1 2", b"x" * 21_000, b"{", b"\xff"]), max_size=6
        ).map(lambda lines: draw(st.sampled_from([b"\n", b"\r\n", b"\n\n"])).join(lines)),
        "application/octet-stream": st.binary(max_size=50),
        "application/cloudevents+json": WHOLE_EVENT.map(as_json),
        "application/cloudevents-batch+json": st.lists(mostly(WHOLE_EVENT), max_size=25).map(as_json),
    }
    kind = draw(st.sampled_from(sorted(kinds)))
    body = draw(spoilt(draw(kinds[kind])))
    said = draw(
        st.sampled_from([kind] * 40 + [*kinds, "text/plain", "", "application/json; charset=latin-1", "x" * 99])
    )
    return said, body


# --- requests ---------------------------------------------------------------------------------------------------


class Asked(NamedTuple):
    """A request, whatever becomes of its framing."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    chunks: int = 0  # 0: its length is said
    spoil: bytes = b""  # that stands where it does not belong
    at: int = 0

    def encode(self, taken: Sequence[str]) -> bytes:
        """Return the bytes of a request. `taken` are the tokens of earlier takes."""
        body = self.body
        for number, each in enumerate(taken):
            body = body.replace(b"TAKEN%d" % number, each.encode())
        headers = [("Host", "localhost"), *self.headers]
        if self.chunks:
            headers.append(("Transfer-Encoding", "chunked"))
            size = max(1, -(-len(body) // self.chunks))
            pieces = [body[at : at + size] for at in range(0, len(body), size)]
            body = b"".join(b"%x;e=1\r\n%b\r\n" % (len(each), each) for each in pieces) + b"0\r\n\r\n"
        elif body or self.method in ("POST", "PUT"):
            headers.append(("Content-Length", str(len(body))))
        lines = [f"{self.method} {self.target} HTTP/1.1", *(f"{name}: {value}" for name, value in headers), "", ""]
        data = "\r\n".join(lines).encode("utf-8", "surrogatepass") + body
        at = self.at % (len(data) + 1)
        return data[:at] + self.spoil + data[at + len(self.spoil) // 2 :] if self.spoil else data


CE = {
    "ce-specversion": "1.0", "ce-type": "a", "ce-source": "s", "ce-id": "k", "ce-time": "2026-01-31T12:00:00Z",
    "ce-partitionkey": "%C3%BC", "ce-causationid": "k", "ce-x": "1", "ce-data": "no",
}  # fmt: skip
OTHER_HEADERS = [
    ("Accept", "*/*"), ("Accept", "application/openmetrics-text; version=1.0.0"), ("Expect", "100-continue"),
    ("Content-Encoding", "gzip"), ("Connection", "close"), ("Connection", "upgrade"), ("Upgrade", "websocket"),
    ("Host", "evil.example"), ("Origin", "null"), ("Origin", "http://localhost"), ("Sec-Fetch-Site", "cross-site"),
    ("Authorization", "Bearer x"), ("Authorization", "Basic é"), ("Last-Event-ID", "1"), ("X", "y" * 9_000),
    ("Content-Length", "5"), ("Content-Length", "-1"), ("Content-Length", "99999999"), ("Transfer-Encoding", "chunked"),
    ("Transfer-Encoding", "gzip"), ("X-Forwarded-For", "1.2.3.4"), ("\x00", "x"), ("X", "\x00"), ("X Y", "z"),
    ("X", "é"), ("TE", "trailers"), ("If-None-Match", "*"), ("Content-Type", "application/json"),
]  # fmt: skip
PARAMETERS = [
    *[""] * 9,
    "?",
    "?key=k",
    "?id=x",
    "?key=" + "x" * 300,
    "?id=%ff",
    "?purpose=p",
    "?force=true",
    "?limit=5",
]
PARAMETERS += [
    "?purpose=p&exchange=direct",
    "?limit=x",
    "?after=k",
    "?topic=a",
    "?x=y",
    "?key=a&key=b",
    "?%00=%00",
    "?=&&=;",
]
OTHER_METHODS = ["GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH", "X"]


@st.composite
def a_request(draw: st.DrawFn) -> Asked:
    operation = draw(st.sampled_from(ENDPOINTS))
    path = operation.path.format(
        topic=draw(topics), purpose=draw(purposes), name=draw(names), id=draw(event_ids), file=draw(names)
    )
    method = draw(st.sampled_from([operation.method] * 40 + OTHER_METHODS))
    headers: list[tuple[str, str]] = []
    query = draw(st.sampled_from(PARAMETERS)) if operation.query is not None or draw(st.integers(0, 9)) == 4 else ""
    if operation.path in STREAMS and draw(st.booleans()):
        query = "?purpose=Live"
    body = b""
    if operation.path.endswith("/events"):
        kind, body = draw(event_bodies())
        headers.append(("Content-Type", kind))
        if draw(st.integers(0, 4)) == 2:
            headers += [each for each in CE.items() if draw(st.integers(0, 9))]
    elif operation.body is not None or draw(st.integers(0, 9)) == 4:
        key = next((each for each in BODIES if operation.path.endswith(each)), "take")
        body = draw(spoilt(as_json(draw(mostly(BODIES[key])))))
        headers.append(("Content-Type", "application/json"))
    headers += draw(st.lists(st.sampled_from(OTHER_HEADERS), max_size=1)) if draw(st.integers(0, 4)) == 2 else []
    spoil = draw(st.binary(max_size=6)) if draw(st.integers(0, 11)) == 5 else b""
    chunks = draw(st.sampled_from([0, 0, 0, 1, 3, 50]))
    return Asked(method, path + query, tuple(headers), body, chunks, spoil, draw(st.integers(0, 300)) if spoil else 0)


A_CONNECTION = st.lists(a_request(), min_size=1, max_size=4)
# What makes it likely that there is something to settle.
OPENING = [
    Asked("POST", "/v1/topics/a/events", (("Content-Type", "application/x-ndjson"),), b"1\n2\n3"),
    Asked(
        "POST",
        "/v1/topics/a/purposes/p/take",
        (("Content-Type", "application/json"),),
        b'{"max":2,"since":"beginning","lease":0.1}',
    ),
]


# --- how they are sent, and what must come of them ------------------------------------------------------------------


class Expected(NamedTuple):
    """What a server makes of bytes: the methods of whole requests, and then."""

    methods: list[str]
    then: str  # nothing, more that is not whole, bytes that are none, or another protocol


def read(data: bytes) -> Expected:
    """Read it with the server's own parser; `check` does what the server demands of a head besides."""
    parser = h11.Connection(h11.SERVER, max_incomplete_event_size=OPTIONS["header-bytes"])
    parser.receive_data(data)
    methods: list[str] = []
    method = ""
    try:
        while True:
            event = parser.next_event()
            if isinstance(event, h11.Request):
                method = event.method.decode()
                if any(name == b"upgrade" for name, _ in event.headers):
                    return Expected(methods, "another")
            elif isinstance(event, h11.EndOfMessage):
                methods.append(method)
                parser.send(h11.Response(status_code=204, headers=[]))
                parser.send(h11.EndOfMessage())
                if parser.our_state is not h11.DONE:
                    return Expected(methods, "nothing")
                parser.start_next_cycle()
            elif event is h11.NEED_DATA:
                idle = parser.their_state is h11.IDLE and not parser.trailing_data[0]
                return Expected(methods, "nothing" if idle else "more")
    except h11.RemoteProtocolError:
        return Expected(methods, "none")


async def send(target: Target, connections: Sequence[Sequence[Asked]]) -> None:
    """Send several at once, so that they meet."""
    await asyncio.gather(*(_send(target.port, requests) for requests in connections))
    await target.check()


async def _send(port: int, requests: Sequence[Asked]) -> None:
    taken: list[str] = []
    for each in OPENING:
        async with peer(port) as made:
            await made.send(each.encode(()))
            answer = await made.answer()
            if b"token" in answer.body:
                taken += [event["token"] for event in json.loads(answer.body)["events"]]
    data = b"".join(each.encode(taken) for each in requests)
    expected = read(data)
    async with peer(port) as made:
        await made.send(data)
        for method in expected.methods:
            if not await _heard(made, method, whole=True):
                return
        if expected.then != "nothing":
            await _heard(made, "GET", whole=expected.then == "none")


async def _heard(made: Peer, method: str, *, whole: bool) -> bool:
    """Return whether there may be more. Raise an error where one should have come, or should be another."""
    try:
        async with asyncio.timeout(PATIENCE_S if whole else A_MOMENT_S):
            answer = await made.next_answer(method)
    except TimeoutError:
        assert not whole, "no answer came"
        return False
    if answer is None:  # it hung up
        return False
    if answer.status >= 400 and method != "HEAD":
        assert answer.problem["code"] not in ("error", "store"), answer
    assert answer.status < 500 or answer.code in EXCUSES.get(answer.status, ()), answer
    streams = answer.headers.get("content-type", "").startswith("text/event-stream")
    return answer.status != 101 and not streams and answer.headers.get("connection") != "close"
