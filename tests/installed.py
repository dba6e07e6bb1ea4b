"""Install what is in `dist/` as its users would, and use it: `python installed.py DIST FOLDER`.

With pip the wheel, and the source distribution; with uv the wheel on every Python that it finds here.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

VERSIONS = ("3.11", "3.12", "3.13", "3.14")
ROOT = Path(__file__).parents[1]
PYENV = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()  # whose versions uv does not look for
PATHS = [*map(str, PYENV.glob("versions/3.1[1-9].*/bin")), os.environ["PATH"]]
ENVIRONMENT = os.environ | {
    "PATH": os.pathsep.join(PATHS),
    "UV_PYTHON_DOWNLOADS": "never",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
}


def do(*command: str | Path, folder: Path | None = None) -> str:
    over = subprocess.run(list(map(str, command)), capture_output=True, text=True, cwd=folder, env=ENVIRONMENT)
    if over.returncode:
        sys.exit(f"{' '.join(map(str, command))} failed:\n{over.stdout}{over.stderr}")
    return over.stdout.strip()


def use(environment: Path) -> None:
    """Run the first program of the README, and the command."""
    python = environment / "bin" / "python"
    work = environment / "work"
    work.mkdir()
    printed = do(python, ROOT / "tests" / "readme_example.py", ROOT / "README.md", folder=work)
    assert printed == "encoding cat.mov", printed
    print(f"{environment.name}: {do(environment / 'bin' / 'solarwind', '--version')} on {do(python, '--version')}")


def main(dist: Path, folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    (wheel,), (source,) = dist.glob("*.whl"), dist.glob("*.tar.gz")
    for name, what in (("pip-wheel", wheel), ("pip-sdist", source)):
        environment = folder / name
        do(sys.executable, "-m", "venv", environment)
        do(environment / "bin" / "pip", "install", "--quiet", what)
        use(environment)
    uv = Path(sys.executable).parent / "uv"
    for version in VERSIONS:
        found = subprocess.run([uv, "python", "find", version], capture_output=True, text=True, env=ENVIRONMENT)
        if found.returncode:
            print(f"uv-{version}: there is no Python {version} here")
            continue
        environment = folder / f"uv-{version}"
        do(uv, "venv", "--quiet", "--python", found.stdout.strip(), environment)
        do(uv, "pip", "install", "--quiet", "--python", environment / "bin" / "python", wheel)
        use(environment)


if __name__ == "__main__":
    main(*(Path(each).absolute() for each in sys.argv[1:]))
