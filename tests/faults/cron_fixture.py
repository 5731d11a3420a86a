"""The one cluster with quick crons for all tests that say `pytest_plugins = ("tests.faults.cron_fixture",)`."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.faults.cron_cluster import SILENT_S, WORKERS, start_cron
from tests.harness.cluster import Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper


@pytest.fixture(scope="session")
def cron_cluster(
    zookeeper_server: ZooKeeper, mariadb_server: MariaDB, object_store_server: ObjectStore
) -> Iterator[Cluster]:
    """One API server, one manager, and four nodes with a quick cron. A test that hurts a part mends it."""
    with Cluster(zookeeper_server, mariadb_server, object_store_server, workers=0, managers=1, apis=1) as cluster:
        for name, zone in WORKERS.items():
            cluster.add_worker(name, {"zone": zone}, {"CRONKEEPER_CRON_SILENT_S": str(SILENT_S)})
            cluster.nodes[name].kill_cron()
            start_cron(cluster, name)
        cluster.wait(lambda: len(cluster.workers_up()) == len(WORKERS), "all workers are up", 60)
        yield cluster
