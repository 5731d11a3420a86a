"""What a part's death or absence means to a user of the whole cluster. Each test ends with all parts well again."""

from __future__ import annotations

import time
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from tests.harness.cluster import Cluster

EVERY_MINUTE = {"schedule": "* * * * *", "type": "command"}
EVERY_FEW_SECONDS = {"schedule": "*/5 * * * * *", "type": "command", "concurrency": "allow"}


def fires(cluster: Cluster, job_id: str) -> list[tuple[str, str]]:
    """Return (fire time, state) of all runs, oldest first."""
    answer = cluster.get(f"/jobs/{job_id}/runs?limit=1000")
    return sorted((run["fire_time"], run["state"]) for run in answer.json())


def assert_gapless(found: list[tuple[str, str]], step_ms: int) -> None:
    """Every fire time has exactly one run or a reasoned skip; none is missing in between, none is there twice."""
    times = [parse_rfc3339(fire_time) for fire_time, _ in found]
    assert times == list(range(times[0], times[-1] + step_ms, step_ms)), found


@pytest.fixture
def ticking(cluster: Cluster) -> Any:
    """A job that fires every five seconds, and is removed afterwards."""
    job = cluster.post_job(executable="true", name=f"tick-{time.monotonic_ns()}", misfire="all", **EVERY_FEW_SECONDS)
    cluster.wait(lambda: len(fires(cluster, job["id"])) >= 2, "it ticks", 40)
    yield job
    cluster.request("DELETE", f"/jobs/{job['id']}")


def test_killing_the_leader_and_a_worker_moves_the_jobs_and_they_fire_on(
    cluster: Cluster, ticking: dict[str, Any]
) -> None:
    job_id = ticking["id"]
    owner = cluster.owner(job_id)
    assert owner is not None
    leader = cluster.leader()
    leader.kill()
    cluster.nodes[owner].stop()
    killed_ms = time.time_ns() // 1_000_000
    new = cluster.wait(
        lambda: (found := cluster.owner(job_id)) not in (None, owner) and found, "another worker has it", 60
    )
    cluster.wait(lambda: parse_rfc3339(fires(cluster, job_id)[-1][0]) > killed_ms + 30_000, "it fires on", 90)
    found = [fire for fire in fires(cluster, job_id) if fire[1] in ("succeeded", "lost", "skipped")]
    assert_gapless(sorted({(fire_time, "") for fire_time, _ in found}), 5000)
    assert f" {job_id}/0" in cluster.crontab(str(new))
    leader.start()
    zone = {"w1": "a", "w2": "b", "w3": "c"}[owner]
    cluster.add_worker(owner, {"zone": zone})
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are back", 60)
    # What went to others meanwhile was found out before anything was fired.
    log = cluster.workers[owner].log_text()
    back = log[log.rindex("--- ") :]
    assert 0 < back.index('"tasks.moved"') < back.index('"worker.ready"')
    assert f" {job_id}/0" not in cluster.crontab(owner)


def test_a_clean_stop_waits_for_its_runs_and_lets_nothing_run_twice(cluster: Cluster, ticking: dict[str, Any]) -> None:
    job = cluster.post_job(executable="sleep 4", name=f"long-{time.monotonic_ns()}", type="command", schedule="@yearly")
    owner = str(cluster.wait(lambda: cluster.owner(job["id"]), "it has a worker"))
    cluster.request("POST", f"/jobs/{job['id']}/run", {})
    cluster.wait(lambda: [run["state"] for run in cluster.runs(job["id"])] == ["running"], "it runs")
    cluster.workers[owner].stop()
    # It is over by now, and told: the goodbye came after it.
    runs = [(run["state"], run["attempt"], run["worker"]) for run in cluster.runs(job["id"])]
    assert runs == [("succeeded", 1, owner)]
    assert cluster.owner(job["id"]) not in (None, owner)
    assert cluster.crontab(owner) == ""
    cluster.workers[owner].start()
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are back", 60)
    assert len(cluster.runs(job["id"])) == 1
    cluster.request("DELETE", f"/jobs/{job['id']}")
    assert_gapless(fires(cluster, ticking["id"]), 5000)


def test_with_mysql_down_nothing_is_half_saved_and_jobs_fire_on(cluster: Cluster, ticking: dict[str, Any]) -> None:
    before = [job["id"] for job in cluster.get("/jobs").json()]
    cluster.mariadb.pause()
    try:
        answer = cluster.request("POST", "/jobs", {"executable": "true", **EVERY_MINUTE})
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) > 0
        down_ms = time.time_ns() // 1_000_000
        time.sleep(15)
    finally:
        cluster.mariadb.resume()
    up_ms = time.time_ns() // 1_000_000
    cluster.wait(
        lambda: [job["id"] for job in cluster.get("/jobs").json()] == before, "the API answers, nothing was saved", 60
    )
    cluster.wait(
        lambda: parse_rfc3339(fires(cluster, ticking["id"])[-1][0]) > up_ms + 10_000, "the ledger is complete", 60
    )
    found = fires(cluster, ticking["id"])
    assert_gapless(found, 5000)
    meanwhile = [fire for fire in found if down_ms < parse_rfc3339(fire[0]) < up_ms]
    assert len(meanwhile) >= 2
    assert {state for _, state in meanwhile} == {"succeeded"}


def test_with_zookeeper_down_a_job_is_accepted_and_fires_once_it_is_back(cluster: Cluster) -> None:
    for member in range(3):
        cluster.zookeeper.pause_member(member)
    try:
        time.sleep(2)
        job = cluster.post_job(executable="echo late but there", **EVERY_FEW_SECONDS)
    finally:
        for member in range(3):
            cluster.zookeeper.resume_member(member)
    cluster.wait(lambda: [f for f in fires(cluster, job["id"]) if f[1] == "succeeded"], "it fires", 90)
    cluster.request("DELETE", f"/jobs/{job['id']}")
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are up", 60)


def test_a_wiped_zookeeper_is_rebuilt_without_a_lost_or_doubled_fire(cluster: Cluster, ticking: dict[str, Any]) -> None:
    owner = cluster.owner(ticking["id"])
    wipe(cluster)
    wiped_ms = time.time_ns() // 1_000_000
    cluster.wait(lambda: parse_rfc3339(fires(cluster, ticking["id"])[-1][0]) > wiped_ms + 25_000, "it fires on", 90)
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are up", 60)
    assert_gapless(fires(cluster, ticking["id"]), 5000)
    assert cluster.owner(ticking["id"]) == owner
    job = cluster.post_job(executable="true", schedule="6 6 6 6 *", type="command")
    new_owner = cluster.wait(lambda: cluster.owner(job["id"]), "new jobs are placed", 30)
    cluster.wait(lambda: "6 6 6 6 *" in cluster.crontab(str(new_owner)), "and installed", 30)


def test_with_its_daemon_killed_a_node_fires_by_its_crontab_alone(cluster: Cluster) -> None:
    job = cluster.post_job(executable="echo by cron", selector="zone=c", **EVERY_MINUTE)
    cluster.wait(lambda: f" {job['id']}/0" in cluster.crontab("w3"), "the entry is there", 30)
    # The whole control plane pauses, so that nobody takes the job over meanwhile.
    for manager in cluster.managers:
        manager.pause()
    try:
        cluster.workers["w3"].kill(group=False)
        killed_ms = time.time_ns() // 1_000_000
        run = cluster.wait(
            lambda: [
                run
                for run in cluster.runs(job["id"])
                if parse_rfc3339(run["fire_time"]) > killed_ms and run["state"] == "succeeded"
            ],
            "cron alone has fired it",
            100,
        )[0]
    finally:
        for manager in cluster.managers:
            manager.resume()
        cluster.workers["w3"].start()
    assert (run["trigger"], run["worker"], run["output_tail"]) == ("cron", "w3", "by cron\n")
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are up", 60)
    cluster.request("DELETE", f"/jobs/{job['id']}")


def test_a_run_outlives_its_daemon_and_ends_once(cluster: Cluster) -> None:
    job = cluster.post_job(
        executable="echo begun; sleep 6; echo done; exit 4", schedule="@yearly", type="command", selector="zone=b"
    )
    cluster.wait(lambda: cluster.owner(job["id"]) == "w2", "it is placed")
    run_id = cluster.request("POST", f"/jobs/{job['id']}/run").json()["id"]
    cluster.wait(lambda: cluster.get(f"/runs/{run_id}").json()["state"] == "running", "it runs")
    cluster.workers["w2"].kill(group=False)
    cluster.workers["w2"].start()
    cluster.wait(lambda: cluster.get(f"/runs/{run_id}").json()["ended_at"], "its end is told", 60)
    (run,) = cluster.runs(job["id"])
    assert (run["state"], run["exit_code"], run["attempt"], run["output_tail"]) == ("failed", 4, 1, "begun\ndone\n")
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are up", 60)


def test_at_its_start_a_worker_unschedules_what_it_should_not_have(cluster: Cluster) -> None:
    gone = cluster.post_job(executable="true", schedule="4 4 4 4 *", type="command", selector="zone=b")
    cluster.wait(lambda: "4 4 4 4 *" in cluster.crontab("w2"), "the entry is there", 30)
    foreign = cluster.nodes["w2"].cron_d / "somebody-elses"
    foreign.write_bytes(b"# not ours\n1 1 1 1 * root true")
    cluster.workers["w2"].kill(group=False)
    stale = cluster.nodes["w2"].cron_d / "cronkeeper-7"
    stale.write_text("* * * * * root /bin/false 1\n")
    cluster.request("DELETE", f"/jobs/{gone['id']}")
    cluster.workers["w2"].start()
    cluster.wait(lambda: not stale.exists(), "the stale file is gone", 10)
    cluster.wait(lambda: "4 4 4 4 *" not in cluster.crontab("w2"), "the finished job's entry is gone", 30)
    assert foreign.read_bytes() == b"# not ours\n1 1 1 1 * root true"
    foreign.unlink()
    cluster.wait(lambda: len(cluster.workers_up()) == 3, "all workers are up", 60)


def test_a_bad_job_never_stops_another_one(cluster: Cluster, ticking: dict[str, Any]) -> None:
    broken = cluster.post_job(executable="true", **EVERY_FEW_SECONDS)
    cluster.wait(lambda: cluster.owner(broken["id"]), "it is placed")
    cluster.mariadb.execute(
        f"UPDATE jobs SET spec = 'no json', schedule = 'x' WHERE id = {broken['id']}", cluster.database
    )
    later = cluster.post_job(executable="echo fine", **EVERY_FEW_SECONDS)
    cluster.wait(lambda: [f for f in fires(cluster, later["id"]) if f[1] == "succeeded"], "another job fires", 60)
    now_ms = time.time_ns() // 1_000_000
    cluster.wait(lambda: parse_rfc3339(fires(cluster, ticking["id"])[-1][0]) > now_ms, "and so does the old one", 30)
    assert broken["id"] not in [job["id"] for job in cluster.get("/jobs").json()]
    cluster.mariadb.execute(f"DELETE FROM jobs WHERE id = {broken['id']}", cluster.database)
    cluster.request("DELETE", f"/jobs/{later['id']}")


def wipe(cluster: Cluster) -> None:
    """Remove everything below the chroot with the owner's rights, as a careless operator might."""
    from kazoo.client import KazooClient
    from kazoo.exceptions import NoNodeError, NotEmptyError

    hosts, _, chroot = cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
    client = KazooClient(hosts=hosts, auth_data=[("digest", cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])])
    client.start(timeout=10)
    try:
        for name in client.get_children(f"/{chroot}"):
            for _ in range(20):
                try:
                    client.delete(f"/{chroot}/{name}", recursive=True)
                    break
                except NoNodeError:
                    break
                except NotEmptyError:
                    continue
    finally:
        client.stop()
        client.close()
