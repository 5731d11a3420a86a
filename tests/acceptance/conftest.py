"""One whole cluster for all acceptance tests. A test that hurts a part mends it before it ends."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

#: A job that no worker may take.
NOWHERE: dict[str, Any] = {"schedule": "@every 20s", "grace_s": 5, "name": "nowhere", "selector": "zone=mars"}


@pytest.fixture(scope="session")
def cluster(
    zookeeper_ensemble: ZooKeeper, mariadb_server: MariaDB, object_store_server: ObjectStore
) -> Iterator[Cluster]:
    """Three ZooKeeper servers, MariaDB, S3, HAProxy, two API servers, two managers, three nodes with a worker."""
    with Cluster(zookeeper_ensemble, mariadb_server, object_store_server) as running:
        # For test_why.py: it takes two minutes until a fire is missed, and they pass meanwhile.
        running.post_job(executable="true", type="command", **NOWHERE)
        yield running
