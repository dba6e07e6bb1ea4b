"""`docs`: the AsyncAPI document of an app, or of a dispatcher."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from ..errors import BadArgument
from .options import DEFAULT_URL, JsonOption, UrlOption, option
from .run import AppArgument, find
from .serve import given_at

if TYPE_CHECKING:
    from ..wind import SolarWind


def docs(
    context: typer.Context,
    target: AppArgument = None,
    output: Annotated[
        Path | None, option("output", "Write it there instead.", metavar="FILE", show_default=False, dir_okay=False)
    ] = None,
    title: Annotated[str | None, option("title", "Of the document.", show_default=False)] = None,
    release: Annotated[str | None, option("release", "The version of the app.", show_default=False)] = None,
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Print the AsyncAPI document of an app: its topics, its purposes and their payloads.

    The app is imported, not run. With `--url` on the command line it is that of all topics of the dispatcher there.
    """
    from ..asyncapi import encode
    from . import show

    if given_at(context, "url") == "COMMANDLINE":
        if given_at(context, "target") == "COMMANDLINE":
            raise typer.BadParameter("expected an app, or the --url of a dispatcher, got both", param_hint="--url")
        made = _of_dispatcher(url, title, release)
    else:
        made = find(target).asyncapi(
            "Solar Wind application" if title is None else title, "0.1.0" if release is None else release
        )
    data = encode(made)
    if output is None:
        sys.stdout.buffer.write(data)
        return
    try:
        output.write_bytes(data)
    except OSError as error:
        raise BadArgument(
            f"expected --output to be a file that can be written, got {output}: {error.strerror}"
        ) from None
    if json:
        show.document({"written": str(output), "operations": len(made["operations"])})
    else:
        show.say(f"{output} has {show.counted(len(made['operations']), 'operation')}")


def _of_dispatcher(url: str, title: str | None, release: str | None) -> dict[str, Any]:
    from importlib.metadata import version

    from ..asyncapi import document
    from .reach import operate

    async def ask(wind: SolarWind) -> dict[str, Any]:
        infos = await wind.schemas()
        return document(
            infos,
            title="Solar Wind" if title is None else title,
            version=version("solarwind") if release is None else release,
        )

    return operate(url, ask)
