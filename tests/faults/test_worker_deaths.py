"""Daemons that are killed, and a node that is cut from everything (T01, T02, T14).

They befall one fleet one after the other, so that setting up, recovery and judgement come once.
"""

from __future__ import annotations

from collections.abc import Iterator
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


@dataclass
class Ordeal:
    """What befell the fleet, and what was seen. Every fire was judged already when a test gets it."""

    trial: Trial
    #: Who had what before all of it, after the daemons' deaths, and while w1 was cut off.
    assigned: list[dict[str, list[str]]] = field(default_factory=list)
    #: The owner of `long`, and the fire in which its daemon was killed.
    owner: str = ""
    fire_time: str = ""

    def look(self) -> None:
        self.assigned.append(reading.assigned(self.trial.fleet))

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
        kill_idle(trial)
        found.owner, found.fire_time = kill_midrun(trial)
        trial.wait(BOUNDS.recovery_s)
        found.look()
        assert found.assigned[0]["w1"]
        with trial.fault(FaultKind.CUT_ALL, ["w1"]):
            trial.wait(ISOLATED_S)
            found.look()
        trial.finish(steady_s=STEADY_S)
        yield found


def kill_idle(trial: Trial) -> None:
    """Kill a daemon between two runs of its job, twice; each time it is started again after a second."""
    owner = trial.owner("tick")
    for _ in range(2):
        wait_starts(trial, "tick", len(trial.starts("tick")) + 1)
        trial.wait(1.0)
        with trial.fault(FaultKind.WORKER_KILLED, [owner]):
            trial.wait(1.0)


def kill_midrun(trial: Trial) -> tuple[str, str]:
    """Kill the daemon whose job is running; return its name and the fire time."""
    owner = trial.owner("long")
    wait_starts(trial, "long", len(trial.starts("long")) + 1)
    fire_time = trial.starts("long")[-1]["fire_time"]
    trial.wait(1.0)
    with trial.fault(FaultKind.WORKER_KILLED, [owner]):
        trial.wait(2.0)
    wait_for(lambda: attempts_of(trial, "long", fire_time)[0]["exit_code"] is not None, "its end is told", 20)
    return owner, fire_time


def test_t01_worker_kill9_idle(ordeal: Ordeal) -> None:
    """A daemon that is killed between two runs and started again keeps its tasks; what was due meanwhile runs, once."""
    before, after, _ = ordeal.assigned
    assert after == before


def test_t02_worker_kill9_midrun(ordeal: Ordeal) -> None:
    """The run outlives its daemon: it ends once, and the next daemon tells its exit status."""
    (run,) = ordeal.attempts()
    assert (run["state"], run["exit_code"], run["attempt"], run["worker"]) == ("failed", 3, 1, ordeal.owner), run
    assert len(starts_of(ordeal.trial, "long", ordeal.fire_time)) == 1


def test_t14_worker_isolated(ordeal: Ordeal) -> None:
    """The node fires on; others get its tasks; whatever ran on both sides is told."""
    assert not ordeal.assigned[2]["w1"]
