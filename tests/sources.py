"""The modules of the package, whose text some tests read."""

from __future__ import annotations

from pathlib import Path

import solarwind

ROOT = Path(solarwind.__file__).parent
TEMPLATES = ROOT / "templates"  # programs of their own, which `solarwind new` copies
MODULES = sorted(set(ROOT.rglob("*.py")) - set(TEMPLATES.rglob("*.py")))
