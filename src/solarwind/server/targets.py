"""HTTP requests to URLs that clients state: only to allowed addresses, and within limits of time and size.

A name is resolved once, each of its addresses is checked, and the connection goes to the address that was checked. So a
name cannot be rebound between the check and the connection. The request still carries the name, and a TLS certificate
must match it.
"""

from __future__ import annotations

import asyncio
import re
import socket
import ssl
from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cache, partial
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import NamedTuple
from urllib.parse import urlsplit

import httpcore
import msgspec

from ..errors import BadArgument, NotAllowed
from ..logs import limited

MAX_URL = 2_000  # characters
MAX_ANSWER = 16 << 10  # bytes of an answer's body that are read, so that its connection can be reused
EXCERPT = 500  # bytes of it that are kept, for people
IDLE_S = 30.0  # how long an unused connection stays open
_MAX_ADDRESSES = 8  # tried for one name
_LOOK_UP_S = 5.0  # to resolve a name
_MAX_THREADS = 64  # names resolved at the same time
_CONNECT_S = 5.0  # for one of several addresses, so that the next has a chance

IpAddress = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Resolve = Callable[[str, int], Awaitable[list[str]]]

_URL = re.compile(r"[!-~]+")
_LABEL = r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?"
_NAME = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?")
_HOST = re.compile(rf"{_NAME.pattern}|[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*")

# Special-purpose ranges of IANA by their purpose: none of them is a public address.
_SPECIAL: tuple[tuple[Network, str], ...] = tuple(
    (ip_network(network), what)
    for network, what in (
        ("0.0.0.0/8", "unspecified"),
        ("10.0.0.0/8", "private"),
        ("100.64.0.0/10", "private"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link-local"),
        ("172.16.0.0/12", "private"),
        ("192.0.0.0/24", "reserved"),
        ("192.0.2.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("192.168.0.0/16", "private"),
        ("198.18.0.0/15", "private"),
        ("198.51.100.0/24", "reserved"),
        ("203.0.113.0/24", "reserved"),
        ("224.0.0.0/4", "multicast"),
        ("240.0.0.0/4", "reserved"),
        ("::/128", "unspecified"),
        ("::1/128", "loopback"),
        ("fc00::/7", "private"),
        ("fe80::/10", "link-local"),
        ("fec0::/10", "private"),
        ("ff00::/8", "multicast"),
        ("2001::/23", "reserved"),
        ("2001:db8::/32", "reserved"),
        ("3fff::/20", "reserved"),
    )
)
_GLOBAL = ip_network("2000::/3")  # every other IPv6 address is reserved
_NAT64 = ip_network("64:ff9b::/96")


class TargetUrl(NamedTuple):
    """The parts of a target's URL."""

    scheme: str
    host: str
    port: int
    target: str

    @property
    def authority(self) -> str:
        """The value of the Host header."""
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == _PORTS[self.scheme] else f"{host}:{self.port}"

    @property
    def shown(self) -> str:
        """The URL for people: without the query, which may contain a secret."""
        path, query, _ = self.target.partition("?")
        return f"{self.scheme}://{self.authority}{path}{'?…' if query else ''}"


_PORTS = {"http": 80, "https": 443}


def read_url(text: str) -> TargetUrl:
    """Parse a URL. Raise `BadArgument`, whose text does not show the URL, because it may contain a secret."""
    expected = "expected a URL such as https://example.com/hook"
    if len(text) > MAX_URL:
        raise BadArgument(f"{expected} of at most {MAX_URL:,} characters, got {len(text):,}")
    if not _URL.fullmatch(text) or "\\" in text:
        raise BadArgument(f"{expected}, got one with other than printable ASCII: percent-encode it")
    try:
        parts = urlsplit(text)
        port = parts.port
    except ValueError:
        raise BadArgument(f"{expected}, got one that cannot be read") from None
    if parts.scheme not in _PORTS:
        raise BadArgument(
            f"{expected}, with http or https, got {repr(parts.scheme[:20]) if parts.scheme else 'none'} as its scheme"
        )
    if parts.username is not None or parts.password is not None:
        raise BadArgument(f"{expected}, got one with a user or password before the host: state a token instead")
    if "#" in text:
        raise BadArgument(f"{expected}, got one with a fragment, which is not sent: leave it out")
    host = (parts.hostname or "").lower()
    if not _HOST.fullmatch(host) or len(host) > 253 or port == 0:
        raise BadArgument(f"{expected}, got one whose host is neither a name nor an address, or whose port is 0")
    query = f"?{parts.query}" if "?" in text else ""
    return TargetUrl(parts.scheme, host, port or _PORTS[parts.scheme], (parts.path or "/") + query)


class Allowed:
    """Which addresses may be reached: public ones, and the stated networks, addresses and hosts."""

    def __init__(self, stated: Collection[str] = ()) -> None:
        """Raise `BadArgument` for an invalid network, address or host."""
        self._networks: list[Network] = []
        self._hosts: set[str] = set()
        for each in [stated] if isinstance(stated, str) else stated:
            try:
                self._networks.append(ip_network(each))
            except ValueError:
                if not _NAME.fullmatch(each) or re.fullmatch(r"[\d.]+", each):
                    raise BadArgument(
                        f"expected a network such as 10.0.0.0/8, an address or a host, got {each[:80]!a}"
                    ) from None
                self._hosts.add(each.lower().rstrip("."))

    def fault(self, host: str, address: IpAddress) -> str | None:
        """Return why the address may not be reached by that name; None if it may."""
        meant = _meant(address)
        if host.lower().rstrip(".") in self._hosts:
            return None
        if any(each in network for each in (address, meant) for network in self._networks):
            return None
        return _special(meant)


def _meant(address: IpAddress) -> IpAddress:
    """Return the IPv4 address that an IPv6 one leads to: mapped, NAT64 or 6to4."""
    if isinstance(address, IPv4Address):
        return address
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _special(address: IpAddress) -> str | None:
    for network, what in _SPECIAL:
        if address in network:
            return what
    return None if isinstance(address, IPv4Address) or address in _GLOBAL else "reserved"


async def resolve(host: str, port: int) -> list[str]:
    """Return the addresses of a name from the system's resolver. It runs on threads of its own, so that it does not
    hold up others."""
    ask = partial(socket.getaddrinfo, host, port, type=socket.SOCK_STREAM)
    found = await asyncio.get_running_loop().run_in_executor(_threads(), ask)
    return list(dict.fromkeys(str(each[4][0]) for each in found))


@cache
def _threads() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(_MAX_THREADS, "solarwind-names")


class Dialer(httpcore.AsyncNetworkBackend):
    """Opens connections, and checks each address at the moment of connecting."""

    def __init__(self, allowed: Allowed, resolve: Resolve = resolve) -> None:
        self._allowed = allowed
        self._resolve = resolve
        self._inner = httpcore.AnyIOBackend()
        self._asked: dict[tuple[str, int], asyncio.Future[list[str]]] = {}  # look-ups under way

    async def addresses(self, host: str, port: int) -> list[str]:
        """Return the allowed addresses of a name. Raise `NotAllowed` if there are none, `Unanswered` if it has no
        address."""
        try:
            found = await self._look_up(host, port)
        except TimeoutError:
            raise Unanswered(
                f"expected host {host!a} to be looked up within {_LOOK_UP_S:g} s, but it was not"
            ) from None
        except (OSError, UnicodeError):
            found = []
        if not found:
            raise Unanswered(f"expected host {host!a} to have an address, got none: see whether the name is right")
        faults = [(each, self._allowed.fault(host, ip_address(each))) for each in found]
        good = [each for each, fault in faults if fault is None]
        if not good:
            # The addresses of an internal name are for the operator only, who has the log.
            address, what = faults[0]
            limited.warning(("target", host), "a webhook may not go to %a at %s, which is %s", host, address, what)
            where = f", which is {what}" if host == address else ", which is at none"
            raise NotAllowed(
                f"expected a target at a public address, got {host!a}{where}: "
                "allow it with --webhook-network if that is meant, in an app with webhook_networks=[…]"
            )
        return good[:_MAX_ADDRESSES]

    async def _look_up(self, host: str, port: int) -> list[str]:
        """Resolve a name. Concurrent calls share one look-up, so that a slow name uses one thread at most. Raise
        `TimeoutError`."""
        asked = self._asked.get((host, port))
        if asked is None:
            asked = self._asked[host, port] = asyncio.ensure_future(self._resolve(host, port))
            asked.add_done_callback(lambda _: self._asked.pop((host, port), None))
        return await asyncio.wait_for(asyncio.shield(asked), _LOOK_UP_S)

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        *others, last = await self.addresses(host, port)
        for address in others:
            try:
                return await self._inner.connect_tcp(address, port, _CONNECT_S, local_address, socket_options)
            except (httpcore.ConnectError, httpcore.ConnectTimeout):
                continue
        return await self._inner.connect_tcp(last, port, timeout, local_address, socket_options)

    async def connect_unix_socket(
        self, path: str, timeout: float | None = None, socket_options: Iterable[httpcore.SOCKET_OPTION] | None = None
    ) -> httpcore.AsyncNetworkStream:
        raise NotAllowed("expected a target at an address, got a socket file")

    async def sleep(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class Unanswered(Exception):
    """No answer came. Its text is for people, and contains no secret."""


class TargetAnswer(msgspec.Struct, frozen=True):
    """A target's answer, and the beginning of its body. The names of headers are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes = b""


class Target:
    """Sends requests to one URL over reused connections. It follows no redirect, and uses no proxy."""

    def __init__(self, dialer: Dialer, url: TargetUrl, connections: int, tls: ssl.SSLContext | None = None) -> None:
        self._url = httpcore.URL(scheme=url.scheme, host=url.host, port=url.port, target=url.target)
        self._host = url.authority
        # httpcore rather than a client on top of it, which would log whole URLs.
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=(tls or _tls()) if url.scheme == "https" else None,
            max_connections=connections,
            keepalive_expiry=IDLE_S,
            network_backend=dialer,
        )

    async def request(self, method: str, headers: Mapping[str, str], body: bytes, timeout: float) -> TargetAnswer:
        """Send a request and return the answer. Raise `Unanswered`, and `NotAllowed` for a target that may not be
        reached."""
        sent = {"host": self._host, "user-agent": "solarwind", "accept": "*/*", **headers}
        answer: TargetAnswer | None = None
        body_begin = bytearray()
        try:
            async with asyncio.timeout(timeout):
                async with self._pool.stream(method, self._url, headers=list(sent.items()), content=body) as response:
                    names = {name.decode("ascii").lower(): value.decode("latin-1") for name, value in response.headers}
                    answer = TargetAnswer(response.status, names)
                    await _drain(response, body_begin)
        except TimeoutError:
            if answer is None:
                raise Unanswered(f"expected an answer within {timeout} s, got none") from None
        except (*_FAULTS, OSError) as error:
            if answer is None:
                raise Unanswered(f"expected an answer, got {type(error).__name__}: {error}") from None
        assert answer is not None
        return msgspec.structs.replace(answer, body=bytes(body_begin))

    async def aclose(self) -> None:
        await self._pool.aclose()


async def _drain(response: httpcore.Response, begin: bytearray) -> None:
    """Read a short body, so that the connection can be reused; a long one closes it. `begin` gets its beginning."""
    size = 0
    async for part in response.aiter_stream():
        size += len(part)
        begin += part[: EXCERPT - len(begin)]
        if size > MAX_ANSWER:
            return


_FAULTS = (
    httpcore.NetworkError,
    httpcore.TimeoutException,
    httpcore.ProtocolError,
    httpcore.UnsupportedProtocol,
)


@cache
def _tls() -> ssl.SSLContext:
    """Return the TLS context that all targets share, because making one is slow."""
    return ssl.create_default_context()
