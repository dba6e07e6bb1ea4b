"""A clock that a test sets for processes that it starts: a library that is preloaded into them, see `wrong_clock.c`."""

from __future__ import annotations

import struct
import subprocess
import sys
import time
from pathlib import Path
from shutil import which

SOURCE = Path(__file__).with_suffix(".c")
DAY = 24 * 3600
YEARS = 10 * 365 * DAY
CAN = sys.platform == "linux" and sys.maxsize > 1 << 32 and which("gcc") is not None
_LIBRARY = "wrong_clock.so"


class WrongClock:
    """The clock of the processes that are started with `environment`, in seconds by which it is off. The library is in
    the folder that it was made in, and `file` says how the clock is set."""

    def __init__(self, folder: Path, file: Path) -> None:
        self._file = file
        self.environment = {"LD_PRELOAD": str(folder / _LIBRARY), "SOLARWIND_TEST_CLOCK": str(file)}
        self.set(0)

    @staticmethod
    def make(folder: Path) -> None:
        """Make the library."""
        command = ["gcc", "-shared", "-fPIC", "-nostdlib", "-O1", "-Wall", "-o", str(folder / _LIBRARY), str(SOURCE)]
        subprocess.run(command, check=True, capture_output=True, text=True)

    def set(self, wall_s: float, monotonic_s: float = 0.0) -> None:
        """Set the wall clock, and the monotonic one, which is behind where the machine was asleep."""
        with self._file.open("r+b" if self._file.exists() else "wb") as file:
            file.write(struct.pack("=qq", int(wall_s * 1e9), int(monotonic_s * 1e9)))
        self.wall_s = wall_s

    def now(self) -> int:
        """Return the wall clock's time as those processes see it, in ns since 1970."""
        return time.time_ns() + int(self.wall_s * 1e9)
