"""`token`: who may use a server, and for what. It changes the token file; a running server notices at once."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import TYPE_CHECKING, Annotated, Any

import typer

from .options import JsonOption, consent, duration, option
from .serve import needs_server

if TYPE_CHECKING:
    from ..server.access import Listen, Token

app = typer.Typer(help="Who may use a server: create, list and revoke tokens.", no_args_is_help=True)

DataOption = Annotated[str, option("data", "The store whose tokens they are.")]
TokenFileOption = Annotated[str | None, option("file", "The file of tokens.", show_default="DATA.tokens")]


@app.command()
def create(
    name: Annotated[str, typer.Argument(metavar="NAME", help="Who it is for.", show_default=False)],
    fire: Annotated[
        list[str] | None, option("fire", "A topic to fire on; * is any. Several are allowed.", show_default=False)
    ] = None,
    listen: Annotated[
        list[str] | None,
        option("listen", "A TOPIC or TOPIC:PURPOSE to listen to; * is any. Several, too.", show_default=False),
    ] = None,
    watch: Annotated[bool, consent("watch", "May see all facts, and no payloads or errors.")] = False,
    watch_payloads: Annotated[bool, consent("watch-payloads", "May see payloads and errors, too.")] = False,
    admin: Annotated[bool, consent("admin", "May see everything, and operate.")] = False,
    expires: Annotated[str | None, option("expires", "How long it is good, such as 30d.", show_default=False)] = None,
    file: TokenFileOption = None,
    data: DataOption = "wind.db",
    json: JsonOption = False,
) -> None:
    """Make a token and print it: it is shown this once, and kept nowhere."""
    from ..server.access import create_token
    from . import show

    lasts = None if expires is None else _lasting(expires)
    pairs = tuple(_pair(each) for each in listen or ())
    path = _path(file, data)
    is_first = file is None and os.path.exists(data) and not os.path.exists(path)
    text, made = create_token(
        path,
        name,
        fire=tuple(fire or ()),
        listen=pairs,
        admin=admin,
        watch=watch,
        watch_payloads=watch_payloads,
        expires=lasts,
    )
    if json:
        show.document({"token": text} | _record(made))
    else:
        show.say(text)
        show.note(f"{name} may {_rights(made)}{_until(made)}. The token is shown this once: {path} has its hash only.")
        if is_first:
            show.note(
                f"It is the first one: from now on a server on {data} refuses everybody without a token, and the "
                f"services that are connected to it end."
            )
        if file is None and not os.path.exists(data):
            show.note(
                f"There is no store at {data} yet: the token is for the server that is started with --data {data}."
            )
        show.note("Give it to programs as $SOLARWIND_TOKEN, and by HTTP as `Authorization: Bearer TOKEN`.")


@app.command("list")
def list_(file: TokenFileOption = None, data: DataOption = "wind.db", json: JsonOption = False) -> None:
    """Show the tokens, and what each allows."""
    from ..server.access import read_tokens
    from . import show, tables

    found = read_tokens(_path(file, data))
    if json:
        show.document([_record(each) for each in found])
        return
    tables.rows(
        tables.Columns(("NAME", "ID", "FIRE", "LISTEN", "WATCH", "ADMIN", "CREATED", "EXPIRES")),
        [
            (
                each.name,
                each.id,
                ", ".join(each.fire),
                ", ".join(map(_listened, each.listen)),
                "payloads" if each.watch_payloads else "yes" if each.watch else "",
                "yes" if each.admin else "",
                each.created,
                each.expires,
            )
            for each in found
        ],
        none="No tokens: all access is denied.",
    )


@app.command()
def revoke(
    token: Annotated[str, typer.Argument(metavar="NAME|ID", show_default=False)],
    file: TokenFileOption = None,
    data: DataOption = "wind.db",
    json: JsonOption = False,
) -> None:
    """Revoke a token. Connections that it opened end."""
    from ..server.access import revoke_token
    from . import show

    path = _path(file, data)
    gone = revoke_token(path, token)
    if json:
        show.document(_record(gone))
    else:
        show.say(f"{gone.name} ({gone.id}) is revoked")


@app.callback()
def _start() -> None:
    needs_server()


def _path(file: str | None, data: str) -> str:
    return file or f"{data}.tokens"


def _lasting(text: str) -> timedelta:
    lasts = duration(text, "--expires")
    if not lasts:
        raise typer.BadParameter("expected a duration above 0, such as 30d, got 0", param_hint="--expires")
    return lasts


def _pair(text: str) -> Listen:
    """Return the right that `TOPIC:PURPOSE` names. A purpose may have colons, a topic none."""
    from ..server.access import ANY, Listen

    topic, colon, purpose = text.partition(":")
    return Listen(topic, purpose if colon else ANY)


def _listened(pair: Listen) -> str:
    from ..server.access import ANY

    return pair.topic if pair.purpose == ANY else f"{pair.topic}:{pair.purpose}"


def _rights(token: Token) -> str:
    """Return the token's rights in words."""
    parts = [f"fire on {each}" for each in token.fire]
    parts += [f"listen to {_listened(each)}" for each in token.listen]
    parts += ["watch with payloads"] if token.watch_payloads else ["watch"] if token.watch else []
    parts += ["operate"] if token.admin else []
    return ", ".join(parts)


def _until(token: Token) -> str:
    from .show import cell

    return "" if token.expires is None else f", until {cell(token.expires)}"


def _record(token: Token) -> dict[str, Any]:
    return {
        "name": token.name,
        "id": token.id,
        "fire": token.fire,
        "listen": [{"topic": each.topic, "purpose": each.purpose} for each in token.listen],
        "watch": token.watch,
        "watch_payloads": token.watch_payloads,
        "admin": token.admin,
        "created": token.created,
        "expires": token.expires,
    }
