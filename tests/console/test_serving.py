"""The files of the console as they are served: with their policy, kept by browsers, and only where it is on."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI

from server.doors import Doors, at, mounted, served
from solarwind import SolarWind
from solarwind.operations import OPERATIONS
from solarwind.server import Server, app
from solarwind.server.access import Listen, create_token
from solarwind.server.console import FOLDER
from solarwind.testing.contract import on_loop

FILES = ["", "main.js", "core/facts.js", "vendor/preact.js", "style/base.css", "icon.svg", "operations.json"]


@asynccontextmanager
async def doors(console: bool = True) -> AsyncIterator[Doors]:
    async with SolarWind("memory://") as wind, served(Server(wind, console=console)) as port, at(port) as found:
        yield found


@on_loop
async def test_each_file_comes_with_the_policy_and_without_a_cookie() -> None:
    async with doors() as found:
        for name in FILES:
            answer = await found.http.get(f"/console/{name}")
            assert answer.status_code == 200, name
            policy = answer.headers["content-security-policy"]
            assert "default-src 'none'; script-src 'self'; style-src 'self';" in policy
            assert "unsafe" not in policy
            assert "frame-ancestors 'none'" in policy
            assert policy.endswith("require-trusted-types-for 'script'; trusted-types 'none'")
            assert answer.headers["x-content-type-options"] == "nosniff"
            assert answer.headers["referrer-policy"] == "no-referrer"
            assert "set-cookie" not in answer.headers
        assert (await found.http.get("/console/main.js")).headers["content-type"].startswith("text/javascript")


@on_loop
async def test_a_browser_keeps_a_file_and_gets_it_compressed() -> None:
    async with doors() as found:
        first = await found.http.get("/console/vendor/preact.js", headers={"accept-encoding": "gzip"})
        assert first.headers["content-encoding"] == "gzip"
        assert first.content == (FOLDER / "vendor" / "preact.js").read_bytes()
        plain = await found.http.get("/console/vendor/preact.js", headers={"accept-encoding": "identity"})
        assert "content-encoding" not in plain.headers
        assert plain.content == first.content
        again = await found.http.get("/console/vendor/preact.js", headers={"if-none-match": first.headers["etag"]})
        assert (again.status_code, again.content) == (304, b"")
        head = await found.http.head("/console/")
        assert (head.status_code, head.content) == (200, b"")


@on_loop
async def test_the_page_is_found_without_a_slash_and_below_a_mount() -> None:
    wind = SolarWind("memory://")
    outer = FastAPI(lifespan=wind.lifespan)
    inner = app(wind, console=True)
    outer.mount("/events", inner)
    async with inner.lifespan(), mounted(outer) as port, httpx.AsyncClient(follow_redirects=True, timeout=300) as http:
        page = await http.get(f"http://127.0.0.1:{port}/events/console")
        assert str(page.url).endswith("/events/console/")
        assert page.status_code == 200
        assert (await http.get(str(page.url) + "core/ui.js")).status_code == 200


@pytest.mark.parametrize("name", ["nothing.js", "../server/asgi.py", "..%2Fserver%2Fasgi.py", "vendor/", "/etc/passwd"])
@on_loop
async def test_nothing_else_is_served(name: str) -> None:
    async with doors() as found:
        request = found.http.build_request("GET", f"{found.url}/console/x")
        request.url = request.url.copy_with(raw_path=f"/console/{name}".encode())
        assert (await found.http.send(request)).status_code == 404


@on_loop
async def test_a_server_without_the_console_says_so() -> None:
    async with doors(console=False) as found:
        for path in ("/console", "/console/", "/console/main.js"):
            answer = await found.http.get(path)
            assert answer.status_code == 404
            assert "without" in answer.json()["detail"]


@on_loop
async def test_a_link_elsewhere_may_lead_to_the_page_and_to_nothing_else() -> None:
    link = {"sec-fetch-site": "cross-site", "sec-fetch-mode": "navigate", "sec-fetch-dest": "document"}
    async with doors() as found:
        assert (await found.http.get("/console/", headers=link)).status_code == 200
        assert (await found.http.get("/console/", headers=link | {"sec-fetch-dest": "iframe"})).status_code == 403
        assert (await found.http.get("/v1/topics", headers=link)).status_code == 403
        assert (await found.http.get("/console/", headers=link | {"host": "evil.example"})).status_code == 403


@on_loop
async def test_the_page_gets_all_operations_as_they_are() -> None:
    async with doors() as found:
        said = json.loads((await found.http.get("/console/operations.json")).content)
    assert said.keys() == {name for name, each in OPERATIONS.items() if each.http is not None}
    assert said["redrive"]["words"] == "dead redrive"
    assert list(said["redrive"]["kinds"]) == ["topic", "purpose", "ids", "version"]


@on_loop
async def test_a_token_says_what_it_may_do(tmp_path: Path) -> None:
    tokens = str(tmp_path / "tokens")
    text, _ = create_token(tokens, "shop", watch=True, fire=("orders",), listen=(Listen("orders", "Pack"),))
    async with SolarWind("memory://") as wind, served(Server(wind, tokens=tokens)) as port, at(port) as found:
        answer = await found.http.get("/v1/token", headers={"authorization": f"Bearer {text}"})
        assert answer.json() == {
            "name": "shop",
            "admin": False,
            "watch": True,
            "payloads": False,
            "fire": ["orders"],
            "listen": [{"topic": "orders", "purpose": "Pack"}],
        }
        assert (await found.http.get("/v1/token")).status_code == 401
        assert (await found.http.get("/v1/token", headers={"authorization": "Bearer sw_x_y"})).status_code == 401
