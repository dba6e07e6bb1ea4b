"""The operator's commands that are more than one operation: topics, owners, top."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING, Annotated

import typer
from msgspec import UNSET

from ..errors import NotAllowed, NotFound
from ..names import check_topic
from ..operations import Internal
from ..records import TopicInfo
from ..text import redact
from .operations import table
from .options import DEFAULT_URL, JsonOption, TopicArgument, UrlOption, duration, option

if TYPE_CHECKING:
    from ..engine.arguments import Keep, KeepBytes
    from ..records import OwnerInfo
    from ..wind import SolarWind

topics_app = typer.Typer(help="The topics, and how much history each keeps.")


# --- topics -------------------------------------------------------------------------------------------------


@topics_app.callback(invoke_without_command=True)
def topics(context: typer.Context, url: UrlOption = DEFAULT_URL, json: JsonOption = False) -> None:
    """The topics, and how much history each keeps."""
    from . import show
    from .reach import operate

    if context.invoked_subcommand is not None:
        _refuse_options_before(context)
        return
    found = operate(url, lambda wind: wind.topics())
    if json:
        show.document(found)
    else:
        table(TopicInfo, found, "No topics.")


def _refuse_options_before(context: typer.Context) -> None:
    """Refuse an option before the subcommand, which would be ignored."""
    for name in ("url", "json"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            context.fail(f"--{name} belongs after {context.invoked_subcommand!r}")


@topics_app.command("set")
def set_(
    topic: TopicArgument,
    keep: Annotated[
        str | None,
        option("keep", "How long events are kept, such as 12h, 7d or 0; or default.", show_default=False),
    ] = None,
    keep_bytes: Annotated[
        str | None,
        option("keep-bytes", "How many bytes of them are kept at most; or none.", show_default=False),
    ] = None,
    create: Annotated[bool, option("create", "Make the topic if there is none.")] = False,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Say how much history a topic keeps."""
    from . import show
    from .reach import operate

    check_topic(topic)
    if keep is None and keep_bytes is None:
        raise typer.BadParameter("expected --keep, --keep-bytes or both, got neither")
    setting = _keep(keep), _keep_bytes(keep_bytes)

    async def settle_it(wind: SolarWind) -> TopicInfo:
        if not create:
            _refuse_unknown(topic, [each.topic for each in await wind.topics()])
        return await Internal.keep(wind.engine, topic, *setting)

    found = operate(url, settle_it)
    if json:
        show.document(found)
        return
    most = "" if found.keep_bytes is None else f", and {found.keep_bytes:,} bytes at most"
    show.say(f"{topic} keeps events for {show.span(found.keep)}{most}")


def _keep(text: str | None) -> Keep:
    """Return UNSET where it is not given, None for the default."""
    if text is None:
        return UNSET
    return None if text == "default" else duration(text, "--keep").total_seconds()


def _keep_bytes(text: str | None) -> KeepBytes:
    """Return UNSET where it is not given, None for no limit."""
    if text is None:
        return UNSET
    if text != "none" and not re.fullmatch("[0-9]{1,18}", text):
        raise typer.BadParameter(f"expected a number of bytes, or none, got {text!a}", param_hint="--keep-bytes")
    return None if text == "none" else int(text)


def _refuse_unknown(topic: str, there: list[str]) -> None:
    """Refuse a topic that does not exist, because it is more likely mistyped."""
    if topic not in there:
        near = difflib.get_close_matches(topic, there, 1)
        hint = f"did you mean {near[0]!r}? " if near else "see `solarwind topics`; "
        raise NotFound(f"expected a topic that is there, got {topic!r}, which is not: {hint}--create makes it")


# --- owners -------------------------------------------------------------------------------------------------


def owners(url: UrlOption = DEFAULT_URL, json: JsonOption = False) -> None:
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
    show.rows(("PARTITION", "STREAM", "OWNER", "TOPICS"), [_owner_row(each) for each in found], none="No topics.")


async def _owners(wind: SolarWind) -> list[OwnerInfo]:
    from ..cluster.engine import NatsEngine

    assert isinstance(wind.engine, NatsEngine)
    return await wind.engine.owners()


def _owner_row(info: OwnerInfo) -> tuple[object, ...]:
    topics = "no answer" if info.topics is None else ", ".join(info.topics)
    return info.partition, info.stream, info.owner, topics


# --- top ----------------------------------------------------------------------------------------------------


def top(
    interval: Annotated[float, option("interval", "Seconds between two looks.", min=0.05)] = 1.0,
    count: Annotated[int | None, option("count", "Leave after so many looks.", min=1)] = None,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """How topics and purposes stand, and how fast they move, again and again."""
    from .reach import operate
    from .top import watch

    operate(url, lambda wind: watch(wind, interval, count, json))
