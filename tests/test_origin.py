"""The name by which a process shows, in events, instances and locks."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from solarwind.origin import program_name


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/usr/bin/solarwind", "solarwind"),
        ("shop.py", "shop.py"),
        ("/app/shop/__main__.py", "shop"),
        ("/lib/solarwind/__main__.py", "solarwind"),
        ("__main__.py", Path.cwd().name),
        ("-c", Path(sys.executable).name),
        ("-m", Path(sys.executable).name),
        ("", Path(sys.executable).name),
    ],
)
def test_a_process_shows_as_its_program_however_that_was_started(path: str, name: str) -> None:
    assert program_name(path) == name
