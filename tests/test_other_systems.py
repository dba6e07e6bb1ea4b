"""Other systems than Linux: everything imports, what can work does, and what cannot says so in a sentence."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from sampling import some

HERE = Path(__file__).parent
SYSTEMS = ["darwin", "win32"]
HANDLES = """
    import asyncio, sys
    import solarwind

    for name in solarwind.__all__:
        getattr(solarwind, name)
    got = []

    async def main(url):
        wind = solarwind.SolarWind(url)
        wind.on("T", purpose="p")(got.append)
        async with wind:
            await wind.fire("T", 7)
            await wind.settled(60)

    asyncio.run(main(sys.argv[1]))
    print(got)
"""


def run(system: str, program: str, *arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(HERE / "other_system.py"), system, program, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=folder, stdin=subprocess.DEVNULL)


@pytest.fixture
def handles(tmp_path: Path) -> str:
    path = tmp_path / "handles.py"
    path.write_text("\n".join(line.removeprefix("    ") for line in HANDLES.splitlines()))
    return str(path)


@pytest.mark.parametrize("system", SYSTEMS)
def test_every_public_name_is_there_and_events_in_memory_are_handled(system: str, handles: str, tmp_path: Path) -> None:
    over = run(system, handles, "memory://", folder=tmp_path)
    assert (over.returncode, over.stdout) == (0, "[7]\n"), over.stderr


def test_a_store_in_a_file_is_for_macos_too(handles: str, tmp_path: Path) -> None:
    over = run("darwin", handles, "sqlite:///wind.db", folder=tmp_path)
    assert (over.returncode, over.stdout) == (0, "[7]\n"), over.stderr


@pytest.mark.parametrize(
    ("system", "url", "says"),
    [
        (
            "win32",
            "sqlite:///wind.db",
            "expected Linux or macOS for a sqlite:// URL, got win32: use memory:// or a server",
        ),
        ("win32", "unix:///run/wind.sock", "expected Linux for a unix:// URL, got win32: name a server at a port"),
        ("darwin", "unix:///run/wind.sock", "expected Linux for a unix:// URL, got darwin: name a server at a port"),
    ],
)
def test_a_url_that_needs_another_system_says_so(
    system: str, url: str, says: str, handles: str, tmp_path: Path
) -> None:
    over = run(system, handles, url, folder=tmp_path)
    assert over.returncode == 1
    assert says in over.stderr.splitlines()[-1]


@pytest.mark.parametrize("system", some(["darwin"], SYSTEMS))
def test_the_commands_say_what_they_need(system: str, tmp_path: Path) -> None:
    (tmp_path / "app.py").write_text("from solarwind import SolarWind\nwind = SolarWind('memory://')\n")
    assert "solarwind" in run(system, "solarwind", "--help", folder=tmp_path).stdout
    refused = {
        ("run", "app:wind", "--workers", "2"): "expected Linux for workers that are watched, got",
        ("run", "app:wind", "--reload"): "expected Linux for --reload, got",
        ("serve", "--socket", "wind.sock", "--data", "wind.db"): "expected Linux ",
    }
    if system == "win32":
        for command in (("serve",), ("purposes", "--url", "sqlite:///wind.db"), ("token", "list"), ("check",)):
            refused[command] = "expected Linux or macOS for "
    for command, says in refused.items():
        over = run(system, "solarwind", *command, folder=tmp_path)
        assert over.returncode == 1, (command, over)
        (line,) = over.stderr.splitlines()
        assert line.startswith(f"solarwind: {says}"), command
