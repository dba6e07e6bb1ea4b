"""What a connection asks of whatever carries its bytes."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """What carries a connection's bytes."""

    @property
    def local(self) -> bool:
        """Whether the client is in this very process."""
        ...

    def send(self, data: bytes) -> None:
        """Send a message."""
        ...

    def pause(self) -> None:
        """Read nothing more for now."""
        ...

    def resume(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Send what there is, then close."""
        ...

    def abort(self) -> None:
        """The peer does not answer: let go."""
        ...

    def authenticated(self) -> None:
        """The peer said who it is."""
        ...
