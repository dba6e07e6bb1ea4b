"""What another process may do with a store while it is in use: copy it, and tell whether it is whole."""

from __future__ import annotations

import os
from collections.abc import Callable

import apsw

from ..errors import StoreError
from . import database, inspection
from .files import Lock, Mark, Reach, sync_folder

_STEP_PAGES = 1024
Progress = Callable[[int, int], None]


def backup(source: str, target: str, progress: Progress | None = None, *, vfs: str | None = None) -> None:
    """Write a copy of the store at `source`, as of one moment between two commits, to the new file `target`.

    `progress` is called with the bytes done and all there are. Raises `StoreError`.
    """
    _refuse_missing(source, vfs)
    if os.path.exists(target):
        raise StoreError(f"expected a new file for the backup, but {target} exists: name another, or remove it")
    database.refuse_path(target)
    part = f"{target}-part"
    try:
        _copy(source, part, progress, vfs)
        os.rename(part, target)
        sync_folder(target)
    except (apsw.Error, OSError) as error:
        raise StoreError(f"{source} cannot be copied to {target} ({error}): nothing was kept of the copy") from error
    finally:
        if os.path.exists(part):
            os.unlink(part)


def _copy(source: str, part: str, progress: Progress | None, vfs: str | None) -> None:
    if os.path.exists(part):
        os.unlink(part)
    original = database.connect(source, vfs)
    copy = apsw.Connection(part, vfs=vfs)
    try:
        database.keep_tidy(original, not _has_log(source))
        with original:  # one transaction all along: commits go on, and the copy does not see them
            database.last_commit(original)
            with copy.backup("main", original, "main") as steps:
                while not steps.step(_STEP_PAGES):
                    if progress is not None:
                        page = original.pragma("page_size")
                        progress((steps.page_count - steps.remaining) * page, steps.page_count * page)
        # A store of its own: the mark beside the original says nothing of it, and it was never cut off.
        copy.pragma("synchronous", "FULL")
        with copy:
            database.set_meta(copy, "store", os.urandom(16))
            database.set_meta(copy, "clean", 1)
    finally:
        copy.close()
        original.close()
    size = os.path.getsize(part)
    if progress is not None:
        progress(size, size)


def check(
    path: str, accept_loss: bool = False, progress: Progress | None = None, *, now: int = 0, vfs: str | None = None
) -> list[str]:
    """Read all of the store at `path` and give what is not as it was written, as sentences; none where it is sound.

    Changes nothing, and may run while the store is in use. With `accept_loss` it must not be in use: then
    what is lost or damaged is given up, so that the store opens again and goes on without it.
    `progress` is called with the bytes read and all there are. Raises `StoreError` where there is no store to read.
    """
    _refuse_missing(path, vfs)
    lock = Lock(path, now) if accept_loss else None
    try:
        # The mark first: what is committed after it is read only puts the database further ahead.
        mark = Mark.read(path, vfs)
        connection = database.connect(path, vfs)
        try:
            database.keep_tidy(connection, not _has_log(path))
            findings = _inspect(path, connection, mark, progress)
            if accept_loss and findings:
                _accept(path, connection, findings, vfs)
        finally:
            connection.close()
    except apsw.Error as error:
        raise StoreError(f"{path} cannot be read ({error}): restore a backup") from error
    finally:
        if lock is not None:
            lock.release()
    return [finding.text for finding in findings]


def _refuse_missing(path: str, vfs: str | None) -> None:
    if not database.exists(path, vfs):
        raise StoreError(f"expected a store of Solar Wind, but there is none at {path}: name another file")


def _has_log(path: str) -> bool:
    log = f"{path}-wal"
    return os.path.exists(log) and os.path.getsize(log) > 0


def _inspect(
    path: str, connection: apsw.Connection, mark: Reach | None, progress: Progress | None
) -> list[inspection.Finding]:
    with connection:  # one moment between two commits
        last = database.last_commit(connection)
        topics = database.read_topics(connection)
        total = database.value(connection, "SELECT coalesce(sum(size), 0) FROM batches INDEXED BY links")

        def report(done: int) -> None:
            if progress is not None:
                progress(done, total)

        findings = list(inspection.inspect_pages(path, connection))
        findings += inspection.inspect_mark(path, connection, mark, last)
        findings += inspection.inspect_commits(path, connection)
        findings += inspection.inspect_bodies(path, connection, topics, progress=report)
        findings += inspection.inspect_references(path, connection)
        findings += inspection.inspect_links(path, connection, topics, last.events, most=1 << 62)
    return findings


def _accept(path: str, connection: apsw.Connection, findings: list[inspection.Finding], vfs: str | None) -> None:
    with connection:
        for finding in findings:
            finding.accept(connection)
        inspection.recount(connection)
    mark = Mark(path, vfs, lambda error: None)
    last = database.last_commit(connection)
    mark.begin(Reach(database.store_id(connection), last.number, last.events, last.time))
    mark.close()
