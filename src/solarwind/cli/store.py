"""`check`, `backup` and `restore`: work on a store's file."""

from __future__ import annotations

import os
import sys
import time
from typing import Annotated

import typer

from ..text import redact
from .options import DEFAULT_URL, FileUrlOption, JsonOption, UrlOption, consent


def check(
    accept_loss: Annotated[
        bool, consent("accept-loss", "Give up what is lost or damaged, so that the store opens again.")
    ] = False,
    url: FileUrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Read all of a store and say what is not as it was written.

    It may be in use meanwhile.
    """
    from ..store.check import check
    from . import show
    from .reach import refuse_missing, store_file

    path = store_file(url, "check")
    refuse_missing(path)
    with show.progress(f"checking {path}", "bytes") as report:
        findings = check(path, accept_loss, report, now=time.time_ns())
    if json:
        show.document({"sound": not findings, "findings": findings, "accepted": accept_loss and bool(findings)})
    elif findings:
        for finding in findings:
            show.say(finding)
    else:
        show.say(f"{path} is sound")
    sys.stdout.flush()
    if findings and accept_loss:
        show.note(f"{path} goes on without what was lost")
    elif findings:
        show.refuse(
            f"{show.counted(len(findings), 'finding')} in {path}: restore a backup, or give up what is lost "
            "with --accept-loss"
        )
        raise typer.Exit(1)


def restore(
    source: Annotated[str, typer.Argument(metavar="BACKUP", help="What `backup` wrote.", show_default=False)],
    force: Annotated[bool, consent("force", "Remove what is there rather than keep it beside the store.")] = False,
    url: FileUrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Put a backup in the place of a store.

    It must not be in use. What was there is kept beside it.
    """
    from ..store.check import restore
    from . import show
    from .reach import refuse_missing, store_file

    path = store_file(url, "restore")
    refuse_missing(source, "backup", "name the file that `solarwind backup` wrote")
    with show.progress(f"restoring {path}", "bytes") as report:
        kept = restore(source, path, report, now=time.time_ns(), force=force)
    if json:
        show.document({"restored": path, "kept": kept})
    else:
        show.say(f"{path} is {source} now" + (f"; what was there is {kept}" if kept else ""))


def backup(
    target: Annotated[str, typer.Argument(metavar="TARGET", help="The new file.", show_default=False)],
    url: UrlOption = DEFAULT_URL,
    json: JsonOption = False,
) -> None:
    """Copy a store to a new file here, as of one moment.

    It may be in use meanwhile.
    """
    from ..store.check import backup
    from ..store.paths import refuse_existing
    from . import show
    from .reach import is_server, operate, refuse_missing, store_file

    if is_server(url):
        refuse_existing(target)
        with show.progress(f"copying the store of {redact(url)}", "bytes"):
            operate(url, lambda wind: wind.backup(target))
    else:
        path = store_file(url, "copy")
        refuse_missing(path)
        with show.progress(f"copying {path}", "bytes") as report:
            backup(path, target, report)
    size = os.path.getsize(target)
    if json:
        show.document({"target": target, "bytes": size})
    else:
        show.say(f"{target}: {size:,} bytes")
