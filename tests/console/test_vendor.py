"""What the console has of others is what the lock says, with its licence and without an address."""

from __future__ import annotations

import gzip
import json
import re

from .vendoring import LOCK, PACKAGES, TOOLS, VENDOR, digest

LOCKED = json.loads(LOCK.read_text())
PAGE_BYTES = 100 << 10  # compressed: all that the page loads


def test_each_file_is_the_one_of_the_lock_and_there_is_no_other() -> None:
    kept = [locked for name, locked in LOCKED.items() if name not in TOOLS]
    listed = {file: each for locked in kept for file, each in locked["files"].items()}
    there = {path.name: digest(path.read_bytes()) for path in VENDOR.iterdir() if path != LOCK}
    assert there == listed


def test_the_lock_has_each_package_in_its_version_with_licence_and_integrity() -> None:
    assert {name: each["version"] for name, each in LOCKED.items()} == {
        name: each.version for name, each in PACKAGES.items()
    }
    for name, each in LOCKED.items():
        assert each["licence"] in ("MIT", "Apache-2.0", "MPL-2.0"), name
        assert re.fullmatch(r"sha512-[A-Za-z0-9+/]{86}==", each["integrity"]), name
        assert name in TOOLS or any(file.endswith(".LICENSE") for file in each["files"]), name
    assert "://" not in LOCK.read_text()


def test_modules_import_only_what_is_here() -> None:
    for path in VENDOR.glob("*.js"):
        for imported in re.findall(r'from ?"([^"]+)"', path.read_text()):
            assert imported.startswith("./"), (path.name, imported)
            assert (VENDOR / imported).is_file(), (path.name, imported)


def test_the_whole_page_is_light() -> None:
    files = [each for each in VENDOR.parent.rglob("*") if each.suffix in (".js", ".css", ".html", ".svg")]
    assert sum(len(gzip.compress(each.read_bytes(), 9)) for each in files) < PAGE_BYTES


def test_the_page_says_at_once_which_modules_it_needs() -> None:
    """Else a browser asks for each only when it has read who imports it."""
    console = VENDOR.parent
    named = set(re.findall(r'rel="modulepreload" href="([^"]+)"', (console / "index.html").read_text()))
    assert named | {"main.js"} == {each.relative_to(console).as_posix() for each in console.rglob("*.js")}


def test_each_module_of_the_page_is_small() -> None:
    for path in VENDOR.parent.rglob("*.js"):
        assert path.parent == VENDOR or len(path.read_text().splitlines()) <= 300, path.name
