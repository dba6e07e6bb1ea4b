"""The handlers of orders. `solarwind.contrib.django` imports this module of each app."""

import logging

from solarwind.contrib.django import wind

from .models import Order

log = logging.getLogger(__name__)


@wind.on("order.placed", purpose="Confirm by mail")
def confirm(order: dict) -> None:
    """Send the mail. What raises is tried again later."""
    log.info("mail about order %d", order["number"])
    Order.objects.filter(number=order["number"]).update(confirmed=True)
