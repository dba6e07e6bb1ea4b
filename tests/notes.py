"""What a process notes in a file, read while it goes on."""

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
            self._lines += whole.split("\n")
        return self._lines
