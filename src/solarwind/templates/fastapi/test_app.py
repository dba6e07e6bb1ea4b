from collections.abc import Iterator

import pytest
from fastapi.testclient import TestClient

from app import Outbox, app, get_outbox, wind


@pytest.fixture
def outbox() -> Iterator[Outbox]:
    """An outbox for one test, instead of the app's."""
    outbox = Outbox()
    wind.dependency_overrides[get_outbox] = lambda: outbox
    yield outbox
    wind.dependency_overrides.clear()


@pytest.fixture
def client(outbox: Outbox) -> Iterator[TestClient]:
    """A client of the app, whose dispatcher is in memory and empty."""
    wind.use("memory://")
    with TestClient(app) as client:
        yield client


def test_an_order_is_confirmed(client: TestClient, outbox: Outbox) -> None:
    assert client.put("/orders/7", json={"number": 7, "product": "lamp"}).json() == {"id": "order-7"}
    wind.wait(wind.settled(timeout=10))
    assert outbox.sent == [7]


def test_an_order_that_is_sent_twice_is_one_event(client: TestClient, outbox: Outbox) -> None:
    for _ in range(2):
        assert client.put("/orders/8", json={"number": 8, "product": "chair"}).status_code == 202
    wind.wait(wind.settled(timeout=10))
    assert outbox.sent == [8]


def test_an_order_that_is_too_large_is_refused(client: TestClient) -> None:
    answer = client.put("/orders/9", json={"number": 9, "product": "x" * (1 << 20)})
    assert (answer.status_code, answer.json()["code"]) == (400, "too-large")
