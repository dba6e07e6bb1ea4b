"""Whose batches a connection may send: its client's, and those of that client's own clients.

A client may be a server itself, in front of this one. Then it passes on the secrets of its clients. Where this
dispatcher is only a client of another, it passes them on in turn.
"""

from __future__ import annotations

from .. import wire
from ..batch import author_of
from ..errors import ProtocolError
from .host import Host

MIN_SECRET_BYTES, MAX_SECRET_BYTES = 16, 64


class Authors:
    """The authors of one connection."""

    __slots__ = ("_fired", "_host", "_own", "_secrets")

    def __init__(self, host: Host) -> None:
        self._host = host
        self._own = b""
        self._secrets: dict[bytes, bytes] = {}  # by author: the client's own, and its clients'
        self._fired: dict[bytes, None] = {}  # those that the engine was told of

    def hello(self, secret: bytes) -> None:
        """Add the client's own secret, if it has one. Raise `ProtocolError`."""
        if secret:
            self._own = self._add(secret)

    def say(self, message: wire.Author) -> None:
        """Add or remove one of the client's clients. Raise `ProtocolError`."""
        author = author_of(message.secret)
        if author == self._own:
            return
        if message.gone:
            if self._secrets.pop(author, None) is not None and author in self._fired:
                del self._fired[author]
                self._host.engine.remove_author(message.secret)
        elif author not in self._secrets:
            if len(self._secrets) > wire.MAX_AUTHORS:
                raise ProtocolError(f"expected at most {wire.MAX_AUTHORS:,} further authors, got another")
            self._add(message.secret)

    def _add(self, secret: bytes) -> bytes:
        if not MIN_SECRET_BYTES <= len(secret) <= MAX_SECRET_BYTES:
            raise ProtocolError(
                f"expected a secret of {MIN_SECRET_BYTES} to {MAX_SECRET_BYTES} bytes, got {len(secret)}"
            )
        author = author_of(secret)
        self._secrets[author] = secret
        return author

    def check(self, author: bytes) -> None:
        """Check that a batch may have this author. Raise `ProtocolError`, and `Busy`."""
        if author in self._fired or not self._host.checks_authors:
            return
        secret = self._secrets.get(author)
        if secret is None:
            raise ProtocolError(
                "expected a batch whose author is the hash of the secret in hello, got another: only its own author "
                "may number a batch"
            )
        self._host.engine.add_author(secret)
        self._fired[author] = None

    def clear(self) -> None:
        """Remove all, because the connection is gone."""
        for author in self._fired:
            self._host.engine.remove_author(self._secrets[author])
        self._fired.clear()
        self._secrets.clear()
