"""A `SolarWind` that runs beside the requests of a web framework, on a thread of its own."""

from __future__ import annotations

import atexit
import threading
from datetime import timedelta

from ..engine.base import Engine
from ..limits import Limits
from ..wind import SolarWind


class BesideRequests(SolarWind):
    """A `SolarWind` that `begin` starts in a process, on a thread of its own, and that stops at the process's end."""

    def __init__(
        self,
        url: str | None = None,
        *,
        token: str | None = None,
        grace: float | timedelta = 30.0,
        limits: Limits | None = None,
        engine: Engine | None = None,
    ) -> None:
        """See `SolarWind`."""
        super().__init__(url, token=token, grace=grace, limits=limits, engine=engine)
        self._starting_here = threading.Lock()

    def begin(self) -> None:
        """Start it in this process, if it does not run: the first request does so. Raise what the start raises."""
        if self._state == "running":
            return
        with self._starting_here:
            if self._state != "running":
                self._check_process()
                self.__enter__()
                atexit.register(self.close)

    def close(self) -> None:
        """Stop it, if it runs by `begin`: handlers have `grace` seconds to finish. The next request starts it again."""
        if self._thread is not None and self._state == "running" and not self._forked:
            atexit.unregister(self.close)
            self.__exit__(None, None, None)
