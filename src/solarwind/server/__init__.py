"""The server: exposes a dispatcher on one port, for many processes and languages. Needs the extra `[server]`."""

from .asgi import Server, app
from .settings import Settings

__all__ = ["Server", "Settings", "app"]
