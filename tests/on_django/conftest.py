"""A PostgreSQL for projects, as their settings say it."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import parse_qs, urlsplit

import pytest

from outbox.postgres import Postgres


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.end()


@pytest.fixture
def postgresql(postgres: Postgres) -> str:
    """Return settings for a new database."""
    url = urlsplit(postgres.new())
    entry = {
        "ENGINE": "django.db.backends.postgresql",
        "NAME": url.path.strip("/"),
        "USER": "postgres",
        "HOST": parse_qs(url.query)["host"][0],
        "TEST": {"NAME": f"test_{url.path.strip('/')}"},
        "OPTIONS": {"application_name": "the shop's", "connect_timeout": 10},
    }
    return f'DATABASES["default"] = {entry!r}\n'
