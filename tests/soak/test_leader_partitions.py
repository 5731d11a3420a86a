"""Leaders that are cut from one store or from all nodes, and networks that fall apart (T16 to T19).

The catalogue's minutes are shortened: what decides is whether a cut outlasts sessions and leases, which are of seconds.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from tests.faults.bonds import Bonds, loaded
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
#: From a cut of the leader alone from MySQL until a new job fires: 10 s of patience, MySQL's and the election's own
#: time-outs, and the job's next fire.
GIVEN_WAY_S = 27.0
#: A cut from everything is longest in healing: sessions, leases and the ledger come back one after the other.
PARTED = Bounds(recovery_s=45.0)


def _nothing_noticed(trial: Trial, before: Bonds, since_s: float) -> None:
    """All fires ran on time and nothing has moved, whoever led."""
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
    assert max(late) <= trial.bounds.on_time_s
    trial.finish()
    before.assert_no_move()
    before.assert_same_sessions()


def test_t16_manager_leader_cut_from_zk_only(trial: Trial) -> None:
    """Another one leads within ten seconds; the old one writes nothing more; no task moves and no fire is late."""
    before = loaded(trial)
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
    """Another one leads, whom MySQL answers; a job posted meanwhile fires before the cut ends; nothing moves."""
    before = loaded(trial)
    leader, since_s = trial.fleet.leader(), time.time()
    with trial.fault(FaultKind.CUT_MYSQL, [leader]):
        trial.wait(1)
        assert trial.post("posted-meanwhile", schedule="*/5 * * * * *") is not None
        wait_starts(trial, "posted-meanwhile", timeout_s=GIVEN_WAY_S)
        print(f"a job posted under a leader that is cut from MySQL fired {time.time() - since_s:.1f} s after the cut")
        assert leader_now(trial) != leader
        trial.wait(max(0.0, since_s + CUT_S - time.time()))
        successor = leader_now(trial)
        assert successor not in (None, leader)
        before.assert_no_move()
    trial.wait(PART_S)
    assert leader_now(trial) == successor, "it comes back as a follower"
    _nothing_noticed(trial, before, since_s)


def test_t16_manager_leader_cut_from_workers(trial: Trial) -> None:
    """Managers and workers meet in the stores only: nobody notices anything."""
    before = loaded(trial)
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


def test_t17_random_halves(make_trial: MakeTrial) -> None:
    """Two groups that do not see each other, drawn anew three times: whoever has a fence asks it, and all is told."""
    trial = _parting(make_trial)
    everybody = sorted(trial.fleet.network.hosts)
    for _ in range(ROUNDS):
        half = random_half(everybody, trial.chance)
        print(f"cut from the others: {half}")
        _part(trial, half, "")
    trial.finish()


def test_t18_majority_rings(make_trial: MakeTrial) -> None:
    """Everybody sees a majority, no two the same one: nobody knows who is dead, and nothing is doubled in silence."""
    trial = _parting(make_trial)
    for _ in range(ROUNDS):
        _part(trial, sorted(trial.fleet.network.hosts), "ring")
    trial.finish()


def test_t19_bridge(make_trial: MakeTrial) -> None:
    """Two halves that have one host in common: the same."""
    trial = _parting(make_trial)
    for _ in range(ROUNDS):
        _part(trial, sorted(trial.fleet.network.hosts), "bridge")
    trial.finish()


def _parting(make_trial: MakeTrial) -> Trial:
    trial = make_trial(bounds=PARTED)
    std(trial, jobs=12)
    trial.wait(5)
    return trial


def _part(trial: Trial, targets: Sequence[str], how: str) -> None:
    """Part the network for a while, and then let it come together for half as long."""
    with trial.fault(FaultKind.PARTITION, targets, how):
        trial.wait(PART_S)
    trial.wait(PART_S / 2)
