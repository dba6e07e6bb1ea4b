"""`new`: what it makes passes its own tests, and starts by the commands of its README."""

from __future__ import annotations

import compileall
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from ports import Port
from sampling import some
from solarwind.extras import missing_extra, requirement

from .conftest import Process, call, done, eventually

TEMPLATES = Path(__file__).parents[2] / "src" / "solarwind" / "templates"
NAMES = sorted(each.name for each in TEMPLATES.iterdir())
QUIET = ("-p", "no:cacheprovider", "-p", "no:anyio", "-W", "ignore")
Start = Callable[..., Process]


@pytest.fixture
def made(tmp_path: Path) -> Callable[[str], Path]:
    def make(template: str) -> Path:
        answer = done("new", "my-shop", "--template", template)
        assert "my-shop is made." in answer.out
        assert "\n    cd my-shop\n" in answer.out
        assert "    pip install -r requirements.txt\n" in answer.out
        return tmp_path / "my-shop"

    return make


@pytest.mark.parametrize("template", some(["script"], NAMES))
def test_a_new_project_passes_its_own_tests(made: Callable[[str], Path], template: str) -> None:
    folder = made(template)
    command = ["manage.py", "test"] if template == "django" else ["-m", "pytest", *QUIET]
    over = subprocess.run([sys.executable, *command], cwd=folder, capture_output=True, text=True, timeout=300)
    assert over.returncode == 0, over.stdout + over.stderr
    assert re.search(r"[1-9]\d* passed|Ran [1-9]\d* tests", over.stdout + over.stderr)


@pytest.mark.parametrize("template", NAMES)
def test_nothing_of_the_template_s_name_is_left(made: Callable[[str], Path], template: str) -> None:
    folder = made(template)
    assert {"README.md", ".gitignore", "pyproject.toml", "requirements.txt"} <= {each.name for each in folder.iterdir()}
    for each in folder.rglob("*"):
        assert not each.is_file() or "project-name" not in each.read_text(), each


ORIGINS = {
    "": "solarwind[server]",
    "no JSON": "solarwind[server]",
    '{"url": "file:///my%20wind", "dir_info": {}}': "solarwind[server] @ file:///my%20wind",
    '{"url": "file:///my%20wind", "dir_info": {"editable": true}}': "-e file:///my%20wind[server]",
    '{"url": "file:///x/solarwind-0.1.0-py3-none-any.whl", "archive_info": {}}': "solarwind[server] @ file:///x/solarwind-"
    "0.1.0-py3-none-any.whl",
    '{"url": "https://git.example/w", "vcs_info": {"vcs": "git", "commit_id": "4a"}, "subdirectory": "py"}': "solarwind"
    "[server] @ git+https://git.example/w@4a#subdirectory=py",
}


@pytest.mark.parametrize("origin", ORIGINS)
def test_solarwind_is_required_from_where_it_was_installed(
    made: Callable[[str], Path], origin: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    installed = tmp_path / "site" / "solarwind-0.1.0.dist-info"
    installed.mkdir(parents=True)
    (installed / "METADATA").write_text("Name: solarwind\nVersion: 0.1.0\n")
    (installed / "direct_url.json").write_text(origin)
    monkeypatch.syspath_prepend(installed.parent)
    assert (made("script") / "requirements.txt").read_text() == f"{ORIGINS[origin]}\npytest\n"
    pip = f"{shlex.quote(sys.executable)} -m pip install "
    assert str(missing_extra("server", "a server")).endswith(pip + shlex.join(requirement("server")))


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
    process = start("app:app", "--port", str(port.number), module="uvicorn", cwd=made("fastapi"))
    eventually(lambda: _placed(f"http://127.0.0.1:{port.number}/orders/7"), "the app to take an order")
    process.read_err("mail about order 7")


def _placed(address: str) -> bool:
    try:
        return httpx.put(address, json={"number": 7, "product": "lamp"}).status_code == 202
    except httpx.TransportError:
        return False


def test_a_new_django_project_takes_orders_and_handles_them(made: Callable[[str], Path], start: Start) -> None:
    folder, port = made("django"), Port()
    subprocess.run([sys.executable, "manage.py", "migrate"], cwd=folder, check=True, capture_output=True)
    command = [sys.executable, "manage.py", "runserver", "--noreload", str(port.number)]
    address = f"http://127.0.0.1:{port.number}/orders/7"
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as serving:
        try:
            eventually(lambda: _placed(address), "the app to take an order")
            eventually(lambda: httpx.get(address).json()["confirmed"], "the order to be confirmed")
        finally:
            serving.terminate()


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


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "lost").symlink_to(tmp_path / "nowhere")
    for name, why in [("file/shop", "Not a directory"), ("lost", "File exists"), ("a" * 300, "File name too long")]:
        answer = call("new", name)
        assert (answer.code, answer.lines) == (1, [])
        assert f"expected a folder that can be made and written, got {name!r}: {why}: name another" in answer.err


def test_what_an_installation_adds_to_a_template_is_not_in_a_project(made: Callable[[str], Path]) -> None:
    compileall.compile_dir(TEMPLATES, quiet=2)
    assert not [each.name for each in made("script").rglob("__pycache__")]
