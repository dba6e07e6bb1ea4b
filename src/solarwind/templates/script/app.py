"""Orders: each is confirmed by mail, and counted per product in order. `python app.py 3` places three of them."""

import asyncio
import logging
import sys
from collections import Counter
from dataclasses import dataclass

from solarwind import Event, Reject, Retry, SolarWind

wind = SolarWind("sqlite:///project-name.db")
log = logging.getLogger(__name__)
counted: Counter[str] = Counter()


@dataclass
class Order:
    number: int
    product: str
    mail: str


@wind.on("order.placed", purpose="Confirm by mail", retry=Retry(attempts=5))
async def confirm(order: Order) -> None:
    """Send the mail. What raises is tried again later; `Reject` gives up at once."""
    if "@" not in order.mail:
        raise Reject(f"{order.mail!r} is no address")
    log.info("mail to %s: we have your order %d", order.mail, order.number)
    wind.fire("order.confirmed", {"number": order.number})  # committed together with the settle of this event


@wind.on("order.placed", purpose="Count per product", exchange="keyed")
async def count(order: Order, event: Event) -> None:
    """Events of one key, here a product, come one after the other and in order."""
    counted[order.product] += 1
    log.info("%d of %s, with order %d", counted[order.product], event.key, order.number)


async def place(number: int) -> str:
    """Place an order, and return the id of its event once it is accepted. With the same id it is placed once."""
    order = Order(number, product="lamp", mail="ann@example.org")
    return await wind.fire("order.placed", order, key=order.product, id=f"order-{number}")


async def main(orders: int) -> None:
    async with wind:
        for number in range(1, orders + 1):
            await place(number)
        await wind.settled(timeout=60)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    asyncio.run(main(int(sys.argv[1]) if len(sys.argv) > 1 else 1))
