"""What a process notes in a file, read while it goes on.

A line ends with " .", and begins with a new line: one whose process was killed in the middle of it is passed over, and
does not spoil the next.
"""

from __future__ import annotations

from pathlib import Path


class Notes:
    """The whole lines of a file that grows."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._read = 0
        self._lines: list[str] = []

    @property
    def lines(self) -> list[str]:
        """All so far."""
        with self._path.open() as file:
            file.seek(self._read)
            whole, end, _ = file.read().rpartition("\n")
        if end:
            self._read += len(whole.encode()) + 1
            self._lines += [line[:-2] for line in whole.split("\n") if line.endswith(" .")]
        return self._lines
