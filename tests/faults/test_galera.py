"""A member of the database's cluster dies (T27)."""

from __future__ import annotations

import time
from pathlib import Path

from tests.faults.bonds import assert_no_run_was_killed, loaded
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken
from tests.faults.fleet import Fleet, Sizes
from tests.faults.trial import Bounds, Trial

GALERA_S = 20.0
#: Nobody has to be replaced: once the store is back, all is well after some seconds.
QUICK = Bounds(recovery_s=8.0)
STEADY_S = 8.0


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
