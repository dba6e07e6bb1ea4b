"""Everything that is open by right of a token, so that it ends when the token's right does.

These are running requests, feeds, and takes that are not settled. Each states the right that it needs and how it ends.
Connections of `solarwind.v1` check themselves, in `Connection.check`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SolarWindError
from .access import Access, Grant

CHECK_S = 1.0  # between two checks


class Use:
    """Something open by right of a token, until `close`."""

    __slots__ = ("_end", "_right", "_uses", "owner")

    def __init__(
        self, uses: Uses, owner: str | None, right: Callable[[Grant], None], end: Callable[[SolarWindError], None]
    ) -> None:
        self._uses = uses
        self.owner = owner
        self._right = right
        self._end = end

    def check(self, grant: Grant) -> None:
        try:
            self._right(grant)
        except SolarWindError as error:
            self.end(error)

    def end(self, error: SolarWindError) -> None:
        self.close()
        self._end(error)

    def close(self) -> None:
        self._uses.discard(self)


class Uses:
    """All of them, by the id of their token. Used on the engine's loop."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._open: dict[str | None, set[Use]] = {}

    def begin(self, grant: Grant, right: Callable[[Grant], None], end: Callable[[SolarWindError], None]) -> Use:
        """Register something that is open. `right` raises where a grant does not allow it; then, or when the token is
        revoked or expires, `end` is called with the error."""
        use = Use(self, grant.id, right, end)
        self._open.setdefault(grant.id, set()).add(use)
        return use

    def discard(self, use: Use) -> None:
        known = self._open.get(use.owner)
        if known is not None:
            known.discard(use)
            if not known:
                del self._open[use.owner]

    def check(self) -> None:
        """End those whose right has ended. Called now and then."""
        for owner, uses in list(self._open.items()):
            try:
                grant = self._access.owned(owner)
            except SolarWindError as error:
                for use in list(uses):
                    use.end(error)
            else:
                for use in list(uses):
                    use.check(grant)
