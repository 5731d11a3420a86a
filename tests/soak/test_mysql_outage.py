"""MySQL is away: its loss moves no task and kills no run."""

from __future__ import annotations

import time

from tests.faults.bonds import assert_no_run_was_killed, loaded
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken
from tests.faults.fixtures import MakeTrial
from tests.faults.trial import Bounds

#: Longer than a silent witness is waited for (15 s) and a lost worker's tasks take to move (10 s).
MYSQL_LOST_S = 30.0
#: Nobody has to be replaced: once the store is back, all is well after some seconds.
QUICK = Bounds(recovery_s=10.0)
STEADY_S = 10.0


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
