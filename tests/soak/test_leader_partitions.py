"""Leaders that are cut from one store or from all nodes, and networks that fall apart (T16 to T19).

The catalogue's minutes are shortened: what decides is whether a cut outlasts sessions and leases, which are of seconds.
"""

from __future__ import annotations

import time

import pytest

from tests.faults.bonds import Bonds
from tests.faults.checker.history import FaultKind
from tests.faults.conftest import MakeTrial
from tests.faults.deaths import assert_unbroken, wait_starts
from tests.faults.leaders import REPLACED_S, leader_now, next_election
from tests.faults.nemesis import random_half
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

CUT_S = 30.0
PART_S = 20.0
ROUNDS = 3
#: A cut from everything is longest in healing: sessions, leases and the ledger come back one after the other.
PARTED = Bounds(recovery_s=45.0)


def _loaded(trial: Trial) -> Bonds:
    """Give the fleet work, one job of it with fires that must all run; return who has what."""
    trial.post("tick", schedule="*/2 * * * * *", misfire="all", concurrency="allow")
    trial.owner("tick")
    std(trial, jobs=10)
    wait_starts(trial, "tick")
    trial.wait(5)
    return Bonds(trial.fleet, int(time.time() * 1000))


def _nothing_noticed(trial: Trial, before: Bonds, since_s: float) -> None:
    """All fires ran on time and nothing has moved, whoever led."""
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    assert max(late) <= trial.bounds.on_time_s
    trial.finish()
    before.assert_no_move()
    before.assert_same_sessions()


def test_t16_manager_leader_cut_from_zk_only(trial: Trial) -> None:
    """Another one leads within ten seconds; the old one writes nothing more; no task moves and no fire is late."""
    before = _loaded(trial)
    leader, since_s = trial.fleet.leader(), time.time()
    with trial.fault(FaultKind.CUT_ZOOKEEPER, [leader]):
        without_s = (next_election(trial, int(since_s * 1000)) - since_s * 1000) / 1000
        print(f"a leader that is cut from ZooKeeper is replaced after {without_s:.1f} s")
        assert without_s <= REPLACED_S
        trial.wait(CUT_S)
        assert leader_now(trial) != leader
        _placed(trial, "posted-without-zookeeper")
    _nothing_noticed(trial, before, since_s)


def test_t16_manager_leader_cut_from_mysql_only(trial: Trial) -> None:
    """Nothing moves, as the workers' sessions say that they live. It learns of new jobs when MySQL is back.

    It goes on leading: if MySQL were away for everybody, nobody else would know the jobs as it does.
    """
    before = _loaded(trial)
    leader, since_s = trial.fleet.leader(), time.time()
    with trial.fault(FaultKind.CUT_MYSQL, [leader]):
        trial.wait(CUT_S)
        assert trial.post("posted-meanwhile", schedule="*/5 * * * * *") is not None
        assert leader_now(trial) == leader
        before.assert_no_move()
    wait_starts(trial, "posted-meanwhile", timeout_s=trial.bounds.propagation_s + 5)
    _nothing_noticed(trial, before, since_s)


def test_t16_manager_leader_cut_from_workers(trial: Trial) -> None:
    """Managers and workers meet in the stores only: nobody notices anything."""
    before = _loaded(trial)
    leader, since_s = trial.fleet.leader(), time.time()
    cut = trial.fleet.network.cut([leader], trial.fleet.workers)
    fault = trial.note_fault(FaultKind.PARTITION, [leader], cut)
    trial.wait(CUT_S)
    fault.heal()
    assert leader_now(trial) == leader
    _nothing_noticed(trial, before, since_s)
    assert leader_now(trial) == leader


def _placed(trial: Trial, name: str) -> None:
    """Whoever leads gives a new job to a worker, and it fires there."""
    trial.post(name, schedule="*/5 * * * * *")
    trial.owner(name)
    wait_starts(trial, name)


@pytest.mark.parametrize(
    "how", ["halves", "ring", "bridge"], ids=["t17_random_halves", "t18_majority_rings", "t19_bridge"]
)
def test_parted(make_trial: MakeTrial, how: str) -> None:
    """Whoever still has a fence asks it; whoever has none does what the job's `delivery` says and reports it.

    Halves: two groups that do not see each other. Ring: everybody sees a majority, no two the same. Bridge: two halves
    with one host in common. Three rounds, drawn anew each time, and time to recover between them.
    """
    trial = make_trial(bounds=PARTED)
    std(trial, jobs=12)
    trial.wait(5)
    everybody = sorted(trial.fleet.network.hosts)
    for _ in range(ROUNDS):
        targets = random_half(everybody, trial.chance) if how == "halves" else everybody
        print(f"parted: {how} {targets}")
        with trial.fault(FaultKind.PARTITION, targets, "" if how == "halves" else how):
            trial.wait(PART_S)
        trial.wait(PART_S / 2)
    trial.finish()
