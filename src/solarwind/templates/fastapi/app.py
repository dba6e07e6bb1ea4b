"""A shop: an order is placed by HTTP, and is an event that purposes handle. `uvicorn app:app` serves it."""

import logging
from typing import Annotated

from fastapi import Depends, FastAPI, Request
from fastapi.responses import JSONResponse
from pydantic import BaseModel

from solarwind import SolarWind, SolarWindError

wind = SolarWind(grace=5)  # at $SOLARWIND_URL, else in memory
logging.basicConfig(level=logging.INFO)  # uvicorn configures its own loggers alone
log = logging.getLogger(__name__)


class Order(BaseModel):
    number: int
    product: str


class Outbox:
    """Where mails go: a stand-in for what yours sends them with."""

    def __init__(self) -> None:
        self.sent: list[int] = []

    async def send(self, number: int) -> None:
        self.sent.append(number)
        log.info("mail about order %d", number)


outbox = Outbox()


def get_outbox() -> Outbox:
    return outbox


@wind.on("order.placed", purpose="Confirm by mail")
async def confirm(order: Order, outbox: Annotated[Outbox, Depends(get_outbox)]) -> None:
    await outbox.send(order.number)


app = FastAPI(lifespan=wind.lifespan)  # wind runs from before the first request until after the last


@app.put("/orders/{number}", status_code=202)
async def place(number: int, order: Order) -> dict[str, str]:
    """Place an order. A request that is repeated is one event, since its id is the same."""
    return {"id": await wind.fire("order.placed", order, id=f"order-{number}", within=2.0)}


@app.exception_handler(SolarWindError)
async def refuse(request: Request, error: SolarWindError) -> JSONResponse:
    problem = {"detail": str(error), "code": error.code}
    if error.fault == "caller":
        return JSONResponse(problem, 400)
    return JSONResponse(problem, 503, {"Retry-After": "2"})
