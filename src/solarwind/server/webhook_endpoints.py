"""The endpoints of webhooks."""

from __future__ import annotations

from typing import Annotated, Any, get_args

from msgspec import Meta, Struct
from starlette.exceptions import HTTPException
from starlette.responses import Response

from . import webhooks as known
from .call import JSON_TYPE, Call, answer, in_pieces

MAX_SPEC_BYTES = 32 << 10

WebhookView = Annotated[
    dict[str, Any],
    Meta(
        title="Webhook",
        description="Its specification and state, and its secret once: in the answer that creates it.",
        extra_json_schema={
            "required": ["topic", "purpose", "name", "state", "url", "exchange", "version"],
            "properties": {
                "state": {"enum": list(get_args(known.State))},
                "secret": {"type": "string"},
            },
        },
    ),
]


class WebhookList(Struct):
    webhooks: list[WebhookView]


async def every(call: Call, webhooks: known.Webhooks) -> Response:
    """Answer with the webhooks of all purposes."""
    return answer(WebhookList(await in_pieces(call, webhooks.every())))


async def all(call: Call, webhooks: known.Webhooks) -> Response:
    return answer(WebhookList(webhooks.list(call.topic, call.purpose)))


async def put(call: Call, webhooks: known.Webhooks) -> Response:
    """Register a webhook, or change it. Answer 201 if it is new."""
    if call.media_type != JSON_TYPE:
        raise HTTPException(415, f"expected a body of type {JSON_TYPE}, got {call.media_type[:80] or 'none'!a}")
    body = await call.body(min(call.host.settings.body_bytes, MAX_SPEC_BYTES))
    assert call.grant is not None
    new, shown = await webhooks.put(call.topic, call.purpose, call.part("name"), body, call.grant)
    return answer(shown, 201 if new else 200)


async def get(call: Call, webhooks: known.Webhooks) -> Response:
    return answer(webhooks.get(call.topic, call.purpose, call.part("name")))


async def delete(call: Call, webhooks: known.Webhooks) -> Response:
    assert call.grant is not None
    await webhooks.delete(call.topic, call.purpose, call.part("name"), call.grant)
    return Response(status_code=204)
