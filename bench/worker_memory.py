"""Memory of an idle worker with N tasks: `python -m bench.worker_memory [N]`, as root, once `tests/run` has set up.

Starts ZooKeeper, MariaDB, an API server, a manager and one worker with a cron of its own, all on loopback; posts N jobs
that are not due; waits until all are installed; then reads the processes' own figures from /proc.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from tests.harness.cluster import Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.objectstore import ObjectStore
from tests.harness.zookeeper import ZooKeeper

SETTLE_S = 20.0


def memory_mb(pid: int) -> tuple[float, float]:
    """Return RSS and PSS of a process in MiB."""
    found = {}
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]:
        name, value = line.split(":")
        found[name] = int(value.split()[0]) / 1024
    return found["Rss"], found["Pss"]


def main(count: int) -> None:
    """Print one line for each process of the worker."""
    with (
        ZooKeeper() as zookeeper,
        MariaDB() as mariadb,
        ObjectStore() as objects,
        Cluster(zookeeper, mariadb, objects, workers=1, managers=1, apis=1) as cluster,
    ):
        for first in range(0, count, 500):
            jobs = [
                {
                    "name": f"job-{n}",
                    "executable": f"echo {n}",
                    "schedule": f"{n % 60} {n % 24} 1 1 *",
                    "type": "command",
                }
                for n in range(first, min(first + 500, count))
            ]
            answer = cluster.request("POST", "/apply", {"jobs": jobs})
            assert answer.status == 200, answer.body
        cluster.wait(
            lambda: sum(worker["tasks"] for worker in cluster.get("/workers").json()) == count, "all are installed", 120
        )
        time.sleep(SETTLE_S)
        for pid in cluster.nodes["w1"].pids():
            argv = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
            name = next((n for n in ("runner_main", "cronkeeper") if any(n.encode() in part for part in argv)), "")
            if name and argv[0] != b"/bin/sh":
                rss, pss = memory_mb(pid)
                label = "runner" if name == "runner_main" else "worker daemon"
                print(f"{label:14} {count} tasks: RSS {rss:.1f} MiB, PSS {pss:.1f} MiB")
        journal = cluster.daemon_dir("w1") / "journal.db"
        print(f"journal        {journal.stat().st_size / 1024:.0f} KiB")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 1000)
