"""From a URL to an engine."""

from __future__ import annotations

import os
from urllib.parse import parse_qsl, quote, unquote, urlsplit

from .engine.base import Engine
from .errors import BadArgument
from .extras import missing_extra
from .limits import Limits
from .names import check_path, check_socket_path
from .systems import check_linux, posix_needed
from .text import redact

EXPECTED = (
    "a URL such as memory://, sqlite:///wind.db, ws://127.0.0.1:7400, unix:///run/wind.sock or nats://127.0.0.1:4222"
)
SERVERS = ("ws", "wss", "unix")  # the schemes of a server's URL


def open_engine(
    url: str | None,
    limits: Limits | None = None,
    token: str | None = None,
    *,
    serves: bool = False,
    makes: bool = True,
) -> Engine:
    """Return the engine for `url`, not yet started; None is `$SOLARWIND_URL`, or else `memory://`.

    `token` is for a server; None is `$SOLARWIND_TOKEN`. `serves` and `makes` count for `nats://`: whether it is there
    for others, too, and whether it makes a namespace that is not there. Raise `BadArgument`."""
    if url is None:
        url = os.environ.get("SOLARWIND_URL") or "memory://"
    if not isinstance(url, str):
        raise BadArgument(f"expected {EXPECTED}, got {type(url).__name__}")
    url = url.strip()
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise BadArgument(f"expected {EXPECTED}, got {redact(url)!a}: {redact(str(error))}") from None
    if parts.scheme == "memory":
        if url != "memory://":
            raise BadArgument(f"expected memory:// with nothing after it, got {redact(url)!a}")
        from .engine.local import LocalEngine
        from .store.memory import MemoryStore

        return LocalEngine(MemoryStore(), limits=limits)
    if parts.scheme == "sqlite":
        from .engine.local import LocalEngine

        try:
            from .store.sqlite import SqliteStore
        except ModuleNotFoundError as error:
            raise posix_needed(error, "a sqlite:// URL") from None
        return LocalEngine(SqliteStore(sqlite_path(url)), limits=limits)
    if parts.scheme in SERVERS:
        path = socket_path(url) if parts.scheme == "unix" else None
        if path is not None:
            check_linux("a unix:// URL", "name a server at a port, such as ws://127.0.0.1:7400")
        else:
            _check_server(url)
        try:
            from .peer.remote import RemoteEngine
        except ImportError:
            raise missing_extra("server", f"a {parts.scheme}:// URL") from None
        return RemoteEngine(url.rstrip("/"), token, path)
    if parts.scheme == "nats":
        try:
            from .cluster.engine import NatsEngine
        except ImportError:
            raise missing_extra("nats", "a nats:// URL") from None
        return NatsEngine(url, limits=limits, serves=serves, makes=makes)
    raise BadArgument(f"expected {EXPECTED}, got {redact(url)!a}")


def _check_server(url: str) -> None:
    """Raise `BadArgument` for a server's URL that holds a secret, since process lists and logs show URLs."""
    parts = urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise BadArgument(
            "expected the URL of a server without a name or secret, and nothing after it: give the token by "
            "$SOLARWIND_TOKEN"
        )
    try:
        sound = bool(parts.hostname) and parts.port != 0 and ("%" not in parts.netloc or parts.netloc.startswith("["))
    except ValueError:
        sound = False
    if not sound:
        raise BadArgument(f"expected the URL of a server, such as ws://127.0.0.1:7400, got {redact(url)!a}")


def socket_path(url: str) -> str:
    """Return the path of the Unix socket that a unix:// URL names. Raise `BadArgument`."""
    url = url.strip()
    parts = urlsplit(url)
    sound = url[len("unix:") :].startswith("///") and not parts.netloc and not parts.query and not parts.fragment
    if parts.scheme != "unix" or not sound or len(parts.path) < 2 or parts.path.endswith("/"):
        raise BadArgument(
            "expected unix:// and the whole path of a server's socket, such as unix:///run/wind.sock, and nothing "
            f"after it, got {redact(url)!a}"
        )
    return check_socket_path(unquote(parts.path, errors="surrogateescape"))


def socket_url(path: str) -> str:
    """Return the URL of the Unix socket at an absolute path."""
    return f"unix://{quote(path)}"


def sqlite_path(url: str) -> str:
    """Return the file that a sqlite:// URL names. Raise `BadArgument`."""
    url = url.strip()
    parts = urlsplit(url)
    sound = url[len("sqlite:") :].startswith("///") and not parts.netloc and parts.path != "/:memory:"
    if parts.scheme != "sqlite" or not sound or len(parts.path) < 2 or parts.path.endswith("/"):
        raise BadArgument(
            "expected sqlite:///wind.db for a file here, or sqlite:////var/lib/wind.db for a path from the root, "
            f"got {redact(url)!a}"
        )
    if parts.fragment or parse_qsl(parts.query, keep_blank_values=True):
        raise BadArgument(f"expected a sqlite URL without options, got {redact(url)!a}")
    return check_path(unquote(parts.path[1:], errors="surrogateescape"))
