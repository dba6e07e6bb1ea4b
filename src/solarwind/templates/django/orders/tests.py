"""`manage.py test`. Handlers see what is in a test's transaction, and run while it waits."""

from django.test import TestCase
from solarwind.testing.django import WindMixin

from .models import Order


class OrderTest(WindMixin, TestCase):
    def test_an_order_is_confirmed(self) -> None:
        assert self.client.put("/orders/7", '{"product": "lamp"}').status_code == 202
        self.settle()
        assert Order.objects.get().confirmed

    def test_an_order_that_is_sent_twice_is_one_event(self) -> None:
        for _ in range(2):
            self.client.put("/orders/8", '{"product": "chair"}')
        self.settle()
        [placed] = self.fired("order.placed")
        assert placed.payload == {"number": 8}
