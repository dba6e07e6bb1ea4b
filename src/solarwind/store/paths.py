"""Where a file can be made: for a store, a backup, or what comes of one from a server."""

from __future__ import annotations

import os

from ..errors import StoreError
from ..names import check_path


def refuse_path(path: str) -> None:
    """Raise `StoreError` where no file can be made or written to, and `BadArgument` for what is no path."""
    folder = os.path.dirname(os.path.abspath(check_path(path)))
    if os.path.isdir(path):
        raise StoreError(f"expected the path of a file, but {path} is a folder: name a file in it, such as wind.db")
    if not os.path.isdir(folder):
        raise StoreError(f"expected a folder for {path}, but {folder} does not exist: create it")
    for each in (path, folder):
        if os.path.exists(each) and not os.access(each, os.W_OK):
            raise StoreError(f"expected to be able to write to {path}, but {each} is read-only: allow it, or move it")


def refuse_taken(path: str) -> None:
    """Raise what `refuse_path` raises, and `StoreError` where something is already."""
    if os.path.lexists(check_path(path)):
        raise StoreError(f"expected a new file for the backup, but {path} exists: name another, or remove it")
    refuse_path(path)
