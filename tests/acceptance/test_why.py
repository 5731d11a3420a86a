"""A fire that nobody could run is missed, with its reason: in the ledger, over HTTP, and at the prompt."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from tests.harness.cluster import CRONKEEPER, Cluster


def ask(cluster: Cluster, *argv: str) -> subprocess.CompletedProcess[str]:
    """Run the command line against the cluster's API."""
    env = {**cluster.env, "CRONKEEPER_URL": cluster.url, "CRONKEEPER_TOKEN": cluster.token}
    return subprocess.run([CRONKEEPER, *argv], env=env, capture_output=True, text=True, timeout=60, check=False)


def test_a_fire_that_no_worker_may_take_is_missed_and_the_reason_is_told(cluster: Cluster) -> None:
    fields: dict[str, Any] = {"schedule": "@every 20s", "grace_s": 5, "name": "nowhere", "selector": "zone=mars"}
    job = cluster.post_job(executable="true", type="command", **fields)
    fine = cluster.post_job(executable="true", type="command", schedule="@every 20s", grace_s=5)
    # A fire is judged 65 s after its time; the leader must have heard its workers for a minute by then.
    items = cluster.wait(lambda: cluster.get(f"/jobs/{job['id']}/missed").json(), "a fire is missed", 240)
    newest = items[0]
    assert (newest["job_id"], newest["shard"], newest["reason"]) == (job["id"], 0, "no_worker_fits")
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

    # The job beside it ran all the while: nothing of it is missed, and why says so.
    assert cluster.get(f"/jobs/{fine['id']}/missed").json() == []
    last = json.loads(ask(cluster, "why", fine["id"], "last", "-o", "json").stdout)
    assert last["due"] and last["decision"] in ("run", "pending")
    for one in (job, fine):
        cluster.request("DELETE", f"/jobs/{one['id']}")
