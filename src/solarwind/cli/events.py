"""`fire` and `listen`: fires and prints events by hand, and from and to other programs."""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Any, BinaryIO

import typer

from ..errors import BadPayload, SolarWindError, TooLarge
from ..names import check_fired, check_id, check_key
from ..shares import read_rollout
from ..text import plain
from .options import DEFAULT_URL, JsonOption, TopicArgument, UrlOption, duration, moment, option, time, time_or_duration

if TYPE_CHECKING:
    import msgspec

    from ..event import Event
    from ..service.stream import Stream
    from ..wind import SolarWind

    Fault = tuple[int, SolarWindError]  # the number of a line, and its error

_READ_BYTES = 1 << 20  # the most of stdin that is fired together
_MAX_LINE_BYTES = (1 << 20) + 4096  # a payload of the largest size, and some space around it
_WRITE_BYTES = 4096  # a pipe that has room at all has room for this


# --- fire ---------------------------------------------------------------------------------------------------


def fire(
    topic: TopicArgument,
    payload: Annotated[
        str | None, typer.Argument(metavar="JSON|-", help="The payload; - reads it from stdin.", show_default=False)
    ] = None,
    lines: Annotated[bool, option("lines", "Fire each line of stdin as an event of its own.")] = False,
    key: Annotated[str | None, option("key", "What orders it for keyed purposes.")] = None,
    id: Annotated[
        str | None,
        option("id", "Its id; the same one again is not stored again. With --lines, line 3 of `x` is `x.3`."),
    ] = None,
    at: Annotated[
        str | None,
        option("at", "When it enters its topic: a time with its date, local without an offset.", metavar="TIME"),
    ] = None,
    after: Annotated[
        str | None, option("after", "How long from now it enters its topic, such as 30s or 2h.", metavar="DURATION")
    ] = None,
    expires: Annotated[
        str | None,
        option("expires", "When it is not handed out any more: a time, or so long from now (2h).", metavar="TIME"),
    ] = None,
    extension: Annotated[
        list[str] | None,
        option("extension", "Text by name that goes with it; may be repeated.", metavar="NAME=VALUE"),
    ] = None,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Fire an event, and print its id once it is accepted."""

    # Arguments are checked before a store is opened or created.
    check_fired(topic)
    if key is not None:
        check_key(key)
    if id is not None:
        check_id(id)
    stated = {"key": key, "extensions": _extensions(extension or []), **_times(at, after, expires)}
    if not lines:
        _fire_one(url, topic, _json(_payload(payload)), json, id=id, **stated)
    elif payload not in (None, "-"):
        raise typer.BadParameter(
            "expected payloads on stdin with --lines, got one as an argument: leave it out", param_hint="JSON"
        )
    else:
        _fire_lines(url, topic, json, id, **stated)


def _times(at: str | None, after: str | None, expires: str | None) -> dict[str, Any]:
    """Return when it is due and expires, as `fire` takes it: for lines too, the same for all of them."""
    from time import time_ns

    from ..timing import time_of, timed

    attributes = timed(
        time_ns(),
        at=None if at is None else time(at, "--at"),
        after=None if after is None else duration(after, "--after"),
        expires=None if expires is None else time_or_duration(expires, "--expires"),
    )
    return {("at" if field == "due" else field): time_of(each) for field, each in attributes.items()}


def _extensions(given: Sequence[str]) -> dict[str, str] | None:
    from ..columns import check_extensions

    found: dict[str, str] = {}
    for each in given:
        name, separator, value = each.partition("=")
        if not separator or name in found:
            wanted = "an extension as NAME=VALUE" if not separator else f"extension {name} once"
            got = "it again" if separator else ascii(each)
            raise typer.BadParameter(f"expected {wanted}, got {got}", param_hint="--extension")
        found[name] = value
    return check_extensions(found) if found else None


def _fire_one(url: str, topic: str, value: msgspec.Raw, json: bool, **stated: Any) -> None:
    from . import show
    from .reach import reach

    with reach(url, create=True) as wind:
        fired = wind.fire(topic, value, **stated).wait()
    if json:
        show.document({"id": fired})
    else:
        show.say(fired)


def _payload(argument: str | None) -> bytes:
    if argument is None:
        return b"null"
    if argument == "-":
        return sys.stdin.buffer.read(_MAX_LINE_BYTES + 1)
    return argument.encode("utf-8", "surrogateescape")


def _json(data: bytes) -> msgspec.Raw:
    """Return the payload as it is, once it has proved to be JSON that a handler can read."""
    import msgspec

    from ..payload import JSON, decode

    if len(data) > _MAX_LINE_BYTES:
        raise TooLarge("expected a payload of at most 1,048,576 bytes, got more: store it elsewhere, fire where it is")
    data = data.strip()
    try:
        decode(data, JSON)
    except BadPayload as error:
        first = data[:1].decode(errors="replace")
        hint = "; a text has double quotes around it, and a shell needs single quotes around those: '\"cat.mov\"'"
        raise BadPayload(f"{error}{hint if first.isalpha() or chr(39).encode() in data else ''}") from None
    return msgspec.Raw(data)


def _fire_lines(url: str, topic: str, json: bool, id: str | None, **stated: Any) -> None:
    """Fire lines as they arrive. The next part is read once this one is accepted, so that only one part is in
    memory."""
    from . import show
    from .reach import reach

    fired = number = 0
    with show.progress(f"firing on {topic}", "events") as report, reach(url, create=True) as wind:
        for part in _parts(sys.stdin.buffer):
            good, unread = _read(part, number)
            number += len(part)
            accepted, refused = wind.wait(_accept(wind, topic, id, stated, good))
            fired += accepted
            fault = refused or unread
            if fault is not None:
                line, error = fault
                raise type(error)(f"line {line}: {error}; fired before it: {show.counted(fired, 'event')}")
            report(fired, None)
    if json:
        show.document({"fired": fired})
    else:
        show.say(f"{show.counted(fired, 'event')} fired")


def _parts(file: BinaryIO) -> Iterator[list[bytes]]:
    """Yield the complete lines that have arrived, repeatedly, without waiting for further ones."""
    rest = b""
    while data := file.read1(_READ_BYTES):  # type: ignore[attr-defined]
        *lines, rest = (rest + data).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:  # it will be refused: the rest of it need not be read
            break
        if lines:
            yield lines
    if rest:
        yield [rest]


def _read(lines: Sequence[bytes], before: int) -> tuple[list[tuple[int, msgspec.Raw]], Fault | None]:
    """Return the payloads with the numbers of their lines, up to the first invalid one. Empty lines are skipped."""

    values = []
    for number, line in enumerate(lines, before + 1):
        if line.strip():
            try:
                values.append((number, _json(line)))
            except SolarWindError as error:
                return values, (number, error)
    return values, None


async def _accept(
    wind: SolarWind, topic: str, id: str | None, stated: dict[str, Any], values: Sequence[tuple[int, msgspec.Raw]]
) -> tuple[int, Fault | None]:
    """Fire, and wait until all is accepted. Return how many were, and the first that was not."""

    receipts = []
    unfired: Fault | None = None
    for number, value in values:
        try:
            own = None if id is None else f"{id}.{number}"
            receipts.append((number, wind.fire(topic, value, id=own, **stated)))
        except SolarWindError as error:
            unfired = number, error
            break
    accepted = 0
    refused: Fault | None = None
    for number, receipt in receipts:
        try:
            await receipt
            accepted += 1
        except SolarWindError as error:
            refused = refused or (number, error)
    return accepted, refused or unfired


# --- listen -------------------------------------------------------------------------------------------------


def listen(
    topic: TopicArgument,
    purpose: Annotated[str, option("purpose", "Why, in plain words.", show_default=False)],
    exchange: Annotated[str, option("exchange", "direct, fanout, keyed, or a plug-in.")] = "direct",
    count: Annotated[int | None, option("count", "Leave after so many events.", min=1)] = None,
    since: Annotated[
        str, option("since", "Where a new purpose begins: now, beginning, a time, or so long ago (2h).")
    ] = "now",
    key_field: Annotated[
        str | None, option("key-field", "For keyed: the payload's field that is the key, such as $.video_id.")
    ] = None,
    key_missing: Annotated[
        str, option("key-missing", "For keyed, an event without a key: handle it in no order, or reject it.")
    ] = "handle",
    version: Annotated[int, option("version", "The version of the purpose.", min=1)] = 1,
    rollout: Annotated[
        str, option("rollout", "What a new version does: newest, hold, shadow, or a share of the events, such as 0.1.")
    ] = "newest",
    delay: Annotated[
        str, option("delay", "How long after it was accepted the purpose gets an event, such as 30s or 2h.")
    ] = "0",
    rate: Annotated[
        str | None, option("rate", "How many events the purpose is handed out, over all its instances, such as 100/s.")
    ] = None,
    at_most: Annotated[
        int | None, option("at-most", "How many events of the purpose are in flight, over all its instances.", min=1)
    ] = None,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Print the events of a purpose, one a line.

    Each is settled once it is printed.
    """
    import asyncio

    from .reach import reach

    begin = moment(since, "--since")
    wind = reach(url, create=True)
    stream = wind.listen(
        *(topic, purpose),
        exchange=exchange,
        version=version,
        key=key_field,
        key_missing=key_missing,
        since=begin,
        rollout=read_rollout(rollout),
        delay=duration(delay, "--delay"),
        rate=rate,
        at_most=at_most,
    )
    try:
        asyncio.run(_listen(wind, stream, count, _json_line if json else _line))
    except BrokenPipeError:  # the reader has closed the pipe; what it did not read is not settled
        pass


async def _listen(wind: SolarWind, stream: Stream, count: int | None, shown: Callable[[Event], bytes]) -> None:
    import asyncio

    from .reach import leave_on_signals

    leave_on_signals()
    try:
        async with wind, stream:
            printed = 0
            async for event in stream:
                await _write(shown(event))
                stream.settle()
                printed += 1
                if printed == count:
                    return
    except asyncio.CancelledError:
        return


async def _write(data: bytes) -> None:
    """Print it. Where the reader is slow, the loop goes on: it renews leases and handles signals."""

    stdout = sys.stdout.fileno()
    for start in range(0, len(data), _WRITE_BYTES):
        await _until_writable(stdout)
        os.write(stdout, data[start : start + _WRITE_BYTES])


async def _until_writable(file: int) -> None:
    import asyncio

    poll = select.poll()
    poll.register(file, select.POLLOUT)
    if poll.poll(0):
        return
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(file, writable.set)
    try:
        await writable.wait()
    finally:
        loop.remove_writer(file)


def _json_line(event: Event) -> bytes:
    from . import show

    return show.line(show.event_record(event) | {"attempt": event.attempt})


def _line(event: Event) -> bytes:
    from . import show

    parts = [show.cell(event.time), plain(event.id)]
    if event.key is not None:
        parts.append(f"key={plain(event.key)}")
    if event.attempt > 1:
        parts.append(f"attempt={event.attempt}")
    return (" ".join([*parts, show.payload_text(event)]) + "\n").encode("utf-8", "backslashreplace")
