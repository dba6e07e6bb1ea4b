"""Who is connected, from which address: counted as connections are accepted, before TLS and before any protocol, so
that one address cannot take what is there for all."""

from __future__ import annotations

import asyncio
import ipaddress

VISIT = "solarwind.visit"  # the name of a connection's `Visit` in the state of its requests


class Visit:
    """A connection, from when it is accepted until it is lost, as TLS, as HTTP or as what it was upgraded to."""

    __slots__ = ("_sources", "address", "ended", "since", "transport")

    def __init__(self, sources: Sources, address: str, since: float) -> None:
        self._sources = sources
        self.address = address
        self.since = since
        self.transport: asyncio.Transport | None = None  # once there is one
        self.ended = False

    @property
    def known(self) -> bool:
        """Whether it has shown a token, where tokens are needed, or asked for something."""
        return self not in self._sources.strangers

    def welcome(self) -> None:
        """It has."""
        if self._sources.strangers.pop(self, self) is None and self.transport is not None:
            self.transport.set_write_buffer_limits()

    def end(self) -> None:
        """Let go of it."""
        self.ended = True
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """It is lost."""
        self._sources.leave(self)


class Sources:
    """How many connections there are, of each address and of all.

    Not more than there are files for, with some left for everything else; of those that nobody knows yet half as many.
    One more of these lets go of the one that has been unknown for longest: who just connects cannot keep others out.
    """

    def __init__(self, most: int, max_of_all: int) -> None:
        """`most` of one address."""
        self._max = most
        self._max_of_all = max_of_all
        self._counts: dict[str, int] = {}
        self._all = 0
        self.strangers: dict[Visit, None] = {}  # the oldest first
        self._empty: list[asyncio.Future[None]] = []
        self.refused = 0

    def enter(self, address: str) -> Visit | None:
        """Count a connection of it; None if there are as many as there may be."""
        source = _source(address)
        count = self._counts.get(source, 0)
        if count >= self._max or (self._all >= self._max_of_all and not self.strangers):
            self.refused += 1
            return None
        if self._all >= self._max_of_all or len(self.strangers) >= max(1, self._max_of_all // 2):
            self._let_go()
        self._counts[source] = count + 1
        self._all += 1
        visit = Visit(self, address, asyncio.get_running_loop().time())
        self.strangers[visit] = None
        return visit

    def _let_go(self) -> None:
        oldest = next(iter(self.strangers))
        del self.strangers[oldest]
        self.refused += 1
        oldest.end()

    def leave(self, visit: Visit) -> None:
        self.strangers.pop(visit, None)
        source = _source(visit.address)
        self._all -= 1
        if self._counts[source] > 1:
            self._counts[source] -= 1
        else:
            del self._counts[source]
        if not self._counts:
            for waiter in self._empty:
                if not waiter.done():
                    waiter.set_result(None)
            self._empty.clear()

    def count(self, address: str) -> int:
        return self._counts.get(_source(address), 0)

    async def empty(self) -> None:
        """Wait until there are none."""
        if self._counts:
            waiter = asyncio.get_running_loop().create_future()
            self._empty.append(waiter)
            await waiter


def _source(address: str) -> str:
    """What counts as one: an IPv4 address, or the network of an IPv6 address, all of which one host may use."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
