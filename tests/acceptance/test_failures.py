"""Jobs that fail, on a whole cluster: paused after failures in a row, tried again on other workers."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from cronkeeper.domain.instants import parse_rfc3339
from tests.harness.cluster import Cluster


def shown(cluster: Cluster, job_id: str) -> dict[str, Any]:
    found: dict[str, Any] = cluster.get(f"/jobs/{job_id}").json()
    return found


def test_a_job_that_fails_again_and_again_is_paused_until_it_is_resumed(cluster: Cluster) -> None:
    job = cluster.post_job(
        executable="exit 3", schedule="@every 2s", type="command", pause_after_failures=3, name="flaky"
    )
    cluster.wait(lambda: shown(cluster, job["id"])["status"] == "paused", "the job is paused", 60)
    paused = shown(cluster, job["id"])
    assert paused["status_reason"].startswith("paused after 3 failures in a row, last: exit 3 at ")
    cluster.wait(lambda: cluster.owner(job["id"]) is None, "no worker has it any more", 10)
    assert paused["next_fire"] is None

    runs = cluster.runs(job["id"])
    third = sorted(runs, key=lambda run: run["fire_time"])[2]
    newest = max(runs, key=lambda run: run["fire_time"])
    late_ms = parse_rfc3339(newest["fire_time"]) - parse_rfc3339(third["ended_at"])
    assert late_ms < 10_000, "so long after its third failure was reported it had stopped firing"
    (event,) = cluster.get(f"/events?kind=job.paused_after_failures&subject={job['id']}").json()
    assert event["detail"] == paused["status_reason"]

    # Run on demand: the pause is signed, and the task is placed again without firing.
    run = cluster.request("POST", f"/jobs/{job['id']}/run").json()
    cluster.wait(
        lambda: cluster.get(f"/runs/{run['id']}").json()["state"] == "failed", "the run on demand has ended", 30
    )
    assert shown(cluster, job["id"])["status_reason"] == paused["status_reason"]
    assert len(cluster.runs(job["id"])) == len(runs) + 1

    resumed = cluster.request("POST", f"/jobs/{job['id']}/resume").json()
    assert resumed["status_reason"] is None
    cluster.wait(lambda: shown(cluster, job["id"])["status"] == "paused", "it is paused anew", 60)
    assert len(cluster.runs(job["id"])) >= len(runs) + 4
    cluster.request("DELETE", f"/jobs/{job['id']}")


def test_each_retry_runs_on_another_worker_if_the_job_wants_that(cluster: Cluster) -> None:
    job = cluster.post_job(
        executable="exit 4",
        schedule="@yearly",
        type="command",
        retry={"limit": 2, "backoff_s": 1, "elsewhere": True},
    )
    cluster.wait(lambda: cluster.owner(job["id"]), "the job has a worker", 20)
    cluster.request("POST", f"/jobs/{job['id']}/run")
    runs = cluster.wait(
        lambda: [run for run in cluster.runs(job["id"]) if run["attempt"] == 3 and run["ended_at"]],
        "the last attempt has ended",
        60,
    )
    runs = sorted(cluster.runs(job["id"]), key=lambda run: run["attempt"])
    assert [(run["attempt"], run["state"]) for run in runs] == [(1, "failed"), (2, "failed"), (3, "failed")]
    tried = [(run["worker"], run["started_at"], run["ended_at"]) for run in runs]
    assert {worker for worker, _, _ in tried} == set(cluster.nodes), tried
    gaps_s = [
        (parse_rfc3339(later["started_at"]) - parse_rfc3339(run["ended_at"])) / 1000 for run, later in pairwise(runs)
    ]
    assert all(1 <= gap_s < 12 for gap_s in gaps_s), gaps_s
    cluster.request("DELETE", f"/jobs/{job['id']}")
