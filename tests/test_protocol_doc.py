"""The protocol's document says what the code does: its bytes, its tables, its limits."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from pathlib import Path
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

import msgspec
import pytest
import typer.main
from websockets.asyncio.client import ClientConnection, connect
from websockets.typing import Subprotocol

from solarwind import Limits, SolarWindError, errors, wire
from solarwind.batch import Header, author_of, make_id, seal
from solarwind.cli import app
from solarwind.core.effects import Failure, Join
from solarwind.event import Cause
from solarwind.failure import Retry
from solarwind.operations import OPERATIONS
from solarwind.server import Server, Settings
from solarwind.server.listener import Listener
from solarwind.testing.contract import on_loop

DOCUMENT = Path(__file__).parent.parent / "docs" / "PROTOCOL.md"
TEXT = DOCUMENT.read_text()

TIME = 1_767_225_600_123_456_789
SECRET = b"keep this secret"
PRODUCER, NUMBER = 0x26F4A91C, 123_456_789
BATCH = seal(
    "video.uploaded",
    [b'{"name":"cat.mov"}'],
    [TIME],
    producer=PRODUCER,
    author=author_of(SECRET),
    first=NUMBER,
    machine="shop",
    process="42",
    keys=["cat"],
)
BUSY = 2_500_000
SESSION: list[wire.Message] = [
    wire.Hello("shop/42", None, SECRET),
    wire.Welcome("vm/solarwind:7400", 15.0, 8 << 20, 1 << 20, 4_096, 1 << 20, "7f3a"),
    wire.Join(1, 1, msgspec.Raw(msgspec.msgpack.encode({"topic": "video.uploaded", "purpose": "Encode"}))),
    wire.Done(1),
    wire.Submit(2, BATCH.data),
    wire.Accepted([2]),
    wire.Offer(0, BATCH.data, [wire.Share(1, 3, [0, 1])]),
    wire.Report(1, 3, [0, 1], handled=1, busy_ns=BUSY, ref=3),
    wire.Done(3, [True]),
    wire.Report(1, 3, [], [Failure(0, "retry", "no codec")], handled=1, busy_ns=BUSY),
]


class Example(NamedTuple):
    sender: str
    name: str
    data: bytes


def examples() -> Iterator[Example]:
    """Yield the WebSocket messages shown: what comes after a # is for people."""
    for block in re.findall(r"^```hex\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL):
        first, *lines = block.splitlines()
        sender, name = first.split()
        yield Example(sender, name, bytes.fromhex("".join(line.partition("#")[0] for line in lines)))


@pytest.mark.parametrize(("example", "message"), list(zip(examples(), SESSION, strict=True)))
def test_the_bytes_shown_are_what_the_code_reads_and_writes(example: Example, message: wire.Message) -> None:
    assert example.name == type(message).__name__.lower()
    if example.sender == ">":
        assert wire.read_client(example.data) == [message]
    else:
        assert wire.encode([message]) == example.data


def test_the_event_of_the_session_has_the_id_that_is_said() -> None:
    assert f"`{BATCH.id(0)}`" in TEXT
    assert BATCH.id(0) == make_id(TIME, PRODUCER, NUMBER)
    assert f"{(PRODUCER << 30) + NUMBER:#x}" in TEXT


@on_loop
async def test_a_server_answers_the_bytes_of_the_client_with_those_shown() -> None:
    """But for its name, and the number of the lease, which are its own."""
    server = Server("memory://")
    listener = Listener(server, port=0, grace=1.0)
    await server.start()
    await listener.start()
    lease = 0
    came: list[wire.FromServer] = []
    try:
        async with connect(
            f"ws://127.0.0.1:{listener.port}/v1/connect", subprotocols=[Subprotocol(wire.SUBPROTOCOL)], compression=None
        ) as client:
            for example, shown in list(zip(examples(), SESSION, strict=True))[:-1]:
                if isinstance(shown, wire.Report):
                    await client.send(wire.encode([msgspec.structs.replace(shown, lease=lease)]))
                elif example.sender == ">":
                    await client.send(example.data)
                else:
                    while not any(type(each) is type(shown) for each in came):
                        came += await receive(client)
                    message = next(each for each in came if type(each) is type(shown))
                    came.remove(message)
                    if isinstance(message, wire.Welcome):
                        message.server, message.store = "vm/solarwind:7400", "7f3a"
                    elif isinstance(message, wire.Offer):
                        lease = message.shares[0].lease
                        message.shares = [msgspec.structs.replace(message.shares[0], lease=3)]
                    assert wire.encode([message]) == example.data
    finally:
        listener.close()
        await server.stop()
        await listener.stop()


async def receive(client: ClientConnection) -> list[wire.FromServer]:
    data = await asyncio.wait_for(client.recv(), 60)
    assert isinstance(data, bytes)
    return wire.read_server(data)


# --- tables -------------------------------------------------------------------------------------------------


class Row(NamedTuple):
    """Of a table of fields; `default` is None where there is none."""

    name: str
    type: str
    default: str | None


def section(title: str) -> str:
    """Return what stands below a heading, up to the next."""
    found = re.search(rf"^#+ {re.escape(title)}\n(.*?)(?=^#|\Z)", TEXT, re.MULTILINE | re.DOTALL)
    assert found, f"no section {title}"
    return found[1]


def cells(text: str) -> Iterator[list[str]]:
    """Yield the rows of the tables in a text, but for their heads."""
    for table in re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE):
        for line in table.splitlines()[2:]:
            yield [cell.strip() for cell in line.strip("|").split("|")]


def fields(text: str) -> list[Row]:
    return [Row(name.strip("`"), type, default.strip("`") or None) for name, type, default, _ in cells(text)]


STRUCTS: dict[str, type[msgspec.Struct]] = {
    **{f"`{each.__name__.lower()}`": each for each in (*get_args(wire.FromClient), *get_args(wire.FromServer))},
}


def check(rows: list[Row], struct: type[msgspec.Struct]) -> None:
    """Check that both have the same fields in the same order, with the same defaults, and types of the same names."""
    known = msgspec.structs.fields(struct)
    assert [row.name for row in rows] == [each.name for each in known]
    for row, each in zip(rows, known, strict=True):
        default: Any = each.default
        if each.default_factory is not msgspec.NODEFAULT:
            default = each.default_factory()
        if default is msgspec.NODEFAULT:
            assert row.default is None, row
        elif isinstance(default, msgspec.Raw):
            assert msgspec.msgpack.decode(default) == msgspec.json.decode(row.default or "")
        else:
            assert row.default is not None, row
            shown = row.default.replace("nil", "null")
            assert msgspec.json.decode(shown) == msgspec.json.decode(msgspec.json.encode(default)), row
        assert row.type == spoken(each.type), row


def spoken(type_: Any) -> str:
    """Return how the document calls a type."""
    kinds = get_args(type_)
    origin = get_origin(type_)
    if origin is Annotated:
        return spoken(kinds[0])
    if NoneType in kinds:
        rest = spoken(Union[tuple(kind for kind in kinds if kind is not NoneType)])  # noqa: UP007
        return f"{rest}{',' if ' of ' in rest else ''} or nil"
    if origin in (Union, UnionType):
        return " or ".join(map(spoken, kinds))
    if origin is Literal:
        return "str"
    if origin is list and kinds != (Any,):
        of = spoken(kinds[0])
        return f"list of ({of})" if " or " in of else f"list of {of}"
    if origin is dict:
        return "map of " + " to ".join(map(spoken, kinds))
    if origin is not None:
        return "list"
    name: str = type_.__name__
    known = {msgspec.Raw: "map", Retry: "map", Failure: "failures", wire.Share: "shares", Cause: "causes"}
    return known.get(type_, name)


@pytest.mark.parametrize("title", STRUCTS)
def test_a_message_has_the_fields_that_are_listed(title: str) -> None:
    rows = fields(re.split("\nA (?:failure|share|registration):", section(title))[0])
    check(rows, STRUCTS[title])


def test_no_message_is_listed_that_there_is_not() -> None:
    titles = re.findall(r"^### (`\w+`)$", TEXT, re.MULTILINE)
    assert sorted(titles) == sorted(STRUCTS)


def test_failures_shares_registrations_batches_and_causes_have_the_fields_that_are_listed() -> None:
    check(fields(section("`report`").partition("\nA failure:")[2]), Failure)
    check(fields(section("`offer`").partition("\nA share:")[2]), wire.Share)
    check(fields(section("`join`").partition("\nA registration:")[2]), Join)
    header, _, cause = section("Batches").partition("\nA cause is")
    numbered = list(cells(header))
    assert [row[0] for row in numbered] == [str(number) for number in range(len(numbered))]
    check([Row(row[1].strip("`"), row[2], row[3].strip("`") or None) for row in numbered], Header)
    check(fields(cause), Cause)


def test_the_calls_are_listed_with_their_arguments() -> None:
    rows = {row[0].strip("`"): row[1] for row in cells(section("Calls"))}
    assert list(rows) == list(OPERATIONS)
    for name, text in rows.items():
        arguments = re.findall(r"`(\w+)`", text.partition(": as ")[0])
        assert arguments == list(OPERATIONS[name].message.__struct_fields__), name


def test_every_error_has_its_line() -> None:
    listed = [row[0].strip("`") for row in cells(section("Errors")) if row[0].startswith("`")]
    found = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, SolarWindError)]
    assert sorted(listed) == sorted({each.code for each in found})


def test_the_limits_are_those_of_the_code_and_have_these_options() -> None:
    defaults: dict[str, Any] = {
        **{each.name: each.default for each in msgspec.structs.fields(Limits)},
        **{each.name: each.default for each in msgspec.structs.fields(Settings)},
    }
    command = typer.main.get_command(app).commands["serve"]  # type: ignore[attr-defined]
    options = {option for parameter in command.params for option in parameter.opts}
    rows = list(cells(section("Limits")))
    assert len(rows) >= 14
    for _, shown, option, _ in rows:
        numbers = [int(each.replace(",", "")) for each in re.findall(r"[\d,]*\d", shown)]
        names = re.findall(r"`(--[a-z-]+)`", option)
        if not names:
            assert numbers in ([wire.MAX_MESSAGES], [wire.MAX_AUTHORS])
            continue
        assert set(names) <= options
        factor = 2 if option.startswith("twice") else 1
        assert numbers == [factor * defaults[name[2:].replace("-", "_")] for name in names], option
