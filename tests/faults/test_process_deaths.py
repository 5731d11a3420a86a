"""Daemons, runners and leaders that die at the worst moment (T01, T02, T06); T03 to T05 are in tests/soak."""

from __future__ import annotations

import time

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, attempts_of, starts_of, wait_starts
from tests.faults.fixtures import MakeTrial
from tests.faults.leaders import leader_storm
from tests.faults.trial import Bounds
from tests.faults.workload import std

#: A daemon that starts again is well after some seconds.
QUICK = Bounds(recovery_s=10.0, propagation_s=5.0)
STEADY_S = 10.0


def test_t01_worker_kill9_idle(make_trial: MakeTrial) -> None:
    """A daemon that is killed between two runs and started again keeps its tasks; what was due meanwhile runs, once."""
    trial = make_trial(bounds=QUICK)
    for number in range(6):
        trial.post(f"tick-{number}", schedule="*/5 * * * * *", misfire="all")
    for name in trial.jobs:
        trial.owner(name)
    owner = trial.owner("tick-0")
    trial.settle()
    before = reading.assigned(trial.fleet)
    for kills in range(2):
        wait_starts(trial, "tick-0", 3 * kills + 1)
        trial.wait(1.0)
        with trial.fault(FaultKind.WORKER_KILLED, [owner]):
            trial.wait(1.0)
    trial.finish(steady_s=STEADY_S)
    assert reading.assigned(trial.fleet) == before


def test_t02_worker_kill9_midrun(make_trial: MakeTrial) -> None:
    """The run outlives its daemon: it ends once, and the next daemon tells its exit status."""
    trial = make_trial(bounds=QUICK)
    trial.post("long", schedule="*/15 * * * * *", sleep_s=6, exit_status=3)
    owner = trial.owner("long")
    std(trial, jobs=6)
    wait_starts(trial, "long", len(trial.starts("long")) + 1)
    fire_time = trial.starts("long")[-1]["fire_time"]
    trial.wait(1.0)
    with trial.fault(FaultKind.WORKER_KILLED, [owner]):
        trial.wait(2.0)
    trial.finish(steady_s=STEADY_S)
    assert trial.owner("long") == owner
    (run,) = attempts_of(trial, "long", fire_time)
    assert (run["state"], run["exit_code"], run["attempt"], run["worker"]) == ("failed", 3, 1, owner), run
    assert len(starts_of(trial, "long", fire_time)) == 1


def test_t06_leader_kill9_storm(make_trial: MakeTrial) -> None:
    """Each leader is replaced within ten seconds, and no fire notices."""
    trial = make_trial(bounds=QUICK)
    trial.post("tick", schedule="*/2 * * * * *")
    std(trial, jobs=6)
    trial.settle()
    since_s = time.time()
    leader_storm(trial, kills=4, every_s=9.0)
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    assert max(late) <= trial.bounds.on_time_s
    trial.finish(steady_s=STEADY_S)
