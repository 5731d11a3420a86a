"""Memory of all parts, and how large the stores grow, at several numbers of tasks on one worker.

Of the daemons PSS, in which shared pages count as their share, and RSS; 20 s after the worker had the last task, the
leader after a full look. Of ZooKeeper's members the RSS of the largest JVM and the snapshots and logs on its disk;
of MariaDB the size of all tables and indexes.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path

from bench.kit.figures import Figure, Options
from bench.kit.processes import memory_mib, with_offspring
from bench.kit.town import Stores, fill, fleet, stores
from cronkeeper_worker import node_files
from tests.harness.cluster import Cluster

_SETTLE_S = 20
_LEADER_GOAL_MIB, _LEADER_TASKS = 300, 100_000
_WORKER_BASE_MIB, _WORKER_TASK_KIB = 60, 1.5


def run(options: Options) -> Iterator[Figure]:
    """Measure at each size, in a fleet of its own."""
    sizes = (100, 1_000) if options.quick else options.sizes
    with stores() as on:
        for size in sizes:
            with fleet(on) as cluster:
                fill(cluster, size)
                # What is placed is what the leader has given; the worker takes it in its turn.
                cluster.wait(partial(_has, cluster, size), "the worker has them", 120 + size / 50, every_s=1.0)
                time.sleep(5 if options.quick else _SETTLE_S)
                yield from _measure(on, cluster, size)


def _has(cluster: Cluster, tasks: int) -> bool:
    """Say whether the worker has so many tasks in its journal."""
    (name,) = cluster.nodes
    journal = cluster.daemon_dir(name) / node_files.JOURNAL
    with closing(sqlite3.connect(f"file:{journal}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT count(*) FROM tasks").fetchone()[0]) >= tasks


def _measure(on: Stores, cluster: Cluster, size: int) -> list[Figure]:
    worker, runner = _of_node(cluster)
    parts = {
        "API": max(with_offspring([cluster.apis[0].pid])),
        "leader": cluster.managers[0].pid,
        "worker": worker,
        "runner": runner,
    }
    worker_goal = _WORKER_BASE_MIB + size * _WORKER_TASK_KIB / 1024
    goals = {"worker": worker_goal, "leader": _LEADER_GOAL_MIB if size <= _LEADER_TASKS else None}
    found = []
    for name, pid in parts.items():
        rss, pss = memory_mib(pid)
        found.append(Figure(f"{name} at {size:,} tasks: PSS", "MiB", (pss,), goals.get(name)))
        found.append(Figure(f"{name} at {size:,} tasks: RSS", "MiB", (rss,)))
    heap = max(memory_mib(pid)[0] for pid in on.zookeeper.pids)
    disk = sum(path.stat().st_size for path in on.zookeeper.data_dir(0).rglob("*") if path.is_file()) / 2**20
    tables = "SELECT SUM(data_length + index_length) / 1048576 FROM information_schema.tables WHERE table_schema = "
    rows = float(str(on.mariadb.execute(f"{tables} '{cluster.database}'")[0][0]))
    return [
        *found,
        Figure(f"ZooKeeper at {size:,} tasks: RSS of a JVM", "MiB", (heap,)),
        Figure(f"ZooKeeper at {size:,} tasks: a member's disk", "MiB", (disk,)),
        Figure(f"MariaDB at {size:,} tasks: tables and indexes", "MiB", (rows,)),
        Figure(f"MariaDB at {size:,} tasks: RSS", "MiB", (memory_mib(on.mariadb.process.pid)[0],)),
    ]


def _of_node(cluster: Cluster) -> tuple[int, int]:
    """Return the pids of the worker's daemon and of its runner."""
    (node,) = cluster.nodes.values()
    for pid in node.pids():
        argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        # Not the shell that keeps it: of that, the whole program is one argument.
        if is_runner(argv):
            return cluster.workers[node.name].pid, pid
    raise LookupError("the node has no runner")


def is_runner(argv: Sequence[bytes]) -> bool:
    """Say whether a command line is the runner's own, and not that of the shell which keeps one."""
    return b"python" in argv[0].rpartition(b"/")[2] and any(b"runner_main" in part for part in argv[1:])
