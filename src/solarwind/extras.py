"""How a part of the package that was not installed is installed: from where the package itself came."""

from __future__ import annotations

import shlex
import sys
from typing import Any

import msgspec

from .errors import BadArgument

_NAME = "solarwind"


class _Origin(msgspec.Struct):
    """The `direct_url.json` of an installation that is not from an index (PEP 610)."""

    url: str
    dir_info: dict[str, Any] = {}
    vcs_info: dict[str, Any] = {}
    subdirectory: str = ""


def requirement(extras: str) -> list[str]:
    """Return the arguments of `pip install`, and words of a line of requirements.txt, for this package with these
    extras."""
    from importlib.metadata import PackageNotFoundError, distribution

    try:
        stated = distribution(_NAME).read_text("direct_url.json")
        origin = msgspec.json.decode(stated, type=_Origin) if stated else None
    except (PackageNotFoundError, msgspec.MsgspecError):
        origin = None
    if origin is None:
        return [f"{_NAME}[{extras}]"]
    if origin.dir_info.get("editable"):  # and stays so
        return ["-e", f"{origin.url}[{extras}]"]
    url = origin.url
    if origin.vcs_info:
        url = f"{origin.vcs_info.get('vcs')}+{url}@{origin.vcs_info.get('commit_id')}"
    if origin.subdirectory:
        url = f"{url}#subdirectory={origin.subdirectory}"
    return [f"{_NAME}[{extras}] @ {url}"]


def install(extra: str) -> str:
    """Return the command that installs an extra, for the end of a sentence."""
    python = sys.executable or "python3"  # of this very command: there may be several
    return shlex.join([python, "-m", "pip", "install", *requirement(extra)])


def missing_extra(extra: str, what: str) -> BadArgument:
    """Return the refusal where an extra was not installed."""
    return BadArgument(f"expected what {what} needs, but it is not installed: run {install(extra)}")
