"""From the name of a Django database to the URL that a relay connects to."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from django.db import DEFAULT_DB_ALIAS, connections

from ...errors import BadArgument
from ...names import shown

DEFAULT = DEFAULT_DB_ALIAS
_HIDDEN = {"pool", "server_side_binding", "assume_role", "isolation_level", "cursor_factory", "context"}  # Django's own


def check_database(alias: str) -> Any:
    """Return the connection of a Django database. Raise `BadArgument` for a name that is none, and for a database that
    has no outbox."""
    if alias not in connections:
        known = ", ".join(map(repr, connections))
        raise BadArgument(f"expected the name of a Django database, one of {known}, or a URL, got {shown(alias)}")
    connection: Any = connections[alias]
    if connection.vendor not in ("postgresql", "sqlite"):
        raise BadArgument(f"expected a Django database on PostgreSQL or SQLite, got {alias!r} on {connection.vendor}")
    return connection


def database_url(alias: str) -> str:
    """Return the URL of a Django database. Raise what `check_database` raises, and `BadArgument` for one that no other
    connection sees."""
    connection = check_database(alias)
    stated = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(_file(alias, str(stated['NAME'])))}"
    options = {name: value for name, value in stated["OPTIONS"].items() if name not in _HIDDEN}
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    options |= {option: str(stated[name]) for option, name in named.items() if stated[name]}
    return f"postgresql:///?{urlencode(options, quote_via=quote)}"


def _file(alias: str, name: str) -> str:
    """Return the path of SQLite's file; its name may be a URI. Raise `BadArgument`."""
    path, query = name, ""
    if name.startswith("file:"):
        parts = urlsplit(name)
        path, query = unquote(parts.path), parts.query
    if path in ("", ":memory:") or "memory" in parse_qs(query).get("mode", ()):
        raise BadArgument(
            f"expected a Django database in a file, which a relay can open, got {alias!r} whose NAME is {shown(name)}"
        )
    return os.path.abspath(path)
