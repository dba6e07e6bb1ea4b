"""The clients of this process, where it is a server in front of another: their batches are passed on unchanged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from .. import wire
from ..errors import Busy


class ClientSecrets:
    """Further authors whose batches the server behind accepts from this process. They are sent again on each
    connection."""

    def __init__(self) -> None:
        self._secrets: Counter[bytes] = Counter()  # one that comes again may be there twice for a while
        self._say: Callable[[wire.Message], None] | None = None

    def connected(self, say: Callable[[wire.Message], None]) -> None:
        """Send all of them to the server behind, on a new connection."""
        self._say = say
        for secret in self._secrets:
            say(wire.Author(secret))

    def lost(self) -> None:
        """Note that the connection is lost."""
        self._say = None

    def add(self, secret: bytes) -> None:
        """Add a client's secret. Raise `Busy`."""
        if secret not in self._secrets:
            if len(self._secrets) >= wire.MAX_AUTHORS:
                raise Busy(
                    f"expected at most {wire.MAX_AUTHORS:,} clients that fire through a server in front of another, "
                    "got one more: try again when others are gone, or start a second server"
                )
            if self._say is not None:
                self._say(wire.Author(secret))
        self._secrets[secret] += 1

    def remove(self, secret: bytes) -> None:
        """Remove a client's secret, as often as it was added."""
        self._secrets[secret] -= 1
        if self._secrets[secret] <= 0:
            del self._secrets[secret]
            if self._say is not None:
                self._say(wire.Author(secret, gone=True))
