"""`dead`: the dead letters of a purpose. All subcommands but `show` are made from the table of operations."""

from __future__ import annotations

from typing import Annotated

import typer

from ..errors import NotFound
from .operations import record
from .options import DEFAULT_URL, JsonOption, PurposeArgument, TopicArgument, UrlOption

app = typer.Typer(no_args_is_help=True, help="Dead letters: events that a purpose gave up.")


def show_(
    topic: TopicArgument,
    purpose: PurposeArgument,
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """One dead letter, with its payload and its error."""
    from . import show
    from .reach import operate

    found = [letter for letter in operate(url, lambda wind: wind.dead(topic, purpose)) if letter.event.id == id]
    if not found:
        raise NotFound(
            f"expected the id of a dead letter of {purpose!r} on {topic!r}, got {id!a}, which is none: "
            "see `solarwind dead list`"
        )
    letter = found[0]
    if json:
        show.document(record(letter))
        return
    event = letter.event
    show.fields(
        {
            "id": event.id,
            "topic": event.topic,
            "purpose": purpose,
            "fired": event.time,
            "by": f"{event.process} on {event.machine}",
            "key": event.key,
            "cause": f"{event.cause.kind} {event.cause.id}",
            "root": event.root,
            **event.extensions,
            "dead since": letter.time,
            "attempts": letter.attempts,
            "error": letter.error,
            "payload": show.payload_text(event),
        }
    )
