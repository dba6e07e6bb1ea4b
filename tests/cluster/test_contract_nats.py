"""The contract over JetStream: on one node, on one that is late, and on three that replicate for each other."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from solarwind.testing.contract import EngineContract, Place

from .place import NatsPlace
from .servers import NatsCluster, NatsServer


class TestOneNode(EngineContract):
    @pytest.fixture
    def place(self, server: NatsServer) -> Iterator[Place]:
        place = NatsPlace(server)
        yield place
        place.close()


@pytest.mark.long
@pytest.mark.usefixtures("late")
class TestOwnersThatReadLate(TestOneNode):
    pass


@pytest.mark.long
@pytest.mark.usefixtures("slow")
class TestSlowLinks(TestOneNode):
    pass


@pytest.mark.long
class TestThreeNodes(EngineContract):
    @pytest.fixture
    def place(self, cluster: NatsCluster) -> Iterator[Place]:
        place = NatsPlace(cluster, replicas=3)
        yield place
        place.close()
