"""What a client of NATS needs besides nats-py: TLS or nothing where it is wanted, and words for what went wrong."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import nats.errors
from nats.aio.client import Client

from ..errors import BadArgument, NotAllowed, SolarWindError, Unavailable
from .address import Address

_MOST_CREDENTIALS = 1 << 20


class NoTls(nats.errors.Error):
    """A server offers none to somebody who wants it."""


class NatsPy(Client):
    """nats-py would say who one is without TLS too, to a server that does not ask for it."""

    def _connect_command(self) -> bytes:
        if (self._server_info or {}).get("tls_required"):
            # It was a plain stream before, of which asyncio would say so at its end.
            transport: Any = self._transport
            transport._io_writer.transport.get_protocol()._over_ssl = True
        elif "tls" in self.options:
            raise NoTls
        return super()._connect_command()


def tls_options(address: Address) -> dict[str, Any]:
    """Of `connect`."""
    if not address.tls:
        return {}
    import ssl

    return {"tls": ssl.create_default_context()}


def check_credentials(address: Address) -> None:
    """Raises `BadArgument` for a file that is none: nats-py would look only where a server asks for it."""
    path = address.credentials
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            found = file.read(_MOST_CREDENTIALS)
    except OSError as error:
        raise BadArgument(f"expected credentials that can be read in {path}, got {error.strerror!r}") from None
    if b"BEGIN NATS USER JWT" not in found or b"BEGIN USER NKEY SEED" not in found:
        raise BadArgument(
            f"expected credentials in {path}, a user's JWT and seed as NATS writes them, got something else"
        )


def unreachable(address: Address, error: BaseException) -> SolarWindError:
    """What a connection that could not be made comes to."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError):
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or text
    if "uthorization" in text or "uthentication" in text:
        return NotAllowed(
            f"expected credentials that NATS at {address.shown} accepts, got others ({text}): give them as "
            "nats://user:password@…, or name a file by creds=… or $SOLARWIND_NATS_CREDS"
        )
    return Unavailable(f"expected a NATS server at {address.shown}, got {text!r}: start one, or name another")


def watch_tasks(client: Client, gone: asyncio.Event) -> None:
    """nats-py's own tasks may fall over when a connection goes, and nobody else would hear of it."""

    def ended(task: asyncio.Task[None]) -> None:
        gone.set()
        if not task.cancelled():
            task.exception()

    for task in (client._reading_task, client._flusher_task):
        if task is not None:
            task.add_done_callback(ended)
