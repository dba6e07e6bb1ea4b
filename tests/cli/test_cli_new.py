"""`new`: what it makes passes its own tests, and starts by the commands of its README."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ports import Port

from .conftest import Process, call, done, eventually

TEMPLATES = Path(__file__).parents[2] / "src" / "solarwind" / "templates"
NAMES = sorted(each.name for each in TEMPLATES.iterdir())
QUIET = ("-p", "no:cacheprovider", "-p", "no:anyio", "-W", "ignore")
Start = Callable[..., Process]


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    def make(template: str) -> Path:
        answer = done("new", "my-shop", "--template", template)
        assert "cd my-shop" in answer.out
        return tmp_path / "my-shop"

    return make


@pytest.mark.parametrize("template", NAMES)
def test_a_new_project_passes_its_own_tests(made: Callable[[str], Path], template: str) -> None:
    folder = made(template)
    command = [sys.executable, "-m", "pytest", *QUIET]
    over = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert over.returncode == 0, over.stdout + over.stderr
    assert re.search(r"[1-9]\d* passed", over.stdout)


@pytest.mark.parametrize("template", NAMES)
def test_nothing_of_the_template_s_name_is_left(made: Callable[[str], Path], template: str) -> None:
    folder = made(template)
    assert {"README.md", ".gitignore", "pyproject.toml", "requirements.txt"} <= {each.name for each in folder.iterdir()}
    for each in folder.rglob("*"):
        assert not each.is_file() or "project-name" not in each.read_text(), each


def test_a_new_script_handles_what_it_places(made: Callable[[str], Path]) -> None:
    folder = made("script")
    command = [sys.executable, "app.py", "3"]
    over = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert over.stderr.count("mail to ann@example.org") == 3, over.stderr
    assert "3 of lamp, with order 3" in over.stderr
    assert (folder / "my-shop.db").exists()


def test_dev_finds_the_app_of_a_new_project(made: Callable[[str], Path], start: Start) -> None:
    process = start("dev", "--port", "0", cwd=made("script"))
    assert "/console/" in process.read("http://")


def test_a_new_api_takes_orders_and_handles_them(made: Callable[[str], Path], start: Start) -> None:
    port = Port()
    start("app:app", "--port", str(port.number), module="uvicorn", cwd=made("fastapi"))
    order = {"number": 7, "product": "lamp"}

    def is_placed() -> bool:
        try:
            return httpx.put(f"http://127.0.0.1:{port.number}/orders/7", json=order).json() == {"id": "order-7"}
        except httpx.TransportError:
            return False

    eventually(is_placed, "the app to take an order")


@pytest.mark.parametrize("folder", ["my shop", "-x", "ü", "a/..b/.", "x."])
def test_a_folder_whose_name_no_project_may_have_is_refused(folder: str) -> None:
    answer = call("new", "--", folder)
    assert (answer.code, answer.lines) == (1, [])
    assert "expected a folder whose name a Python project may have, such as my-shop" in answer.err


def test_a_folder_that_has_something_in_it_is_left_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "shop").mkdir()
    (tmp_path / "shop" / "mine.txt").write_text("mine")
    (tmp_path / "file").write_text("mine")
    for name in ("shop", "file"):
        answer = call("new", name)
        assert answer.code == 1
        assert f"expected a folder that is not there or empty, got {name!r}: name another" in answer.err
    assert [each.name for each in (tmp_path / "shop").iterdir()] == ["mine.txt"]
