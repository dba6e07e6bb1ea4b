"""The place of the contract's rules where the dispatcher is whoever owns the topics of a namespace on nats-servers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from uuid import uuid4

from solarwind import SolarWind
from solarwind.testing import FakeClock
from solarwind.testing.contract import Place

from .servers import NatsCluster, NatsServer, remove

GRACE_S = 10.0


def new_namespace() -> str:
    return f"t{uuid4().hex[:12]}"


class NatsPlace(Place):
    """A namespace of its own for each test, on a server that tests share. `options` are the URL's."""

    durable = True

    def __init__(self, server: NatsServer | NatsCluster, **options: object) -> None:
        self.namespace = new_namespace()
        self.server = server
        self._options = options
        self._engine_options: dict[str, Any] = {}

    @property
    def url(self) -> str:
        return self.server.url(self.namespace, **self._options)

    def open(self) -> SolarWind:
        if not self._engine_options:
            return SolarWind(self.url, grace=GRACE_S)
        from solarwind.cluster.engine import NatsEngine

        return SolarWind(engine=NatsEngine(self.url, **self._engine_options), grace=GRACE_S)

    def clock(self) -> FakeClock:
        clock: FakeClock = self._engine_options.setdefault("clock", FakeClock())
        return clock

    def chance(self, random: Callable[[], float]) -> None:
        self._engine_options["random"] = random

    def close(self) -> None:
        asyncio.run(remove(self.server.urls, self.namespace))
