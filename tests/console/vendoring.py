"""The modules of others that the console has in it, and what only looks at it: `python -m console.vendoring`.

It packs each of `PACKAGES` with npm, writes the files that are wanted, with their licence, and what they are into
`vendor.lock`. With the name of one of `TOOLS` and the path of a file it writes that there instead, if it is as the lock
says: axe-core, with which tests look at the pages, ESLint, with which the modules are linted, or AsyncAPI's parser,
with which documents are checked.
"""

from __future__ import annotations

import base64
import hashlib
import json
import subprocess
import sys
import tarfile
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

VENDOR = Path(__file__).parents[2] / "src" / "solarwind" / "console" / "vendor"
LOCK = VENDOR / "vendor.lock"
AXE = "axe-core"
ESLINT = "eslint-linter-browserify"  # ESLint's linter without its command, as one file that needs no other
ASYNCAPI = "@asyncapi/parser"
TOOLS = (AXE, ESLINT, ASYNCAPI)


class Package(NamedTuple):
    """A package, and which file of it becomes which of ours."""

    version: str
    files: dict[str, str]


PACKAGES = {
    "preact": Package("11.2.0", {"dist/preact.mjs": "preact.js", "hooks/dist/hooks.mjs": "hooks.js"}),
    "htm": Package("3.1.1", {"dist/htm.module.js": "htm.js"}),
    "@preact/signals-core": Package("1.14.5", {"dist/signals-core.mjs": "signals-core.js"}),
    "@preact/signals": Package("2.11.4", {"dist/signals.mjs": "signals.js"}),
    AXE: Package("4.14.1", {"axe.min.js": "axe.js"}),
    ESLINT: Package("10.11.0", {"linter.mjs": "eslint.mjs"}),
    ASYNCAPI: Package("3.6.3", {"browser/index.js": "asyncapi.js"}),
}
# There is no import map, which would be inline: so packages are imported as the files that they are here.
IMPORTS = {
    "preact": "./preact.js",
    "preact/hooks": "./hooks.js",
    "@preact/signals-core": "./signals-core.js",
}


def digest(data: bytes) -> str:
    """Return the hash of a file, in the form of npm's `integrity`."""
    return f"sha512-{base64.b64encode(hashlib.sha512(data).digest()).decode()}"


def pack(name: str, folder: Path) -> tuple[Path, str]:
    """Fetch a package, and return its archive and integrity."""
    command = ["npm", "pack", "--json", "--pack-destination", str(folder), f"{name}@{PACKAGES[name].version}"]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    archive = folder / json.loads(done.stdout)[0]["filename"]
    return archive, digest(archive.read_bytes())


def read(archive: Path) -> dict[str, bytes]:
    """Return the files of a package by their paths."""
    with tarfile.open(archive) as tar:
        members = [each for each in tar.getmembers() if each.isfile()]
        return {each.name.partition("/")[2]: tar.extractfile(each).read() for each in members}  # type: ignore[union-attr]


def adapted(data: bytes, name: str) -> bytes:
    """Return a file as it is here: what it imports is a file beside it, and it names no source map."""
    if not name.endswith(".js"):
        return data
    text = data.decode()
    for specifier, file in IMPORTS.items():
        text = text.replace(f'from"{specifier}"', f'from"{file}"')
    text = "\n".join(line for line in text.splitlines() if not line.startswith("//# sourceMappingURL"))
    return f"{text.partition('//# sourceMappingURL')[0].rstrip()}\n".encode()


def vendor() -> None:
    """Write all files, their licences and the lock."""
    lock: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as folder:
        for name, package in PACKAGES.items():
            archive, integrity = pack(name, Path(folder))
            found = read(archive)
            lock[name] = {
                "version": package.version,
                "licence": json.loads(found["package.json"])["license"],
                "integrity": integrity,
                "files": {},
            }
            if name in TOOLS:
                lock[name]["files"] = {ours: digest(found[theirs]) for theirs, ours in package.files.items()}
                continue
            files = {ours: adapted(found[theirs], ours) for theirs, ours in package.files.items()}
            files[f"{name.replace('@', '').replace('/', '-')}.LICENSE"] = found["LICENSE"]
            for ours, data in files.items():
                (VENDOR / ours).write_bytes(data)
                lock[name]["files"][ours] = digest(data)
    LOCK.write_text(json.dumps(lock, indent=1) + "\n")


def fetch(name: str, path: Path) -> None:
    """Write the file of a tool, if it is what the lock says."""
    with tempfile.TemporaryDirectory() as folder:
        archive, integrity = pack(name, Path(folder))
        if integrity != json.loads(LOCK.read_text())[name]["integrity"]:
            raise SystemExit(f"expected {name} as vendor.lock has it, got another: look what it is")
        (theirs,) = PACKAGES[name].files
        path.write_bytes(read(archive)[theirs])


if __name__ == "__main__":
    if sys.argv[1:]:
        fetch(sys.argv[1], Path(sys.argv[2]))
    else:
        vendor()
