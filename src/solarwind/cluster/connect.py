"""Makes connections to NATS: by nats-py's public names, with TLS or without as configured, and with an explanation of
what went wrong.
"""

from __future__ import annotations

import asyncio
import logging
import os
import ssl
from collections.abc import Callable, Coroutine
from typing import Any

import nats.errors
from nats.aio.client import Client

from ..errors import BadArgument, NotAllowed, SolarWindError, Unavailable
from ..origin import MACHINE, process_name
from .address import Address
from .channel import FAULTS, Channel, NoAnswer

log = logging.getLogger("solarwind")

CONNECT_S = 5.0
_MAX_CREDENTIALS = 1 << 20


class NoTls(nats.errors.Error):
    """A server does not offer TLS to a client that requires it."""


class Faults:
    """What nats-py reports beside its answers. `lost` is called when the connection is lost, or has dropped something,
    so that what waited for it begins anew. `forbidden` gets what NATS says of a subject that this user may not use."""

    def __init__(self, lost: Callable[[], None], forbidden: Callable[[str], None]) -> None:
        self.lost = lost
        self._forbidden = forbidden
        self.made = False  # the connection
        self.first: Exception | None = None  # before it was

    async def error(self, fault: Exception) -> None:
        text = str(fault)
        if "permissions violation" in text.lower():
            if "$sys." not in text.lower():
                self._forbidden(text.removeprefix("nats: "))
        elif not self.made:
            self.first = self.first or fault
        else:
            if not isinstance(fault, FAULTS):
                log.error("a message from NATS could not be handled", exc_info=fault)
            self.lost()

    async def closed(self) -> None:
        self.lost()


async def connect(
    address: Address, servers: list[str], faults: Faults, spawn: Callable[[Coroutine[Any, Any, None]], None]
) -> tuple[Client, Channel]:
    """Connect to one of these servers. A connection that fails is closed by a task of `spawn`. Raise `Unavailable`,
    `NotAllowed` and `BadArgument`."""
    client = Client()
    channel = Channel(client, faults.lost)
    try:
        async with asyncio.timeout(CONNECT_S):
            await client.connect(
                servers,
                dont_randomize=True,
                name=f"solarwind {MACHINE}/{process_name()}",
                allow_reconnect=False,
                max_reconnect_attempts=1,  # of each server, before it is given up
                reconnect_time_wait=0,
                connect_timeout=2,
                error_cb=faults.error,
                disconnected_cb=faults.closed,
                closed_cb=faults.closed,
                ping_interval=3600,  # `Channel.is_heard` is asked instead
                pending_size=64 << 20,
                **_identity(address),
            )
            await channel.open()
            faults.made = True
    except TimeoutError:
        raise Unavailable(f"expected a NATS server at {address.shown}, got no answer in time") from None
    except NoTls:
        raise NotAllowed(
            f"expected NATS at {address.shown} to offer TLS, as tls=true demands, but it offers none"
        ) from None
    except (OSError, nats.errors.Error, NoAnswer) as caught:
        raise _unreachable(address, faults.first or caught) from None
    except Exception as caught:  # whatever an invalid file of credentials raises
        raise BadArgument(f"expected credentials that can be read for {address.shown}: {caught}") from None
    finally:
        if not faults.made:
            spawn(channel.close())
    return client, channel


def _identity(address: Address) -> dict[str, Any]:
    """Return the credentials as options of nats-py's `connect`. It would send them without TLS, too, to a server that
    does not require TLS: so where TLS is wanted it gets none before a handshake was done."""
    check: Callable[[], None] = lambda: None  # noqa: E731
    options: dict[str, Any] = {"user_credentials": address.credentials}
    if address.tls:
        options["tls"], check = _tls()

    def told(text: str) -> Callable[[], str]:
        def tell() -> str:
            check()
            return text

        return tell

    if address.password is not None:
        options |= {"user": told(address.user or ""), "password": told(address.password)}
    if address.tls or (address.user and address.password is None):
        options["token"] = told("" if address.password is not None else address.user or "")
    return options


def _tls() -> tuple[ssl.SSLContext, Callable[[], None]]:
    """Return a context, and a function that raises `NoTls` unless a handshake was done with it."""
    done = False

    class Handshake(ssl.SSLObject):
        def do_handshake(self) -> None:
            nonlocal done
            super().do_handshake()
            done = True

    def check() -> None:
        if not done:
            raise NoTls

    context = ssl.create_default_context()
    context.sslobject_class = Handshake
    return context, check


def check_credentials(address: Address) -> None:
    """Raise `BadArgument` for a file that has none: nats-py would look only where a server asks for it."""
    path = address.credentials
    if path is None:
        return
    try:
        with open(path, "rb") as file:
            found = file.read(_MAX_CREDENTIALS)
    except OSError as error:
        raise BadArgument(f"expected credentials that can be read in {path}, got {error.strerror!r}") from None
    if b"BEGIN NATS USER JWT" not in found or b"BEGIN USER NKEY SEED" not in found:
        raise BadArgument(
            f"expected credentials in {path}, a user's JWT and seed as NATS writes them, got something else"
        )


def _unreachable(address: Address, error: BaseException) -> SolarWindError:
    """Return the error for a connection that could not be made."""
    text = str(error) or type(error).__name__
    if isinstance(error, OSError):
        text = os.strerror(error.errno) if error.errno and error.errno > 0 else error.strerror or text
    if "uthorization" in text or "uthentication" in text:
        return NotAllowed(
            f"expected credentials that NATS at {address.shown} accepts, got others ({text}): give them as "
            "nats://user:password@…, or name a file by creds=… or $SOLARWIND_NATS_CREDS"
        )
    return Unavailable(f"expected a NATS server at {address.shown}, got {text!r}: start one, or name another")
