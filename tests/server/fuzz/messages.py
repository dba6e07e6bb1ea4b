"""What may come by WebSocket: messages that are right, almost right or nothing at all, in frames of any kind."""

from __future__ import annotations

import asyncio
import struct
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec
from hypothesis import strategies as st

from solarwind import wire
from solarwind.batch import author_of, seal
from solarwind.errors import ProtocolError
from solarwind.operations import OPERATIONS

from ..peers import PATIENCE_S, Peer, peer
from .target import Target

pack = msgspec.msgpack.encode

TOPICS, PURPOSES = ("a", "b.c", "d-1"), ("p", "Ship it", "ü 🌞")
BAD_CODES = {"error", "store"}  # that the server failed, not the peer
SECOND = 1_000_000_000
A_MOMENT_S = 0.05
SELDOM = 150

# --- values -----------------------------------------------------------------------------------------------------

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.sampled_from([-1, 0, 1, 2**31, 2**53, 2**63 - 1, 2**63, 2**64 - 1, -(2**63)])
    | st.floats()
    | st.text(max_size=12)
    | st.binary(max_size=12)
    | st.builds(msgspec.msgpack.Ext, st.integers(-128, 127), st.binary(max_size=4))
)
WILD = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
) | st.integers(1, 3_000).map(lambda depth: msgspec.Raw(b"\x91" * depth + b"\xc0"))


def mostly(plausible: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    """Return it, and seldom anything: another type ends the connection, and nothing behind it is read."""
    return st.integers(0, SELDOM).flatmap(lambda chance: WILD if chance == SELDOM // 3 else plausible)


class Offered(NamedTuple):
    """Filled in when it is sent: of the offers that came, one's lease or positions."""

    number: int
    what: str


refs = mostly(st.integers(1, 9))
instances = mostly(st.integers(0, 3) | st.integers(-(2**63), 2**63 - 1))
topics = mostly(st.sampled_from(TOPICS) | st.sampled_from(["", ".", "a..b", "x" * 201, "a b", "ä"]))
purposes = mostly(st.sampled_from(PURPOSES) | st.sampled_from(["", " p", "p\n", "x" * 201]))
seconds = mostly(st.sampled_from([0.0, 0.001, 1.0, 1e18, -1.0, float("nan"), float("inf")]) | st.integers(-1, 5))
times = mostly(
    st.sampled_from(["now", "beginning", "then", 0, -1, -SECOND, -(2**63), 2**63 - 1]) | st.integers(0, 2**62)
)
leases = mostly(st.builds(Offered, st.integers(0, 3), st.just("lease")) | st.integers(-1, 60))
picks = mostly(
    st.builds(Offered, st.integers(0, 3), st.just("picks"))
    | st.just([])
    | st.lists(st.integers(0, 200), max_size=3, unique=True).map(
        lambda found: sorted({*found, *(each + 1 for each in found)})
    )
    | st.sampled_from([[0, 2**62], [2**62, 2**63 - 1], [-(2**63), 0], [0, 1, 1, 2], [3]])
)
failures = mostly(
    st.lists(
        mostly(
            st.tuples(
                mostly(st.integers(0, 9) | st.integers(-1, 2**63 - 1)),
                mostly(st.sampled_from(["retry", "later", "reject"] * 9 + ["?"])),
                mostly(st.text(max_size=20)),
                mostly(st.integers(0, 5) | st.sampled_from([-1, 2**63 - 1, 86_400 * SECOND])),
            ).map(list)
        ),
        max_size=3,
    )
)


SECRET = b"what only this client knows"
AUTHOR = author_of(SECRET)


# --- batches ----------------------------------------------------------------------------------------------------


@st.composite
def batches(draw: st.DrawFn) -> bytes:
    """Most of them are sound; a field of the header may be another, and any byte."""
    count = draw(st.integers(1, 4) | st.just(60))
    payloads = draw(st.lists(st.sampled_from([b"", b"1", b'{"k":1}', b"x" * 9_000]), min_size=count, max_size=count))
    topic = draw(st.sampled_from(TOPICS))
    of = {"producer": draw(st.integers(0, 3)), "first": draw(st.integers(0, 40)), "machine": "m", "process": "p"}
    of |= {"author": AUTHOR}
    if draw(st.booleans()):
        names = st.none() | st.sampled_from(["k", "l", "x" * 300])
        of |= {"keys": draw(st.lists(names, min_size=count, max_size=count))}
        of |= {"ids": draw(st.lists(names, min_size=count, max_size=count))}
    data = seal(topic, payloads, [draw(st.integers(0, 2**62))] * count, **of).data  # type: ignore[arg-type]
    how = draw(st.integers(0, 9))
    if how == 9:
        at = draw(st.integers(0, len(data) - 1))
        return data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 3)) :]
    if how >= 7:
        end = 4 + int.from_bytes(data[:4], "little")
        header = msgspec.msgpack.decode(data[4:end])
        at = draw(st.integers(0, len(header) - 1))
        header[at] = draw(WILD)
        head = pack(header)
        return len(head).to_bytes(4, "little") + head + data[end:]
    return data


# --- messages ---------------------------------------------------------------------------------------------------


def message(name: str, *fields: st.SearchStrategy[Any]) -> st.SearchStrategy[list[Any]]:
    """Return a message, now and then with fields left out at the end, or too many."""
    whole = st.tuples(*fields).map(lambda found: [name, *found])
    return st.integers(0, 31).flatmap(
        lambda chance: (
            whole.map(lambda found: found[: 1 + len(found) // 2])
            if chance == 11
            else st.tuples(whole, WILD).map(lambda both: [*both[0], both[1]])
            if chance == 10
            else whole
        )
    )


ids = mostly(st.none() | st.lists(mostly(st.sampled_from(["k", "l", "", "x" * 300])), max_size=30))
pairs = mostly(st.lists(mostly(st.tuples(topics, purposes)), max_size=3))
OF_A_KIND: dict[str, st.SearchStrategy[Any]] = {
    "topic": topics,
    "topic?": mostly(st.none() | topics),
    "purpose": purposes,
    "purposes": pairs,
    "id": mostly(st.sampled_from(["k", "l", "", "01990000-0000-7000-8000-000000000000", "x" * 300])),
    "ids": ids,
    "since": times,
    "until": times,
    "keep": mostly(st.none() | st.integers(-1, 2**62)),
    "flag": mostly(st.booleans()),
}
OF_A_CALL: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    name: {each: OF_A_KIND.get(operation.kinds[each].name, WILD) for each in operation.message.__struct_fields__}
    for name, operation in OPERATIONS.items()
}


@st.composite
def calls(draw: st.DrawFn) -> list[Any]:
    name = draw(st.sampled_from(sorted(OF_A_CALL)))
    arguments = {each: draw(value) for each, value in OF_A_CALL[name].items() if draw(st.integers(0, 31)) != 11}
    if draw(st.integers(0, 31)) == 11:
        arguments[draw(st.text(max_size=5))] = draw(WILD)
    return ["call", draw(refs), draw(mostly(st.just(name))), draw(mostly(st.just(arguments)))]


exchanges = mostly(st.sampled_from(["direct", "fanout", "keyed", "none"]))
OF_A_JOIN: dict[str, st.SearchStrategy[Any]] = {
    "exchange": exchanges,
    "version": mostly(st.integers(1, 3) | st.integers(-1, 2**63)),
    "key": mostly(st.none() | st.sampled_from(["$.k", "$", "k", ""])),
    "room": mostly(st.integers(-1, 20_000)),
    "lease_ns": mostly(st.sampled_from([SECOND, 30 * SECOND, 0, -1, 2**63 - 1])),
    "retry": mostly(
        st.fixed_dictionaries(
            {}, optional={"attempts": mostly(st.integers(0, 3)), "wait": seconds, "factor": seconds, "ceiling": seconds}
        )
    ),
    "origin": mostly(st.text(max_size=9)),
    "speed": WILD,
}


def joins() -> st.SearchStrategy[dict[str, Any]]:
    return st.fixed_dictionaries({"topic": topics, "purpose": purposes}, optional=OF_A_JOIN)


MESSAGES: dict[str, st.SearchStrategy[list[Any]]] = {
    "hello": message("hello", mostly(st.just("c")), mostly(st.none()), mostly(st.just(SECRET))),
    "author": message("author", mostly(st.sampled_from([SECRET, b"a secret of another"])), mostly(st.booleans())),
    "submit": message("submit", refs, mostly(batches())),
    "hold": message("hold", mostly(batches())),
    "join": message("join", refs, instances, mostly(joins()), times),
    "report": message(
        "report", instances, leases, picks, failures, picks, mostly(st.integers(-1, 9)),
        mostly(st.integers(-1, 2**62)), mostly(st.integers(0, 2)), mostly(st.integers(0, 5)),
    ),
    "alive": message("alive", instances),
    "leaving": message("leaving", instances),
    "leave": message("leave", refs, instances),
    "call": calls(),
    "ping": message("ping"),
}  # fmt: skip
assert set(MESSAGES) == {kind.__name__.lower() for kind in wire.FromClient.__args__}
OFTEN = [each for each in MESSAGES if each != "hello"] * 3 + ["submit", "join", "report", "report", "call"] * 4
A_MESSAGE = st.sampled_from([*OFTEN, "hello", ""]).flatmap(lambda name: MESSAGES[name] if name else WILD)


def opening(producer: int) -> Say:
    """Return what makes it likely that there is something to report: nobody else is that producer."""
    events = seal("a", [b"1", b"2"], [1, 2], producer=producer, author=AUTHOR, first=0, machine="m", process="p")
    return Say(
        [
            ["join", 1, 0, {"topic": "a", "purpose": "p", "room": 100}, "beginning"],
            ["join", 2, 1, {"topic": "b.c", "purpose": "p", "exchange": "keyed", "key": "$.k"}, "beginning"],
            ["join", 3, 2, {"topic": "a", "purpose": "Live page", "exchange": "fanout"}],
            ["submit", 4, events.data],
        ]
    )


# --- frames -----------------------------------------------------------------------------------------------------

BINARY, TEXT, CONTINUED, CLOSE, PING, PONG = 2, 1, 0, 8, 9, 10


class Frame(NamedTuple):
    """One, as it goes out; what does not fit together is meant not to."""

    opcode: int
    data: bytes
    fin: bool = True
    reserved: int = 0
    masked: bool = True
    length: int | None = None  # that it says it has

    def encode(self) -> bytes:
        size = len(self.data) if self.length is None else self.length
        first, mask = self.fin << 7 | self.reserved << 4 | self.opcode, self.masked << 7
        if size < 126:
            head = bytes([first, mask | size])
        elif size < 1 << 16:
            head = struct.pack("!BBH", first, mask | 126, size)
        else:
            head = struct.pack("!BBQ", first, mask | 127, size)
        return head + bytes(4 if self.masked else 0) + self.data


class Say(NamedTuple):
    """Messages, in one frame or several."""

    messages: list[Any]
    pieces: int = 1


A_FRAME = st.builds(
    Frame,
    st.sampled_from([BINARY, BINARY, TEXT, CONTINUED, CLOSE, PING, PONG, 3, 11]),
    st.binary(max_size=130) | st.sampled_from([b"\x03\xe8", b"\xff\xff", b"\x03\xe8\xff", bytes(200_001)]),
    st.booleans(),
    st.sampled_from([0, 0, 0, 1, 4, 7]),
    st.sampled_from([True, True, True, False]),
    st.sampled_from([None, None, None, 0, 5, 125, 126, 70_000, 2**63 - 1]),
)


@st.composite
def spoilt(draw: st.DrawFn) -> bytes:
    """Return messages of which a few bytes are others."""
    data = pack(draw(st.lists(A_MESSAGE, max_size=3).map(_resolved)))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(data)))
        data = data[:at] + draw(st.binary(max_size=3)) + data[at + draw(st.integers(0, 2)) :]
    return data


A_STEP = st.integers(0, 23).flatmap(
    lambda chance: (
        A_FRAME
        if chance == 7
        else spoilt().map(lambda data: Frame(BINARY, data))
        if chance == 9
        else st.builds(Say, st.lists(A_MESSAGE, max_size=4), st.sampled_from([1, 1, 1, 2, 5]))
    )
)
Script = Sequence[Frame | Say]
SCRIPTS = st.tuples(
    st.sampled_from([[Say([["hello", "c", None, SECRET]])]] * 8 + [[]]),
    st.integers(0, 2**34 - 1).map(lambda producer: [opening(producer)] if producer % 4 else []),
    st.lists(A_STEP, max_size=8),
).map(lambda parts: [*parts[0], *parts[1], *parts[2]])


def _resolved(value: Any, offers: Sequence[wire.Offer] = ()) -> Any:
    """Return it with the lease or the positions of an offer in place of their placeholders."""
    if isinstance(value, Offered):
        if not offers:
            return 1 if value.what == "lease" else [0, 1]
        share = offers[value.number % len(offers)].shares[0]
        return share.lease if value.what == "lease" else share.picks
    if isinstance(value, list | tuple) and not isinstance(value, Frame):
        return [_resolved(each, offers) for each in value]
    if isinstance(value, dict):
        return {key: _resolved(each, offers) for key, each in value.items()}
    return value


# --- how it is sent, and what must come of it ---------------------------------------------------------------------


class Conversation:
    """One connection: what is said, what is heard, and what is still to be answered."""

    def __init__(self, made: Peer) -> None:
        self._made = made
        self.offers: list[wire.Offer] = []
        self.ended = asyncio.Event()
        self._pongs = 0
        self._owed: Counter[int] = Counter()  # by ref
        self._perhaps: Counter[int] = Counter()  # what may wait for ever
        self._change = asyncio.Event()
        self._spoilt = False  # nobody can say any more what the server is to make of it

    async def read(self) -> None:
        """Read everything until the server hangs up. Raise an error if it is not as it should be."""
        try:
            while True:
                opcode, data = await self._frame()
                if opcode == BINARY:
                    for message in wire.read_server(data):
                        self._hear(message)
                elif opcode == CLOSE:
                    assert data[:2] != b"\x03\xf3", data  # 1011: the server failed
                    return
                self._change.set()
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self.ended.set()
            self._change.set()

    async def _frame(self) -> tuple[int, bytes]:
        first, second = await self._made.exactly(2)
        size = second & 127
        if size > 125:
            size = int.from_bytes(await self._made.exactly(2 if size == 126 else 8), "big")
        return first & 15, await self._made.exactly(size)

    def _hear(self, message: wire.FromServer) -> None:
        if isinstance(message, wire.Refused):
            assert message.code not in BAD_CODES, message
            self._answered(message.ref)
        elif isinstance(message, wire.Accepted):
            for ref in message.refs:
                self._answered(ref)
        elif isinstance(message, wire.Done) and not message.more:
            self._answered(message.ref)
        elif isinstance(message, wire.Offer):
            self.offers.append(message)
        elif isinstance(message, wire.Pong):
            self._pongs += 1

    def _answered(self, ref: int) -> None:
        if ref:
            of = self._owed if self._owed[ref] > 0 else self._perhaps
            of[ref] -= 1
            assert self._spoilt or of[ref] >= 0, f"{ref} was answered more often than asked"

    async def say(self, step: Frame | Say) -> None:
        if isinstance(step, Frame):
            self._spoilt = True
            await self._made.send(step.encode())
            return
        data = pack(_resolved(step.messages, self.offers))
        self._owe(data)
        size = max(1, -(-len(data) // step.pieces))
        parts = [data[at : at + size] for at in range(0, len(data), size)]
        for number, part in enumerate(parts):
            fin, opcode = number == len(parts) - 1, CONTINUED if number else BINARY
            await self._made.send(Frame(opcode, part, fin).encode())

    def _owe(self, data: bytes) -> None:
        try:
            messages = wire.read_client(data)
        except ProtocolError:
            self._spoilt = True  # it ends the connection, and what stands before it may be answered
            return
        for message in messages:
            ref = getattr(message, "ref", 0)
            waits = isinstance(message, wire.Call) and message.name == "idle"
            if ref:
                (self._perhaps if waits else self._owed)[ref] += 1

    async def over(self) -> None:
        """Until the server has hung up, or has answered all that it was asked. Raises where neither comes."""
        before = self._pongs
        await self._made.send(Frame(BINARY, pack([["ping"]])).encode())
        try:
            async with asyncio.timeout(A_MOMENT_S if self._spoilt else PATIENCE_S):
                while not self.ended.is_set():
                    if self._pongs > before and (self._spoilt or not any(self._owed.values())):
                        return
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            # It may wait for the rest of a frame that there is no more of.
            assert self._spoilt, f"no answer came, owed are {self._owed}, pongs {self._pongs - before}"


async def converse(target: Target, scripts: Sequence[Script]) -> None:
    """Send several at once, so that they meet."""
    await asyncio.gather(*(_converse(target.port, script) for script in scripts))
    await target.check()


async def _converse(port: int, script: Script) -> None:
    async with peer(port) as made:
        await made.handshake()
        conversation = Conversation(made)
        reading = asyncio.ensure_future(conversation.read())
        try:
            for step in script:
                await conversation.say(step)
                await asyncio.sleep(0)
            await conversation.over()
        finally:
            made.close()
            await reading
