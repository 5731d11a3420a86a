"""Nodes that are cut from one store, or from everything (T10, T11, T14)."""

from __future__ import annotations

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.fixtures import MakeTrial
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

CUT_S = 15.0
#: Well beyond the time in which a dead worker's tasks are given to others.
ISOLATED_S = 20.0
#: Nobody has to be replaced: once a node is back, all is well after some seconds.
QUICK = Bounds(recovery_s=10.0)
STEADY_S = 10.0


def test_t10_worker_zk_cut_idle(make_trial: MakeTrial) -> None:
    """Nothing moves and nothing is late: the lease in MySQL says that the worker lives."""
    trial = make_trial(bounds=QUICK)
    trial.post("tick", schedule="*/2 * * * * *")
    owner = trial.owner("tick")
    trial.wait(5)
    with trial.fault(FaultKind.CUT_ZOOKEEPER, [owner]):
        trial.wait(CUT_S)
        assert trial.owner("tick") == owner
    trial.finish(steady_s=STEADY_S)
    assert trial.owner("tick") == owner


def test_t11_worker_zk_cut_busy(make_trial: MakeTrial) -> None:
    """The same for a worker that goes on talking to ZooKeeper, whose client then never notices by itself."""
    trial = make_trial(bounds=QUICK)
    names = std(trial, jobs=12)
    before = reading.assigned(trial.fleet)
    with trial.fault(FaultKind.CUT_ZOOKEEPER, ["w1"]):
        for turn in range(int(CUT_S)):
            trial.run(names[turn % len(names)])
            trial.wait(1)
        assert reading.assigned(trial.fleet) == before
    trial.finish(steady_s=STEADY_S)


def test_t14_worker_isolated(trial: Trial) -> None:
    """The node fires on; others get its tasks; whatever ran on both sides is told."""
    std(trial, jobs=12)
    assert reading.assigned(trial.fleet)["w1"]
    with trial.fault(FaultKind.CUT_ALL, ["w1"]):
        trial.wait(ISOLATED_S)
        assert not reading.assigned(trial.fleet)["w1"]
    trial.finish(steady_s=STEADY_S)
