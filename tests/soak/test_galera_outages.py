"""A Galera cluster whose members stop or lose each other (T28, T29)."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.bonds import Bonds, assert_no_run_was_killed, loaded
from tests.faults.checker.history import FaultKind
from tests.faults.deaths import assert_unbroken, spread
from tests.faults.fleet import Fleet, Sizes
from tests.faults.trial import Bounds, Trial

STOPPED_S = 20.0
NO_PRIMARY_S = 60.0
BOUNDS = Bounds(recovery_s=20.0)


@pytest.fixture(scope="module")
def galera_fleet() -> Iterator[Fleet]:
    """A fleet on a Galera cluster."""
    with Fleet(Sizes(databases=3)) as running:
        yield running


@pytest.fixture
def galera_trial(galera_fleet: Fleet, tmp_path: Path) -> Iterator[Trial]:
    with Trial(galera_fleet, tmp_path / "history", bounds=BOUNDS) as begun:
        yield begun


def _every_fire_ran(trial: Trial, before: Bonds, since_s: float, until_s: float) -> None:
    trial.finish()
    print(f"lateness meanwhile: {spread(assert_unbroken(trial, 'tick', 2, since_s=since_s, until_s=until_s))}")
    before.assert_no_move()
    before.assert_same_sessions()
    assert_no_run_was_killed(trial)


@pytest.mark.parametrize("member", [0, 2], ids=["that_serves", "that_does_not"])
def test_t28_galera_node_sigstop(galera_trial: Trial, member: int) -> None:
    """Every commit stalls until the others expel the member, about six seconds; the fires do not wait for that."""
    trial = galera_trial
    before, since_s = loaded(trial), time.time()
    with trial.fault(FaultKind.GALERA_MEMBER_DOWN, [trial.fleet.members[member]], "pause"):
        trial.wait(STOPPED_S)
        until_s = time.time()
    _every_fire_ran(trial, before, since_s, until_s)


def test_t29_galera_non_primary(galera_trial: Trial) -> None:
    """No member has a majority: all take connections and refuse all statements. It is as if MySQL were away.

    One minute instead of two: connections, leases and grace times are shorter than that.
    """
    trial = galera_trial
    before, since_s = loaded(trial), time.time()
    with trial.fault(FaultKind.GALERA_NO_PRIMARY, trial.fleet.members):
        trial.wait(NO_PRIMARY_S)
        until_s = time.time()
    _every_fire_ran(trial, before, since_s, until_s)
