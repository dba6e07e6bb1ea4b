"""The packages of npm that tests meet a server with, as `make test` has them in `.venv/npm`."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

NODE = shutil.which("node")
NPM = Path(__file__).parents[2] / ".venv" / "npm"
needs_npm = pytest.mark.skipif(
    NODE is None or not (NPM / "node_modules").is_dir(),
    reason="needs Node, and packages of npm as `make test` has them",
)
