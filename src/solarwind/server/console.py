"""The console: the files of a web page, which need no right. Every fact in it is asked for with a token.

The page is plain modules in `solarwind/console/`, sent as they are. Where the server is mounted below a path, so is the
console: it has only relative addresses.
"""

from __future__ import annotations

import gzip
import re
from functools import cache
from hashlib import sha256
from pathlib import Path

import msgspec
from starlette.responses import Response

from ..engine.request import Operation
from ..errors import NotFound
from ..operations import OPERATIONS
from .access import Listen
from .call import Call, answer, encode
from .gzip_stream import accepts_gzip

FOLDER = Path(__file__).parent.parent / "console"
_PAGE = "index.html"
_OPERATIONS = "operations.json"
_TYPES = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".svg": "image/svg+xml",
    ".json": "application/json",
    ".LICENSE": "text/plain; charset=utf-8",
}
# Nothing from elsewhere, nothing inline, and no text that becomes markup or code.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    )
)
HEADERS = {
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-cache",  # kept, and asked for by its ETag
}


class _File(msgspec.Struct, frozen=True):
    content: bytes
    compressed: bytes
    media_type: str
    etag: str


class Rights(msgspec.Struct, frozen=True):
    """What the token of a request may do. `fire` are topics, or `*`, and `listen` topics and purposes likewise;
    `payloads`: it sees payloads and errors."""

    name: str
    admin: bool
    watch: bool
    payloads: bool
    fire: tuple[str, ...]
    listen: tuple[Listen, ...]


class Console:
    """Whether a server has the console, and its files."""

    def __init__(self, on: bool) -> None:
        self._on = on

    def file(self, name: str) -> _File:
        """Return a file. Raise `NotFound`."""
        if not self._on:
            raise NotFound("expected a server with its console, got one without: start it with console on")
        found = _file(name or _PAGE) if (name or _PAGE) in _names() else None
        if found is None:
            raise NotFound("expected a file of the console, got another path: begin at /console/")
        return found


@cache
def _names() -> frozenset[str]:
    """Return the names of the files that there are: no other is read, whatever a path says."""
    found = (each for each in FOLDER.rglob("*") if each.suffix in _TYPES)
    return frozenset({*(each.relative_to(FOLDER).as_posix() for each in found), _OPERATIONS})


@cache
def _file(name: str) -> _File:
    content = _operations() if name == _OPERATIONS else (FOLDER / name).read_bytes()
    media_type = _TYPES[Path(name).suffix]
    return _File(content, gzip.compress(content, 9, mtime=0), media_type, f'"{sha256(content).hexdigest()[:32]}"')


async def begin(call: Call, console: Console) -> Response:
    """Answer with the way to the page, whose addresses are relative to a folder."""
    console.file("")
    return Response(status_code=308, headers={"location": "console/"})


async def file(call: Call, console: Console) -> Response:
    """Answer with a file of the page."""
    found = console.file(call.part("file"))
    headers = HEADERS | {"etag": found.etag, "vary": "accept-encoding"}
    if found.etag in re.findall(r'"[^"]*"', call.request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=headers)
    content = found.content
    if accepts_gzip(",".join(call.request.headers.getlist("accept-encoding"))):
        content, headers["content-encoding"] = found.compressed, "gzip"
    return Response(content, headers=headers, media_type=found.media_type)


async def rights(call: Call) -> Response:
    """Answer with what the token may do."""
    grant = call.grant
    assert grant is not None
    watches = grant.watch or grant.sees_payloads
    return answer(Rights(grant.name, grant.admin, watches, grant.sees_payloads, grant.fire, grant.listen))


def _operations() -> bytes:
    """Return the operations for the page, from which it makes requests, and the commands that do the same."""
    return encode({name: _row(each) for name, each in OPERATIONS.items() if each.http is not None})


def _row(operation: Operation[..., object]) -> dict[str, object]:
    http, cli = operation.http, operation.cli
    assert http is not None
    return {
        "method": http.method,
        "path": http.path,
        "summary": http.summary,
        "right": operation.right,
        "key": http.key,
        "kinds": {name: kind.name for name, kind in operation.kinds.items()},
        "words": cli.words if cli is not None else None,
        "help": cli.help if cli is not None else None,
    }
