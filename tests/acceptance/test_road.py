"""The whole road, on a whole cluster: posted through HAProxy, fired from a node's crontab, found in the history."""

from __future__ import annotations

import base64
import http.client
import json
import threading
import time
import urllib.request
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from tests.harness.cluster import Cluster

SCRIPT = b"#!/bin/sh\necho script $CRONKEEPER_JOB_ID $CRONKEEPER_FIRE_TIME $1\nid -un\n"


def ended(runs: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    return [run for run in runs if run["ended_at"] and all(run[key] == value for key, value in wanted.items())]


def wait_owned(cluster: Cluster, job_id: str) -> str:
    owner = cluster.wait(lambda: cluster.owner(job_id), f"job {job_id} has a worker", 20)
    assert owner is not None
    return owner


def test_the_three_fields_of_a_job_are_enough(cluster: Cluster) -> None:
    job = cluster.post_job(executable="ls -la", schedule="5 * * * *", type="command")
    assert {key: job[key] for key in ("status", "executable", "schedule", "type")} == {
        "status": "scheduled",
        "executable": "ls -la",
        "schedule": "5 * * * *",
        "type": "command",
    }
    assert cluster.get(f"/jobs/{job['id']}").json()["id"] == job["id"]
    owner = wait_owned(cluster, job["id"])
    cluster.wait(lambda: f" {job['id']}/0" in cluster.crontab(owner), "the entry is in the owner's crontab")
    others = [name for name in cluster.nodes if name != owner]
    assert all(f" {job['id']}/0" not in cluster.crontab(name) for name in others)


def test_a_command_fires_on_the_minute_and_is_in_the_history(cluster: Cluster) -> None:
    job = cluster.post_job(executable="echo hello; id -un", schedule="* * * * *", type="command")
    (run,) = cluster.wait(lambda: ended(cluster.runs(job["id"]))[:1], "a scheduled run has ended", 80)
    assert (run["state"], run["exit_code"], run["output_tail"]) == ("succeeded", 0, "hello\nnobody\n")
    assert run["trigger"] in ("timer", "cron")
    assert parse_rfc3339(run["fire_time"]) % 60_000 == 0
    assert 0 <= parse_rfc3339(run["started_at"]) - parse_rfc3339(run["fire_time"]) < 10_000
    assert not run["autonomous"]
    assert cluster.get(f"/runs/{run['id']}/log").body == b"hello\nnobody\n"
    assert cluster.get(f"/jobs/{job['id']}").json()["last_run"]["state"] == "succeeded"
    cluster.request("DELETE", f"/jobs/{job['id']}")


@pytest.mark.parametrize("way", ["base64", "multipart", "url"])
def test_a_script_travels_through_the_object_store(cluster: Cluster, way: str) -> None:
    fields: dict[str, Any] = {"schedule": "0 0 1 1 *", "type": "script", "filename": "hello.sh", "args": ["there"]}
    encoded = base64.b64encode(SCRIPT).decode()
    if way == "base64":
        job = cluster.post_job(executable=encoded, **fields)
    elif way == "url":
        first = cluster.post_job(executable=encoded, **fields)
        job = cluster.post_job(executable=first["executable"], **fields)
    else:
        job = multipart(cluster, fields, SCRIPT)
    assert job["executable"].startswith("s3://")
    run = run_now(cluster, job["id"])
    assert run["state"] == "succeeded", run
    assert run["output_tail"] == f"script {job['id']} {run['fire_time']} there\nnobody\n"


def test_a_binary_runs(cluster: Cluster) -> None:
    with open("/bin/echo", "rb") as file:
        encoded = base64.b64encode(file.read()).decode()
    job = cluster.post_job(executable=encoded, schedule="@yearly", type="binary", filename="echo", args=["a  b", "%"])
    assert run_now(cluster, job["id"])["output_tail"] == "a  b %\n"


def test_root_is_for_admins(cluster: Cluster) -> None:
    fields = {"executable": "id -u", "schedule": "@yearly", "type": "command", "run_as": "root"}
    refused = cluster.request("POST", "/jobs", fields, token=cluster.new_token("operator"))
    assert refused.status == 403
    assert refused.json()["errors"][0]["field"] == "run_as"
    job = cluster.post_job(**fields)
    assert run_now(cluster, job["id"])["output_tail"] == "0\n"


def test_a_failing_job_shows_an_error_and_goes_on(cluster: Cluster) -> None:
    job = cluster.post_job(executable="echo oops >&2; exit 3", schedule="@yearly", type="command")
    run = run_now(cluster, job["id"])
    assert (run["state"], run["exit_code"], run["output_tail"]) == ("failed", 3, "oops\n")
    found = cluster.get(f"/jobs/{job['id']}").json()
    assert (found["status"], found["next_fire"] is not None) == ("error", True)


def test_a_long_run_can_be_followed_and_cancelled(cluster: Cluster) -> None:
    job = cluster.post_job(executable="echo begin; sleep 600", schedule="@yearly", type="command")
    wait_owned(cluster, job["id"])
    run_id = cluster.request("POST", f"/jobs/{job['id']}/run").json()["id"]
    cluster.wait(lambda: cluster.get(f"/runs/{run_id}/log").body == b"begin\n", "the log is readable while it runs")
    assert cluster.request("POST", f"/runs/{run_id}/cancel").status in (200, 202)
    run = cluster.wait(lambda: ended([cluster.get(f"/runs/{run_id}").json()]), "the run has ended")[0]
    assert (run["state"], run["reason"]) == ("cancelled", "requested")


def test_a_removed_job_leaves_the_crontab_and_keeps_its_history(cluster: Cluster) -> None:
    job = cluster.post_job(executable="true", schedule="7 7 7 7 *", type="command")
    owner = wait_owned(cluster, job["id"])
    cluster.wait(lambda: "7 7 7 7 *" in cluster.crontab(owner), "the entry is there")
    run_now(cluster, job["id"])
    assert cluster.request("DELETE", f"/jobs/{job['id']}").status in (200, 204)
    cluster.wait(lambda: "7 7 7 7 *" not in cluster.crontab(owner), "the entry is gone")
    assert cluster.get(f"/jobs/{job['id']}").json()["status"] == "finished"
    assert len(cluster.runs(job["id"])) == 1


def test_a_paused_job_leaves_the_crontab_and_comes_back(cluster: Cluster) -> None:
    job = cluster.post_job(executable="true", schedule="8 8 8 8 *", type="command")
    owner = wait_owned(cluster, job["id"])
    cluster.wait(lambda: "8 8 8 8 *" in cluster.crontab(owner), "the entry is there")
    assert cluster.request("POST", f"/jobs/{job['id']}/pause").json()["status"] == "paused"
    cluster.wait(lambda: "8 8 8 8 *" not in cluster.crontab(owner), "the entry is gone")
    assert cluster.request("POST", f"/jobs/{job['id']}/resume").json()["status"] == "scheduled"
    cluster.wait(lambda: "8 8 8 8 *" in cluster.crontab(owner), "the entry is back")


def test_an_admin_moves_a_job(cluster: Cluster) -> None:
    job = cluster.post_job(executable="true", schedule="9 9 9 9 *", type="command")
    owner = wait_owned(cluster, job["id"])
    target = next(name for name in sorted(cluster.nodes) if name != owner)
    dry = cluster.request("POST", f"/jobs/{job['id']}/reassign", {"worker": target, "dry_run": True}).json()
    assert [(move["from"], move["to"]) for move in dry["moves"]] == [(owner, target)]
    assert cluster.request("POST", f"/jobs/{job['id']}/reassign", {"worker": target}).status == 200
    cluster.wait(lambda: "9 9 9 9 *" in cluster.crontab(target), "the target has the entry")
    cluster.wait(lambda: "9 9 9 9 *" not in cluster.crontab(owner), "the old owner has it no more")
    assert cluster.owner(job["id"]) == target


def test_a_selector_is_respected_and_a_job_that_fits_nowhere_waits(cluster: Cluster) -> None:
    here = cluster.post_job(executable="true", schedule="@yearly", type="command", selector="zone=b")
    nowhere = cluster.post_job(executable="true", schedule="@yearly", type="command", selector="zone=moon")
    assert wait_owned(cluster, here["id"]) == "w2"
    assert cluster.owner(nowhere["id"]) is None


def test_shards_run_each_with_its_number(cluster: Cluster) -> None:
    job = cluster.post_job(
        executable="echo $CRONKEEPER_SHARD/$CRONKEEPER_SHARDS", schedule="@yearly", type="command", shards=3
    )
    cluster.wait(lambda: cluster.request("POST", f"/jobs/{job['id']}/run").status in (200, 201, 202), "it can be run")
    cluster.wait(lambda: len(ended(cluster.runs(job["id"]))) == 3, "all shards have run")
    runs = cluster.runs(job["id"])
    assert {run["output_tail"] for run in runs} == {"0/3\n", "1/3\n", "2/3\n"}


def test_killing_an_api_server_fails_no_get(cluster: Cluster) -> None:
    statuses: list[int] = []
    cut: list[Exception] = []
    stop = threading.Event()

    def read() -> None:
        while not stop.is_set():
            try:
                statuses.append(cluster.get("/jobs?limit=5").status)
            except http.client.IncompleteRead as exc:
                # Its server died between an answer's headers and its body: HAProxy cannot repeat what has begun.
                cut.append(exc)

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    time.sleep(1)
    cluster.apis[0].kill()
    time.sleep(4)
    stop.set()
    for reader in readers:
        reader.join()
    cluster.apis[0].start()
    assert len(statuses) > 20
    assert set(statuses) == {200}
    assert len(cut) <= len(readers), cut
    cluster.wait(lambda: "rejoined" if cluster.get("/readyz").status == 200 else None, "ready again")


def test_every_part_tells_its_figures(cluster: Cluster) -> None:
    job = cluster.post_job(executable="true", schedule="@yearly", type="command")
    run_now(cluster, job["id"])
    api = cluster.get("/metrics").body.decode()
    assert "cronkeeper_api_requests_total" in api
    owner = wait_owned(cluster, job["id"])
    worker = cluster.wait(lambda: figures(cluster, owner), "the worker serves its metrics")
    assert worker["cronkeeper_worker_tasks"] >= 1
    assert worker['cronkeeper_claims_total{fence="mysql",outcome="granted"}'] >= 1
    assert worker['cronkeeper_runs_total{state="succeeded"}'] >= 1
    assert worker["cronkeeper_zookeeper_connected"] == worker["cronkeeper_mysql_reachable"] == 1
    assert worker["cronkeeper_spool_depth"] < 100
    assert worker["cronkeeper_fire_lag_seconds_count"] >= 1
    managers = [figures(cluster, name) for name in ("m1", "m2")]
    assert sorted(found["cronkeeper_leading"] for found in managers) == [0, 1]
    assert sum(found.get('cronkeeper_moves_total{kind="assigned",reason="new"}', 0) for found in managers) >= 1


def figures(cluster: Cluster, name: str) -> dict[str, float]:
    """Return the metrics of a manager or worker, by name and labels."""
    with urllib.request.urlopen(f"http://{cluster.metrics[name]}/metrics", timeout=5) as response:
        lines = response.read().decode().splitlines()
    return {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if not line.startswith("#")}


def multipart(cluster: Cluster, fields: dict[str, Any], content: bytes) -> dict[str, Any]:
    """Post a job as multipart/form-data, as curl -F does."""
    boundary = "cronkeeperboundary"
    parts = [
        f'--{boundary}\r\nContent-Disposition: form-data; name="job"\r\nContent-Type: application/json\r\n\r\n'.encode()
        + json.dumps(fields).encode(),
        f'\r\n--{boundary}\r\nContent-Disposition: form-data; name="executable"; filename="hello.sh"\r\n\r\n'.encode()
        + content,
        f"\r\n--{boundary}--\r\n".encode(),
    ]
    answer = cluster.request(
        "POST", "/jobs", b"".join(parts), headers={"Content-Type": f"multipart/form-data; boundary={boundary}"}
    )
    assert answer.status == 201, answer.body
    found: dict[str, Any] = answer.json()
    return found


def run_now(cluster: Cluster, job_id: str) -> dict[str, Any]:
    """Run a job on demand, once it has a worker, and return its ended run."""
    wait_owned(cluster, job_id)
    answer = cluster.request("POST", f"/jobs/{job_id}/run")
    assert answer.status in (200, 201, 202), answer.body
    return cluster.wait(lambda: ended(cluster.runs(job_id), trigger="manual"), f"job {job_id} has run", 30)[0]
