"""A secret is planted in a whole cluster, used, printed, and then searched for wherever anything is kept or told.

Beside it a decoy is planted, a plain variable that is printed as well: wherever the secret is not found, the decoy is,
so that a search which looks at nothing fails.
"""

from __future__ import annotations

import base64
import secrets
import stat
from pathlib import Path
from typing import Any

import pytest

from tests.harness.cluster import Cluster
from tests.harness.mariadb import MariaDB
from tests.harness.traces import Traces

_PRINTS = "; ".join(
    [
        r"""printf 'as it is: %s and %s\n' "$CANARY" "$DECOY" """,
        """printf '%s' "$CANARY" | base64 -w0; echo; printf '%s' "$DECOY" | base64 -w0; echo""",
        r"""printf 'in pieces: '; printf '%.9s' "$CANARY"; sleep 0.3; printf '%s\n' "${CANARY#?????????}" """,
        """cat "$CANARY_FILE"; echo""",
        """test "$(cat "$CANARY_FILE")" = "$CANARY" && echo they are alike""",
    ]
)


@pytest.fixture
def canary(cluster: Cluster) -> str:
    value = f"c4nary {secrets.token_hex(8)}/+{secrets.token_hex(8)}"
    answer = cluster.request("PUT", "/secrets/canary", {"value": value})
    assert answer.status == 200, answer.body
    assert value.encode() not in answer.body
    return value


def job_on_w1(cluster: Cluster, decoy: str, command: str, schedule: str) -> str:
    env = {"CANARY": {"secret": "canary"}, "CANARY_FILE": {"secret": "canary", "as": "file"}, "DECOY": decoy}
    # It fails: failures leave more traces than successes. Without a retry, so that the last run is the last.
    job = cluster.post_job(
        executable=command, schedule=schedule, type="command", env=env, selector="zone=a",
        concurrency="allow",
    )  # fmt: skip
    cluster.wait(lambda: cluster.owner(job["id"]) == "w1", "w1 has it")
    return str(job["id"])


def newest(cluster: Cluster, job_id: str, state: str, count: int = 1) -> dict[str, Any]:
    """Wait for so many runs of that state; return the newest one."""
    found = cluster.wait(
        lambda: found if len(found := [run for run in cluster.runs(job_id) if run["state"] == state]) >= count else [],
        f"{count} runs of job {job_id} are {state}", 150,
    )  # fmt: skip
    return found[0]


def test_a_secret_is_nowhere_but_in_its_run(cluster: Cluster, mariadb_server: MariaDB, canary: str) -> None:
    decoy = f"d3coy {secrets.token_hex(8)}/+{secrets.token_hex(8)}"
    trace, control = Traces(cluster, canary), Traces(cluster, decoy)
    # Whole by the daemon, and then by cron's stand-in: while the daemon is dead, cron alone fires.
    job_id = job_on_w1(cluster, decoy, f"{_PRINTS}; sleep 4; exit 3", "* * * * *")
    assert cluster.request("POST", f"/jobs/{job_id}/run", {}).status < 300
    run = newest(cluster, job_id, "running")
    mine, others = trace.in_processes(run["id"])
    assert mine, "the run itself has it: else nothing is proven"
    assert others == []
    file = cluster.state_dir("w1") / "runs" / run["id"] / "secrets" / "CANARY_FILE"
    assert (file.read_text(), stat.S_IMODE(file.stat().st_mode)) == (canary, 0o400)

    newest(cluster, job_id, "failed")
    cluster.workers["w1"].kill()
    known = {found["id"] for found in cluster.runs(job_id)}
    by_cron = cluster.wait(
        lambda: [found for found in cluster.runs(job_id) if found["id"] not in known and found["state"] == "failed"],
        "cron's stand-in has run it", 150,
    )  # fmt: skip
    assert all("they are alike" in found["output_tail"] for found in by_cron), by_cron
    cluster.workers["w1"].start()
    assert cluster.request("POST", f"/jobs/{job_id}/run", {}).status < 300
    run = newest(cluster, job_id, "running")
    # A daemon that dies while its run goes on: the next one takes the run over.
    cluster.workers["w1"].kill()
    cluster.workers["w1"].start()
    cluster.wait(lambda: cluster.get(f"/runs/{run['id']}").json()["state"] == "failed", "it has ended", 60)
    cluster.request("POST", f"/jobs/{job_id}/pause", {})
    cluster.wait(lambda: not [one for one in cluster.runs(job_id) if one["state"] == "running"], "all have ended", 90)

    log = cluster.get(f"/runs/{run['id']}/log").body
    assert log == (
        f"as it is: *** and {decoy}\n***\n".encode()
        + base64.b64encode(decoy.encode())
        + b"\nin pieces: ***\n***\nthey are alike\n"
    )
    cluster.wait(lambda: not list((cluster.state_dir("w1") / "runs").glob("*")), "no run's folder is left", 60)

    folders = [cluster.folder, mariadb_server.data_dir, cluster.objects.folder, cluster.zookeeper.folder]
    parts = {"job_id": job_id, "run_id": run["id"], "worker_id": "w1", "name": "canary"}
    seen = {"tables": control.in_tables(), "znodes": control.in_znodes(), "answers": control.in_answers(parts)}
    seen["files"] = control.in_files(*folders)
    # The control: what is no secret stands in all of these, and so would a secret that is treated as one.
    assert {"jobs", "job_history", "run_output"} <= set(seen["tables"])
    assert any(path.startswith("/tasks/") for path in seen["znodes"])
    assert {f"/jobs/{job_id}", f"/runs/{run['id']}/log", "/jobs"} <= set(seen["answers"])
    assert any("journal.db" in path for path in seen["files"])
    assert trace.in_tables() == []
    assert trace.in_znodes() == []
    assert trace.in_answers(parts) == []
    assert trace.in_files(*folders) == []
    assert trace.in_processes("none")[1] == []
    _no_core_files(folders)

    cluster.request("DELETE", f"/jobs/{job_id}")
    assert cluster.request("DELETE", "/secrets/canary?force=true").status == 204


def _no_core_files(folders: list[Path]) -> None:
    for process in Path("/proc").glob("[0-9]*"):
        try:
            argv, limits = (process / "cmdline").read_bytes(), (process / "limits").read_text()
        except OSError:
            continue
        if b"cronkeeper" in argv and any(word in argv.split(b"\0") for word in (b"api", b"worker")):
            line = next(line for line in limits.splitlines() if line.startswith("Max core file size"))
            assert line.split()[4] == "0", argv
    assert not [path for folder in folders for path in folder.rglob("core*") if path.is_file() and path.name == "core"]
