"""What an operator asks of a dispatcher, and does to it: topics, purposes, history, and how it all stands."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated, Any

import typer
from msgspec import UNSET

from ..errors import NotAllowed, NotFound, TooLarge
from ..names import check_topic
from ..operations import Internal
from ..text import plain, redact
from .options import DEFAULT_URL, Json, Purpose, Topic, Url, consent, duration, moment, option

if TYPE_CHECKING:
    from rich.tree import Tree

    from ..records import OwnerInfo, PurposeInfo, TopicInfo, Trace
    from ..store.base import Keep
    from ..wind import SolarWind

topics_app = typer.Typer(help="The topics, and how much history each keeps.")


# --- topics -------------------------------------------------------------------------------------------------


@topics_app.callback(invoke_without_command=True)
def topics(context: typer.Context, url: Url = DEFAULT_URL, json: Json = False) -> None:
    """The topics, and how much history each keeps."""
    from . import show
    from .reach import operate

    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    found = operate(url, lambda wind: wind.topics())
    if json:
        show.document([_topic_record(each) for each in found])
        return
    show.rows(
        ("TOPIC", "FIRED", "PURPOSES", "KEPT", "BYTES", "KEEP", "KEEP BYTES"),
        [_topic_row(each) for each in found],
        none="No topics.",
    )


def _refuse_options_before(context: typer.Context) -> None:
    """An option before the subcommand would be read and then forgotten."""
    for name in ("url", "json"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            context.fail(f"--{name} belongs after {context.invoked_subcommand!r}")


@topics_app.command("set")
def set_(
    topic: Topic,
    keep: Annotated[
        str | None,
        option("keep", "How long events are kept, such as 12h, 7d or 0; or default.", show_default=False),
    ] = None,
    keep_bytes: Annotated[
        str | None,
        option("keep-bytes", "How many bytes of them are kept at most; or none.", show_default=False),
    ] = None,
    create: Annotated[bool, option("create", "Make the topic if there is none.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Say how much history a topic keeps."""
    from . import show
    from .reach import operate

    check_topic(topic)
    if keep is None and keep_bytes is None:
        raise typer.BadParameter("expected --keep, --keep-bytes or both, got neither")
    setting = _keep_ns(keep), _keep_bytes(keep_bytes)

    async def settle_it(wind: SolarWind) -> TopicInfo:
        if not create:
            _refuse_unknown(topic, [each.topic for each in await wind.topics()])
        await Internal.topic(wind.engine, topic, *setting)
        return next(each for each in await wind.topics() if each.topic == topic)

    found = operate(url, settle_it)
    if json:
        show.document(_topic_record(found))
        return
    most = "" if found.keep_bytes is None else f", and {found.keep_bytes:,} bytes at most"
    show.say(f"{topic} keeps events for {show.span(found.keep)}{most}")


def _keep_ns(text: str | None) -> Keep:
    """UNSET where it is not said, None for the default."""
    if text is None:
        return UNSET
    return None if text == "default" else int(duration(text, "--keep").total_seconds() * 1e9)


def _keep_bytes(text: str | None) -> Keep:
    """UNSET where it is not said, None for no bound."""
    if text is None:
        return UNSET
    if text != "none" and not re.fullmatch("[0-9]{1,18}", text):
        raise typer.BadParameter(f"expected a number of bytes, or none, got {text!a}", param_hint="--keep-bytes")
    return None if text == "none" else int(text)


def _refuse_unknown(topic: str, there: list[str]) -> None:
    """More likely it is mistyped."""
    if topic not in there:
        near = difflib.get_close_matches(topic, there, 1)
        hint = f"did you mean {near[0]!r}? " if near else "see `solarwind topics`; "
        raise NotFound(f"expected a topic that is there, got {topic!r}, which is not: {hint}--create makes it")


def _topic_row(info: TopicInfo) -> tuple[object, ...]:
    from .show import span

    keep = span(info.keep)
    return info.topic, info.fired, len(info.purposes), info.kept, info.kept_bytes, keep, info.keep_bytes


def _topic_record(info: TopicInfo) -> dict[str, Any]:
    return {
        "topic": info.topic,
        "fired": info.fired,
        "purposes": info.purposes,
        "kept": info.kept,
        "kept_bytes": info.kept_bytes,
        "keep": info.keep,
        "keep_bytes": info.keep_bytes,
    }


# --- purposes -----------------------------------------------------------------------------------------------


def purposes(
    topic: Annotated[str | None, typer.Argument(metavar="TOPIC", show_default=False)] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """The purposes, of one topic or of all, and how they stand."""
    from . import show
    from .reach import operate

    if topic is not None:
        check_topic(topic)
    found = operate(url, lambda wind: wind.purposes(topic))
    if json:
        show.document([_purpose_record(each) for each in found])
        return
    show.rows(
        ("TOPIC", "PURPOSE", "EXCHANGE", "VERSIONS", "INSTANCES", "PENDING", "IN FLIGHT", "SETTLED", "RETRIED", "DEAD",
         "DROPPED"),
        [_purpose_row(each) for each in found],
        none="No purposes." if topic is None else f"No purposes on {topic}.",
    )  # fmt: skip


def _purpose_row(info: PurposeInfo) -> tuple[object, ...]:
    now = info.statistics
    counts = now.instances, now.pending, now.in_flight, now.settled, now.retried, now.dead, now.dropped
    return info.topic, info.purpose, now.exchange, ", ".join(map(str, now.versions)), *counts


def _purpose_record(info: PurposeInfo) -> dict[str, Any]:
    import msgspec

    return {"topic": info.topic, "purpose": info.purpose} | msgspec.structs.asdict(info.statistics)


def replay(
    topic: Topic,
    purpose: Purpose,
    since: Annotated[str, option("since", "From: beginning, now, a time, or so long ago (2h).")] = "beginning",
    until: Annotated[str, option("until", "Up to: the same.")] = "now",
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Make a topic's history pend again for a purpose."""
    from . import show
    from .reach import operate

    start, stop = moment(since, "--since"), moment(until, "--until")
    count = operate(url, lambda wind: wind.replay(topic, purpose, start, stop))
    if json:
        show.document({"replayed": count})
    else:
        show.say(f"{show.counted(count, 'event')} to be handed out again")


def retire(
    topic: Topic,
    purpose: Purpose,
    force: Annotated[bool, consent("force", "Even if events, dead letters or instances are left.")] = False,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """Forget a purpose: its events do not pend any more."""
    from . import show
    from .reach import operate

    operate(url, lambda wind: wind.retire(topic, purpose, force))
    if json:
        show.document({"topic": topic, "purpose": purpose, "retired": True})
    else:
        show.say(f"{purpose} on {topic} is retired")


# --- owners -------------------------------------------------------------------------------------------------


def owners(url: Url = DEFAULT_URL, json: Json = False) -> None:
    """Which process owns which topics, on NATS."""
    from . import show
    from .reach import engine_at, is_cluster, operate

    engine_at(url)
    if not is_cluster(url):
        raise NotAllowed(
            f"expected nats://, where processes share the topics, got {redact(url)}: there one process has all of them"
        )
    found = operate(url, _owners)
    if json:
        show.document(found)
        return
    show.rows(
        ("PARTITION", "STREAM", "OWNER", "TOPICS"),
        [_owner_row(each) for each in found],
        none="No topics.",
    )


async def _owners(wind: SolarWind) -> list[OwnerInfo]:
    from ..cluster.engine import NatsEngine

    assert isinstance(wind.engine, NatsEngine)
    return await wind.engine.owners()


def _owner_row(info: OwnerInfo) -> tuple[object, ...]:
    topics = "no answer" if info.topics is None else ", ".join(info.topics)
    return info.partition, info.stream, info.owner, topics


# --- trace --------------------------------------------------------------------------------------------------


def trace(
    id: Annotated[str, typer.Argument(metavar="ID", show_default=False)], url: Url = DEFAULT_URL, json: Json = False
) -> None:
    """An event, and the tree of what it caused."""
    from . import show
    from .reach import operate

    found = operate(url, lambda wind: wind.trace(id))
    if not json:
        show.render(_tree(found))
        return
    try:
        show.document(_trace_record(found))
    except RecursionError:
        raise TooLarge(f"expected a tree that JSON can nest, got a longer chain from {id}: leave out --json") from None


def _trace_record(root: Trace) -> dict[str, Any]:
    from .show import event_record

    def record(of: Trace) -> dict[str, Any]:
        return {"event": event_record(of.event), "caused": []}

    top = record(root)
    todo = [(root, top)]
    while todo:  # a chain of causes may be longer than calls can nest
        found, made = todo.pop()
        made["caused"] = [record(child) for child in found.caused]
        todo += zip(found.caused, made["caused"], strict=True)
    return top


def _tree(root: Trace) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from . import show

    def label(of: Trace) -> Text:
        event, cause = of.event, of.event.cause
        by = f"by {cause.purpose} (version {cause.version})" if cause.purpose else f"by {cause.kind} {cause.id}"
        return Text(plain(f"{event.topic}  {event.id}  {show.cell(event.time)}  {by}"), overflow="fold")

    top = Tree(label(root))
    todo = [(root, top)]
    while todo:
        found, made = todo.pop()
        todo += [(child, made.add(label(child))) for child in found.caused]
    return top


# --- top ----------------------------------------------------------------------------------------------------


def top(
    interval: Annotated[float, option("interval", "Seconds between two looks.", min=0.05)] = 1.0,
    count: Annotated[int | None, option("count", "Leave after so many looks.", min=1)] = None,
    url: Url = DEFAULT_URL,
    json: Json = False,
) -> None:
    """How topics and purposes stand, and how fast they move, again and again."""
    from .reach import operate
    from .top import watch

    operate(url, lambda wind: watch(wind, interval, count, json))
