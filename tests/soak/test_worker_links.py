"""Workers whose way to the stores loses answers, comes and goes, or is slow (T12, T15, T20)."""

from __future__ import annotations

import time
from collections import Counter

from tests.faults.bonds import assert_no_run_was_killed, loaded, moves
from tests.faults.checker.history import FaultKind
from tests.faults.conftest import MakeTrial
from tests.faults.deaths import assert_unbroken, spread
from tests.faults.trial import Bounds, Trial

REPLIES_LOST_S = 60.0
FLAPS, OFF_S, ON_S = 24, 3.0, 2.0
SLOW_S = 60.0
SLACK = Bounds(recovery_s=30.0)


def test_t12_worker_zk_replies_lost(trial: Trial) -> None:
    """What it says arrives, so its session may live on; what it hears is nothing: nothing moves and nothing is late."""
    before, since_s = loaded(trial), time.time()
    owner = trial.owner("tick")
    with trial.fault(FaultKind.CUT_ZOOKEEPER, [owner], "replies"):
        trial.wait(REPLIES_LOST_S)
        late = assert_unbroken(trial, "tick", 2, since_s=since_s, until_s=time.time())
        assert max(late) <= trial.bounds.on_time_s
        before.assert_no_move()
    trial.finish()
    before.assert_no_move()
    assert_no_run_was_killed(trial)


def test_t15_worker_flap(make_trial: MakeTrial) -> None:
    """A node that is there for two seconds and gone for three, again and again: no task is tossed to and fro.

    Two minutes instead of five: twenty times what any lease lasts.
    """
    trial = make_trial(bounds=SLACK)
    before, since_ms = loaded(trial), int(time.time() * 1000)
    worker = trial.owner("tick")
    for _ in range(FLAPS):
        with trial.fault(FaultKind.CUT_ALL, [worker]):
            trial.wait(OFF_S)
        trial.wait(ON_S)
    told = [line for line in moves(trial.fleet, since_ms) if line["event"] != "task.revoked"]
    assert all("task" in line for line in told), told
    times = Counter(line["task"] for line in told)
    print(f"{len(times)} of {len(before.assigned[worker])} tasks moved: {dict(times)}")
    assert not times or max(times.values()) <= 1, told
    trial.finish()


def test_t20_latency_200ms_jitter_loss5(make_trial: MakeTrial) -> None:
    """Every packet to a store is late, some get lost: fires may be a little late, nothing moves, nothing is doubled."""
    trial = make_trial(bounds=SLACK)
    before, since_s = loaded(trial), time.time()
    fleet = trial.fleet
    with trial.fault(FaultKind.LATENCY, [*fleet.workers, *fleet.managers, *fleet.apis], "loss"):
        trial.wait(SLOW_S)
        until_s = time.time()
    trial.finish()
    print(f"lateness meanwhile: {spread(assert_unbroken(trial, 'tick', 2, since_s=since_s, until_s=until_s))}")
    before.assert_no_move()
    assert_no_run_was_killed(trial)
