"""A `nats://` URL is read here: where the servers are, which namespace it names, and what it states of it."""

from __future__ import annotations

import os
import re
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec

from ..errors import BadArgument
from ..text import redact

EXPECTED = "nats://host[:port][,host…][/namespace][?option=value]"
PORT = 4222
MAX_STREAMS = 1_000
_NAMESPACE = re.compile(r"[A-Za-z0-9-]{1,64}")
_S = 1_000_000_000


class NamespaceSettings(msgspec.Struct, frozen=True):
    """The settings of a namespace, for all who use it: written when it is first used, and never changed silently.

    `streams` is over how many streams its topics are spread, by their whole names or, if `words` is not 0, by so many
    first words of them. `dedup_s` is the streams' de-duplication window. `keep_s` is how much history a topic keeps for
    which nothing else was set.
    """

    streams: int = 8
    words: int = 0
    replicas: int = 1
    dedup_s: float = 120.0
    keep_s: float = 7 * 86_400.0


_BOUNDS: dict[str, tuple[float, float]] = {
    "streams": (1, MAX_STREAMS),
    "words": (0, 100),
    "replicas": (1, 5),
    "dedup_s": (1, 86_400),
    "keep_s": (0, 10_000 * 86_400.0),
}
_NAMES = {"dedup_s": "dedup", "keep_s": "keep"}  # in a URL


class Address(msgspec.Struct, frozen=True):
    """Where a namespace is. `stated` are the settings that the URL states."""

    servers: tuple[str, ...]
    shown: str  # without secrets
    namespace: str
    user: str | None
    password: str | None
    credentials: str | None  # a file
    tls: bool
    stated: dict[str, float]

    def merged(self, found: NamespaceSettings | None) -> NamespaceSettings:
        """Return the settings to go by, where `found` are the namespace's, if it has any. Raise `BadArgument`."""
        if found is None:
            return msgspec.structs.replace(NamespaceSettings(), **self.stated)
        for name, value in self.stated.items():
            if getattr(found, name) != value:
                raise BadArgument(
                    f"expected {option_name(name)}={getattr(found, name):g}, as namespace {self.namespace!r} was made, "
                    f"got {option_name(name)}={value:g}: leave it out of the URL, or name another namespace"
                )
        return found


def check_settings(settings: NamespaceSettings) -> None:
    """Raise `BadArgument` if they are out of bounds, as where another program wrote them."""
    for name, (low, high) in _BOUNDS.items():
        if not low <= getattr(settings, name) <= high:
            raise BadArgument(f"expected {option_name(name)} from {low:g} to {high:g}, got {getattr(settings, name):g}")


def option_name(setting: str) -> str:
    """Return the name of a setting in a URL."""
    return _NAMES.get(setting, setting)


def read_address(url: str) -> Address:
    """Read a URL. Raise `BadArgument`, without repeating a password."""
    try:
        parts = urlsplit(url)
    except ValueError:
        raise BadArgument(f"expected {EXPECTED}, got a URL that cannot be read") from None
    if "@" in parts.path + parts.query + parts.fragment:
        raise BadArgument(
            f"expected {EXPECTED}, got one with an @ too late: write %2F, %3F, %23 and %40 for / ? # and @"
        )
    login, _, hosts = parts.netloc.rpartition("@")
    shown = redact(f"nats://{hosts}{parts.path}")
    servers = tuple(_server(host, shown) for host in hosts.split(","))
    user, _, password = login.partition(":")
    namespace = unquote(parts.path[1:]) or "default"
    if not _NAMESPACE.fullmatch(namespace):
        raise BadArgument(f"expected a namespace of 1 to 64 of A-Z a-z 0-9 -, got {redact(namespace)!a}")
    if parts.fragment:
        raise BadArgument(f"expected {EXPECTED}, got something after '#'")
    options = _options(parts.query)
    credentials = options.pop("creds", None) or os.environ.get("SOLARWIND_NATS_CREDS") or None
    tls = options.pop("tls", "false")
    if tls not in ("true", "false"):
        raise BadArgument(f"expected tls=true or tls=false, got {tls!a}")
    return Address(
        servers,
        shown,
        namespace,
        unquote(user) or None,
        unquote(password) or None,
        credentials,
        tls == "true",
        {name: _value(name, options.get(option_name(name))) for name in _BOUNDS if option_name(name) in options},
    )


def _server(host: str, shown: str) -> str:
    parts = urlsplit(f"nats://{host}")
    try:
        port = parts.port
    except ValueError:
        port = 0
    if not parts.hostname or port == 0 or parts.path or not re.fullmatch(r"[\w.:\[\]-]+", host):
        raise BadArgument(f"expected {EXPECTED}, got the server {redact(host)!a} in {shown!a}")
    name = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    return f"nats://{name}:{port or PORT}"


def _options(query: str) -> dict[str, str]:
    pairs = parse_qsl(query, keep_blank_values=True)
    known = ["creds", "tls", *map(option_name, _BOUNDS)]
    options: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise BadArgument(f"expected an option of nats://, one of {', '.join(known)}, got {redact(name)!a}")
        if name in options:
            raise BadArgument(f"expected option {name} once, got it more often")
        options[name] = value
    return options


def _value(name: str, text: Any) -> float:
    low, high = _BOUNDS[name]
    whole = isinstance(getattr(NamespaceSettings(), name), int)
    try:
        value = int(text) if whole else float(text)
    except ValueError:
        value = -1
    if not low <= value <= high:
        kind = "a whole number" if whole else "a number"
        unit = "" if whole else " of seconds"
        raise BadArgument(f"expected {kind}{unit} from {low:g} to {high:g} as {option_name(name)}, got {text!a}")
    return value
