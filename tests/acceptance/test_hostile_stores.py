"""Whoever holds a store's password attacks the fleet: nothing of theirs runs, what they did is told, and jobs fire on.

One attacker each for ZooKeeper, MySQL and the bucket, with all rights there. What a forged task would run is a command
that leaves a file behind: there must be none. What they can still do is in SECURITY.md.
"""

from __future__ import annotations

import base64
import contextlib
import json
import secrets
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import boto3
import pytest
from botocore.config import Config
from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError
from sqlalchemy import Engine, create_engine

from cronkeeper.domain.ids import TaskId
from cronkeeper.domain.job import JobSpec, JobState, JobType
from cronkeeper.wire.task import Signer, Task
from tests.harness.cluster import Cluster

TICKING = {"schedule": "*/5 * * * * *", "type": "command", "misfire": "all", "executable": "true"}
STRANGER = Signer.from_seed(secrets.token_bytes(32))


class Attack:
    """What all attackers need: a folder that only their commands would write to, and jobs of others."""

    def __init__(self, cluster: Cluster, folder: Path) -> None:
        self.cluster = cluster
        self.folder = folder
        self.jobs = [cluster.post_job(name=f"j-{secrets.token_hex(4)}", **TICKING) for _ in range(8)]
        for job in self.jobs:
            cluster.wait(lambda: len(self.done(job)) >= 1, "it fires", 60)  # noqa: B023

    def done(self, job: dict[str, Any]) -> list[dict[str, Any]]:
        return [run for run in self.cluster.runs(job["id"]) if run["state"] == "succeeded"]

    def command(self, name: str) -> str:
        return f"touch {self.folder}/{name}"

    def forged(self, job_id: int, name: str, *, generation: int = 1000) -> bytes:
        """Return a task that runs the attacker's command, signed by the attacker."""
        spec = JobSpec(self.command(name), "*/5 * * * * *", JobType.COMMAND)
        return STRANGER.seal(Task(job_id, generation, JobState.ACTIVE, 0, spec))

    def altered(self, genuine: bytes, name: str) -> bytes:
        """Return a genuine task with another command in it: everything is right but the signature."""
        outer = json.loads(genuine)
        body = json.loads(outer["body"])
        body["spec"]["executable"] = self.command(name)
        outer["body"] = json.dumps(body, sort_keys=True, separators=(",", ":"))
        return json.dumps(outer).encode()

    def logs(self) -> str:
        parts = [*self.cluster.apis, *self.cluster.managers, *self.cluster.workers.values()]
        return "".join(part.log_text() for part in parts)

    def check(self) -> None:
        """Nothing of theirs has run, and all jobs fire on."""
        counts = {job["id"]: len(self.done(job)) for job in self.jobs}
        for job in self.jobs:
            self.cluster.wait(lambda: len(self.done(job)) >= counts[job["id"]] + 2, "it fires on", 90)  # noqa: B023
        assert list(self.folder.iterdir()) == [], "a command of theirs has run"

    def end(self) -> None:
        for job in self.jobs:
            self.cluster.request("DELETE", f"/jobs/{job['id']}")


@pytest.fixture
def attack(cluster: Cluster, tmp_path: Path) -> Iterator[Attack]:
    folder = tmp_path / "theirs"
    folder.mkdir(mode=0o777)
    found = Attack(cluster, folder)
    yield found
    found.end()


class Znodes:
    """ZooKeeper, with the fleet's own password."""

    def __init__(self, cluster: Cluster) -> None:
        hosts, _, chroot = cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
        self.root = f"/{chroot}"
        auth = [("digest", cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])]
        self.client = KazooClient(hosts=hosts, auth_data=auth)
        self.client.start(timeout=20)

    def get(self, path: str) -> bytes:
        data, _ = self.client.get(self.root + path)
        return bytes(data)

    def put(self, path: str, data: bytes, *, ephemeral: bool = False) -> None:
        if self.client.exists(self.root + path):
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


def task_path(job: dict[str, Any]) -> str:
    task = TaskId(int(job["id"]), 0)
    return f"/tasks/{task.bucket}/{task.znode}"


def test_a_writer_in_zookeeper_has_nothing_run_and_silences_nobody_for_long(attack: Attack) -> None:
    cluster, znodes = attack.cluster, Znodes(attack.cluster)
    try:
        one, two, three, four, five, six, seven, eight = attack.jobs
        genuine = znodes.get(task_path(two))
        old = znodes.get(task_path(three))
        assert cluster.request("PATCH", f"/jobs/{three['id']}", {"description": "newer"}).status == 200
        ghost = TaskId(999_999, 0)
        owner = cluster.wait(lambda: cluster.owner(one["id"]), "it has a worker")
        given = znodes.get(f"/assign/{owner}/{TaskId(int(one['id']), 0).bucket}/{one['id']}.0")
        now_ms = time.time_ns() // 1_000_000
        first = TaskId(int(one["id"]), 0)

        znodes.put(task_path(one), attack.forged(int(one["id"]), "signed-by-a-stranger"))
        znodes.put(task_path(two), attack.altered(genuine, "altered"))
        znodes.put(task_path(three), old)
        znodes.put(task_path(four), genuine)
        znodes.put(task_path(five), b'{"v": 1, "key": ')
        znodes.put(task_path(six), b"x" * 300_000)
        znodes.remove(task_path(seven))
        znodes.put(f"/tasks/{ghost.bucket}/{ghost.znode}", attack.forged(ghost.job_id, "a-job-that-nobody-posted"))
        znodes.put(f"/assign/{owner}/{ghost.bucket}/{ghost.znode}", given)
        znodes.remove(f"/assign/{owner}/{first.bucket}/{first.znode}")
        other = TaskId(int(eight["id"]), 0)
        znodes.put(f"/assign/nobody-at-all/{other.bucket}/{other.znode}", given)
        for ahead in range(1, 13):
            fire_ms = (now_ms // 5000 + ahead) * 5000
            claim = json.dumps({"v": 1, "nonce": "f" * 32, "worker": "w9", "state": "running"}).encode()
            znodes.put(f"/claims/{other.bucket}/{other.znode}@{fire_ms}", claim)
        run = f"{eight['id']}-0-{now_ms + 1}-1"
        asked = json.dumps({"v": 1, "run": run, "requested_by": "nobody"}).encode()
        znodes.put(f"/queue/{other.bucket}/{run}", asked)
        znodes.put(f"/queue/{other.bucket}/{eight['id']}-0-{now_ms + 2}-1", b"[" * 5000)

        attack.check()
        # A run that the ledger does not know was not started.
        assert all(run["trigger"] != "manual" for run in cluster.runs(eight["id"]))
        cluster.wait(lambda: "zookeeper.foreign" in attack.logs(), "what is not ours is told")
        # The leader has put right what a stranger wrote, from the rows.
        for job in (two, four, five, six, seven):
            cluster.wait(lambda: b'"sig"' in znodes.get(task_path(job)), "its task is healed", 90)  # noqa: B023
        cluster.wait(lambda: znodes.get(task_path(four)) != genuine, "it is its own task again", 90)
    finally:
        znodes.close()


@pytest.fixture
def database(cluster: Cluster) -> Iterator[Engine]:
    engine = create_engine(cluster.env["CRONKEEPER_DATABASE_URL"])
    yield engine
    engine.dispose()


def test_a_writer_in_mysql_has_nothing_run(attack: Attack, database: Engine) -> None:
    cluster = attack.cluster

    def row(job: dict[str, Any]) -> Any:
        with database.begin() as conn:
            return conn.exec_driver_sql("SELECT spec, envelope, generation FROM jobs WHERE id = %s", (job["id"],)).one()

    def write(job: dict[str, Any], **columns: Any) -> None:
        named = ", ".join(f"`{name}` = %s" for name in columns)
        touched = "updated_ms = FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000)"
        with database.begin() as conn:
            conn.exec_driver_sql(f"UPDATE jobs SET {named}, {touched} WHERE id = %s", (*columns.values(), job["id"]))

    one, two, three, four, five, six, seven, eight = attack.jobs
    before = {job["id"]: row(job) for job in attack.jobs}
    old = before[five["id"]]
    assert cluster.request("PATCH", f"/jobs/{five['id']}", {"description": "newer"}).status == 200
    spec = json.loads(before[three["id"]].spec)

    write(one, envelope=attack.forged(int(one["id"]), "signed-by-a-stranger"), generation=1000)
    write(two, envelope=attack.altered(bytes(before[two["id"]].envelope), "altered"), generation=2)
    write(three, spec=json.dumps({**spec, "executable": attack.command("another-spec")}))
    write(four, envelope=bytes(before[two["id"]].envelope), generation=2)
    write(five, envelope=bytes(old.envelope), generation=old.generation)
    write(six, envelope=b"\xff" * 1000, generation=2)
    write(seven, envelope=b"", generation=2)
    write(eight, generation=7)
    with database.begin() as conn:
        columns = "namespace, generation, state, schedule, timezone, selector, shards, effective_from_ms, created_ms"
        conn.exec_driver_sql(
            f"INSERT INTO jobs (id, name, updated_ms, search, spec, envelope, {columns}) SELECT 777777, 'theirs', "
            f"FLOOR(UNIX_TIMESTAMP(NOW(6)) * 1000), '', spec, %s, {columns} FROM jobs WHERE id = %s",
            (attack.forged(777_777, "a-row-of-their-own"), one["id"]),
        )
        conn.exec_driver_sql(
            "INSERT INTO assignments SELECT 777777, shard, worker, generation, epoch, reason, assigned_ms, since_ms"
            " FROM assignments WHERE job_id = %s",
            (one["id"],),
        )
        conn.exec_driver_sql("DELETE FROM assignments WHERE job_id = %s", (two["id"],))
    try:
        attack.check()
        cluster.wait(lambda: "task.refused" in attack.logs(), "what is refused is told", 60)
    finally:
        for job in attack.jobs:
            kept = before[job["id"]]
            write(job, envelope=bytes(kept.envelope), spec=kept.spec, generation=kept.generation)
        with database.begin() as conn:
            for table, column in (("jobs", "id"), ("assignments", "job_id"), ("job_labels", "job_id")):
                conn.exec_driver_sql(f"DELETE FROM {table} WHERE {column} = 777777")


def test_a_writer_in_the_bucket_has_nothing_run(attack: Attack) -> None:
    cluster = attack.cluster
    script = base64.b64encode(b"#!/bin/sh\nexit 0\n").decode()
    job = cluster.post_job(
        name=f"file-{secrets.token_hex(4)}", type="script", schedule="@yearly", executable=script, filename="x.sh"
    )
    client: Any = boto3.client(
        "s3",
        endpoint_url=cluster.env["CRONKEEPER_S3_ENDPOINT"],
        aws_access_key_id=cluster.env["CRONKEEPER_S3_ACCESS_KEY"],
        aws_secret_access_key=cluster.env["CRONKEEPER_S3_SECRET_KEY"],
        region_name="us-east-1",
        config=Config(s3={"addressing_style": "path"}),
    )
    bucket, key = cluster.env["CRONKEEPER_BLOB_URL"].removeprefix("s3://"), job["artifact"]["key"]
    evil = f"#!/bin/sh\n{attack.command('swapped')}\n".encode()
    owner = str(cluster.wait(lambda: cluster.owner(job["id"]), "it has a worker"))
    try:
        for data in (evil, evil[:7], b"", evil * 1000, b"#!/bin/sh\nexit 0\n" + evil, None):
            if data is None:
                client.delete_object(Bucket=bucket, Key=key)
            else:
                client.put_object(Bucket=bucket, Key=key, Body=data)
            # A node that has never had the file must ask the bucket.
            for kept in cluster.state_dir(owner).glob("artifacts/*"):
                kept.unlink()
            cluster.request("POST", f"/jobs/{job['id']}/run", {})
        attack.check()
    finally:
        cluster.request("DELETE", f"/jobs/{job['id']}")
