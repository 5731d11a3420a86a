"""Nodes that are cut from one store, or from everything, for long (T13, T14), and what a late comer then does."""

from __future__ import annotations

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.trial import Trial
from tests.faults.workload import std

CUT_S = 60.0
ISOLATED_S = 300.0


def test_t13_worker_mysql_cut(trial: Trial) -> None:
    """Nothing moves; ZooKeeper is the fence of the jobs that want to run, the others wait for MySQL or are skipped."""
    std(trial, jobs=12)
    trial.wait(5)
    before = reading.assigned(trial.fleet)
    with trial.fault(FaultKind.CUT_MYSQL, ["w1"]):
        trial.wait(CUT_S)
        assert reading.assigned(trial.fleet) == before
    trial.finish()


def test_t14_worker_isolated_5min(trial: Trial) -> None:
    """The node fires on; others get its tasks; whatever ran on both sides is told."""
    std(trial)
    trial.wait(5)
    assert reading.assigned(trial.fleet)["w1"]
    with trial.fault(FaultKind.CUT_ALL, ["w1"]):
        trial.wait(ISOLATED_S)
        assert not reading.assigned(trial.fleet)["w1"]
    trial.finish()


def test_a_restarted_worker_leaves_alone_what_went_to_a_node_that_is_cut_from_mysql(trial: Trial) -> None:
    """The new owner's claims are in ZooKeeper, where nobody looks who reaches MySQL: the late comer must not ask."""
    names = std(trial, jobs=12)
    trial.wait(5)
    old = trial.owner(names[0])
    with trial.fault(FaultKind.WORKER_KILLED, [old]):
        trial.fleet.cluster.wait(lambda: not reading.assigned(trial.fleet)[old], "its tasks are moved", 60)
        trial.wait(3)
        cut = trial.strike(FaultKind.CUT_MYSQL, [name for name in trial.fleet.workers if name != old])
        trial.wait(10)
    trial.wait(15)
    cut.heal()
    trial.finish()
