"""What is checked of the site of the documents after it was built: docs/site/check.py."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

CHECK = Path(__file__).parents[1] / "docs" / "site" / "check.py"


def check(site: Path, body: str, style: str = "") -> tuple[int, str]:
    (site / "pages").mkdir()
    (site / "pages" / "there.html").write_text('<p id="here">there</p>')
    (site / "file.txt").write_text("text")
    (site / "style.css").write_text(style)
    (site / "index.html").write_text(f"<html><body>{body}</body></html>")
    ended = subprocess.run([sys.executable, CHECK, site], capture_output=True, text=True, check=False)
    return ended.returncode, ended.stderr


@pytest.mark.parametrize(
    "body",
    [
        '<a href="pages/there.html#here">there</a>',
        '<a href="#top" id="top">top</a>',
        '<a href="file.txt">text</a>',
        '<a href="https://www.example.org/a?b=c#d">elsewhere</a>',
        '<a href="http://127.0.0.1:7400/console">here</a>',
        '<img src="data:image/png;base64,AAAA">',
        '<link rel="stylesheet" href="style.css">',
    ],
)
def test_a_site_without_faults_passes(body: str, tmp_path: Path) -> None:
    assert check(tmp_path, body, "p { background: url(file.txt) }") == (0, "")


@pytest.mark.parametrize(
    ("body", "word"),
    [
        ('<script src="https://cdn.example.org/a.js"></script>', "cdn.example.org"),
        ('<img src="//cdn.example.org/a.png">', "cdn.example.org"),
        ('<link rel="stylesheet" href="https://fonts.example.org/css">', "fonts.example.org"),
        ('<link rel="preconnect" href="https://fonts.example.org">', "fonts.example.org"),
        ('<p style="background: url(https://cdn.example.org/a.png)">', "cdn.example.org"),
        ('<a href="pages/gone.html">gone</a>', "gone.html"),
        ('<a href="pages/there.html#gone">gone</a>', "#gone"),
        ('<a href="../above.html">above</a>', "above.html"),
        ('<a href="pages">a folder</a>', "pages"),
        ('<a href="htps://example.org">wrong</a>', "htps"),
        ('<a href="https://example">wrong</a>', "https://example"),
        ('<a href="https://example.org/a b">wrong</a>', "spaces"),
    ],
)
def test_each_kind_of_fault_is_found(body: str, word: str, tmp_path: Path) -> None:
    status, said = check(tmp_path, body)
    assert status == 1
    assert said.startswith("index.html: expected ")
    assert word in said
    assert said.count("\n") == 1


def test_a_font_from_elsewhere_is_found(tmp_path: Path) -> None:
    status, said = check(tmp_path, "", "@import 'https://fonts.example.org/a.css';")
    assert (status, "fonts.example.org" in said) == (1, True)
