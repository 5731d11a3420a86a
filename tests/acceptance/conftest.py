"""One whole cluster for all acceptance tests. A test that hurts a part mends it before it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.certificates import Authority
from tests.harness.cluster import Cluster
from tests.harness.folders import make_folder, remove_folder
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

#: A job that no worker may take.
NOWHERE: dict[str, Any] = {"schedule": "@every 20s", "grace_s": 5, "name": "nowhere", "selector": "zone=mars"}


@pytest.fixture(scope="session")
def authority() -> Iterator[Authority]:
    """The CA of everything here."""
    folder = make_folder("authority")
    yield Authority(folder)
    remove_folder(folder)


@pytest.fixture(scope="session")
def zookeeper_ensemble(authority: Authority) -> Iterator[ZooKeeper]:
    """An ensemble of three that speaks TLS, too. A test that hurts a member must mend it."""
    with ZooKeeper(3, tls=authority) as ensemble:
        yield ensemble


@pytest.fixture(scope="session")
def mariadb_server(authority: Authority) -> Iterator[MariaDB]:
    """A MariaDB that speaks TLS, too. A test that hurts it must leave it running."""
    issued = authority.issue("mariadb")
    options = [f"--ssl-ca={authority.ca}", f"--ssl-cert={issued.cert}", f"--ssl-key={issued.key}"]
    with MariaDB(extra_options=options) as server:
        yield server


@pytest.fixture(scope="session")
def cluster(
    zookeeper_ensemble: ZooKeeper, mariadb_server: MariaDB, object_store_server: ObjectStore, authority: Authority
) -> Iterator[Cluster]:
    """Three ZooKeeper servers, MariaDB, S3, HAProxy, two API servers, two managers, three nodes with a worker.

    Everything between them and the stores goes over TLS, and each kind of part has its own account in MySQL: so every
    test here shows that both are enough for what the parts do.
    """
    with Cluster(zookeeper_ensemble, mariadb_server, object_store_server, tls=authority) as running:
        # For test_why.py: it takes two minutes until a fire is missed, and they pass meanwhile.
        running.post_job(executable="true", type="command", **NOWHERE)
        yield running
