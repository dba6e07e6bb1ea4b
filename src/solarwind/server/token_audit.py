"""What operators do with tokens, noted in the audit of the server that the tokens are for.

They change a file, with the server running or not, and the file says who did what. The server notes what its audit does
not have yet: when it starts, and whenever the file has changed.
"""

from __future__ import annotations

from ..engine import audit
from ..errors import SolarWindError
from ..logs import limited
from .access import TokenChange
from .host import ServerHost


class TokenAudit:
    """Notes the changes of one server's tokens. Used on the engine's loop."""

    def __init__(self, host: ServerHost) -> None:
        self._host = host
        self._seen: list[TokenChange] = []
        self._noting = False

    def check(self) -> None:
        """Note what is new. Called now and then."""
        changes = self._host.access.changes
        if changes is not self._seen and not self._noting:
            self._noting = True
            self._host.spawn(self._note(changes))

    async def _note(self, changes: list[TokenChange]) -> None:
        try:
            known = await audit.read(self._host.engine.definitions, None, audit.MAX_ENTRIES)
            noted = {(each.verb, each.time, each.arguments) for each in known}
            # What came before all of an audit that is full was noted, and made room.
            since = known[-1].time if len(known) >= audit.MAX_ENTRIES else None
            for change in changes:
                entry = audit.other_entry(change.verb, change.by, change.time, name=change.name, id=change.id)
                if (entry.verb, entry.time, entry.arguments) not in noted and (since is None or entry.time > since):
                    await self._host.audit.note(entry)
            self._seen = changes
        except SolarWindError as error:
            limited.warning(("tokens noted",), "what was done with tokens cannot be noted yet: %s", error)
        finally:
            self._noting = False
