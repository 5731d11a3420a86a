"""T41 and T42: a cron that is dead, stopped, restarted or out of date is told, and no fire notices.

They befall four nodes at once, so that their minutes pass together.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from tests.faults import cron_cluster as on
from tests.harness.cluster import Cluster

pytest_plugins = ("tests.faults.cron_fixture",)

DEAD, STOPPED, STALE, RESTARTED = "w1", "w2", "w3", "w4"
SILENT = (DEAD, STOPPED, STALE)
BOTH = ["cron.silent", "cron.back"]


@dataclass
class Ordeal:
    """What happened to the nodes' crons, and what was seen."""

    jobs: dict[str, str]
    began_ms: int = 0
    noticed_s: dict[str, float] = field(default_factory=dict)
    #: The gauge of each worker, while its cron was silent.
    gauges: dict[str, float] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    healed_ms: int = 0


def make_stale(cluster: Cluster, job_id: str) -> None:
    """Have cron miss a change of its file: as if it had looked between two writes of one second."""
    node = cluster.nodes[STALE]
    path = node.cron_d / "cronkeeper-0"
    before, file, folder = path.read_bytes(), path.stat().st_mtime, node.cron_d.stat().st_mtime
    node.pause_cron()
    try:
        answer = cluster.request("PATCH", f"/jobs/{job_id}", {"schedule": "7 7 7 7 *"})
        assert answer.status == 200, answer.body
        cluster.wait(lambda: path.read_bytes() != before and b"7 7 7 7 *" in path.read_bytes(), "it is written", 30)
        os.utime(path, (file, file))
        os.utime(node.cron_d, (folder, folder))
    finally:
        node.resume_cron()


@pytest.fixture(scope="module")
def ordeal(cron_cluster: Cluster) -> Iterator[Ordeal]:
    cluster = cron_cluster
    other = cluster.post_job(executable="true", schedule="8 8 8 8 *", type="command", selector="zone=c")["id"]
    workers = (*SILENT, RESTARTED)
    with ThreadPoolExecutor(len(workers)) as pool:
        found = Ordeal(dict(zip(workers, pool.map(partial(on.post_ticking, cluster), workers), strict=True)))
    on.wait_for_ticks(cluster, list(found.jobs))
    found.began_ms = on.now_ms()
    began_s = time.monotonic()
    cluster.nodes[DEAD].kill_cron()
    cluster.nodes[STOPPED].pause_cron()
    make_stale(cluster, other)
    cluster.nodes[RESTARTED].kill_cron()
    time.sleep(on.CRON_MINUTE_S + 1)
    on.start_cron(cluster, RESTARTED)
    for worker in SILENT:
        told = cluster.wait(
            partial(on.events, cluster, worker, "cron.silent", since_ms=found.began_ms),
            f"{worker} tells that its cron is silent",
            on.NOTICED_S,
        )
        found.noticed_s[worker] = time.monotonic() - began_s
        found.words[worker] = told[0].detail
        if worker != STALE:  # that one is mended at once
            found.gauges[worker] = on.metric(cluster, worker, "cronkeeper_worker_cron_silent")
    found.healed_ms = on.now_ms()
    on.start_cron(cluster, DEAD)
    cluster.nodes[STOPPED].resume_cron()
    for worker in SILENT:
        back = partial(on.events, cluster, worker, "cron.back", since_ms=found.began_ms)
        cluster.wait(back, f"{worker}'s cron is back", 60)
    on.wait_for_ticks(cluster, [RESTARTED])
    yield found
    for job_id in (*found.jobs.values(), other):
        cluster.request("DELETE", f"/jobs/{job_id}")


def assert_no_fire_noticed(cluster: Cluster, ordeal: Ordeal, worker: str) -> None:
    on.assert_each_fire_ran_once(cluster, ordeal.jobs[worker], on_time_from_ms=ordeal.began_ms)


def meanwhile(cluster: Cluster, ordeal: Ordeal, worker: str) -> list[dict[str, Any]]:
    """Return the runs of the time in which the node's cron was away."""
    assert on.cron_news(cluster, worker, ordeal.began_ms) == BOTH
    inside = range(ordeal.began_ms, ordeal.healed_ms)
    return [run for run in on.runs(cluster, ordeal.jobs[worker]) if parse_rfc3339(run["fire_time"]) in inside]


def test_t41_cron_dead(cron_cluster: Cluster, ordeal: Ordeal) -> None:
    assert "no call for" in ordeal.words[DEAD]
    assert ordeal.gauges[DEAD] == 1
    assert on.metric(cron_cluster, DEAD, "cronkeeper_worker_cron_silent") == 0
    assert_no_fire_noticed(cron_cluster, ordeal, DEAD)
    found = meanwhile(cron_cluster, ordeal, DEAD)
    assert len(found) >= 3 and {run["trigger"] for run in found} == {"timer"}


def test_t41_cron_sigstop(cron_cluster: Cluster, ordeal: Ordeal) -> None:
    assert "no call for" in ordeal.words[STOPPED]
    assert ordeal.gauges[STOPPED] == 1
    assert on.metric(cron_cluster, STOPPED, "cronkeeper_worker_cron_silent") == 0
    assert_no_fire_noticed(cron_cluster, ordeal, STOPPED)
    found = meanwhile(cron_cluster, ordeal, STOPPED)
    assert len(found) >= 3 and {run["trigger"] for run in found} == {"timer"}


def test_t42_cron_stale_mtime(cron_cluster: Cluster, ordeal: Ordeal) -> None:
    """Cron called all the time, by a text that was out of date: told apart by the number in the tick, and mended."""
    assert "older text" in ordeal.words[STALE]
    assert cron_cluster.nodes[STALE].cron_running
    assert on.metric(cron_cluster, STALE, "cronkeeper_worker_cron_silent") == 0
    assert on.cron_news(cron_cluster, STALE, ordeal.began_ms) == BOTH
    assert_no_fire_noticed(cron_cluster, ordeal, STALE)


def test_t41_cron_restart_across_minute(cron_cluster: Cluster, ordeal: Ordeal) -> None:
    """A cron that is restarted over the beginning of a minute has lost that minute; we have not."""
    fired = [parse_rfc3339(run["fire_time"]) for run in on.runs(cron_cluster, ordeal.jobs[RESTARTED])]
    assert max(fired) > ordeal.began_ms + 3 * on.STEP_MS
    assert_no_fire_noticed(cron_cluster, ordeal, RESTARTED)
    # Whether it was silent long enough to be told depends on the second; but it is not left as silent.
    assert on.cron_news(cron_cluster, RESTARTED, ordeal.began_ms) in ([], BOTH)
    assert on.metric(cron_cluster, RESTARTED, "cronkeeper_worker_cron_silent") == 0
