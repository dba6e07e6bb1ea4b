"""Whether an engine runs: the same question, and the same refusals, in all of them."""

from __future__ import annotations

from ..errors import SolarWindError, Unavailable


class Running:
    """The part of an engine that knows whether it was started, and what it failed with."""

    _running = False
    _error: SolarWindError | None = None

    def _check_running(self) -> None:
        if self._error is not None:
            raise self._error
        if not self._running:
            raise Unavailable("expected a dispatcher that runs, got one that was stopped: start it again")
