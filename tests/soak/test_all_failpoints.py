"""Deaths at many boundaries of system calls: of a worker, its runner, the leader, and an API server (T60)."""

from __future__ import annotations

import pytest

from tests.faults.checker.history import FaultKind
from tests.faults.deaths import wait_for
from tests.faults.failpoints import Failpoint, killed_inside, points, sweep_runner, sweep_worker, workload
from tests.faults.leaders import leader_now
from tests.faults.operation import Healing
from tests.faults.parts import part
from tests.faults.trial import Trial
from tests.faults.workload import GRACE_S
from tests.harness.cron import children

#: What a daemon does to its journal, its crontab, its folders and the stores.
WORKER_CALLS = ("fdatasync", "fsync", "pwrite64", "rename", "unlink", "sendto", "connect")
#: What a runner does for a run: its folder, its process, its note of the end, its words to the daemon.
RUNNER_CALLS = ("mkdir", "rename", "openat", "write", "pwrite64", "clone", "pidfd_open", "waitid", "sendto", "unlink")
#: What it does for runs that are made together: the lone ones beside them come to these, too.
TOGETHER_CALLS = ("clone", "prctl", "poll", "wait4", "pidfd_open", "pwrite64")
EARLY, LATER = (1, 2, 3, 4, 5, 6, 8), (10, 13, 17, 22, 28, 35)
STORE_CALLS = [Failpoint("sendto", nth) for nth in (1, 2, 3, 4, 5, 7, 9, 12, 16, 21)]


@pytest.mark.parametrize("call", WORKER_CALLS)
def test_t60_failpoints_worker_all(call: str, trial: Trial) -> None:
    """A daemon that dies at a boundary and is started again has lost nothing and doubles nothing."""
    worker = workload(trial)
    reached = sweep_worker(trial, worker, points([call], (*EARLY, *LATER)))
    print(f"{call}: {len(reached)} points: {', '.join(map(str, reached))}")
    trial.finish()
    assert reached, f"{call} is not on the way any more"


@pytest.mark.parametrize("call", RUNNER_CALLS)
def test_t60_failpoints_runner_all(call: str, trial: Trial) -> None:
    """The same for the process that starts and watches the runs."""
    worker = workload(trial)
    reached = sweep_runner(trial, worker, points([call], EARLY))
    print(f"{call}: {len(reached)} points: {', '.join(map(str, reached))}")
    trial.finish()
    assert reached, f"{call} is not on the way any more"


@pytest.mark.parametrize("call", TOGETHER_CALLS)
def test_t60_failpoints_runner_together(call: str, trial: Trial) -> None:
    """The same where a dozen are due in every other second: those that are made together are in the air together."""
    worker = workload(trial)
    fields = {"grace_s": GRACE_S, "selector": "zone == a", "misfire": "all", "concurrency": "queue"}
    trial.post_herd([f"crowd-{number}" for number in range(12)], schedule="*/2 * * * * *", **fields)
    trial.wait(5)
    reached = sweep_runner(trial, worker, points([call], EARLY))
    print(f"{call}: {len(reached)} points: {', '.join(map(str, reached))}")
    trial.finish()
    assert reached, f"{call} is not on the way any more"


def test_t60_failpoints_leader(trial: Trial) -> None:
    """A leader that dies at its nth word to a store, while jobs come and go and a node's tasks are given away."""
    workload(trial)
    for turn, point in enumerate(STORE_CALLS):
        leader = wait_for(lambda: leader_now(trial), "a manager leads", 30) or ""
        process = part(trial.fleet, leader)
        with killed_inside(trial.fleet.manager(leader).pid, point, threads=True) as is_dead:
            trial.post(f"new-{turn}", schedule="*/5 * * * * *", misfire="all", concurrency="queue", grace_s=60)
            trial.run(f"new-{turn}")
            wait_for(is_dead, f"the leader came to {point}", 20)
        fault = trial.note_fault(FaultKind.LEADER_KILLED, [leader], Healing(process.start))
        if turn:
            trial.delete(f"new-{turn - 1}")
        fault.heal()
    trial.finish()


def test_t60_failpoints_api(trial: Trial) -> None:
    """An API server that dies at its nth word to a store, in the middle of `POST /jobs`: what it said is true, and what
    it left open is whole or not there at all."""
    workload(trial)
    for turn, point in enumerate(STORE_CALLS):
        process = trial.fleet.cluster.apis[0]
        pids = [process.pid, *children(process.pid)]
        with killed_inside(pids[-1], point, threads=True) as is_dead:
            trial.post(f"new-{turn}", schedule="*/5 * * * * *", misfire="all", concurrency="queue", grace_s=60)
            dead = is_dead()
        print(f"{point}: {'dead' if dead else 'not reached'}")
        fault = trial.note_fault(FaultKind.API_KILLED, ["api-1"], Healing())
        fault.heal()
        trial.fleet.cluster.wait(lambda: trial.fleet.cluster.get("/readyz").status == 200, "the API is ready", 30)
    trial.finish()
