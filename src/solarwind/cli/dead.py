"""`dead`: what a purpose gave up, and what is to become of it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import NotFound
from .options import DEFAULT_URL, Json, Purpose, Topic, Url, consent, several_or_all

if TYPE_CHECKING:
    from ..records import DeadLetter

app = typer.Typer(no_args_is_help=True, help="Dead letters: events that a purpose gave up.")

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Event ids.", show_default=False)]
All = Annotated[bool, consent("all", "All dead letters of the purpose.")]


@app.command("list")
def list_(topic: Topic, purpose: Purpose, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """The dead letters of a purpose, in the order accepted."""
    from . import show
    from .reach import operate

    letters = operate(url, lambda wind: wind.dead(topic, purpose))
    if json:
        show.document([_record(letter) for letter in letters])
        return
    show.rows(
        ("ID", "DEAD SINCE", "ATTEMPTS", "ERROR"),
        [(each.event.id, each.time, each.attempts, each.error) for each in letters],
        none=f"No dead letters of {purpose!r} on {topic}.",
    )


@app.command("show")
def show_(
    topic: Topic,
    purpose: Purpose,
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)],
    url: Url = DEFAULT_URL,
    json: Json = False,
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
        show.document(_record(letter))
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
            "dead since": letter.time,
            "attempts": letter.attempts,
            "error": letter.error,
            "payload": show.payload_text(event),
        }
    )


@app.command()
def redrive(
    topic: Topic, purpose: Purpose, ids: Ids = None, all: All = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Hand dead letters out again, as if never tried."""
    from . import show
    from .reach import operate

    chosen = several_or_all(ids, all)
    count = operate(url, lambda wind: wind.redrive(topic, purpose, chosen))
    if json:
        show.document({"redriven": count})
    else:
        show.say(f"{show.counted(count, 'event')} to be handed out again")


@app.command()
def discard(
    topic: Topic, purpose: Purpose, ids: Ids = None, all: All = False, url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """Forget dead letters."""
    from . import show
    from .reach import operate

    chosen = several_or_all(ids, all)
    count = operate(url, lambda wind: wind.discard(topic, purpose, chosen))
    if json:
        show.document({"discarded": count})
    else:
        show.say(f"{show.counted(count, 'event')} discarded")


def _record(letter: DeadLetter) -> dict[str, Any]:
    from .show import event_record

    return {
        "event": event_record(letter.event),
        "error": letter.error,
        "attempts": letter.attempts,
        "time": letter.time,
    }
