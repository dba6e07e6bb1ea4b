"""Where a file can be made: for a store, a backup, or what comes of one from a server."""

from __future__ import annotations

import os

from ..errors import StoreError
from ..names import check_path

READ_BESIDE = ("-wal", "-shm", "-mark", "-commits", "-journal")  # what a reader needs of the files beside a store
BESIDE = (*READ_BESIDE, "-reserve", "-lock")


def refuse_name(path: str) -> None:
    """Raise `StoreError` for the name of a file that belongs to another store, which may delete it."""
    for kind in (*BESIDE, "-part"):
        if path.endswith(kind):
            store = path.removesuffix(kind)
            raise StoreError(f"expected a name for a store, but {path} is that of a file of {store}: choose another")


def refuse_beside(path: str, kinds: tuple[str, ...] = BESIDE, *, write: bool) -> None:
    """Raise `StoreError` where something beside a store cannot be the file that belongs there."""
    for each in (f"{path}{kind}" for kind in kinds):
        if not os.path.lexists(each):
            continue
        what = ""
        if os.path.isdir(each):
            what = "it is a folder: move it away"
        elif not os.path.exists(each):
            what = "it is a link to nothing: remove it"
        elif not os.path.isfile(each):
            what = "it is not a regular file: move it away"
        elif not each.endswith("-lock") and not os.access(each, os.R_OK | (os.W_OK if write else 0)):
            what = f"it cannot be read{' and written to' if write else ''}: allow it"
        if what:
            raise StoreError(f"expected a file of {path} at {each}, but {what}")


def refuse_path(path: str) -> None:
    """Raise `StoreError` where no file can be made or written to, and `BadArgument` for what is no path."""
    folder = os.path.dirname(os.path.abspath(check_path(path)))
    if os.path.isdir(path):
        raise StoreError(f"expected the path of a file, but {path} is a folder: name a file in it, such as wind.db")
    if not os.path.isdir(folder):
        raise StoreError(
            f"expected a folder for {path}, but {folder} does not exist: create it (a path from the root has four "
            "slashes: sqlite:////var/lib/wind.db)"
        )
    for each in (path, folder):
        if os.path.exists(each) and not os.access(each, os.W_OK):
            raise StoreError(f"expected to be able to write to {path}, but {each} is read-only: allow it, or move it")


def refuse_existing(path: str) -> None:
    """Raise what `refuse_path` raises, and `StoreError` where something is already."""
    refuse_name(check_path(path))
    if os.path.lexists(path):
        raise StoreError(f"expected a new file for the backup, but {path} exists: name another, or remove it")
    refuse_path(path)
