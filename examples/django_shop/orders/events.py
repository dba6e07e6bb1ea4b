"""The shop's handlers. `solarwind.contrib.django` imports this module of each app."""

from django.db import transaction
from django.db.models import F

from solarwind import Event, Handlers
from solarwind.contrib.django import wind

from .models import Order
from .tasks import mail

group = Handlers()


@wind.on("order.placed", purpose="Confirm")
def confirm(order: dict, event: Event) -> None:
    with transaction.atomic():
        if event.once("default"):  # once, however often it is called
            Order.objects.filter(number=order["number"]).update(confirmed=F("confirmed") + 1)
            mail.enqueue(order["number"])


@group.on("order.seen", purpose="Count who looks")
async def count(order: dict) -> None:
    await Order.objects.filter(number=order["number"]).aupdate(seen=F("seen") + 1)
