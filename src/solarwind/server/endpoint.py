"""A row of the endpoint table in `http.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.responses import Response

Right = Literal["open", "any", "fire", "listen", "watch", "admin"]
Handler = Callable[..., Awaitable[Response]]  # gets the call, and a part of the server


class Endpoint(msgspec.Struct, frozen=True):
    """One HTTP endpoint. `right` is the right that the token must have, on the topic and, for `listen`, the purpose of
    the request; "any" is for every token. `handle` gets the call and, where `of` names one, that part of the server.
    `body` and `query` are the types of the request, `statuses` and `answer` those of the response: a type, or media
    types, of which the client may choose one."""

    method: str
    path: str
    right: Right
    handle: Handler
    summary: str
    answer: Any = None
    body: Any = None
    query: type[msgspec.Struct] | None = None
    statuses: tuple[int, ...] = (200,)
    streams: bool = False  # the answer has no end
    page: bool = False  # a link on a page of another site may lead there
    of: Literal["takes", "feeds", "viewers", "webhooks", "console"] | None = None
