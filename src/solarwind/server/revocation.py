"""Everything that is open by right of a token, so that it ends when the token's right does.

These are running requests, feeds, and takes that are not settled. Each states the right that it needs and how it ends.
Connections of `solarwind.v1` check themselves, in `Connection.check`.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import SolarWindError
from .access import Access, Grant

CHECK_S = 1.0  # between two checks


class Revocable:
    """Something open by right of a token, until `close`."""

    __slots__ = ("_end", "_revocables", "_right", "owner")

    def __init__(
        self,
        revocables: Revocables,
        owner: str | None,
        right: Callable[[Grant], None],
        end: Callable[[SolarWindError], None],
    ) -> None:
        self._revocables = revocables
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
        self._revocables.discard(self)


class Revocables:
    """All of them, by the id of their token. Used on the engine's loop."""

    def __init__(self, access: Access) -> None:
        self._access = access
        self._open: dict[str | None, set[Revocable]] = {}

    def begin(self, grant: Grant, right: Callable[[Grant], None], end: Callable[[SolarWindError], None]) -> Revocable:
        """Register something that is open. `right` raises where a grant does not allow it; then, or when the token is
        revoked or expires, `end` is called with the error."""
        each = Revocable(self, grant.id, right, end)
        self._open.setdefault(grant.id, set()).add(each)
        return each

    def discard(self, each: Revocable) -> None:
        known = self._open.get(each.owner)
        if known is not None:
            known.discard(each)
            if not known:
                del self._open[each.owner]

    def check(self) -> None:
        """End those whose right has ended. Called now and then."""
        for owner, revocables in list(self._open.items()):
            try:
                grant = self._access.owned(owner)
            except SolarWindError as error:
                for each in list(revocables):
                    each.end(error)
            else:
                for each in list(revocables):
                    each.check(grant)
