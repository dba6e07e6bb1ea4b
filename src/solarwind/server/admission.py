"""Counts connections by address, from the moment they are accepted, so that one address cannot use all of them."""

from __future__ import annotations

import asyncio
import ipaddress

ADMITTED = "solarwind.admitted"  # the name of a connection's `Admitted` in the state of its requests
CLOSING = 64  # connections that were let go of, each with a file until the loop has closed it


class Admitted:
    """A connection from its acceptance to its end, through TLS, HTTP and an upgrade."""

    __slots__ = ("_admission", "address", "ended", "since", "transport", "uid")

    def __init__(self, admission: Admission, address: str, since: float, uid: int | None) -> None:
        self._admission = admission
        self.uid = uid  # the client's user, where it came by a Unix socket
        self.address = address
        self.since = since
        self.transport: asyncio.Transport | None = None  # once there is one
        self.ended = False

    @property
    def known(self) -> bool:
        """Whether it has shown a token, where tokens are needed, or else sent a request."""
        return self not in self._admission.unknown

    def welcome(self) -> None:
        """Mark it as known."""
        if self._admission.unknown.pop(self, self) is None and self.transport is not None:
            self.transport.set_write_buffer_limits()

    def end(self) -> None:
        """Abort it."""
        self.ended = True
        if self.transport is not None:
            self.transport.abort()

    def leave(self) -> None:
        """Remove it from the count, because it is lost."""
        self._admission.leave(self)


class Admission:
    """The number of connections of each address and of all.

    The total is limited by the open files, with some left for everything else; connections that are not known yet may
    be half as many. One more of those aborts the one that has been unknown for longest, so that connecting alone locks
    no client out."""

    def __init__(self, max_of_one: int, max_of_all: int) -> None:
        """`max_of_one` limits the connections of one address."""
        self._max = max_of_one
        self._max_of_all = max_of_all
        self._counts: dict[str, int] = {}
        self._all = 0
        self.unknown: dict[Admitted, None] = {}  # the oldest first
        self._empty: list[asyncio.Future[None]] = []
        self.refused = 0

    @property
    def crowded(self) -> bool:
        """Whether so many dropped connections have yet to close that one more might use the last file."""
        return self._all >= self._max_of_all + CLOSING

    def enter(self, address: str, uid: int | None = None) -> Admitted | None:
        """Count a connection from `address`, or of the user `uid` of this machine, and return it; None where there are
        too many."""
        source = _source(address)
        count = self._counts.get(source, 0)
        if count >= self._max or (self._all >= self._max_of_all and not self.unknown):
            self.refused += 1
            return None
        if self._all >= self._max_of_all or len(self.unknown) >= max(1, self._max_of_all // 2):
            self._let_go()
        self._counts[source] = count + 1
        self._all += 1
        admitted = Admitted(self, address, asyncio.get_running_loop().time(), uid)
        self.unknown[admitted] = None
        return admitted

    def _let_go(self) -> None:
        oldest = next(iter(self.unknown))
        del self.unknown[oldest]
        self.refused += 1
        oldest.end()

    def leave(self, admitted: Admitted) -> None:
        self.unknown.pop(admitted, None)
        source = _source(admitted.address)
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
        """Wait until there are no connections."""
        if self._counts:
            waiter = asyncio.get_running_loop().create_future()
            self._empty.append(waiter)
            await waiter


def _source(address: str) -> str:
    """Return what counts as one address: an IPv4 address, or an IPv6 /64 network, which one host may use as a whole."""
    if ":" not in address:
        return address
    parsed = ipaddress.IPv6Address(address.partition("%")[0])
    return str(parsed.ipv4_mapped or ipaddress.IPv6Network((int(parsed) >> 64 << 64, 64)))
