"""What a connection needs of the process that has the engine, with or without a server."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from ..engine.base import Engine
from ..engine.request import Request
from ..limits import Limits

if TYPE_CHECKING:
    from .connection import Connection
    from .time_slices import TimeSlices

R = TypeVar("R")


class Rights(Protocol):
    """A client's rights. Equal grants allow the same."""

    @property
    def name(self) -> str:
        """Whose they are; "" where it is not for the host to say."""
        ...

    def check_fire(self, topic: str | None) -> None:
        """Raise `NotAllowed` unless it may fire on `topic`; None is any at all."""
        ...

    def check_listen(self, topic: str, purpose: str) -> None:
        """Raise `NotAllowed` unless it may join the purpose."""
        ...

    def check_watch(self) -> None:
        """Raise `NotAllowed` unless it may see facts."""
        ...

    def check_admin(self) -> None:
        """Raise `NotAllowed` unless it has the right `admin`."""
        ...


class ConnectionSettings(Protocol):
    """The limits on what a client may cost."""

    @property
    def frame_bytes(self) -> int:
        """The size of a message."""
        ...

    @property
    def authenticate_s(self) -> float:
        """The time until `hello`."""
        ...

    @property
    def heartbeat_s(self) -> float:
        """A client that was silent for two of them is gone."""
        ...

    @property
    def instances(self) -> int:
        """The number of instances of a connection."""
        ...

    @property
    def unanswered(self) -> int:
        """The number of calls without an answer yet."""
        ...


class Host(Protocol):
    """The owner of connections: it has the engine, and decides who may do what."""

    @property
    def name(self) -> str:
        """The name that clients are told."""
        ...

    @property
    def engine(self) -> Engine: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def settings(self) -> ConnectionSettings: ...

    @property
    def checks_authors(self) -> bool:
        """Whether a client may send only its own batches. In a cluster a process passes on those of others."""
        ...

    @property
    def slices(self) -> TimeSlices:
        """The queue for long work of all connections."""
        ...

    def grant(self, token: str | None, uid: int | None) -> Rights:
        """Return the rights of `token`, or without one those of anonymous clients. `uid` is the client's user where it
        is known. Raise `BadToken`, and `NotAllowed` for another user."""
        ...

    async def ask(self, request: Request[R], rights: Rights, by: str = "") -> R:
        """Do an operation for a client with these rights, which were checked; `by` is for whom that asks, as it says.
        Raise what it raises."""
        ...

    def hold(self, size: int) -> None:
        """Add to the bytes that are kept for incomplete input, or subtract from them if below 0. Raise `Busy` where all
        clients together keep too many."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Run it in the background, even if the connection is gone."""
        ...

    def disconnected(self, connection: Connection) -> None:
        """Forget a connection that is over."""
        ...
