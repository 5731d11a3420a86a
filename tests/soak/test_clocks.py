"""Clocks that are set, and clocks that are wrong (T36, T37)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.faults import reading
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, log_events, wait_for, wait_starts
from tests.faults.fleet import Fleet, Sizes
from tests.faults.trial import Bounds, Trial
from tests.faults.workload import std

#: Some beats of the lease: the database has said what it thinks of the new clock.
WRONG_S = 8.0


@pytest.fixture(scope="module")
def clocked() -> Iterator[Fleet]:
    """A fleet each of whose nodes has a clock that can be set."""
    with Fleet(Sizes(own_clocks=True)) as fleet:
        yield fleet


@pytest.mark.parametrize("step", [30, 600, 5 * 3600])
def test_t36_clock_step(step: int, clocked: Fleet, tmp_path: Path) -> None:
    """A node's clock, its cron's with it, is set forth, right, back, and right again: no fire notices.

    Before the worker's clock was made steady, a step forth used up all fires of the time in between, and the job was
    silent for as long once the clock was right again.
    """
    with Trial(clocked, tmp_path / "history") as trial:
        std(trial, jobs=9)
        trial.post("tick", schedule="*/2 * * * * *")
        owner = trial.owner("tick")
        wait_starts(trial, "tick", 2)
        first_s = trial.started_s + 15
        for offset_s in (step, -step):
            with trial.fault(FaultKind.CLOCK_STEPPED, [owner], f"{offset_s:+d}"):
                wait_for(lambda: abs(offset_ms(trial, owner)) > 10_000, "the step is seen", 15)
                trial.wait(WRONG_S)
            trial.wait(4)
        trial.finish(steady_s=15)
        assert_unbroken(trial, "tick", 2, since_s=first_s, until_s=time.time())
        told = log_events(clocked.cluster.workers[owner], "clock.stepped")
        assert {step} <= {round(abs(line["step_ms"]) / 1000) for line in told}, told


@pytest.mark.parametrize(("slow", "fast"), [(-40, 40), (-600, 40)])
def test_t37_skew_per_node(slow: int, fast: int, clocked: Fleet, tmp_path: Path) -> None:
    """Nodes whose clocks are wrong from the start fire early and late; a failover between them doubles nothing.

    Nothing new is given to a node that is more than ten seconds off. Fires of the slow node beyond their grace are
    skipped or missed, with a reason. What the fast node ran early is not run again by its heir.
    """
    # After the fast clock is set right its fires have run already, for as long as it was ahead.
    bounds = Bounds(skew_s=fast + 1.0, recovery_s=fast + 15.0)
    with Trial(clocked, tmp_path / "history", bounds=bounds) as trial:
        std(trial, jobs=12)
        given = reading.assigned(clocked)
        # w3 may still count the jobs of the test before as its load, and be given none.
        assert given["w1"] and given["w2"], given
        down = trial.strike(FaultKind.WORKER_KILLED, ["w1", "w2"])
        trial.strike(FaultKind.CLOCK_SKEWED, ["w1"], f"{slow:+d}")
        trial.strike(FaultKind.CLOCK_SKEWED, ["w2"], f"{fast:+d}")
        down.heal()
        wait_for(lambda: offset_ms(trial, "w1") < -10_000 and offset_ms(trial, "w2") > 10_000, "both are seen", 30)
        trial.wait(5)
        trial.post("new", schedule="*/5 * * * * *")
        assert trial.owner("new") == "w3"
        with trial.fault(FaultKind.NODE_KILLED, ["w2"]):
            wait_for(lambda: not reading.assigned(clocked)["w2"], "its tasks go to others", 30)
            heirs = reading.assigned(clocked)
            assert set(given["w1"]) >= set(heirs["w1"]), "a node whose clock is wrong was given tasks"
            trial.wait(5)
        trial.finish(steady_s=15)


def offset_ms(trial: Trial, worker: str) -> int:
    """Return how far a node's clock is ahead of the database's, as the API shows it; 0 if that is not known."""
    shown: list[dict[str, Any]] = trial.fleet.cluster.get("/workers").json()
    return next((one["clock_offset_ms"] or 0 for one in shown if one["id"] == worker), 0)
