"""A client's instance at the server, as the engine knows it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from ..core import effects

if TYPE_CHECKING:
    from .connection import Connection


class RemoteInstance:
    """The engine's receiver for a client's instance. `local` is its number at the client."""

    __slots__ = ("_connection", "instance", "joined", "last", "leaving", "local", "purpose", "texts", "topic")

    def __init__(self, connection: Connection, local: int, join: effects.Join) -> None:
        self._connection = connection
        self.local = local
        self.topic, self.purpose = join.topic, join.purpose
        self.instance = 0  # at the engine; 0 until it is known
        self.joined: asyncio.Task[None] | None = None
        self.leaving = False
        self.texts: list[str] = []  # that go with the answer to its registration
        self.last = 0  # of the connection's offers, the one it has the last part in

    def deliver(self, offer: effects.Offer) -> None:
        self.instance = offer.instance
        self._connection.offer(self, offer)

    def flush(self) -> None:
        self._connection.flush_offers()

    def lost(self, lease: int | None = None) -> None:
        """Pass it on to the client: the engine here may be a client itself."""
        self._connection.lost_instance(self, lease)

    def told(self, text: str) -> None:
        self.texts.append(text)

    def close(self, reason: str) -> None:
        self._connection.closed_instance(self, reason)
