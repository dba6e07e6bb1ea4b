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
from ..errors import NotFound, TooLarge
from ..event import Event
from ..operations import OPERATIONS
from ..records import DeadLetter, OwnerInfo, PurposeInfo, TopicInfo, Trace
from ..text import plain
from . import show
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

if TYPE_CHECKING:
    from rich.tree import Tree

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
    return await wind.ask(request)


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


# By the name of its kind: how an argument that is written as a text is read.
_TEXTS: dict[str, Callable[[str, str], Any]] = {
    "since": moment,
    "until": moment,
    "keep": _keep,
    "keep_bytes": _keep_bytes,
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


def _trace_record(root: Trace) -> dict[str, Any]:
    def record(of: Trace) -> dict[str, Any]:
        return {"event": show.event_record(of.event), "caused": [], "more": of.more}

    top = record(root)
    todo = [(root, top)]
    while todo:  # a chain of causes may be longer than calls can nest
        found, made = todo.pop()
        made["caused"] = [record(child) for child in found.caused]
        todo += zip(found.caused, made["caused"], strict=True)
    return top


_RECORDS: dict[Any, Callable[[Any], Any]] = {
    PurposeInfo: lambda info: {"topic": info.topic, "purpose": info.purpose} | msgspec.structs.asdict(info.statistics),
    DeadLetter: _letter_record,
    Trace: _trace_record,
    Event: show.event_record,
}


# Answers, for people ------------------------------------------------------------------------------------------------


def _say(operation: Operation[..., Any], cli: Cli, answer: Any, arguments: dict[str, Any]) -> None:
    item = item_of(operation.form.kind)
    if item is not None:
        topic = arguments.get("topic")
        none = cli.none.format(**arguments, on_topic=f" on {topic}" if topic else "")
        table(item, answer, none)
        if isinstance(answer, Page) and answer.next is not None:
            show.note(f"There are more: --after {answer.next}")
    elif isinstance(answer, Trace):
        show.render(_tree(answer))
    elif isinstance(answer, DeadLetter):
        show.fields(_letter_fields(answer, **arguments))
    elif isinstance(answer, TopicInfo):
        and_bytes = "" if answer.keep_bytes is None else f", and {answer.keep_bytes:,} bytes at most"
        show.say(f"{answer.topic} keeps events for {show.span(answer.keep)}{and_bytes}")
    elif isinstance(answer, msgspec.Struct):
        show.fields({_heading(name).lower(): value for name, value in msgspec.structs.asdict(answer).items()})
    elif isinstance(answer, bool):
        show.say((cli.says if answer else cli.none).format(**arguments))
    else:
        number = show.counted(answer, "event") if isinstance(answer, int) else answer
        show.say(cli.says.format(number, **arguments))


def _letter_fields(letter: DeadLetter, topic: str, purpose: str, id: str) -> dict[str, object]:
    event = letter.event
    return {
        "id": id,
        "topic": topic,
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


def table(of: type, found: Sequence[Any], none: str) -> None:
    """Print records of a type as a table, or the sentence `none` where there are none."""
    columns, row = _columns(of)
    show.rows(columns, [row(each) for each in found], none)


def _columns(of: Any) -> tuple[tuple[str, ...], Callable[[Any], tuple[object, ...]]]:
    found = _TABLES.get(of)
    return found or (tuple(map(_heading, of.__struct_fields__)), msgspec.structs.astuple)


def _heading(name: str) -> str:
    return name.replace("_", " ").upper()


def _topic_row(info: TopicInfo) -> tuple[object, ...]:
    keep = show.span(info.keep)
    return info.topic, info.fired, len(info.purposes), info.kept, info.kept_bytes, keep, info.keep_bytes


def _owner_row(info: OwnerInfo) -> tuple[object, ...]:
    topics = "no answer" if info.topics is None else ", ".join(info.topics)
    return info.partition, info.stream, info.owner, topics


def _purpose_row(info: PurposeInfo) -> tuple[object, ...]:
    now = info.statistics
    counts = now.instances, now.pending, now.in_flight, now.settled, now.retried, now.dead, now.dropped
    return info.topic, info.purpose, now.exchange, ", ".join(map(str, now.versions)), *counts


_TABLES: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[object, ...]]]] = {
    TopicInfo: (("TOPIC", "FIRED", "PURPOSES", "KEPT", "BYTES", "KEEP", "KEEP BYTES"), _topic_row),
    OwnerInfo: (("PARTITION", "STREAM", "OWNER", "TOPICS"), _owner_row),
    PurposeInfo: (
        ("TOPIC", "PURPOSE", "EXCHANGE", "VERSIONS", "INSTANCES", "PENDING", "IN FLIGHT", "SETTLED", "RETRIED", "DEAD",
         "DROPPED"),
        _purpose_row,
    ),
    Event: (
        ("ID", "TIME", "KEY", "PAYLOAD"),
        lambda event: (event.id, event.time, event.key, show.payload_text(event)),
    ),
    DeadLetter: (
        ("ID", "DEAD SINCE", "ATTEMPTS", "ERROR"),
        lambda letter: (letter.event.id, letter.time, letter.attempts, letter.error),
    ),
}  # fmt: skip


def _tree(root: Trace) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    def label(of: Trace) -> Text:
        event, cause = of.event, of.event.cause
        by = f"by {cause.purpose} (version {cause.version})" if cause.purpose else f"by {cause.kind} {cause.id}"
        return Text(plain(f"{event.topic}  {event.id}  {show.cell(event.time)}  {by}"), overflow="fold")

    top = Tree(label(root))
    todo = [(root, top)]
    while todo:
        found, made = todo.pop()
        todo += [(child, made.add(label(child))) for child in found.caused]
        if found.more:
            after = f" --after {found.caused[-1].event.id}" if found.caused else ""
            made.add(Text(plain(f"and more: solarwind trace {found.event.id}{after}"), overflow="fold"))
    return top
