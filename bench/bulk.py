"""Bulk: `POST /apply` of 10,000 jobs through HAProxy: new ones, the same again, and each with a field changed.

A rate is that of one request, from its first byte to its answer, which comes when ZooKeeper knows the jobs, too. The
processor time for each job is that of the API servers, of MariaDB and of the three ZooKeeper servers while it lasted:
on a busy machine it says more than the rate. `python -m bench.bulk [ROUNDS]`, once `tests/run setup` has set up.
"""

from __future__ import annotations

import os
import sys
import time
from collections import defaultdict

from bench.kit import report
from bench.kit.figures import Figure
from bench.kit.processes import processor_ms, with_offspring
from bench.kit.town import Stores, fleet, never_due, stores
from tests.harness.cluster import Cluster

_JOBS = 10_000
_GOAL = 5_000


def measure(on: Stores, cluster: Cluster, jobs: int, rounds: int) -> list[Figure]:
    """Measure with an API server that has done it before: after as many requests as there are servers."""
    found: dict[str, list[float]] = defaultdict(list)
    parts = {
        "API servers": with_offspring(server.pid for server in cluster.apis),
        "MariaDB": {on.mariadb.process.pid},
        "ZooKeeper": set(on.zookeeper.pids),
    }
    for round_ in range(-len(cluster.apis), rounds):
        wanted = [never_due(number) | {"name": f"bulk-{round_}-{number}"} for number in range(jobs)]
        changed = [job | {"description": "changed"} for job in wanted]
        for what, body in (("new jobs", wanted), ("the same again", wanted), ("each one changed", changed)):
            before = {part: processor_ms(pids) for part, pids in parts.items()}
            begun_s = time.monotonic()
            answer = cluster.request("POST", "/apply", {"jobs": body})
            took_s = time.monotonic() - begun_s
            assert answer.status == 200, answer.body[:500]
            if round_ >= 0:
                found[f"{what}: jobs a second"].append(jobs / took_s)
                for part, pids in parts.items():
                    found[f"{what}: processor µs a job, {part}"].append(
                        (processor_ms(pids) - before[part]) * 1000 / jobs
                    )
    goals = {"new jobs: jobs a second": _GOAL}
    return [
        Figure(f"POST /apply of {jobs:,}, {what}", "", tuple(values), goals.get(what), at_least=True)
        for what, values in found.items()
    ]


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 6
    with stores() as on, fleet(on, workers=0, managers=0, apis=2) as cluster:
        cluster.wait(lambda: cluster.request("GET", "/readyz").status == 200, "the API is ready", 60)
        before = os.getloadavg()[0]
        report.show("bulk", measure(on, cluster, _JOBS, rounds))
        print(f"load average {before:.1f} before and {os.getloadavg()[0]:.1f} after")


if __name__ == "__main__":
    main()
