"""`serve`: runs a dispatcher for many processes and languages, from opening its store to draining after a signal."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import re
import signal
import socket
import sys
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import quote

import typer

from ..errors import BadArgument, NotAllowed
from ..text import redact
from .options import consent, option
from .parent import tell

if TYPE_CHECKING:
    from ..engine.base import Engine
    from ..limits import Limits
    from ..server import Server
    from ..server.listener import Listener

log = logging.getLogger("solarwind")

T = TypeVar("T")

MAX_PORT = 65_535
_STATED = {"COMMANDLINE", "ENVIRONMENT"}
# Before Python looks for cyclic garbage, and so many times before it looks at older objects, and at all: the product is
# about that of the defaults, so that not much more garbage is kept.
_MORE_OBJECTS = 20_000, 2, 2


_PLACE, _WHO, _HOOKS, _PEER, _THERE = (
    "Where it is",
    "Who may use it",
    "Webhooks",
    "What a peer may cost",
    "How much there may be of anything",
)


def _limit(panel: str, name: str, default: float, help: str) -> Any:
    """Return a limit. Its default is that of `Settings` or `Limits`, which are not imported to show help."""
    minimum = 1 if isinstance(default, int) else 0.001
    metavar = "BYTES" if name.endswith("-bytes") else "SECONDS" if name.endswith("-s") else "N"
    how: dict[str, Any] = {"min": minimum, "metavar": metavar, "show_default": False, "rich_help_panel": panel}
    return option(name, f"{help[:-1]}: {default:,.16g}.", **how)


def _one(panel: str, name: str, metavar: str, help: str, **how: Any) -> Any:
    """Return an option without a default to show."""
    return option(name, help, metavar=metavar, rich_help_panel=panel, **{"show_default": False, **how})


# fmt: off
def serve(
    context: typer.Context,
    data: Annotated[str, _one(_PLACE, "data", "FILE", "The store.", show_default=True)] = "wind.db",
    engine: Annotated[str | None, _one(_PLACE, "engine", "URL", "A store by its URL, instead of a file.")] = None,
    host: Annotated[str, _one(_PLACE, "host", "ADDRESS", "The address to listen on.", show_default=True)] = "127.0.0.1",
    port: Annotated[int, _one(
        _PLACE, "port", "N", "The port. With 0, any that is free.", min=0, max=MAX_PORT, show_default=True)] = 7400,
    socket: Annotated[str | None, _one(_PLACE, "socket", "PATH", "A Unix socket; then a port only if stated.")] = None,
    socket_mode: Annotated[str, _one(_PLACE, "socket-mode", "MODE", "Its file's.", show_default=True)] = "0600",
    fd: Annotated[list[int] | None, _one(_PLACE, "fd", "N", "Listening sockets to inherit, instead.", min=3)] = None,
    grace: Annotated[float, _one(
        _PLACE, "grace", "SECONDS", "How long requests have to finish at the end.", min=0, show_default=True)] = 30.0,
    tokens: Annotated[str | None, _one(
        _WHO, "tokens", "FILE", "The file of tokens.", show_default="DATA.tokens")] = None,
    cert: Annotated[str | None, _one(_WHO, "cert", "FILE", "A certificate for TLS, in PEM.")] = None,
    cert_key: Annotated[str | None, _one(_WHO, "cert-key", "FILE", "Its key.", show_default="in CERT")] = None,
    insecure: Annotated[bool, consent(
        "insecure", "Listen beyond loopback without tokens or TLS.", rich_help_panel=_WHO)] = False,
    origin: Annotated[list[str] | None, _one(
        _WHO, "origin", "ORIGIN", "Allow the web pages of this origin. Several are allowed.")] = None,
    allow_host: Annotated[list[str] | None, _one(
        _WHO, "allow-host", "NAME", "Answer to this name. Several are allowed.")] = None,
    no_console: Annotated[bool, option("no-console", "Leave out the page at /console.", rich_help_panel=_WHO)] = False,
    webhook_network: Annotated[list[str] | None, _one(
        _HOOKS, "webhook-network", "NETWORK", "Allow targets in this network, or at this address or host.")] = None,
    webhook_origin: Annotated[str | None, _one(
        _HOOKS, "webhook-origin", "NAME", "The name that targets know it by.", show_default="this machine")] = None,
    frame_bytes: Annotated[int | None, _limit(_PEER, "frame-bytes", 8 << 20, "Of a WebSocket message.")] = None,
    body_bytes: Annotated[int | None, _limit(_PEER, "body-bytes", 16 << 20, "Of a body that is read whole.")] = None,
    header_bytes: Annotated[int | None, _limit(_PEER, "header-bytes", 16 << 10, "Of a request's headers.")] = None,
    bodies_bytes: Annotated[int | None, _limit(_PEER, "bodies-bytes", 256 << 20, "Of all that is unfinished.")] = None,
    body_rate: Annotated[int | None, _limit(_PEER, "body-rate", 500, "Bytes a second, at least, of a body.")] = None,
    nesting: Annotated[int | None, _limit(_PEER, "nesting", 64, "Levels of a JSON body.")] = None,
    ids: Annotated[int | None, _limit(_PEER, "ids", 10_000, "Ids in a request, events in a take.")] = None,
    connections: Annotated[int | None, _limit(_PEER, "connections", 1_000, "Connections of an address.")] = None,
    authenticate_s: Annotated[float | None, _limit(_PEER, "authenticate-s", 5.0, "Until the first request.")] = None,
    idle_s: Annotated[float | None, _limit(_PEER, "idle-s", 60.0, "That an HTTP connection may rest.")] = None,
    heartbeat_s: Annotated[float | None, _limit(_PEER, "heartbeat-s", 15.0, "A peer is gone after two.")] = None,
    instances: Annotated[int | None, _limit(_PEER, "instances", 10_000, "Instances of a connection.")] = None,
    viewers: Annotated[int | None, _limit(_PEER, "viewers", 10_000, "Open streams of `/v1/watch`, of all.")] = None,
    unanswered: Annotated[int | None, _limit(_PEER, "unanswered", 1_000, "Open calls of a connection.")] = None,
    payload_bytes: Annotated[int | None, _limit(_THERE, "payload-bytes", 1 << 20, "Of a payload.")] = None,
    batch_bytes: Annotated[int | None, _limit(_THERE, "batch-bytes", 1 << 20, "Of a batch.")] = None,
    batch_events: Annotated[int | None, _limit(_THERE, "batch-events", 4_096, "Events of a batch.")] = None,
    unaccepted_bytes: Annotated[int | None, _limit(_THERE, "unaccepted-bytes", 64 << 20, "Not accepted yet.")] = None,
    in_hand_bytes: Annotated[int | None, _limit(_THERE, "in-hand-bytes", 16 << 20, "In an instance's hands.")] = None,
    copies: Annotated[int | None, _limit(_THERE, "copies", 10_000, "Events in a fan-out buffer.")] = None,
    copy_bytes: Annotated[int | None, _limit(_THERE, "copy-bytes", 16 << 20, "Of a fan-out buffer.")] = None,
    names: Annotated[int | None, _limit(_THERE, "names", 100_000, "Topics, and purposes.")] = None,
    versions: Annotated[int | None, _limit(_THERE, "versions", 100, "Of a purpose that are remembered.")] = None,
    waiting: Annotated[int | None, _limit(_THERE, "waiting", 100_000, "Events of a purpose that wait.")] = None,
    json: Annotated[bool, option("json", "Log as JSON, one object a line.")] = False,
) -> None:
    """Serve a dispatcher on one port or Unix socket, by WebSocket and HTTP, until SIGTERM or SIGINT."""
    from ..lifecycle import run_loop
    from .log import log_to_stderr

    given = _given(context)
    log_to_stderr(json)
    run_loop(Service(given).run())
# fmt: on


def _given(context: typer.Context) -> dict[str, Any]:
    """Return the parameters of a `Service`. Raise `BadParameter` for options that do not go together."""
    _refuse_both(context, "engine", "data")
    _refuse_both(context, "fd", "host")
    _refuse_both(context, "fd", "port")
    if given_at(context, "socket_mode") == "COMMANDLINE" and context.params["socket"] is None:
        raise typer.BadParameter("expected a socket for the mode, got none: name one with --socket")
    given = context.params | {"socket_mode": _mode(context.params["socket_mode"])}
    if given["fd"] or (
        given["socket"] is not None and not {given_at(context, "host"), given_at(context, "port")} & _STATED
    ):
        given["port"] = None
    return given


def given_at(context: typer.Context, name: str) -> str:
    """Return where an option's value is from: `COMMANDLINE`, `ENVIRONMENT`, or another name."""
    source = context.get_parameter_source(name)
    return "" if source is None else source.name


def _mode(text: str) -> int:
    """Return a file's mode, written in octal."""
    if not re.fullmatch("0?[0-7]{3}", text):
        raise typer.BadParameter(
            f"expected a mode of three octal digits, such as 0600 or 0660, got {text!a}", param_hint="--socket-mode"
        )
    return int(text, 8)


def _refuse_both(context: typer.Context, one: str, other: str) -> None:
    """Refuse two options of which one would be ignored. An option on the command line overrides the other's
    variable."""
    if all(given_at(context, name) == "COMMANDLINE" for name in (one, other)):
        raise typer.BadParameter(f"expected one of --{one} and --{other}, got both: leave one out")


class Service:
    """The server with the given options, the parameters of `serve`; a `port` of None is none. Raise `BadArgument`, and
    `NotAllowed` for what only `--insecure` allows."""

    delivers = True  # webhooks

    def __init__(self, given: dict[str, Any]) -> None:
        needs_server()
        from ..limits import Limits
        from ..server import Server, Settings
        from ..server.access import Access
        from ..server.listener import Listener
        from ..server.tls import tls_context
        from ..server.unix_socket import UnixSocket
        from ..wind import SolarWind

        self._given = given
        self._inherited = [_inherited(each) for each in given["fd"] or ()]
        self._unix = None if given["socket"] is None else UnixSocket(given["socket"], given["socket_mode"])
        ports = [each for each in self._inherited if each.family != socket.AF_UNIX]
        self._hosts: list[str] = [given["host"]] * (given["port"] is not None)
        self._hosts += [each.getsockname()[0] for each in ports]
        self._tls = None
        if given["cert_key"] and not given["cert"]:
            raise BadArgument("expected a certificate for the key, got none: name it with --cert")
        if given["cert"] and not self._hosts:
            raise BadArgument(
                "expected a port for the certificate, got a Unix socket alone: add --port, or leave it out"
            )
        if given["cert"]:
            self._tls = tls_context(given["cert"], given["cert_key"])
        path = given["tokens"] or (None if given["engine"] else f"{given['data']}.tokens")
        self._access = Access(path, required=given["tokens"] is not None)
        for host in self._hosts:
            self._check_reach(host)
        limits = _settings_of(given, Limits)
        self._wind = SolarWind(engine=self.engine(limits), limits=limits)
        self._server: Server = Server(
            self._wind,
            tokens=self._access,
            settings=_settings_of(given, Settings),
            hosts=given["allow_host"] or None,
            origins=given["origin"] or (),
            webhook_networks=given["webhook_network"] or (),
            webhook_origin=given["webhook_origin"],
            console=not given["no_console"],
            delivers=self.delivers,
        )
        self._listener: Listener = Listener(
            self._server,
            host=given["host"],
            port=given["port"],
            unix=self._unix,
            inherited=self._inherited,
            tls=self._tls,
            grace=given["grace"],
        )

    def engine(self, limits: Limits) -> Engine:
        """Return the engine to serve, not started."""
        from ..urls import open_engine
        from .reach import is_server

        if is_server(self._given["engine"] or ""):
            raise BadArgument(
                f"expected a store to serve, got the server {redact(self._given['engine'])}: use that one"
            )
        url = self._given["engine"] or f"sqlite:///{quote(os.path.abspath(self._given['data']))}"
        return open_engine(url, limits, serves=True)

    def _check_reach(self, host: str) -> None:
        """Require tokens and TLS where other machines can reach the server at this address."""
        given = self._given
        if _is_loopback(host):
            return
        lacking = (["tokens"] if self._access.open else []) + (["TLS"] if self._tls is None else [])
        if lacking and not given["insecure"]:
            raise NotAllowed(
                f"expected tokens and TLS to listen on {host}, which others can reach, got no "
                f"{' and no '.join(lacking)}: make a token with `solarwind token create` and name --cert, "
                "or say --insecure"
            )
        if "tokens" in lacking:
            log.warning("insecure: every client that reaches %s may fire, listen and operate without a token", host)
        if "TLS" in lacking:
            log.warning("insecure: anybody on the network path to %s can read and change messages, tokens too", host)

    async def run(self) -> None:
        """Run until it ends. Raise `StoreError` when the store fails meanwhile."""
        loop = asyncio.get_running_loop()
        asked, again = asyncio.Event(), asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, lambda: (again if asked.is_set() else asked).set())
        await self._listener.bind()  # before the store is created
        try:
            await self._wind.start()
        except BaseException:
            self._listener.close()
            raise
        try:
            await self._server.start()
            await self._listener.start()
            if self._tls is not None:
                loop.add_signal_handler(signal.SIGHUP, self._renew)
            _collect_rarely()
            self.say(self._listener.port)
            tell("READY=1")
            await _first(asked.wait(), self._wind.failed, self._server.failed)
        finally:
            asked.set()
            tell("STOPPING=1")
            stopping = asyncio.ensure_future(self._stop())
            await _first(stopping, again.wait())
        if not stopping.done():
            stopping.cancel()
            log.warning("stopped without waiting for requests and connections")
            return
        for failed in (self._wind.failed, self._server.failed):
            if failed.done():
                failed.result()
        await stopping

    async def _stop(self) -> None:
        self._listener.close()
        if self._server.running:
            await self._server.stop()
        await self._listener.stop()
        await self._wind.stop()

    def _renew(self) -> None:
        """Load the replaced certificate after SIGHUP."""
        from ..server.tls import load_certificate

        assert self._tls is not None
        try:
            load_certificate(self._tls, self._given["cert"], self._given["cert_key"])
        except BadArgument as error:
            log.error("the former certificate stays in use: %s", error)
        else:
            log.info("the certificate was read anew")

    def say(self, port: int) -> None:
        """Print where it serves."""
        from ..urls import socket_url
        from . import show

        what = redact(self._given["engine"] or "") or os.path.abspath(self._given["data"])
        places: dict[str, str] = {}
        texts = []
        if self._hosts:
            host, secure = self._hosts[0], "s" if self._tls is not None else ""
            at = f"{f'[{host}]' if ':' in host else host}:{port}"
            places |= {"ws": f"ws{secure}://{at}", "http": f"http{secure}://{at}"}
            texts.append("{ws} ({http})".format(**places))
        path = next((each.getsockname() for each in self._inherited if each.family == socket.AF_UNIX), None)
        path = self._unix.path if self._unix is not None else path
        if path:
            places["unix"] = socket_url(path)
            texts.append(places["unix"])
        if self._given["json"]:
            show.put(show.line({"serves": what, **places, "process": os.getpid()}), sys.stderr)
        else:
            show.note(f"solarwind serves {what} on {' and '.join(texts)}")


def _collect_rarely() -> None:
    """Have Python's cyclic garbage collector hold up events less: it looks no more at what is there by now, which
    stays, and only once there are so many more objects. Nearly all of them are gone before, without it."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_MORE_OBJECTS)


def needs_server() -> None:
    """Raise `BadArgument` where the extra is not installed."""
    from importlib.util import find_spec

    from ..extras import missing_extra

    for name in ("starlette", "h11", "websockets", "httpcore", "prometheus_client"):
        if find_spec(name) is None:
            raise missing_extra("server", "a server")


def _settings_of(given: dict[str, Any], kind: type[T]) -> T:
    """Return a struct of the given options that are its fields; the others keep their defaults."""
    fields = kind.__struct_fields__  # type: ignore[attr-defined]
    return kind(**{name: given[name] for name in fields if given.get(name) is not None})


def _inherited(number: int) -> socket.socket:
    """Return a listening socket by its descriptor. Raise `BadArgument` where it is none, or of another family."""
    try:
        found = socket.socket(fileno=number)
        listens = bool(found.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN)) and found.type == socket.SOCK_STREAM
    except OSError as error:
        raise BadArgument(f"expected a listening socket as --fd, got {number}: {error.strerror}") from None
    if not listens or found.family not in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
        raise BadArgument(f"expected a socket that listens on a port or a path as --fd, got another as {number}")
    found.set_inheritable(False)
    found.setblocking(False)
    return found


def _is_loopback(host: str) -> bool:
    """Return whether only this machine can reach the address. Raise `BadArgument` where it is no address."""
    import ipaddress

    try:
        found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    except (OSError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise BadArgument(f"expected an address of this machine as --host, got {host!a}: {reason}") from None
    return all(ipaddress.ip_address(str(each[4][0]).partition("%")[0]).is_loopback for each in found)


async def _first(*works: Any) -> None:
    """Wait until one of them ends, and cancel the futures that were made here."""
    futures = [asyncio.ensure_future(each) for each in works]
    await asyncio.wait(futures, return_when=asyncio.FIRST_COMPLETED)
    for future, given in zip(futures, works, strict=True):
        if future is not given:  # made here
            future.cancel()
