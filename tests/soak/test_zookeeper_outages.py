"""An ensemble that is away for long, that forgets everything, or that ends sessions (T23 to T25)."""

from __future__ import annotations

import contextlib
import time
from functools import partial

from kazoo.client import KazooClient
from kazoo.exceptions import NoNodeError

from tests.faults import reading
from tests.faults.bonds import Bonds, assert_no_run_was_killed, loaded, moves, sessions
from tests.faults.checker.history import FaultKind
from tests.faults.conftest import MakeTrial
from tests.faults.deaths import assert_unbroken, wait_for
from tests.faults.leaders import REPLACED_S, leader_now, next_election
from tests.faults.operation import Healing
from tests.faults.sessions import expire
from tests.faults.trial import Bounds, Trial

#: Many times a session, of six seconds.
QUORUM_LOST_S = 120.0
#: How much later than the ensemble two of three nodes come back: their sessions have ended by then.
STRAGGLE_S = 12.0
WIPED_S = 10.0
QUICK = Bounds(recovery_s=15.0)
REBUILT = Bounds(recovery_s=30.0)


def _all_on_time(trial: Trial, since_s: float, until_s: float) -> None:
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=until_s)
    assert max(late) <= trial.bounds.on_time_s


def test_t23_zk_quorum_loss_long(make_trial: MakeTrial) -> None:
    """Two of three nodes come back long after the quorum, with sessions that have ended: nothing fails over.

    Two minutes instead of ten: nothing in the system counts longer than that while a quorum is away.
    """
    trial = make_trial(bounds=QUICK)
    before, since_s = loaded(trial), time.time()
    lost = trial.strike(FaultKind.ZOOKEEPER_QUORUM_LOST, trial.fleet.zookeepers[:2])
    trial.wait(QUORUM_LOST_S)
    with trial.fault(FaultKind.CUT_ZOOKEEPER, trial.fleet.workers[1:]):
        lost.heal()
        trial.wait(STRAGGLE_S)
        _all_on_time(trial, since_s, time.time())
    trial.finish()
    now = sessions(trial.fleet)
    assert now[trial.fleet.workers[0]] == before.sessions[trial.fleet.workers[0]]
    assert all(now[worker] != before.sessions[worker] for worker in trial.fleet.workers[1:])
    before.assert_no_move()
    assert_no_run_was_killed(trial)


def test_t24_zk_data_wiped(make_trial: MakeTrial) -> None:
    """All of ZooKeeper is lost: tasks and assignments are built anew from MySQL, each task where it was."""
    trial = make_trial(bounds=REBUILT)
    before, since_s = loaded(trial), time.time()
    with trial.fault(FaultKind.ZOOKEEPER_WIPED, trial.fleet.zookeepers):
        trial.wait(WIPED_S)
    wait_for(lambda: _rebuilt(trial, before), "everything is assigned again", 45, every_s=0.5)
    print(f"rebuilt {time.time() - since_s - WIPED_S:.1f} s after the ensemble was back")
    _all_on_time(trial, since_s, time.time())
    trial.finish()
    assert reading.assigned(trial.fleet) == before.assigned
    assert_no_run_was_killed(trial)


def _rebuilt(trial: Trial, before: Bonds) -> bool:
    return {task for tasks in reading.assigned(trial.fleet).values() for task in tasks} == {
        task for tasks in before.assigned.values() for task in tasks
    }


def test_t25_zk_session_expired_forced_on_a_worker(make_trial: MakeTrial) -> None:
    """A worker whose session is ended announces itself anew; its lease says that it lives, so nothing moves."""
    trial = make_trial(bounds=QUICK)
    before, since_s = loaded(trial), time.time()
    owner = trial.owner("tick")
    for _ in range(3):
        session_id = sessions(trial.fleet)[owner]
        _expire(trial, owner, session_id)
        wait_for(partial(_has_another, trial, owner, session_id), "it is back", 20, every_s=0.5)
        trial.wait(5)
    _all_on_time(trial, since_s, time.time())
    trial.finish()
    before.assert_no_move()
    assert_no_run_was_killed(trial)


def test_t25_zk_session_expired_forced_on_the_leader(make_trial: MakeTrial) -> None:
    """A leader whose session is ended leads no more until it is elected anew; another one may come first."""
    trial = make_trial(bounds=QUICK)
    before, since_s = loaded(trial), time.time()
    for _ in range(3):
        leader = wait_for(lambda: leader_now(trial), "a manager leads", 20) or ""
        # Who has lost its leadership begins as a new process: only then is there somebody to follow the next one.
        wait_for(lambda: len(_candidacies(trial)) == len(trial.fleet.managers), "all stand again", 60, every_s=0.5)
        sessions_standing, at_ms = _candidacies(trial), time.time_ns() // 1_000_000
        _expire(trial, leader, sessions_standing[0])
        without_s = (next_election(trial, at_ms) - at_ms) / 1000
        print(f"session of leader {leader} ended, elected after {without_s:.1f} s: {leader_now(trial)}")
        assert without_s <= REPLACED_S
        trial.wait(5)
    _all_on_time(trial, since_s, time.time())
    trial.finish()
    before.assert_no_move()
    before.assert_same_sessions()
    assert moves(trial.fleet, int(since_s * 1000)) == []


def _has_another(trial: Trial, worker: str, session_id: int) -> bool:
    with contextlib.suppress(NoNodeError):
        return sessions(trial.fleet)[worker] != session_id
    return False


def _expire(trial: Trial, host: str, session_id: int) -> None:
    """End a session, and tell the history: for that moment its host is cut from ZooKeeper."""
    expire(trial.fleet, session_id)
    trial.note_fault(FaultKind.CUT_ZOOKEEPER, [host], Healing()).heal()


def _candidacies(trial: Trial) -> list[int]:
    """Return the sessions of the managers that stand for election, the leader's first."""
    hosts, _, chroot = trial.fleet.cluster.env["CRONKEEPER_ZOOKEEPER"].partition("/")
    client = KazooClient(hosts=hosts, auth_data=[("digest", trial.fleet.cluster.env["CRONKEEPER_ZOOKEEPER_AUTH"])])
    client.start(timeout=10)
    try:
        base = f"/{chroot}/leader"
        stats = [client.get(f"{base}/{name}")[1] for name in client.get_children(base)]
        return [stat.ephemeralOwner for stat in sorted(stats, key=lambda stat: stat.czxid) if stat.ephemeralOwner]
    finally:
        client.stop()
        client.close()
