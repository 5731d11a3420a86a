"""The figures of docs/measurements.md that need a fleet: failover, goodbyes, and an hour without a platform."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import pytest

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, lateness_s, spread, wait_for, wait_starts
from tests.faults.nemesis import wait_well
from tests.faults.trial import Trial

pytestmark = pytest.mark.timeout(1200)

KILLS = 10
#: A dead node's fires run elsewhere within so long, with default settings.
FAILOVER_S = 10.0
#: No fire is later than that because of a goodbye.
GOODBYE_LATE_S = 1.0
EVERY_SECOND: dict[str, Any] = {"schedule": "* * * * * *", "misfire": "all", "concurrency": "allow", "grace_s": 20}


def test_a_killed_nodes_fires_run_elsewhere_within_ten_seconds(trial: Trial) -> None:
    """Ten nodes are killed, one after the other, each with fires due every second: all of them run, and soon."""
    for number in range(6):
        trial.post(f"tick-{number}", **EVERY_SECOND)
    for name in trial.jobs:
        trial.owner(name)
        wait_starts(trial, name)
    trial.settle()
    moved, late = [], []
    for _ in range(KILLS):
        victim = trial.owner(trial.chance.choice(sorted(trial.jobs)))
        names = [name for name in trial.jobs if trial.owner(name) == victim]
        killed_s = time.time()
        with trial.fault(FaultKind.NODE_KILLED, [victim]):
            for name in names:
                wait_for(partial(_first_elsewhere, trial, name, victim, killed_s), f"{name} fires elsewhere", 30)
            trial.wait(1.0)
        wait_well(trial.fleet)
        moved += [_first_elsewhere(trial, name, victim, killed_s) - killed_s for name in names]
        late += [
            lateness_s(line)
            for name in names
            for line in trial.starts(name)
            if killed_s < line["wall_s"] < killed_s + 30 and line["node"] != victim
        ]
        trial.wait(trial.chance.uniform(0.0, 3.0))
    print(f"from the kill of a node to the first fire of each of its tasks elsewhere: {spread(moved)}")
    print(f"lateness of the fires that fell into the gap, and of the next ones: {spread(late)}")
    assert max(moved) <= FAILOVER_S, moved
    trial.finish()


def test_a_clean_stop_and_a_drain_leave_no_gap(trial: Trial) -> None:
    """A goodbye is no fault: not one fire is skipped, and none is late by more than a second."""
    for number in range(6):
        trial.post(f"tick-{number}", **EVERY_SECOND)
    for name in trial.jobs:
        trial.owner(name)
        wait_starts(trial, name)
    trial.settle()
    cluster, late = trial.fleet.cluster, []
    for turn in range(4):
        worker = trial.owner(trial.chance.choice(sorted(trial.jobs)))
        since_s = time.time()
        if turn % 2:
            assert cluster.request("POST", f"/workers/{worker}/drain", {}).status == 200
            wait_for(lambda worker=worker: not reading.assigned(trial.fleet)[worker], "it is drained", 30)  # type: ignore[misc]
        else:
            cluster.workers[worker].stop()
        trial.wait(8.0)
        until_s = time.time()
        found = [
            value for name in trial.jobs for value in assert_unbroken(trial, name, 1, since_s=since_s, until_s=until_s)
        ]
        print(f"{'drain' if turn % 2 else 'stop'} of {worker}: lateness of {spread(found)}")
        late += found
        if turn % 2:
            assert cluster.request("POST", f"/workers/{worker}/uncordon").status == 200
        else:
            cluster.workers[worker].start()
        wait_well(trial.fleet)
    trial.finish()
    assert max(late) <= GOODBYE_LATE_S


def _first_elsewhere(trial: Trial, name: str, victim: str, after_s: float) -> float:
    """Return when a job began to run on another node than `victim` after an instant, epoch seconds; 0 if it has not."""
    found = [line["wall_s"] for line in trial.starts(name) if line["node"] != victim and line["wall_s"] > after_s]
    return min(found, default=0.0)
