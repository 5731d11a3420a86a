"""A fire that nobody could run is missed, with its reason: in the ledger, over HTTP, and at the prompt."""

from __future__ import annotations

import json
import subprocess
from functools import partial
from typing import Any

from tests.harness.cluster import CRONKEEPER, Cluster


def ask(cluster: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against the cluster's API."""
    env = {**cluster.env, "CRONKEEPER_URL": cluster.url, "CRONKEEPER_TOKEN": cluster.token}
    return subprocess.run([CRONKEEPER, *argv], env=env, capture_output=True, text=True, timeout=60, check=False)


def misfit(cluster: Cluster, job_id: str) -> dict[str, Any] | None:
    """Return the newest fire that was missed because no worker fits; the faults of earlier tests made others miss."""
    found: list[dict[str, Any]] = cluster.get(f"/jobs/{job_id}/missed").json()
    return next((item for item in found if item["reason"] == "no_worker_fits"), None)


def test_a_fire_that_no_worker_may_take_is_missed_and_the_reason_is_told(cluster: Cluster) -> None:
    job = next(job for job in cluster.get("/jobs").json() if job["name"] == "nowhere")
    fine = cluster.post_job(executable="true", type="command", schedule="@every 2s", grace_s=60)
    # A fire is judged 65 s after its time; the leader must have heard its workers for a minute by then.
    newest = cluster.wait(partial(misfit, cluster, job["id"]), "a fire is missed for want of a worker", 240) or {}
    assert (newest["job_id"], newest["shard"]) == (job["id"], 0)
    assert "zone=mars" in newest["detail"]

    why = cluster.get(f"/jobs/{job['id']}/why?at={newest['fire_time']}").json()
    assert (why["fire_time"], why["due"], why["decision"]) == (newest["fire_time"], True, "missed")
    assert (why["reason"], why["runs"]) == ("no_worker_fits", [])
    assert "selector" in why["words"]

    told = ask(cluster, "why", "nowhere", newest["fire_time"], "-o", "json")
    assert told.returncode == 0, told.stderr
    assert json.loads(told.stdout)["reason"] == "no_worker_fits"
    assert "missed (no_worker_fits)" in ask(cluster, "why", "nowhere", newest["fire_time"]).stdout
    assert ask(cluster, "why", "no-such-job", "last").returncode == 3
    assert ask(cluster, "why", "nowhere", "noon").returncode == 2

    events = cluster.get(f"/events?kind=fire.missed&subject={job['id']}/0").json()
    assert events and "no_worker_fits" in events[0]["detail"]
    assert job["id"] + "/0" in ask(cluster, "events", "--kind", "fire.missed").stdout

    # Nothing of a job that has a worker is missed, and why says so.
    cluster.wait(lambda: cluster.runs(fine["id"]), "it runs")
    assert cluster.get(f"/jobs/{fine['id']}/missed").json() == []
    last = json.loads(ask(cluster, "why", fine["id"], "last", "-o", "json").stdout)
    assert last["due"] and last["decision"] in ("run", "pending")
    for one in (job, fine):
        cluster.request("DELETE", f"/jobs/{one['id']}")
