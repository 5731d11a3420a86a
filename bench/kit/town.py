"""Real stores and real fleets on loopback, filled with jobs: what the parts of `bench/run` measure."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from tests.harness.cluster import CRONKEEPER, Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

#: Jobs in one request.
_BATCH = 2_000
#: ZooKeeper's memory: 100,000 tasks take 300 MB with their assignments. This variable outweighs the command line.
_HEAP = {"_JAVA_OPTIONS": "-Xmx1g"}
#: No worker is full before the machine is.
SETTINGS = {"CRONKEEPER_CAPACITY": "100000000"}


@dataclass(frozen=True, slots=True)
class Stores:
    zookeeper: ZooKeeper
    mariadb: MariaDB
    objects: ObjectStore

    @property
    def pids(self) -> list[int]:
        return [*self.zookeeper.pids, self.mariadb.process.pid]


@contextmanager
def stores(*, zookeepers: int = 3) -> Iterator[Stores]:
    """Start ZooKeeper, MariaDB and an S3 server; nothing of them is left afterwards."""
    os.environ.update(_HEAP)
    with ZooKeeper(zookeepers) as zookeeper, MariaDB() as mariadb, ObjectStore() as objects:
        yield Stores(zookeeper, mariadb, objects)


@contextmanager
def fleet(
    on: Stores,
    *,
    workers: int = 1,
    managers: int = 1,
    apis: int = 1,
    settings: Mapping[str, str] | None = None,
    program: str = CRONKEEPER,
) -> Iterator[Cluster]:
    """Start a cluster of its own database and tree over the stores. `settings` are the workers'."""
    parts = (on.zookeeper, on.mariadb, on.objects)
    with Cluster(*parts, workers=0, managers=managers, apis=apis, program=program) as cluster:
        for number in range(workers):
            cluster.add_worker(f"w{number + 1}", {}, {**SETTINGS, **(settings or {})})
        cluster.wait(lambda: len(cluster.workers_up()) == workers, "all workers are up", 60)
        yield cluster


def pids(cluster: Cluster) -> list[int]:
    """Return the processes of the cluster's own parts, and all that is in its nodes: none is a child of their first."""
    parts = [*cluster.apis, *cluster.managers, *([cluster.haproxy.process] if cluster.haproxy else [])]
    return [*(part.pid for part in parts), *(pid for node in cluster.nodes.values() for pid in node.pids())]


def job(name: str, command: str, schedule: str, **fields: Any) -> dict[str, Any]:
    return {"name": name, "executable": command, "schedule": schedule, "type": "command", **fields}


def never_due(number: int) -> dict[str, Any]:
    """Return a job that fires once in four years, at a minute of its own."""
    return job(f"idle-{number}", "true", f"{number % 60} {number // 60 % 24} 29 2 *")


def apply(cluster: Cluster, jobs: Sequence[dict[str, Any]]) -> None:
    """Have these jobs."""
    for first in range(0, len(jobs), _BATCH):
        answer = cluster.request("POST", "/apply", {"jobs": jobs[first : first + _BATCH]})
        assert answer.status == 200, answer.body[:500]


def placed(cluster: Cluster) -> int:
    """Return how many tasks the workers were given; some may not have taken them yet."""
    return sum(int(worker["tasks"]) for worker in cluster.get("/workers").json())


def fill(cluster: Cluster, jobs: int, make: Callable[[int], dict[str, Any]] = never_due) -> None:
    """Have so many jobs, each with a worker."""
    before = placed(cluster)
    apply(cluster, [make(number) for number in range(jobs)])
    cluster.wait(lambda: placed(cluster) >= before + jobs, f"{jobs} tasks are placed", 120 + jobs / 100, every_s=1.0)
