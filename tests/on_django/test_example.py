"""`examples/django_shop`, which is the code of `docs/DJANGO.md`: its tests, its servers, and its service."""

from __future__ import annotations

import re
import shutil
import signal
from pathlib import Path
from typing import Any

import httpx
import pytest

from ports import Port

from .project import A_WHILE_S, Project, eventually

ROOT = Path(__file__).parent.parent.parent
SHOP = ROOT / "examples" / "django_shop"
PAGE = ROOT / "docs" / "DJANGO.md"


@pytest.fixture
def shop(tmp_path: Path) -> Project:
    """Return a copy of the example, with its tables."""
    project = Project(tmp_path / "unused")
    project.folder = tmp_path / "shop"
    shutil.copytree(SHOP, project.folder, ignore=shutil.ignore_patterns("*.db*", "__pycache__"))
    project.settings = "shop.settings"
    return project.migrated()


def test_each_program_of_the_page_is_a_part_of_the_example() -> None:
    """The paragraph before it names its file; the one after another block of the same file need not."""
    text, found = PAGE.read_text(), 0
    for block in re.finditer(r"^```python\n(.*?)^```$", text, re.MULTILINE | re.DOTALL):
        before = text[: block.start()]
        named = re.findall(r"`([\w/]+\.py)`", before.rpartition("\n```")[2])
        assert named, block[1]
        assert block[1] in (SHOP / named[-1]).read_text(), f"{named[-1]}: {block[1]}"
        found += 1
    assert found >= 8


@pytest.mark.long
def test_the_tests_of_the_example_pass_with_djangos_runner_and_with_pytest(shop: Project) -> None:
    done = shop.manage("test", "-v", "1")
    assert done.returncode == 0, done.stderr
    assert "Ran 3 tests" in done.stderr
    options = ("-q", "-p", "no:cacheprovider", "--ds=shop.settings", "orders/test_with_pytest.py")
    tested = shop.module("pytest", *options)
    if "No module named pytest" not in tested.stderr:  # it is not beside every Django
        assert tested.returncode == 0, tested.stdout + tested.stderr
        assert "2 passed" in tested.stdout
    assert shop.manage("makemigrations", "--check").returncode == 0


def order(port: int, number: int) -> dict[str, Any]:
    found = httpx.get(f"http://127.0.0.1:{port}/orders/{number}", timeout=A_WHILE_S)
    return dict(found.json()) if found.status_code == 200 else {}


def up(port: int) -> bool:
    try:
        httpx.get(f"http://127.0.0.1:{port}/", timeout=A_WHILE_S)
    except httpx.TransportError:
        return False
    return True


def place(port: int, number: int) -> None:
    for _ in range(2):
        placed = httpx.put(f"http://127.0.0.1:{port}/orders/{number}", json={"product": "lamp"}, timeout=A_WHILE_S)
        assert placed.status_code == 202, placed.text
    assert httpx.get(f"http://127.0.0.1:{port}/orders/{number}/seen", timeout=A_WHILE_S).status_code == 202


DONE = {"number": 7, "product": "lamp", "confirmed": 1, "mailed": 1, "seen": 1}


@pytest.mark.long
def test_runserver_alone_does_all_of_it(shop: Project) -> None:
    port = Port()
    server = shop.begin("manage.py", "runserver", str(port.number))
    try:
        eventually(lambda: up(port.number), "runserver")
        place(port.number, 7)
        eventually(lambda: order(port.number, 7) == DONE, "the handlers")
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(A_WHILE_S)
    assert "Traceback" not in shop.output


@pytest.mark.long
def test_with_a_dispatcher_of_their_own_uvicorn_fires_and_the_service_handles(shop: Project) -> None:
    dispatcher, port = Port(), Port()
    where = {"SOLARWIND_URL": f"ws://127.0.0.1:{dispatcher.number}"}
    running = [shop.begin("manage.py", "solarwind", "serve", "--port", str(dispatcher.number), **where)]
    try:
        eventually(lambda: shop.manage("solarwind", "topics", **where).returncode == 0, "the dispatcher")
        assert shop.manage("solarwind", "run", "--until-settled", **where).returncode == 0
        serving = ("-m", "uvicorn", "shop.asgi:application", "--port", str(port.number))
        running.append(shop.begin(*serving, **where))
        eventually(lambda: up(port.number), "uvicorn")
        place(port.number, 7)
        assert order(port.number, 7) == DONE | {"confirmed": 0, "mailed": 0, "seen": 0}
        running.append(shop.begin("manage.py", "solarwind", "run", **where))
        eventually(lambda: order(port.number, 7) == DONE, "the service")
    finally:
        for each in reversed(running):
            each.send_signal(signal.SIGTERM)
            each.wait(A_WHILE_S)
    assert running[2].returncode == 0
    assert "Traceback" not in shop.output
