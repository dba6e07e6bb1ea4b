"""The HTTP endpoints: the table of them, their rights, and what is common to all."""

from __future__ import annotations

import asyncio
import logging
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any, Protocol
from urllib.parse import quote

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router
from starlette.types import Receive, Scope, Send

from .. import wire
from ..errors import BadArgument, NotFound, SolarWindError
from ..names import check_fired
from . import console as page
from . import events, feed, health, openapi, operate, take, viewers, webhooks
from . import webhook_endpoints as hooks
from .access import Grant
from .asyncapi import asyncapi
from .call import Call, ClientGone, problem, problem_of
from .delivery import WebhookSpec
from .endpoint import Endpoint, Right
from .host import ServerHost

log = logging.getLogger("solarwind")

_TOPIC = "/v1/topics/{topic}"
_PURPOSE = f"{_TOPIC}/purposes/{{purpose}}"
_WEBHOOK = f"{_PURPOSE}/webhooks/{{name}}"

_IDENTITY = "identity"


async def _connect(call: Call) -> Response:
    """Refuse a plain HTTP request: a WebSocket handshake never comes here."""
    raise HTTPException(426, f"expected a WebSocket of {wire.SUBPROTOCOL}, got a request", {"upgrade": "websocket"})


async def _openapi(call: Call) -> Response:
    return openapi.answer(_document(call.request.scope["root_path"] or "/"))


@lru_cache(maxsize=16)
def _document(root: str) -> bytes:
    return openapi.document_of(ENDPOINTS, root)


class ServerParts(Protocol):
    """The parts of the server that endpoints belong to."""

    takes: take.Takes
    feeds: feed.Feeds
    viewers: viewers.Viewers
    webhooks: webhooks.Webhooks
    console: page.Console


# fmt: off
ENDPOINTS: tuple[Endpoint, ...] = (
    Endpoint("POST", f"{_TOPIC}/events", "fire", events.fire, "Fire events", events.Accepted,
              query=events.FireQuery, statuses=(202,)),
    Endpoint("POST", f"{_PURPOSE}/take", "listen", take.take, "Take events to handle", take.Taken, take.Take,
             of="takes"),
    Endpoint("POST", f"{_PURPOSE}/settle", "listen", take.settle, "Say what became of events that were taken",
             take.Settled, take.Settle, of="takes"),
    Endpoint("GET", f"{_TOPIC}/feed", "listen", feed.feed, "Events as they come, as server-sent events",
              ("text/event-stream",), query=feed.FeedQuery, streams=True, of="feeds"),
    Endpoint("GET", "/v1/watch", "watch", viewers.watch, "All facts and their changes, as server-sent events",
              ("text/event-stream",), query=viewers.WatchQuery, streams=True, of="viewers"),
    Endpoint("GET", f"{_PURPOSE}/webhooks", "listen", hooks.all, "The webhooks of a purpose", hooks.WebhookList,
             of="webhooks"),
    Endpoint("GET", "/v1/webhooks", "admin", hooks.every, "All webhooks", hooks.WebhookList, of="webhooks"),
    Endpoint("PUT", _WEBHOOK, "listen", hooks.put, "Register a webhook, or change it", hooks.WebhookView, WebhookSpec,
              statuses=(200, 201), of="webhooks"),
    Endpoint("GET", _WEBHOOK, "listen", hooks.get, "A webhook", hooks.WebhookView, of="webhooks"),
    Endpoint("DELETE", _WEBHOOK, "listen", hooks.delete, "Take a webhook away", statuses=(204,), of="webhooks"),
    *operate.ENDPOINTS,
    Endpoint("GET", wire.PATH, "open", _connect, "The WebSocket of clients that speak solarwind.v1", statuses=(101,)),
    Endpoint("GET", "/metrics", "watch", health.metrics, "Metrics for Prometheus", health.METRICS),
    Endpoint("GET", "/healthz", "open", health.healthz, "Whether it lives", health.Status),
    Endpoint("GET", "/readyz", "open", health.readyz, "Whether it takes events", health.Status),
    Endpoint("GET", "/v1/token", "any", page.rights, "What the token may do", page.Rights),
    Endpoint("GET", "/console", "open", page.begin, "The way to the console", statuses=(308,), page=True,
              of="console"),
    Endpoint("GET", "/console/{file}", "open", page.file, "The files of the console", ("text/html",), page=True,
              of="console"),
    Endpoint("GET", "/asyncapi.json", "watch", asyncapi, "Topics, purposes and payloads, as AsyncAPI 3.1",
              dict[str, Any]),
    Endpoint("GET", "/openapi.json", "open", _openapi, "This description", dict[str, Any]),
)
# fmt: on


class HttpApp:
    """All endpoints, as an ASGI app."""

    def __init__(self, host: ServerHost, parts: ServerParts) -> None:
        by_path: dict[str, dict[str, Endpoint]] = {}
        for each in ENDPOINTS:
            by_path.setdefault(each.path, {})[each.method] = each
        self._router = Router(
            [
                Route(path.replace("{file}", "{file:path}"), _Path(host, parts, path, there))
                for path, there in by_path.items()
            ],
            redirect_slashes=False,
            default=_Path(host, parts, "", {}),
        )

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Matched percent-encoded, as it was sent: a purpose may have a slash in it.
        raw = scope.get("raw_path") or quote(scope["path"]).encode()
        inner = {**scope, "path": raw.decode("latin-1"), "root_path": quote(scope.get("root_path", ""))}
        await self._router(inner, receive, send)


class _Path:
    """A path and its endpoints by method; none for an unknown path."""

    def __init__(self, host: ServerHost, parts: ServerParts, path: str, there: dict[str, Endpoint]) -> None:
        self._host = host
        self._parts = parts
        self._path = path
        self._there = there

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        call = Call(self._host, Request(scope, receive))
        try:
            response = await self._answer(call)
        except ClientGone:
            return
        except SolarWindError as error:
            response = problem(error)
        except HTTPException as error:
            code = HTTPStatus(error.status_code).phrase.lower().replace(" ", "-")
            response = problem_of(error.status_code, code, error.detail, dict(error.headers or {}))
        except Exception as error:
            log.exception("a request to %s could not be answered", self._path)
            detail = f"the server failed with {type(error).__name__}: see its log"
            response = problem_of(500, SolarWindError.code, detail)
        if response.status_code >= 400 and not await call.drain() and scope["http_version"] in ("1.0", "1.1"):
            response.headers["connection"] = "close"
        method = scope["method"] if self._find(scope["method"]) else "other"
        self._host.requests[method, self._path, response.status_code] += 1
        response.headers.setdefault("cache-control", "no-store")
        response.raw_headers += [(b"x-content-type-options", b"nosniff"), *self._host.guard.cors(scope["headers"])]
        await response(scope, receive, send)

    async def _answer(self, call: Call) -> Response:
        """Return the response. Raise the error for which there is none."""
        host, request = call.host, call.request
        headers = request.scope["headers"]
        page = any(each.page for each in self._there.values())
        host.guard.check(request.scope["scheme"], headers, (request.scope.get("server") or (None,))[0], page=page)
        if not self._there:
            raise NotFound("expected a path that /openapi.json lists, got another")  # there may be a token in it
        allow = ", ".join(sorted({*self._there, "OPTIONS", *(["HEAD"] if self._find("HEAD") else [])}))
        if request.method == "OPTIONS":
            preflight = host.guard.preflight(headers)
            response = Response(status_code=204)
            response.raw_headers += preflight if preflight is not None else [(b"allow", allow.encode())]
            return response
        endpoint = self._find(request.method)
        if endpoint is None:
            raise HTTPException(405, f"expected method {allow}, got {request.method[:20]!a}", {"allow": allow})
        if endpoint.right != "open":
            if not host.running:
                raise host.not_running()
            self._check_right(call, endpoint.right)
        if endpoint.query is None and call.parameters:
            raise BadArgument(f"expected no parameters, got {min(call.parameters)[:80]!a}")
        coding = request.headers.get("content-encoding", _IDENTITY)
        if coding.lower() != _IDENTITY:
            raise HTTPException(415, f"expected a body as it is, got it in {coding[:80]!a}: send it unpacked")
        parts = () if endpoint.of is None else (getattr(self._parts, endpoint.of),)
        if call.grant is None:
            return await endpoint.handle(call, *parts)
        use = host.revocables.begin(call.grant, partial(_check_right, call, endpoint.right), call.refuse)
        try:
            return await endpoint.handle(call, *parts)
        except asyncio.CancelledError:
            raise call.refused() from None
        finally:
            use.close()

    def _find(self, method: str) -> Endpoint | None:
        """Return the endpoint for a method. HEAD is GET without the body, but for a stream, which has no end."""
        if method != "HEAD":
            return self._there.get(method)
        found = self._there.get("GET")
        return found if found is not None and not found.streams else None

    def _check_right(self, call: Call, right: Right) -> None:
        """Raise `BadToken` or `NotAllowed` unless the request has the right."""
        call.grant = call.host.guard.grant(call.request.scope["headers"], call.uid)
        _check_right(call, right, call.grant)
        if call.admitted is not None:
            call.admitted.welcome()


def _check_right(call: Call, right: Right, grant: Grant) -> None:
    """Raise `NotAllowed` unless the grant has the right."""
    if right == "fire":
        grant.check_fire(check_fired(call.topic))
    elif right == "listen":
        grant.check_listen(call.topic, call.purpose)
    elif right == "watch":
        grant.check_watch()
    elif right == "admin":
        grant.check_admin()
