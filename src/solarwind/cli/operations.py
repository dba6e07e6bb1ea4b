"""The commands of operations, made from their table: arguments, output as a table or JSON, consent.

The kind of an argument decides how it is written on the command line, and the type of an answer how it is printed. So a
new operation needs nothing here, unless its answer needs a form of its own.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from inspect import Parameter, Signature
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ..engine.answers import Page, item_of
from ..engine.arguments import Kind
from ..engine.request import Cli, Operation
from ..errors import TooLarge
from ..event import Event
from ..operations import OPERATIONS
from ..records import DeadLetter, PurposeInfo, TopicInfo, Trace
from ..text import plain
from . import show
from .options import (
    DEFAULT_URL,
    JsonOption,
    PurposeArgument,
    TopicArgument,
    UrlOption,
    consent,
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
            where = groups[group] if group else app
            where.command(name, rich_help_panel=None if group else panel)(_command(operation, operation.cli))


def _command(operation: Operation[..., Any], cli: Cli) -> Callable[..., None]:
    def run(url: str, json: bool, **given: Any) -> None:
        from .reach import operate

        arguments = {name: _read(kind, name, given) for name, kind in operation.kinds.items()}
        if given.get("follow"):
            operate(url, lambda wind: _follow_until_told(operation, wind, arguments, json))
            return
        request = operation.request(arguments)
        answer = operate(url, lambda wind: wind.ask(request))
        if not json:
            _say(operation, cli, answer, request.arguments)
            return
        try:
            show.document(_document(operation, cli, answer, request.arguments))
        except RecursionError:
            raise TooLarge("expected an answer that JSON can nest, got a longer chain: leave out --json") from None

    parameters = [each for name, kind in operation.kinds.items() for each in _parameters(operation, cli, name, kind)]
    parameters += [_parameter("url", UrlOption, DEFAULT_URL), _parameter("json", JsonOption, False)]
    run.__doc__ = cli.help
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


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
_ARGUMENTS: dict[str, Any] = {
    "topic": TopicArgument,
    "topic?": Annotated[str | None, typer.Argument(metavar="TOPIC", show_default=False)],
    "purpose": PurposeArgument,
    "id": Annotated[str, typer.Argument(metavar="ID", show_default=False)],
}


def _parameters(operation: Operation[..., Any], cli: Cli, name: str, kind: Kind) -> Iterator[Parameter]:
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
    type_ = str if kind.name in ("since", "until") else kind.wire
    yield _parameter(name, Annotated[type_, makes(name.replace("_", "-"), cli.options[name])], default)


def _parameter(name: str, type_: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=type_)


def _read(kind: Kind, name: str, given: dict[str, Any]) -> Any:
    if kind.name == "ids":
        return several_or_all(given[name], given["all"])
    if kind.name == "wait":
        return 0.0
    return moment(given[name], f"--{name}") if kind.name in ("since", "until") else given[name]


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


def _purpose_row(info: PurposeInfo) -> tuple[object, ...]:
    now = info.statistics
    counts = now.instances, now.pending, now.in_flight, now.settled, now.retried, now.dead, now.dropped
    return info.topic, info.purpose, now.exchange, ", ".join(map(str, now.versions)), *counts


_TABLES: dict[type, tuple[tuple[str, ...], Callable[[Any], tuple[object, ...]]]] = {
    TopicInfo: (("TOPIC", "FIRED", "PURPOSES", "KEPT", "BYTES", "KEEP", "KEEP BYTES"), _topic_row),
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
