"""The commands of operations, made from their table: arguments, options and consent.

The kind of an argument decides how it is written on the command line, and the type of an answer how it is printed: see
`answers.py`. So a new operation needs nothing here.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from inspect import Parameter, Signature, signature
from typing import TYPE_CHECKING, Annotated, Any

import msgspec
import typer

from ..engine.answers import item_of
from ..engine.arguments import ArgumentKind
from ..engine.request import Cli, Operation, Request
from ..errors import BadArgument, NotFound, TooLarge
from ..names import no_topic
from ..operations import OPERATIONS
from ..shares import read_rollout
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
        from . import answers, show, tracing
        from .reach import operate

        arguments = {name: read_argument(operation, kind, name, given) for name, kind in operation.kinds.items()}
        _refuse_no_change(operation, arguments)
        if given.get("follow"):
            if cli.follow:
                operate(url, lambda wind: tracing.follow_until_told(wind, arguments, json))
            else:
                operate(url, lambda wind: _follow_until_told(operation, wind, arguments, json))
            return
        request = operation.request(arguments)
        answer = operate(url, lambda wind: ask_known(wind, request, given.get("create", True)))
        if not json:
            answers.say(operation, cli, answer, request.arguments)
            return
        try:
            show.document(answers.document(operation, cli, answer, request.arguments))
        except RecursionError:
            raise TooLarge("expected an answer that JSON can nest, got a longer chain: leave out --json") from None

    parameters = [each for name, kind in operation.kinds.items() for each in _parameters(operation, cli, name, kind)]
    parameters += [_parameter("follow", Annotated[bool, consent("follow", cli.follow)], False)] if cli.follow else []
    parameters += [_parameter("create", _CREATE, False)] if operation.makes else []
    parameters += [_parameter("url", UrlOption, DEFAULT_URL), _parameter("json", JsonOption, False)]
    run.__doc__ = cli.help
    run.__signature__ = Signature(parameters)  # type: ignore[attr-defined]
    return run


async def ask_known(wind: SolarWind, request: Request[Any], creates: bool = True) -> Any:
    """Ask it, unless it would make a topic: one that does not exist is more likely mistyped."""
    if not creates:
        from ..calls import meant

        topic, known = request.arguments["topic"], [each.topic for each in await wind.topics()]
        if topic not in known:
            near = meant(topic, known)
            hint = f"did you mean {near!r}? " if near else "see `solarwind topics`; "
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
    import asyncio

    from .reach import leave_on_signals

    leave_on_signals()
    with suppress(asyncio.CancelledError):
        await follow(operation, wind, arguments, json)


async def follow(operation: Operation[..., Any], wind: SolarWind, arguments: dict[str, Any], json: bool) -> None:
    """Print each item as it arrives, one on a line."""
    from . import answers, show

    _, row = answers.columns_of(item_of(operation.form.kind))
    async for each in operation.follow(wind, **arguments):
        if json:
            show.put(show.line(answers.record(each)))
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
    "hook": Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
    "schedule": Annotated[str, typer.Argument(metavar="NAME", show_default=False)],
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
    type_, how = argument_type(kind), {}
    if default is msgspec.UNSET:
        type_, default, how = type_ | None, None, {"show_default": False}
    elif isinstance(default, bytes):
        default = default.decode()
    yield _parameter(name, Annotated[type_, makes(_dashed(name), cli.options[name], **how)], default)


def argument_type(kind: ArgumentKind) -> Any:
    """Return the type in which an argument is written."""
    return str if kind.name in _TEXTS else kind.wire


def _dashed(name: str) -> str:
    return name.replace("_", "-")


def _parameter(name: str, type_: Any, default: Any) -> Parameter:
    return Parameter(name, Parameter.KEYWORD_ONLY, default=default, annotation=type_)


def read_argument(operation: Operation[..., Any], kind: ArgumentKind, name: str, given: dict[str, Any]) -> Any:
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
    "payload": lambda text, name: text.encode(errors="surrogateescape"),  # bytes as the shell gave them
}
