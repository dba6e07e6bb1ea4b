"""Monitoring: liveness, readiness, and metrics for Prometheus."""

from __future__ import annotations

import asyncio

import msgspec
from starlette.responses import Response

from .call import Call, answer

METRICS = ("text/plain", "application/openmetrics-text")  # the media types of the answer, as the client accepts them


class Status(msgspec.Struct):
    status: str


async def healthz(call: Call) -> Response:
    """Answer that the process lives and its loop runs."""
    return answer(Status("alive"))


async def readyz(call: Call) -> Response:
    """Answer that it accepts events. Raise `Unavailable`, or the error after which the store accepts nothing any
    more."""
    call.host.check()
    return answer(Status("ready"))


async def metrics(call: Call) -> Response:
    from .metrics import ask, writing  # imported only when it is needed, because that is slow

    facts = await ask(call.host)
    write, content = writing(call.host, facts, call.request.headers.get("accept", ""))
    # On a thread: with many purposes the text is long, and needs time.
    return Response(await asyncio.to_thread(write), media_type=content)
