"""What a connection asks of whoever has the engine, be it a server with doors or none."""

from __future__ import annotations

from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any, Protocol

from ..engine.base import Engine
from ..limits import Limits

if TYPE_CHECKING:
    from .connection import Connection
    from .turns import Turns


class Grant(Protocol):
    """What a client may do. Two that allow the same are equal."""

    def check_fire(self, topic: str) -> None:
        """Raises `NotAllowed`."""
        ...

    def check_listen(self, topic: str, purpose: str) -> None:
        """Raises `NotAllowed`."""
        ...

    def check_admin(self) -> None:
        """Raises `NotAllowed`."""
        ...


class Settings(Protocol):
    """How much a client may cost."""

    @property
    def frame_bytes(self) -> int:
        """Of a message that it sends."""
        ...

    @property
    def authenticate_s(self) -> float:
        """Until it has said hello."""
        ...

    @property
    def heartbeat_s(self) -> float:
        """One that was silent for two of them is gone."""
        ...

    @property
    def instances(self) -> int:
        """At most."""
        ...

    @property
    def unanswered(self) -> int:
        """Calls that are not answered yet, at most."""
        ...


class Host(Protocol):
    """Whose clients they are: it has the engine, and says who may do what."""

    @property
    def name(self) -> str:
        """By which clients know it."""
        ...

    @property
    def engine(self) -> Engine: ...

    @property
    def limits(self) -> Limits: ...

    @property
    def settings(self) -> Settings: ...

    @property
    def checks_authors(self) -> bool:
        """Whether a client may send its own batches alone. One of a cluster's passes on what others numbered."""
        ...

    @property
    def turns(self) -> Turns:
        """Where long work for any of them waits."""
        ...

    def grant(self, token: str | None) -> Grant:
        """What the bearer of `token` may do, if it is None whoever has none. Raises `BadToken`."""
        ...

    def hold(self, size: int) -> None:
        """So many bytes more are kept for a client that has more to say before they can be used; below 0, so many less.
        Raises `Busy` where it is too much of all clients together."""
        ...

    def spawn(self, work: Coroutine[Any, Any, Any]) -> None:
        """Do it beside everything else, even if the connection is gone."""
        ...

    def disconnected(self, connection: Connection) -> None:
        """It is over."""
        ...
