"""The stores, locked: nothing in ZooKeeper is open, and no part starts where a store refuses it."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.harness.cluster import CRONKEEPER, Cluster
from tests.harness.ports import free_port

#: A start is two seconds of processor time, of which a busy machine makes a minute.
_PATIENCE_S = 150
#: A password like any other, but not the one.
WRONG = secrets.token_hex(16)
JOB = {"executable": "echo locked", "schedule": "@every 2s", "type": "command"}


def test_every_part_comes_over_tls_with_an_account_of_its_own(cluster: Cluster) -> None:
    cluster.get("/jobs")
    rows = cluster.mariadb.execute("SELECT user, ssl_type FROM mysql.user WHERE ssl_type = 'ANY'")
    prefixes = {str(user).rpartition("_")[2] for user, _ in rows}
    assert {"api", "manager", "worker"} <= prefixes
    used = {str(row[1]).rpartition("_")[2] for row in cluster.mariadb.execute("SHOW PROCESSLIST")}
    assert {"api", "manager", "worker"} <= used


def test_nothing_in_zookeeper_is_open_to_anybody_after_the_cluster_was_busy(cluster: Cluster) -> None:
    job = cluster.post_job(**JOB)
    cluster.wait(lambda: [run for run in cluster.runs(job["id"]) if run["state"] == "succeeded"], "it ran", 30)
    cluster.request("POST", f"/jobs/{job['id']}/run", {})
    cluster.request("POST", "/workers/w1/cordon", {})
    cluster.request("POST", "/workers/w1/uncordon", {})
    chroot = "/" + cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")[2]
    acls = cluster.zookeeper.walk(chroot, cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])
    cluster.request("DELETE", f"/jobs/{job['id']}")
    # The folders and their buckets, the workers, the task and what is said of it.
    assert len(acls) > 780
    assert [path for path, some in acls.items() if any(acl.id.scheme != "digest" for acl in some)] == []
    assert cluster.zookeeper.open_to_anybody(sorted(acls)) == []


def _env(cluster: Cluster, part: str, folder: Path, **changes: str) -> dict[str, str]:
    return {
        **cluster.env,
        **cluster.part_env[part],
        "CRONKEEPER_BIND": f"127.0.0.1:{free_port()}",
        "CRONKEEPER_STATE_DIR": str(folder / "state"),
        "CRONKEEPER_CRON_DIR": str(folder),
        "CRONKEEPER_WORKER_ID": "x-refused",
        "CRONKEEPER_MANAGER_ID": "refused",
        # The daemon of a developer's machine may not reach our Python as anybody else.
        "CRONKEEPER_DAEMON_ACCOUNT": "root",
        **changes,
    }


def _started(part: str, env: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [CRONKEEPER, part], env=dict(env), capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    )


@pytest.mark.parametrize("part", ["api", "manager", "worker"])
def test_no_part_starts_with_a_wrong_password_for_zookeeper(cluster: Cluster, tmp_path: Path, part: str) -> None:
    done = _started(part, _env(cluster, part, tmp_path, CRONKEEPER_ZOOKEEPER_AUTH=f"cronkeeper:{WRONG}"))
    assert done.returncode == 2, done.stderr
    assert "ZooKeeper refuses us access" in done.stdout + done.stderr


@pytest.mark.parametrize("part", ["api", "manager", "worker"])
def test_no_part_starts_with_passwords_that_all_the_world_knows(cluster: Cluster, tmp_path: Path, part: str) -> None:
    """Though the stores might take them: none of them is asked."""
    env = _env(
        cluster,
        part,
        tmp_path,
        CRONKEEPER_ZOOKEEPER_AUTH="cronkeeper:cronkeeper",
        CRONKEEPER_S3_SECRET_KEY="minioadmin",
    )
    done = _started(part, env)
    assert done.returncode == 2, done.stderr
    for setting in ("zookeeper_auth", "s3_secret_key"):
        assert f"{setting}: a password " in done.stderr
    assert "database_url" not in done.stderr
    assert "minioadmin" not in done.stdout + done.stderr


@pytest.mark.parametrize("part", ["api", "manager", "worker"])
def test_no_part_starts_with_the_account_of_another(cluster: Cluster, tmp_path: Path, part: str) -> None:
    url = cluster.part_env["reader"]["CRONKEEPER_DATABASE_URL"]
    done = _started(part, _env(cluster, part, tmp_path, CRONKEEPER_DATABASE_URL=url))
    assert done.returncode == 2, done.stderr
    assert "command denied" in done.stdout + done.stderr


@pytest.mark.parametrize("part", ["api", "worker"])
def test_no_part_starts_with_wrong_keys_for_the_object_store(cluster: Cluster, tmp_path: Path, part: str) -> None:
    done = _started(part, _env(cluster, part, tmp_path, CRONKEEPER_S3_SECRET_KEY=WRONG))
    assert done.returncode == 2, done.stderr
    assert "object store: canary: the server says 403" in done.stdout + done.stderr


def test_the_doctor_finds_what_is_refused(cluster: Cluster, tmp_path: Path) -> None:
    env = _env(cluster, "api", tmp_path)
    words = {line.split("  ")[0].strip() for line in _doctor(env).splitlines() if "cron  " not in line}
    assert "FAULT" not in words
    wrong = {
        **env,
        "CRONKEEPER_DATABASE_URL": env["CRONKEEPER_DATABASE_URL"].replace("_api:", "_nobody:"),
        "CRONKEEPER_ZOOKEEPER_AUTH": f"cronkeeper:{WRONG}",
        "CRONKEEPER_S3_SECRET_KEY": WRONG,
    }
    found = _doctor(wrong)
    for what in ("database", "zookeeper", "object store"):
        assert any(line.startswith("FAULT") and what in line for line in found.splitlines()), found


def _doctor(env: Mapping[str, str]) -> str:
    return subprocess.run(
        [CRONKEEPER, "doctor"], env=dict(env), capture_output=True, text=True, timeout=_PATIENCE_S, check=False
    ).stdout


def test_the_stand_in_starts_nothing_where_a_store_refuses_it(cluster: Cluster, tmp_path: Path) -> None:
    from cronkeeper.runtime.config import load
    from cronkeeper_worker import node_files
    from cronkeeper_worker.config import WorkerConfig

    state = tmp_path / "state"
    node_files.prepare(state)
    flags = {key.removeprefix("CRONKEEPER_").lower(): value for key, value in _env(cluster, "worker", tmp_path).items()}
    known = {key: value for key, value in flags.items() if key in WorkerConfig.__dataclass_fields__}
    known["database_url"] = known["database_url"].replace("_worker:", "_nobody:")
    node_files.save_settings(state, load(WorkerConfig, file=None, environ={}, flags=known))
    argv = [sys.executable, "-m", "cronkeeper_worker.away", str(state), "1"]
    done = subprocess.run(argv, env={"PATH": os.environ["PATH"]}, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 2
    assert "nothing is started until somebody mends this: database_url" in (state / "away.log").read_text()
