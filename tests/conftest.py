"""What all tests share: nothing is left behind, and the machine's own settings do not count."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from solarwind.logs import limited

# How fast an example is made or tried depends on what else the machine does. A run of all tests tries the same examples
# each time; `make test-long` tries others, and more.
_PATIENT: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("tests", max_examples=50, derandomize=True, **_PATIENT)
settings.register_profile("long", max_examples=1_000, **_PATIENT)
settings.load_profile("tests")


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL in the environment would send the tests' events to somebody's real dispatcher."""
    monkeypatch.delenv("SOLARWIND_URL", raising=False)


@pytest.fixture(autouse=True)
def nothing_logged() -> None:
    """What another test logged is no reason to leave a line out."""
    limited.flush()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output sendable: xdist sends reports between processes as UTF-8, and some tests log other text."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
