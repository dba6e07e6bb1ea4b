"""A store in these tests does in one transaction what it would divide by time."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from solarwind.store import delayed, reading


@pytest.fixture(autouse=True, scope="session")
def no_transaction_ends_because_its_time_is_up() -> Iterator[None]:
    """Else how many events one of them trims or releases would depend on how busy the machine is. Tests of the limits
    themselves set them."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(reading, "_TRIM_S", 60.0)
        patch.setattr(delayed, "RELEASE_S", 60.0)
        yield
