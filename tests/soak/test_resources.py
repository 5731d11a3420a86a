"""Slow disks, memory, descriptors, and suspended nodes (T38, T44, T45, T46)."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from pathlib import Path

import pytest

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import log_events, runs_of, wait_for, wait_starts
from tests.faults.failpoints import workload
from tests.faults.fixtures import MakeTrial
from tests.faults.parts import part
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

SUSPENDED_S = 60.0
SLOW_S = 30.0
STARVED_S = 15.0


def test_t38_suspend_resume(trial: Trial) -> None:
    """A whole node stands still for longer than the leader waits: its tasks go to others; on waking it starts nothing
    that they have started. (A minute instead of ten: all that counts is over after some ten seconds.)"""
    std(trial, jobs=12)
    trial.post("tick", schedule="*/2 * * * * *")
    owner = trial.owner("tick")
    wait_starts(trial, "tick", 2)
    with trial.fault(FaultKind.NODE_PAUSED, [owner]):
        wait_for(lambda: trial.owner("tick") != owner, "another node has it", 30)
        assert time.time() - trial.started_s < SUSPENDED_S
        trial.wait(SUSPENDED_S)
        assert not reading.assigned(trial.fleet)[owner]
    trial.finish()


@pytest.mark.parametrize("delay_s", ["0.3", "1.5"])
def test_t44_slow_fsync(delay_s: str, trial: Trial) -> None:
    """Every fsync of a worker takes long: its fires are late, its lease is not, and nothing is taken from it."""
    # Among these, those that queue have to run at every fire; the others may skip one while a run is slow to end.
    owner = workload(trial)
    before = _assigned(trial)
    assert {node for node, tasks in before.items() if tasks} == {owner}
    with trial.fault(FaultKind.SLOW_DISK, [owner], delay_s):
        trial.wait(SLOW_S)
        assert _assigned(trial) == before
    trial.finish()
    assert _assigned(trial) == before
    told = log_events(trial.fleet.cluster.workers[owner], "worker.was_lost")
    assert not [line for line in told if line["at_ms"] > trial.started_s * 1000]


def _assigned(trial: Trial) -> dict[str, list[str]]:
    """Return who has which of this trial's tasks: those of the trial before may be there for some seconds still."""
    ours = {posted.id for posted in trial.jobs.values()}
    given = reading.assigned(trial.fleet)
    return {node: [task for task in tasks if task.partition("/")[0] in ours] for node, tasks in given.items()}


def test_t45_oom_job(trial: Trial) -> None:
    """A job that the kernel kills (by SIGKILL, as for want of memory) has failed by a signal; all else goes on."""
    trial.post("tick", schedule="*/2 * * * * *")
    trial.post("big", schedule="*/15 * * * * *", sleep_s=6)
    owner = trial.owner("big")
    wait_starts(trial, "big")
    node = trial.fleet.cluster.nodes[owner]
    # As the kernel does with a control group: the shell that the runner started, and what it started, none before
    # another. The runner ends what the shell leaves, and may be quicker.
    pids = [pid for pid in node.pids() if " big " in _command(pid)]
    assert pids
    for number in (signal.SIGSTOP, signal.SIGKILL):
        for pid in pids:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
    run = wait_for(lambda: next((one for one in runs_of(trial, "big") if one["ended_at"]), None), "its end is told", 15)
    assert run is not None
    assert (run["state"], run["signal"], run["exit_code"]) == ("failed", 9, None), run
    trial.finish(steady_s=15)


def _command(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace").replace("\0", " ")
    except OSError:
        return ""  # it ended meanwhile


def test_t45_oom_daemon(make_trial: MakeTrial) -> None:
    """The kernel kills daemon and runner at once, amid runs: each fire is there in the end, with its end."""
    trial = make_trial(bounds=Bounds(recovery_s=15.0))
    std(trial, jobs=9)
    trial.post("long", schedule="*/15 * * * * *", sleep_s=6, exit_status=3, on_worker_loss="rerun")
    owner = trial.owner("long")
    for _ in range(3):
        count = len(trial.starts("long"))
        wait_starts(trial, "long", count + 1)
        trial.wait(1)
        trial.strike(FaultKind.RUNNER_KILLED, [owner])
        with trial.fault(FaultKind.WORKER_KILLED, [owner]):
            trial.wait(2)
        assert part(trial.fleet, owner).running
        trial.wait(5)
    trial.finish(steady_s=20)


@pytest.mark.parametrize("which", ["runner", "worker"])
def test_t46_fd_exhaustion(which: str, trial: Trial) -> None:
    """Who can open nothing starts nothing, says so, lives, and goes on when it can."""
    std(trial, jobs=9)
    trial.post("tick", schedule="*/2 * * * * *")
    owner = trial.owner("tick")
    wait_starts(trial, "tick", 2)
    worker = trial.fleet.cluster.workers[owner]
    pid = worker.pid
    with trial.fault(FaultKind.FILES_EXHAUSTED, [owner], which):
        trial.wait(STARVED_S)
        if which == "runner":
            failed = [one for one in runs_of(trial, "tick") if one["reason"] == "spawn_failed"]
            assert failed, "no run says that it could not be started"
            assert "open files" in failed[-1]["output_tail"], failed[-1]
    trial.finish()
    assert worker.running
    assert worker.pid == pid, "the daemon did not live through it"
