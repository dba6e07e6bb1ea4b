"""The shop's tests: `manage.py test`. Handlers see what is in the test's transaction, and run while it waits."""

from django.test import TestCase, TransactionTestCase

from solarwind.testing.django import WindMixin

from .models import Order


class OrderTest(WindMixin, TestCase):
    def test_an_order_is_confirmed_and_mailed_once(self) -> None:
        for _ in range(2):
            assert self.client.put("/orders/7", '{"product": "lamp"}').status_code == 202
        assert not self.fired("order.placed")  # it is in the outbox
        self.settle()
        [placed] = self.fired("order.placed")
        assert (placed.payload, placed.key) == ({"number": 7}, "7")
        order = Order.objects.get()
        assert (order.confirmed, order.mailed) == (1, 1)
        assert not self.dead("order.placed", "Confirm")

    async def test_who_looks_is_counted(self) -> None:
        await Order.objects.acreate(number=7, product="lamp")
        for _ in range(3):
            assert (await self.async_client.get("/orders/7/seen")).status_code == 202
        await self.wind.settled(timeout=10)
        assert (await Order.objects.aget()).seen == 3


class CommittedTest(WindMixin, TransactionTestCase):
    def test_an_order_is_confirmed(self) -> None:
        self.client.put("/orders/7", '{"product": "lamp"}')
        self.settle()
        assert Order.objects.get().confirmed == 1
