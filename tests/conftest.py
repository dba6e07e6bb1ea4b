"""What all tests share: nothing is left behind, and the machine's own settings do not count."""

from __future__ import annotations

import gc
import signal
from collections.abc import Generator, Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

from breaking import Once, breaking
from server.place import Host
from solarwind.logs import limited

# How fast an example is made or tried depends on what else the machine does. A run of all tests tries the same examples
# each time, and so does `make test-long`, which tries more; `make explore` tries others.
_PATIENT: Any = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}
settings.register_profile("tests", max_examples=25, derandomize=True, **_PATIENT)
settings.register_profile("long", max_examples=1_000, derandomize=True, **_PATIENT)
settings.register_profile("explore", max_examples=1_000, **_PATIENT)
settings.load_profile("tests")


# A shell has its jobs in the background ignore SIGINT, and so would all programs that tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


# Thousands of tests are as many objects that last, which a collection of garbage would go through again and again.
gc.disable()


def pytest_collection_finish() -> None:
    gc.freeze()
    gc.enable()


@pytest.fixture(autouse=True)
def no_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """A URL in the environment would send the tests' events to somebody's real dispatcher."""
    monkeypatch.delenv("SOLARWIND_URL", raising=False)


@pytest.fixture(autouse=True)
def nothing_logged() -> None:
    """What another test logged is no reason to leave a line out."""
    limited.flush()


@pytest.fixture
def once(monkeypatch: pytest.MonkeyPatch) -> Once:
    """Make a method raise what nobody expects, the next time it is called."""
    return breaking(monkeypatch)


@pytest.fixture(scope="session")
def host() -> Iterator[Host]:
    """A process that runs each test's own servers, and that nobody may harm."""
    host = Host()
    yield host
    host.end()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make captured output sendable: xdist sends reports between processes as UTF-8, and some tests log other text."""
    report = yield
    report.sections = [(name, text.encode("utf-8", "backslashreplace").decode()) for name, text in report.sections]
    return report
