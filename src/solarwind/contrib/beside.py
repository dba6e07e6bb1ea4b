"""A `SolarWind` that runs beside the requests of a web framework, on a thread of its own."""

from __future__ import annotations

import atexit
import threading
from datetime import timedelta
from time import monotonic

from ..calls import explains_calls
from ..engine.base import Engine
from ..errors import SolarWindError
from ..limits import Limits
from ..logs import limited
from ..wind import SolarWind

AGAIN_S = 5.0  # from what could not be done now to the next time


@explains_calls
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
        self._try_again = 0.0  # when a request may try to start it

    def begin(self) -> None:
        """Start it in this process, if it does not run: the first request does so. Raise what the start raises."""
        if self._state == "running":
            return
        with self._starting_here:
            if self._state != "running":
                self._check_process()
                self.__enter__()
                atexit.register(self.close)

    def _begin_for_request(self) -> None:
        """Start it for a request, if it does not run. The request is served though this fails: the log says so, and
        what it fires is refused."""
        if self._state == "running" or monotonic() < self._try_again:
            return
        try:
            self.begin()
        except SolarWindError as error:
            self._try_again = monotonic() + AGAIN_S
            limited.error(("begin", id(self)), "Solar Wind did not start with a request: %s", error)

    def use(self, url: str | None = None, token: str | None = None, *, engine: Engine | None = None) -> None:
        """See `SolarWind.use`."""
        super().use(url, token, engine=engine)
        self._try_again = 0.0

    def close(self) -> None:
        """Stop it, if it runs by `begin`: handlers have `grace` seconds to finish. The next request starts it again."""
        if self._thread is not None and self._state == "running" and not self._forked:
            atexit.unregister(self.close)
            self.__exit__(None, None, None)
