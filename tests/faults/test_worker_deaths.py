"""Daemons that are killed, and a node that is cut from everything (T01, T02, T14).

They befall one fleet one after the other, so that setting up, recovery and judgement come once.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import attempts_of, starts_of, wait_for, wait_starts
from tests.faults.fleet import Fleet
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

pytestmark = pytest.mark.timeout(600)

#: Well beyond the time in which a dead worker's tasks are given to others.
ISOLATED_S = 18.0
BOUNDS = Bounds(recovery_s=12.0, propagation_s=5.0)
STEADY_S = 8.0
#: Nobody who is back by then has been given up: a session's time-out and the leader's grace.
PATIENCE_S = 8.0
#: What the log of a daemon says once it fires.
READY = '"worker.ready"'


@dataclass
class Ordeal:
    """What befell the fleet, and what was seen. Every fire was judged already when a test gets it."""

    trial: Trial
    #: Who had what before all of it, after the daemons' deaths, and while w1 was cut off.
    assigned: list[dict[str, list[str]]] = field(default_factory=list)
    #: The owner of `long`, and the fire in which its daemon was killed.
    owner: str = ""
    fire_time: str = ""
    #: For how long (s) each worker's daemon was away at most, dead or starting.
    away_s: dict[str, float] = field(default_factory=dict)

    def look(self) -> None:
        self.assigned.append(reading.assigned(self.trial.fleet))

    @contextmanager
    def dead(self, worker: str) -> Iterator[None]:
        """Kill a daemon for the block, and wait until the next one is there."""
        log = self.trial.fleet.cluster.workers[worker].log_path
        starts, killed_s = log.read_text().count(READY), time.monotonic()
        with self.trial.fault(FaultKind.WORKER_KILLED, [worker]):
            yield
        wait_for(lambda: log.read_text().count(READY) > starts, f"{worker} is back", 60)
        away_s = time.monotonic() - killed_s
        print(f"the daemon of {worker} was away for {away_s:.1f} s")
        self.away_s[worker] = max(away_s, self.away_s.get(worker, 0.0))

    def attempts(self) -> list[dict[str, Any]]:
        return attempts_of(self.trial, "long", self.fire_time)


@pytest.fixture(scope="module")
def ordeal(fleet: Fleet, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Ordeal]:
    with Trial(fleet, tmp_path_factory.mktemp("ordeal") / "history", bounds=BOUNDS) as trial:
        found = Ordeal(trial)
        trial.post("tick", schedule="*/5 * * * * *", misfire="all")
        trial.post("long", schedule="*/12 * * * * *", sleep_s=6, exit_status=3)
        std(trial, jobs=9)
        found.look()
        kill_idle(found)
        kill_midrun(found)
        trial.wait(BOUNDS.recovery_s)
        found.look()
        assert found.assigned[0]["w1"]
        with trial.fault(FaultKind.CUT_ALL, ["w1"]):
            trial.wait(ISOLATED_S)
            found.look()
        trial.finish(steady_s=STEADY_S)
        yield found


def kill_idle(ordeal: Ordeal) -> None:
    """Kill a daemon between two runs of its job, twice; each time it is started again after a second."""
    trial = ordeal.trial
    owner = trial.owner("tick")
    for _ in range(2):
        wait_starts(trial, "tick", len(trial.starts("tick")) + 1)
        trial.wait(1.0)
        with ordeal.dead(owner):
            trial.wait(1.0)


def kill_midrun(ordeal: Ordeal) -> None:
    """Kill the daemon whose job is running."""
    trial = ordeal.trial
    ordeal.owner = trial.owner("long")
    wait_starts(trial, "long", len(trial.starts("long")) + 1)
    ordeal.fire_time = trial.starts("long")[-1]["fire_time"]
    trial.wait(1.0)
    with ordeal.dead(ordeal.owner):
        trial.wait(1.0)
    wait_for(lambda: ordeal.attempts()[0]["exit_code"] is not None, "its end is told", 20)


def homes(assigned: dict[str, list[str]]) -> dict[str, str]:
    return {task: worker for worker, tasks in assigned.items() for task in tasks}


def test_t01_worker_kill9_idle(ordeal: Ordeal) -> None:
    """A daemon that is killed between two runs and started again keeps its tasks; what was due meanwhile runs, once."""
    before, after, _ = map(homes, ordeal.assigned)
    moved = {before[task] for task in before if after.get(task) != before[task]}
    # Whoever takes longer than the leader's patience to start is given up, rightly: on a slow machine only.
    assert moved <= {worker for worker, away_s in ordeal.away_s.items() if away_s > PATIENCE_S}, ordeal.away_s
    assert after.keys() == before.keys()


def test_t02_worker_kill9_midrun(ordeal: Ordeal) -> None:
    """The run outlives its daemon: it ends once, and the next daemon tells its exit status."""
    (run,) = ordeal.attempts()
    assert (run["state"], run["exit_code"], run["attempt"], run["worker"]) == ("failed", 3, 1, ordeal.owner), run
    assert len(starts_of(ordeal.trial, "long", ordeal.fire_time)) == 1


def test_t14_worker_isolated(ordeal: Ordeal) -> None:
    """The node fires on; others get its tasks; whatever ran on both sides is told."""
    assert not ordeal.assigned[2]["w1"]
