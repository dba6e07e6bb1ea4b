"""The transport that a connection needs."""

from __future__ import annotations

from typing import Protocol


class Transport(Protocol):
    """Carries a connection's bytes."""

    @property
    def local(self) -> bool:
        """Whether the client is in this process."""
        ...

    @property
    def uid(self) -> int | None:
        """The user of this machine whose the client is, as the kernel says; None where it is not known."""
        ...

    def send(self, data: bytes) -> None:
        """Send a message."""
        ...

    def pause(self) -> None:
        """Stop reading for now."""
        ...

    def resume(self) -> None: ...

    def close(self, code: int, reason: str) -> None:
        """Send what is buffered, then close."""
        ...

    def abort(self) -> None:
        """Close at once, because the peer does not answer."""
        ...

    def authenticated(self) -> None:
        """Note that the peer is authenticated."""
        ...
