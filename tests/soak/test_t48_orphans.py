"""T48: what a worker finds at its start that should not be there, and what it does not find that should.

Its daemon is killed; files of nobody, of moved and of finished jobs are left in its crontab folder; its journal is
damaged, with a run in progress. The next daemon unschedules before it fires, and loses nothing that MySQL knows.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from cronkeeper.domain.instants import parse_rfc3339
from cronkeeper_worker.node_files import NodeLock
from tests.faults import cron_cluster as on
from tests.harness.cluster import Cluster

pytest_plugins = ("tests.faults.cron_fixture",)

WORKER = "w3"


def garbage(journal: Path) -> None:
    """A file that SQLite does not take for its own."""
    journal.write_bytes(b"no database at all\n" * 5000)


def broken_pages(journal: Path) -> None:
    """A database whose first page is sound, and nothing else."""
    with closing(sqlite3.connect(journal)) as db:
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    data = bytearray(journal.read_bytes())
    assert len(data) > 4096
    for offset in range(4096, len(data), 4096):
        data[offset : offset + 64] = b"\xa5" * 64
    journal.write_bytes(data)


def orphans(cluster: Cluster, fire: str) -> list[Path]:
    """Leave in the node's crontab folder what earlier lives might have left; return what must go."""
    folder = cluster.nodes[WORKER].cron_d
    whole, half, text = folder / "cronkeeper-7", folder / ".cronkeeper-0.tmp", folder / "cronkeeper-1"
    whole.write_text(f"# tasks 99999/0\n* * * * * root {fire} 1\n")
    half.write_text("* * * *")
    text.write_bytes(b"\xff\xfe no crontab")
    return [whole, half, text]


def log_lines(cluster: Cluster) -> list[dict[str, Any]]:
    """Return what the worker's daemon has logged, in order."""
    lines = cluster.workers[WORKER].log_text().splitlines()
    return [json.loads(line) for line in lines if line.startswith("{")]


def is_ready(cluster: Cluster, starts: int) -> bool:
    """Say whether the daemon has become ready that many times."""
    return ready_count(cluster) >= starts


def ready_count(cluster: Cluster) -> int:
    """Return how often the daemon has become ready."""
    return [line.get("event") for line in log_lines(cluster)].count("worker.ready")


@pytest.mark.parametrize("damage", [garbage, broken_pages])
def test_t48_orphans_at_start(cron_cluster: Cluster, damage: Callable[[Path], None]) -> None:
    cluster = cron_cluster
    job_id = on.post_ticking(cluster, WORKER)
    gone, long = (
        cluster.post_job(executable=executable, schedule=schedule, type="command", selector="zone=c")["id"]
        for executable, schedule in (("true", "9 9 9 9 *"), ("echo begun; sleep 20; echo done; exit 3", "@yearly"))
    )
    cluster.wait(lambda: "9 9 9 9 *" in cluster.crontab(WORKER), "the entry is there", 30)
    run_id = cluster.request("POST", f"/jobs/{long}/run").json()["id"]
    cluster.wait(lambda: cluster.get(f"/runs/{run_id}").json()["state"] == "running", "it runs", 30)
    starts = ready_count(cluster)
    began_ms = on.now_ms()

    cluster.workers[WORKER].kill(group=False)
    fire = str(cluster.state_dir(WORKER) / "bin" / "cronkeeper-fire")
    unwanted = orphans(cluster, fire)
    foreign = cluster.nodes[WORKER].cron_d / "somebody-elses"
    foreign.write_bytes(b"# not ours\n1 1 1 1 * root true")
    assert cluster.request("DELETE", f"/jobs/{gone}").status in (200, 204)
    # Not while cron's call stands in for the daemon: what it holds in memory could mend some of it.
    lock = NodeLock(cluster.daemon_dir(WORKER))
    assert lock.acquire(60)
    damage(cluster.daemon_dir(WORKER) / "journal.db")
    lock.release()
    cluster.workers[WORKER].start()

    cluster.wait(partial(is_ready, cluster, starts + 1), "the daemon is ready", 60)
    # Ready means that from now on it fires: nothing of all that may stand there any more.
    assert [path.name for path in unwanted if path.exists()] == []
    assert foreign.read_bytes() == b"# not ours\n1 1 1 1 * root true"
    foreign.unlink()
    (told,) = cluster.wait(
        partial(on.events, cluster, WORKER, "journal.corrupt", since_ms=began_ms), "it tells what it found", 60
    )
    assert "journal.db.corrupt-" in told.detail
    assert list(cluster.daemon_dir(WORKER).glob("journal.db.corrupt-*[0-9]"))

    back_ms = on.now_ms()
    cluster.wait(
        lambda: parse_rfc3339(on.runs(cluster, job_id)[-1]["fire_time"]) > back_ms + 2 * on.STEP_MS, "it fires on", 60
    )
    assert "9 9 9 9 *" not in cluster.crontab(WORKER)
    on.assert_each_fire_ran_once(cluster, job_id)
    # The run that was in progress is known to MySQL: it ends once, with its own status and its whole output.
    cluster.wait(lambda: cluster.get(f"/runs/{run_id}").json()["ended_at"], "its end is told", 60)
    (run,) = on.runs(cluster, long)
    found = (run["state"], run["exit_code"], run["attempt"], run["output_tail"])
    assert found == ("failed", 3, 1, "begun\ndone\n")
    cluster.wait(lambda: len(cluster.workers_up()) == len(on.WORKERS), "all workers are up", 60)
    for one in (job_id, long):
        cluster.request("DELETE", f"/jobs/{one}")
