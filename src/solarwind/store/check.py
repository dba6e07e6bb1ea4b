"""Work on a store by another process, also while it is in use: backup, restore and check."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from itertools import count

import apsw

from ..errors import SolarWindError, StoreError
from . import database, inspection, journal
from .faults import cause_of, explain, note_cause
from .files import Mark, Reach, sync_folder
from .lock import Lock, holder_elsewhere, identity
from .paths import READ_BESIDE, refuse_beside, refuse_existing, refuse_path

_STEP_PAGES = 1024
_ROUNDS = 4  # of accepting losses
_STORE = ("", "-wal", "-mark", "-commits")  # the files of a store
_BESIDE = ("-wal", "-shm", "-mark", "-commits", "-reserve")
Progress = Callable[[int, int], None]


def backup(source: str, target: str, progress: Progress | None = None, *, vfs: str | None = None) -> None:
    """Write a copy of the store at `source`, as of one moment between two commits, to the new file `target`.

    `progress` is called with the bytes done and the total. Raise `StoreError`.
    """
    refuse_existing(target)
    part = f"{target}-part"
    try:
        source = _find(source, vfs)
        for finding in inspection.inspect_log(source, vfs):
            raise StoreError(finding.text)
        _copy(source, part, progress, vfs)
        os.rename(part, target)
        sync_folder(target)
    except (apsw.Error, OSError) as error:
        told = explain(error, target) or f"{database.in_one_line(error)}: nothing was kept of the copy"
        raise StoreError(f"{source} cannot be copied to {target}: {told}") from error
    finally:
        if os.path.lexists(part):
            os.unlink(part)


def _copy(source: str, part: str, progress: Progress | None, vfs: str | None) -> None:
    if os.path.lexists(part):
        os.unlink(part)
    os.close(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    original = database.connect_to_look(source, vfs)
    copy = apsw.Connection(part, vfs=vfs)
    try:
        database.keep_tidy(original, not database.has_log(source))
        pending = journal.begin_to_look(source, vfs, original)  # commits go on, and the copy does not see them
        if pending.lost:
            raise StoreError(f"{source} is damaged: see `solarwind check --url sqlite:///{source}`")
        with copy.backup("main", original, "main") as steps:
            while not steps.step(_STEP_PAGES):
                if progress is not None:
                    page = original.pragma("page_size")
                    progress((steps.page_count - steps.remaining) * page, steps.page_count * page)
        # The copy is a store of its own: the original's mark does not apply, and it was never interrupted.
        copy.pragma("synchronous", "FULL")
        with copy:
            pending.rows.insert(copy)
            database.set_meta(copy, "store", os.urandom(16))
            database.set_meta(copy, "clean", 1)
            copy.execute(f"PRAGMA user_version = {database.new_life()}")
    except apsw.Error as error:
        note_cause(error, original, copy)
        raise
    finally:
        copy.close()
        original.close()
    size = os.path.getsize(part)
    if progress is not None:
        progress(size, size)


def restore(source: str, target: str, progress: Progress | None = None, *, now: int, force: bool = False) -> str | None:
    """Put a copy of the backup `source` in the place of the store at `target`, which must not be in use.

    The former store is kept beside it, under the name that is returned, or removed with `force`. Raise `StoreError`;
    then the former store is unchanged.
    """
    backed_up, target = _find(source, None), database.resolve(target)
    if identity(backed_up) == identity(target):
        raise StoreError(f"expected a backup to restore, got {source}, which is the store itself: name the backup")
    refuse_path(target)
    refuse_beside(target, write=True)
    _refuse_other(target)
    new = not os.path.exists(target)
    lock = Lock(target, now)
    part = f"{target}-part"
    try:
        for text in check(backed_up, progress=progress):
            raise StoreError(f"expected a sound backup, but {text}")
        _copy(backed_up, part, None, None)
        os.chmod(part, os.stat(target).st_mode & 0o777)
        kept = _replace(target, part, now, force or new)
        sync_folder(target)
    except (apsw.Error, OSError) as error:
        told = explain(error, target) or f"{database.in_one_line(error)}: try again"
        raise StoreError(f"{source} cannot be put in the place of {target}: {told}") from error
    finally:
        if os.path.lexists(part):
            os.unlink(part)
        if new and not os.path.getsize(target):
            os.unlink(target)
        lock.release()
    return kept


def _refuse_other(target: str) -> None:
    """Refuse to replace a file that is no store. A damaged store may be replaced."""
    try:
        database.exists(target, None)
    except StoreError:
        if not os.path.exists(f"{target}-mark"):
            raise


def _replace(target: str, part: str, now: int, force: bool) -> str | None:
    """Move the former store aside completely, then its companion files, and only then move the new file in, so that the
    new file never lies beside files of the former."""
    kept = None if force else _name_aside(target, now)
    for kind in _STORE if kept is not None else ():
        with suppress(FileNotFoundError):
            os.link(f"{target}{kind}", f"{kept}{kind}")
    sync_folder(target)
    for kind in _BESIDE:
        with suppress(FileNotFoundError):
            os.unlink(f"{target}{kind}")
    sync_folder(target)
    os.replace(part, target)
    return kept


def _name_aside(path: str, now: int) -> str:
    """Return a free name for the former store, under which its companion files have their endings too."""
    stamp = datetime.fromtimestamp(now // 1_000_000_000, UTC).strftime("%Y%m%dT%H%M%SZ")
    names = (f"{path}-aside-{stamp}{f'-{number}' if number else ''}" for number in count())
    return next(name for name in names if not any(os.path.lexists(f"{name}{kind}") for kind in ("", *_BESIDE)))


def check(
    path: str, accept_loss: bool = False, progress: Progress | None = None, *, now: int = 0, vfs: str | None = None
) -> list[str]:
    """Read the whole store at `path` and return what is damaged or lost, as sentences; none where it is sound.

    It changes nothing, and may run while the store is in use. With `accept_loss` it must not be in use: then what is
    lost or damaged is given up, so that the store opens again without it. `progress` is called with the bytes read and
    the total. Raise `StoreError` where there is no store to read.
    """
    lock = None
    try:
        path = _find(path, vfs)
        lock = Lock(path, now) if accept_loss else None
        foreign = list(inspection.inspect_log(path, vfs))
        if foreign and not accept_loss:
            return [finding.text for finding in foreign]
        if foreign:
            kept = _name_aside(path, now)
            for kind in ("-wal", "-shm", "-mark", "-commits"):
                with suppress(FileNotFoundError):
                    os.rename(f"{path}{kind}", f"{kept}{kind}")
        # The mark first: what is committed after it is read only puts the database further ahead.
        mark = Mark.read(path, vfs)
        connection = database.connect(path, vfs) if accept_loss else database.connect_to_look(path, vfs)
        try:
            database.keep_tidy(connection, not database.has_log(path))
            findings = foreign + _inspect(path, connection, mark, progress, vfs)
            more = findings
            for _ in range(_ROUNDS if accept_loss else 0):  # further damage shows only after the first was accepted
                if not more:
                    break
                _accept(path, connection, more, vfs)
                more = _inspect(path, connection, Mark.read(path, vfs), progress, vfs)
                findings += more
        except apsw.Error as error:
            note_cause(error, connection)
            raise
        finally:
            connection.close()
    except SolarWindError:
        raise
    except (OSError, *database.UNREADABLE) as error:
        told = explain(error, path)
        if told is not None:
            raise StoreError(f"{path} cannot be checked: {told}") from error
        told = database.in_one_line(cause_of(error))
        raise StoreError(f"{path} is damaged, and cannot be read ({told}): restore a backup") from error
    finally:
        if lock is not None:
            lock.release()
    return [finding.text for finding in findings]


def _find(path: str, vfs: str | None) -> str:
    """Return the store's file at `path`. Raise `StoreError` where none can be read."""
    real = database.resolve(path)
    refuse_beside(real, READ_BESIDE, write=False)
    if not database.exists(real, vfs):
        what = f"the file {path} is empty" if os.path.exists(real) else f"there is none at {path}"
        raise StoreError(f"expected a store of Solar Wind, but {what}: name another file")
    if who := holder_elsewhere(real):
        raise StoreError(f"{path} is in use by {who} under another name, beside which its log is: use that name")
    return real


def _inspect(
    path: str, connection: apsw.Connection, mark: Reach | None, progress: Progress | None, vfs: str | None
) -> list[inspection.Finding]:
    for finding in inspection.inspect_schema(path, connection):
        return [finding]
    pending = journal.begin_to_look(path, vfs, connection)
    try:
        last = database.last_commit(connection)
        topics = database.read_topics(connection)
        total = database.value(connection, "SELECT coalesce(sum(size), 0) FROM batches INDEXED BY links")

        def report(done: int) -> None:
            if progress is not None:
                progress(done, total)

        findings = list(inspection.inspect_pages(path, connection))
        findings += inspection.inspect_topics(path, connection)
        if findings:
            return findings
        findings += inspection.inspect_mark(path, connection, mark, pending)
        findings += inspection.inspect_commits(path, connection)
        findings += inspection.inspect_bodies(path, connection, topics, progress=report)
        findings += inspection.inspect_letters(path, connection)
        findings += inspection.inspect_notes(path, connection)
        findings += inspection.inspect_definitions(path, connection)
        findings += inspection.inspect_references(path, connection)
        findings += inspection.inspect_delayed(path, connection, max_batches=1 << 62)
        findings += inspection.inspect_links(path, connection, topics, last.events, max_batches=1 << 62)
    finally:
        connection.execute("ROLLBACK")
    return findings


def _accept(path: str, connection: apsw.Connection, findings: list[inspection.Finding], vfs: str | None) -> None:
    mark = Mark(path, vfs, lambda error: None)
    try:
        former = Mark.read(path, vfs)
        if former is not None:
            mark.begin(former._replace(emptied=False))  # before anything is in the log
        with connection:
            journal.read(path, vfs, connection).rows.insert(connection)  # what can be kept
            for finding in findings:
                finding.accept(connection)
            inspection.recount(connection)
        last, life = database.last_commit(connection), database.read_life(path, vfs)
        mark.begin(Reach(database.store_id(connection), life, connection.pragma("user_version"), *last, emptied=False))
        with suppress(FileNotFoundError):
            os.unlink(journal.path_of(path))  # else what is given up seemed to be lost again
    finally:
        mark.close()
