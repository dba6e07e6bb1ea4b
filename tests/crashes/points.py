"""The points at which a process may die: before and after every write to a file or a socket and in the middle of those
to a socket, or at every call of a function of Solar Wind's and at its return.

They are counted, not listed: a step that is new is a point by itself, with the name of what was written or called.
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import threading
from asyncio import selector_events
from collections.abc import Callable, Collection
from dis import opname
from inspect import CO_COROUTINE
from mmap import mmap
from types import FrameType
from typing import Any

import msgspec
from websockets.frames import apply_mask

import solarwind
from solarwind.store.base import Store
from store.faultyvfs import Disk

_OWN = os.path.dirname(solarwind.__file__) + os.sep
_IN_ONE_TURN = (
    *(_OWN + os.path.join("store", name) for name in ("memory.py", "delays.py")),
    os.path.join(os.path.dirname(__file__), "lasting.py"),
)
_PUBLISHED = re.compile(rb"^H?PUB (\S+)", re.MULTILINE)
_BINARY, _MASKED, _IN_TWO, _IN_EIGHT = 0x82, 0x80, 126, 127


class Points:
    """Counts the points that this process reaches while it is `armed`, which all processes of a test share, and ends it
    at the one numbered `at`, from 1 on; or where the names of points have had one of the patterns `at` after the
    other."""

    def __init__(self, armed: mmap, at: int | list[str], die: Callable[[str], object]) -> None:
        self._reached = 0
        self._armed = armed
        self._at = at
        self._die = die
        self._lock = threading.RLock()

    def reach(self, name: str, last_act: Callable[[], object] = lambda: None) -> None:
        """Note a point. If it is the last one, do the `last_act` and die; no other thread gets further meanwhile."""
        if self._armed[0]:
            with self._lock:
                if self._is_last(name):
                    last_act()
                    self._die(name)

    def _is_last(self, name: str) -> bool:
        if isinstance(self._at, int):
            self._reached += 1
            return self._reached == self._at
        if self._reached < len(self._at) and re.search(self._at[self._reached], name):
            self._reached += 1
            return self._reached == len(self._at)
        return False

    def count(self, grains: Collection[str]) -> None:
        if "call" in grains:
            self._count_calls()
        if "write" in grains:
            self._count_socket_writes()

    # Writes -------------------------------------------------------------------------------------------

    def _count_socket_writes(self) -> None:
        transport: Any = selector_events._SelectorSocketTransport  # type: ignore[attr-defined]
        write = transport.write

        def writing(self: Any, data: Any) -> None:
            data = bytes(data)
            what = _shown(data)
            points.reach(f"before {what}")
            points.reach(f"in the middle of {what}", lambda: self._sock.send(data[: len(data) // 2]))
            write(self, data)
            points.reach(f"after {what}")

        points = self
        transport.write = writing
        transport.writelines = lambda self, parts: self.write(b"".join(parts))

    def disk(self) -> str:
        """Return the name of SQLite's access to files, counted, for this process."""
        disk = _CountedDisk(self)
        disk.__enter__()
        return disk.name

    def count_commits(self, store: Store) -> None:
        """Count the commits of a store that writes to nothing else."""
        commit: Any = store.commit

        async def committing(*content: Any) -> Any:
            self.reach("before the commit")
            stored = await commit(*content)
            self.reach("after the commit")
            return stored

        store.commit = committing  # type: ignore[method-assign]

    # Calls --------------------------------------------------------------------------------------------

    def _count_calls(self) -> None:
        def profile(frame: FrameType, event: str, _: object) -> None:
            code = frame.f_code
            is_counted = self._armed[0] and event in ("call", "return") and "<" not in code.co_name
            if is_counted and code.co_filename.startswith(_OWN) and not _is_in_one_turn(frame.f_back):
                self.reach(f"{_when(frame, event)} {code.co_qualname}")

        threading.setprofile(profile)
        sys.setprofile(profile)


class _CountedDisk(Disk):
    def __init__(self, points: Points) -> None:
        super().__init__()
        self._points = points

    def ask(self, kind: str, path: str | None) -> None:
        if kind not in ("read", "open"):
            self._points.reach(f"before {_act(kind, path or '')}")

    def note(self, kind: str, path: str, at: int, data: bytes = b"") -> None:
        super().note(kind, path, at, data)
        self._points.reach(f"after {_act(kind, path)}")


def _act(kind: str, path: str) -> str:
    verb = {"write": "writing to", "sync": "syncing", "truncate": "cutting", "delete": "deleting"}
    return f"{verb.get(kind, kind)} {os.path.basename(path)}"


def _when(frame: FrameType, event: str) -> str:
    """Return where a function is. A coroutine that waits seems to return, and to be called again when it goes on."""
    code = frame.f_code
    if code.co_flags & CO_COROUTINE:
        instruction, argument = code.co_code[frame.f_lasti : frame.f_lasti + 2]
        if argument & 3 if event == "call" else not opname[instruction].startswith("RETURN"):  # RESUME 0 is the start
            return "in"
    return "before" if event == "call" else "after"


def _is_in_one_turn(frame: FrameType | None) -> bool:
    """Return whether this is within the store in memory, which does all that it does in one turn of the loop: whoever
    goes on with what it has sees all of it or nothing."""
    while frame is not None:
        if frame.f_code.co_filename in _IN_ONE_TURN:
            return True
        frame = frame.f_back
    return False


def _shown(data: bytes) -> str:
    """Return in words what a socket gets: the subjects of messages to NATS, or the kinds of messages of a frame."""
    if subjects := _PUBLISHED.findall(data):
        return f"publishing on {', '.join(dict.fromkeys(_subject(each) for each in subjects))}"
    try:
        messages = msgspec.msgpack.decode(_content(data))
        return f"sending {', '.join(dict.fromkeys(str(each[0]) for each in messages))}"
    except (msgspec.MsgspecError, IndexError, TypeError, ValueError):
        return "sending other bytes"


def _subject(subject: bytes) -> str:
    """Return a subject without what is another one each time."""
    words = subject.decode().split(".")
    if words[0] == "_INBOX":
        return "an inbox"
    return ".".join("*" if re.search(r"\d", word) and len(word) > 3 else word for word in words[:6])


def _content(frame: bytes) -> bytes:
    """Return the message in a WebSocket frame that is whole."""
    if frame[0] != _BINARY:
        raise ValueError("not a binary message")
    length, at = frame[1] & ~_MASKED, 2
    at += 2 if length == _IN_TWO else 8 if length == _IN_EIGHT else 0
    if frame[1] & _MASKED:
        return bytes(apply_mask(frame[at + 4 :], frame[at : at + 4]))
    return frame[at:]


def forget_loop() -> None:
    """Leave the loop that runs here as it is, for good, so that another can run."""
    asyncio._set_running_loop(None)
