"""The exchanges of this process: those that are registered here, and those of installed packages, which come by the
entry-point group `solarwind.exchanges`."""

from __future__ import annotations

import sys
from functools import lru_cache
from typing import TYPE_CHECKING

from .core.exchange import Exchange, Exchanges
from .errors import BadArgument

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

GROUP = "solarwind.exchanges"
registered = Exchanges()  # what the dispatchers of this process go by, and its services


def register_exchange(name: str, exchange: Exchange) -> None:
    """Make `exchange` known under `name` in this process, so that `on(..., exchange=name)` finds it.

    Raise `BadArgument` for a name outside `a-z 0-9 _ -` (with one colon within at most), or something that is no
    exchange or could choose nobody, and `ConflictError` where another one has that name."""
    registered.register(name, exchange)


def load_exchange(name: object) -> None:
    """Register the exchange `name`, from an installed package if need be. Raise `BadArgument` where there is none."""
    if isinstance(name, str) and registered.lookup(name) is not None:
        return
    entry = _installed(tuple(sys.path)).get(name) if isinstance(name, str) else None
    if entry is not None:
        try:
            exchange = entry.load()
        except Exception as error:
            raise BadArgument(f"expected exchange {name!r} to load from {entry.value}, got {error!r}") from error
        register_exchange(entry.name, exchange() if isinstance(exchange, type) else exchange)
        return
    text = registered.unknown(name)
    raise BadArgument(
        text
        if text.endswith("?")
        else f"{text}: register your own with solarwind.exchanges.register_exchange, or install the package that has it"
    )


@lru_cache(maxsize=4)
def _installed(path: tuple[str, ...]) -> dict[str, EntryPoint]:
    """Return the installed entry points by name. Cached: finding them reads a file of each package, and any client may
    name an exchange."""
    from importlib.metadata import entry_points  # importing it needs longer than the rest of this package

    return {entry.name: entry for entry in entry_points(group=GROUP)}
