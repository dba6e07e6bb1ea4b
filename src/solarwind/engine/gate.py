"""Offers that wait until it is certain that this process may hand out at all.

A process that stood still or was cut off for a while may have been replaced, and what it would hand out may be handled
by now. So it hands out nothing before its store is sure that it was not.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from ..core.effects import Offer
from ..errors import StoreError
from ..store.base import Store


class Gate:
    """Keeps offers until the store has confirmed the ownership. `opened` gets the offers that waited."""

    def __init__(
        self,
        store: Store,
        spawn: Callable[[Coroutine[Any, Any, None]], None],
        opened: Callable[[list[Offer]], None],
        fail: Callable[[StoreError], None],
    ) -> None:
        self._store = store
        self._spawn = spawn
        self._opened = opened
        self._fail = fail
        self._waiting: list[Offer] = []

    def hold(self, offer: Offer) -> None:
        """Keep an offer until the store is certain."""
        self._waiting.append(offer)
        if len(self._waiting) == 1:
            self._spawn(self._confirm())

    async def _confirm(self) -> None:
        try:
            await self._store.confirm_ownership()
        except StoreError as error:
            self._fail(error)
            return
        offers, self._waiting = self._waiting, []
        self._opened(offers)
