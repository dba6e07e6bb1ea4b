"""The server: exposes a dispatcher on one port, for many processes and languages. Needs the extra `[server]`."""

from ..systems import posix_needed

try:
    from .asgi import Server, app
except ModuleNotFoundError as error:
    raise posix_needed(error, "a server") from None
from .settings import Settings

__all__ = ["Server", "Settings", "app"]
