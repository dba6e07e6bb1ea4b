"""From `--url` to a running dispatcher, for every command but `run`."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TypeVar

from ..engine.base import Engine
from ..errors import BadArgument, NotAllowed, StoreError
from ..names import check_path
from ..text import redact
from ..urls import SERVERS, open_engine, sqlite_path
from ..wind import SolarWind

T = TypeVar("T")


def operate(url: str, work: Callable[[SolarWind], Awaitable[T]], *, create: bool = False) -> T:
    """Start a SolarWind on `url`, return the result of `work`, and stop it again."""
    wind = reach(url, create=create)

    async def run() -> T:
        async with wind:
            return await work(wind)

    return asyncio.run(run())


def leave_on_signals() -> None:
    """Cancel the current task on SIGINT and SIGTERM, to end a command that runs until interrupted."""
    task = asyncio.current_task()
    assert task is not None
    on_signals(task.cancel)


def on_signals(leave: Callable[[], object]) -> None:
    """Call `leave` on the running loop on SIGINT and SIGTERM."""
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, leave)


def reach(url: str, *, create: bool) -> SolarWind:
    """Return a SolarWind on `url`, not started. Unless `create`, a missing store is refused rather than created,
    because its name is more likely mistyped."""
    engine = engine_at(url, makes=create)
    if not create and scheme_of(url) == "sqlite":
        refuse_missing(sqlite_path(url))
    return SolarWind(engine=engine)


def engine_at(url: str, *, makes: bool = True) -> Engine:
    with way_out(url):
        return open_engine(url, makes=makes)


@contextmanager
def way_out(url: str) -> Iterator[None]:
    """Add to the refusal of an invalid URL what to write on the command line."""
    try:
        yield
    except BadArgument as error:
        if is_cluster(url) or re.search(": (name|run) ", str(error)):  # it says what is wrong, and what to do
            raise
        scheme, separator, rest = url.partition("://")
        if separator and scheme.lower() in ("http", "https"):
            served = f"{scheme.lower().replace('http', 'ws')}://{rest}"
            raise BadArgument(f"{error}: the URL for --url of a server is {redact(served)}") from None
        raise BadArgument(
            f"{error}: name a store, such as --url sqlite:///wind.db, or a server, such as --url ws://127.0.0.1:7400, "
            "or set $SOLARWIND_URL"
        ) from None


def refuse_missing(
    path: str, what: str = "store", instead: str = "fire the first event to it, or name another"
) -> None:
    if os.path.isdir(check_path(path)):
        raise StoreError(f"expected the path of a file, but {path} is a folder: name a file in it, such as wind.db")
    if not os.path.exists(path):
        raise StoreError(f"expected a {what}, but there is none at {path}: {instead}")
    if not os.path.getsize(path):
        raise StoreError(f"expected a {what}, but the file {path} is empty: {instead}")


def scheme_of(url: str) -> str:
    """Return everything before the first colon of a URL, which may be invalid."""
    return url.strip().partition(":")[0].lower()


def is_server(url: str) -> bool:
    return scheme_of(url) in SERVERS


def is_cluster(url: str) -> bool:
    return scheme_of(url) == "nats"


def store_file(url: str, what: str) -> str:
    """Return the file of the store at `url`, for a command that reads it without the dispatcher."""
    engine_at(url)
    if is_cluster(url):
        raise NotAllowed(
            f"expected a store in a file to {what}, such as sqlite:///wind.db, got nats://, whose files are NATS's: "
            "copy it into one with `solarwind copy`, or keep its streams with `nats stream backup`"
        )
    if is_server(url):
        then = "it may go on meanwhile" if what == "check" else "stop it first"
        raise NotAllowed(
            f"expected a store in a file to {what}, got the server {redact(url)}: name its file, on its machine, such "
            f"as --url sqlite:///wind.db; {then}"
        )
    if scheme_of(url) != "sqlite":
        raise NotAllowed(
            f"expected a store in a file to {what}, such as sqlite:///wind.db, got {redact(url)!a}, which has none"
        )
    return sqlite_path(url)
