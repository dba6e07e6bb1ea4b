"""Offers on a connection, and how they travel."""

from __future__ import annotations

from typing import NamedTuple

from .. import wire
from ..core.log import Stored


class BatchOffers(NamedTuple):
    """Offers of one batch, which travels once for all of them."""

    number: int
    stored: Stored
    shares: list[wire.Share]


def offer_of(offers: BatchOffers) -> wire.Offer:
    """Return the message. Where little of a batch is offered, only that part is sent."""
    (start, batch, _), shares = offers.stored, offers.shares
    low, high = shares[0].picks[0], shares[0].picks[-1]
    for share in shares[1:]:
        low, high = min(low, share.picks[0]), max(high, share.picks[-1])
    if 2 * (high - low) < len(batch):
        batch, start = batch.part(low - start, high - start), low
    return wire.Offer(start, batch.data, shares)
