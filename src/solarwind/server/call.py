"""One HTTP request: reading it within limits, checking its rights, and the problem details that answer a refused
one."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from functools import cached_property
from http import HTTPStatus
from typing import Any, TypeVar
from urllib.parse import parse_qsl, unquote

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from ..errors import (
    BadArgument,
    BadName,
    BadToken,
    Busy,
    ConflictError,
    NotAllowed,
    NotFound,
    SolarWindError,
    StoreError,
    TooLarge,
    Unavailable,
)
from ..names import check_purpose, check_topic
from ..origin import MACHINE
from ..peer.time_slices import PIECE_BYTES
from ..text import escape_controls
from .access import Grant
from .admission import ADMITTED, Admitted
from .faults import read_body, read_query
from .host import ServerHost
from .json_check import check_long_json

T = TypeVar("T")
S = TypeVar("S", bound=msgspec.Struct)

JSON_TYPE = "application/json"
PROBLEM_TYPE = "application/problem+json"
AGAIN_S = "1"  # Retry-After, for errors that may pass
# The first match counts. Other errors of the caller are 400, and all others 500.
STATUS: tuple[tuple[type[SolarWindError], int], ...] = (
    (BadToken, 401),
    (NotAllowed, 403),
    (NotFound, 404),
    (ConflictError, 409),
    (TooLarge, 413),
    (Busy, 429),
    (Unavailable, 503),
    (StoreError, 503),
)

MAX_JSON_BYTES = 4 << 20  # for a body that is no event: it is decoded at once
LAST_WORDS_S = 0.5  # how long the body of a refused request is still read, so that its sender reads the answer
_ITEM_BYTES = 256  # the cost of making an item, in bytes written
_VALUES = 16  # JSON values allowed in a body for each id that it may hold
_MAX_WHOLE = 1 << 53  # above it a float may stand for several integers

encode = msgspec.json.Encoder().encode


class Call:
    """One request, with the rights of its token."""

    def __init__(self, host: ServerHost, request: Request) -> None:
        self.host = host
        self.request = request
        self.grant: Grant | None = None  # once it is known
        self._receive = request.receive
        self._more = True  # there may be more of the body
        self._begun = False
        self._gone = False
        self._task = asyncio.current_task()
        self._refusal: SolarWindError | None = None

    # Rights --------------------------------------------------------------------------------------------

    def refuse(self, error: SolarWindError) -> None:
        """End the request with this error, because its right has ended."""
        self._refusal = error
        if self._task is not None:
            self._task.cancel()

    def refused(self) -> BaseException:
        """Return what a `CancelledError` means: the error that it was refused with, or the cancellation itself."""
        if self._refusal is None or self._task is None or self._task.uncancel():
            return asyncio.CancelledError()
        return self._refusal

    # Content -------------------------------------------------------------------------------------------

    @cached_property
    def topic(self) -> str:
        """The topic in the path. Raise `BadName`."""
        return check_topic(self.part("topic"))

    @cached_property
    def purpose(self) -> str:
        """The purpose in the path or, where that has none, in the query. Raise `BadName`, or `BadArgument` if there is
        none."""
        if "purpose" in self.request.path_params:
            return check_purpose(self.part("purpose"))
        if "purpose" not in self.parameters:
            raise BadArgument("expected the parameter purpose, got none: name one, such as ?purpose=Live%20page")
        return check_purpose(self.parameters["purpose"])

    def part(self, name: str) -> str:
        """Return a decoded part of the path, which may have any character in it, a slash too. Raise `BadName`."""
        try:
            return unquote(self.request.path_params[name], errors="strict")
        except UnicodeDecodeError:
            raise BadName(f"expected a {name} in percent-encoded UTF-8, got other bytes") from None

    @cached_property
    def parameters(self) -> dict[str, str]:
        """The query by name. Raise `BadArgument`."""
        try:
            query = self.request.scope["query_string"].decode("ascii")
            pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=False, errors="strict")
        except ValueError:
            raise BadArgument("expected a query in percent-encoded UTF-8, got another") from None
        twice = [name for name, count in Counter(name for name, _ in pairs).items() if count > 1]
        if twice:
            raise BadArgument(f"expected parameter {twice[0][:80]!a} once, got it more often")
        return dict(pairs)

    def query(self, kind: type[S]) -> S:
        """Return the query as a struct. Raise `BadArgument`."""
        return read_query(self.parameters, kind)

    @property
    def admitted(self) -> Admitted | None:
        """The connection, where it is from our own listener: see listener.py."""
        found: Admitted | None = self.request.scope.get("state", {}).get(ADMITTED)
        return found

    @property
    def uid(self) -> int | None:
        """The client's user, where it came by a Unix socket."""
        return self.admitted.uid if self.admitted is not None else None

    @property
    def address(self) -> str:
        """The client's address, or this machine's name."""
        if self.uid is not None:
            return MACHINE
        client = self.request.client
        return client.host if client is not None else "unknown"

    @property
    def media_type(self) -> str:
        """The body's media type without parameters, in lower case; empty if it is not given."""
        return self.request.headers.get("content-type", "").partition(";")[0].strip().lower()

    async def json(self, kind: type[T]) -> T:
        """Return the JSON body as a struct; no body at all is an empty object. Raise `BadArgument` for a wrong field,
        `BadPayload`, `TooLarge`."""
        body = await self.body(min(self.host.settings.body_bytes, MAX_JSON_BYTES))
        if not body and not self.media_type:
            body = b"{}"
        elif self.media_type != JSON_TYPE:
            got = ascii(self.media_type[:80]) if self.media_type else "none: say it as content-type"
            raise HTTPException(415, f"expected a body of type {JSON_TYPE}, got {got}")
        settings = self.host.settings
        await check_long_json(body, settings.nesting, self.host.slices, max_values=_VALUES * settings.ids + _VALUES)
        try:
            return read_body(body, kind)
        except BadArgument:  # JSON knows only numbers: some encoders write the integer 3 as 3.0
            if len(body) > PIECE_BYTES:  # lists, in which there are none
                raise
            return read_body(encode(_whole(msgspec.json.decode(body))), kind)

    async def no_body(self) -> None:
        """Refuse a body with anything in it where nothing is read: what it says would not be done. Raise
        `BadArgument`, and what `json` raises."""
        body = await self.body(min(self.host.settings.body_bytes, MAX_JSON_BYTES))
        if body.strip() not in (b"", b"{}"):
            raise BadArgument(f"expected no body, got {body[:80]!a}: all that is to be said is in the path")

    async def body(self, max_bytes: int) -> bytes:
        """Return the whole body. Raise `TooLarge`, `Busy`, and `ClientGone`."""
        length = self.request.headers.get("content-length", "0")
        if length.isdecimal() and int(length) > max_bytes:
            raise TooLarge(f"expected a body of at most {max_bytes:,} bytes, got {int(length):,}")
        parts, size, bodies = [], 0, self.host.bodies
        try:
            async for part in self.chunks():
                bodies.reserve(len(part))
                size += len(part)
                if size > max_bytes:
                    raise TooLarge(f"expected a body of at most {max_bytes:,} bytes, got more")
                parts.append(part)
            return b"".join(parts)
        finally:
            bodies.release(size)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body in chunks as they arrive. Raise `ClientGone`."""
        while self._more:
            self._begun = True
            message = await self._receive()
            if message["type"] == "http.disconnect":
                self._more, self._gone = False, True
                raise ClientGone
            self._more = message.get("more_body", False)
            yield message.pop("body", b"")  # not kept here until the next comes

    async def drain(self) -> bool:
        """Read the rest of the body for a moment, so that a client that is still sending gets to read the refusal. One
        that waits for `100 Continue` is refused. Return whether the body is complete."""
        if not self._begun and self.request.headers.get("expect", "").lower() == "100-continue":
            return False
        left = self.host.settings.body_bytes
        try:
            async with asyncio.timeout(self.host.settings.authenticate_s if self._refusal is None else LAST_WORDS_S):
                async for part in self.chunks():
                    left -= len(part)
                    del part
                    if left < 0:
                        return False
        except ClientGone:
            pass
        except TimeoutError:
            return False
        return True

    async def gone(self) -> None:
        """Wait until the client has disconnected. The body must have been read."""
        while not self._gone:
            self._gone = (await self._receive())["type"] == "http.disconnect"


def _whole(value: Any) -> Any:
    """Return the value with floats that are whole numbers as ints."""
    if isinstance(value, float) and value.is_integer() and abs(value) < _MAX_WHOLE:
        return int(value)
    if isinstance(value, list):
        return [_whole(each) for each in value]
    return {name: _whole(each) for name, each in value.items()} if isinstance(value, dict) else value


class ClientGone(Exception):
    """The client disconnected before its request was complete, so nothing is answered."""


# Answers ------------------------------------------------------------------------------------------------


async def in_pieces(call: Call, items: Iterable[Any]) -> list[Any]:
    """Return the items as JSON for a long answer. They are made one by one, in turn with other work."""
    written: list[Any] = []
    items, slices = iter(items), call.host.slices
    more = True
    while more:
        await slices.next()
        with slices.piece():
            more, size = False, 0
            for item in items:
                written.append(msgspec.Raw(encode(item)))
                size += _ITEM_BYTES + len(written[-1])
                if more := size > PIECE_BYTES:
                    break
    return written


def answer(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return Response(escape_controls(encode(value)), status, headers, JSON_TYPE)


def problem(error: SolarWindError, **members: Any) -> Response:
    """Return the error as problem details (RFC 9457), with further `members`."""
    status = next((status for kind, status in STATUS if isinstance(error, kind)), None)
    if status is None:
        status = 400 if error.fault in ("caller", "peer") else 500
    headers = {}
    if status == 401:
        headers["www-authenticate"] = "Bearer"
    elif status in (429, 503):
        headers["retry-after"] = AGAIN_S
    return problem_of(status, error.code, str(error), headers, **members)


def problem_of(status: int, code: str, detail: str, headers: dict[str, str] | None = None, **members: Any) -> Response:
    title = HTTPStatus(status).phrase
    said = {"type": "about:blank", "title": title, "status": status, "detail": detail, "code": code, **members}
    return Response(escape_controls(encode(said)), status, headers, PROBLEM_TYPE)
