"""A small cluster whose nodes have a cron with a clock ten times as fast: what a cron does in minutes takes seconds.

The fixture that starts it stands in cron_fixture.py.
"""

from __future__ import annotations

import re
import time
import urllib.request
from collections.abc import Sequence
from functools import partial
from typing import Any, NamedTuple

from cronkeeper.domain.instants import parse_rfc3339
from tests.harness.cluster import Cluster

#: A minute of cron's takes six seconds of ours; so does the time between two ticks.
QUICK = "+0 x10"
CRON_MINUTE_S = 6.0
#: Two and a half of those minutes without a call are silence.
SILENT_S = 15.0
#: Until it is noticed: that, the rest between two looks, and what a busy machine takes.
NOTICED_S = SILENT_S + 5.0 + 25.0
STEP_MS = 5000
#: A fire is on time if it starts before the next one is due; the timer itself takes milliseconds.
ON_TIME_MS = STEP_MS

WORKERS = {"w1": "a", "w2": "b", "w3": "c", "w4": "d"}


class Told(NamedTuple):
    """An event, as it stands in MySQL."""

    at_ms: int
    kind: str
    detail: str


def start_cron(cluster: Cluster, worker: str) -> None:
    """Start the node's cron; it must not be running."""
    cluster.nodes[worker].start_cron(faketime=QUICK, timezone="UTC")


def post_ticking(cluster: Cluster, worker: str, **fields: Any) -> str:
    """Post a job that fires every five seconds on that worker alone, wait until it does, and return its id."""
    spec = {
        "executable": "true",
        "schedule": "*/5 * * * * *",
        "type": "command",
        "concurrency": "allow",
        "misfire": "all",
        "selector": f"zone={WORKERS[worker]}",
    }
    job_id: str = cluster.post_job(**{**spec, **fields})["id"]
    cluster.wait(lambda: len(runs(cluster, job_id)) >= 2, "it ticks", 60)
    return job_id


def runs(cluster: Cluster, job_id: str) -> list[dict[str, Any]]:
    """Return all runs of a job, oldest fire first."""
    found: list[dict[str, Any]] = cluster.get(f"/jobs/{job_id}/runs?limit=1000").json()
    return sorted(found, key=lambda run: (run["fire_time"], run["attempt"]))


def assert_each_fire_ran_once(cluster: Cluster, job_id: str, *, on_time_from_ms: int | None = None) -> None:
    """Between the job's first and last run: no fire missing, none twice, each succeeded, and on time where said."""
    found = [run for run in runs(cluster, job_id) if run["trigger"] != "manual"]
    times = [parse_rfc3339(run["fire_time"]) for run in found]
    assert times == list(range(times[0], times[-1] + STEP_MS, STEP_MS))
    # The last ones may still run.
    assert {run["state"] for run in found[:-2]} == {"succeeded"}
    if on_time_from_ms is not None:
        judged = [run for run in found[:-2] if parse_rfc3339(run["fire_time"]) >= on_time_from_ms]
        late = [run for run in judged if started_ms(run) - parse_rfc3339(run["fire_time"]) > ON_TIME_MS]
        assert judged and late == []


def started_ms(run: dict[str, Any]) -> int:
    return parse_rfc3339(run["started_at"])


def events(cluster: Cluster, worker: str, *kinds: str, since_ms: int = 0) -> list[Told]:
    """Return what was told of a worker, oldest first, straight from MySQL."""
    names = ", ".join(f"'{kind}'" for kind in kinds)
    rows = cluster.mariadb.execute(
        f"SELECT at_ms, kind, detail FROM events WHERE subject = '{worker}' AND kind IN ({names}) "
        f"AND at_ms >= {since_ms} ORDER BY at_ms, id",
        cluster.database,
    )
    return [Told(int(str(at_ms)), str(kind), str(detail)) for at_ms, kind, detail in rows]


def cron_news(cluster: Cluster, worker: str, since_ms: int) -> list[str]:
    """Return the kinds of what was told of the worker's cron."""
    return [told.kind for told in events(cluster, worker, "cron.silent", "cron.back", since_ms=since_ms)]


def metric(cluster: Cluster, worker: str, name: str) -> float:
    """Return one metric of a worker."""
    with urllib.request.urlopen(f"http://{cluster.metrics[worker]}/metrics", timeout=5) as response:
        match = re.search(rf"^{name} (\S+)$", response.read().decode(), re.MULTILINE)
    assert match is not None
    return float(match[1])


def wait_for_ticks(cluster: Cluster, workers: Sequence[str]) -> None:
    """Wait until each worker's cron has called it twice more, and is not held silent."""
    before = {worker: metric(cluster, worker, "cronkeeper_looks_total") for worker in workers}

    def calls(worker: str) -> bool:
        heard = metric(cluster, worker, "cronkeeper_looks_total") >= before[worker] + 2
        return heard and metric(cluster, worker, "cronkeeper_worker_cron_silent") == 0

    for worker in workers:
        cluster.wait(partial(calls, worker), f"{worker}'s cron calls", 60)


def now_ms() -> int:
    return time.time_ns() // 1_000_000
