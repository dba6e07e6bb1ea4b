"""The table of operations: everything that can be asked of a dispatcher, one row each.

A row names the method of `engine/operations.py` that does it, the right it needs, where it is routed on a cluster, and
its HTTP endpoint and command. The methods of `SolarWind`, the `call` messages of the protocol and both ends of them,
the endpoints, `/openapi.json` and the commands are made from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from .engine.base import Engine
from .engine.operations import Operations
from .engine.request import Cli, Http, Operation, Owns, Request
from .loops import on_loop
from .options import check_order
from .records import PurposeInfo, Statistics, TopicInfo

R = TypeVar("R")


def _topics(parts: Sequence[tuple[list[TopicInfo], Owns]]) -> list[TopicInfo]:
    return sorted((each for found, owns in parts for each in found if owns(each.topic)), key=lambda each: each.topic)


def _purposes(parts: Sequence[tuple[list[PurposeInfo], Owns]]) -> list[PurposeInfo]:
    return sorted((each for found, _ in parts for each in found), key=lambda each: (each.topic, each.purpose))


def _statistics(parts: Sequence[tuple[Statistics, Owns]]) -> Statistics:
    topics = {name: counts for found, owns in parts for name, counts in found.topics.items() if owns(name)}
    purposes = {names: counts for found, _ in parts for names, counts in found.purposes.items()}
    return Statistics(dict(sorted(topics.items())), dict(sorted(purposes.items())))


_TOPIC = "/v1/topics/{topic}"
_PURPOSE = f"{_TOPIC}/purposes/{{purpose}}"
_ENCODE = 'video.uploaded "Encode video to MP4"'
# The name and the description of a body.
_LETTERS = "Letters", "Which dead letters: those with these `ids`, or `all`."
_SPAN = (
    "Span",
    "A part of the history: `now`, `beginning`, a time such as 2026-01-31T12:00:00Z, or so long ago such as 2h.",
)
_KEEP = (
    "TopicSettings",
    "How much history a topic keeps: events up to `keep` seconds old, `keep_bytes` at most. Null is the default again, "
    "and no bound; what is left out stays as it is.",
)


class Operator:
    """The operations for operators, of an engine or of a `SolarWind`."""

    topics = Operation(
        Operations.topics,
        to="all",
        merge=_topics,
        repeat="question",
        http=Http("GET", "/v1/topics", "All topics, and their history", "topics"),
        cli=Cli("topics", "The topics, and how much history each keeps.", none="No topics."),
    )
    purposes = Operation(
        Operations.purposes,
        to="all",
        merge=_purposes,
        repeat="question",
        http=Http("GET", "/v1/purposes", "The purposes, of one topic or of all", "purposes"),
        cli=Cli(
            "purposes",
            "The purposes, of one topic or of all, and how they stand.",
            none="No purposes{on_topic}.",
            examples=("purposes video.uploaded",),
        ),
    )
    statistics = Operation(
        Operations.statistics,
        to="all",
        merge=_statistics,
        repeat="question",
        http=Http("GET", "/v1/statistics", "How everything stands"),
    )
    dead = Operation(
        Operations.dead,
        repeat="question",
        http=Http("GET", f"{_PURPOSE}/dead", "Dead letters", "dead"),
        cli=Cli(
            "dead list",
            "The dead letters of a purpose, in the order accepted, in pages.",
            none="No dead letters of {purpose!r} on {topic}.",
            options={"after": "The page behind an earlier one, which says its name.", "limit": "How many at most."},
            examples=(f"dead list {_ENCODE}",),
        ),
    )
    redrive = Operation(
        Operations.redrive,
        http=Http("POST", f"{_PURPOSE}/dead/redrive", "Hand dead letters out again", "redriven", *_LETTERS),
        cli=Cli(
            "dead redrive",
            "Hand dead letters out again, as if never tried.",
            "{} to be handed out again",
            examples=(f"dead redrive {_ENCODE} --all",),
        ),
    )
    discard = Operation(
        Operations.discard,
        http=Http("POST", f"{_PURPOSE}/dead/discard", "Forget dead letters", "discarded", *_LETTERS),
        cli=Cli(
            "dead discard", "Forget dead letters.", "{} discarded", examples=(f"dead discard {_ENCODE} upload-17",)
        ),
    )
    replay = Operation(
        Operations.replay,
        check=check_order,
        http=Http("POST", f"{_PURPOSE}/replay", "Make history pend again", "replayed", *_SPAN),
        cli=Cli(
            "replay",
            "Make a topic's history pend again for a purpose.",
            "{} to be handed out again",
            options={"since": "From: beginning, now, a time, or so long ago (2h).", "until": "Up to: the same."},
            examples=(f"replay {_ENCODE} --since 1h",),
        ),
    )
    retire = Operation(
        Operations.retire,
        http=Http("DELETE", _PURPOSE, "Retire a purpose"),
        cli=Cli(
            "retire",
            "Forget a purpose: its events do not pend any more.",
            "{purpose} on {topic} is retired",
            key="retired",
            options={"force": "Even if events, dead letters or instances are left."},
            consent=("force",),
            examples=(f"retire {_ENCODE} --force",),
        ),
    )
    trace = Operation(
        Operations.trace,
        to="engine",
        repeat="question",
        http=Http("GET", "/v1/trace/{id}", "An event and what it caused"),
        cli=Cli(
            "trace",
            "An event, and the tree of what it caused.",
            options={"after": "Only what it caused after that event.", "limit": "How many events at most."},
            examples=("trace upload-17",),
        ),
    )
    backup = Operation(Operations.backup, to="engine")
    owners = Operation(
        Operations.owners,
        to="engine",
        repeat="question",
        cli=Cli(
            "owners",
            "Which process owns which topics, on NATS.",
            none="No topics.",
            examples=("owners --url nats://n1,n2,n3/shop",),
        ),
    )


class Internal(Operator):
    """The operations that services need besides, and the setting of how much history a topic keeps."""

    topic = Operation(Operations.topic, repeat="question", http=Http("GET", _TOPIC, "A topic, and its history"))
    purpose = Operation(
        Operations.purpose, repeat="question", http=Http("GET", _PURPOSE, "A purpose, and how it stands")
    )
    letter = Operation(
        Operations.letter,
        repeat="question",
        cli=Cli(
            "dead show",
            "One dead letter, with its payload and its error.",
            examples=(f"dead show {_ENCODE} upload-17",),
        ),
    )
    keep = Operation(
        Operations.keep,
        makes=True,
        repeat="always",
        http=Http("PUT", _TOPIC, "Say how much history a topic keeps", "", *_KEEP),
        cli=Cli(
            "topics set",
            "Say how much history a topic keeps.",
            options={
                "keep": "How long events are kept, such as 12h, 7d or 0; or default.",
                "keep_bytes": "How many bytes of them are kept at most; or none.",
            },
            examples=("topics set video.uploaded --keep 30d", "topics set video.uploaded --keep-bytes none"),
        ),
    )
    idle = Operation(Operations.idle, right="own", to="engine", repeat="always")
    left = Operation(Operations.left, right="own", to="engine", repeat="question")


class Asking(Operator):
    """The part of a `SolarWind` that calls its engine's operations, from any loop."""

    _engine: Engine
    _loop: asyncio.AbstractEventLoop | None

    async def ask(self, request: Request[R]) -> R:
        """Do one of the operations and return its answer. Raise what it raises."""
        return await on_loop(self._loop, self._engine.ask(request))


def _rows(tables: Iterable[type]) -> dict[str, Operation[..., Any]]:
    return {name: each for of in tables for name, each in vars(of).items() if isinstance(each, Operation)}


OPERATIONS = _rows((Operator, Internal))
