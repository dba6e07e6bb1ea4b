"""`run --workers`, `run --reload` and `dev`: the same service in processes of their own, on a shared dispatcher.

That dispatcher is a `solarwind serve` on a Unix socket for them alone, in a folder that only their user may enter;
that of `dev` is on a port of loopback too, for a browser. Other programs on the machine have no token for it: workers
have theirs in their environment, which only their user can read, and the dispatcher has its hash. The sockets are bound
here and inherited, so that they stay theirs while the dispatcher restarts.
"""

from __future__ import annotations

import asyncio
import os
import socket
import tempfile
from collections.abc import Callable, Coroutine, Sequence
from contextlib import ExitStack
from functools import partial
from typing import TYPE_CHECKING, Any

from ..errors import BadArgument, Unavailable
from ..systems import check_linux
from .options import variable
from .parent import WORKER, WORKER_TOKEN, WORKER_URL
from .supervisor import Child, Supervisor

if TYPE_CHECKING:
    from ..wind import SolarWind

_ONLY_OURS = {variable("workers"), variable("reload"), "NOTIFY_SOCKET"}
_BACKLOG = 2_048
_PREFIX = "solarwind-"


def supervise(
    wind: SolarWind,
    service: Sequence[str],
    url: str | None,
    *,
    workers: int,
    leaves: bool,
    reloads: bool,
    json: bool,
    port: int | None = None,
    served: Callable[[str, str], Coroutine[Any, Any, None]] | None = None,
) -> int:
    """Run a service in several processes until a signal comes, or until all have left. Return the exit code.

    `wind`, not started, names its dispatcher, or the store on which one is to be started. `service` are the arguments
    of one process, all but `url`. A dispatcher that is started listens on `port`, too, if that is not None; once it
    does, its HTTP address and the token for it are `served` to who is to use it; what that returns goes on until the
    workers end.
    """
    check_linux("workers that are watched", "start `solarwind run` as often as you want it, at a `solarwind serve`")
    environment = _environment(reloads)
    with ExitStack() as files:
        dispatcher = None
        say: Callable[[], Coroutine[Any, Any, None]] | None = None
        if _is_store(wind):
            listening, url = _listen_at_path(files)
            sockets = [listening.fileno()]
            tokens, token = new_token(files, "workers" if served is None else "dev")
            environment[WORKER_TOKEN] = token
            if port is not None:
                listening = files.enter_context(_listen(port))
                sockets.append(listening.fileno())
                if served is not None:
                    say = partial(served, f"http://127.0.0.1:{listening.getsockname()[1]}", token)
            dispatcher = _dispatcher(wind, sockets, tokens, json)
        children = [
            Child(f"worker {number}", service, environment | _where(url) | {WORKER: str(number)}, leaves=leaves)
            for number in range(1, workers + 1)
        ]
        return asyncio.run(Supervisor(children, dispatcher, reloads=reloads, served=say).run())


def _listen_at_path(files: ExitStack) -> tuple[socket.socket, str]:
    """Return a listening Unix socket, in a folder for this user alone that is removed in the end, and its URL."""
    from ..server.unix_socket import UnixSocket
    from ..urls import socket_url

    folder = files.enter_context(tempfile.TemporaryDirectory(prefix=_PREFIX, ignore_cleanup_errors=True))
    try:
        unix = UnixSocket(os.path.join(folder, "wind.sock"), 0o600)
    except BadArgument as error:
        raise BadArgument(f"{error}; it is in the folder for temporary files: name that by $TMPDIR") from None
    listening = files.enter_context(unix.bind())
    files.callback(unix.remove)
    return listening, socket_url(unix.path)


def _listen(port: int) -> socket.socket:
    try:
        return socket.create_server(("127.0.0.1", port), backlog=_BACKLOG)
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise Unavailable(
            f"expected to listen on 127.0.0.1 port {port}, which cannot be ({reason}): name another with --port, or 0 "
            "for any that is free"
        ) from None


def reload(service: Sequence[str], url: str | None) -> int:
    """Run a service in one process, and restart it when a source file changes. Return its exit code."""
    check_linux("--reload", "start `solarwind run` anew after a change")
    child = Child("the service", service, _environment(True) | _where(url))
    return asyncio.run(Supervisor([child], reloads=True).run())


def _where(url: str | None) -> dict[str, str]:
    return {WORKER_URL: url} if url else {}


def _environment(reloads: bool) -> dict[str, str]:
    environment = {name: value for name, value in os.environ.items() if name not in _ONLY_OURS}
    if reloads:
        environment["PYTHONDONTWRITEBYTECODE"] = "1"  # a cached file may hide a change saved in the same second
    return environment


def _is_store(wind: SolarWind) -> bool:
    """Return whether it needs a dispatcher here, rather than using a server."""
    from ..engine.local import LocalEngine
    from .serve import needs_server

    if not isinstance(wind.engine, LocalEngine):
        return False
    needs_server()
    return True


def _dispatcher(wind: SolarWind, sockets: Sequence[int], tokens: int, json: bool) -> Child:
    listening = [word for each in sockets for word in ("--fd", str(each))]
    arguments = ["serve", *listening, "--tokens", f"/dev/fd/{tokens}", *_store(wind), *_limits(wind)]
    # It gets its options only from here, not from variables meant for another server.
    environment = {name: value for name, value in os.environ.items() if not name.startswith(variable(""))}
    return Child("the dispatcher", [*arguments, *["--json"] * json], environment, files=[*sockets, tokens])


def _store(wind: SolarWind) -> list[str]:
    from ..store.memory import MemoryStore
    from ..store.sqlite import SqliteStore

    store = getattr(wind.engine, "store", None)
    if isinstance(store, SqliteStore):
        return [f"--data={store.path}"]
    if isinstance(store, MemoryStore):
        return ["--engine=memory://"]
    raise BadArgument(
        f"expected a SolarWind that was made with a URL to share among workers, got one on {type(store).__name__}: "
        "name a store with --url"
    )


def _limits(wind: SolarWind) -> list[str]:
    """Return the limits of its object as options for the dispatcher."""
    from ..limits import Limits

    usual = Limits()
    stated = [(name, getattr(wind.limits, name)) for name in usual.__struct_fields__]
    return [f"--{name.replace('_', '-')}={value}" for name, value in stated if value != getattr(usual, name)]


def new_token(files: ExitStack, name: str) -> tuple[int, str]:
    """Return the descriptor of a token file that is already unlinked, so that it leaves nothing behind, and its only
    token, which allows everything."""
    from ..server.access import ANY, Listen, create_token

    with tempfile.TemporaryDirectory(prefix=_PREFIX) as folder:
        path = os.path.join(folder, "tokens")
        token, _ = create_token(path, name, fire=(ANY,), listen=(Listen(ANY),), admin=True)
        return files.enter_context(open(path, "rb")).fileno(), token
