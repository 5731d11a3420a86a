"""What all tests share: a mark for each folder, the real servers, and the fence around the unit tests."""

from __future__ import annotations

import contextlib
import socket
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import pytest

from cronkeeper_worker import control_groups
from tests.harness.galera import Galera
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

_TESTS = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark every test with the name of its folder: `-m integration` then means tests/integration."""
    for item in items:
        if item.path.is_relative_to(_TESTS):
            item.add_marker(item.path.relative_to(_TESTS).parts[0])


def pytest_sessionfinish() -> None:
    """Remove the control groups of runners that tests have killed; a runner that goes home removes its own."""
    with contextlib.suppress(OSError):  # a machine without any
        control_groups.tidy()


@pytest.fixture(autouse=True)
def _unit_tests_touch_nothing(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.node.get_closest_marker("unit") is None:
        return

    def no_socket(*_args: object, **_kwargs: object) -> NoReturn:
        raise AssertionError("a unit test must not open a socket; see tests/contract and tests/integration")

    def no_sleep(*_args: object, **_kwargs: object) -> NoReturn:
        raise AssertionError("a unit test must not sleep; hand the code a clock")

    monkeypatch.setattr(socket.socket, "__init__", no_socket)
    monkeypatch.setattr(socket, "socketpair", no_socket)
    monkeypatch.setattr(time, "sleep", no_sleep)


@pytest.fixture(scope="session")
def mariadb_server() -> Iterator[MariaDB]:
    """One MariaDB for the session. A test that hurts it must leave it running."""
    with MariaDB() as server:
        yield server


@pytest.fixture
def mariadb_url(mariadb_server: MariaDB) -> Iterator[str]:
    """The SQLAlchemy URL of a fresh, empty database, dropped after the test."""
    name = f"test_{uuid.uuid4().hex[:12]}"
    yield mariadb_server.create_database(name)
    mariadb_server.drop_database(name)


@pytest.fixture(scope="session")
def galera_cluster() -> Iterator[Galera]:
    """One Galera cluster of three for the session. A test that hurts a member must mend it."""
    with Galera() as cluster:
        yield cluster


@pytest.fixture(scope="session")
def zookeeper_server() -> Iterator[ZooKeeper]:
    """One ZooKeeper of a single server for the session."""
    with ZooKeeper() as server:
        yield server


@pytest.fixture(scope="session")
def zookeeper_ensemble() -> Iterator[ZooKeeper]:
    """One ZooKeeper ensemble of three for the session. A test that hurts a member must mend it."""
    with ZooKeeper(3) as ensemble:
        yield ensemble


@pytest.fixture
def zookeeper_chroot(zookeeper_server: ZooKeeper) -> str:
    """A connect string with a fresh, empty chroot of its own: `host:port/path`."""
    return zookeeper_server.create_chroot()


@pytest.fixture(scope="session")
def object_store_server() -> Iterator[ObjectStore]:
    """One S3 server for the session; every test makes its own bucket."""
    with ObjectStore() as server:
        yield server
