"""The same with pytest-django: `pytest --ds=shop.settings`."""

from typing import Any

import pytest
from django.test import Client

from solarwind import SolarWind

from .models import Order


@pytest.mark.django_db
def test_an_order_is_confirmed(client: Client, wind: SolarWind, fired: Any) -> None:
    assert client.put("/orders/7", '{"product": "lamp"}').status_code == 202
    wind.wait(wind.settled(timeout=10))
    assert [event.payload for event in fired("order.placed")] == [{"number": 7}]
    assert Order.objects.get().confirmed == 1


@pytest.mark.django_db(transaction=True)
def test_who_looks_is_counted(client: Client, wind: SolarWind, advance: Any) -> None:
    Order.objects.create(number=7, product="lamp")
    wind.fire("order.seen", {"number": 7}, after="1h").wait(10)
    advance(3599)
    assert Order.objects.get().seen == 0
    advance(1)
    wind.wait(wind.settled(timeout=10))
    assert Order.objects.get().seen == 1
