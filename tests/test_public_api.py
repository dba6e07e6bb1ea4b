"""The public names: as docs/site/public_api.txt has them, all on the page API.md, and no change of one without a line
in the changelog."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT / "docs" / "site"))

import public_api  # noqa: E402

BEFORE = [
    "solarwind.Retry(attempts: int = 12)",
    "solarwind.Retry.wait: float",
    "async solarwind.SolarWind.start() -> None",
]


def test_the_public_names_are_those_that_are_listed() -> None:
    complaint = public_api.complaint()
    assert not complaint, complaint


def test_a_name_that_is_gone_new_or_called_otherwise_is_a_change() -> None:
    now = [
        "solarwind.Retry(attempts: int = 13)",
        "async solarwind.SolarWind.start() -> None",
        "solarwind.testing.shake()",
    ]
    assert public_api.changed_names(BEFORE, now) == ["Retry", "Retry.wait", "shake"]
    assert public_api.changed_names(BEFORE, BEFORE) == []


@pytest.mark.parametrize(
    ("section", "left"),
    [
        ("- Nothing.", ["Retry.wait", "shake"]),
        ("- `Retry` waits longer, and `shake()` is new.", []),
        ("- `wind.wait` of `solarwind.testing.shake()`.", []),
        ("- Retry and shake without backticks.", ["Retry.wait", "shake"]),
        ("- `wait`.\n\n## [0.1.0]\n\n- `shake`", ["shake"]),
    ],
)
def test_the_changelog_names_what_changed_under_unreleased(section: str, left: list[str]) -> None:
    changelog = f"# Changelog\n\n## [Unreleased]\n\n### Added\n\n{section}\n\n## [0.0.1]\n\n- `Retry`, `shake`\n"
    assert public_api.unnamed(["Retry.wait", "shake"], changelog) == left


def test_only_a_new_line_of_the_changelog_names_a_change() -> None:
    """The section is long, and names nearly everything already."""
    before = "## [Unreleased]\n\n- `Retry` is there.\n"
    now = "# Changelog\n\n## [Unreleased]\n\n- `Retry` is there.\n- `shake()` is new.\n"
    assert public_api.unnamed(["Retry.wait", "shake"], now, before) == ["Retry.wait"]


def test_all_public_names_are_on_the_page() -> None:
    page = (ROOT / "docs" / "API.md").read_text()
    named = re.findall(r"^```\{public\} ([\w.]+)$", page, re.MULTILINE)
    for name in public_api.public_names():
        top = f"{name.module}.{name.path.partition('.')[0]}"
        places = [each for each in named if each in (top, name.module)]
        assert len(places) == 1, f"docs/API.md has {top} {len(places)} times: put ```{{public}} {top} into one section"


def test_all_public_classes_functions_and_methods_are_documented() -> None:
    for name in public_api.public_names():
        assert name.doc or name.kind == "attribute", f"{name.full} has no docstring"
