"""The table of operations: everything that can be asked of a dispatcher, one row each.

A row names the method of `engine/operations.py` that does it, the right it needs, where it is routed on a cluster, and
its HTTP endpoint and command. The methods of `SolarWind`, the `call` messages of the protocol and both ends of them,
the endpoints, `/openapi.json` and the commands are made from it.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from .describing import Describing, Stating
from .engine import merging
from .engine.arguments import PARTS
from .engine.base import Engine
from .engine.operations import Operations
from .engine.request import Cli, Http, Operation, Request, Restated
from .loops import on_loop
from .options import check_order
from .origin import user_name
from .records import Attention, sorted_attention
from .scheduling import Scheduling, Ticking
from .sending import Sending

R = TypeVar("R")
Answers = Mapping[str, Callable[[Request[Any]], Awaitable[Any]]]  # what a part of this process does, by operation

_TOPIC = "/v1/topics/{topic}"
_PURPOSE = f"{_TOPIC}/purposes/{{purpose}}"
_ENCODE = 'video.uploaded "Encode video to MP4"'
# The name and the description of a body.
_LETTERS = "Letters", "Which dead letters: those with these `ids`, or `all`."
_REDRIVEN = "LettersRedriven", "Which dead letters: those with these `ids`, or `all`; and to which `version` alone."
_SHARE = "VersionShare", "A version, and its `share` of the events, from 0 to 1."
_SHADOW = "VersionShadow", "Which version is to be a shadow."
_PROMOTED = "VersionPromoted", "Which version is to be current."
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
        merge=merging.topics_of_all,
        repeat="question",
        http=Http("GET", "/v1/topics", "All topics, and their history", "topics"),
        cli=Cli("topics", "The topics, and how much history each keeps.", none="No topics."),
    )
    purposes = Operation(
        Operations.purposes,
        to="all",
        merge=merging.purposes_of_all,
        repeat="question",
        http=Http("GET", "/v1/purposes", "The purposes, of one topic or of all", "purposes"),
        cli=Cli(
            "purposes",
            "The purposes, of one topic or of all, and how they stand.",
            none="No purposes{on_topic}.",
            examples=("purposes video.uploaded",),
        ),
    )
    instances = Operation(
        Operations.instances,
        to="all",
        merge=merging.instances_of_all,
        repeat="question",
        http=Http("GET", "/v1/instances", "The live instances of the purposes, of one topic or of all", "instances"),
        cli=Cli(
            "instances",
            "The live instances of the purposes, of one topic or of all.",
            none="No instances{on_topic}.",
            examples=("instances video.uploaded",),
        ),
    )
    stores = Operation(
        Operations.stores,
        to="all",
        merge=merging.stores_of_all,
        repeat="question",
        http=Http("GET", "/v1/stores", "The stores: their room, and how long commits take", "stores"),
        cli=Cli("stores", "The store of each dispatcher: its room, and how long commits take.", none="No stores."),
    )
    attention = Operation(
        Operations.attention,
        to="all",
        merge=merging.attention_of_all,
        repeat="question",
        http=Http("GET", "/v1/attention", "What needs a person, the most urgent first", "attention"),
        cli=Cli(
            "attention",
            "What needs a person, the most urgent first.",
            none="Nothing needs anybody.",
            options={"limit": "How many at most."},
            examples=("attention",),
        ),
    )
    rates = Operation(
        Operations.rates,
        repeat="question",
        http=Http("GET", f"{_PURPOSE}/rates", "How many events in the last five minutes, hour and day"),
        cli=Cli(
            "rates",
            "How many events a purpose had in the last five minutes, hour and day.",
            examples=(f"rates {_ENCODE}",),
        ),
    )
    all_rates = Operation(
        Operations.all_rates,
        to="all",
        merge=merging.rates_of_all,
        repeat="question",
        http=Http(
            "GET", "/v1/rates", "How many events all purposes had together in the last five minutes, hour and day"
        ),
    )
    audit = Operation(
        Operations.audit,
        to="engine",
        repeat="question",
        http=Http("GET", "/v1/audit", "Who did what, the latest first", "audit"),
        cli=Cli(
            "audit",
            "What operators did, the latest first, in pages: who, when, and to how many events.",
            none="Nobody did anything.",
            options={"after": "The page behind an earlier one, which says its name.", "limit": "How many at most."},
            examples=("audit --limit 20",),
        ),
    )
    statistics = Operation(
        Operations.statistics,
        to="all",
        merge=merging.statistics_of_all,
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
        http=Http("POST", f"{_PURPOSE}/dead/redrive", "Hand dead letters out again", "redriven", *_REDRIVEN),
        cli=Cli(
            "dead redrive",
            "Hand dead letters out again, as if never tried.",
            "{} to be handed out again",
            options={"version": "To this version alone."},
            examples=(f"dead redrive {_ENCODE} --all", "dead redrive video.uploaded Encode --all --version 2"),
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
            says_dry="{} would be handed out again",
            none="0 events: there are none of that time, they were not caused so, or they pend already",
            options={
                "since": "From: beginning, now, a time, or so long ago (2h).",
                "until": "Up to: the same.",
                "caused_by": "Only what a version of a purpose caused: TOPIC/PURPOSE@VERSION.",
                "dry_run": "Only count them.",
            },
            examples=(
                f"replay {_ENCODE} --since 1h",
                "replay video.encoded Publish --caused-by video.uploaded/Encode@2",
            ),
        ),
    )
    pause = Operation(
        Operations.pause,
        http=Http("POST", f"{_PURPOSE}/pause", "Pause a purpose"),
        cli=Cli(
            "pause",
            "Hand out nothing more of a purpose until it is resumed: its events pend.",
            "{purpose} on {topic} is paused",
            key="paused",
            examples=(f"pause {_ENCODE}",),
        ),
    )
    resume = Operation(
        Operations.resume,
        http=Http("POST", f"{_PURPOSE}/resume", "Resume a purpose that is paused"),
        cli=Cli(
            "resume",
            "Hand out a paused purpose again.",
            "{purpose} on {topic} is resumed",
            key="resumed",
            examples=(f"resume {_ENCODE}",),
        ),
    )
    rollout = Operation(
        Operations.rollout,
        repeat="question",
        http=Http("GET", f"{_PURPOSE}/rollout", "The versions of a purpose, and their shares"),
        cli=Cli(
            "rollout show",
            "The versions of a purpose: their states, and their shares of the events.",
            examples=(f"rollout show {_ENCODE}",),
        ),
    )
    share = Operation(
        Operations.share,
        http=Http("POST", f"{_PURPOSE}/rollout/share", "Give a version a share of the events", "", *_SHARE),
        cli=Cli(
            "rollout share",
            "Give a version a share of the events that are fired from now on.",
            options={
                "version": "Which version.",
                "share": "From 0 to 1, or in per cent: 0.1 or 10%; with 0 it is held.",
            },
            examples=("rollout share video.uploaded Encode --version 2 --share 0.1",),
        ),
    )
    shadow = Operation(
        Operations.shadow,
        http=Http("POST", f"{_PURPOSE}/rollout/shadow", "Give a version copies of the events", "", *_SHADOW),
        cli=Cli(
            "rollout shadow",
            "Give a version a copy of what the current one gets: what it does with it is only compared.",
            options={"version": "Which version."},
            examples=("rollout shadow video.uploaded Encode --version 2",),
        ),
    )
    differences = Operation(
        Operations.differences,
        repeat="question",
        http=Http(
            "GET", f"{_PURPOSE}/rollout/differences", "What shadows made of events, where that differs", "differences"
        ),
        cli=Cli(
            "rollout differences",
            "The events of which shadows made something else than the current version, the latest first.",
            none="No differences of {purpose!r} on {topic}.",
            options={"limit": "How many at most."},
            examples=(f"rollout differences {_ENCODE}",),
        ),
    )
    promote = Operation(
        Operations.promote,
        http=Http("POST", f"{_PURPOSE}/rollout/promote", "Make a version the current one", "", *_PROMOTED),
        cli=Cli(
            "rollout promote",
            "Make a version the current one, which gets all events that are in no other's share.",
            options={"version": "Which version."},
            examples=("rollout promote video.uploaded Encode --version 2",),
        ),
    )
    rollback = Operation(
        Operations.rollback,
        http=Http("POST", f"{_PURPOSE}/rollout/rollback", "Make the version current that was so before"),
        cli=Cli(
            "rollout rollback",
            "Make the version current that was so before; the present one gets nothing more.",
            examples=(f"rollout rollback {_ENCODE}",),
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
    events = Operation(
        Operations.events,
        repeat="question",
        http=Http("GET", f"{_TOPIC}/events", "A topic's history", "events"),
        cli=Cli(
            "events",
            "The events of a topic's history, in the order accepted, in pages.",
            none="No such events on {topic}.",
            options={
                "since": "From: beginning, now, a time, or so long ago (2h).",
                "after": "The page behind an earlier one, which says its name.",
                "key": "Only those with this key.",
                "limit": "How many at most.",
                "tail": "At the end, too, say with which --after what comes later is shown.",
            },
            examples=("events video.uploaded --since 1h",),
        ),
    )
    types = Operation(
        Operations.types,
        repeat="question",
        http=Http("GET", f"{_TOPIC}/types", "The types that the payloads of a topic had, by its newest events"),
        cli=Cli(
            "types",
            "The types that the payloads of a topic had, by its newest events.",
            options={"limit": "How many events are looked at, at most 1,000."},
            examples=("types video.uploaded",),
        ),
    )
    event = Operation(
        Operations.event,
        repeat="question",
        http=Http("GET", f"{_TOPIC}/events/{{id}}", "An event, and what became of it for each purpose"),
        cli=Cli(
            "show",
            "An event, and what became of it for each purpose.",
            examples=("show video.uploaded upload-17",),
        ),
    )
    delayed = Operation(
        Operations.delayed,
        to="engine",
        repeat="question",
        http=Http("GET", "/v1/delayed", "The delayed events, of one topic or of all", "delayed"),
        cli=Cli(
            "delayed list",
            "The delayed events, of one topic or of all, the next one that is due first, in pages.",
            none="No delayed events{on_topic}.",
            options={"after": "The page behind an earlier one, which says its name.", "limit": "How many at most."},
            examples=("delayed list video.uploaded",),
        ),
    )
    delayed_event = Operation(
        Operations.delayed_event,
        to="any",
        repeat="question",
        http=Http("GET", f"{_TOPIC}/delayed/{{id}}", "A delayed event"),
        cli=Cli("delayed show", "A delayed event.", examples=("delayed show video.uploaded upload-17",)),
    )
    cancel = Operation(
        Operations.cancel,
        to="any",
        http=Http("DELETE", f"{_TOPIC}/delayed/{{id}}", "Take a delayed event back while it is not due", "cancelled"),
        cli=Cli(
            "delayed cancel",
            "Take a delayed event back while it is not due.",
            "{id} on {topic} is cancelled",
            none="{id} on {topic} is not delayed (any more): nothing is cancelled",
            examples=("delayed cancel video.uploaded upload-17",),
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
            follow="Print what changes, until all of it is over, or SIGINT or SIGTERM.",
            examples=("trace upload-17",),
        ),
    )
    backup = Operation(Operations.backup, to="engine")
    owners = Operation(
        Operations.owners,
        to="engine",
        repeat="question",
        http=Http("GET", "/v1/owners", "Which process owns which topics", "owners"),
        cli=Cli(
            "owners",
            "Which process owns which topics: one has all, except on NATS.",
            none="No topics.",
            examples=("owners --url nats://n1,n2,n3/shop",),
        ),
    )


class Internal(Operator, Scheduling, Sending, Describing, Ticking, Stating):
    """The operations that services need besides, and the setting of how much history a topic keeps."""

    topic = Operation(Operations.topic, repeat="question", http=Http("GET", _TOPIC, "A topic, and its history"))
    purpose = Operation(
        Operations.purpose, repeat="question", http=Http("GET", _PURPOSE, "A purpose, and how it stands")
    )
    lookup = Operation(Operations.lookup, to="all", merge=merging.found, repeat="question")
    effects = Operation(Operations.effects, to="all", merge=merging.effects, repeat="question")
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
        restated=Restated("topic"),
        http=Http("PUT", _TOPIC, "Say how much history a topic keeps", "", *_KEEP),
        cli=Cli(
            "topics set",
            "Say how much history a topic keeps.",
            options={
                "keep": "How long events are kept, such as 12h, 7d or 0; or default.",
                "keep_bytes": "How many bytes of them are kept at most; or none.",
                "dry_run": "Only say about how many events would be trimmed.",
            },
            examples=("topics set video.uploaded --keep 30d", "topics set video.uploaded --keep-bytes none"),
        ),
    )
    idle = Operation(Operations.idle, right="own", to="engine", repeat="always")
    left = Operation(Operations.left, right="own", to="engine", repeat="question")
    note_relay = Operation(Operations.note_relay, right="relay", to="engine")
    watch = Operation(Operations.watch, right="watch", to="engine", repeat="always")


class Asking(Operator, Scheduling, Sending, Describing):
    """The part of a `SolarWind` that calls its engine's operations, from any loop."""

    _engine: Engine
    _loop: asyncio.AbstractEventLoop | None
    _parts: tuple[Callable[[], Iterable[Attention]], ...] = ()
    _answering: tuple[Answers, ...] = ()

    async def ask(self, request: Request[R]) -> R:
        """Do one of the operations and return its answer. Raise what it raises."""
        request = request if request.by else msgspec.structs.replace(request, by=user_name())
        return await on_loop(self._loop, self.ask_here(request))

    async def ask_here(self, request: Request[R]) -> R:
        """Do it on its own loop; who asks is known. What needs a person is also what parts of this process know."""
        for answers in self._answering:
            if request.operation.name in answers:
                found_here: R = await answers[request.operation.name](request)
                return found_here
        answer = await self._engine.ask(request)
        if self._parts and isinstance(answer, list) and request.operation.name == "attention":
            found = sorted_attention([*answer, *(each for part in self._parts for each in part())])
            answer[:] = found[: request.arguments["limit"]]
        return answer

    def add_part(self, attention: Callable[[], Iterable[Attention]]) -> Callable[[], None]:
        """Have a part of this process, such as a server, say what needs a person. Return a function that ends that."""
        self._parts = (*self._parts, attention)

        def end() -> None:
            self._parts = tuple(each for each in self._parts if each is not attention)

        return end

    def add_answers(self, answers: Answers) -> Callable[[], None]:
        """Have a part of this process, such as a server, do these operations by name, instead of the engine. Return a
        function that ends that."""
        self._answering = (*self._answering, answers)

        def end() -> None:
            self._answering = tuple(each for each in self._answering if each is not answers)

        return end

    async def watch(
        self,
        parts: Collection[str] = PARTS,
        *,
        topic: str | None = None,
        purpose: str | None = None,
        interval: int = 1,
    ) -> AsyncIterator[dict[str, Any]]:
        """Yield all facts of these parts, and from then on what has changed, every `interval` seconds (from 1 to 60) in
        which anything has: of all topics and purposes, or of one.

        Each change is a merge patch (RFC 7396) by part and key, such as `{"purposes": {"T/p": {"pending": 3}}}`, and
        None stands for what is gone. One with the key `snapshot` begins anew: forget what you had. A reader that is too
        slow gets a snapshot instead of what it missed, and so does one whose server was away meanwhile. Raise
        `BadArgument`, `BadName`, `Busy`, and `Unavailable` when this `SolarWind` stops.
        """
        watched = Internal.watch.follow(self, parts=parts, topic=topic, purpose=purpose, interval=interval)
        async for text in watched:
            yield msgspec.json.decode(text)


def _rows(tables: Iterable[type]) -> dict[str, Operation[..., Any]]:
    return {name: each for of in tables for name, each in vars(of).items() if isinstance(each, Operation)}


OPERATIONS = _rows((Operator, Scheduling, Sending, Describing, Ticking, Stating, Internal))
