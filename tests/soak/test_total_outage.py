"""An hour without a platform, compressed: every store, manager and API server is killed, and then the daemons, too."""

from __future__ import annotations

import contextlib
import time
from typing import Any

import pytest

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import lateness_s, spread, wait_for, wait_starts
from tests.faults.fixtures import MakeTrial
from tests.faults.nemesis import wait_stores
from tests.faults.trial import Bounds, Trial

pytestmark = pytest.mark.timeout(1200)

#: Of a job that fires every two seconds, more fires fall into this than of one that fires every minute into an hour.
OUTAGE_S = 135.0
#: The cron entries alone: two minutes of cron's fall into it.
CRON_ALONE_S = 125.0
COMPLETE_S = 60.0
JOBS = 6


def test_an_hour_of_total_outage_loses_no_fire(make_trial: MakeTrial) -> None:
    """All fires run, on time while the daemon lives and by cron alone after it; the ledger is whole a minute later."""
    trial = make_trial(bounds=Bounds(recovery_s=COMPLETE_S))
    for number in range(JOBS):
        trial.post(f"tick-{number}", schedule="@every 2s", misfire="all", concurrency="allow", grace_s=3600)
    for name in trial.jobs:
        trial.owner(name)
        wait_starts(trial, name, 2)
    trial.settle()
    fleet = trial.fleet
    before = reading.assigned(fleet)
    trial.strike(FaultKind.MYSQL_DOWN, ["mysql"])
    trial.strike(FaultKind.ZOOKEEPER_QUORUM_LOST, fleet.zookeepers)
    trial.strike(FaultKind.S3_DOWN, ["s3"])
    trial.strike(FaultKind.LEADER_KILLED, fleet.managers)
    trial.strike(FaultKind.API_KILLED, fleet.apis)
    down_s = time.time()
    trial.wait(OUTAGE_S)
    alone_s = time.time()
    daemons = trial.strike(FaultKind.WORKER_KILLED, fleet.workers)
    trial.wait(CRON_ALONE_S)
    by_cron = _fires(trial, alone_s, time.time())
    daemons.heal()
    trial.heal()
    wait_stores(fleet)
    back_s = time.time()
    wait_for(lambda: _is_whole(trial, back_s), "the ledger is whole", COMPLETE_S, every_s=1.0)
    print(f"the ledger was whole {time.time() - back_s:.1f} s after the stores' return")
    by_daemon = _fires(trial, down_s, alone_s)
    counts = [len([line for line in by_daemon if line["name"] == name]) for name in trial.jobs]
    print(f"{sum(counts)} fires of {JOBS} jobs without a platform, lateness: {spread(map(lateness_s, by_daemon))}")
    print(f"{len(by_cron)} fires by cron alone, lateness: {spread(map(lateness_s, by_cron))}")
    assert min(counts) >= 60, counts
    assert {line["name"] for line in by_cron} == set(trial.jobs)
    trial.finish()
    assert reading.assigned(fleet) == before


def _fires(trial: Trial, since_s: float, until_s: float) -> list[dict[str, Any]]:
    """Return the start lines that were written between two instants."""
    return [line for name in trial.jobs for line in trial.starts(name) if since_s <= line["wall_s"] < until_s]


def _is_whole(trial: Trial, until_s: float) -> bool:
    """Say whether every run that began before an instant is in the ledger with its end, as the job itself tells it."""
    with contextlib.suppress(OSError, AssertionError):
        ids = [str(posted.id) for posted in trial.jobs.values()]
        told = {run["id"]: run["state"] for run in reading.ledger(trial.fleet.cluster, ids, before_s=time.time())}
        begun = {line["run"] for line in _fires(trial, 0.0, until_s)}
        return all(told.get(run) == "succeeded" for run in begun)
    return False
