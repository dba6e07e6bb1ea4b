"""`/asyncapi.json`: the topics and purposes of the dispatcher, as AsyncAPI describes them."""

from __future__ import annotations

import asyncio
from importlib.metadata import version
from typing import Any

from starlette.responses import Response

from .. import wire
from ..asyncapi import document, encode
from ..operations import Internal
from .call import JSON_TYPE, Call


async def asyncapi(call: Call) -> Response:
    """Answer with the document of all topics."""
    assert call.grant is not None  # its right is "watch"
    infos = await call.host.ask(Internal.schemas.request({}), call.grant)
    servers = _servers(call)

    def write() -> bytes:
        return encode(document(infos, title="Solar Wind", version=version("solarwind"), servers=servers))

    # On a thread: with many purposes it is long, and needs time.
    return Response(await asyncio.to_thread(write), media_type=JSON_TYPE)


def _servers(call: Call) -> dict[str, Any]:
    """Return where clients connect: at the address that was asked."""
    url = call.request.url
    protocol = "wss" if url.scheme == "https" else "ws"
    server: dict[str, Any] = {
        "host": url.netloc,
        "pathname": (call.request.scope["root_path"] or "") + wire.PATH,
        "protocol": protocol,
        "protocolVersion": wire.SUBPROTOCOL,
    }
    if not call.host.access.open:
        server["security"] = [{"$ref": "#/components/securitySchemes/token"}]
    return {"dispatcher": server}
