"""A dispatcher in another process, over a WebSocket: the engine of `ws://`, `wss://` and `unix://`."""

from __future__ import annotations

import os

from ..names import check_token
from ..text import redact
from .client import Client
from .link import WebSocketLink, connect


class RemoteEngine(Client):
    """An engine that uses a server: see `Engine`."""

    def __init__(self, url: str, token: str | None = None, path: str | None = None) -> None:
        """`url` is the server's, and `path` that of its Unix socket, if it names one; `token` defaults to
        `$SOLARWIND_TOKEN`."""
        super().__init__(f"server at {redact(url)}")
        self.url = url
        self._path = path
        self._token = token if token is not None else os.environ.get("SOLARWIND_TOKEN") or None

    async def start(self) -> None:
        """See `Engine`. Raise `BadArgument` for what cannot be a token, which is that of the environment: others are
        checked where they are given."""
        check_token(self._token, " in $SOLARWIND_TOKEN")
        await super().start()

    async def _open(self) -> WebSocketLink:
        return await connect(self.url, self._path, self._token, self._received, self._lost)
