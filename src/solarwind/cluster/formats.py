"""How NATS writes headers and times."""

from __future__ import annotations

from datetime import UTC, datetime


def read_headers(data: bytes) -> dict[str, str]:
    """Read the headers of a stored message: a line with NATS's version, and one line for each header."""
    lines = data.decode(errors="replace").split("\r\n")[1:]
    pairs = (line.partition(":") for line in lines)
    return {name.strip(): value.strip() for name, colon, value in pairs if colon}


def read_time(text: str) -> int:
    """Return ns since 1970, from RFC 3339."""
    whole, _, rest = text.rstrip("Z").partition(".")
    seconds = int(datetime.fromisoformat(whole).replace(tzinfo=UTC).timestamp())
    return seconds * 1_000_000_000 + int(rest.ljust(9, "0")[:9] or 0)


def write_time(ns: int) -> str:
    """Return RFC 3339, from ns since 1970."""
    seconds, rest = divmod(max(0, ns), 1_000_000_000)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}.{rest:09d}Z"
