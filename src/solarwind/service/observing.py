"""What is told of batches that are sent and of reports, where tracing is on. Nothing of it costs anything where it is
off: it is looked for once a batch, once a report, and once an event that is read from a stream."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Protocol

from ..batch import Batch
from ..core.effects import Join, Offer, Report
from ..event import Event


class Observer(Protocol):
    """Is told, on the loop, of what travels. What it raises must not come out of it."""

    def sent(self, batch: Batch, accepted: asyncio.Future[None]) -> None:
        """Note that a batch was sent; `accepted` is done when it is, or gets the error."""
        ...

    def received(self, event: Event, began_ns: int) -> None:
        """Note that the reader of a stream, which has asked for the next event since `began_ns` (ns since 1970), got
        this one."""
        ...

    def reported(
        self, join: Join, offer: Offer, report: Report, fired: Collection[Batch], began_ns: int, counts: bool
    ) -> None:
        """Note that an instance reported on events of an offer, since `began_ns` (ns since 1970), with what its
        handlers fired. Unless it `counts`, the events were another's by then."""
        ...
