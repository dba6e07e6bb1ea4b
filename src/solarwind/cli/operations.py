"""The commands of operations, made from their table: arguments, output as a table or JSON, consent.

The kind of an argument decides how it is written on the command line, and the type of an answer how it is printed. So a
new operation needs nothing here, unless its answer needs a form of its own.
"""

from __future__ import annotations

import asyncio
import difflib
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ..engine.answers import Page, item_of
from ..engine.arguments import ArgumentKind
from ..engine.request import Cli, Operation, Request
from ..errors import BadArgument, NotFound, TooLarge
from ..event import Event
from ..names import no_topic
from ..operations import OPERATIONS
from ..records import (
    Attention,
    AuditEntry,
    DeadLetter,
    DelayedEvent,
    Difference,
    EventInfo,
    InstanceInfo,
    Outcome,
    OwnerInfo,
    PurposeInfo,
    RateHistory,
    Result,
    RolloutInfo,
    StoreInfo,
    TopicInfo,
    Trace,
    VersionInfo,
)
from ..shares import read_rollout
from ..text import plain
from . import show, tables, tracing
from .options import (
    DEFAULT_URL,
    JsonOption,
    PurposeArgument,
    TopicArgument,
    UrlOption,
    consent,
    duration,
    moment,
    option,
    several_or_all,
)
from .tables import Columns, Spark

if TYPE_CHECKING:
    from ..wind import SolarWind

# The commands -------------------------------------------------------------------------------------------------------


def register(app: typer.Typer, groups: dict[str, typer.Typer], panel: str, *, questions: bool) -> None:
    """Add the commands of all operations that have one: `questions`, which change nothing, or the others."""
    for operation in OPERATIONS.values():
        if operation.cli is not None and (operation.repeat == "question") == questions:
            group, _, name = operation.cli.words.rpartition(" ")
            run = _command(operation, operation.cli)
            if name in groups:
                groups[name].callback(invoke_without_command=True)(_unless_subcommand(run))
            else:
                (groups[group] if group else app).command(name, rich_help_panel=None if group else panel)(run)


def _unless_subcommand(run: Callable[..., None]) -> Callable[..., None]:
    """Return what a group does where none of its subcommands is named. Before one its options would be ignored."""

    def start(context: typer.Context, **given: Any) -> None:
        if context.invoked_subcommand is None:
            run(**given)
            return
        for name in given:
            source = context.get_parameter_source(name)
            if source is not None and source.name == "COMMANDLINE":
                context.fail(f"--{name} belongs after {context.invoked_subcommand!r}")

    context = Parameter("context", Parameter.KEYWORD_ONLY, annotation=typer.Context)
    start.__doc__ = run.__doc__
    start.__signature__ = Signature([context, *signature(run).parameters.values()])  # type: ignore[attr-defined]
    return start


def _command(operation: Operation[..., Any], cli: Cli) -> Callable[..., None]:
    def run(url: str, json: bool, **given: Any) -> None:
        from .reach import operate

        arguments = {name: _read(operation, kind, name, given) for name, kind in operation.kinds.items()}
        _refuse_no_change(operation, arguments)
        if given.get("follow"):
            if cli.follow:
                operate(url, lambda wind: tracing.follow_until_told(wind, arguments, json))
            else:
                operate(url, lambda wind: _follow_until_told(operation, wind, arguments, json))
            return
        request = operation.request(arguments)
        answer = operate(url, lambda wind: _ask(wind, request, given.get("create", True)))
        if not json:
            _say(operation, cli, answer, request.arguments)
            return
        try:
            show.document(_document(operation, cli, answer, request.arguments))
        except RecursionError:
            raise TooLarge("expected an answer that JSON can nest, got a longer chain: leave out --json") from None

    parameters = [each for name, kind in operation.kinds.items() for each in _parameters(operation, cli, name, kind)]
    parameters += [_parameter("follow", Annotated[bool, consent("follow", cli.follow)], False)] if cli.follow else []
    parameters += [_parameter("create", _CREATE, False)] if operation.makes else []
    parameters += [_parameter("url", UrlOption, DEFAULT_URL), _parameter("json", JsonOption, False)]
    run.__doc__ = cli.help
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


async def _ask(wind: SolarWind, request: Request[Any], creates: bool) -> Any:
    """Ask it, unless it would make a topic: one that does not exist is more likely mistyped."""
    if not creates:
        topic, known = request.arguments["topic"], [each.topic for each in await wind.topics()]
        if topic not in known:
            near = difflib.get_close_matches(topic, known, 1)
            hint = f"did you mean {near[0]!r}? " if near else "see `solarwind topics`; "
            raise NotFound(f"expected a topic that is there, got {topic!r}, which is not: {hint}--create makes it")
    answer = await wind.ask(request)
    arguments = request.arguments
    empty = answer == [] and arguments.get("topic") is not None and "purpose" not in arguments
    if empty and arguments["topic"] not in [each.topic for each in await wind.topics()]:
        raise no_topic(arguments["topic"])  # an empty list would hide that it was mistyped
    return answer


async def _follow_until_told(
    operation: Operation[..., Any], wind: SolarWind, arguments: dict[str, Any], json: bool
) -> None:
    from .reach import leave_on_signals

    leave_on_signals()
    with suppress(asyncio.CancelledError):
        await follow(operation, wind, arguments, json)


async def follow(operation: Operation[..., Any], wind: SolarWind, arguments: dict[str, Any], json: bool) -> None:
    """Print each item as it arrives, one on a line."""
    _, row = _columns(item_of(operation.form.kind))
    async for each in operation.follow(wind, **arguments):
        if json:
            show.put(show.line(record(each)))
        else:
            show.say("  ".join(map(show.cell, row(each))))
            sys.stdout.flush()


# Arguments ----------------------------------------------------------------------------------------------------------

_IDS = Annotated[list[str] | None, typer.Argument(metavar="ID", help="Event ids.", show_default=False)]
_ALL = Annotated[bool, consent("all", "All dead letters of the purpose.")]
_FOLLOW = Annotated[bool, option("follow", "Go on with what comes, until SIGINT or SIGTERM.")]
_CREATE = Annotated[bool, option("create", "Make the topic if there is none.")]
_ARGUMENTS: dict[str, Any] = {
    "topic": TopicArgument,
    "topic?": Annotated[str | None, typer.Argument(metavar="TOPIC", show_default=False)],
    "purpose": PurposeArgument,
    "id": Annotated[str, typer.Argument(metavar="ID", show_default=False)],
}


def _parameters(operation: Operation[..., Any], cli: Cli, name: str, kind: ArgumentKind) -> Iterator[Parameter]:
    if kind.name == "ids":
        yield _parameter(name, _IDS, None)
        yield _parameter("all", _ALL, False)
        return
    if kind.name == "wait":
        yield _parameter("follow", _FOLLOW, False)
        return
    default = operation.defaults.get(name, Parameter.empty)
    if kind.name in _ARGUMENTS:
        yield _parameter(name, _ARGUMENTS[kind.name], default)
        return
    makes = consent if name in cli.consent else option
    type_, how = (str if kind.name in _TEXTS else kind.wire), {}
    if default is msgspec.UNSET:
        type_, default, how = type_ | None, None, {"show_default": False}
    yield _parameter(name, Annotated[type_, makes(_dashed(name), cli.options[name], **how)], default)


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _parameter(name: str, type_: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=type_)


def _read(operation: Operation[..., Any], kind: ArgumentKind, name: str, given: dict[str, Any]) -> Any:
    if kind.name == "ids":
        return several_or_all(given[name], given["all"])
    if kind.name == "wait":
        return 0.0
    if given[name] is None:
        return operation.defaults[name]
    return _TEXTS[kind.name](given[name], f"--{_dashed(name)}") if kind.name in _TEXTS else given[name]


def _refuse_no_change(operation: Operation[..., Any], arguments: dict[str, Any]) -> None:
    """Refuse a command whose options say what changes where none of them is given."""
    names = [name for name, default in operation.defaults.items() if default is msgspec.UNSET]
    if names and all(arguments[name] is msgspec.UNSET for name in names):
        options = ", ".join(f"--{_dashed(name)}" for name in names)
        raise typer.BadParameter(f"expected at least one of {options}, got none")


def _keep(text: str, name: str) -> float | None:
    return None if text == "default" else duration(text, name).total_seconds()


def _keep_bytes(text: str, name: str) -> int | None:
    if text != "none" and not re.fullmatch("[0-9]{1,18}", text):
        raise typer.BadParameter(f"expected a number of bytes, or none, got {text!a}", param_hint=name)
    return None if text == "none" else int(text)


def _share(text: str, name: str) -> float:
    share = read_rollout(text)
    expected = "expected a share from 0 to 1, or in per cent, such as 0.5 or 50%"
    if isinstance(share, str):
        raise typer.BadParameter(f"{expected}, got {text!a}", param_hint=name)
    if not 0 <= share <= 1:
        raise BadArgument(f"{expected}, got {text.strip()}")
    return share


# By the name of its kind: how an argument that is written as a text is read.
_TEXTS: dict[str, Callable[[str, str], Any]] = {
    "since": moment,
    "until": moment,
    "keep": _keep,
    "keep_bytes": _keep_bytes,
    "share": _share,
}


# Answers, for programs ----------------------------------------------------------------------------------------------


def _document(operation: Operation[..., Any], cli: Cli, answer: Any, arguments: dict[str, Any]) -> Any:
    if answer is None:
        return {**{name: arguments[name] for name in ("topic", "purpose") if name in arguments}, cli.key: True}
    key = operation.http.key if operation.http is not None else ""
    if isinstance(answer, Page):
        return {key or "items": [record(each) for each in answer], "next": answer.next}
    if isinstance(answer, list):
        return [record(each) for each in answer]
    return {key: answer} if key else record(answer)


def record(value: Any) -> Any:
    """Return one record for JSON."""
    make = _RECORDS.get(type(value))
    return value if make is None else make(value)


def _letter_record(letter: DeadLetter) -> dict[str, Any]:
    return {"event": show.event_record(letter.event)} | {
        name: getattr(letter, name) for name in ("error", "attempts", "time")
    }


def _info_record(info: EventInfo) -> dict[str, Any]:
    return {"event": show.event_record(info.event), "position": info.position, "outcomes": info.outcomes}


def _delayed_record(delayed: DelayedEvent) -> dict[str, Any]:
    return {"event": show.event_record(delayed.event), "due": delayed.due, "place": delayed.place}


_RECORDS: dict[Any, Callable[[Any], Any]] = {
    PurposeInfo: lambda info: {"topic": info.topic, "purpose": info.purpose} | msgspec.structs.asdict(info.statistics),
    DeadLetter: _letter_record,
    DelayedEvent: _delayed_record,
    EventInfo: _info_record,
    Trace: tracing.record,
    Event: show.event_record,
}


# Answers, for people ------------------------------------------------------------------------------------------------


def _say(operation: Operation[..., Any], cli: Cli, answer: Any, arguments: dict[str, Any]) -> None:
    item = item_of(operation.form.kind)
    if item in _PARAGRAPHS and answer:
        _PARAGRAPHS[item](answer)
    elif item is not None:
        topic = arguments.get("topic")
        none = cli.none.format(**arguments, on_topic=f" on {topic}" if topic else "")
        after = answer.next if isinstance(answer, Page) else None
        if after is not None and not answer:
            show.note(f"None so far: look on with --after {after}")
            return
        table(item, answer, none)
        if after is not None:
            show.note(f"There are more: --after {after}")
    elif isinstance(answer, Trace):
        show.render(tracing.tree(answer))
    elif isinstance(answer, DeadLetter):
        show.fields(_letter_fields(answer, **arguments))
    elif isinstance(answer, DelayedEvent):
        show.fields(_event_fields(answer.event) | {"due": answer.due, "payload": show.payload_text(answer.event)})
    elif isinstance(answer, EventInfo):
        show.fields(
            _event_fields(answer.event) | {"position": answer.position, "payload": show.payload_text(answer.event)}
        )
        show.say("")
        table(Outcome, answer.outcomes, f"No purpose listens to {answer.event.topic}.")
    elif isinstance(answer, RateHistory):
        tables.rows(_RATES, list(_rate_rows(answer)), none="")
    elif isinstance(answer, TopicInfo):
        and_bytes = "" if answer.keep_bytes is None else f", and {answer.keep_bytes:,} bytes at most"
        show.say(f"{answer.topic} keeps events for {show.span(answer.keep)}{and_bytes}")
    elif isinstance(answer, RolloutInfo):
        table(VersionInfo, answer.versions, "")
        for each in answer.versions:
            if each.state == "shadow":
                counts = f"{each.compared:,} compared, {each.differed:,} differed, {each.missed:,} missed"
                show.say(f"Shadow {each.version}: {counts}")
        if answer.current != answer.intended:
            show.say(f"{answer.intended} has no instance, so {answer.current} is current meanwhile.")
    elif isinstance(answer, msgspec.Struct):
        show.fields({_heading(name).lower(): value for name, value in msgspec.structs.asdict(answer).items()})
    elif isinstance(answer, bool):
        show.say((cli.says if answer else cli.none).format(**arguments))
    elif answer == 0 and cli.none:
        show.say(cli.none.format(**arguments))
    else:
        number = show.counted(answer, "event") if isinstance(answer, int) else answer
        says = cli.says_dry if arguments.get("dry_run") else cli.says
        show.say(says.format(number, **arguments))


def _say_attention(found: Sequence[Attention]) -> None:
    """Print a paragraph for each: a table has no room for sentences. The command is on a line of its own, whole, to be
    copied."""
    from rich.console import Group
    from rich.padding import Padding
    from rich.text import Text

    for each in found:
        about = f": {each.purpose} on {each.topic}" if each.purpose else f": {each.topic}" if each.topic else ""
        age = show.age(each.since)
        since = f", for {age}" if age not in (None, "0s") else ""
        head = Text(plain(f"{each.urgency:<6}  {each.kind}{about}{since}"), _URGENCY_STYLES[each.urgency])
        what = each.text if each.error is None else f"{each.text}: {each.error}"
        text = Text(plain(f"{what[:1].upper()}{what[1:]}."))
        show.render(Group(head, Padding(text, (0, 0, 0, 8), expand=False)))
        show.say(f"        {each.command}")


def _say_differences(found: Sequence[Difference]) -> None:
    """Print a paragraph for each: in a table, results are cut just where they differ."""
    from rich.table import Table
    from rich.text import Text

    for each in found:
        show.render(tables.Line([plain(each.id), show.cell(each.time)], indent=2))
        both = Table.grid(padding=(0, 2, 0, 0))
        both.add_column(no_wrap=True)
        both.add_column(overflow="fold")
        both.add_row("  current", Text(plain(_result(each.current))))
        both.add_row(f"  shadow {each.version}", Text(plain(_result(each.shadow))))
        show.render(both)


_PARAGRAPHS: dict[Any, Callable[[Any], None]] = {Attention: _say_attention, Difference: _say_differences}
_URGENCY_STYLES = {"high": "bold red", "medium": "bold yellow", "low": "bold"}


def _event_fields(event: Event) -> dict[str, object]:
    return {
        "id": event.id,
        "topic": event.topic,
        "fired": event.time,
        "by": f"{event.process} on {event.machine}",
        "due": event.due,
        "expires": event.expires,
        "key": event.key,
        "cause": f"{event.cause.kind} {event.cause.id}",
        "root": event.root,
        **event.extensions,
    }


def _letter_fields(letter: DeadLetter, topic: str, purpose: str, id: str) -> dict[str, object]:
    first = {"id": id, "topic": topic, "purpose": purpose}
    return (first | _event_fields(letter.event)) | {
        "dead since": letter.time,
        "attempts": letter.attempts,
        "error": letter.error,
        "payload": show.payload_text(letter.event),
    }


def _outcome_row(outcome: Outcome) -> tuple[object, ...]:
    what = f"{outcome.state} at {outcome.place:,}" if outcome.place is not None else outcome.state
    when = outcome.until or outcome.ended or outcome.since
    took = None if outcome.took_s is None else show.took(outcome.took_s)
    who = outcome.version, outcome.machine, outcome.process
    return outcome.purpose, what, when, outcome.attempts or None, took, *who, outcome.error


def table(of: type, found: Sequence[Any], none: str) -> None:
    """Print records of a type as a table, or the sentence `none` where there are none."""
    columns, row = _columns(of)
    tables.rows(columns, [row(each) for each in found], none)


def _columns(of: Any) -> tuple[Columns, Callable[[Any], tuple[object, ...]]]:
    found = _TABLES.get(of)
    return found or (Columns(tuple(map(_heading, of.__struct_fields__))), msgspec.structs.astuple)


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _topic_row(info: TopicInfo) -> tuple[object, ...]:
    keep = show.span(info.keep)
    kept = info.kept, info.kept_bytes, keep, info.keep_bytes
    return info.topic, info.fired, len(info.purposes), info.delayed, info.next_due, *kept


def _delayed_row(delayed: DelayedEvent) -> tuple[object, ...]:
    event = delayed.event
    return delayed.due, event.topic, event.id, event.key, event.expires, show.payload_text(event)


def _owner_row(info: OwnerInfo) -> tuple[object, ...]:
    topics = "no answer" if info.topics is None else ", ".join(info.topics)
    return info.partition, info.stream, info.owner, topics


def _store_row(info: StoreInfo) -> tuple[object, ...]:
    count = sum(info.commits.counts)
    mean_ms = info.commits.sum_s * 1e3 / count if count else None
    return info.store, info.process, info.free, info.size, "full" if info.full else "", count, mean_ms


def _purpose_row(info: PurposeInfo) -> tuple[object, ...]:
    now = info.statistics
    counts = now.instances, now.pending, now.in_flight, now.settled, now.retried, now.dead, now.expired, now.dropped
    age = show.age(now.oldest)
    return (
        info.topic,
        info.purpose,
        now.state,
        now.exchange,
        show.versions(now),
        *counts[:2],
        age,
        *counts[2:],
    )


def _instance_row(info: InstanceInfo) -> tuple[object, ...]:
    state = "" if info.state == "running" else info.state
    held = info.in_hand, info.room, info.rate, info.settled, show.age(info.since), show.age(info.heard)
    return info.topic, info.purpose, info.version, info.machine, info.process, state, *held, info.error


def _audit_pieces(row: Sequence[object]) -> list[str]:
    """Return an entry of the audit in pieces: when and what was done, to what, how exactly, and who did it."""
    time, by, verb, topic, purpose, events, arguments = row
    number = show.counted(events, "event") if isinstance(events, int) else None
    pieces = time, verb, f"{purpose} on {topic}" if purpose else topic, arguments, number, f"by {by}"
    return [show.cell(each) for each in pieces if each]


_RATES = Columns(("LAST", "EVENTS", "NUMBER", "MAX/S", "COURSE"))


def _rate_rows(history: RateHistory) -> Iterator[tuple[object, ...]]:
    for last, seconds, counts in (
        ("5m", 1, history.seconds),
        ("1h", 10, history.ten_seconds),
        ("1d", 60, history.minutes),
    ):
        for name, numbers in msgspec.structs.asdict(counts).items():
            yield last, name, sum(numbers), max(numbers) / seconds, Spark(numbers)


def _version_row(info: VersionInfo) -> tuple[object, ...]:
    share = f"{info.share * 100:.6g} %"
    times = [None if each is None else show.took(each) for each in (info.mean_s, info.p95_s)]
    stands = info.version, info.state, share, info.exchange, info.instances, info.pending, info.in_flight
    return *stands, info.handled, info.settled, *times


def _result(found: Result) -> str:
    """Return what a version made of an event in words, such as `settled, 2 fired: video.encoded {"id":7}; …`."""
    if found.error is not None:
        return f"{found.outcome}: {found.error}"
    fired = "; ".join(f"{each.topic} {each.payload}" for each in found.fired)
    more = "; …" * (found.fired_count > len(found.fired))
    return f"{found.outcome}, {found.fired_count:,} fired: {fired}{more}" if found.fired_count else found.outcome


_TABLES: dict[type, tuple[Columns, Callable[[Any], tuple[object, ...]]]] = {
    TopicInfo: (
        Columns(("TOPIC", "FIRED", "PURPOSES", "DELAYED", "NEXT DUE", "KEPT", "BYTES", "KEEP", "KEEP BYTES")),
        _topic_row,
    ),
    StoreInfo: (
        Columns(
            ("STORE", "PROCESS", "FREE", "SIZE", "STATE", "COMMITS", "MEAN MS"),
            ("STORE", "FREE", "STATE", "MEAN MS", "COMMITS", "SIZE", "PROCESS"),
        ),
        _store_row,
    ),
    OwnerInfo: (Columns(("PARTITION", "STREAM", "OWNER", "TOPICS"), ("PARTITION", "OWNER", "TOPICS")), _owner_row),
    PurposeInfo: (
        Columns(
            ("TOPIC", "PURPOSE", "STATE", "EXCHANGE", "VERSIONS", "INSTANCES", "PENDING", "OLDEST", "IN FLIGHT",
             "SETTLED", "RETRIED", "DEAD", "EXPIRED", "DROPPED"),
            ("TOPIC", "PURPOSE", "STATE", "PENDING", "OLDEST", "DEAD", "INSTANCES", "IN FLIGHT", "SETTLED"),
        ),
        _purpose_row,
    ),
    AuditEntry: (
        Columns(
            ("TIME", "BY", "VERB", "TOPIC", "PURPOSE", "EVENTS", "ARGUMENTS"),
            pieces=_audit_pieces,
        ),
        lambda each: (each.time, each.by, each.verb, each.topic, each.purpose, each.events, each.arguments),
    ),
    InstanceInfo: (
        Columns(
            ("TOPIC", "PURPOSE", "VERSION", "MACHINE", "PROCESS", "STATE", "IN HAND", "ROOM", "SETTLED/S",
             "SETTLED", "SINCE", "HEARD", "ERROR"),
            ("TOPIC", "PURPOSE", "PROCESS", "HEARD", "IN HAND", "STATE", "SETTLED/S", "ERROR", "VERSION", "MACHINE"),
        ),
        _instance_row,
    ),
    Outcome: (
        Columns(
            ("PURPOSE", "STATE", "WHEN", "ATTEMPTS", "TOOK", "VERSION", "MACHINE", "PROCESS", "ERROR"),
            ("PURPOSE", "STATE", "WHEN", "ERROR", "ATTEMPTS", "VERSION", "TOOK", "PROCESS"),
        ),
        _outcome_row,
    ),
    VersionInfo: (
        Columns(
            ("VERSION", "STATE", "SHARE", "EXCHANGE", "INSTANCES", "PENDING", "IN FLIGHT", "HANDLED", "SETTLED", "MEAN",
             "P95"),
            ("VERSION", "STATE", "SHARE", "PENDING", "HANDLED", "SETTLED", "P95", "MEAN", "INSTANCES", "IN FLIGHT"),
        ),
        _version_row,
    ),
    Event: (
        Columns(("ID", "TIME", "KEY", "PAYLOAD"), ("ID", "PAYLOAD")),
        lambda event: (event.id, event.time, event.key, show.payload_text(event)),
    ),
    DelayedEvent: (
        Columns(("DUE", "TOPIC", "ID", "KEY", "EXPIRES", "PAYLOAD"), ("DUE", "ID", "TOPIC", "PAYLOAD")),
        _delayed_row,
    ),
    DeadLetter: (
        Columns(("ID", "DEAD SINCE", "ATTEMPTS", "ERROR"), ("ID", "ERROR")),
        lambda letter: (letter.event.id, letter.time, letter.attempts, letter.error),
    ),
}  # fmt: skip
