"""T41 at full length, in real minutes: a cron that is stopped for four of them, and one that is dead."""

from __future__ import annotations

import time
from collections.abc import Iterator
from functools import partial

import pytest

from tests.faults import cron_cluster as on
from tests.harness.cluster import Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

STOPPED, DEAD = "w1", "w2"
STOPPED_S = 240.0
#: The promise is two minutes; the rest is for a busy machine.
PROMISED_S, BUSY_S = 120.0, 15.0


@pytest.fixture(scope="module")
def cluster(
    zookeeper_server: ZooKeeper, mariadb_server: MariaDB, object_store_server: ObjectStore
) -> Iterator[Cluster]:
    """Two nodes whose cron goes by the true clock."""
    with Cluster(zookeeper_server, mariadb_server, object_store_server, workers=2, managers=1, apis=1) as running:
        yield running


def has_called(cluster: Cluster, worker: str) -> bool:
    return on.metric(cluster, worker, "cronkeeper_looks_total") >= 1


@pytest.mark.timeout(900)
def test_t41_cron_sigstop_4min_and_dead(cluster: Cluster) -> None:
    jobs = {worker: on.post_ticking(cluster, worker) for worker in (STOPPED, DEAD)}
    for worker in jobs:
        cluster.wait(partial(has_called, cluster, worker), f"{worker}'s cron calls", 130)
    began_ms, began_s = on.now_ms(), time.monotonic()
    cluster.nodes[STOPPED].pause_cron()
    cluster.nodes[DEAD].kill_cron()
    for worker in jobs:
        left_s = PROMISED_S + BUSY_S - (time.monotonic() - began_s)
        told = cluster.wait(
            partial(on.events, cluster, worker, "cron.silent", since_ms=began_ms), f"{worker}: cron.silent", left_s
        )
        assert told[0].at_ms - began_ms <= (PROMISED_S + BUSY_S) * 1000
        print(f"{worker}: told {(told[0].at_ms - began_ms) / 1000:.1f} s after its cron fell silent")
    cluster.nodes[DEAD].start_cron()
    time.sleep(max(0.0, STOPPED_S - (time.monotonic() - began_s)))
    # It starts at once what it has missed: four calls for one minute each, of which none finds anything to do.
    cluster.nodes[STOPPED].resume_cron()
    for worker, job_id in jobs.items():
        cluster.wait(partial(on.events, cluster, worker, "cron.back", since_ms=began_ms), f"{worker}: cron.back", 130)
        assert on.cron_news(cluster, worker, began_ms) == ["cron.silent", "cron.back"]
        on.assert_each_fire_ran_once(cluster, job_id, on_time_from_ms=began_ms)
