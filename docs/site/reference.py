"""The directive `public`, which documents a public class or function, or all of a module, from its docstrings.

The docstrings are Markdown, so what they say is put into directives of the Python domain as it stands.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docutils import nodes
from docutils.statemachine import StringList
from public_api import Name, public_names
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util.docutils import SphinxDirective

NAMES = public_names()
DIRECTIVE = re.compile(r"^```\{public\} ([\w.]+)\n```$", re.MULTILINE)


class Public(SphinxDirective):
    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        found = described(self.arguments[0])
        if not found:
            raise self.error(f"expected a public class, function or module, got {self.arguments[0]}: name another")
        self.env.note_dependency(str(Path(__file__).with_name("public_api.py")))
        node = nodes.Element()
        text = markdown(found)
        self.state.nested_parse(StringList(text.splitlines(), self.arguments[0]), self.content_offset, node)
        return node.children


def described(of: str) -> list[Name]:
    """Return a name and its members, or all names of a module."""
    in_module = [each for each in NAMES if each.module == of]
    return in_module or [each for each in NAMES if f"{each.full}.".startswith(f"{of}.")]


def markdown(found: list[Name]) -> str:
    """Return the directives of names; a class has its members in it."""
    lines, within, fields = [], "", ""
    for each in found:
        if each.kind == "attribute" and f"{each.path.rpartition('.')[2]}: " in fields:
            continue  # the signature of its class has it
        if "." not in each.path:
            fields = each.signature
            if within:
                lines += [":::::", ""]
            within = each.path
            lines += directive(each, ":::::")
            if each.kind == "function":
                lines += [":::::", ""]
                within = ""
        else:
            lines += [*directive(each, "::::"), "::::", ""]
    return "\n".join([*lines, ":::::" if within else ""])


def directive(name: Name, fence: str) -> list[str]:
    """Return the lines of a directive, without its end."""
    shown = name.path.rpartition(".")[2]
    typed = name.kind in ("property", "attribute") and name.signature.startswith(": ")
    lines = [f"{fence}{{py:{name.kind}}} {shown}{'' if typed else name.signature}", f":module: {name.module}"]
    if typed:
        type_, _, value = name.signature[2:].partition(" = ")
        lines += [f":type: {type_}"] + ([f":value: {value}"] if value else [])
    if name.is_async:
        lines.append(":async:")
    return [*lines, "", name.doc, ""]


def resolve(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.Node) -> nodes.Node | None:
    """Find a type that a signature names without its module, where there is one of that name."""
    if node.get("refdomain") != "py":
        return None
    last = node["reftarget"].rpartition(".")[2]
    there = {each.full for each in NAMES if each.kind in ("class", "exception") and each.path == last}
    if len(there) != 1 or node.get("refspecific"):
        return None
    return env.domains.python_domain.resolve_xref(env, node["refdoc"], app.builder, "obj", there.pop(), node, content)


def expand(text: str) -> str:
    """Return a page with its directives replaced by plain Markdown, for those who read the sources."""

    def plain(found: re.Match[str]) -> str:
        return "\n\n".join(f"`{each.line}`\n\n{each.doc}".strip() for each in described(found[1]))

    return DIRECTIVE.sub(plain, text)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_directive("public", Public)
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
