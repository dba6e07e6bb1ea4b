"""The operations on what is sent again, and on the webhooks of a server: a part of the table in `operations.py`."""

from __future__ import annotations

from .engine.operations import Operations
from .engine.request import Cli, Http, Operation

_PURPOSE = "/v1/topics/{topic}/purposes/{purpose}"
_WEBHOOK = f"{_PURPOSE}/webhooks/{{name}}"
_TELL = 'video.uploaded "Tell the shop"'
_RETRY = (
    "WhatToRetry",
    "What is handed out now: what waits for a retry, and with `dead` the dead letters too. With `dry_run` they are "
    "only counted.",
)


class Sending:
    """The operations on what is sent again, and on webhooks, of an engine or of a `SolarWind`."""

    retries = Operation(
        Operations.retries,
        repeat="question",
        http=Http("GET", f"{_PURPOSE}/retries", "What waits for a retry, the next one first", "retries"),
        cli=Cli(
            "retries",
            "The events of a purpose that wait for a retry, the next one first, in pages.",
            none="Nothing of {purpose!r} on {topic} waits for a retry.",
            options={"after": "The page behind an earlier one, which says its name.", "limit": "How many at most."},
            examples=(f"retries {_TELL}",),
        ),
    )
    retry = Operation(
        Operations.retry,
        http=Http("POST", f"{_PURPOSE}/retry", "Hand out now what waits for a retry", "retried", *_RETRY),
        cli=Cli(
            "retry",
            "Hand out now what waits for a retry.",
            "{} to be handed out now",
            says_dry="{} would be handed out now",
            none="0 events: nothing waits for a retry",
            options={"dead": "And the dead letters.", "dry_run": "Only count them."},
            consent=("dead",),
            examples=(f"retry {_TELL}", f"retry {_TELL} --dead --dry-run"),
        ),
    )
    webhooks = Operation(
        Operations.webhooks,
        to="engine",
        repeat="question",
        cli=Cli(
            "webhooks list",
            "The webhooks of a server, of one topic or of all, and how they stand.",
            none="No webhooks{on_topic}.",
            examples=("webhooks list",),
        ),
    )
    webhook_answers = Operation(
        Operations.webhook_answers,
        to="engine",
        repeat="question",
        http=Http("GET", f"{_WEBHOOK}/answers", "What a webhook's target answered last, the latest first", "answers"),
        cli=Cli(
            "webhooks answers",
            "What a webhook's target answered last, the latest first.",
            none="It has answered nothing since the server started.",
            options={"limit": "How many at most, up to 20."},
            examples=(f"webhooks answers {_TELL} shop",),
        ),
    )
    pause_webhook = Operation(
        Operations.pause_webhook,
        to="engine",
        http=Http("POST", f"{_WEBHOOK}/pause", "Pause a webhook"),
        cli=Cli(
            "webhooks pause",
            "Have a webhook send nothing until it is resumed: its events pend.",
            "webhook {name} of {purpose} on {topic} is paused",
            key="paused",
            examples=(f"webhooks pause {_TELL} shop",),
        ),
    )
    resume_webhook = Operation(
        Operations.resume_webhook,
        to="engine",
        http=Http("POST", f"{_WEBHOOK}/resume", "Resume a webhook that is paused"),
        cli=Cli(
            "webhooks resume",
            "Have a webhook that is paused go on.",
            "webhook {name} of {purpose} on {topic} is resumed",
            key="resumed",
            examples=(f"webhooks resume {_TELL} shop",),
        ),
    )
