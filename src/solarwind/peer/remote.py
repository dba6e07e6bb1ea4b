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
        stated = os.environ.get("SOLARWIND_TOKEN") or None
        check_token(stated, " in $SOLARWIND_TOKEN")
        self._token = stated if token is None else token

    async def _open(self) -> WebSocketLink:
        return await connect(self.url, self._path, self._token, self._received, self._lost)
