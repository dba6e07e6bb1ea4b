"""What holds for all tests of stores."""

import pytest

from solarwind.store import reading


@pytest.fixture(autouse=True)
def _patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction of trimming ends by its size here, not by how fast the machine is."""
    monkeypatch.setattr(reading, "_TRIM_S", 30.0)
