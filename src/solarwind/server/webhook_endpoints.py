"""The endpoints of webhooks."""

from __future__ import annotations

from typing import Annotated, Any, get_args

import msgspec
from msgspec import Meta, Struct
from starlette.exceptions import HTTPException
from starlette.responses import Response

from . import webhooks as known
from .call import JSON_TYPE, Call, answer, in_pieces
from .delivery import WebhookSpec
from .schemas import COMPONENTS, PURPOSE, TOPIC, Schema

MAX_SPEC_BYTES = 32 << 10


def _shown() -> Schema:
    """Return the schema of a webhook as it is shown: its specification without what is secret, and its state."""
    _, components = msgspec.json.schema_components([WebhookSpec], ref_template=COMPONENTS)
    spec: Schema = components["WebhookSpec"]["properties"]
    text_or_null: Schema = {"type": ["string", "null"]}
    shown = {
        "topic": TOPIC,
        "purpose": PURPOSE,
        "name": TOPIC,
        "state": {"enum": list(get_args(known.State))},
        "reason": text_or_null,
        "failing_since": text_or_null | {"format": "date-time"},
        "paused_since": text_or_null | {"format": "date-time"},
        "owner": text_or_null,
        **{name: schema for name, schema in spec.items() if name not in ("secret", "token")},
    }
    return {"required": list(shown), "properties": {**shown, "secret": {"type": "string"}}}


WebhookView = Annotated[
    dict[str, Any],
    Meta(
        title="Webhook",
        description="Its specification and state, and its secret once: in the answer that creates it.",
        extra_json_schema=_shown(),
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
