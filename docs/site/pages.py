"""What the site needs that the documents do not say themselves: where pages belong, and where links out of docs/ lead.

The documents are read as files too, so their links are those of files. A page that stands for a file outside of docs/
gets its text; links to that file lead to the page.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any, ClassVar

from docutils import nodes
from pygments.lexer import RegexLexer
from pygments.lexers.special import TextLexer
from pygments.token import Comment, Keyword, Number, Text
from reference import expand
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

log = logging.getLogger(__name__)
DOCS = Path(__file__).parent.parent
ROOT = DOCS.parent

# The pages that stand for a file outside of docs/.
STANDS_FOR = {"project/changelog": "CHANGELOG.md", "project/contributing": "CONTRIBUTING.md"}
WIDE = {"COMPARISON"}  # the room of the list of sections is for their tables
PAGE_OF = {ROOT / file: DOCS / f"{page}.md" for page, file in STANDS_FOR.items()} | {
    ROOT / "README.md": DOCS / "index.md",
    DOCS: DOCS / "index.md",
}


class Hex(RegexLexer):
    """Bytes in hexadecimal, with comments, and a line before them that says who sends them."""

    tokens: ClassVar[dict[str, list[tuple[str, object]]]] = {
        "root": [
            (r"#.*", Comment.Single),
            (r"^[<>] .*", Keyword),
            (r"\b[0-9a-f]{2}\b", Number.Hex),
            (r"\s+|.", Text),
        ]
    }


def page_text(docname: str, text: str) -> str:
    """Return the Markdown of a page of the site: that of the file it stands for, with links that lead within the
    site."""
    page = DOCS / f"{docname}.md"
    if docname in STANDS_FOR:
        file = ROOT / STANDS_FOR[docname]
        return relinked(file.read_text(), file.parent, page.parent)
    return relinked(text, page.parent, page.parent)


def relinked(text: str, written_in: Path, read_in: Path) -> str:
    """Return it with the links to files as seen from another folder; a link to a folder becomes its text."""

    def link(found: re.Match[str]) -> str:
        label, target = found[1], found[2]
        if re.match(r"[a-z]+:|#", target):
            return found[0]
        path, _, anchor = target.partition("#")
        there = Path(os.path.normpath(written_in / path))
        there = PAGE_OF.get(there, there)
        if there.is_dir():
            return label
        return f"[{label}]({os.path.relpath(there, read_in)}{'#' if anchor else ''}{anchor})"

    parts = re.split(r"(^```.*?^```$)", text, flags=re.MULTILINE | re.DOTALL)  # what is in a fence is no link
    parts[::2] = [re.sub(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)\s]+)\)", link, part) for part in parts[::2]]
    return "".join(parts)


def read(app: Sphinx, docname: str, source: list[str]) -> None:
    source[0] = page_text(docname, source[0])


def widen(app: Sphinx, doctree: nodes.document) -> None:
    if app.env.docname in WIDE:
        app.env.metadata[app.env.docname]["hide-toc"] = "true"


def changed(app: Sphinx, env: BuildEnvironment, added: set[str], changed: set[str], removed: set[str]) -> list[str]:
    """The files that a page stands for are not watched by Sphinx."""
    return [page for page in STANDS_FOR if page in env.found_docs]


def check_places(app: Sphinx, env: BuildEnvironment) -> None:
    placed = {each for pages in env.toctree_includes.values() for each in pages}
    for page in sorted(env.found_docs - placed - {app.config.root_doc}):
        log.warning(
            "docs/%s.md is in no toctree: name it in docs/index.md, in the list and the toctree of Tutorial, How-to "
            "guides, Reference, Explanation or The project",
            page,
            type="toc",
            subtype="no_place",
        )


def write_sources(app: Sphinx, error: Exception | None) -> None:
    """Give those who read the Markdown of the site, by llms.txt above all, what its pages say."""
    for page in app.env.found_docs if error is None else ():
        written = Path(app.outdir, "_sources", f"{page}.md")
        written.write_text(expand(page_text(page, written.read_text())))


def setup(app: Sphinx) -> dict[str, Any]:
    app.connect("source-read", read)
    app.connect("doctree-read", widen)
    app.connect("env-get-outdated", changed)
    app.connect("env-check-consistency", check_places)
    app.connect("build-finished", write_sources, priority=400)  # before llms-full.txt is made of them
    app.add_lexer("hex", Hex)
    app.add_lexer("conf", TextLexer)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
