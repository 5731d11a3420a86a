"""The attacks of whoever holds ZooKeeper's password.

What they cannot be kept from: taking assignments and tasks away again and again, standing in the way of an election
(both told), and asking for runs of jobs that exist.
"""

from __future__ import annotations

import contextlib
import json
import time
from typing import Any

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from kazoo.security import make_digest_acl

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.instants import rfc3339
from tests.acceptance.hostile.ground import Ground, Job, Sign, Table

attack = Table()
#: What `test_leading.py` does on its own, as nothing is told while nobody leads.
NO_LEADER_S = 35.0


class Intruder:
    """ZooKeeper, with the fleet's own password."""

    def __init__(self, ground: Ground) -> None:
        self.ground = ground
        cluster = ground.cluster
        hosts, _, chroot = cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
        self.root = f"/{chroot}"
        auth = [("digest", cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])]
        self.client = KazooClient(hosts=hosts, auth_data=auth)
        self.client.start(timeout=20)

    def get(self, path: str) -> bytes:
        data, _ = self.client.get(self.root + path)
        return bytes(data)

    def has(self, path: str) -> bool:
        return self.client.exists(self.root + path) is not None

    def put(self, path: str, data: bytes, *, ephemeral: bool = False) -> None:
        if self.has(path):
            self.client.set(self.root + path, data)
        else:
            acl = self.client.get_acls(self.root)[0]
            self.client.create(self.root + path, data, acl=acl, makepath=True, ephemeral=ephemeral)

    def remove(self, path: str) -> None:
        with contextlib.suppress(NoNodeError):
            self.client.delete(self.root + path)

    def close(self) -> None:
        self.client.stop()
        self.client.close()

    # -- what the attacks have in common

    def replace_task(self, job: Job, data: bytes) -> Sign:
        """Put other bytes in the place of a task: refused by its worker, and healed from the row."""
        path, task = task_path(job), TaskId(int(job["id"]), 0)
        genuine = self.get(path)
        self.put(path, data)
        return Sign(
            told=lambda: self.ground.log_says("task.refused", task=task),
            healed=lambda: self.get(path) == genuine,
        )


def task_path(job: Job) -> str:
    task = TaskId(int(job["id"]), 0)
    return f"/tasks/{task.bucket}/{task.znode}"


def assign_path(worker: str, job_id: int) -> str:
    task = TaskId(job_id, 0)
    return f"/assign/{worker}/{task.bucket}/{task.znode}"


@attack()
def a_task_signed_by_a_stranger(us: Intruder, job: Job) -> Sign:
    return us.replace_task(job, us.ground.forged(int(job["id"]), "signed-by-a-stranger"))


@attack()
def another_command_under_a_genuine_signature(us: Intruder, job: Job) -> Sign:
    return us.replace_task(job, us.ground.altered(us.get(task_path(job)), "altered"))


@attack()
def the_genuine_task_of_another_job(us: Intruder, job: Job) -> Sign:
    evil = us.ground.cluster.post_job(
        executable=us.ground.command("of-another-job"), type="command", schedule="@yearly", selector="zone=nowhere"
    )
    return us.replace_task(job, us.get(task_path(evil)))


@attack()
def a_task_that_is_no_json(us: Intruder, job: Job) -> Sign:
    return us.replace_task(job, b'{"v": 1, "key": ')


@attack()
def a_task_of_300_kilobytes(us: Intruder, job: Job) -> Sign:
    return us.replace_task(job, b"x" * 300_000)


@attack()
def a_task_nested_100000_deep(us: Intruder, job: Job) -> Sign:
    return us.replace_task(job, b"[" * 100_000)


@attack()
def an_older_generation_put_back(us: Intruder, job: Job) -> Sign:
    old, path = us.get(task_path(job)), task_path(job)
    changed = us.ground.cluster.request("PATCH", f"/jobs/{job['id']}", {"description": "newer"})
    assert changed.status == 200, changed.body
    newer = us.ground.cluster.wait(lambda: us.get(path) != old and us.get(path), "the newer one is there")
    # Its worker has it, and has run it.
    us.ground.cluster.wait(lambda: us.ground.ran_by_generation(job, 2, since_ms=0), "the newer one has run")
    now_ms = time.time_ns() // 1_000_000
    us.put(path, old)
    return Sign(
        healed=lambda: us.get(path) == newer,
        told=lambda: us.ground.log_says("znode.healed"),
        never=lambda: us.ground.ran_by_generation(job, 1, since_ms=now_ms),
    )


@attack()
def a_task_taken_away(us: Intruder, job: Job) -> Sign:
    genuine, path = us.get(task_path(job)), task_path(job)
    us.remove(path)
    return Sign(
        healed=lambda: us.has(path) and us.get(path) == genuine, told=lambda: us.ground.log_says("znode.restored")
    )


@attack()
def a_job_that_nobody_posted_given_to_a_worker(us: Intruder, job: Job) -> Sign:
    owner = us.ground.owner(job)
    given = us.get(assign_path(owner, int(job["id"])))
    ghost = {"id": "999999"}
    us.put(task_path(ghost), us.ground.forged(999_999, "a-job-that-nobody-posted"))
    us.put(assign_path(owner, 999_999), given)
    return Sign(
        told=lambda: us.ground.log_says("task.refused", task="999999/0"),
        healed=lambda: not us.has(assign_path(owner, 999_999)),
    )


@attack()
def a_genuine_task_as_a_shard_that_the_job_has_not(us: Intruder, job: Job) -> Sign:
    shard = TaskId(int(job["id"]), 7)
    owner = us.ground.owner(job)
    path = f"/tasks/{shard.bucket}/{shard.znode}"
    us.put(path, us.get(task_path(job)))
    us.put(f"/assign/{owner}/{shard.bucket}/{shard.znode}", us.get(assign_path(owner, int(job["id"]))))
    return Sign(healed=lambda: not us.has(path), told=lambda: us.ground.log_says("znode.dropped"))


@attack()
def an_assignment_taken_away(us: Intruder, job: Job) -> Sign:
    path = assign_path(us.ground.owner(job), int(job["id"]))
    us.remove(path)
    return Sign(healed=lambda: us.has(path))


@attack()
def an_assignment_to_a_second_worker(us: Intruder, job: Job) -> Sign:
    """Both may believe that the job is theirs: MySQL grants each fire once, and one of them is to let go."""
    owner = us.ground.owner(job)
    workers = sorted(us.ground.cluster.workers)
    other = next(name for name in workers if name != owner)
    given = json.loads(us.get(assign_path(owner, int(job["id"]))))
    forged = json.dumps({**given, "epoch": given["epoch"] + 10**9}).encode()
    us.put(assign_path(other, int(job["id"])), forged)

    def is_one_workers_again() -> bool:
        return sum(us.has(assign_path(name, int(job["id"]))) for name in workers) == 1

    return Sign(healed=is_one_workers_again)


@attack()
def an_assignment_to_a_worker_of_no_name(us: Intruder, job: Job) -> Sign:
    path = assign_path("nobody-at-all", int(job["id"]))
    us.put(path, us.get(assign_path(us.ground.owner(job), int(job["id"]))))
    return Sign(healed=lambda: not us.has(path))


@attack()
def claims_made_for_fires_to_come(us: Intruder, job: Job) -> Sign:
    """ZooKeeper's fence is asked only while MySQL is away: those very fires are decided by the job's own worker.

    Unless it takes the job over meanwhile: then it carries home what is due, and has to take a stranger's word for it.
    Such a run is told of, and given up, so that it keeps no other from starting.
    """
    task, now_ms = TaskId(int(job["id"]), 0), time.time_ns() // 1_000_000
    fires = [(now_ms // 5000 + ahead) * 5000 for ahead in range(2, 12)]
    claim = json.dumps({"v": 1, "nonce": "f" * 32, "worker": "w9", "state": "running"}).encode()
    for fire_ms in fires:
        us.put(f"/claims/{task.bucket}/{task.znode}@{fire_ms}", claim)
    wanted = {f"{job['id']}-0-{fire_ms}-1": fire_ms for fire_ms in fires}

    def are_decided() -> bool:
        runs = {run["id"]: run for run in us.ground.cluster.runs(job["id"])}
        if not wanted.keys() <= runs.keys():
            return False
        theirs = {name for name in wanted if runs[name]["worker"] == "w9"}
        told = {name for name in theirs if us.ground.log_says("run.phantom", "w9", fire=f"{task}@{wanted[name]}")}
        return theirs == told and all(runs[name]["state"] == "lost" for name in theirs)

    def fires_on() -> bool:
        later = [run for run in us.ground.cluster.runs(job["id"]) if run["state"] == "succeeded"]
        return any(run["id"] not in wanted and run["fire_time"] > rfc3339(max(fires)) for run in later)

    return Sign(healed=lambda: are_decided() and fires_on())


@attack()
def a_flood_of_runs_that_nobody_asked_for(us: Intruder, job: Job) -> Sign:
    task, now_ms = TaskId(int(job["id"]), 0), time.time_ns() // 1_000_000
    folder = f"/queue/{task.bucket}"
    names = [f"{job['id']}-0-{now_ms + number}-1" for number in range(300)]
    for name in names:
        us.put(f"{folder}/{name}", json.dumps({"v": 1, "run": name, "requested_by": "nobody"}).encode())
    us.put(f"{folder}/{job['id']}-0-{now_ms + 301}-1", b"[" * 5000)

    def is_tidy() -> bool:
        left = set(us.client.get_children(us.root + folder)) & set(names)
        # What the ledger does not know was not started.
        assert all(run["trigger"] != "manual" for run in us.ground.cluster.runs(job["id"]))
        return not left

    return Sign(healed=is_tidy, told=lambda: us.ground.log_says("zookeeper.foreign"))


@attack()
def a_worker_that_is_none_with_a_huge_capacity(us: Intruder, job: Job) -> Sign:
    """It has a session, and MySQL has never heard of it: it is given nothing."""
    info = {
        "v": 1, "id": "x-ghost", "host": "x-ghost", "labels": {"zone": "a"}, "capacity": 10**9, "version": "9",
        "epoch": "e", "pid": 1, "started_ms": 1,
    }  # fmt: skip
    us.put("/workers/x-ghost", json.dumps(info).encode(), ephemeral=True)
    later = [us.ground.cluster.post_job(executable="true", type="command", schedule="@yearly") for _ in range(4)]

    def elsewhere() -> bool:
        owners = [us.ground.cluster.owner(one["id"]) for one in later]
        assert "x-ghost" not in owners
        return all(owners)

    return Sign(told=lambda: us.ground.event_says("worker.half_seen", "x-ghost"), healed=elsewhere)


@attack()
def a_dead_worker_kept_alive_by_a_forged_session(us: Intruder, job: Job) -> Sign:
    info = {
        "v": 1, "id": "w8", "host": "w8", "labels": {}, "capacity": 10, "version": "9", "epoch": "e", "pid": 1,
        "started_ms": 1, "secrets_keys": ["nobodys"], "leaving": False,
    }  # fmt: skip
    us.put("/workers/w8", json.dumps(info).encode(), ephemeral=True)
    return Sign(told=lambda: us.ground.event_says("worker.half_seen", "w8", "MySQL hears nothing"))


@attack()
def a_worker_cordoned_in_its_znode(us: Intruder, job: Job) -> Sign:
    before = us.get("/nodes/w3")
    us.put("/nodes/w3", json.dumps({**json.loads(before), "cordoned": True}).encode())

    def told() -> bool:
        return us.ground.event_says("cordon.unknown", "w3")

    return Sign(told=told, mend=lambda: us.ground.uncordon("w3"))


@attack()
def the_sign_that_the_tree_is_complete_taken_away(us: Intruder, job: Job) -> Sign:
    us.remove("/ready")
    return Sign(healed=lambda: us.has("/ready"), told=lambda: us.ground.log_says("tree.ready"))


@attack()
def the_anchor_of_the_audit_trail_taken_away(us: Intruder, job: Job) -> Sign:
    had = us.ground.cluster.wait(lambda: us.has("/trail"), "there is an anchor", 90)
    assert had
    us.remove("/trail")
    return Sign(healed=lambda: us.has("/trail"))


@attack()
def a_task_locked_by_another_acl(us: Intruder, job: Job) -> Sign:
    """Nobody of ours may read or write it any more. Its worker goes on with what it has; the leader makes it anew."""
    path = us.root + task_path(job)
    ours, genuine = us.client.get_acls(path)[0], us.get(task_path(job))
    us.client.set_acls(path, [make_digest_acl("them", "theirs", all=True)])

    def is_ours_again() -> bool:
        return bool(us.client.get_acls(path)[0] == ours and us.get(task_path(job)) == genuine)

    return Sign(told=lambda: us.ground.log_says("zookeeper.locked", task_path(job)), healed=is_ours_again)


def forged_candidate(us: Intruder) -> Any:
    """Stand before all others: nobody leads. Returns its path."""
    note = {"v": 1, "id": "m0", "address": "", "epoch": 0, "reaches_mysql": True}
    us.put(f"/leader/{'0' * 32}-candidate-0000000000", json.dumps(note).encode(), ephemeral=True)
    return f"/leader/{'0' * 32}-candidate-0000000000"
