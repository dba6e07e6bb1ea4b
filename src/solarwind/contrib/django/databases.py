"""From the name of a Django database to the URL that a relay connects to."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import quote, urlencode

from django.db import DEFAULT_DB_ALIAS, connections

from ...errors import BadArgument
from ...names import shown

DEFAULT = DEFAULT_DB_ALIAS
_HIDDEN = {"pool", "server_side_binding", "assume_role", "isolation_level", "cursor_factory", "context"}  # Django's own


def database_url(alias: str) -> str:
    """Return the URL of a Django database. Raise `BadArgument` for a name that is none, and for a database that has no
    outbox."""
    if alias not in connections:
        known = ", ".join(map(repr, connections))
        raise BadArgument(f"expected the name of a Django database, one of {known}, or a URL, got {shown(alias)}")
    connection: Any = connections[alias]
    stated = connection.settings_dict
    if connection.vendor == "sqlite":
        return f"sqlite:///{quote(os.path.abspath(str(stated['NAME'])))}"
    if connection.vendor != "postgresql":
        raise BadArgument(f"expected a Django database on PostgreSQL or SQLite, got {alias!r} on {connection.vendor}")
    options = {name: value for name, value in stated["OPTIONS"].items() if name not in _HIDDEN}
    named = {"dbname": "NAME", "user": "USER", "password": "PASSWORD", "host": "HOST", "port": "PORT"}
    options |= {option: str(stated[name]) for option, name in named.items() if stated[name]}
    return f"postgresql:///?{urlencode(options, quote_via=quote)}"
