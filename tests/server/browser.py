"""A real browser, for what only a browser can show."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

CHROMIUM = shutil.which("chromium")


@asynccontextmanager
async def chromium(url: str, profile: Path, *more: str) -> AsyncIterator[None]:
    """Open this page in Chromium, and close that afterwards."""
    assert CHROMIUM is not None
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--disable-background-networking"]
    options += ["--no-first-run", "--disable-component-update", f"--user-data-dir={profile}", *more]
    nowhere = asyncio.subprocess.DEVNULL
    browser = await asyncio.create_subprocess_exec(
        CHROMIUM, *options, url, stdout=nowhere, stderr=nowhere, start_new_session=True
    )
    try:
        yield
    finally:
        os.killpg(browser.pid, signal.SIGKILL)
        await browser.wait()
