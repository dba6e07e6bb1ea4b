"""The databases: a PostgreSQL for each process of pytest, and files of SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from cli.conftest import start as start
from server.serving import Serving
from solarwind.outbox import database as tables

from .postgres import Postgres

Make = Callable[[], str]  # makes a database with the tables, and returns its URL


@pytest.fixture(scope="session")
def postgres() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.end()


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("databases")


def new_file(folder: Path) -> str:
    """Return the URL of a new, empty file of SQLite."""
    path = folder / f"{len(list(folder.glob('*.db')))}.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA journal_mode = WAL")
    return f"sqlite:///{path}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, folder: Path) -> str:
    """The URL of a database of each kind, new and with the tables."""
    url: str = new_file(folder) if request.param == "sqlite" else request.getfixturevalue("postgres").new()
    tables.init(url)
    return url


@pytest.fixture
def postgresql(postgres: Postgres) -> str:
    """The URL of a new database of PostgreSQL with the tables."""
    url = postgres.new()
    tables.init(url)
    return url


@pytest.fixture(scope="module")
def common(folder: Path, request: pytest.FixtureRequest) -> Callable[[str], str]:
    """Return the URL of a database of one kind that the tests of a module share, with the tables."""
    known: dict[str, str] = {}

    def of(dialect: str) -> str:
        if dialect not in known:
            known[dialect] = new_file(folder) if dialect == "sqlite" else request.getfixturevalue("postgres").new()
            tables.init(known[dialect])
        return known[dialect]

    return of


@pytest.fixture
def serving(tmp_path: Path) -> Iterator[Callable[..., Serving]]:
    """Makes servers, not yet started."""
    made: list[Serving] = []

    def make(*options: object) -> Serving:
        made.append(Serving(tmp_path, *options))
        return made[-1]

    yield make
    for each in made:
        each.kill()
