"""One thing that can be asked by HTTP: a row of the table in `http.py`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Literal

import msgspec
from starlette.responses import Response

from .call import Call

Right = Literal["open", "fire", "listen", "admin"]
Handler = Callable[[Call], Awaitable[Response]]


class Endpoint(msgspec.Struct, frozen=True):
    """`right` is what the bearer of the token must have: on the topic, and for `listen` the purpose, that the request
    names. `body` and `query` are what it may say, `statuses` and `answer` what it gets: a type, or a media type.
    """

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
