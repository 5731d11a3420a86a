"""Very many fires at once (T47), and jobs that behave badly (T49)."""

from __future__ import annotations

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from tests.faults import reading
from tests.faults.deaths import assert_unbroken, spread, wait_for, wait_starts
from tests.faults.fleet import Fleet
from tests.faults.parts import runner_pids
from tests.faults.trial import Bounds, Trial

#: Jobs in the herd; the catalogue's 5,000 take a machine of its own.
HERD = int(os.environ.get("CRONKEEPER_HERD", "1000"))
#: A probe syncs twice, and two processors are shared by all nodes here.
LATE_S = 10.0 + HERD * 0.03
#: A herd is over before the next is due.
EVERY_MIN = int(LATE_S // 60) + 1
#: So often the whole herd is due.
HERDS = 2
_BATCH = 500


@pytest.mark.timeout(3600)
def test_t47_herd_same_minute(tmp_path: Path) -> None:
    """All jobs of a herd are due in the same second, twice: none is lost, and the last begins within a bound."""
    bounds = Bounds(on_time_s=LATE_S)
    with Fleet() as fleet, Trial(fleet, tmp_path / "history", bounds=bounds, keeps_jobs=True) as trial:
        names = [f"herd-{number}" for number in range(HERD)]
        for begin in range(0, HERD, _BATCH):
            trial.post_herd(names[begin : begin + _BATCH], schedule=f"*/{EVERY_MIN} * * * *", grace_s=3600)
        wait_for(lambda: sum(map(len, reading.assigned(fleet).values())) == HERD, "all are placed", 300, every_s=2)
        trial.wait(trial.bounds.propagation_s + HERDS * EVERY_MIN * 60)
        report = trial.finish(steady_s=1)
    # With these bounds, a fire that is on time is one that began within LATE_S.
    assert report.counts["on_time"] >= HERDS * HERD, report.counts


#: What a job runs, and how its run ends: state, exit code, signal.
BAD: dict[str, tuple[str, dict[str, Any], tuple[str, int | None, int | None]]] = {
    "binary": ("head -c 400000000 /dev/urandom", {}, ("succeeded", 0, None)),
    "lines": ("yes $(head -c 100000 /dev/zero | tr '\\0' x) | head -c 300000000", {}, ("succeeded", 0, None)),
    "silent": ("exec >&- 2>&-; sleep 2; exit 7", {}, ("failed", 7, None)),
    "daemon": ("setsid sh -c 'sleep 15; yes | head -c 1000000' & exit 5", {}, ("failed", 5, None)),
    "stubborn": ("trap '' TERM; while :; do sleep 1; done", {"timeout_s": 2}, ("timed_out", None, 9)),
    "forks": ("for i in $(seq 200); do sleep 3 & done; wait; exit 3", {}, ("failed", 3, None)),
    "killed": ("kill -SEGV $$", {}, ("failed", None, 11)),
}


def test_t49_output_flood(trial: Trial) -> None:
    """Jobs that print hundreds of megabytes (ten gigabytes would say no more), hide, ignore signals or fork: each ends
    with the truth, the node's memory and disk stay small, and the other jobs are on time."""
    trial.post("tick", schedule="*/2 * * * * *")
    owner = trial.owner("tick")
    wait_starts(trial, "tick", 2)
    cluster, since_s = trial.fleet.cluster, time.time()
    zone = next(one["labels"]["zone"] for one in cluster.get("/workers").json() if one["id"] == owner)
    jobs = {}
    try:
        for name, (text, fields, _) in BAD.items():
            job = cluster.post_job(
                executable=text, type="command", schedule="0 0 1 1 *", selector=f"zone == {zone}", **fields
            )
            jobs[name] = job["id"]
            cluster.wait(partial(cluster.owner, job["id"]), f"{name} is placed")
            assert cluster.request("POST", f"/jobs/{job['id']}/run").status < 300
        most_kib = 0
        for name, (_, _, wanted) in BAD.items():
            run = cluster.wait(partial(_ended, trial, jobs[name]), f"{name} ends", 90) or {}
            assert (run["state"], run["exit_code"], run["signal"]) == wanted, (name, run)
            most_kib = max(most_kib, *(_memory_kib(pid) for pid in _ours(trial, owner)))
        used = sum(path.stat().st_size for path in cluster.state_dir(owner).rglob("*") if path.is_file())
        print(f"most memory of one process {most_kib // 1024} MiB, disk {used >> 20} MiB")
        assert most_kib < 300 * 1024
        assert used < 100 << 20
    finally:
        for job_id in jobs.values():
            cluster.request("DELETE", f"/jobs/{job_id}?purge=true")
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    print(f"the others meanwhile: {spread(late)}")
    trial.finish()


def _ended(trial: Trial, job_id: str) -> dict[str, Any] | None:
    return next((run for run in trial.fleet.cluster.runs(job_id) if run["ended_at"] is not None), None)


def _ours(trial: Trial, worker: str) -> list[int]:
    return [trial.fleet.cluster.workers[worker].pid, *runner_pids(trial.fleet.cluster.nodes[worker])]


def _memory_kib(pid: int) -> int:
    """Return the most memory that a process ever had."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(next(line.split()[1] for line in status.splitlines() if line.startswith("VmHWM:")))
