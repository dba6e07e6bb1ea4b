"""Checks of every request before anything else: its host name, its origin and its token.

A browser sends a page's requests to any address, the user's own machine included. Two headers that no page can forge
tell such requests apart: `Host`, the name that the page used, which is another's after DNS rebinding; and `Origin`,
where the page comes from. Both are checked for HTTP and for the WebSocket handshake alike, so all of this works on
headers as ASGI has them: pairs of bytes, names in lower case.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Iterable
from typing import NamedTuple

from ..errors import BadArgument, BadToken, NotAllowed
from ..logs import limited
from .access import Access, Grant

Headers = Iterable[tuple[bytes, bytes]]
ResponseHeaders = list[tuple[bytes, bytes]]

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ANY = "*"
SOCKET_HOST = "localhost"  # in requests that come by a Unix socket, which has no name of its own
_PORTS = {"http": 80, "https": 443}
_SCHEMES = {"ws": "http", "wss": "https"}
_HOST = re.compile(r"(\[[0-9a-fA-F:.]{2,45}\]|[A-Za-z0-9._~-]{1,253})(?::([0-9]{1,5}))?")
_TOKENS = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{0,1000}")
_METHODS = b"GET, HEAD, POST, PUT, DELETE"
_PREFLIGHT_S = b"600"


class WebOrigin(NamedTuple):
    """Scheme, host and port, which pages of the same origin share."""

    scheme: str
    host: str
    port: int


class Guard:
    """`hosts` are the names that the server answers to: None is any where tokens are needed, and else loopback's.
    `origins` are further origins whose pages may use it. Raises `BadArgument` for an invalid one."""

    def __init__(self, access: Access, hosts: Collection[str] | None = None, origins: Collection[str] = ()) -> None:
        self._access = access
        self._hosts = None if hosts is None else frozenset(read_host(each) for each in hosts)
        self._origins = frozenset(read_origin(each) for each in origins)

    def check(self, scheme: str, headers: Headers, address: str | None = None, *, page: bool = False) -> None:
        """Raise `NotAllowed` for another host name, or a page of another origin. `scheme` is ASGI's.

        `address` is the one that the request came to, `SOCKET_HOST` for a Unix socket. It is always accepted as a host
        name, because it cannot be rebound. A `page` may be opened from anywhere, as a document of its own: it has
        nothing in it that is secret.
        """
        headers = list(headers)
        host = self._check_host(scheme, headers, address)
        origin = _one(headers, b"origin")
        if origin is not None:
            self._check_origin(origin, host)
        elif (
            page and _one(headers, b"sec-fetch-mode") == b"navigate" and _one(headers, b"sec-fetch-dest") == b"document"
        ):
            return
        elif _one(headers, b"sec-fetch-site") in (b"cross-site", b"same-site"):
            raise NotAllowed(
                "expected a request that no page of another site makes, got one without an Origin: use fetch() from "
                "an origin that the server allows"
            )

    def grant(self, headers: Headers, uid: int | None = None) -> Grant:
        """Return the rights of the request's token. `uid` is the client's user where it is known. Raise `BadToken`, and
        `NotAllowed` for another user."""
        return self._access.grant(None if self._access.open else bearer(headers), uid)

    def cors(self, headers: Headers) -> ResponseHeaders:
        """Return the headers of an answer by which the browser lets an allowed page read it; none for other pages."""
        origin = self._foreign(headers)
        if origin is None:
            return [(b"vary", b"Origin")] if self._origins else []
        return [(b"access-control-allow-origin", origin), (b"vary", b"Origin")]

    def preflight(self, headers: Headers) -> ResponseHeaders | None:
        """Return the headers, besides those of `cors`, of the 204 answer to a CORS preflight request.

        None where it is no such request.
        """
        headers = list(headers)
        if self._foreign(headers) is None or _one(headers, b"access-control-request-method") is None:
            return None
        wanted = _one(headers, b"access-control-request-headers") or b""
        return [
            (b"access-control-allow-methods", _METHODS),
            (b"access-control-allow-headers", wanted if _TOKENS.fullmatch(wanted) else b""),
            (b"access-control-max-age", _PREFLIGHT_S),
            (b"vary", b"Access-Control-Request-Headers"),
        ]

    def _foreign(self, headers: Headers) -> bytes | None:
        """Return the Origin header if it is the only one, and allowed."""
        found = [value.strip() for name, value in headers if name == b"origin"]
        allowed = len(found) == 1 and _parse_origin(found[0].decode("latin-1")) in self._origins
        return found[0] if allowed else None

    def _check_host(self, scheme: str, headers: Headers, address: str | None) -> WebOrigin | None:
        given = _one(headers, b"host")
        host = _parse_host(scheme, given.decode("latin-1")) if given is not None else None
        if host is not None and address is not None and host.host in (_plain_address(address), address):
            return host
        allowed = self._hosts
        if allowed is None:
            if not self._access.open:
                return host
            allowed = LOOPBACK
        if ANY not in allowed and (host is None or host.host not in allowed):
            if given is None:
                raise NotAllowed(f"expected a Host header with one of {_listed(allowed)}, got a request without one")
            raise NotAllowed(
                f"expected a request for {_listed(allowed)}, got one for {_shown(given)}: "
                "allow the name with --allow-host if it is yours"
            )
        return host

    def _check_origin(self, given: bytes, host: WebOrigin | None) -> None:
        origin = _parse_origin(given.decode("latin-1"))
        if origin is None or (origin != host and origin not in self._origins):
            if origin is None:
                remedy = "serve the page by http or https, since no other origin can be allowed"
            else:
                remedy = (
                    f"if the page is yours, serve with --origin {given.decode('latin-1')}, in an app with origins=[…]"
                )
            limited.warning(("origin refused",), "a page from %s was refused: %s", _shown(given), remedy)
            raise NotAllowed(
                "expected a request from a page of this server, or of an origin that it allows, got one from "
                f"{_shown(given)}: {remedy}"
            )


def _plain_address(text: str) -> str | None:
    """Return an address in the form in which hosts are compared; None for anything else."""
    try:
        found = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, ipaddress.IPv6Address) else None
    return str(mapped or found)


def bearer(headers: Headers) -> str | None:
    """Return the token of an `Authorization: Bearer` header. Raise `BadToken` for another scheme, or several
    headers."""
    found = [value for name, value in headers if name == b"authorization"]
    if not found:
        return None
    scheme, _, token = found[0].strip().partition(b" ")
    token = token.strip()
    if len(found) > 1 or scheme.lower() != b"bearer" or not token or b" " in token:
        raise BadToken("expected one header Authorization: Bearer, followed by a token, got something else")
    return token.decode("latin-1")


def read_host(text: str) -> str:
    """Return a host name without a port, as headers are compared with it. Raise `BadArgument`."""
    if text == ANY:
        return ANY
    bare = f"[{text}]" if ":" in text and not text.startswith("[") else text
    found = _parse_host("http", bare)
    if found is None or (_HOST.fullmatch(bare) or [None] * 3)[2] is not None:
        raise BadArgument(f"expected a host's name without a port, such as events.example.com, or {ANY}, got {text!a}")
    return found.host


def read_origin(text: str) -> WebOrigin:
    """Return an origin. Raise `BadArgument`."""
    origin = _parse_origin(text)
    if origin is None:
        raise BadArgument(f"expected an origin with nothing after it, such as https://app.example.com, got {text!a}")
    return origin


def _parse_origin(text: str) -> WebOrigin | None:
    """Return an origin, or None where it is invalid or `null`, which any page can obtain."""
    scheme, separator, rest = text.partition("://")
    if not separator or scheme.lower() not in _PORTS:
        return None
    return _parse_host(scheme, rest)


def _parse_host(scheme: str, text: str) -> WebOrigin | None:
    found = _HOST.fullmatch(text)
    if found is None:
        return None
    name, port = found[1].lower().removesuffix("."), found[2]
    scheme = scheme.lower()
    scheme = _SCHEMES.get(scheme, scheme)
    if name.startswith("["):
        try:
            name = str(ipaddress.IPv6Address(name[1:-1]))
        except ValueError:
            return None
    return WebOrigin(scheme, name, int(port) if port else _PORTS[scheme])


def _one(headers: Headers, name: bytes) -> bytes | None:
    """Return the header's value. Raise `NotAllowed` where there are several, because it is unclear which one counts."""
    found = [value for each, value in headers if each == name]
    if len(found) > 1:
        raise NotAllowed(f"expected one {name.decode().title()} header, got {len(found)}")
    return found[0].strip() if found else None


def _shown(given: bytes | None) -> str:
    return "none" if given is None else ascii(given[:200].decode("latin-1"))


def _listed(names: Collection[str]) -> str:
    return ", ".join(sorted(names)) or "no name"
