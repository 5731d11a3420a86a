"""The three stores of the contract suite: in memory, SQLite, MariaDB."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from sqlalchemy import create_engine

from cronkeeper.ports import Store
from cronkeeper.runtime.clock import SystemClock
from cronkeeper.store import open_store
from cronkeeper.store.schema import metadata
from cronkeeper.store.upgrade import upgrade
from cronkeeper.testing.memory_store import MemoryStore
from tests.harness.mariadb import MariaDB


@dataclass(frozen=True, slots=True)
class Backend:
    """One store, and the back door by which a test damages it."""

    store: Store
    #: Make a job's stored spec unreadable.
    spoil_job: Callable[[int], None]


@pytest.fixture(params=["memory", "sqlite", "mariadb"])
def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """A fresh, empty store of each kind in turn."""
    if request.param == "memory":
        memory = MemoryStore(SystemClock())
        yield Backend(memory, memory.spoil_job)
        return
    url: str = request.getfixturevalue(f"{request.param}_store_url")
    store = open_store(url, pool_size=10)
    yield Backend(store, functools.partial(_spoil_job, url))
    store.close()


@pytest.fixture
def store(backend: Backend) -> Store:
    return backend.store


@pytest.fixture
def sqlite_store_url(tmp_path: Path) -> str:
    """The URL of a fresh SQLite file with the schema in it."""
    url = f"sqlite:///{tmp_path / 'store.db'}"
    upgrade(url)
    return url


@pytest.fixture(scope="session")
def mariadb_database_url(mariadb_server: MariaDB) -> str:
    """The URL of one database with the schema in it, for all tests of this folder."""
    url = mariadb_server.create_database("contract_store")
    upgrade(url)
    return url


@pytest.fixture
def mariadb_store_url(mariadb_database_url: str) -> str:
    """The same, emptied: creating fifteen tables for each test would take most of the suite's time."""
    engine = create_engine(mariadb_database_url)
    with engine.begin() as conn:
        for table in metadata.tables.values():
            if table.name != "term":
                conn.execute(table.delete())
        conn.execute(metadata.tables["term"].update().values(term=0, holder="", beat=0))
    engine.dispose()
    return mariadb_database_url


def _spoil_job(url: str, job_id: int) -> None:
    engine = create_engine(url)
    jobs = metadata.tables["jobs"]
    with engine.begin() as conn:
        conn.execute(jobs.update().where(jobs.c.id == job_id).values(spec='{"executable": 1'))
    engine.dispose()
