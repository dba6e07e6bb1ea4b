"""Fixtures for tests of a Django project with pytest-django, in its conftest.py:

    from solarwind.testing.django_fixtures import wind, wind_clock

`fired`, `dead` and `advance` are those of every project, and use these two."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from ..contrib.django.service import DjangoSolarWind
    from .django import WindClock


@pytest.fixture
def wind_clock() -> WindClock:
    """Return the clock of `wind`."""
    from .django import WindClock

    return WindClock()


@pytest.fixture
def wind(wind_clock: WindClock) -> Iterator[DjangoSolarWind]:
    """Yield the project's `wind`, running on an empty dispatcher in memory: see `wind_in_memory`."""
    from .django import wind_in_memory

    with wind_in_memory(wind_clock) as wind:
        yield wind
