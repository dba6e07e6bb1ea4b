"""What Sphinx does not check of the site that it built: nothing is loaded from elsewhere, links within it lead
somewhere, and links out of it could. Prints what is wrong, one line each.

    python docs/site/check.py build/docs
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADING = {"script", "img", "iframe", "source", "video", "audio", "embed"}
LINKS_OF_NO_LOAD = {"next", "prev", "index", "search", "canonical", "author", "copyright"}
HOST = re.compile(r"(?:[a-z0-9](?:[a-z0-9-]*[a-z0-9])?\.)+[a-z]{2,}|127\.0\.0\.1|localhost", re.IGNORECASE)
SCHEMES = {"http", "https", "mailto"}


class Page(HTMLParser):
    """The ids of a page, the addresses that it loads, and those that it links to."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.ids: set[str] = set()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.ids |= {given[name] for name in ("id", "name") if name in given}
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
        elif tag == "link" and not LINKS_OF_NO_LOAD & {*given.get("rel", "").split()}:
            self.loads.append(given.get("href", ""))
        elif tag in LOADING and "src" in given:
            self.loads.append(given["src"])
        self.loads += re.findall(r"url\(['\"]?([^'\")]+)", given.get("style", ""))


def faults(site: Path) -> Iterator[str]:
    """Yield what is wrong with a site, a sentence each."""
    for path in sorted(site.rglob("*.html")):
        name, page = path.relative_to(site), page_of(path)
        for address in page.loads:
            if is_foreign(address):
                yield f"{name}: expected nothing to be loaded from elsewhere, got {address}: put it into the site"
        for address in page.links:
            wrong = wrong_outside(address) if is_foreign(address) else wrong_inside(address, path, site)
            if wrong:
                yield f"{name}: {wrong}"
    for path in sorted(site.rglob("*.css")):
        for address in re.findall(r"(?:url\(|@import\s+)['\"]?([^'\")]+)", path.read_text()):
            if is_foreign(address):
                yield f"{path.relative_to(site)}: expected no font or style from elsewhere, got {address}"
    listed = site / "llms.txt"
    for address in re.findall(r"\]\(([^)]+)\)", listed.read_text()) if listed.exists() else ():
        if wrong := wrong_inside(address, listed, site):
            yield f"llms.txt: {wrong}"


def is_foreign(address: str) -> bool:
    parts = urlsplit(address)
    return bool(parts.netloc or parts.scheme) and parts.scheme != "data"


def wrong_outside(address: str) -> str:
    """Return what is wrong with an address elsewhere, as far as it can be said without asking there."""
    parts = urlsplit(address)
    if parts.scheme not in SCHEMES:
        return f"expected a link by https, got {address}: correct it"
    if parts.scheme != "mailto" and not HOST.fullmatch(parts.hostname or ""):
        return f"expected a link to a host, got {address}: correct it"
    return f"expected a link without spaces and quotes, got {address}" if re.search(r"[\s\"'<>`]", address) else ""


def wrong_inside(address: str, page: Path, site: Path) -> str:
    parts = urlsplit(address)
    there = (page.parent / unquote(parts.path)).resolve() if parts.path else page.resolve()
    if not there.is_relative_to(site.resolve()) or not there.is_file():
        return f"expected a link to a page of the site, got {address}: correct it"
    if parts.fragment and there.suffix == ".html" and unquote(parts.fragment) not in page_of(there).ids:
        return f"expected a link to a section, got {address}, which its page does not have: correct it"
    return ""


@cache
def page_of(path: Path) -> Page:
    return Page(path.read_text())


def main() -> int:
    site = Path(sys.argv[1])
    found = list(faults(site))
    for fault in found:
        print(fault, file=sys.stderr)
    if not found:
        print(f"the site is in {site}: open {site}/index.html")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
