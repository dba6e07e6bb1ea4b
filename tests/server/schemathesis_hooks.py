"""What schemathesis cannot know of these doors: loaded by it, see test_openapi.py."""

from __future__ import annotations

from typing import Any

import schemathesis

CLOUDEVENTS = ("application/cloudevents+json", "application/cloudevents-batch+json")


@schemathesis.hook
def before_call(context: Any, case: Any, kwargs: Any) -> None:
    """Adapt a request: nobody waits for events that do not come, a CloudEvent's type is the topic that it is sent to,
    a webhook is at an address that may be, on a topic where nothing is fired, and a schedule is one that is
    there, and so are a delayed event and the webhook that is asked about."""
    body = case.body
    if case.operation.path.endswith("/take") and isinstance(body, dict) and type(body.get("wait")) in (int, float):
        body["wait"] = min(body["wait"], 0.001)
    if case.media_type in CLOUDEVENTS:
        for event in body if isinstance(body, list) else [body]:
            if isinstance(event, dict) and isinstance(event.get("type"), str):
                event["type"] = case.path_parameters["topic"]
    if case.operation.path.startswith("/v1/schedules/"):
        case.path_parameters["name"] = "daily" if case.method != "DELETE" else "removed"
    if case.operation.path.endswith("/delayed/{id}") and case.method == "GET":
        case.path_parameters |= {"topic": "T", "id": "later"}
    if "/webhooks/{name}/" in case.operation.path:
        case.path_parameters |= {"topic": "silent", "purpose": "known", "name": "known"}
    if case.method == "PUT" and isinstance(body, dict) and str(body.get("url")).startswith(("http://", "https://")):
        body["url"], body["handshake"] = "http://127.0.0.1:9/hook", False
        case.path_parameters["topic"] = "silent"
