"""A few deaths in the middle of system calls (T60); all of them: tests/soak."""

from __future__ import annotations

from tests.faults.failpoints import Failpoint, sweep_runner, sweep_worker, workload
from tests.faults.fixtures import MakeTrial
from tests.faults.trial import Bounds

#: Journal, claim, crontab.
WORKER = [Failpoint("fdatasync", 2), Failpoint("pwrite64", 9), Failpoint("rename", 1), Failpoint("sendto", 12)]
#: The run's folder, the process, what is told of it.
RUNNER = [Failpoint("mkdir", 1), Failpoint("rename", 1), Failpoint("sendto", 2), Failpoint("epoll_wait", 3)]
BOUNDS = Bounds(recovery_s=10.0)


def test_t60_failpoints_worker(make_trial: MakeTrial) -> None:
    """A daemon that dies at a boundary of its writes and is started again has lost nothing and doubles nothing."""
    trial = make_trial(bounds=BOUNDS)
    worker = workload(trial)
    reached = sweep_worker(trial, worker, WORKER)
    assert len(reached) > len(WORKER) // 2, reached
    trial.finish(steady_s=10)


def test_t60_failpoints_runner(make_trial: MakeTrial) -> None:
    """The same for the process that starts and watches the runs."""
    trial = make_trial(bounds=BOUNDS)
    worker = workload(trial)
    reached = sweep_runner(trial, worker, RUNNER)
    assert len(reached) > len(RUNNER) // 2, reached
    trial.finish(steady_s=10)
