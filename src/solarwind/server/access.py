"""Who may do what: tokens, and the one check that guards every door."""

from __future__ import annotations

import msgspec

from ..errors import BadToken, NotAllowed

ANY = "*"


class Listen(msgspec.Struct, frozen=True):
    """The right to join purposes: of one topic or any (`*`), this purpose or any."""

    topic: str
    purpose: str = ANY


class Grant(msgspec.Struct, frozen=True):
    """What one token, or anybody where there are no tokens, may do."""

    name: str
    fire: tuple[str, ...] = ()
    listen: tuple[Listen, ...] = ()
    admin: bool = False

    def check_fire(self, topic: str) -> None:
        """Raises `NotAllowed`."""
        if topic not in self.fire and ANY not in self.fire:
            raise NotAllowed(f"expected a token with the right to fire on {topic!r}, got {self.name!r}, which has not")

    def check_listen(self, topic: str, purpose: str) -> None:
        """Raises `NotAllowed`."""
        if not any(each.topic in (topic, ANY) and each.purpose in (purpose, ANY) for each in self.listen):
            raise NotAllowed(
                f"expected a token with the right to listen to {topic!r} for {purpose!r}, "
                f"got {self.name!r}, which has not"
            )

    def check_admin(self) -> None:
        """Raises `NotAllowed`."""
        if not self.admin:
            raise NotAllowed(f"expected a token with the right admin, got {self.name!r}, which has not")


EVERYTHING = Grant("anybody", (ANY,), (Listen(ANY),), True)


class Access:
    """Where there is no file of tokens, anybody may do everything."""

    def __init__(self, path: str | None = None) -> None:
        self._path = path

    def grant(self, token: str | None) -> Grant:
        """What the bearer of `token` may do. Raises `BadToken` where it is missing, unknown, revoked or expired."""
        if self._path is None:
            return EVERYTHING
        raise BadToken("expected a token, got none that is known")

    def holds(self, token: str | None) -> bool:
        """Whether it is still good: an open connection ends when its token was revoked."""
        try:
            self.grant(token)
        except BadToken:
            return False
        return True
