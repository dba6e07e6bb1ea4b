"""The webhooks of another server, of which this one is a client: shown, paused and resumed here as there.

What is asked of them by an operation goes to the engine, and so to that server. Their specifications, which only its
HTTP endpoints have, do not come here.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any, NoReturn

from ..engine.watch import Fact, Facts
from ..errors import NotAllowed, SolarWindError
from ..operations import OPERATIONS
from ..peer.client import Client
from .access import Grant
from .host import ServerHost
from .webhooks import Webhooks, fact_name

FIRST_S = 2.0  # that a viewer's first look at them may take


class ShownWebhooks(Webhooks):
    """See `Webhooks`. Used on the engine's loop."""

    def __init__(self, host: ServerHost, of: Client) -> None:
        """Show those of the server that `of` is a client of."""
        super().__init__(host, delivers=False)
        self._of = of
        self._found = Facts()  # by the last look
        self._is_looking = False

    async def start(self) -> None:
        """Look at them, so that the first viewer sees them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(FIRST_S):
                await self._look()

    async def stop(self) -> None:
        """See `Webhooks`."""
        await self._tasks.end()

    def facts(self) -> Facts:
        """Return what the last look has found, and look again: this is called as often as viewers may be told
        something new."""
        if not self._is_looking:
            self._tasks.spawn(self._look(), "a look at the webhooks of a server")
        return self._found

    async def _look(self) -> None:
        self._is_looking = True
        try:
            found = await self._host.wind.ask_here(OPERATIONS["webhooks"].request({}))
            self._found = {fact_name(each): Fact(each.topic, each.purpose, each) for each in found}
        except SolarWindError:  # viewers see by other facts that it is away
            pass
        finally:
            self._is_looking = False

    def _refuse(self) -> NoReturn:
        raise NotAllowed(
            "expected this at the server whose webhooks they are, got it at one that shows them: ask the "
            f"{self._of.place}, over HTTP"
        )

    async def put(self, topic: str, purpose: str, name: str, body: bytes, grant: Grant) -> tuple[bool, dict[str, Any]]:
        """Raise `NotAllowed`, as do all that need a specification."""
        self._refuse()

    async def delete(self, topic: str, purpose: str, name: str, grant: Grant) -> None:
        """See `put`."""
        self._refuse()

    def get(self, topic: str, purpose: str, name: str) -> dict[str, Any]:
        """See `put`."""
        self._refuse()

    def every(self) -> list[dict[str, Any]]:
        """See `put`."""
        self._refuse()

    def list(self, topic: str, purpose: str) -> list[dict[str, Any]]:
        """See `put`."""
        self._refuse()
