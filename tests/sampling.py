"""Which of many cases `make test` tries. The others are long: `make test-long` tries them too."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from typing import Any

import pytest


def some(few: Collection[Any], cases: Iterable[Any]) -> list[Any]:
    """Return all cases, with all but the `few` marked as long."""
    all_ = list(cases)
    assert all(each in all_ for each in few), few
    return [each if each in few else _long(each) for each in all_]


def _long(case: Any) -> Any:
    return pytest.param(*(case if isinstance(case, tuple) else (case,)), marks=pytest.mark.long)
