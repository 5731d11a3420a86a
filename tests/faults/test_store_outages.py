"""A store that is away, as a whole or in part (T22, T27). The loss of either one moves no task and kills no run."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.bonds import assert_no_run_was_killed, loaded
from tests.faults.checker.history import FaultKind
from tests.faults.conftest import MakeTrial
from tests.faults.deaths import assert_unbroken, spread
from tests.faults.fleet import Fleet, Sizes
from tests.faults.trial import Bounds, Trial

#: Longer than a silent witness is waited for (15 s) and a lost worker's tasks take to move (10 s).
QUORUM_LOST_S = 30.0
MYSQL_LOST_S = 28.0
GALERA_S = 20.0
#: Nobody has to be replaced: once the store is back, all is well after some seconds.
QUICK = Bounds(recovery_s=10.0)
STEADY_S = 10.0


def _fired_on(trial: Trial, since_s: float, until_s: float) -> None:
    """Every fire in that time ran, once and on time."""
    late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=until_s)
    print(f"lateness meanwhile: {spread(late)}")
    assert max(late) <= trial.bounds.on_time_s


def test_t22_zk_quorum_loss(make_trial: MakeTrial) -> None:
    """No fire is missed, every session is the same afterwards, nothing has moved, and no run was killed."""
    trial = make_trial(bounds=QUICK)
    before, begun_s = loaded(trial), time.time()
    majority = trial.chance.sample(trial.fleet.zookeepers, 2)
    with trial.fault(FaultKind.ZOOKEEPER_QUORUM_LOST, majority):
        trial.wait(QUORUM_LOST_S)
        _fired_on(trial, begun_s, time.time())
    trial.finish(steady_s=STEADY_S)
    before.assert_same_sessions()
    before.assert_no_move()
    assert_no_run_was_killed(trial)


def test_mysql_loss_moves_nothing_and_kills_nothing(make_trial: MakeTrial) -> None:
    """Without MySQL every fire runs by ZooKeeper's fence; its row follows. Nothing has moved, and no run was killed."""
    trial = make_trial(bounds=QUICK)
    before, begun_s = loaded(trial), time.time()
    with trial.fault(FaultKind.MYSQL_DOWN, ["mysql"]):
        trial.wait(MYSQL_LOST_S)
        since_s, until_s = begun_s, time.time()
    trial.finish(steady_s=STEADY_S)
    assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=until_s)
    before.assert_same_sessions()
    before.assert_no_move()
    assert_no_run_was_killed(trial)


def test_t27_galera_node_kill(tmp_path: Path) -> None:
    """The member that everybody writes to dies: another one takes its place, nothing moves, every fire runs."""
    with Fleet(Sizes(databases=3)) as fleet, Trial(fleet, tmp_path / "history", bounds=QUICK) as trial:
        before, begun_s = loaded(trial), time.time()
        # All statements go to the first member that may be used: see GaleraFront.
        with trial.fault(FaultKind.GALERA_MEMBER_DOWN, [fleet.members[0]]):
            trial.wait(GALERA_S)
            until_s = time.time()
        trial.finish(steady_s=STEADY_S)
        assert_unbroken(trial, "tick", 2, since_s=begun_s, until_s=until_s)
        before.assert_same_sessions()
        before.assert_no_move()
        assert_no_run_was_killed(trial)
